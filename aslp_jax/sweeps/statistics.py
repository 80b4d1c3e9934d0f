"""Statistics over seeds: mean, standard deviation, and verdicts on claims."""

import math
import statistics
from collections.abc import Mapping, Sequence

CONFIDENCE = 0.95
"""Confidence of the intervals that verdicts rest on."""

Differences = Mapping[int, Sequence[float]]
"""Differences of the paired runs of each seed.

The pairs of a seed share its weights, so they are not independent: they count as one,
their mean, and intervals are over seeds.
"""


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and standard deviation (n - 1), 0 for one value, NaN for none."""
    if not values:
        return math.nan, math.nan
    return statistics.fmean(values), statistics.stdev(values) if values[1:] else 0.0


def t_quantile(degrees: int, confidence: float = CONFIDENCE) -> float:
    """Returns the t between -t and t of which Student's t lies with this probability.

    Two standard errors stand in for it only where there are many values: with five, the
    quantile of 95 % is 2.78.

    Args:
      degrees: degrees of freedom, at least 1.
      confidence: probability, in (0, 1).
    """
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        if _central_probability(middle, degrees) < confidence:
            low = middle
        else:
            high = middle
    return math.sqrt(degrees) * math.tan(low)


def _central_probability(angle: float, degrees: int) -> float:
    """Returns the probability that |t| < sqrt(degrees) tan(angle), in closed form.

    Source: Abramowitz and Stegun 1964, 26.7.3 and 26.7.4.
    """
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = degrees % 2
    term, total = (cosine if odd else 1.0), 0.0
    for index in range(2 + odd, degrees + 1, 2):
        total += term
        term *= cosine * cosine * (index - 1) / index
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def verdict(
    differences: Differences, *, at_least: bool = False, unit: str = "points"
) -> tuple[str, str]:
    """Returns the evidence and the verdict on differences that should be positive.

    The claim holds if the 95 % interval of the mean lies above 0, does not hold if the
    interval lies at or below 0, and is not decided if 0 lies within.

    Args:
      differences: differences of paired runs, by seed.
      at_least: True if the claim is "not below 0": then 0 itself counts in its favour.
      unit: name of the unit of the differences.
    """
    if len(differences) < 2:
        return _too_few(differences, unit)
    mean, half = _mean_and_half_width(differences)
    higher = sum(difference > 0 for difference in _pairs(differences))
    evidence = f"{_interval(mean, half, unit, differences)}, higher in {higher}"
    low, high = mean - half, mean + half
    holds, fails = (low >= 0, high < 0) if at_least else (low > 0, high <= 0)
    return evidence, _name_verdict(holds, fails)


def equivalence(
    differences: Differences, bound: float, *, unit: str = "points"
) -> tuple[str, str]:
    """Returns the evidence and the verdict on differences that should be near 0.

    The claim holds if the 95 % interval of the mean lies within the bound, does not
    hold if the interval lies outside, and is not decided if the bound lies within.

    Args:
      differences: differences of paired runs, by seed.
      bound: largest size of a difference that counts as none.
      unit: name of the unit of the differences.
    """
    if len(differences) < 2:
        return _too_few(differences, unit)
    mean, half = _mean_and_half_width(differences)
    pairs = _pairs(differences)
    evidence = (
        f"{_interval(mean, half, unit, differences)}, {min(pairs):+.2f} to "
        f"{max(pairs):+.2f}"
    )
    holds, fails = abs(mean) + half <= bound, abs(mean) - half > bound
    return evidence, _name_verdict(holds, fails)


def _too_few(differences: Differences, unit: str) -> tuple[str, str]:
    if not differences:
        return "no pairs of runs", "not measured"
    pairs = _pairs(differences)
    mean = statistics.fmean(pairs)
    return f"{mean:+.2f} {unit} (one seed, {_count(len(pairs))})", "not measured"


def _pairs(differences: Differences) -> list[float]:
    return [each for of_seed in differences.values() for each in of_seed]


def _mean_and_half_width(differences: Differences) -> tuple[float, float]:
    """Returns the mean over seeds, and half the width of its 95 % interval."""
    mean, std = mean_and_std([statistics.fmean(each) for each in differences.values()])
    count = len(differences)
    return mean, t_quantile(count - 1) * std / math.sqrt(count)


def _name_verdict(holds: bool, fails: bool) -> str:
    return "holds" if holds else "does not hold" if fails else "not decided"


def _interval(mean: float, half: float, unit: str, differences: Differences) -> str:
    percent = f"{100 * CONFIDENCE:g} %"
    count = f"{len(differences)} seeds, {_count(len(_pairs(differences)))}"
    return f"{mean:+.2f} ± {half:.2f} {unit} ({percent} interval, {count})"


def _count(pairs: int) -> str:
    return f"{pairs} pair{'s' if pairs > 1 else ''}"
