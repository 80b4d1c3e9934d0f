"""What a person sees of a run: progress while it trains, curves, and a closing table.

Nothing here starts a device: the rows and arrays come from the host, and matplotlib is
imported only by the function that plots.

A row describes one epoch, as one line of `metrics.jsonl` does: `epoch` (from 1), `step`
(in total), `train_loss`, `train_accuracy`, `validation_loss`, `validation_accuracy`,
`best_validation_accuracy`, `best_epoch`, `keep_fraction`, `keep_fractions` (by layer),
`flip_rate`, `scalars` (by group and layer), `images_per_second` and `seconds` since the
run began. Accuracies, fractions and rates lie in [0, 1].

The file is long because it holds three views of those rows: `Progress`, `curves` and
`table`. Each stands alone, with its helpers right below it.
"""

import collections
import math
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import numpy as np

WIDTH = 80  # columns of the closing table, at most
REDRAW_SECONDS = 0.1  # faster than this is flicker
BINS = 50  # of the histogram; an even number, so that 0.5 is an edge


def humanise_seconds(seconds: float) -> str:
    """Returns a duration in its two leading units, such as 42s, 2m05s, 3h12m or 1d04h.

    Args:
      seconds: of the duration; below 0 counts as 0, and what is not finite is "?".
    """
    if not math.isfinite(seconds):
        return "?"
    # Rounded before it is split, so that 59.7 reads 1m00s and not 60s.
    whole = max(0, round(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d{hours % 24:02d}h"
    if hours:
        return f"{hours}h{minutes % 60:02d}m"
    if minutes:
        return f"{minutes}m{whole % 60:02d}s"
    return f"{whole}s"


class Progress:
    """Tells a person how far training is.

    A terminal gets one line that is rewritten in place, and now and then a line that
    stays: every epoch if epochs are long, ever fewer if they are short, so that a
    thousand quick epochs leave about a screenful. A log gets one plain line an epoch.

    Not for use inside a signal handler: a write that interrupts a write is an error.
    Note what the handler found from the training loop instead.

    Args:
      file: where to write; None is the present `sys.stderr`.
      epochs: how many epochs the run has at most, counted from its very first.
      live: whether `file` is a terminal; None asks it.
      clock: monotonic time in seconds.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        epochs: int,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = sys.stderr if file is None else file
        self._live = self._file.isatty() if live is None else live
        self._epochs = epochs
        self._clock = clock
        self._began = self._kept_line = clock()
        self._drawn = -math.inf  # when the live line was last drawn
        self._open = False  # whether a live line waits for its end
        self._epoch = 0  # under way, or just finished
        self._within = 0.0  # fraction of that epoch
        self._row: Mapping[str, Any] | None = None
        self._images_per_second: float | None = None
        self._left: float | None = None
        self._first_pace: float | None = None
        # Times and positions (in epochs) from which the pace is taken: about ten epochs
        # back, so that it is steady and yet follows a machine that slows down.
        self._marks: collections.deque[tuple[float, float]] = collections.deque(
            maxlen=10
        )

    def step(self, epoch: int, step: int, steps: int, images_per_second: float) -> None:
        """Reports progress within an epoch; does nothing in a log.

        Args:
          epoch: the one under way, from 1.
          step: steps of this epoch that are done.
          steps: steps of an epoch.
          images_per_second: at present.
        """
        if not self._live:
            return
        self._epoch, self._within = epoch, step / steps
        self._images_per_second = images_per_second
        now = self._clock()
        position = epoch - 1 + self._within
        if not self._marks:
            # The first steps to be reported come after compilation; so does the pace.
            self._marks.append((now, position))
        self._left = self._seconds_left(now, position)
        self._draw(now)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Reports a finished epoch."""
        now = self._clock()
        self._row = row
        self._epoch, self._within = row["epoch"], 1.0
        self._images_per_second = row["images_per_second"]
        if not self._marks:
            self._first_pace = now - self._began
        # First looked up, then marked: a full deque would forget its oldest mark.
        self._left = self._seconds_left(now, row["epoch"])
        self._marks.append((now, row["epoch"]))
        if not self._live:
            print(_SEPARATOR.join(self._fields()), file=self._file, flush=True)
            return
        # The wait grows with the run, so that quick epochs leave lines ever more
        # rarely, but never beyond a minute: an epoch that long always leaves one.
        wait = min(60.0, max(5.0, (now - self._began) / 10))
        if now - self._kept_line >= wait:
            self._kept_line = now
            self._write_above(_fit(self._fields(), self._columns()))
            self._draw(now, force=True)
        else:
            self._draw(now)

    def note(self, text: str) -> None:
        """Writes a line that stays, above the live line if there is one."""
        if not self._live:
            print(text, file=self._file, flush=True)
            return
        was_open = self._open
        self._write_above(text)
        if was_open:
            self._draw(self._clock(), force=True)

    def close(self) -> None:
        """Draws the last state and ends the live line, so that a prompt starts afresh.

        A second call does nothing.
        """
        if self._open:
            self._draw(self._clock(), force=True)
            self._file.write("\n")
            self._file.flush()
            self._open = False

    def _seconds_left(self, now: float, position: float) -> float | None:
        """Returns the time of the remaining epochs at the present pace, if known."""
        if position >= self._epochs:
            return None
        pace = self._first_pace
        if self._marks and position > self._marks[0][1]:
            then, earlier = self._marks[0]
            pace = (now - then) / (position - earlier)
        return None if pace is None else pace * (self._epochs - position)

    def _fields(self) -> dict[str, int]:
        """Returns the parts of a line in their order, each with its rank (0 stays)."""
        digits = len(str(self._epochs))
        fields = {f"epoch {self._epoch:>{digits}}/{self._epochs}": 0}
        if self._live:
            done = round(10 * self._within)
            fields["[" + "#" * done + "-" * (10 - done) + "]"] = 8
            fields[f"{math.floor(100 * self._within):3d}%"] = 3
        if (row := self._row) is not None:
            train = f"train {row['train_loss']:.3f} {row['train_accuracy']:.1%}"
            best = f"best {row['best_validation_accuracy']:.1%} at {row['best_epoch']}"
            fields[train] = 5
            fields[f"val {row['validation_accuracy']:.1%} ({best})"] = 1
            fields[f"kept {row['keep_fraction']:.1%}"] = 4
        if self._images_per_second is not None:
            fields[f"{self._images_per_second:,.0f} images/s"] = 6
        if row is not None:
            fields[f"after {humanise_seconds(row['seconds'])}"] = 7
        if self._left is not None:
            # Early stopping may end the run sooner.
            fields[f"at most {humanise_seconds(self._left)} left"] = 2
        return fields

    def _columns(self) -> int:
        """Returns how many columns a line may fill."""
        try:
            # Of this file: standard output may be redirected while this is a terminal.
            columns = os.get_terminal_size(self._file.fileno()).columns
        except (AttributeError, OSError, ValueError):
            columns = 0
        # A filled last column makes some terminals wrap, and others erase it again.
        return max(1, (columns or shutil.get_terminal_size().columns) - 1)

    def _draw(self, now: float, *, force: bool = False) -> None:
        """Rewrites the live line, unless it was drawn a moment ago."""
        if not force and now - self._drawn < REDRAW_SECONDS:
            # What was not drawn must still be there for `close` to draw.
            self._open = True
            return
        self._drawn = now
        self._open = True
        self._file.write("\r" + _fit(self._fields(), self._columns()) + _ERASE)
        self._file.flush()

    def _write_above(self, text: str) -> None:
        """Puts a line in the place of the live one, which moves a line down."""
        self._file.write(f"\r{text}{_ERASE}\n")
        self._file.flush()


_SEPARATOR = "  "
_ERASE = "\x1b[K"  # from the cursor to the end of the line


def _fit(fields: Mapping[str, int], columns: int) -> str:
    """Joins the fields that fit: chosen by rank, shown in their own order."""
    chosen: set[str] = set()
    for field in sorted(fields, key=fields.__getitem__):
        longer = chosen | {field}
        if len(_SEPARATOR.join(longer)) <= columns:
            chosen = longer
    if not chosen:
        return next(iter(fields))[:columns]
    return _SEPARATOR.join(field for field in fields if field in chosen)


def curves(
    rows: Sequence[Mapping[str, Any]],
    keep_probabilities: Mapping[str, np.ndarray],
    path: str | os.PathLike[str],
    *,
    title: str | None = None,
) -> None:
    """Draws accuracy, kept fractions and keep-probabilities side by side as a PNG.

    The file appears whole or not at all; one that was there before is replaced.

    Args:
      rows: one an epoch, at least one, as the top of this file describes them.
      keep_probabilities: arrays of any shape in [0, 1], by layer; may be empty.
      path: of the PNG; its folder exists.
      title: a line above the panels.

    Raises:
      ValueError: there are no rows.
    """
    if not rows:
        raise ValueError("curves: rows must hold at least one epoch, got none")
    # Figure without pyplot: no window, no registry of figures that grows with each run.
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), dpi=100, layout="constrained")
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr,call-arg]
    if title:
        figure.suptitle(title, fontsize=12)
    accuracy, kept, histogram = figure.subplots(1, 3)
    _plot_accuracy(accuracy, rows)
    _plot_kept(kept, rows)
    _plot_probabilities(histogram, keep_probabilities)
    for axes in (accuracy, kept, histogram):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)

    path = pathlib.Path(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        figure.savefig(temporary, format="png")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _plot_accuracy(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    epochs = [row["epoch"] for row in rows]
    style = _line_style(rows)
    training = [row["train_accuracy"] for row in rows]
    validation = [row["validation_accuracy"] for row in rows]
    axes.plot(epochs, training, color="tab:orange", label="training", **style)
    axes.plot(epochs, validation, color="tab:blue", label="validation", **style)
    epoch, best = rows[-1]["best_epoch"], rows[-1]["best_validation_accuracy"]
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
    axes.set_ylim(*_limits(np.array([*training, *validation, best], np.float64)))
    axes.set_title("Accuracy", fontsize=11)
    axes.set_ylabel("accuracy (%)")
    axes.legend(loc="best", frameon=False, fontsize=9)
    axes.yaxis.set_major_formatter(_percent)
    _epoch_axis(axes, epochs)


def _plot_kept(axes: Any, rows: Sequence[Mapping[str, Any]]) -> None:
    import matplotlib

    epochs = [row["epoch"] for row in rows]
    style = _line_style(rows)
    names = list(rows[-1]["keep_fractions"])
    # Colours follow depth, so that a trend from the first layer to the last shows.
    colours = matplotlib.colormaps["turbo"](np.linspace(0.05, 0.95, len(names)))
    colours[:, :3] *= 0.85  # its yellows are too pale for text on white
    lines = {
        name: ([row["keep_fractions"][name] for row in rows], colour)
        for name, colour in zip(names, colours, strict=True)
    }
    total = "total"
    lines[total] = ([row["keep_fraction"] for row in rows], "black")
    for name, (values, colour) in lines.items():
        width = 2.2 if name == total else 1.3
        axes.plot(epochs, values, color=colour, linewidth=width, **style)

    low, high = _limits(np.array([values for values, _ in lines.values()], np.float64))
    axes.set_ylim(low, high)
    ends = np.array([(values[-1] - low) / (high - low) for values, _ in lines.values()])
    heights = _spread(ends, gap=min(0.065, 1.0 / len(ends)))
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


def _spread(heights: np.ndarray, *, gap: float) -> np.ndarray:
    """Moves labels apart as little as need be, in their order, within [0, 1].

    Args:
      heights: float `[labels]`, where each would like to be.
      gap: least distance of neighbours; `gap * (labels - 1)` is at most 1.

    Returns:
      float `[labels]`.
    """
    order = np.argsort(heights, kind="stable")
    steps = gap * np.arange(len(heights))
    # With the steps taken off, "a gap apart" is "not decreasing". The nearest such
    # sequence lies between the running maximum and its mirror image; take the middle.
    wanted = heights[order] - steps
    upper = np.maximum.accumulate(wanted)
    lower = np.minimum.accumulate(wanted[::-1])[::-1]
    placed = np.clip((upper + lower) / 2, 0.0, 1.0 - steps[-1]) + steps
    result = np.empty_like(heights)
    result[order] = placed
    return result


def _plot_probabilities(
    axes: Any, keep_probabilities: Mapping[str, np.ndarray]
) -> None:
    edges = np.linspace(0.0, 1.0, BINS + 1)
    counts = np.zeros(BINS, np.int64)
    # Layer by layer: millions of weights need not be copied into one array.
    for values in keep_probabilities.values():
        flat = np.asarray(values, np.float32).ravel()
        counts += np.histogram(flat, bins=BINS, range=(0.0, 1.0))[0]
    axes.set_title("Keep-probabilities, all layers", fontsize=11)
    axes.set_xlabel("keep-probability (%)")
    axes.set_ylabel(f"weights (% in each of {BINS} bins, log scale)")
    axes.set_xlim(0.0, 1.0)
    axes.xaxis.set_major_formatter(_percent)
    if not counts.any():
        axes.text(0.5, 0.5, "none", ha="center", transform=axes.transAxes)
        axes.set_yticks([])
        return
    fractions = counts / counts.sum()
    # Most weights of a wide layer hardly move from one half; without the logarithm the
    # rest would lie flat on the axis.
    axes.set_yscale("log")
    floor = fractions[fractions > 0].min() / 2
    axes.stairs(fractions, edges, baseline=floor, fill=True, color="tab:blue")
    top = min(2.0, 2 * fractions.max())
    axes.set_ylim(floor, top)
    axes.yaxis.set_major_formatter(_percent)
    # Within about a decade there is hardly a power of ten to label.
    axes.yaxis.set_minor_formatter(_percent if top < 30 * floor else lambda *_: "")


def _limits(values: np.ndarray) -> tuple[float, float]:
    """Returns limits in [0, 1] around the values, at least ten points of percent apart.

    A wobble of a tenth of a point must not look like an event.
    """
    finite = values[np.isfinite(values)]
    low, high = (finite.min(), finite.max()) if finite.size else (0.0, 1.0)
    margin = max(0.05 * (high - low), (0.1 - (high - low)) / 2)
    return max(0.0, float(low - margin)), min(1.0, float(high + margin))


def _line_style(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    # A line through one point is nothing; beyond a few dozen, markers are clutter.
    return {"marker": "o", "markersize": 3} if len(rows) <= 25 else {}


def _percent(value: float, position: int | None = None) -> str:
    """Formats a tick."""
    return f"{100 * value:g}"


def _epoch_axis(axes: Any, epochs: Sequence[int]) -> None:
    axes.set_xlabel("epoch")
    axes.xaxis.get_major_locator().set_params(integer=True)
    if len(epochs) == 1:
        axes.set_xlim(epochs[0] - 1, epochs[0] + 1)


def table(result: Mapping[str, Any]) -> str:
    """Sums up a finished run: what was kept, how accurate it is, how small.

    Args:
      result: `arch`, `dataset` and `method` (names); test accuracies `thresholding`,
        `averaging_mean` and `averaging_std` over `eval_samples` networks;
        `keep_fraction`, and by layer `keep_fractions`, `weights` (how many are masked)
        and `scalars` (by group first, may be empty); `best_epoch`,
        `best_validation_accuracy`, `epochs` (run), `stopped` ("patience" or "epochs"),
        `seconds`; `dense_bytes` (float32 weights) and `mask_bytes` (one bit a weight).

    Returns:
      Lines of at most 80 columns, without a final line break.
    """
    weights = result["weights"]
    scalars = result["scalars"]
    heads = ["layer", "weights", "kept", *scalars]
    body = [
        [
            name,
            f"{weights[name]:,}",
            f"{result['keep_fractions'][name]:.1%}",
            *(_scalar(group.get(name)) for group in scalars.values()),
        ]
        for name in weights
    ]
    total = ["total", f"{sum(weights.values()):,}", f"{result['keep_fraction']:.1%}"]
    total += [""] * len(scalars)

    cells = [heads, *body, total]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max(8, min(widths[0], WIDTH - sum(2 + width for width in widths[1:])))
    lines = []
    for name, *numbers in cells:
        if len(name) > widths[0]:
            # The end of a path tells layers apart better than its start.
            name = "..." + name[3 - widths[0] :]
        columns = [name.ljust(widths[0])]
        columns += [n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join(columns).rstrip())
    rule = "-" * (sum(widths) + 2 * len(scalars) + 4)
    lines[-1:] = [rule, lines[-1]]
    lines.insert(1, rule)

    head = f"{result['method']} on {result['arch']}, {result['dataset']}"
    return "\n".join([head, "", *lines, "", *_facts(result)])


def _facts(result: Mapping[str, Any]) -> list[str]:
    """Returns the lines below the table."""
    # 8 bytes hold the seed that draws the frozen weights, 4 each learnt scalar.
    extra = 8 + 4 * sum(len(group) for group in result["scalars"].values())
    small = result["mask_bytes"] + extra
    reasons = {"patience": "stopped early", "epochs": "all that were asked for"}
    reason = reasons.get(result["stopped"], result["stopped"])
    validation = f"{result['best_validation_accuracy']:.2%} at its best"
    duration = humanise_seconds(result["seconds"])
    averaging = f"{result['averaging_mean']:.2%} ± {result['averaging_std']:.2%}"
    times = f"({result['dense_bytes'] / small:.1f}x less)"
    facts = [
        ("test accuracy", f"{result['thresholding']:.2%} thresholding"),
        ("", f"{averaging} averaging {result['eval_samples']} networks"),
        ("validation", f"{validation}, epoch {result['best_epoch']}"),
        ("training", f"{result['epochs']} epochs in {duration} ({reason})"),
        ("size", f"{result['dense_bytes'] / 1e6:,.2f} MB dense, as float32"),
        ("", f"{small / 1e3:,.2f} kB as one bit a weight, seed and scales {times}"),
    ]
    return [f"{name:<15}{fact}" for name, fact in facts]


def _scalar(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
