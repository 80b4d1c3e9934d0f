"""Budgets: checks of their options, allocation to layers, loss and exact masks."""

import math
from collections.abc import Mapping
from typing import Literal

import jax
import jax.numpy as jnp

from aslp_jax import _sharding
from aslp_jax._checks import check_positive, check_sizes
from aslp_jax.methods._top_k import top_k_mask

Scope = Literal["global", "layer"]
SCOPES: tuple[Scope, ...] = ("global", "layer")


def check_budget(
    method: str, keep_fraction: float | None, scope: str, *, required: bool = True
) -> None:
    """Checks the options that say how many weights to keep.

    Args:
      method: name of the method, for the message.
      keep_fraction: fraction of the weights to keep, in (0, 1].
      scope: one of `SCOPES`.
      required: False if `keep_fraction` may be None; default True.

    Raises:
      ValueError: an option is out of range.
    """
    fraction = math.nan if keep_fraction is None else keep_fraction
    if not (0 < fraction <= 1 or (keep_fraction is None and not required)):
        raise ValueError(
            f"{method}: keep_fraction must be in (0, 1], got {keep_fraction}"
        )
    check_scope(method, "scope", scope)


def check_scope(method: str, name: str, scope: str) -> None:
    """Checks an option that takes one of `SCOPES`.

    Args:
      method: name of the method, for the message.
      name: name of the option, for the message.
      scope: value of the option.

    Raises:
      ValueError: `scope` is not one of `SCOPES`.
    """
    if scope not in SCOPES:
        raise ValueError(
            f"{method}: {name} must be {' or '.join(map(repr, SCOPES))}, got {scope!r}"
        )


def check_weight(method: str, budget_weight: float) -> None:
    """Checks the weight of a budget loss.

    Args:
      method: name of the method, for the message.
      budget_weight: weight of the budget loss, > 0.

    Raises:
      ValueError: `budget_weight` is not positive and finite.
    """
    check_positive(method, "budget_weight", budget_weight)


def check_keeps_every_layer(
    weights: Mapping[str, jax.Array], keep_fraction: float, scope: Scope
) -> None:
    """Checks that a budget allows at least one weight for each array.

    Args:
      weights: masked weights by name.
      keep_fraction: fraction of them to keep, in (0, 1].
      scope: scope of `keep_fraction`.

    Raises:
      ValueError: the budget is smaller, or a size is symbolic.
    """
    check_sizes("init", weights)
    for names in names_by_budget(weights, scope):
        size = sum(weights[name].size for name in names)
        if size == 0:
            raise ValueError(
                f"init: keep_fraction of no weights: {', '.join(names)} hold no element"
            )
        if keep_fraction * size < len(names):
            raise ValueError(
                f"init: keep_fraction {keep_fraction} of {size:,} weights in "
                f"{', '.join(names)} leaves less than one for each layer; expected at "
                f"least {len(names) / size:.2g}"
            )


def names_by_budget(names: Mapping[str, object], scope: Scope) -> list[list[str]]:
    """Returns the names that share a budget: all together, or each alone."""
    return [list(names)] if scope == "global" else [[name] for name in names]


