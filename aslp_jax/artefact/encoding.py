"""Writes subnetworks to files."""

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
    ArrayHeader,
    ExtraArray,
    Header,
    Segment,
    from_json,
    to_json,
)
from aslp_jax.artefact.packing import pack_bits, pack_floats, sha256
from aslp_jax.artefact.subnetwork import LayerWeights, Subnetwork


def save(subnetwork: Subnetwork, path: str | os.PathLike[str]) -> None:
    """Writes an artefact with one atomic write.

    Args:
      subnetwork: the network.
      path: path of the file; its folder exists, and an existing file is replaced.

    Raises:
      ArtefactError: as in `encode`.
      OSError: the file cannot be written.
    """
    data = encode(subnetwork)
    with atomic_write(path) as file:
        file.write(data)


def encode(subnetwork: Subnetwork) -> bytes:
    """Returns the bytes of an artefact.

    Args:
      subnetwork: result of `extract` or `load`.

    Returns:
      All bytes of the file.

    Raises:
      ArtefactError: the parts of the network contradict each other, or exceed the
        limits of a file.
    """
    segments: list[bytes] = []

    def add_segment(data: bytes) -> Segment:
        stored, deflated = container.deflate(data)
        segments.append(stored)
        return Segment(len(stored), deflated)

    collections = dict(subnetwork.variables)
    _check_weights(_flatten(collections.pop("params")), subnetwork.layers)
    extra = _flatten(collections)
    header = Header(
        network=architecture.to_config(subnetwork.net),
        description=subnetwork.description,
        arrays=tuple(
            _encode_layer(subnetwork.layers[name], add_segment)
            for name in sorted(subnetwork.layers)
        ),
        collections=tuple(
            ExtraArray(name, sha256(extra[name]), add_segment(pack_floats(extra[name])))
            for name in sorted(extra)
        ),
    )
    values = to_json(header)
    try:
        read_again = from_json(json.loads(json.dumps(values)))
        validation.check(read_again, subnetwork.net, sum(map(len, segments)))
        return container.pack(values, segments)
    except ArtefactError as error:
        raise ArtefactError(f"encode: the file could not be read, it {error}") from None


def _check_weights(
    params: Mapping[str, np.ndarray], layers: Mapping[str, LayerWeights]
) -> None:
    """Checks that the network runs on the weights that are written."""
    for name in sorted({*params, *layers}):
        in_both = name in params and name in layers
        if not in_both or not np.array_equal(params[name], layers[name].weights):
            raise ArtefactError(
                f"encode: the variables and the layers differ in {name!r}"
            )


def _flatten(tree: Any) -> dict[str, np.ndarray]:
    leaves = flax.traverse_util.flatten_dict(tree, sep="/")
    return {name: np.asarray(leaf) for name, leaf in leaves.items()}


def _encode_layer(
    layer: LayerWeights, add_segment: Callable[[bytes], Segment]
) -> ArrayHeader:
    mask, inverted, data = layer.mask, None, None
    kept = layer.frozen.ravel() if mask is None else layer.frozen[mask]
    # In the order of the file: mask, inverted, data.
    packed = None if mask is None else add_segment(pack_bits(mask))
    if layer.ternary_mask is not None and (layer.ternary_mask < 0).any():
        inverted = add_segment(pack_bits(layer.ternary_mask[mask] < 0))
    if layer.origin == "signs":
        data = add_segment(pack_bits(np.signbit(kept)))
    elif layer.origin != "recipe":
        data = add_segment(pack_floats(kept))
    signs = layer.recipe.draws_signs if layer.recipe else layer.origin == "signs"
    magnitude = layer.magnitude if signs else None
    return ArrayHeader(
        name=layer.name,
        shape=layer.weights.shape,
        origin=layer.origin,
        sha256=sha256(layer.weights),
        scale=None if layer.scale is None else float(layer.scale),
        recipe=layer.recipe,
        magnitude=None if magnitude is None else float(magnitude),
        mask=packed,
        inverted=inverted,
        data=data,
    )
