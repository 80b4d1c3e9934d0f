"""What the methods with one logit a weight share: all but how a mask is drawn."""

import abc
import dataclasses
from typing import Any, ClassVar, Literal

import jax
import jax.numpy as jnp

from aslp_jax.methods.selection import (
    Select,
    kernels,
    key_for_each,
    map_named,
    named_leaves,
)

Rescale = Literal["none", "smart", "dynamic"]
RESCALES: tuple[Rescale, ...] = ("none", "smart", "dynamic")


@dataclasses.dataclass(frozen=True)
class BernoulliMasks(abc.ABC):
    """Keeps each masked weight with probability sigmoid(logit), drawn for each key.

    A layer runs on scale * mask * weight. Without a key the network is deterministic: a
    weight stays if it is more likely kept than not. Subclasses say how a mask is drawn,
    and so what gradient its logits get.

    Attributes:
      rescale: `"smart"` learns one scale a masked weight array (Smart Rescale);
        `"dynamic"` computes it from the mask, size / number kept, gradient included
        (Dynamic Weight Rescale); `"none"` has none.
      keep_ties: whether a logit of exactly 0 (one that never moved) is kept by the
        deterministic network. The paper keeps p > 0.5; its published code p >= 0.5.
      scale_init: > 0, where the scales of Smart Rescale start.
      logit_std: >= 0, standard deviation of the normal law of the initial logits. 0,
        as in the papers, starts all at probability one half, where half of what a unit
        receives is the noise of the masks; a wide start is decided from the outset and
        learns in fewer epochs, with as many weights kept.
    """

    rescale: Rescale = "none"
    keep_ties: bool = False
    scale_init: float = 1.0
    logit_std: float = 0.0
    stochastic: ClassVar[bool] = True

    def __post_init__(self) -> None:
        name = type(self).__name__
        if self.rescale not in RESCALES:
            raise ValueError(
                f"{name}: rescale must be one of {', '.join(RESCALES)}, "
                f"got {self.rescale!r}"
            )
        if not 0 < self.scale_init < float("inf"):
            raise ValueError(
                f"{name}: scale_init must be positive and finite, got {self.scale_init}"
            )
        if not 0 <= self.logit_std < float("inf"):
            raise ValueError(
                f"{name}: logit_std must be finite and at least 0, got {self.logit_std}"
            )

    @abc.abstractmethod
    def sample(self, key: jax.Array, logits: jax.Array) -> jax.Array:
        """Draws one mask, exactly 0 or 1, with a gradient for its logits.

        Args:
          key: PRNG key, consumed by this call.
          logits: float array of any shape.

        Returns:
          Shape and dtype of `logits`.
        """

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Any, dict[str, Any]]:
        """Starts the logits around 0 (keep-probability one half), and the scales.

        Args:
          key: PRNG key of the logits, consumed by this call.
          weights: pytree of arrays.
          select: from the name of a leaf to whether it is masked.

        Returns:
          `weights` as they are, and the selectors: `logits` (each in the shape and
          dtype of its weight) and, with Smart Rescale, `scale` (scalars of that dtype).

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point.
        """
        chosen = named_leaves(weights, select)
        logits = jax.tree.map(jnp.zeros_like, chosen)
        if self.logit_std > 0:
            logits = {
                name: self.logit_std
                * jax.random.normal(subkey, chosen[name].shape, chosen[name].dtype)
                for name, subkey in key_for_each(key, chosen).items()
            }
        selectors = {"logits": logits}
        if self.rescale == "smart":
            selectors["scale"] = {
                name: jnp.full((), self.scale_init, leaf.dtype)
                for name, leaf in chosen.items()
            }
        return weights, selectors

    def realise(
        self, weights: Any, selectors: dict[str, Any], *, key: jax.Array | None = None
    ) -> Any:
        """Returns scale * mask * weight for every masked weight, the others unchanged.

        Args:
          weights: pytree of frozen arrays.
          selectors: as `init` returns them; gradients reach logits and scales.
          key: PRNG key of one drawn network; None keeps what is more likely kept.

        Returns:
          A pytree of the structure, shapes and dtypes of `weights`.

        Raises:
          KeyError: a selector names a weight that the tree does not hold.

        Source: Dupont et al. 2022, eq. (6); s * (m * w) is taken on the weight, never
          on the bias. Dynamic: Zhou et al. 2019, section 5.1.
        """
        if key is None:
            masks = self.masks(weights, selectors)
        else:
            logits = selectors["logits"]
            masks = {
                name: self.sample(subkey, logits[name])
                for name, subkey in key_for_each(key, logits).items()
            }

        def select_and_scale(name: str, weight: jax.Array) -> jax.Array:
            mask = masks[name].astype(weight.dtype)
            if self.rescale == "smart":
                return selectors["scale"][name].astype(weight.dtype) * (mask * weight)
            if self.rescale == "dynamic":
                return _dynamic_scale(masks[name]).astype(weight.dtype) * mask * weight
            return mask * weight

        return map_named(weights, masks, select_and_scale)

    def keep_probabilities(
        self, weights: Any, selectors: dict[str, Any]
    ) -> dict[str, jax.Array]:
        """Returns sigmoid(logit) by name, in the shape of each masked weight."""
        return jax.tree.map(jax.nn.sigmoid, selectors["logits"])

    def masks(self, weights: Any, selectors: dict[str, Any]) -> dict[str, jax.Array]:
        """Returns by name which weights the deterministic network keeps (bool)."""

        def keep(logits: jax.Array) -> jax.Array:
            return logits >= 0 if self.keep_ties else logits > 0

        return jax.tree.map(keep, selectors["logits"])

    def penalty(self, weights: Any, selectors: dict[str, Any]) -> jax.Array:
        """Returns 0: no particular number of weights is asked for."""
        return jnp.zeros(())


def _dynamic_scale(mask: jax.Array) -> jax.Array:
    """Size of a mask over its sum, taken in float32; an empty mask counts as one."""
    kept = jnp.sum(mask.astype(jnp.float32))
    # Not the maximum with 1, which would share the gradient where one is kept.
    return mask.size / jnp.where(kept == 0, jnp.ones(()), kept)
