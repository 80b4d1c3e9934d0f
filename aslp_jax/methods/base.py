"""Protocol of the methods."""

from typing import Any, ClassVar, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from aslp_jax._tree import Select, kernels

__all__ = ["Frozen", "Method", "Params", "ScaledMask"]

Frozen = Any
"""Pytree of arrays that no optimiser changes: the frozen weights of a network, or the
masks or counts that a method fixes."""

Params = dict[str, Any]
"""Trained arrays: group (`"logits"`, `"scale"`) to a pytree, usually a dict from the
name of a masked weight array to its array."""


class ScaledMask(NamedTuple):
    """Mask and scale of one array of frozen weights.

    The effective weights are scale * (mask * weights).

    Attributes:
      mask: ternary mask, int8 in the shape of the weights; each entry is -1, 0 or 1.
      scale: float scalar; None means 1.
    """

    mask: jax.Array
    scale: jax.Array | None


class Method(Protocol):
    """Protocol that train step, evaluation, checkpoint and reports use.

    A subclass inherits the defaults that fit most methods: nothing is sampled, the
    masks are what counts as kept, and the loss has no penalty.

    Attributes:
      stochastic: True if a key samples the masks; default False.
      trains_dense: True if training runs a dense network that differs from the pruned
        one, although nothing is sampled; default False.
      tolerance: largest accepted difference between the number of kept weights and the
        budget, as a fraction of the masked weights; default 0.01.
      bits_per_kept_weight: storage of a kept weight besides its mask bit, in bits: 0
        (default) if the frozen weights come from a seed, 1 for a sign, 32 for a trained
        weight.
    """

    stochastic: ClassVar[bool] = False
    trains_dense: ClassVar[bool] = False
    tolerance: ClassVar[float] = 0.01
    bits_per_kept_weight: ClassVar[int] = 0

    def init(
        self, key: jax.Array, weights: Any, *, select: Select = kernels
    ) -> tuple[Frozen, Params]:
        """Splits the initial weights into frozen arrays and params.

        A method that only selects returns `weights` unchanged as the frozen part; a
        method that trains the weights moves them into `params`.

        Args:
          key: PRNG key, for methods whose params start at random.
          weights: pytree of arrays, from the initialisation of a network.
          select: function from the name of a leaf to True if it is masked, default
            `kernels`.

        Returns:
          Frozen arrays, and params before the first step.

        Raises:
          ValueError: `select` chooses no leaf, or one that is not floating point.
        """

    def effective_weights(
        self, frozen: Frozen, params: Params, *, key: jax.Array | None = None
    ) -> Any:
        """Returns the effective weights that the plain network runs on.

        Args:
          frozen: frozen arrays.
          params: trained arrays; gradients reach every group.
          key: PRNG key of one sampled network; None (default) takes the deterministic
            network, the one that is kept in the end.

        Returns:
          Pytree of the structure, shapes and dtypes of the weights given to `init`.

        Raises:
          KeyError: `params` name a weight that the tree does not hold.
        """

    def keep_probabilities(
        self, frozen: Frozen, params: Params
    ) -> dict[str, jax.Array]:
        """Returns the keep-probability of each masked weight.

        Args:
          frozen: frozen arrays.
          params: trained arrays.

        Returns:
          Name to floats in [0, 1], in the shape of the weight array.
        """

    def masks(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns the masks of the deterministic network.

        Args:
          frozen: frozen arrays.
          params: trained arrays.

        Returns:
          Name to bools in the shape of the weight array, True for a kept weight.
        """

    def scaled_masks(self, frozen: Frozen, params: Params) -> dict[str, ScaledMask]:
        """Returns mask and scale of each array of frozen weights.

        A reader who has the frozen weights then needs only a mask of them; for arrays
        without an entry, a file holds the effective weights.

        Args:
          frozen: frozen arrays.
          params: trained arrays.

        Returns:
          Name to mask and scale, which give the effective weights of the deterministic
          network bit for bit; empty if weights are trained or otherwise changed.
        """
        return {}

    def keep_counts(self, frozen: Frozen, params: Params) -> dict[str, jax.Array]:
        """Returns the number of weights of each array that count as kept, for a budget.

        Args:
          frozen: frozen arrays.
          params: trained arrays.

        Returns:
          Name to float32 scalar; a whole number unless weights count in part.
        """
        masks = self.masks(frozen, params)
        return {name: jnp.sum(mask.astype(jnp.float32)) for name, mask in masks.items()}

    def penalty(self, frozen: Frozen, params: Params) -> jax.Array:
        """Returns the term that the method adds to the task loss.

        Args:
          frozen: frozen arrays.
          params: trained arrays; the gradient reaches them.

        Returns:
          Float scalar; 0 for a method without a penalty.
        """
        return jnp.zeros(())

    def metrics(
        self, frozen: Frozen, params: Params
    ) -> dict[str, dict[str, jax.Array]]:
        """Returns further numbers to log in training, besides those of all methods.

        Args:
          frozen: frozen arrays.
          params: trained arrays.

        Returns:
          Name of the metric to name of the array to float scalar; may be empty.
        """
        return {}
