"""Edge-popup: a method that keeps an exact number of the largest scores."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from aslp_jax import _sharding
from aslp_jax._checks import check_sizes, fix_numbers, single_key
from aslp_jax._tree import (
    Select,
    by_name,
    kernels,
    map_named,
    named_leaves,
    split_by_name,
)
from aslp_jax.methods import _keep_budget
from aslp_jax.methods._keep_budget import Scope
from aslp_jax.methods.base import Frozen, Method, Params, ScaledMask

__all__ = ["EdgePopup"]


@dataclasses.dataclass(frozen=True)
class EdgePopup(Method):
    """Method that keeps the weights whose scores have the largest magnitudes.

    Each masked weight has one trained score. The forward pass keeps the top
    `keep_fraction` of `|score|`, an exact number even if scores tie. The backward pass
    replaces the mask by `|score|`. Nothing is sampled: a key changes nothing.

    Attributes:
      keep_fraction: fraction of the masked weights to keep, in (0, 1], default 0.5. The
        number is rounded (halves to even) and at least one.
      scope: `"layer"` (default) keeps this fraction of each weight array, `"global"` of
        all together.
      rescale: `"fan"` multiplies the kept weights by sqrt(1 / keep_fraction), which
        compensates the inputs that a unit loses; `"none"` (default) does not.

    Source: Ramanujan et al. 2020, arXiv:1911.13299, section 3.2 (fan scaling: 5).
    """

    keep_fraction: float = 0.5
    scope: Scope = "layer"
    rescale: Literal["none", "fan"] = "none"

    def __post_init__(self) -> None:
        fix_numbers(self, "keep_fraction")
        _keep_budget.check_budget("EdgePopup", self.keep_fraction, self.scope)
        if self.rescale not in ("none", "fan"):
            raise ValueError(
                f"EdgePopup: rescale must be 'none' or 'fan', got {self.rescale!r}"
            )

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Frozen, Params]:
        """Initialises the scores from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

        Args:
          key: PRNG key of the scores, consumed by this call.
          weights: pytree of arrays; fan_in is the product of all axes but the last.
          select: function from the name of a leaf to True if it is masked, default
            `kernels`.

        Returns:
          `weights` unchanged, and params: `scores`, by name, each in the shape and
          dtype of its weight.

        Raises:
          ValueError: `select` chooses no leaf, one that is not floating point, or one
            of a symbolic size.
        """
        key, chosen = single_key("init", key), named_leaves(weights, select)
        check_sizes("init", chosen)

        def initialise(name: str, subkey: jax.Array) -> jax.Array:
            leaf = chosen[name]
            bound = 1 / math.sqrt(max(1, math.prod(leaf.shape[:-1])))
            scores = jax.random.uniform(subkey, leaf.shape, leaf.dtype, -bound, bound)
            return _sharding.like(scores, leaf)

        keys = split_by_name(key, chosen)
        scores = {name: initialise(name, keys[name]) for name in chosen}
        return weights, {"scores": scores}

    def effective_weights(
        self, frozen: Frozen, params: Params, *, key: jax.Array | None = None
    ) -> Any:
        """Returns scale * mask * weight for masked weights, other leaves unchanged.

        Args:
          frozen: pytree of frozen weights.
          params: params from `init`; gradients reach the scores.
          key: None or one PRNG key; changes nothing.

        Returns:
          Pytree of the structure, shapes and dtypes of `frozen`.

        Raises:
          KeyError: `params` name a weight that the tree does not hold.
        """
        if key is not None:
            single_key("effective_weights", key)
        masks, scores = self.masks(frozen, params), by_name(params["scores"])
        scale = self._fan_scale if self.rescale == "fan" else 1.0

        def select_and_scale(name: str, weight: jax.Array) -> jax.Array:
            magnitude = jnp.abs(scores[name].astype(weight.dtype))
            # An infinite score is certain: no gradient, and no inf - inf.
            certain = jnp.isinf(magnitude)
            magnitude = jnp.where(certain, jnp.zeros_like(magnitude), magnitude)
            hard = masks[name].astype(weight.dtype)
            # The brackets make the mask exactly 0 or 1.
            mask = hard + (magnitude - jax.lax.stop_gradient(magnitude))
            return scale * mask * weight

        return map_named(frozen, masks, select_and_scale)

    def keep_probabilities(
        self, frozen: Frozen, params: Params
    ) -> dict[str, jax.Array]:
        """Returns 1 for each kept weight and 0 for the others, by name."""
        masks = self.masks(frozen, params)
        return {
            name: masks[name].astype(scores.dtype)
            for name, scores in by_name(params["scores"]).items()
        }

    def masks(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns the top-k masks of `|score|` by name (bool)."""
        magnitudes = {
            name: jnp.abs(jax.lax.stop_gradient(scores))
            for name, scores in by_name(params["scores"]).items()
        }
        return _keep_budget.top_k_masks(magnitudes, self.keep_fraction, self.scope)

    def scaled_masks(self, frozen: Frozen, params: Params) -> dict[str, ScaledMask]:
        """Returns the mask and the fan scale of each array, by name."""
        scale = jnp.float32(self._fan_scale) if self.rescale == "fan" else None
        return {
            name: ScaledMask(mask.astype(jnp.int8), scale)
            for name, mask in self.masks(frozen, params).items()
        }

    @property
    def _fan_scale(self) -> float:
        return math.sqrt(1 / self.keep_fraction)
