"""Checkpoints: pytrees saved with orbax and verified when they are restored.

A checkpoint is a folder `<step>`, written under a temporary name and renamed when it is
complete. Beside the arrays it holds a manifest: the identity of its run, and for each
array its name, shape, dtype and sha256. `restore` compares the arrays with the manifest
and with the wanted tree, because orbax restores some damaged files without an error. In
a run of several processes one of them saves and restores, and the others need not call.
No other module imports orbax.
"""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from aslp_jax._atomic import write_text
from aslp_jax._json import read as read_json
from aslp_jax._tree import named_leaves

__all__ = ["CheckpointError", "restore", "save", "steps"]

_KEPT = 2
_MOST_FILES = 64
"""More files and folders than orbax makes for a checkpoint, temporary ones included."""

_BESIDES = 1 << 18
"""More bytes than these files take besides the arrays."""

_PARTIAL = ".partial"


class CheckpointError(ValueError):
    """Error of a checkpoint that is damaged or does not match the wanted one."""


def save(folder: Path, step: int, tree: Any, identity: Mapping[str, Any]) -> None:
    """Saves a pytree, then deletes all but the newest two checkpoints.

    Args:
      folder: folder of all checkpoints of one run; made if it is missing.
      step: number of the checkpoint, >= 0. An existing checkpoint stays unchanged.
      tree: pytree of arrays.
      identity: JSON values that identify the run, compared by `restore`.

    Raises:
      OSError: the folder cannot be written.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / str(step)
    if target.exists():
        return
    for left in folder.glob("*" + _PARTIAL):  # a killed process left it
        shutil.rmtree(left)
    arrays = _named_arrays(tree)
    partial = folder / f"{step}{_PARTIAL}"
    partial.mkdir()
    size = sum(array.nbytes for array in arrays.values())
    _reserve(partial / "space", size + _BESIDES)
    try:
        with _checkpointer() as checkpointer:
            checkpointer.save(partial / "arrays", args=ocp.args.StandardSave(arrays))
    except ValueError as error:  # tensorstore's type for a failed write
        raise OSError(f"save: cannot write {target} ({error})") from error
    manifest = {
        "identity": dict(identity),
        "arrays": {name: _describe(array) for name, array in arrays.items()},
        "files": _hash_files(partial / "arrays"),
    }
    write_text(partial / "manifest.json", json.dumps(manifest))
    partial.rename(target)
    for old in steps(folder)[:-_KEPT]:
        shutil.rmtree(folder / str(old))


def steps(folder: Path) -> list[int]:
    """Returns the numbers of the complete checkpoints in a folder, oldest first.

    Args:
      folder: folder given to `save`; it may be missing.
    """
    folder = Path(folder)
    if not folder.is_dir():
        return []
    names = [entry.name for entry in folder.iterdir()]
    return sorted(int(name) for name in names if name.isdecimal() and name.isascii())


def restore(folder: Path, step: int, like: Any, identity: Mapping[str, Any]) -> Any:
    """Restores a checkpoint and verifies it against its manifest.

    Args:
      folder: folder given to `save`.
      step: number of the checkpoint.
      like: pytree whose structure, shapes and dtypes the result must have.
      identity: JSON values that identify the run; must equal the saved ones.

    Returns:
      Pytree of the structure of `like`, of NumPy arrays.

    Raises:
      CheckpointError: the checkpoint belongs to another run, has other arrays than
        `like`, or is damaged.
    """
    path = Path(folder).absolute() / str(step)
    wanted = _named_arrays(like)
    try:
        manifest = read_json(path / "manifest.json")
        saved_identity, described = manifest["identity"], manifest["arrays"]
        _check_identity(path, saved_identity, identity)
        _check_arrays(path, described, wanted)
        # Before orbax reads: its threads print errors, sometimes late.
        files = _hash_files(path / "arrays")
        for name in sorted({*files, *manifest["files"]}):
            if files.get(name) != manifest["files"].get(name):
                raise CheckpointError(
                    f"restore: {path} is damaged: {name} does not match its sha256"
                )
        with _checkpointer() as checkpointer:
            arrays = checkpointer.restore(
                path / "arrays", args=ocp.args.StandardRestore(wanted)
            )
    except CheckpointError:
        raise
    except Exception as error:  # orbax and tensorstore raise many types
        reason = str(error).strip().splitlines()[0] if str(error).strip() else ""
        raise CheckpointError(
            f"restore: {path} cannot be read as a checkpoint "
            f"({type(error).__name__}: {reason[:200]})"
        ) from error
    for name, array in arrays.items():
        if _describe(array) != described[name]:
            raise CheckpointError(
                f"restore: {path} is damaged: {name!r} does not match its sha256"
            )
    return jax.tree.unflatten(
        jax.tree.structure(like), [arrays[name] for name in wanted]
    )


def _checkpointer() -> ocp.Checkpointer:
    """Returns orbax's writer and reader, which waits for no other process."""
    alone = ocp.options.MultiprocessingOptions(
        primary_host=jax.process_index(), active_processes={jax.process_index()}
    )
    handler = ocp.StandardCheckpointHandler(multiprocessing_options=alone)
    return ocp.Checkpointer(handler, multiprocessing_options=alone)


def _reserve(file: Path, size: int) -> None:
    """Raises the OSError of a full disk before orbax writes.

    Orbax would print the error from its threads and raise a ValueError.
    """
    # 0: the file system does not count files, or `open` tells that none is left.
    if hasattr(os, "statvfs") and 0 < os.statvfs(file.parent).f_favail < _MOST_FILES:
        raise OSError(errno.ENOSPC, "No space left for more files", str(file.parent))
    with file.open("wb") as space:
        try:
            os.posix_fallocate(space.fileno(), 0, size)
        except AttributeError:
            pass  # this system lacks it
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            # This file system lacks it.
    file.unlink()


def _hash_files(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _named_arrays(tree: Any) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def _describe(array: np.ndarray) -> dict[str, Any]:
    return {
        "shape": list(array.shape),
        "dtype": str(array.dtype),
        "sha256": hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest(),
    }


def _check_identity(
    path: Path, saved: Mapping[str, Any], wanted: Mapping[str, Any]
) -> None:
    for name in sorted({*saved, *wanted}):
        if saved.get(name) != wanted.get(name):
            raise CheckpointError(
                f"restore: {path} was saved with {name:.80} {saved.get(name)!r:.200}, "
                f"not {wanted.get(name)!r}"
            )


def _check_arrays(
    path: Path, saved: Mapping[str, Any], wanted: Mapping[str, np.ndarray]
) -> None:
    if set(saved) != set(wanted):
        odd = sorted(set(saved) ^ set(wanted))
        raise CheckpointError(
            f"restore: {path} does not hold the wanted arrays; "
            f"only one side has {odd[:5]!s:.300}"
        )
    for name, array in wanted.items():
        found = (tuple(saved[name]["shape"]), saved[name]["dtype"])
        if found != (array.shape, str(array.dtype)):
            raise CheckpointError(
                f"restore: {path} holds {name!r} as "
                f"{f'{found[1]}{list(found[0])}':.200}, not "
                f"{array.dtype}{list(array.shape)}"
            )
