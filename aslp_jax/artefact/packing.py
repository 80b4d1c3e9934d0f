"""Bits and floats as bytes that are the same on every machine."""

import hashlib
import math

import numpy as np

from aslp_jax.artefact.container import ArtefactError

_FLOATS = np.dtype("<f4")


def pack_bits(flags: np.ndarray) -> bytes:
    """Packs bools eight to a byte, the first in the highest bit.

    Args:
      flags: bool, any shape.

    Returns:
      ceil(size / 8) bytes; the last byte is padded with zeros.
    """
    return np.packbits(flags).tobytes()


def unpack_bits(data: bytes, count: int) -> np.ndarray:
    """Returns the first bits of some bytes.

    Args:
      data: ceil(count / 8) bytes.
      count: number of bits.

    Returns:
      bool `[count]`.

    Raises:
      ArtefactError: a padding bit of the last byte is not 0.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).view(bool)
    if bits[count:].any():
        raise ArtefactError("has padding bits that are not 0")
    return bits[:count]


def pack_floats(array: np.ndarray) -> bytes:
    """Returns float32 numbers as little-endian bytes, in the order of the array."""
    return array.astype(_FLOATS, copy=False).tobytes()


def unpack_floats(data: bytes) -> np.ndarray:
    """Returns little-endian bytes as float32 `[len(data) / 4]`, read-only."""
    return np.frombuffer(data, _FLOATS).astype(np.float32, copy=False)


def sha256(array: np.ndarray) -> str:
    """Returns the sha256 of the bytes of `pack_floats`, as 64 hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(array, _FLOATS)).hexdigest()


def mask_entropy(ternary_mask: np.ndarray) -> float:
    """Returns the entropy of independent entries with the frequencies of a mask.

    This is the least size of the mask for a code that knows these frequencies alone.

    Args:
      ternary_mask: any shape; each entry -1 (inverted), 0 (dropped) or 1 (kept).

    Returns:
      The entropy of all entries together, in bits.
    """
    counts = [int(np.count_nonzero(ternary_mask == entry)) for entry in (-1, 0, 1)]
    return sum(each * math.log2(ternary_mask.size / each) for each in counts if each)
