"""Budget-aware reparametrisation: weights and masks trained together."""

import dataclasses
import math
from typing import Any, ClassVar

import jax
import jax.numpy as jnp

from aslp_jax._checks import check_positive, fix_numbers, single_key
from aslp_jax._tree import Select, by_name, kernels, map_named, named_leaves
from aslp_jax.methods import _keep_budget, _trained
from aslp_jax.methods._keep_budget import Scope
from aslp_jax.methods.base import Frozen, Method, Params

__all__ = ["Budget", "gate"]

_SATURATED = 1e4
"""Value of |t w| above which the gate h is exactly 1 and has no slope."""

_AT_REST = 0.25
"""Value of |t w| below which the gate h is below 0.0023 and its slope below 0.04."""


@dataclasses.dataclass(frozen=True)
class Budget(Method):
    """Method that trains weights and gates them by their own magnitude.

    The network runs on w * h(t w). The gate h is near 0 for small and near 1 for large
    arguments, and the budget loss holds the sum of the gates to the number of weights
    to keep. At the end the weights outside the budget are set to 0. Nothing is sampled:
    with a key the network is the trained one, without a key the pruned one.

    Attributes:
      keep_fraction: fraction of all masked weights to keep, in (0, 1].
      budget_weight: weight of the budget loss, > 0, default 500.
      sharpness_init: initial sharpness t, > 0, default 100.
      sharpness_scope: `"global"` (default) for one t, `"layer"` for one t an array.

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
        fix_numbers(self, "keep_fraction", "budget_weight", "sharpness_init")
        _keep_budget.check_budget("Budget", self.keep_fraction, "global")
        _keep_budget.check_scope("Budget", "sharpness_scope", self.sharpness_scope)
        _keep_budget.check_weight("Budget", self.budget_weight)
        check_positive("Budget", "sharpness_init", self.sharpness_init)

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Frozen, Params]:
        """Moves the weights into the params, with the sharpness t.

        Args:
          key: one PRNG key; changes nothing.
          weights: pytree of arrays.
          select: function from the name of a leaf to True if it is masked, default
            `kernels`.

        Returns:
          Frozen `initial_count` (sum of the gates of each array, by name), and params:
          `weights` (the complete tree) and `sharpness` (t, by name or under `all`).
          Leaves that are no float arrays stay in the frozen part, as `others`.

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point, or
            the budget keeps less than one weight a layer.
        """
        single_key("init", key)
        chosen = named_leaves(weights, select)
        _keep_budget.check_keeps_every_layer(chosen, self.keep_fraction, "global")
        names = ["all"] if self.sharpness_scope == "global" else list(chosen)
        sharpness = {
            name: jnp.full((), self.sharpness_init, jnp.float32) for name in names
        }
        trained, others = _trained.split(weights)
        gates = jax.tree.map(gate, _sharpen(chosen, sharpness))
        frozen = {"initial_count": _keep_budget.sum_by_name(gates), **others}
        return frozen, {"weights": trained, "sharpness": sharpness}

    def effective_weights(
        self, frozen: Frozen, params: Params, *, key: jax.Array | None = None
    ) -> Any:
        """Returns w * h(t w) for every masked weight; pruned without a key.

        Args:
          frozen: frozen arrays from `init`.
          params: trained arrays; gradients reach weights and t.
          key: None (default) prunes; one PRNG key, any, gives the trained network.

        Returns:
          Pytree of the structure, shapes and dtypes of the weights given to `init`.
        """
        if key is not None:
            single_key("effective_weights", key)
        gates = self.keep_probabilities(frozen, params)
        masks = self.masks(frozen, params) if key is None else None

        def apply_gate(name: str, weight: jax.Array) -> jax.Array:
            gated = gates[name].astype(weight.dtype) * weight
            if masks is None:
                return gated
            return jnp.where(masks[name], gated, jnp.zeros_like(gated))

        return map_named(_trained.merge(params["weights"], frozen), gates, apply_gate)

    def keep_probabilities(
        self, frozen: Frozen, params: Params
    ) -> dict[str, jax.Array]:
        """Returns the gates h(t w) by name, in the shape of each weight array."""
        return jax.tree.map(gate, self._sharpened(frozen, params))

    def masks(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns the top-k masks of `|t w|` by name (bool)."""
        # |t w| orders the weights as h does, but h is exactly 1 for many of them.
        magnitudes = jax.tree.map(jnp.abs, self._sharpened(frozen, params))
        return _keep_budget.top_k_masks(magnitudes, self.keep_fraction, "global")

    def keep_counts(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns the sum of the gates of each array, float32 scalar, by name."""
        return _keep_budget.sum_by_name(self.keep_probabilities(frozen, params))

    def penalty(self, frozen: Frozen, params: Params) -> jax.Array:
        """Returns the budget loss.

        Args:
          frozen: frozen arrays from `init`.
          params: trained arrays; the gradient reaches weights and t.

        Returns:
          Float32 scalar.

        Source: Dupont et al. 2021, section 2.2.
        """
        return self.budget_weight * _keep_budget.budget_loss(
            self.keep_probabilities(frozen, params),
            self.keep_fraction,
            "global",
            by_name(frozen["initial_count"]),
            minimum=1.0,
        )

    def metrics(
        self, frozen: Frozen, params: Params
    ) -> dict[str, dict[str, jax.Array]]:
        """Returns `at_rest`, the fraction of each array with `|t w|` below 1/4.

        There the gate and its slope are so small that a weight almost stops changing.
        """
        resting = jax.tree.map(
            lambda each: jnp.mean((jnp.abs(each) < _AT_REST).astype(jnp.float32)),
            self._sharpened(frozen, params),
        )
        return {"at_rest": resting}

    def _sharpened(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns t w by name, in float32 or wider."""
        masked = by_name(frozen["initial_count"])
        chosen = named_leaves(params["weights"], lambda name: name in masked)
        return _sharpen(chosen, by_name(params["sharpness"]))


def gate(sharpened: jax.Array) -> jax.Array:
    """Returns the gate h: 0 without slope at 0, 1/2 near 1.13, 1 for large arguments.

    h(u) = C1 (exp(-1 / (u^4 + 1)) - 1/e) with h -> 1, in a form that subtracts no
    nearly equal numbers and takes no large power.

    Args:
      sharpened: product of t and the weights, float array.

    Returns:
      Shape and dtype of `sharpened`, in [0, 1].

    Source: Dupont et al. 2021, eq. (2), n = 4.
    """
    power = jnp.square(jnp.square(jnp.clip(sharpened, -_SATURATED, _SATURATED)))
    return jnp.expm1(power / (1 + power)) / (math.e - 1)


def _sharpen(
    chosen: dict[str, jax.Array], sharpness: dict[str, jax.Array]
) -> dict[str, jax.Array]:
    def product(name: str, weight: jax.Array) -> jax.Array:
        t = sharpness[name if name in sharpness else "all"]
        wide = max(weight.dtype, t.dtype, key=lambda dtype: dtype.itemsize)
        return t.astype(wide) * weight.astype(wide)

    return {name: product(name, weight) for name, weight in chosen.items()}
