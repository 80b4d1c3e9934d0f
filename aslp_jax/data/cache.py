"""A cache of decoded images and labels on disk, verified by sha256.

Every dataset that takes long to decode uses it. A cached file may be truncated, damaged
or replaced; it is then decoded again.
"""

import hashlib
import inspect
import json
import os
import tempfile
import warnings
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from aslp_jax._atomic import atomic_write, remove_left_behind
from aslp_jax._claim import Held, claim
from aslp_jax._json import read as read_json
from aslp_jax.data import npy

_PACKAGE = Path(__file__).parent


def fingerprint(source: Path, files: Iterable[Path], declared: bytes = b"") -> str:
    """Returns a name for the source of arrays, so that two sources share no cache.

    Args:
      source: folder or file that holds the dataset.
      files: files that are read; their name, size and time of change count, in this
        order.
      declared: content that counts byte for byte.

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
    folder: Path, counts: Mapping[str, int], shape: tuple[int, ...]
) -> dict[str, np.ndarray] | None:
    """Reads the arrays that `write` wrote, if none is missing or damaged.

    Args:
      folder: folder of these arrays alone.
      counts: number of images of each split.
      shape: shape of an image.

    Returns:
      uint8 `<split>_images` of `[count, *shape]` and `<split>_labels` of `[count]` for
      each split; None if an array is missing, damaged or of another shape.
    """
    keys = [f"{split}_{kind}" for split in counts for kind in ("images", "labels")]
    arrays = _read_verified(folder, keys)
    if arrays is None:
        return None
    for split, count in counts.items():
        shapes = {"images": (count, *shape), "labels": (count,)}
        for kind, wanted in shapes.items():
            array = arrays[f"{split}_{kind}"]
            if array.shape != wanted or array.dtype != np.uint8:
                return None
    return arrays


def read_any_shape(folder: Path) -> dict[str, np.ndarray] | None:
    """Reads the arrays that `write` wrote, if none is missing or damaged.

    Args:
      folder: folder of these arrays alone.

    Returns:
      `train_images`, `train_labels`, `test_images` and `test_labels`, with shapes and
      dtypes as written; None if an array is missing or damaged.
    """
    keys = ("train_images", "train_labels", "test_images", "test_labels")
    return _read_verified(folder, keys)


def _read_verified(folder: Path, keys: Iterable[str]) -> dict[str, np.ndarray] | None:
    arrays = {}
    try:
        hashes = read_json(folder / "sha256.json", dict[str, str])
        for key in keys:
            with open(folder / f"{key}.npy", "rb") as file:
                # Before parsing: a damaged header could ask for any memory.
                if hashlib.file_digest(file, "sha256").hexdigest() != hashes[key]:
                    return None
                size = file.tell()
                file.seek(0)
                arrays[key] = npy.read(file, size)
    except (OSError, ValueError, LookupError):
        return None
    return arrays


def write(folder: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes arrays and their hashes, unless another process writes there now.

    That one has decoded the same images; to wait for it would save nothing.

    Args:
      folder: folder of these arrays alone; created if missing.
      arrays: arrays with the keys that `read` returns; uint8, if `read` is to return
        them.

    Warns:
      UserWarning: the folder cannot be written; `read` then finds nothing in it.
    """
    hashes = {}
    names = [f"{key}.npy" for key in arrays]
    try:
        with claim(folder):
            remove_left_behind(folder, [*names, "sha256.json"])
            for (key, array), name in zip(arrays.items(), names, strict=True):
                with atomic_write(folder / name) as file:
                    np.save(file, array, allow_pickle=False)
                    file.seek(0)
                    hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
            # Last: without the right hashes, the arrays are not used.
            with atomic_write(folder / "sha256.json") as file:
                file.write(json.dumps(hashes).encode())
    except Held:
        return
    except OSError as error:
        _warn(folder, error)


def can_write(folder: Path) -> bool:
    """Creates a folder and tries to write a file in it.

    Args:
      folder: the folder; created if missing.

    Returns:
      True if files can be written in the folder.

    Warns:
      UserWarning: files cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        # Opening a file is the only test that is right for every file system and user.
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError as error:
        _warn(folder, error)
        return False


def _warn(folder: Path, error: OSError) -> None:
    warnings.warn(
        f"load: cannot write the cache {folder} ({error.strerror or error}); the next "
        "load will be as slow",
        stacklevel=_depth(),
    )


def _depth() -> int:
    """Returns the number of calls up to the caller of `load`, outside this package."""
    frame, depth = inspect.currentframe(), 0
    while frame is not None and Path(frame.f_code.co_filename).parent == _PACKAGE:
        frame, depth = frame.f_back, depth + 1
    return depth
