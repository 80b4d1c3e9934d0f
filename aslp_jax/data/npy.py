"""Arrays in NumPy's format, of which nothing is believed before it is checked.

`numpy.load` allocates what a header asks for before it reads, and raises errors of
many types for a damaged file. Here the header must fit the size of the file first.
"""

import math
import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

_MOST_TIMES = 1032
"""Bytes that a byte of deflated content can become at most."""

_LARGEST_HEADER = 10_000  # bytes of text, as numpy has it

_DAMAGE = (
    *(ValueError, TypeError, LookupError, SyntaxError, EOFError, MemoryError),
    *(ArithmeticError, RuntimeError, zipfile.BadZipFile, zlib.error),
    tokenize.TokenError,
)
"""Errors of damaged content; NotImplementedError and RecursionError among them."""


def read(file: IO[bytes], size: int) -> np.ndarray:
    """Reads an array in NumPy's format.

    Args:
      file: file that can seek, at its beginning.
      size: size of the file in bytes.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is damaged, or holds something else.
    """
    try:
        version = np.lib.format.read_magic(file)
        if version not in ((1, 0), (2, 0)):
            raise ValueError(f"version {version} of the format")
        header = (
            np.lib.format.read_array_header_1_0
            if version == (1, 0)
            else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = header(file, max_header_size=_LARGEST_HEADER)
        if dtype.hasobject:
            raise ValueError("Object arrays are not read")
        found, declared = size - file.tell(), math.prod(shape) * dtype.itemsize
        if found != declared or min(shape, default=0) < 0:
            raise ValueError(f"{found} bytes for an array of {declared}")
        file.seek(0)
        return np.lib.format.read_array(file, allow_pickle=False)
    except _DAMAGE as error:
        raise ValueError(_clause(error)) from None


def read_members(path: Path, names: tuple[str, ...]) -> dict[str, np.ndarray]:
    """Reads arrays of an `.npz` file; no other member is read.

    Args:
      path: path of the file.
      names: names of the arrays.

    Returns:
      The arrays by name, without those that the file lacks.

    Raises:
      OSError: the file cannot be read.
      ValueError: the file is damaged, or is none that `numpy.savez` writes.
    """
    arrays = {}
    try:
        with zipfile.ZipFile(path) as archive:
            members = {info.filename: info for info in archive.infolist()}
            for name in names:
                info = members.get(f"{name}.npy")
                if info is None:
                    continue
                _check_member(info, path.stat().st_size)
                with archive.open(info) as file:
                    arrays[name] = read(file, info.file_size)
    except _DAMAGE as error:
        raise ValueError(_clause(error)) from None
    except OSError as error:
        if error.filename is not None:
            raise
        # A member that the file says is far outside of it.
        raise ValueError(_clause(error)) from None
    return arrays


def _check_member(info: zipfile.ZipInfo, size: int) -> None:
    if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{info.filename} is compressed by another method")
    if info.file_size > _MOST_TIMES * (min(info.compress_size, size) + 1):
        raise ValueError(f"{info.filename} declares {info.file_size:,} bytes")


def _clause(error: Exception) -> str:
    return f"{' '.join(str(error).split()):.200}" or type(error).__name__
