"""Bits and floats as bytes, the same on every machine."""

import hashlib

import numpy as np

from aslp_jax.artefact.container import ArtefactError

_FLOATS = np.dtype("<f4")


def pack_bits(flags: np.ndarray) -> bytes:
    """Returns bools as bits, the first in the highest; the last byte ends in zeros."""
    return np.packbits(flags).tobytes()


def unpack_bits(data: bytes, count: int) -> np.ndarray:
    """Returns the first bits as bool `[count]`.

    Args:
      data: of ceil(count / 8) bytes.
      count: how many bits.

    Raises:
      ArtefactError: what fills up the last byte is not 0.
    """
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).view(bool)
    if bits[count:].any():
        raise ArtefactError("has bits beyond the last one that counts")
    return bits[:count]


def pack_floats(array: np.ndarray) -> bytes:
    """Returns float32 numbers in the order of the array, little-endian."""
    return array.astype(_FLOATS, copy=False).tobytes()


def unpack_floats(data: bytes) -> np.ndarray:
    """Returns float32 `[len(data) / 4]`, read-only."""
    return np.frombuffer(data, _FLOATS).astype(np.float32, copy=False)


def sha256(array: np.ndarray) -> str:
    """Returns the sha256 of what `pack_floats` gives, in hexadecimal digits."""
    return hashlib.sha256(np.ascontiguousarray(array, _FLOATS)).hexdigest()
