"""Plain NumPy arrays: for everyone whom no other format serves."""

import dataclasses
import io
import json
from typing import Literal

import numpy as np

from aslp_jax._tree import named_leaves
from aslp_jax.artefact import Subnetwork
from aslp_jax.export.result import ExportResult

Storage = Literal["dense", "sparse"]


def encode(subnetwork: Subnetwork, *, storage: Storage = "dense") -> ExportResult:
    """Returns an npz file that `numpy.load` reads, without pickle.

    It holds every array of the network by the path of its variable, such as
    `params/Conv_0/kernel`, and `description`, a JSON text of what the network is about.
    A masked array that is stored sparse is three arrays, from which

        weights = np.zeros(file["NAME/shape"], np.float32)
        kept = np.unpackbits(file["NAME/mask"], count=weights.size).astype(bool)
        weights[kept.reshape(weights.shape)] = file["NAME/values"]

    makes it again.

    Args:
      subnetwork: the network.
      storage: `"dense"`, all effective weights; or `"sparse"`, of the masked arrays a
        bit for each weight and the values of those that are kept.

    Returns:
      One file.

    Raises:
      ValueError: `storage` is something else.
    """
    if storage not in ("dense", "sparse"):
        raise ValueError(f"npz: storage must be 'dense' or 'sparse', got {storage!r}")
    arrays: dict[str, np.ndarray] = {}
    for name, leaf in named_leaves(subnetwork.variables).items():
        entry = subnetwork.entries.get(name.removeprefix("params/"))
        mask = None if entry is None else entry.mask
        if storage == "dense" or mask is None:
            arrays[name] = np.asarray(leaf)
        else:
            arrays[f"{name}/shape"] = np.asarray(mask.shape, np.int64)
            arrays[f"{name}/mask"] = np.packbits(mask)
            arrays[f"{name}/values"] = np.asarray(leaf)[mask]
    about = json.dumps(dataclasses.asdict(subnetwork.description))
    arrays["description"] = np.asarray(about)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    left = "a 0, deflated" if storage == "dense" else "a bit"
    return ExportResult(
        {"": file.getvalue()},
        before=None,
        after=None,
        operations=None,
        sparsity=f"a weight takes {left}; the file holds arrays and computes nothing",
    )
