"""What the methods that draw a choice for each weight share: all but the choice."""

import abc
import dataclasses
import math
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from aslp_jax._tree import Select, kernels, map_named, named_leaves, split_by_name
from aslp_jax.methods import _keep_budget
from aslp_jax.methods._keep_budget import Scope
from aslp_jax.methods.base import Method, ScaledMask

Rescale = Literal["none", "smart", "dynamic"]
RESCALES: tuple[Rescale, ...] = ("none", "smart", "dynamic")

_MOST_KEPT = 1 - 1e-4
"""Where logits start for all to be kept: one that is certain could not be learnt."""

_STD_TO_BUDGET = 10.0
"""Of the initial logits, where a fraction is asked for."""

_MOST_SPREAD = 0.5
"""Of a layer, where its logits start when it gets more of a budget than others: beyond
one half a choice between its weights has less to choose from, not more."""

_LEAST_PART = 0.01
"""Of all weights, by which a miss of the budget is measured at the least."""


@dataclasses.dataclass(frozen=True)
class SampledMasks(Method, abc.ABC):
    """Multiplies each masked weight by a factor that is drawn for each key.

    A layer runs on scale * factor * weight, where a factor of 0 drops the weight.
    Without a key the network is deterministic: each weight gets its likeliest factor.
    Subclasses say what the factors are, how they are drawn, and so what gradient the
    logits get.

    Attributes:
      rescale: `"smart"` learns one scale a masked weight array (Smart Rescale);
        `"dynamic"` computes it from the factors, size / number kept, gradient included
        (Dynamic Weight Rescale); `"none"` has none.
      scale_init: > 0, where the scales of Smart Rescale start; where a fraction is
        asked for, times sqrt(0.5 / that of the array at the start), which makes up for
        the inputs that a unit lost.
      logit_std: >= 0, standard deviation of the normal law of the initial logits; None
        is 0, or 10 where a fraction is asked for: of logits that all start alike, below
        0, hardly any would get above it. 0,
        as in the papers, starts all alike, where half of what a unit receives is the
        noise of the masks; a wide start is decided from the outset and learns in fewer
        epochs, with as many weights kept.
      keep_fraction: in (0, 1], of the weights that both the drawn networks and the
        deterministic one are to keep; the logits start there, and `penalty` holds them.
        None, as in the papers, asks for no number.
      scope: of that number: `"global"`, all weights together, or `"layer"`, each array.
      budget_weight: > 0, of the budget loss.
    """

    rescale: Rescale = "none"
    scale_init: float = 1.0
    logit_std: float | None = None
    keep_fraction: float | None = None
    scope: Scope = "global"
    budget_weight: float = 10.0
    stochastic: ClassVar[bool] = True
    choices: ClassVar[tuple[int, ...]] = ()
    """Axes of the logits before those of their weight."""

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.rescale not in RESCALES:
            raise ValueError(
                f"{name}: rescale must be one of {', '.join(RESCALES)}, "
                f"got {self.rescale!r}"
            )
        if not 0 < self.scale_init < math.inf:
            raise ValueError(
                f"{name}: scale_init must be positive and finite, got {self.scale_init}"
            )
        if not 0 <= self.initial_std < math.inf:
            raise ValueError(
                f"{name}: logit_std must be finite and at least 0, got {self.logit_std}"
            )
        _keep_budget.check_budget(name, self.keep_fraction, self.scope, needed=False)
        _keep_budget.check_weight(name, self.budget_weight)

    @property
    def initial_std(self) -> float:
        """The standard deviation of the initial logits, whatever decided it."""
        if self.logit_std is not None:
            return self.logit_std
        return 0.0 if self.keep_fraction is None else _STD_TO_BUDGET

    @abc.abstractmethod
    def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Draws the factors of one array, with a gradient for its logits.

        Args:
          key: PRNG key, consumed by this call.
          logits: float array, `choices` before the axes of the weight.

        Returns:
          The shape of the weight, in the dtype of `logits`.
        """

    @abc.abstractmethod
    def threshold(self, logits: jax.Array) -> jax.Array:
        """Returns the factors of the deterministic network, as `sample` would."""

    @abc.abstractmethod
    def keep_probability(self, logits: jax.Array) -> jax.Array:
        """Returns the probability of a factor other than 0, as `sample` would."""

    @abc.abstractmethod
    def initial_logit(self, kept: float) -> float:
        """Returns around which logit to start, for a fraction in (0, 1) to be kept."""

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Any, dict[str, Any]]:
        """Starts the logits where as many are kept as asked for, and the scales.

        Args:
          key: PRNG key of the logits, consumed by this call.
          weights: pytree of arrays.
          select: from the name of a leaf to whether it is masked.

        Returns:
          `weights` as they are, and the params: `logits` (by name, `choices` before
          the shape of the weight, in its dtype) and, with Smart Rescale, `scale`
          (scalars of that dtype).

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point, or
            the budget leaves less than one weight a layer.
        """
        chosen = named_leaves(weights, select)
        scales = dict.fromkeys(chosen, self.scale_init)
        starts = dict.fromkeys(chosen, 0.0)
        if self.keep_fraction is not None:
            _keep_budget.check_room(chosen, self.keep_fraction, self.scope)
            for name, kept in _keep_budget.erdos_renyi(
                chosen, self.keep_fraction, self.scope, most=_MOST_SPREAD
            ).items():
                scales[name] *= math.sqrt(0.5 / kept)
                starts[name] = self.initial_logit(min(kept, _MOST_KEPT))
        logits = {
            name: jnp.full((*self.choices, *leaf.shape), starts[name], leaf.dtype)
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
        self, frozen: Any, params: dict[str, Any], *, key: jax.Array | None = None
    ) -> Any:
        """Returns scale * factor * weight for masked weights, the others unchanged.

        Args:
          frozen: pytree of frozen arrays.
          params: as `init` returns them; gradients reach logits and scales.
          key: PRNG key of one drawn network; None takes the likeliest factors.

        Returns:
          A pytree of the structure, shapes and dtypes of `frozen`.

        Raises:
          KeyError: a selector names a weight that the tree does not hold.

        Source: Dupont et al. 2022, eq. (6); s * (m * w) is taken on the weight, never
          on the bias. Dynamic: Zhou et al. 2019, section 5.1.
        """
        logits = params["logits"]
        if key is None:
            factors = jax.tree.map(self.threshold, logits)
        else:
            factors = {
                name: self.sample(subkey, logits[name])
                for name, subkey in split_by_name(key, logits).items()
            }

        def select_and_scale(name: str, weight: jax.Array) -> jax.Array:
            factor = factors[name].astype(weight.dtype)
            if self.rescale == "smart":
                return params["scale"][name].astype(weight.dtype) * (factor * weight)
            if self.rescale == "dynamic":
                scale = _dynamic_scale(factors[name]).astype(weight.dtype)
                return scale * factor * weight
            return factor * weight

        return map_named(frozen, factors, select_and_scale)

    def keep_probabilities(
        self, frozen: Any, params: dict[str, Any]
    ) -> dict[str, jax.Array]:
        """Returns the probability to be kept by name, in the shape of each weight."""
        return jax.tree.map(self.keep_probability, params["logits"])

    def masks(self, frozen: Any, params: dict[str, Any]) -> dict[str, jax.Array]:
        """Returns by name which weights the deterministic network keeps (bool)."""
        return jax.tree.map(
            lambda logits: self.threshold(logits) != 0, params["logits"]
        )

    def scaled_masks(
        self, frozen: Any, params: dict[str, Any]
    ) -> dict[str, ScaledMask]:
        """Returns by name the likeliest factors and the scale."""
        chosen = jax.tree.map(self.threshold, params["logits"])

        def scale(name: str) -> jax.Array | None:
            if self.rescale == "smart":
                return params["scale"][name]
            return _dynamic_scale(chosen[name]) if self.rescale == "dynamic" else None

        return {
            name: ScaledMask(each.astype(jnp.int8), scale(name))
            for name, each in chosen.items()
        }

    def penalty(self, frozen: Any, params: dict[str, Any]) -> jax.Array:
        """Returns the budget loss, 0 where no number of weights is asked for.

        Both the expected number of a drawn network, the sum of the probabilities, and
        the number that the deterministic one keeps are held to the budget, relative to
        the smaller of what is kept and what is dropped, and 1 % of all at the least.
        The gradient of either is that of the probabilities.

        Args:
          weights: not used.
          params: the gradient reaches the logits.

        Returns:
          A float scalar.

        Source: Dupont et al. 2021, arXiv:2107.03909, section 2.2, with the probability
          in the place of h.
        """
        if self.keep_fraction is None:
            return jnp.zeros(())
        soft = self.keep_probabilities(frozen, params)
        hard = {
            name: mask.astype(soft[name].dtype)
            + (soft[name] - jax.lax.stop_gradient(soft[name]))
            for name, mask in self.masks(frozen, params).items()
        }
        part = max(min(self.keep_fraction, 1 - self.keep_fraction), _LEAST_PART)
        unit = {name: jnp.float32(part * each.size) for name, each in soft.items()}
        drawn, kept = (
            _keep_budget.budget_loss(counted, self.keep_fraction, self.scope, unit)
            for counted in (soft, hard)
        )
        return self.budget_weight * (drawn + kept)


def _dynamic_scale(factors: jax.Array) -> jax.Array:
    """Size of a mask over its sum, taken in float32; an empty mask counts as one."""
    kept = jnp.sum(jnp.abs(factors.astype(jnp.float32)))
    # Not the maximum with 1, which would share the gradient where one is kept.
    return factors.size / jnp.where(kept == 0, jnp.ones(()), kept)
