"""Budget-aware reparametrisation: weights and topology trained together."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from aslp_jax._tree import Select, kernels, map_named, named_leaves
from aslp_jax.methods import _keep_budget
from aslp_jax.methods._keep_budget import Scope
from aslp_jax.methods.base import Method

_SURE = 1e4
"""|t w| from which h is 1 to the last bit, and flat."""

_AT_REST = 0.25
"""|t w| up to which h is below 0.0023 and its slope below 0.04."""


@dataclasses.dataclass(frozen=True)
class Budget(Method):
    """Trains weights that count as kept, or not, by their own size.

    The network runs on w * h(t w), where h is near 0 for small and near 1 for large
    arguments, and the budget loss holds the sum of h to the number of weights to keep.
    In the end those outside of it are set to 0. Nothing is drawn: with a key the
    network is the one that is trained, without a key the one after this pruning.

    Attributes:
      keep_fraction: in (0, 1], of the masked weights, all together.
      budget_weight: > 0, of the budget loss.
      sharpness_init: > 0, where t starts.
      sharpness_scope: `"global"`, one t for all; `"layer"`, each array has its own.

    Source: Dupont et al. 2021, arXiv:2107.03909.
    """

    keep_fraction: float
    budget_weight: float = 500.0
    sharpness_init: float = 100.0
    sharpness_scope: Scope = "global"
    trains_dense: ClassVar[bool] = True
    tolerance: ClassVar[float] = 0.005
    bits_per_kept_weight: ClassVar[int] = 32

    def __post_init__(self) -> None:
        _keep_budget.check_budget("Budget", self.keep_fraction, "global")
        _keep_budget.check_scope("Budget", "sharpness_scope", self.sharpness_scope)
        _keep_budget.check_weight("Budget", self.budget_weight)
        if not 0 < self.sharpness_init < math.inf:
            raise ValueError(
                "Budget: sharpness_init must be positive and finite, got "
                f"{self.sharpness_init}"
            )

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Any, dict[str, Any]]:
        """Moves the weights to what is learnt, beside t.

        Args:
          key: taken as every method takes it; nothing is drawn.
          weights: pytree of arrays.
          select: from the name of a leaf to whether it is masked.

        Returns:
          The counts at the start, by name, which nothing trains; and what is learnt:
          `weights` (the whole tree) and `sharpness` (t, by name or under `all`).

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point, or
            the budget leaves less than one weight a layer.
        """
        del key
        chosen = named_leaves(weights, select)
        _keep_budget.check_room(chosen, self.keep_fraction, "global")
        names = ["all"] if self.sharpness_scope == "global" else list(chosen)
        sharpness = {
            name: jnp.full((), self.sharpness_init, jnp.float32) for name in names
        }
        params = {"weights": weights, "sharpness": sharpness}
        shares = jax.tree.map(gate, _sharpen(chosen, sharpness))
        return {"initial_count": _keep_budget.counts(shares)}, params

    def effective_weights(
        self, frozen: Any, params: dict[str, Any], *, key: jax.Array | None = None
    ) -> Any:
        """Returns w * h(t w) for every masked weight; without a key, pruned.

        Args:
          frozen: what `init` froze.
          params: what is learnt; gradients reach weights and t.
          key: None prunes; any other changes nothing else.

        Returns:
          A pytree like the one that `init` was given.
        """
        shares = self.keep_probabilities(frozen, params)
        masks = self.masks(frozen, params) if key is None else None

        def scale(name: str, weight: jax.Array) -> jax.Array:
            apparent = shares[name].astype(weight.dtype) * weight
            if masks is None:
                return apparent
            return jnp.where(masks[name], apparent, jnp.zeros_like(apparent))

        return map_named(params["weights"], shares, scale)

    def keep_probabilities(
        self, frozen: Any, params: dict[str, Any]
    ) -> dict[str, jax.Array]:
        """Returns h(t w), the share of itself that each weight counts for, by name."""
        return jax.tree.map(gate, self._sharpened(frozen, params))

    def masks(self, frozen: Any, params: dict[str, Any]) -> dict[str, jax.Array]:
        """Returns by name the weights within the budget: an exact number of them."""
        # By |t w|, which h follows, because h is 1 to the last bit for many.
        sizes = jax.tree.map(jnp.abs, self._sharpened(frozen, params))
        return _keep_budget.top_k_masks(sizes, self.keep_fraction, "global")

    def keep_counts(self, frozen: Any, params: dict[str, Any]) -> dict[str, jax.Array]:
        """Returns by name the sum of h, which the budget is about (float32 scalars)."""
        return _keep_budget.counts(self.keep_probabilities(frozen, params))

    def penalty(self, frozen: Any, params: dict[str, Any]) -> jax.Array:
        """Returns the budget loss.

        Args:
          frozen: what `init` froze.
          params: the gradient reaches weights and t.

        Returns:
          A float32 scalar.

        Source: Dupont et al. 2021, section 2.2.
        """
        return self.budget_weight * _keep_budget.budget_loss(
            self.keep_probabilities(frozen, params),
            self.keep_fraction,
            "global",
            frozen["initial_count"],
        )

    def metrics(
        self, frozen: Any, params: dict[str, Any]
    ) -> dict[str, dict[str, jax.Array]]:
        """Returns `at_rest`, what fraction of each array has |t w| below 1/4.

        There h and its slope are so small that a weight hardly moves any more.
        """
        resting = jax.tree.map(
            lambda each: jnp.mean((jnp.abs(each) < _AT_REST).astype(jnp.float32)),
            self._sharpened(frozen, params),
        )
        return {"at_rest": resting}

    def _sharpened(self, frozen: Any, params: dict[str, Any]) -> dict[str, jax.Array]:
        """t w by name, in float32 at least."""
        held = frozen["initial_count"]
        chosen = named_leaves(params["weights"], lambda name: name in held)
        return _sharpen(chosen, params["sharpness"])


def gate(sharpened: jax.Array) -> jax.Array:
    """Returns h: 0 and flat at 0, 1/2 at about 1.13, 1 for large arguments.

    h(u) = C1 (exp(-1 / (u^4 + 1)) - 1/e) with h -> 1, written so that neither a
    difference of near numbers nor a large power is ever taken.

    Args:
      sharpened: float array, the product of t and the weights.

    Returns:
      Shape and dtype of `sharpened`, in [0, 1].

    Source: Dupont et al. 2021, eq. (2), n = 4.
    """
    power = jnp.square(jnp.square(jnp.clip(sharpened, -_SURE, _SURE)))
    return jnp.expm1(power / (1 + power)) / (math.e - 1)


def _sharpen(
    chosen: dict[str, jax.Array], sharpness: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    def product(name: str, weight: jax.Array) -> jax.Array:
        t = sharpness[name if name in sharpness else "all"]
        wide = max(weight.dtype, t.dtype, key=lambda dtype: dtype.itemsize)
        return t.astype(wide) * weight.astype(wide)

    return {name: product(name, weight) for name, weight in chosen.items()}
