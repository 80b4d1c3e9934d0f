"""Base of the methods that sample a mask entry for each weight.

The file is long because it answers every question of the protocol for all of these
methods.
"""

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from aslp_jax._checks import check_positive, fix_numbers, single_key
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

__all__ = ["RESCALES", "Rescale", "SampledMasks"]

Rescale = Literal["none", "smart", "dynamic"]
"""Rescaling of a masked layer: none, Smart Rescale or Dynamic Weight Rescale."""

RESCALES: tuple[Rescale, ...] = ("none", "smart", "dynamic")
"""Values of `Rescale`."""

_MAX_INITIAL_KEEP = 1 - 1e-4
"""Largest keep-fraction at the start; at 1 the logits would be infinite and could not
be trained."""

_STD_WITH_BUDGET = 10.0
"""Default standard deviation of the initial logits if there is a budget."""

_SPREAD = 8.0
"""Standard deviations of the initial logits that their dtype must hold."""

_MAX_ALLOCATED_KEEP = 0.5
"""Largest keep-fraction of a layer at the start under a smaller global budget. A mask
that keeps more than half of a layer has fewer alternatives, not more."""

_MIN_NORMALISER = 0.01
"""Floor of the budget loss's normaliser, as a fraction of all maskable weights."""


@dataclasses.dataclass(frozen=True)
class SampledMasks(Method, abc.ABC):
    """Base of the methods that sample a mask for each key.

    A layer runs on scale * mask * weight; a mask of 0 drops the weight. Without a key
    the network is thresholded: each weight gets its likeliest mask. Subclasses define
    the values of the mask, the sampler, and with it the gradient of the logits.

    Attributes:
      rescale: `"smart"` trains one scale for each masked weight array (Smart Rescale);
        `"dynamic"` computes it from the mask as size / number kept, gradient included
        (Dynamic Weight Rescale); `"none"` (default) has no scale.
      scale_init: initial scale of Smart Rescale, > 0, default 1. With a budget it is
        multiplied by sqrt(0.5 / initial keep-fraction of the array), which compensates
        the inputs that a unit loses.
      logit_std: standard deviation of the normal law of the initial logits, >= 0; None
        (default) means 0, or 10 with a budget. If all logits start equal and negative,
        almost none would cross the threshold. With 0, as in the papers, half of the
        input of a unit is at first the noise of the masks; a large value starts with
        nearly certain masks and trains in fewer epochs, with as many weights kept.
      keep_fraction: fraction of the weights, in (0, 1], that the sampled and the
        thresholded network keep. The logits start there and `penalty` holds them there.
        None (default), as in the papers, means no budget.
      scope: scope of the budget: `"global"` (default) for all weights together,
        `"layer"` for each array.
      budget_weight: weight of the budget loss, > 0, default 10.
    """

    rescale: Rescale = "none"
    scale_init: float = 1.0
    logit_std: float | None = None
    keep_fraction: float | None = None
    scope: Scope = "global"
    budget_weight: float = 10.0
    stochastic: ClassVar[bool] = True
    choices: ClassVar[tuple[int, ...]] = ()
    """Leading axes of the logits, before the axes of their weight; default none."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.rescale not in RESCALES:
            raise ValueError(
                f"{name}: rescale must be one of {', '.join(RESCALES)}, "
                f"got {self.rescale!r}"
            )
        fix_numbers(self, "scale_init", "logit_std", "keep_fraction", "budget_weight")
        check_positive(name, "scale_init", self.scale_init)
        if not 0 <= self.initial_std < math.inf:
            raise ValueError(
                f"{name}: logit_std must be finite and at least 0, got {self.logit_std}"
            )
        _keep_budget.check_budget(name, self.keep_fraction, self.scope, required=False)
        _keep_budget.check_weight(name, self.budget_weight)

    @property
    def initial_std(self) -> float:
        """Standard deviation of the initial logits: `logit_std` or its default."""
        if self.logit_std is not None:
            return self.logit_std
        return 0.0 if self.keep_fraction is None else _STD_WITH_BUDGET

    @abc.abstractmethod
    def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Samples the mask of one array; the gradient reaches its logits.

        Args:
          key: PRNG key, consumed by this call.
          logits: float array `[*choices, *weight.shape]`.

        Returns:
          Mask in the shape of the weight and the dtype of `logits`.
        """

    @abc.abstractmethod
    def threshold(self, logits: jax.Array) -> jax.Array:
        """Returns the likeliest mask of one array, in the form of `sample`.

        Args:
          logits: float array `[*choices, *weight.shape]`.
        """

    @abc.abstractmethod
    def keep_probability(self, logits: jax.Array) -> jax.Array:
        """Returns the probability of a mask other than 0, in the form of `sample`.

        Args:
          logits: float array `[*choices, *weight.shape]`.
        """

    @abc.abstractmethod
    def initial_logit(self, keep_fraction: float) -> float:
        """Returns the mean of the initial logits of an array.

        Args:
          keep_fraction: fraction of the array to keep at the start, in (0, 1).
        """

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Frozen, Params]:
        """Initialises the logits, so that they meet the budget, and the scales.

        Args:
          key: PRNG key of the logits, consumed by this call.
          weights: pytree of arrays.
          select: function from the name of a leaf to True if it is masked, default
            `kernels`.

        Returns:
          `weights` unchanged, and params: `logits` (by name, `[*choices,
          *weight.shape]` in the dtype of the weight) and, with Smart Rescale, `scale`
          (by name, scalar of this dtype).

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point, or
            the budget keeps less than one weight a layer.
        """
        key = single_key("init", key)
        chosen = named_leaves(weights, select)
        scales = dict.fromkeys(chosen, self.scale_init)
        means = dict.fromkeys(chosen, 0.0)
        if self.keep_fraction is not None:
            _keep_budget.check_keeps_every_layer(chosen, self.keep_fraction, self.scope)
            for name, fraction in _keep_budget.erdos_renyi(
                chosen, self.keep_fraction, self.scope, maximum=_MAX_ALLOCATED_KEEP
            ).items():
                scales[name] *= math.sqrt(0.5 / fraction)
                means[name] = self.initial_logit(min(fraction, _MAX_INITIAL_KEEP))
        # As the weight, in its dtype and sharding.
        for name, leaf in chosen.items():
            _check_start(name, leaf.dtype, scales[name], self.initial_std)
        logits = {
            name: jnp.broadcast_to(
                jnp.full_like(leaf, means[name]), (*self.choices, *leaf.shape)
            )
            for name, leaf in chosen.items()
        }
        if self.initial_std > 0:
            logits = {
                name: logits[name]
                + self.initial_std
                * jax.random.normal(subkey, logits[name].shape, logits[name].dtype)
                for name, subkey in split_by_name(key, chosen).items()
            }
        params = {"logits": logits}
        if self.rescale == "smart":
            params["scale"] = {
                name: jnp.full((), scales[name], leaf.dtype)
                for name, leaf in chosen.items()
            }
        return weights, params

    def effective_weights(
        self, frozen: Frozen, params: Params, *, key: jax.Array | None = None
    ) -> Any:
        """Returns scale * mask * weight for masked weights, other leaves unchanged.

        Args:
          frozen: pytree of frozen weights.
          params: params from `init`; gradients reach logits and scales.
          key: PRNG key of one sampled network; None (default) thresholds.

        Returns:
          Pytree of the structure, shapes and dtypes of `frozen`.

        Raises:
          KeyError: `params` name a weight that the tree does not hold.

        Source: Dupont et al. 2022, eq. (6): s * (m * w), applied to the weight and
          never to the bias. Dynamic: Zhou et al. 2019, section 5.1.
        """
        logits = by_name(params["logits"])
        scales = by_name(params["scale"]) if self.rescale == "smart" else {}
        if key is None:
            masks = jax.tree.map(self.threshold, logits)
        else:
            masks = {
                name: self.sample(subkey, logits[name])
                for name, subkey in split_by_name(
                    single_key("effective_weights", key), logits
                ).items()
            }

        def select_and_scale(name: str, weight: jax.Array) -> jax.Array:
            mask = masks[name].astype(weight.dtype)
            if self.rescale == "smart":
                return scales[name].astype(weight.dtype) * (mask * weight)
            if self.rescale == "dynamic":
                scale = _dynamic_scale(masks[name]).astype(weight.dtype)
                return scale * mask * weight
            return mask * weight

        return map_named(frozen, masks, select_and_scale)

    def keep_probabilities(
        self, frozen: Frozen, params: Params
    ) -> dict[str, jax.Array]:
        """Returns the keep-probabilities by name, in the shape of each weight array."""
        return jax.tree.map(self.keep_probability, by_name(params["logits"]))

    def masks(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns the masks of the thresholded network by name (bool)."""
        return jax.tree.map(
            lambda logits: self.threshold(logits) != 0, by_name(params["logits"])
        )

    def scaled_masks(self, frozen: Frozen, params: Params) -> dict[str, ScaledMask]:
        """Returns the likeliest mask and the scale of each array, by name."""
        masks = jax.tree.map(self.threshold, by_name(params["logits"]))
        scales = by_name(params["scale"]) if self.rescale == "smart" else {}

        def scale(name: str) -> jax.Array | None:
            if self.rescale == "smart":
                return scales[name]
            return _dynamic_scale(masks[name]) if self.rescale == "dynamic" else None

        return {
            name: ScaledMask(mask.astype(jnp.int8), scale(name))
            for name, mask in masks.items()
        }

    def penalty(self, frozen: Frozen, params: Params) -> jax.Array:
        """Returns the budget loss; 0 without a budget.

        Two numbers are held to the budget: the expected number of kept weights of a
        sampled network (the sum of the keep-probabilities), and the number that the
        thresholded network keeps. Differences are relative to the smaller of the number
        kept and the number dropped, but at least to 1 % of the weights. Both terms have
        the gradient of the keep-probabilities.

        Args:
          frozen: not used.
          params: trained arrays; the gradient reaches the logits.

        Returns:
          Float scalar.

        Source: Dupont et al. 2021, arXiv:2107.03909, section 2.2, with the keep-
          probability in place of h.
        """
        if self.keep_fraction is None:
            return jnp.zeros(())
        soft = self.keep_probabilities(frozen, params)
        hard = {
            name: mask.astype(soft[name].dtype)
            + (soft[name] - jax.lax.stop_gradient(soft[name]))
            for name, mask in self.masks(frozen, params).items()
        }
        fraction = min(self.keep_fraction, 1 - self.keep_fraction)
        fraction = max(fraction, _MIN_NORMALISER)
        normalisers = {
            name: jnp.float32(fraction * each.size) for name, each in soft.items()
        }
        sampled, thresholded = (
            _keep_budget.budget_loss(gates, self.keep_fraction, self.scope, normalisers)
            for gates in (soft, hard)
        )
        return self.budget_weight * (sampled + thresholded)


def _check_start(name: str, dtype: Any, scale: float, std: float) -> None:
    """Checks that the dtype of a weight holds the values that its params start from."""
    limits = jnp.finfo(dtype)
    for option, value, held in (
        ("scale_init", scale, float(limits.tiny) <= scale <= float(limits.max)),
        ("logit_std", std, _SPREAD * std <= float(limits.max)),
    ):
        if not held:
            raise ValueError(
                f"init: {option} gives {value:.3g} for {name!r}, which {dtype} cannot "
                "hold"
            )


def _dynamic_scale(mask: jax.Array) -> jax.Array:
    """Returns the size of a mask over its sum, in float32; 0 kept counts as 1."""
    kept = jnp.sum(jnp.abs(mask.astype(jnp.float32)))
    # The maximum with 1 would halve the gradient if exactly one weight is kept.
    return mask.size / jnp.where(kept == 0, jnp.ones_like(kept), kept)
