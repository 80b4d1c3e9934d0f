"""Edge-popup: the weights with the largest scores, an exact number of them."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from aslp_jax._tree import Select, kernels, map_named, named_leaves, split_by_name
from aslp_jax.methods import _keep_budget
from aslp_jax.methods._keep_budget import Scope
from aslp_jax.methods.base import Method, ScaledMask


@dataclasses.dataclass(frozen=True)
class EdgePopup(Method):
    """Keeps the weights whose scores have the largest magnitudes.

    One score a masked weight is learnt. In the forward pass the top `keep_fraction` of
    |score| are kept, a number that is exact even where scores tie; the gradient passes
    the selection as if it were the identity of |score|. Nothing is drawn: a key changes
    nothing.

    Attributes:
      keep_fraction: in (0, 1], of the masked weights.
      scope: `"layer"` keeps that fraction of each weight array, `"global"` of all
        together. The number is rounded (halves to even), and at least one.
      rescale: `"fan"` multiplies the kept weights by sqrt(1 / keep_fraction), which
        makes up for the inputs that a unit lost; `"none"` does not.

    Source: Ramanujan et al. 2020, arXiv:1911.13299, section 3.2 (fan scaling: 5).
    """

    keep_fraction: float = 0.5
    scope: Scope = "layer"
    rescale: Literal["none", "fan"] = "none"

    def __post_init__(self) -> None:
        _keep_budget.check_budget("EdgePopup", self.keep_fraction, self.scope)
        if self.rescale not in ("none", "fan"):
            raise ValueError(
                f"EdgePopup: rescale must be 'none' or 'fan', got {self.rescale!r}"
            )

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Any, dict[str, Any]]:
        """Draws every score from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

        Args:
          key: PRNG key of the scores, consumed by this call.
          weights: pytree of arrays; fan_in is the product of all axes but the last.
          select: from the name of a leaf to whether it is masked.

        Returns:
          `weights` as they are, and the params: `scores`, each in the shape and
          dtype of its weight.

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point.
        """
        chosen = named_leaves(weights, select)

        def draw(name: str, subkey: jax.Array) -> jax.Array:
            leaf = chosen[name]
            bound = 1 / math.sqrt(max(1, math.prod(leaf.shape[:-1])))
            return jax.random.uniform(subkey, leaf.shape, leaf.dtype, -bound, bound)

        keys = split_by_name(key, chosen)
        return weights, {"scores": {name: draw(name, keys[name]) for name in chosen}}

    def effective_weights(
        self, frozen: Any, params: dict[str, Any], *, key: jax.Array | None = None
    ) -> Any:
        """Returns mask * weight for every masked weight, the others unchanged.

        Args:
          frozen: pytree of frozen arrays.
          params: as `init` returns them; gradients reach the scores.
          key: taken as every method takes it; changes nothing.

        Returns:
          A pytree of the structure, shapes and dtypes of `frozen`.

        Raises:
          KeyError: a selector names a weight that the tree does not hold.
        """
        del key
        masks = self.masks(frozen, params)
        factor = self._fan_scale if self.rescale == "fan" else 1.0

        def select_and_scale(name: str, weight: jax.Array) -> jax.Array:
            size = jnp.abs(params["scores"][name].astype(weight.dtype))
            hard = masks[name].astype(weight.dtype)
            # In brackets, for 0 or 1 exactly.
            mask = hard + (size - jax.lax.stop_gradient(size))
            return factor * mask * weight

        return map_named(frozen, masks, select_and_scale)

    def keep_probabilities(
        self, frozen: Any, params: dict[str, Any]
    ) -> dict[str, jax.Array]:
        """Returns 1 for what is kept and 0 for the rest, by name: nothing is drawn."""
        masks = self.masks(frozen, params)
        return {
            name: masks[name].astype(scores.dtype)
            for name, scores in params["scores"].items()
        }

    def masks(self, frozen: Any, params: dict[str, Any]) -> dict[str, jax.Array]:
        """Returns by name which weights are kept (bool)."""
        sizes = {
            name: jnp.abs(jax.lax.stop_gradient(scores))
            for name, scores in params["scores"].items()
        }
        return _keep_budget.top_k_masks(sizes, self.keep_fraction, self.scope)

    def scaled_masks(
        self, frozen: Any, params: dict[str, Any]
    ) -> dict[str, ScaledMask]:
        """Returns by name 1 for what is kept and 0 for the rest, and the fan scale."""
        scale = jnp.float32(self._fan_scale) if self.rescale == "fan" else None
        return {
            name: ScaledMask(mask.astype(jnp.int8), scale)
            for name, mask in self.masks(frozen, params).items()
        }

    @property
    def _fan_scale(self) -> float:
        return math.sqrt(1 / self.keep_fraction)
