"""Files that appear whole or not at all."""

import contextlib
import errno
import io
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[io.BufferedRandom]:
    """Opens a file that takes the place of `path` only once it is written whole.

    Args:
      path: of the file; its folder exists. Of a link, the file that it leads to.

    Yields:
      The open file, for reading and writing bytes; where the block ends with an error,
      it is deleted and what was at `path` stays.

    Raises:
      OSError: the folder cannot be written, the disk is full, or there is something at
        `path` that is no regular file.
    """
    with _part(path) as (file, target):
        yield file
        _settle(file, target)


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Writes files, of which the first appears once the last is written whole.

    Args:
      contents: by path.

    Raises:
      OSError: as `replacing`.
    """
    with contextlib.ExitStack() as stack:
        parts = []
        for path, content in contents.items():
            file, target = stack.enter_context(_part(path))
            file.write(content)
            _sync(file)
            parts.append((file, target))
        for file, target in parts:
            _settle(file, target)


@contextlib.contextmanager
def _part(
    path: str | os.PathLike[str],
) -> Iterator[tuple[io.BufferedRandom, Path]]:
    """Opens a file beside the one that it is to become; deletes it if it did not."""
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "it is no regular file", str(path))
    part = target.with_name(f"{target.name}.{secrets.token_hex(4)}")
    with open(part, "x+b") as file:
        try:
            yield file, target
        finally:
            part.unlink(missing_ok=True)


def _sync(file: io.BufferedRandom) -> None:
    file.flush()
    os.fsync(file.fileno())


def _settle(file: io.BufferedRandom, target: Path) -> None:
    _sync(file)
    file.close()
    os.replace(file.name, target)


def write_text(file: Path, text: str) -> None:
    """Writes a file that appears whole or not at all."""
    partial = file.with_name(file.name + ".partial")
    partial.write_text(text)
    partial.replace(file)
