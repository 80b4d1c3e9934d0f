"""Threefry-2x32 in integers alone: the same words anywhere, and nothing to compile.

They are those of `jax.random.bits` with a key of this kind, in its partitionable form.
"""

import numpy as np

_ROTATIONS = ((13, 15, 26, 6), (17, 29, 16, 24))
_PARITY = 0x1BD11BDA
_CHUNK = 1 << 15  # of words at a time, which stay in the cache of a processor


def random_words(key: tuple[int, int], count: int) -> np.ndarray:
    """Returns the first words that a key draws.

    Args:
      key: two words of 32 bits.
      count: how many, below 2**32.

    Returns:
      uint32 `[count]`.

    Source: Salmon et al. 2011, *Parallel random numbers: as easy as 1, 2, 3*.
    """
    words = np.empty(count, np.uint32)
    for start in range(0, count, _CHUNK):
        part = words[start : start + _CHUNK]
        # The counter of 64 bits is the place of the word; its upper half is 0.
        part[:] = _cipher(key, np.arange(start, start + part.size, dtype=np.uint32))
    return words


def _cipher(key: tuple[int, int], counters: np.ndarray) -> np.ndarray:
    keys = np.array([*key, key[0] ^ key[1] ^ _PARITY], np.uint32)
    left, right = np.full_like(counters, keys[0]), counters + keys[1]
    for group in range(5):
        for distance in _ROTATIONS[group % 2]:
            left += right
            right = right << np.uint32(distance) | right >> np.uint32(32 - distance)
            right ^= left
        left += keys[(group + 1) % 3]
        # In an array, where a sum beyond 32 bits wraps around without a warning.
        right += keys[(group + 2) % 3]
        right += np.uint32(group + 1)
    return left ^ right
