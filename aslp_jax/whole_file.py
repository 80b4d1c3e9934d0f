"""Files that appear whole or not at all."""

import contextlib
import io
import os
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def replacing(path: str | os.PathLike[str]) -> Iterator[io.BufferedRandom]:
    """Opens a file that takes the place of `path` only once it is written whole.

    Args:
      path: of the file; its folder exists.

    Yields:
      The open file, for reading and writing bytes; where the block ends with an error,
      it is deleted and what was at `path` stays.

    Raises:
      OSError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    part = path.with_name(f"{path.name}.{os.getpid()}")
    try:
        with open(part, "w+b") as file:
            yield file
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
