"""Subnetworks to files."""

import json
import os
from collections.abc import Callable, Mapping
from typing import Any

import flax.traverse_util
import numpy as np

from aslp_jax._atomic import atomic_write
from aslp_jax.artefact import architecture, container, validation
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.header import (
    Array,
    ExtraArray,
    Header,
    Segment,
    from_json,
    to_json,
)
from aslp_jax.artefact.packing import pack_bits, pack_floats, sha256
from aslp_jax.artefact.subnetwork import LayerWeights, Subnetwork


def save(subnetwork: Subnetwork, path: str | os.PathLike[str]) -> None:
    """Writes an artefact, which appears whole or not at all.

    Args:
      subnetwork: the network.
      path: of the file; its folder exists, and a file that is there is replaced.

    Raises:
      ArtefactError: as `encode`.
      OSError: it cannot be written.
    """
    data = encode(subnetwork)
    with atomic_write(path) as file:
        file.write(data)


def encode(subnetwork: Subnetwork) -> bytes:
    """Returns the bytes of an artefact.

    Args:
      subnetwork: as `extract` or `load` returns it.

    Returns:
      The whole file.

    Raises:
      ArtefactError: its parts do not fit one another, or they are more than a file may
        hold.
    """
    sections: list[bytes] = []

    def put(data: bytes) -> Segment:
        stored, deflated = container.deflate(data)
        sections.append(stored)
        return Segment(len(stored), deflated)

    rest = dict(subnetwork.variables)
    _check_same(_flat(rest.pop("params")), subnetwork.entries)
    others = _flat(rest)
    header = Header(
        network=architecture.to_config(subnetwork.net),
        description=subnetwork.description,
        arrays=tuple(
            _encode_entry(subnetwork.entries[name], put)
            for name in sorted(subnetwork.entries)
        ),
        collections=tuple(
            ExtraArray(name, sha256(others[name]), put(pack_floats(others[name])))
            for name in sorted(others)
        ),
    )
    told = to_json(header)
    try:
        found = from_json(json.loads(json.dumps(told)))
        validation.check(found, subnetwork.net, sum(map(len, sections)))
        return container.pack(told, sections)
    except ArtefactError as error:
        raise ArtefactError(f"encode: cannot be read again, it {error}") from None


def _check_same(
    params: Mapping[str, np.ndarray], entries: Mapping[str, LayerWeights]
) -> None:
    """Checks that what runs is what is written."""
    for name in sorted({*params, *entries}):
        same = name in params and name in entries
        if not same or not np.array_equal(params[name], entries[name].weights):
            raise ArtefactError(
                f"encode: the variables and the entries differ in {name!r}"
            )


def _flat(tree: Any) -> dict[str, np.ndarray]:
    leaves = flax.traverse_util.flatten_dict(tree, sep="/")
    return {name: np.asarray(leaf) for name, leaf in leaves.items()}


def _encode_entry(entry: LayerWeights, put: Callable[[bytes], Segment]) -> Array:
    mask, inverted, data = entry.mask, None, None
    kept = entry.frozen.ravel() if mask is None else entry.frozen[mask]
    packed = None if mask is None else put(pack_bits(mask))
    if entry.factors is not None and (entry.factors < 0).any():
        inverted = put(pack_bits(entry.factors[mask] < 0))
    if entry.origin == "signs":
        data = put(pack_bits(np.signbit(kept)))
    elif entry.origin != "recipe":
        data = put(pack_floats(kept))
    signs = entry.recipe.draws_signs if entry.recipe else entry.origin == "signs"
    magnitude = entry.magnitude if signs else None
    return Array(
        name=entry.name,
        shape=entry.weights.shape,
        origin=entry.origin,
        sha256=sha256(entry.weights),
        scale=None if entry.scale is None else float(entry.scale),
        recipe=entry.recipe,
        magnitude=None if magnitude is None else float(magnitude),
        mask=packed,
        inverted=inverted,
        data=data,
    )
