"""Parts that the plots of sweeps share."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aslp_jax._atomic import atomic_write
from aslp_jax.sweeps.grid import Record
from aslp_jax.sweeps.statistics import mean_and_std


def validation_curve(record: Record) -> list[float]:
    """Returns the validation accuracy of each epoch of a run, in %."""
    return [100 * accuracy for accuracy in record.validation_accuracies]


def plot_band(axes: Any, curves: Sequence[Sequence[float]], colour: str) -> Any:
    """Plots mean and standard deviation of curves.

    Args:
      axes: matplotlib axes.
      curves: at least one curve, each with a number an epoch.
      colour: colour of line and band.

    Returns:
      The line of the mean.
    """
    # Runs that stopped early end the line where the first of them ends.
    length = min(map(len, curves))
    points = [
        mean_and_std([curve[epoch] for curve in curves]) for epoch in range(length)
    ]
    epochs = range(1, length + 1)
    means = [mean for mean, _ in points]
    style = {"marker": "o", "markersize": 3} if length <= 25 else {}
    (line,) = axes.plot(epochs, means, color=colour, **style)
    axes.fill_between(
        epochs,
        [mean - std for mean, std in points],
        [mean + std for mean, std in points],
        color=colour,
        alpha=0.2,
        linewidth=0,
    )
    return line


def add_grid(axes: Any, *, which: str = "major") -> None:
    """Adds faint grid lines, and takes the frame away at the top and at the right."""
    axes.grid(alpha=0.25, which=which)
    axes.spines[["top", "right"]].set_visible(False)


def save_figure(figure: Any, path: Path) -> None:
    """Writes a figure as a PNG, atomically.

    Args:
      figure: matplotlib figure.
      path: file to write; its folder exists.
    """
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
