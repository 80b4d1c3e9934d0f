"""Arbitrarily Shifted Log Parametrization: one logit a weight, one scale a layer."""

import dataclasses
import math
from typing import Any, Literal

import jax
import jax.numpy as jnp

from aslp_jax.methods.selection import (
    Select,
    kernels,
    key_for_each,
    map_named,
    named_leaves,
)
from aslp_jax.sampling import stgs


@dataclasses.dataclass(frozen=True)
class ASLP:
    """Selects weights with straight-through Gumbel-Softmax masks on free logits.

    Each masked weight w has a logit; its mask is 1 with probability sigmoid(logit),
    drawn afresh for each call with a key. A layer runs on scale * mask * w. Without a
    key the network is deterministic: a weight stays if it is more likely kept than not.

    Attributes:
      rescale: `"smart"` learns one scale a masked weight array (Smart Rescale, starts
        at 1); `"none"` has none.
      temperature: > 0, of the sampler's gradient.
      keep_ties: whether a logit of exactly 0 (one that never moved) is kept by the
        deterministic network. The paper keeps p > 0.5; its published code p >= 0.5.

    Source: Dupont et al. 2022, arXiv:2202.12986, eq. (4)-(6).
    """

    rescale: Literal["none", "smart"] = "smart"
    temperature: float = 1.0
    keep_ties: bool = False

    def __post_init__(self) -> None:
        if self.rescale not in ("none", "smart"):
            raise ValueError(
                f"ASLP: rescale must be 'none' or 'smart', got {self.rescale!r}"
            )
        if not 0 < self.temperature < math.inf:
            raise ValueError(
                f"ASLP: temperature must be positive and finite, got {self.temperature}"
            )

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Any, dict[str, Any]]:
        """Starts every logit at 0 (keep-probability one half) and every scale at 1.

        Args:
          key: PRNG key; unused, since nothing starts at random.
          weights: pytree of arrays.
          select: from the name of a leaf to whether it is masked.

        Returns:
          `weights` as they are, and the selectors: `logits` (each in the shape and
          dtype of its weight) and, with Smart Rescale, `scale` (scalars of that dtype).

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point.
        """
        del key
        chosen = named_leaves(weights, select)
        selectors = {"logits": jax.tree.map(jnp.zeros_like, chosen)}
        if self.rescale == "smart":
            selectors["scale"] = {
                name: jnp.ones((), leaf.dtype) for name, leaf in chosen.items()
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

        Source: eq. (6); s * (m * w) is taken on the weight, never on the bias.
        """
        if key is None:
            masks = self.masks(weights, selectors)
        else:
            logits = selectors["logits"]
            masks = {
                name: stgs(subkey, logits[name], temperature=self.temperature)
                for name, subkey in key_for_each(key, logits).items()
            }

        def select_and_scale(name: str, weight: jax.Array) -> jax.Array:
            effective = masks[name].astype(weight.dtype) * weight
            if self.rescale == "smart":
                effective = selectors["scale"][name].astype(weight.dtype) * effective
            return effective

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
        """Returns 0: ASLP asks for no particular number of weights."""
        return jnp.zeros(())
