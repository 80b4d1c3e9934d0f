"""Masks of the largest entries, an exact number of them."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp


def top_k_mask(values: jax.Array, count: int) -> jax.Array:
    """Marks the `count` largest entries, exactly so many even where entries tie.

    The smallest entry that is kept is found bit by bit, by counting: as many passes as
    a number has bits, where sorting a layer of millions of weights would take the
    longer part of a training step on a CPU. Among ties the first ones are kept.

    Args:
      values: float array of any shape; NaN counts as larger than all numbers.
      count: how many, in [0, size].

    Returns:
      bool, shape of `values`.
    """
    wide, word = (
        (jnp.float64, jnp.uint64)
        if values.dtype == jnp.float64
        else (
            jnp.float32,
            jnp.uint32,
        )
    )
    width = 8 * jnp.dtype(word).itemsize
    top = jnp.asarray(1 << (width - 1), word)
    flat = values.ravel().astype(wide)
    # The two zeros tie. (A compiler may drop an addition of 0.)
    flat = jnp.where(flat == 0, jnp.zeros((), wide), flat)
    # With the sign bit turned the order of floats becomes that of integers.
    bits = jax.lax.bitcast_convert_type(flat, word)
    ordered = jnp.where(bits >= top, ~bits, bits | top)
    ordered = jnp.where(jnp.isnan(flat), ~jnp.zeros((), word), ordered)

    def count_from(bound: jax.Array) -> jax.Array:
        return jnp.sum(ordered >= bound, dtype=jnp.int32)

    bound = _bisect(lambda bound: count_from(bound) >= count, width, word)
    above, ties = ordered > bound, ordered == bound
    wanted = count - jnp.sum(above, dtype=jnp.int32)
    index = jnp.arange(values.size, dtype=jnp.int32)

    def first_ties() -> jax.Array:
        def few(stop: jax.Array) -> jax.Array:
            return jnp.sum(ties & (index < stop), dtype=jnp.int32) <= wanted

        return ties & (index < _bisect(few, values.size.bit_length(), jnp.int32))

    exact = jnp.sum(ties, dtype=jnp.int32) == wanted
    chosen = above | jax.lax.cond(exact, lambda: ties, first_ties)
    return chosen.reshape(values.shape)


def _bisect(holds: Callable[[jax.Array], jax.Array], width: int, dtype: Any) -> Any:
    """The largest number of `width` bits for which `holds`, true from 0 up to it."""

    def settle(index: jax.Array, found: jax.Array) -> jax.Array:
        bit = jnp.left_shift(jnp.ones((), dtype), (width - 1 - index).astype(dtype))
        return jnp.where(holds(found | bit), found | bit, found)

    return jax.lax.fori_loop(0, width, settle, jnp.zeros((), dtype))
