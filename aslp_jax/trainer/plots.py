"""Plots of a run: accuracy, keep fractions and keep-probabilities."""

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aslp_jax._atomic import atomic_write
from aslp_jax.trainer.results import EpochRow
from aslp_jax.webpage.charts import spread

__all__ = ["fraction_limits", "histogram", "histogram_limits", "plot_curves"]

_BINS = 50
"""Number of bins of the histogram; even, so that 0.5 is an edge."""


def plot_curves(
    rows: Sequence[EpochRow],
    fractions: np.ndarray,
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> None:
    """Plots accuracy, keep fractions and keep-probabilities side by side as a PNG.

    The file is written atomically, and replaces an earlier one.

    Args:
      rows: rows of the run, one an epoch, at least one.
      fractions: float `[bins]`, histogram of the keep-probabilities.
      path: path of the PNG; its folder exists.
      title: line above the panels; default: none.

    Raises:
      ValueError: there are no rows.
      OSError: the file cannot be written.
    """
    if not rows:
        raise ValueError("plot_curves: rows must hold at least one epoch, got none")
    # Figure without pyplot: no window, and no list of figures that grows with each run.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), dpi=100, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr,call-arg]
    if title:
        figure.suptitle(title, fontsize=12)
    accuracy, kept, probabilities = figure.subplots(1, 3)
    _plot_accuracy(accuracy, rows)
    _plot_kept(kept, rows)
    _plot_probabilities(probabilities, fractions)
    for axes in (accuracy, kept, probabilities):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)

    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def _plot_accuracy(axes: Any, rows: Sequence[EpochRow]) -> None:
    epochs = [row.epoch for row in rows]
    style = _line_style(rows)
    training = [row.train_accuracy for row in rows]
    validation = [row.validation_accuracy for row in rows]
    axes.plot(epochs, training, color="tab:orange", label="training", **style)
    axes.plot(epochs, validation, color="tab:blue", label="validation", **style)
    epoch, best = rows[-1].best_epoch, rows[-1].best_validation_accuracy
    axes.plot(
        [epoch],
        [best],
        linestyle="none",
        marker="*",
        markersize=12,
        markeredgecolor="white",
        color="black",
        zorder=3,
        label=f"best: {best:.1%}, epoch {epoch}",
    )
    axes.set_ylim(*fraction_limits([*training, *validation, best]))
    axes.set_title("Accuracy", fontsize=11)
    axes.set_ylabel("accuracy (%)")
    axes.legend(loc="best", frameon=False, fontsize=9)
    axes.yaxis.set_major_formatter(_percent)
    _epoch_axis(axes, epochs)


def _plot_kept(axes: Any, rows: Sequence[EpochRow]) -> None:
    import matplotlib

    epochs = [row.epoch for row in rows]
    style = _line_style(rows)
    names = list(rows[-1].keep_fractions)
    # Colours follow depth, so that a trend from the first layer to the last shows.
    colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(names)))
    colours[:, :3] *= 0.85  # its yellows are too pale for text on white
    lines = {
        name: ([row.keep_fractions[name] for row in rows], colour)
        for name, colour in zip(names, colours, strict=True)
    }
    total = "total"
    lines[total] = ([row.keep_fraction for row in rows], "black")
    for name, (values, colour) in lines.items():
        width = 2.2 if name == total else 1.3
        axes.plot(epochs, values, color=colour, linewidth=width, **style)

    low, high = fraction_limits([values for values, _ in lines.values()])
    axes.set_ylim(low, high)
    ends = np.array([(values[-1] - low) / (high - low) for values, _ in lines.values()])
    heights = spread(ends, gap=min(0.065, 1.0 / len(ends)))
    for (name, (values, colour)), height in zip(lines.items(), heights, strict=True):
        axes.annotate(
            name.removesuffix("/kernel"),
            xy=(epochs[-1], values[-1]),
            xytext=(1.06, height),
            textcoords="axes fraction",
            color=colour,
            fontsize=8.5 if len(lines) <= 14 else 6.5,
            fontweight="bold" if name == total else "normal",
            verticalalignment="center",
            arrowprops={
                "arrowstyle": "-",
                "relpos": (0, 0.5),
                "color": colour,
                "linewidth": 0.6,
                "alpha": 0.6,
                "shrinkA": 1,
                "shrinkB": 1,
            },
        )
    axes.set_title("Weights kept, by layer", fontsize=11)
    axes.set_ylabel("kept (% of the layer's weights)")
    axes.yaxis.set_major_formatter(_percent)
    _epoch_axis(axes, epochs)


def histogram(keep_probabilities: Mapping[str, np.ndarray]) -> np.ndarray:
    """Returns the fraction of all weights in each of 50 bins from 0 to 1.

    Args:
      keep_probabilities: arrays of any shape in [0, 1], by layer; may be empty.

    Returns:
      float64 `[50]`; zeros if there are no weights.
    """
    counts = np.zeros(_BINS, np.int64)
    # Layer by layer, so that millions of weights are not copied into one array.
    for values in keep_probabilities.values():
        flat = np.asarray(values, np.float32).ravel()
        counts += np.histogram(flat, bins=_BINS, range=(0.0, 1.0))[0]
    return counts / max(1, counts.sum())


def histogram_limits(fractions: np.ndarray) -> tuple[float, float]:
    """Returns the limits of a logarithmic axis for the fractions of a histogram.

    Args:
      fractions: float `[bins]`, at least one above 0.
    """
    return fractions[fractions > 0].min() / 2, min(2.0, 2 * fractions.max())


def _plot_probabilities(axes: Any, fractions: np.ndarray) -> None:
    edges = np.linspace(0.0, 1.0, len(fractions) + 1)
    axes.set_title("Keep-probabilities, all layers", fontsize=11)
    axes.set_xlabel("keep-probability (%)")
    axes.set_ylabel(f"weights (% in each of {len(fractions)} bins, log scale)")
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(_percent)
    if not fractions.any():
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    # Most weights of a wide layer stay near one half; on a linear scale the others
    # would be invisible.
    axes.set_yscale("log")
    floor, top = histogram_limits(fractions)
    axes.stairs(fractions, edges, baseline=floor, fill=True, color="tab:blue")
    axes.set_ylim(floor, top)
    axes.yaxis.set_major_formatter(_percent)
    # A range of about a decade has at most one power of ten to label.
    axes.yaxis.set_minor_formatter(_percent if top < 30 * floor else lambda *_: "")


def fraction_limits(values: Any) -> tuple[float, float]:
    """Returns limits in [0, 1] around the values, at least ten points of percent apart.

    A change of a tenth of a point must not look large.

    Args:
      values: array or nested lists of numbers in [0, 1], of any shape; what is not
        finite counts as missing.
    """
    numbers = np.array(values, np.float64)
    finite = numbers[np.isfinite(numbers)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    margin = max(0.05 * (high - low), (0.1 - (high - low)) / 2)
    return max(0.0, float(low - margin)), min(1.0, float(high + margin))


def _line_style(rows: Sequence[EpochRow]) -> dict[str, Any]:
    # A line through one point is invisible; beyond a few dozen, markers are clutter.
    return {"marker": "o", "markersize": 3} if len(rows) <= 25 else {}


def _percent(value: float, position: int | None = None) -> str:
    """Returns the label of a tick, in %."""
    return f"{100 * value:g}"


def _epoch_axis(axes: Any, epochs: Sequence[int]) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)
