"""Magnitude pruning: a method that trains weights, then drops the smallest."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from aslp_jax._checks import fix_numbers, single_key
from aslp_jax._tree import Select, by_name, kernels, map_named, named_leaves
from aslp_jax.methods import _keep_budget, _trained
from aslp_jax.methods._keep_budget import Scope
from aslp_jax.methods.base import Frozen, Method, Params

__all__ = ["Magnitude"]


@dataclasses.dataclass(frozen=True)
class Magnitude(Method):
    """Method that trains all weights and keeps the largest magnitudes.

    With a key the network is the trained one, without a key the pruned one. `prune`
    fixes the current masks for fine-tuning: pruned weights stay 0.

    Attributes:
      keep_fraction: fraction of the masked weights to keep, in (0, 1].
      scope: `"global"` (default) compares all weights, `"layer"` the weights of each
        array.

    Source: the baseline of Dupont et al. 2021, arXiv:2107.03909; Han et al. 2015,
      arXiv:1506.02626.
    """

    keep_fraction: float
    scope: Scope = "global"
    trains_dense: ClassVar[bool] = True
    bits_per_kept_weight: ClassVar[int] = 32

    def __post_init__(self) -> None:
        fix_numbers(self, "keep_fraction")
        _keep_budget.check_budget("Magnitude", self.keep_fraction, self.scope)

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Frozen, Params]:
        """Moves the weights into the params; the fixed masks keep all of them.

        Args:
          key: one PRNG key; changes nothing.
          weights: pytree of arrays.
          select: function from the name of a leaf to True if it is masked, default
            `kernels`.

        Returns:
          Frozen `masks` (bool, by name), and params: `weights`, the complete tree.
          Leaves that are no float arrays stay in the frozen part, as `others`.

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point, or
            the budget keeps less than one weight a layer.
        """
        single_key("init", key)
        chosen = named_leaves(weights, select)
        _keep_budget.check_keeps_every_layer(chosen, self.keep_fraction, self.scope)
        masks = {name: jnp.ones_like(leaf, bool) for name, leaf in chosen.items()}
        trained, others = _trained.split(weights)
        return {"masks": masks, **others}, {"weights": trained}

    def effective_weights(
        self, frozen: Frozen, params: Params, *, key: jax.Array | None = None
    ) -> Any:
        """Returns the weights under the fixed masks; pruned further without a key.

        Args:
          frozen: frozen arrays from `init` or `prune`.
          params: trained arrays; gradients reach the kept weights.
          key: None (default) prunes; one PRNG key, any, gives the trained network.

        Returns:
          Pytree of the structure, shapes and dtypes of the weights given to `init`.
        """
        if key is None:
            masks = self.masks(frozen, params)
        else:
            single_key("effective_weights", key)
            masks = by_name(frozen["masks"])

        def keep(name: str, weight: jax.Array) -> jax.Array:
            return jnp.where(masks[name], weight, jnp.zeros_like(weight))

        return map_named(_trained.merge(params["weights"], frozen), masks, keep)

    def prune(self, frozen: Frozen, params: Params) -> Frozen:
        """Returns frozen arrays that fix the current masks.

        Args:
          frozen: frozen arrays from `init` or `prune`.
          params: trained arrays.
        """
        return {**frozen, "masks": self.masks(frozen, params)}

    def keep_probabilities(
        self, frozen: Frozen, params: Params
    ) -> dict[str, jax.Array]:
        """Returns 1 for each kept weight and 0 for the others, by name (float32)."""
        return {
            name: mask.astype(jnp.float32)
            for name, mask in self.masks(frozen, params).items()
        }

    def masks(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns the top-k masks of the magnitudes by name (bool)."""
        fixed = by_name(frozen["masks"])
        magnitudes = {
            # Pruned weights rank below all others, including weights of 0.
            name: jnp.where(fixed[name], jnp.abs(leaf), -jnp.ones_like(leaf))
            for name, leaf in named_leaves(
                jax.lax.stop_gradient(params["weights"]), lambda name: name in fixed
            ).items()
        }
        return _keep_budget.top_k_masks(magnitudes, self.keep_fraction, self.scope)
