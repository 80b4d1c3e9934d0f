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


def verdict(
    differences: Sequence[float], *, at_least: bool = False, unit: str = "points"
) -> tuple[str, str]:
    """Returns the evidence and the verdict on differences that should be positive.

    Args:
      differences: of paired runs.
      at_least: whether none is enough; otherwise the mean has to be above two of its
        standard errors.
      unit: of the differences, in words.
    """
    if len(differences) < 2:
        return _too_few(differences)
    mean, error = _mean_and_error(differences)
    higher = sum(difference > 0 for difference in differences)
    evidence = (
        f"{mean:+.2f} ± {error:.2f} {unit} (standard error), higher in {higher} of "
        f"{len(differences)} pairs"
    )
    holds = mean >= -2 * error if at_least else mean > 2 * error
    if holds:
        return evidence, "holds"
    undecided = mean >= -2 * error
    return evidence, "does not hold" + (" (no difference)" if undecided else "")


def within(
    differences: Sequence[float], bound: float, *, unit: str = "points"
) -> tuple[str, str]:
    """Returns the evidence and the verdict on differences that should be near 0.

    Args:
      differences: of paired runs.
      bound: below which the mean has to be, two of its standard errors included.
      unit: of the differences, in words.
    """
    if len(differences) < 2:
        return _too_few(differences)
    mean, error = _mean_and_error(differences)
    evidence = (
        f"{mean:+.2f} ± {error:.2f} {unit} (standard error), {min(differences):+.2f} "
        f"to {max(differences):+.2f} in {len(differences)} pairs"
    )
    holds = abs(mean) + 2 * error <= bound
    return evidence, "holds" if holds else "does not hold"


def _too_few(differences: Sequence[float]) -> tuple[str, str]:
    return ("one pair" if differences else "no pairs") + " of runs", "not measured"


def _mean_and_error(differences: Sequence[float]) -> tuple[float, float]:
    mean, std = mean_and_std(differences)
    return mean, std / math.sqrt(len(differences))


def csv_text(lines: Iterable[Mapping[str, Any]]) -> str:
    """Returns lines of the same names as CSV with a header; nothing for no lines."""
    text = io.StringIO()
    rows = list(lines)
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def plot_band(axes: Any, curves: Sequence[Sequence[float]], colour: str) -> Any:
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
