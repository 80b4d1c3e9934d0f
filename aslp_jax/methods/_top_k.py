"""Top-k masks: an exact number of the largest entries."""

from collections.abc import Callable

import jax
import jax.numpy as jnp


def top_k_mask(values: jax.Array, count: int) -> jax.Array:
    """Marks the `count` largest entries, exactly this number even if entries tie.

    The smallest kept entry is found bit by bit, by counting, with one pass over the
    array for each bit of a number. Sorting a layer of millions of weights would take
    most of a training step on a CPU. Among ties the first entries are kept.

    Args:
      values: float array of any shape; NaN is larger than all numbers.
      count: number of entries to mark, in [0, size].

    Returns:
      bool, shape of `values`.
    """
    is_double = values.dtype == jnp.float64
    wide, word = (jnp.float64, jnp.uint64) if is_double else (jnp.float32, jnp.uint32)
    width = 8 * jnp.dtype(word).itemsize
    top = jnp.asarray(1 << (width - 1), word)
    flat = values.ravel().astype(wide)
    # The two zeros tie. (A compiler may remove an addition of 0.)
    flat = jnp.where(flat == 0, jnp.zeros((), wide), flat)
    # With the sign bit inverted, floats are ordered as integers are.
    bits = jax.lax.bitcast_convert_type(flat, word)
    ordered = jnp.where(bits >= top, ~bits, bits | top)
    ordered = jnp.where(jnp.isnan(flat), ~jnp.zeros((), word), ordered)

    def count_from(bound: jax.Array) -> jax.Array:
        return jnp.sum(ordered >= bound, dtype=jnp.int32)

    # The sums of no elements are zeros that vary over the devices as the values do:
    # under `shard_map` a loop starts from a number of the kind that it ends with.
    zero = jnp.sum(ordered[:0], dtype=word)
    bound = _bisect(lambda bound: count_from(bound) >= count, width, zero)
    above, ties = ordered > bound, ordered == bound
    missing = count - jnp.sum(above, dtype=jnp.int32)
    index = jnp.arange(values.size, dtype=jnp.int32)

    def first_ties() -> jax.Array:
        def few(stop: jax.Array) -> jax.Array:
            return jnp.sum(ties & (index < stop), dtype=jnp.int32) <= missing

        zero = jnp.sum(ties[:0], dtype=jnp.int32)
        return ties & (index < _bisect(few, values.size.bit_length(), zero))

    exact = jnp.sum(ties, dtype=jnp.int32) == missing
    chosen = above | jax.lax.cond(exact, lambda: ties, first_ties)
    return chosen.reshape(values.shape)


def _bisect(
    holds: Callable[[jax.Array], jax.Array], width: int, zero: jax.Array
) -> jax.Array:
    """Returns the largest number of `width` bits for which `holds` is True.

    `holds` is True from 0 up to this number and False above. The loop starts at `zero`.
    """
    dtype = zero.dtype

    def set_bit(index: jax.Array, found: jax.Array) -> jax.Array:
        bit = jnp.left_shift(jnp.ones((), dtype), (width - 1 - index).astype(dtype))
        return jnp.where(holds(found | bit), found | bit, found)

    return jax.lax.fori_loop(0, width, set_bit, zero)
