"""Encoder of an npz file: plain NumPy arrays for readers without another format."""

import io
import json
from typing import Literal

import numpy as np

from aslp_jax._tree import named_leaves
from aslp_jax.artefact import Subnetwork
from aslp_jax.export.result import ExportResult

__all__ = ["Storage", "encode"]

Storage = Literal["dense", "sparse"]
"""Way to store the weights."""


def encode(subnetwork: Subnetwork, *, storage: Storage = "dense") -> ExportResult:
    """Returns an npz file that `numpy.load` reads, without pickle.

    The file holds every array of the network under the path of its variable, such as
    `params/Conv_0/kernel`, and `description`, the network's facts as JSON text. A
    masked array in sparse storage is three arrays, to be put together again by

        weights = np.zeros(file["NAME/shape"], np.float32)
        kept = np.unpackbits(file["NAME/mask"], count=weights.size).astype(bool)
        weights[kept.reshape(weights.shape)] = file["NAME/values"]

    Args:
      subnetwork: the network.
      storage: `"dense"` stores all effective weights. `"sparse"` stores one bit for
        each weight of a masked array, and the values of the kept weights.

    Returns:
      One file.

    Raises:
      ValueError: `storage` is unknown.
    """
    if storage not in ("dense", "sparse"):
        raise ValueError(f"npz: storage must be 'dense' or 'sparse', got {storage!r}")
    arrays: dict[str, np.ndarray] = {}
    for name, leaf in named_leaves(subnetwork.variables).items():
        weights = subnetwork.layers.get(name.removeprefix("params/"))
        mask = None if weights is None else weights.mask
        if storage == "dense" or mask is None:
            arrays[name] = np.asarray(leaf)
        else:
            arrays[f"{name}/shape"] = np.asarray(mask.shape, np.int64)
            arrays[f"{name}/mask"] = np.packbits(mask)
            arrays[f"{name}/values"] = np.asarray(leaf)[mask]
    facts = json.dumps(subnetwork.description.facts())
    arrays["description"] = np.asarray(facts)
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    size = "a zero, compressed" if storage == "dense" else "one bit"
    return ExportResult(
        {"": file.getvalue()},
        before=None,
        after=None,
        operations=None,
        dropped=f"weights take {size}; the file holds arrays and computes nothing",
    )
