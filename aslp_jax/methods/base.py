"""The questions that every method answers."""

from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from aslp_jax._tree import Select, kernels

Frozen = Any
Params = dict[str, Any]


class ScaledMask(NamedTuple):
    """An array of frozen weights that is selected from, and no more.

    Its effective weights are scale * (factors * weights).

    Attributes:
      factors: int8 in the shape of the weights, each -1, 0 or 1.
      scale: float scalar; None for 1.
    """

    factors: jax.Array
    scale: jax.Array | None


class Method(Protocol):
    """What the train step, evaluation, checkpoint and reports ask of every method.

    Subclass it for the answers that most methods share: nothing is drawn, as many count
    as are kept, and nothing is added to the loss.

    Attributes:
      stochastic: whether a network realised with a key is drawn at random.
      trains_dense: whether it is not, and yet another than the deterministic one: the
        network that is trained, before what is not kept is cut off.
      tolerance: by what fraction of the weights a budget may be missed at the end.
      bits_per_kept_weight: storage of a kept weight besides its mask bit, where the
        frozen weights come from a seed: 0; 1 for a sign; 32 where it is trained.
    """

    stochastic: ClassVar[bool] = False
    trains_dense: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.01
    bits_per_kept_weight: ClassVar[int] = 0

    def init(
        self, key: jax.Array, weights: Frozen, *, select: Select = kernels
    ) -> tuple[Frozen, Params]:
        """Splits drawn weights into what stays frozen and what is learnt.

        A method that only selects hands `weights` back as they are; one that trains the
        weights themselves moves them into its params.

        Args:
          key: PRNG key, for methods whose params start at random.
          weights: pytree of arrays, as a network's own initialisation returns it.
          select: from the name of a leaf to whether it is masked.

        Returns:
          The frozen weights and the params at their start.

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point.
        """

    def effective_weights(
        self, frozen: Frozen, params: Params, *, key: jax.Array | None = None
    ) -> Frozen:
        """Returns the effective weights that the plain network runs on.

        Args:
          frozen: the frozen weights.
          params: the learnt part, with gradients flowing to every group.
          key: PRNG key of one drawn network; None gives the deterministic network that
            is kept in the end.

        Returns:
          A pytree like the one that `init` was given.

        Raises:
          KeyError: `params` name a weight that the tree does not hold.
        """

    def keep_probabilities(
        self, frozen: Frozen, params: Params
    ) -> dict[str, jax.Array]:
        """Returns the probability of each masked weight to be kept.

        Args:
          frozen: the frozen weights.
          params: the learnt part.

        Returns:
          Name to floats in [0, 1], in the shape of the weight.
        """

    def masks(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns which weights the deterministic network keeps.

        Args:
          frozen: the frozen weights.
          params: the learnt part.

        Returns:
          Name to bools, in the shape of the weight.
        """

    def scaled_masks(self, frozen: Frozen, params: Params) -> dict[str, ScaledMask]:
        """Returns what the deterministic network makes of frozen weights.

        Who knows the frozen weights then needs a bit for each, where others must keep
        the effective weights themselves.

        Args:
          frozen: the frozen weights.
          params: the learnt part.

        Returns:
          Name to factors and scale, which give the effective weights to the last bit;
          empty where weights are trained or anything else is done to them.
        """
        return {}

    def keep_counts(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns how many weights of each array count as kept, for a budget.

        Args:
          frozen: the frozen weights.
          params: the learnt part.

        Returns:
          Name to float32 scalar; whole numbers where a weight is either kept or not.
        """
        masks = self.masks(frozen, params)
        return {name: jnp.sum(mask.astype(jnp.float32)) for name, mask in masks.items()}

    def penalty(self, frozen: Frozen, params: Params) -> jax.Array:
        """Returns what the method adds to the task loss.

        Args:
          frozen: the frozen weights.
          params: the learnt part, to which the gradient flows.

        Returns:
          A float scalar, 0 where the method asks for nothing.
        """
        return jnp.zeros(())

    def metrics(
        self, frozen: Frozen, params: Params
    ) -> dict[str, dict[str, jax.Array]]:
        """Returns numbers worth a look in training, besides what all methods tell.

        Args:
          frozen: the frozen weights.
          params: the learnt part.

        Returns:
          What it is to name of the array to float scalar; empty where there are none.
        """
        return {}
