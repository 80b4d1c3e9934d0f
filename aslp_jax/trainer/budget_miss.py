"""Budget miss: the distance between the weights kept and the weights asked for."""

from collections.abc import Mapping

__all__ = ["budget_miss"]


def budget_miss(
    counts: Mapping[str, float],
    sizes: Mapping[str, int],
    keep_fraction: float | None,
    *,
    scope: str,
    tolerance: float,
) -> float:
    """Returns the budget miss as a fraction of the masked weights.

    With scope "layer" each layer has a budget of its own, and the largest miss counts.

    Args:
      counts: number of weights that count as kept, by layer.
      sizes: number of masked weights, by layer.
      keep_fraction: fraction of the weights asked for, in (0, 1]; None for no budget.
      scope: "global" or "layer".
      tolerance: largest distance, as a fraction of the masked weights, at which the
        budget still counts as met; half of `keep_fraction` where that is less.

    Returns:
      A float >= 0, 0 if the budget was met.
    """
    if keep_fraction is None:
        return 0.0
    if scope == "global":
        counts, sizes = {"": sum(counts.values())}, {"": sum(sizes.values())}
    worst = max(
        abs(float(counts[name]) / size - keep_fraction) for name, size in sizes.items()
    )
    # An empty network must not meet a budget below the tolerance.
    return worst if worst > min(tolerance, keep_fraction / 2) else 0.0
