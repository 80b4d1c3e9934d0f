"""How many weights are to be kept: what counts, and what it costs to miss it."""

import math
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from aslp_jax.methods._top_k import top_k_mask

Scope = Literal["global", "layer"]
SCOPES: tuple[Scope, ...] = ("global", "layer")


def check_budget(
    method: str, keep_fraction: float | None, scope: str, *, needed: bool = True
) -> None:
    """Checks the options that say how many weights to keep.

    Args:
      method: its name.
      keep_fraction: in (0, 1].
      scope: one of `SCOPES`.
      needed: whether the method cannot do without a number.

    Raises:
      ValueError: naming the method and what would be right.
    """
    fraction = math.nan if keep_fraction is None else keep_fraction
    if not (0 < fraction <= 1 or (keep_fraction is None and not needed)):
        raise ValueError(
            f"{method}: keep_fraction must be in (0, 1], got {keep_fraction}"
        )
    check_scope(method, "scope", scope)


def check_scope(method: str, name: str, scope: str) -> None:
    """Checks an option that says what goes together.

    Raises:
      ValueError: naming the method, the option and what would be right.
    """
    if scope not in SCOPES:
        raise ValueError(
            f"{method}: {name} must be {' or '.join(map(repr, SCOPES))}, got {scope!r}"
        )


def check_weight(method: str, budget_weight: float) -> None:
    """Checks the weight of a budget loss.

    Raises:
      ValueError: naming the method and what would be right.
    """
    if not 0 < budget_weight < float("inf"):
        raise ValueError(
            f"{method}: budget_weight must be positive and finite, got {budget_weight}"
        )


def check_room(
    chosen: Mapping[str, jax.Array], keep_fraction: float, scope: Scope
) -> None:
    """Checks that a budget leaves at least one weight for each array.

    Args:
      chosen: the masked weights by name.
      keep_fraction: of them, in (0, 1].
      scope: of that number.

    Raises:
      ValueError: it does not.
    """
    for names in groups(chosen, scope):
        size = sum(chosen[name].size for name in names)
        if keep_fraction * size < len(names):
            raise ValueError(
                f"init: keep_fraction {keep_fraction} of {size:,} weights in "
                f"{', '.join(names)} leaves less than one for each layer; expected at "
                f"least {len(names) / size:.2g}"
            )


def groups(names: Mapping[str, object], scope: Scope) -> list[list[str]]:
    """Returns the names that share a budget: all, or each by itself."""
    return [list(names)] if scope == "global" else [[name] for name in names]


def erdos_renyi(
    chosen: Mapping[str, jax.Array], keep_fraction: float, scope: Scope, *, most: float
) -> dict[str, float]:
    """Returns what fraction of each array to start with, for a budget to be met.

    A budget of all arrays together is spread in proportion to the sum of the axes of
    each (the Erdos-Renyi rule), so that small layers start denser than large ones: at
    an equal fraction of few weights the first and the last would be all but cut off.

    Args:
      chosen: the masked weights by name.
      keep_fraction: of them, in (0, 1].
      scope: of that number; with `"layer"` each array gets the same.
      most: no fraction is above it, unless `keep_fraction` is.

    Returns:
      Fractions in (0, 1] by name; what they keep adds up to the budget.

    Source: Mocanu et al. 2018, arXiv:1707.04780; for kernels Evci et al. 2020,
      arXiv:1911.11134, section 3.
    """
    fractions = dict.fromkeys(chosen, keep_fraction)
    if scope == "layer":
        return fractions
    most = max(most, keep_fraction)
    open_ = set(chosen)
    left = keep_fraction * sum(leaf.size for leaf in chosen.values())
    while open_:
        share = left / sum(sum(chosen[name].shape) for name in open_)
        for name in open_:
            fractions[name] = share * sum(chosen[name].shape) / chosen[name].size
        full = {name for name in open_ if fractions[name] >= most}
        if not full:
            break
        for name in full:
            fractions[name] = most
            left -= most * chosen[name].size
        open_ -= full
    return fractions


def counts(parts: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the sum of all entries of each array, in float32, by name."""
    return {name: jnp.sum(part.astype(jnp.float32)) for name, part in parts.items()}


def budget_loss(
    parts: Mapping[str, jax.Array],
    keep_fraction: float,
    scope: Scope,
    unit: Mapping[str, jax.Array],
) -> jax.Array:
    """Returns how far counts are from the budget, squared and relative to a unit.

    Args:
      parts: by name, the share of itself that each weight counts for, in [0, 1].
      keep_fraction: of all weights, to be met.
      scope: each array by itself, or their sum.
      unit: by name, the count that a miss is measured by, such as that at the start.

    Returns:
      A float32 scalar, summed over the budgets of the scope.

    Source: Dupont et al. 2021, arXiv:2107.03909, section 2.2:
      ((C - C_target) / C_initial)^2.
    """
    counted = counts(parts)
    loss = jnp.zeros((), jnp.float32)
    for names in groups(parts, scope):
        target = keep_fraction * sum(parts[name].size for name in names)
        count, measure = (
            jnp.sum(jnp.stack([each[name] for name in names]))
            for each in (counted, unit)
        )
        loss += jnp.square((count - target) / measure)
    return loss


def top_k_masks(
    sizes: Mapping[str, jax.Array], keep_fraction: float, scope: Scope
) -> dict[str, jax.Array]:
    """Marks the largest entries, an exact number of them even where they tie.

    Args:
      sizes: float arrays by name.
      keep_fraction: of all entries; the number is rounded (halves to even), and at
        least one.
      scope: of that number.

    Returns:
      bool arrays by name, in the shapes of `sizes`.
    """
    # In one order, so that ties fall alike however the dict was made.
    ordered = dict(sorted(sizes.items()))
    marked: dict[str, jax.Array] = {}
    for names in groups(ordered, scope):
        own = [ordered[name] for name in names]
        wide = max((each.dtype for each in own), key=lambda dtype: dtype.itemsize)
        together = jnp.concatenate([each.ravel().astype(wide) for each in own])
        kept = top_k_mask(together, max(1, round(keep_fraction * together.size)))
        start = 0
        for name, each in zip(names, own, strict=True):
            marked[name] = kept[start : start + each.size].reshape(each.shape)
            start += each.size
    return {name: marked[name] for name in sizes}
