"""Decoded images and labels on disk, and the proof that they are what was decoded.

Apart from `datasets` because every dataset that takes long to decode goes through it,
and because it trusts nothing: a cache may have been cut short, damaged or swapped.
"""

import hashlib
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from aslp_jax._atomic import atomic_write


def fingerprint(source: Path, files: Iterable[Path], declared: bytes = b"") -> str:
    """Names what arrays are decoded from, so that two sources never share a cache.

    Args:
      source: the folder or the file that holds it all.
      files: what is read, each taken by name, size and time of change, in this order.
      declared: content of theirs that is taken word for word.

    Returns:
      32 hexadecimal digits.
    """
    digest = hashlib.sha256(os.fsencode(source.resolve()))
    digest.update(declared)
    for path in files:
        status = path.stat()
        line = f"\n{path.name} {status.st_size} {status.st_mtime_ns}"
        digest.update(os.fsencode(line))
    return digest.hexdigest()[:32]


def read(
    entry: Path, counts: Mapping[str, int], shape: tuple[int, ...]
) -> dict[str, np.ndarray] | None:
    """Reads what `write` left, if it is whole.

    Args:
      entry: the folder of these arrays alone.
      counts: images of each split.
      shape: of one image.

    Returns:
      uint8 `<split>_images` of `[count, *shape]` and `<split>_labels` of `[count]` for
      each split; None where anything is missing, damaged or of another shape.
    """
    arrays = {}
    try:
        hashes = json.loads((entry / "sha256.json").read_text(encoding="utf-8"))
        for part, count in counts.items():
            shapes = {"images": (count, *shape), "labels": (count,)}
            for kind, wanted in shapes.items():
                key = f"{part}_{kind}"
                with open(entry / f"{key}.npy", "rb") as file:
                    # Before parsing: a damaged header could ask for any memory.
                    if hashlib.file_digest(file, "sha256").hexdigest() != hashes[key]:
                        return None
                    file.seek(0)
                    arrays[key] = np.load(file, allow_pickle=False)
                if arrays[key].shape != wanted or arrays[key].dtype != np.uint8:
                    return None
    except (OSError, ValueError, LookupError, TypeError):
        return None
    return arrays


def write(entry: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays and their hashes; `entry` is made where it is missing.

    Args:
      entry: the folder of these arrays alone.
      arrays: uint8, by the keys that `read` returns.

    Warns:
      UserWarning: the folder cannot be written; `read` will then find nothing in it.
    """
    hashes = {}
    try:
        entry.mkdir(parents=True, exist_ok=True)
        for key, array in arrays.items():
            with atomic_write(entry / f"{key}.npy") as file:
                np.save(file, array, allow_pickle=False)
                file.seek(0)
                hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
        # Last: without it, or with another's, the arrays are not trusted.
        with atomic_write(entry / "sha256.json") as file:
            file.write(json.dumps(hashes).encode())
    except OSError as error:
        _warn(entry, error)


def can_write(folder: Path) -> bool:
    """Makes a folder and returns whether files can be written in it.

    Args:
      folder: to be made where it is missing.

    Warns:
      UserWarning: they cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Opening a file is the only answer that holds for every file system and user.
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        _warn(folder, error)
        return False


def _warn(folder: Path, error: OSError) -> None:
    warnings.warn(
        f"load: cannot write the cache {folder} ({error.strerror or error}); the next "
        "load will be as slow",
        # The caller of `datasets.load`, which is two calls above those of this file.
        stacklevel=5,
    )