def erdos_renyi(
    weights: Mapping[str, jax.Array],
    keep_fraction: float,
    scope: Scope,
    *,
    maximum: float,
) -> dict[str, float]:
    """Returns the keep-fraction of each array at the start, for a budget.

    A global budget is allocated in proportion to the sum of the axes of each array (the
    Erdos-Renyi rule), so that small layers start denser than large ones. With equal
    fractions, a small budget would leave almost nothing of the first and last layer.

    Args:
      weights: masked weights by name.
      keep_fraction: fraction of them to keep, in (0, 1].
      scope: scope of `keep_fraction`; with `"layer"`, all arrays get this fraction.
      maximum: largest fraction of one array, in (0, 1]; a larger `keep_fraction`
        replaces it.

    Returns:
      Name to fraction in (0, 1]; together they keep the budget.

    Source: Mocanu et al. 2018, arXiv:1707.04780; for kernels Evci et al. 2020,
      arXiv:1911.11134, section 3.
    """
    fractions = dict.fromkeys(weights, keep_fraction)
    if scope == "layer":
        return fractions
    maximum = max(maximum, keep_fraction)
    # An array without elements takes nothing, and a scalar has one.
    axes = {name: sum(leaf.shape) or 1 for name, leaf in weights.items()}
    unbounded = {name for name, leaf in weights.items() if leaf.size}
    budget = keep_fraction * sum(leaf.size for leaf in weights.values())
    while unbounded:
        per_unit = budget / sum(axes[name] for name in unbounded)
        for name in unbounded:
            fractions[name] = per_unit * axes[name] / weights[name].size
        full = {name for name in unbounded if fractions[name] >= maximum}
        if not full:
            break
        for name in full:
            fractions[name] = maximum
            budget -= maximum * weights[name].size
        unbounded -= full
    return fractions


def sum_by_name(arrays: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the sum of the entries of each array, float32 scalar, by name."""
    return {name: jnp.sum(each.astype(jnp.float32)) for name, each in arrays.items()}


def budget_loss(
    gates: Mapping[str, jax.Array],
    keep_fraction: float,
    scope: Scope,
    normalisers: Mapping[str, jax.Array],
    *,
    minimum: float = 0.0,
) -> jax.Array:
    """Returns the squared relative difference between the kept weights and the budget.

    Args:
      gates: name to floats in [0, 1], the part by which each weight counts as kept.
      keep_fraction: fraction of the weights to keep, in (0, 1].
      scope: scope of `keep_fraction`.
      normalisers: name to float32 scalar, the count that differences are divided by,
        such as the count at the start.
      minimum: smallest number that differences are divided by, in weights, default 0.

    Returns:
      Float32 scalar, summed over the budgets of the scope.

    Source: Dupont et al. 2021, arXiv:2107.03909, section 2.2:
      ((C - C_target) / C_initial)^2.
    """
    counts = sum_by_name(gates)
    loss = jnp.zeros((), jnp.float32)
    for names in names_by_budget(gates, scope):
        target = keep_fraction * sum(gates[name].size for name in names)
        count, normaliser = (
            jnp.sum(jnp.stack([each[name] for name in names]))
            for each in (counts, normalisers)
        )
        loss += jnp.square((count - target) / jnp.maximum(normaliser, minimum))
    return loss


def top_k_masks(
    scores: Mapping[str, jax.Array], keep_fraction: float, scope: Scope
) -> dict[str, jax.Array]:
    """Marks the largest entries, an exact number of them even if entries tie.

    Args:
      scores: float arrays by name.
      keep_fraction: fraction of the entries, in (0, 1]. Their number is rounded (halves
        to even) and at least one.
      scope: scope of `keep_fraction`.

    Returns:
      Name to bools, in the shapes of `scores`.

    Raises:
      ValueError: a size is symbolic.
    """
    check_sizes("masks", scores)
    # Sorted, so that ties do not depend on the order of the dict.
    ordered = dict(sorted(scores.items()))
    masks: dict[str, jax.Array] = {}
    for names in names_by_budget(ordered, scope):
        own = [_sharding.replicated(ordered[name]) for name in names]
        wide = max((each.dtype for each in own), key=lambda dtype: dtype.itemsize)
        flat = jnp.concatenate([each.ravel().astype(wide) for each in own])
        count = max(1, round(keep_fraction * flat.size))
        kept = top_k_mask(flat, min(count, flat.size))
        start = 0
        for name, each in zip(names, own, strict=True):
            mask = kept[start : start + each.size].reshape(each.shape)
            masks[name] = _sharding.like(mask, ordered[name])
            start += each.size
    return {name: masks[name] for name in scores}
