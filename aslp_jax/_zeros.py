"""Warning of frozen arrays of zeros, behind which no weight can be selected."""

import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax._tree import Select, named_leaves

__all__ = ["ZeroWeightsWarning", "warn_of_zeros"]

_FACTORS = ("alpha", "gain", "gamma", "kernel", "scale", "weight")
"""Last entries of the names of arrays that layers multiply by, masked or not."""

_TERMS = ("b", "beta", "bias", "offset")
"""Last entries of the names of arrays that layers add, which may well be zeros."""


class ZeroWeightsWarning(UserWarning):
    """Warning of frozen arrays that are all zeros.

    A mask of such an array changes nothing, and no gradient passes through it. Weights
    that act on the output only through it get no gradient either, so that their masks
    stay as they start.
    """


def warn_of_zeros(owner: str, frozen: Any, select: Select) -> None:
    """Warns of frozen arrays of zeros that are masked or that a layer multiplies by.

    Biases may be zeros, masked or not. Values that are traced cannot be seen.

    Args:
      owner: name of the class or function, for the message.
      frozen: frozen arrays.
      select: function from the name of a leaf to True if it is masked.
    """

    def multiplies(name: str) -> bool:
        entry = name.rsplit("/", 1)[-1]
        return entry in _FACTORS or (select(name) and entry not in _TERMS)

    leaves = named_leaves(frozen)
    names = [name for name in leaves if multiplies(name) and _is_zeros(leaves[name])]
    if names:
        warnings.warn(
            f"{owner}: frozen arrays are all zeros, so that nothing behind them can "
            f"be selected: {', '.join(names)}; initialise them otherwise "
            "(weight_init= serves masked arrays)",
            ZeroWeightsWarning,
            stacklevel=2,
        )


def _is_zeros(leaf: Any) -> bool:
    if isinstance(leaf, jax.core.Tracer) or not isinstance(
        leaf, jax.Array | np.ndarray
    ):
        return False
    if not jnp.issubdtype(leaf.dtype, jnp.floating) or not leaf.size:
        return False
    parts = [leaf]
    if isinstance(leaf, jax.Array):
        parts = [shard.data for shard in leaf.addressable_shards]
    # Nearly every array ends the search at its first element.
    return all(
        not (host := np.asarray(part)).flat[0] and not host.any() for part in parts
    )
