"""Random words of `jax.random.bits`, generated about six times faster on a CPU.

On a CPU, JAX runs the rounds of its generator as a loop over complete arrays: 31 ms for
the 4.3 million words of a Conv2 (jax 0.10, two cores). Unrolled, the rounds are one
pass that XLA fuses with the user of the words, which are never stored: 5 ms.

`bits` can be removed when a JAX release unrolls the rounds on a CPU, as JAX pull
request #37872 does: https://github.com/jax-ml/jax/pull/37872. The wheels of 0.10.2 and
0.12.0.1 still have the loop. `bits_on_host` would stay.
"""

import functools
import math
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from aslp_jax._checks import single_key

__all__ = ["bits", "bits_on_host"]

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA

_CHUNK = 1 << 15
"""Number of words generated at a time on the host, small enough for its cache."""


def bits(key: jax.Array, shape: Sequence[int]) -> jax.Array:
    """Returns exactly `jax.random.bits(key, shape, jnp.uint32)`.

    It calls this function for keys of other generators than Threefry, for JAX's older
    numbering of the words (`jax_threefry_partitionable` off), for symbolic shapes, and
    where JAX checks that no key is used twice (`jax_debug_key_reuse`).

    Args:
      key: one PRNG key, typed or raw, consumed by this call.
      shape: shape of the result.

    Returns:
      uint32 `shape`.

    Raises:
      TypeError: `key` is no PRNG key.
      ValueError: `key` is an array of keys.

    Source: Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3",
      Threefry-2x32 of 20 rounds; word i is the exclusive or of the two words of
      block i.
    """
    shape, key = tuple(shape), single_key("bits", key)
    threefry = str(jax.random.key_impl(key)) == "threefry2x32"
    config: Any = jax.config
    # JAX's own function tells the checker of reused keys that the key is used up.
    ours = config.jax_threefry_partitionable and not config.jax_debug_key_reuse
    if not (threefry and ours and _is_counted(shape)):
        return jax.random.bits(key, shape, jnp.uint32)
    return _words(jax.random.key_data(key), shape)


def _is_counted(shape: tuple[int, ...]) -> bool:
    """Returns True if one word counts the elements; False for a size not yet known."""
    try:
        return math.prod(shape) < 2**32
    except jax.errors.InconclusiveDimensionOperation:  # a symbolic size of jax.export
        return False


def bits_on_host(key: tuple[int, int], count: int) -> np.ndarray:
    """Returns the words of `bits` without a device and without compilation.

    Args:
      key: two words of a Threefry key, in [0, 2**32).
      count: number of words, below 2**32.

    Returns:
      uint32 `[count]`, equal to `jax.random.bits` with partitionable numbering.
    """
    words = np.empty(count, np.uint32)
    for start in range(0, count, _CHUNK):
        part = words[start : start + _CHUNK]
        counters = np.arange(start, start + part.size, dtype=np.uint32)
        part[:] = _cipher(np.array(key, np.uint32), counters)
    return words


@functools.partial(jax.jit, static_argnums=1)
def _words(key: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    # Flat, because XLA would store counters of several axes in memory.
    counters = lax.iota(jnp.uint32, math.prod(shape))
    return _cipher(key, counters).reshape(shape)


def _cipher(key: Any, counters: Any) -> Any:
    """Returns the words of a key `[2]` at `[count]` counters; uint32, JAX or NumPy."""
    # Arrays of one word, because NumPy warns if the sum of scalars overflows.
    first, second = key[:1], key[1:]
    keys = (first, second, first ^ second ^ np.uint32(_PARITY))
    second = counters + second
    for group in range(5):
        for rotation in _ROTATIONS[group % 2]:
            first = first + second
            second = (second << rotation) | (second >> (32 - rotation))
            second = second ^ first
        first = first + keys[(group + 1) % 3]
        second = second + keys[(group + 2) % 3] + np.uint32(group + 1)
    return first ^ second
