"""Initialisation of masked weights from their names, for any network."""

from typing import Any

import jax
import jax.numpy as jnp
from flax.typing import Initializer

from aslp_jax._tree import Select, map_named, named_leaves, stream

__all__ = ["check_initialiser", "initialise"]

_STREAM = "weights"
"""Name of the stream of keys, apart from the keys that the method splits off."""


def check_initialiser(owner: str, init: Any) -> None:
    """Checks the initialiser that a person gives.

    Args:
      owner: name of the class that takes the initialiser, for the message.
      init: initialiser, or None.

    Raises:
      TypeError: `init` is neither None nor callable.
    """
    if init is not None and not callable(init):
        raise TypeError(
            f"{owner}: weight_init must be an initialiser, a function (key, shape, "
            f"dtype) -> array, got {init!r}"
        )


def initialise(
    init: Initializer, key: jax.Array, weights: Any, *, select: Select
) -> Any:
    """Initialises the masked weights of a network again.

    A new array depends on `key`, and on the name, shape and dtype of the weight; the
    order of the weights and their values play no part. `init` gets the shape of the
    weight as it is. Fan-in is therefore the product of all axes but the last, which
    Flax's convention has for kernels of convolutions (grouped and depthwise too) and
    dense layers. `DenseGeneral` itself flattens a kernel [in, heads, dim] before it
    initialises, for a fan-in of `in`; the shape alone cannot tell such a kernel from
    [heads, dim, out], so here its fan-in is `in * heads`.

    Args:
      init: initialiser of each masked weight.
      key: PRNG key; method.init may use it too.
      weights: pytree of arrays, or of anything with shape and dtype.
      select: function from the name of a leaf to True if it is masked.

    Returns:
      Pytree of the same structure, shapes and dtypes; other leaves are the same
      objects.

    Raises:
      ValueError: `select` chooses no leaf, or one that is not floating point; or `init`
        refuses a shape, or returns another shape or dtype.
      TypeError: `init` does not take key, shape and dtype, or returns no array.
    """
    root = stream(key, _STREAM)

    def draw(name: str, leaf: Any) -> jax.Array:
        wanted = f"shape {tuple(leaf.shape)} and dtype {leaf.dtype}"
        try:
            array = init(stream(root, name), leaf.shape, leaf.dtype)
        except (TypeError, ValueError) as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(
                f"weight_init: failed for {name!r}, {wanted}: {error}"
            ) from error
        if not hasattr(array, "shape") or not hasattr(array, "dtype"):
            raise TypeError(
                f"weight_init: returned a {type(array).__name__} for {name!r}; "
                f"expected an array of {wanted}"
            )
        if array.shape != leaf.shape or array.dtype != leaf.dtype:
            raise ValueError(
                f"weight_init: returned shape {tuple(array.shape)} and dtype "
                f"{array.dtype} for {name!r}; expected {wanted}"
            )
        return jnp.asarray(array)

    return map_named(weights, named_leaves(weights, select), draw)
