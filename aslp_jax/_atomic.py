"""Atomic writes: a file appears complete, or not at all."""

import contextlib
import errno
import io
import os
import re
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[io.BufferedRandom]:
    """Opens a file that replaces `path` only after the block ends without an error.

    Args:
      path: file to write. Its folder exists; a symbolic link is followed.

    Yields:
      Binary file, open for reading and writing. If the block raises, this file is
      deleted and the old content of `path` stays.

    Raises:
      OSError: the folder cannot be written, the disk is full, or `path` is not a
        regular file.
    """
    with _temporary(path) as (file, target):
        yield file
        _replace(file, target)


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Writes a text file in one atomic write.

    The temporary file is always named `<name>.partial`: a process that is killed leaves
    at most one, under a name that others can recognise, and the next write replaces it.

    Args:
      path: file to write. Its folder exists; a symbolic link is followed.
      text: content, stored as UTF-8.

    Raises:
      OSError: see `atomic_write`.
    """
    with _temporary(path, ".partial") as (file, target):
        file.write(text.encode())
        _replace(file, target)


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Writes several files; none appears before all of them are on disk.

    Args:
      contents: path to content.

    Raises:
      OSError: see `atomic_write`.
    """
    with contextlib.ExitStack() as stack:
        files = []
        for path, content in contents.items():
            file, target = stack.enter_context(_temporary(path))
            file.write(content)
            _sync(file)
            files.append((file, target))
        for file, target in files:
            _replace(file, target)


def remove_left_behind(folder: Path, names: Iterable[str]) -> None:
    """Deletes the temporary files of processes that were killed while they wrote.

    Nothing else may write into the folder meanwhile.

    Args:
      folder: folder of the files; it may be missing.
      names: names of the files that are written there.

    Raises:
      OSError: the folder cannot be read or written.
    """
    known = "|".join(map(re.escape, names))
    left = re.compile(rf"({known})\.(partial|[0-9a-f]{{8}})")
    if folder.is_dir():
        for path in folder.iterdir():
            if left.fullmatch(path.name) and path.is_file():
                path.unlink(missing_ok=True)


@contextlib.contextmanager
def _temporary(
    path: str | os.PathLike[str], suffix: str | None = None
) -> Iterator[tuple[io.BufferedRandom, Path]]:
    """Opens a temporary file next to `path`; removes it unless it was renamed.

    Args:
      path: file that the temporary one may become.
      suffix: end of the temporary name, which may exist; None takes a random one, which
        may not.
    """
    target = Path(os.path.realpath(path))
    if target.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "it is no regular file", str(path))
    mode: Literal["w+b", "x+b"] = "x+b" if suffix is None else "w+b"
    suffix = f".{secrets.token_hex(4)}" if suffix is None else suffix
    temporary = target.with_name(target.name + suffix)
    with open(temporary, mode) as file:
        try:
            yield file, target
        finally:
            temporary.unlink(missing_ok=True)


def _sync(file: io.BufferedRandom) -> None:
    file.flush()
    os.fsync(file.fileno())


def _replace(file: io.BufferedRandom, target: Path) -> None:
    _sync(file)
    file.close()
    os.replace(file.name, target)
