"""Saving and restoring a pytree with proof that it is the same. Only here is orbax
known.

A checkpoint is a folder `<step>`, written under a temporary name and renamed when
whole. Beside the arrays it holds a manifest: what run it belongs to, and for each array
its name, shape, dtype and sha256. Nothing is returned that does not match the manifest
and the tree asked for, since some corruptions of the files on disk restore without an
error.
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

_KEPT = 2
_PARTIAL = ".partial"


class CheckpointError(ValueError):
    """A checkpoint is damaged, or not the one that was asked for."""


def save(folder: Path, step: int, tree: Any, identity: Mapping[str, Any]) -> None:
    """Saves a pytree, then deletes all but the newest two checkpoints.

    Args:
      folder: where the checkpoints of one run live; made if missing.
      step: number of the checkpoint, >= 0; one that exists is left as it is.
      tree: pytree of arrays.
      identity: what the run is (JSON values), compared when restoring.

    Raises:
      OSError: the folder cannot be written.
    """
    folder = Path(folder).absolute()
    folder.mkdir(parents=True, exist_ok=True)
    target = folder / str(step)
    if target.exists():
        return
    for left in folder.glob("*" + _PARTIAL):  # of a save that was killed
        shutil.rmtree(left)
    arrays = _named_arrays(tree)
    partial = folder / f"{step}{_PARTIAL}"
    partial.mkdir()
    _reserve(partial / "space", sum(array.nbytes for array in arrays.values()))
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            checkpointer.save(partial / "arrays", args=ocp.args.StandardSave(arrays))
    except ValueError as error:  # tensorstore's word for a failed write
        raise OSError(f"save: cannot write {target} ({error})") from error
    manifest = {
        "identity": dict(identity),
        "arrays": {name: _describe(array) for name, array in arrays.items()},
        "files": _hash_files(partial / "arrays"),
    }
    (partial / "manifest.json").write_text(json.dumps(manifest))
    partial.rename(target)
    for old in steps(folder)[:-_KEPT]:
        shutil.rmtree(folder / str(old))


def steps(folder: Path) -> list[int]:
    """Returns the numbers of the finished checkpoints in a folder, oldest first."""
    folder = Path(folder)
    if not folder.is_dir():
        return []
    return sorted(int(entry.name) for entry in folder.iterdir() if entry.name.isdigit())


def restore(folder: Path, step: int, like: Any, identity: Mapping[str, Any]) -> Any:
    """Restores a checkpoint, verified against its manifest.

    Args:
      folder: as given to `save`.
      step: number of the checkpoint.
      like: pytree whose structure, shapes and dtypes the result must have.
      identity: what the run is; must equal what was saved.

    Returns:
      A pytree like `like`, of numpy arrays.

    Raises:
      CheckpointError: the checkpoint is of another run, has other arrays than `like`,
        or is damaged.
    """
    path = Path(folder).absolute() / str(step)
    wanted = _named_arrays(like)
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        saved_identity, described = manifest["identity"], manifest["arrays"]
        _check_identity(path, saved_identity, identity)
        _check_arrays(path, described, wanted)
        # Before orbax looks: its threads print what goes wrong, and may do so late.
        files = _hash_files(path / "arrays")
        for name in sorted({*files, *manifest["files"]}):
            if files.get(name) != manifest["files"].get(name):
                raise CheckpointError(
                    f"restore: {path} is damaged: {name} does not match its sha256"
                )
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            arrays = checkpointer.restore(
                path / "arrays", args=ocp.args.StandardRestore(wanted)
            )
    except CheckpointError:
        raise
    except Exception as error:  # orbax and tensorstore raise what they like
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


def _reserve(file: Path, size: int) -> None:
    """Raises the OSError of a full disk before orbax meets it.

    Orbax would print it from its threads and raise it as a ValueError.
    """
    with file.open("wb") as space:
        try:
            os.posix_fallocate(space.fileno(), 0, max(1, size))
        except AttributeError:
            pass  # not on this system
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.EINVAL):
                raise
            # Nor on this disk.
    file.unlink()


def _hash_files(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def _named_arrays(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


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
                f"restore: {path} was saved with {name} {saved.get(name)!r}, "
                f"not {wanted.get(name)!r}"
            )


def _check_arrays(
    path: Path, saved: Mapping[str, Any], wanted: Mapping[str, np.ndarray]
) -> None:
    if set(saved) != set(wanted):
        odd = sorted(set(saved) ^ set(wanted))
        raise CheckpointError(
            f"restore: {path} does not hold the arrays asked for; "
            f"only one side has {odd[:5]}"
        )
    for name, array in wanted.items():
        found = (tuple(saved[name]["shape"]), saved[name]["dtype"])
        if found != (array.shape, str(array.dtype)):
            raise CheckpointError(
                f"restore: {path} holds {name!r} as {found[1]}{list(found[0])}, "
                f"not {array.dtype}{list(array.shape)}"
            )
