"""How a topology is chosen: one file a method, all answering the same few questions.

A method is a frozen dataclass of options with five pure functions. It is told the
weights of a network as a pytree of any kind and knows nothing of the network itself.
Weights and selectors travel as two trees:

- `weights`: what is drawn once and frozen.
- `selectors`: what is learnt, a dict of groups (`"logits"`, `"scale"`, ...), each a
  pytree of arrays, usually a dict from the name of a masked weight (`"Conv_0/kernel"`)
  to its array. The optimiser gives each group its own rule; reports show the groups
  whose arrays are all scalars.
"""

from collections.abc import Callable
from typing import Any, ClassVar, Protocol

import jax

from aslp_jax.methods.aslp import ASLP
from aslp_jax.methods.edge_popup import EdgePopup
from aslp_jax.methods.selection import Select, kernels
from aslp_jax.methods.supermask import Supermask

Weights = Any
Selectors = dict[str, Any]


class Method(Protocol):
    """What the train step, evaluation, checkpoint and reports ask of every method.

    Attributes:
      stochastic: whether a network drawn with a key differs from the deterministic one.
    """

    stochastic: ClassVar[bool]

    def init(
        self, key: jax.Array, weights: Weights, *, select: Select = kernels
    ) -> tuple[Weights, Selectors]:
        """Splits drawn weights into what stays frozen and what is learnt.

        A method that only selects hands `weights` back as they are; one that trains the
        weights themselves moves them into its selectors.

        Args:
          key: PRNG key, for methods whose selectors start at random.
          weights: pytree of arrays, as a network's own initialisation returns it.
          select: from the name of a leaf to whether it is masked.

        Returns:
          The frozen weights and the selectors at their start.

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point.
        """

    def realise(
        self, weights: Weights, selectors: Selectors, *, key: jax.Array | None = None
    ) -> Weights:
        """Returns the effective weights that the plain network runs on.

        Args:
          weights: the frozen weights.
          selectors: the learnt part, with gradients flowing to every group.
          key: PRNG key of one drawn network; None gives the deterministic network that
            is kept in the end.

        Returns:
          A pytree like the one that `init` was given.

        Raises:
          KeyError: `selectors` name a weight that the tree does not hold.
        """

    def keep_probabilities(
        self, weights: Weights, selectors: Selectors
    ) -> dict[str, jax.Array]:
        """Returns the probability of each masked weight to be kept.

        Args:
          weights: the frozen weights.
          selectors: the learnt part.

        Returns:
          Name to floats in [0, 1], in the shape of the weight.
        """

    def masks(self, weights: Weights, selectors: Selectors) -> dict[str, jax.Array]:
        """Returns which weights the deterministic network keeps.

        Args:
          weights: the frozen weights.
          selectors: the learnt part.

        Returns:
          Name to bools, in the shape of the weight.
        """

    def penalty(self, weights: Weights, selectors: Selectors) -> jax.Array:
        """Returns what the method adds to the task loss.

        Args:
          weights: the frozen weights.
          selectors: the learnt part, to which the gradient flows.

        Returns:
          A float scalar, 0 where the method asks for nothing.
        """


METHODS: dict[str, Callable[..., Method]] = {
    "aslp": ASLP,
    "supermask": Supermask,
    "edge_popup": EdgePopup,
}

__all__ = [
    "ASLP",
    "METHODS",
    "EdgePopup",
    "Method",
    "Select",
    "Selectors",
    "Supermask",
    "Weights",
    "kernels",
]
