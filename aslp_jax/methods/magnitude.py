"""Magnitude pruning: weights are trained, then the smallest are set to 0."""

import dataclasses
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from aslp_jax._tree import Select, kernels, map_named, named_leaves
from aslp_jax.methods import _keep_budget
from aslp_jax.methods._keep_budget import Scope
from aslp_jax.methods.base import Method


@dataclasses.dataclass(frozen=True)
class Magnitude(Method):
    """Trains all weights and keeps the largest magnitudes.

    With a key the network is the one that is trained, without a key it is pruned.
    `prune` holds the masks of that moment, for fine-tuning: what is pruned stays 0.

    Attributes:
      keep_fraction: in (0, 1], of the masked weights.
      scope: `"global"` compares all weights with one another, `"layer"` those of each
        array.

    Source: the baseline of Dupont et al. 2021, arXiv:2107.03909; Han et al. 2015,
      arXiv:1506.02626.
    """

    keep_fraction: float
    scope: Scope = "global"
    trains_dense: ClassVar[bool] = True
    bits_per_kept_weight: ClassVar[int] = 32

    def __post_init__(self) -> None:
        _keep_budget.check_budget("Magnitude", self.keep_fraction, self.scope)

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Any, dict[str, Any]]:
        """Moves the weights to what is learnt, beside masks that keep all of them.

        Args:
          key: taken as every method takes it; nothing is drawn.
          weights: pytree of arrays.
          select: from the name of a leaf to whether it is masked.

        Returns:
          The held masks (bool, by name), which nothing trains; and what is learnt:
          `weights`, the whole tree.

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point, or
            the budget leaves less than one weight a layer.
        """
        del key
        chosen = named_leaves(weights, select)
        _keep_budget.check_room(chosen, self.keep_fraction, self.scope)
        held = {name: jnp.ones(leaf.shape, bool) for name, leaf in chosen.items()}
        return {"masks": held}, {"weights": weights}

    def effective_weights(
        self, frozen: Any, params: dict[str, Any], *, key: jax.Array | None = None
    ) -> Any:
        """Returns the weights that are held; without a key the largest of them.

        Args:
          weights: what `init` or `prune` froze.
          params: what is learnt; gradients reach the weights that are kept.
          key: None prunes; any other changes nothing else.

        Returns:
          A pytree like the one that `init` was given.
        """
        masks = frozen["masks"] if key is not None else self.masks(frozen, params)

        def keep(name: str, weight: jax.Array) -> jax.Array:
            return jnp.where(masks[name], weight, jnp.zeros_like(weight))

        return map_named(params["weights"], masks, keep)

    def prune(self, frozen: Any, params: dict[str, Any]) -> Any:
        """Returns the frozen part that holds the masks of this moment."""
        return {"masks": self.masks(frozen, params)}

    def keep_probabilities(
        self, frozen: Any, params: dict[str, Any]
    ) -> dict[str, jax.Array]:
        """Returns 1 for what is kept and 0 for the rest, by name (float32)."""
        return {
            name: mask.astype(jnp.float32)
            for name, mask in self.masks(frozen, params).items()
        }

    def masks(self, frozen: Any, params: dict[str, Any]) -> dict[str, jax.Array]:
        """Returns by name which weights are kept (bool), an exact number of them."""
        held = frozen["masks"]
        sizes = {
            # What is not held comes after every weight that is, a zero among them.
            name: jnp.where(held[name], jnp.abs(leaf), -jnp.ones_like(leaf))
            for name, leaf in named_leaves(
                jax.lax.stop_gradient(params["weights"]), lambda name: name in held
            ).items()
        }
        return _keep_budget.top_k_masks(sizes, self.keep_fraction, self.scope)
