"""Bits and numbers as bytes that are the same on every machine."""

import hashlib
import math

import jax.numpy as jnp
import numpy as np

from aslp_jax.artefact.container import ArtefactError

DTYPES = (
    *("bool", "int8", "uint8", "int16", "uint16", "int32", "uint32"),
    *("float16", "bfloat16", "float32"),
)
"""Dtypes of arrays in a file."""

FLOATS = ("float16", "bfloat16", "float32")
"""Dtypes of arrays that can have a mask."""


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


def pack_numbers(array: np.ndarray) -> bytes:
    """Returns numbers as little-endian bytes, in the order of the array.

    Args:
      array: numbers of one of `DTYPES`; a bool is the byte 0 or 1.
    """
    return _words(array).tobytes()


def unpack_numbers(data: bytes, dtype: str) -> np.ndarray:
    """Returns little-endian bytes as numbers, read-only.

    Args:
      data: bytes of whole numbers.
      dtype: one of `DTYPES`.

    Returns:
      Numbers `[count]`.

    Raises:
      ArtefactError: a byte of bools is neither 0 nor 1.
    """
    kind = jnp.dtype(dtype)
    words = np.frombuffer(data, f"<u{kind.itemsize}")
    if kind.kind == "b" and (words > 1).any():
        raise ArtefactError("has bools that are neither 0 nor 1")
    return words.astype(f"u{kind.itemsize}", copy=False).view(kind)


def sha256(array: np.ndarray) -> str:
    """Returns the sha256 of the bytes of `pack_numbers`, as 64 hexadecimal digits."""
    return hashlib.sha256(_words(array)).hexdigest()


def _words(array: np.ndarray) -> np.ndarray:
    """Returns the bits of numbers as little-endian unsigned integers."""
    flat = np.ascontiguousarray(array)
    size = flat.dtype.itemsize
    return flat.view(f"u{size}").astype(f"<u{size}", copy=False)


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
