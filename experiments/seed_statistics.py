"""Numbers over seeds: mean and spread, as values, as lines of CSV, as a band."""

import csv
import io
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and standard deviation (n - 1), 0 for one value, NaN for none."""
    if not values:
        return math.nan, math.nan
    return statistics.fmean(values), statistics.stdev(values) if values[1:] else 0.0


def csv_text(lines: Iterable[Mapping[str, Any]]) -> str:
    """Returns lines of the same names as CSV with a header; nothing for no lines."""
    text = io.StringIO()
    rows = list(lines)
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def draw_band(axes: Any, curves: Sequence[Sequence[float]], colour: str) -> Any:
    """Draws mean and standard deviation of curves, and returns the line.

    Args:
      axes: to draw on.
      curves: at least one; each a number an epoch.
      colour: of line and band.
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
