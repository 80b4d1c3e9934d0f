"""Writes subnetworks to files."""

import json
import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from aslp_jax._atomic import atomic_write
from aslp_jax._tree import leaf_paths, named_leaves
from aslp_jax.artefact import architecture, container, validation
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.header import ArrayHeader, ExtraArray, Header, Segment
from aslp_jax.artefact.header_json import fits_format_1, from_json, to_json
from aslp_jax.artefact.packing import DTYPES, pack_bits, pack_numbers, sha256
from aslp_jax.artefact.source import Source
from aslp_jax.artefact.subnetwork import LayerWeights, Subnetwork, make_layer_weights


def save(
    network: Subnetwork | Any,
    path: str | os.PathLike[str],
    *,
    masks: Mapping[str, Any] | None = None,
) -> None:
    """Writes an artefact with one atomic write.

    Args:
      network: a network; or a bare pytree of arrays, such as effective weights.
      path: path of the file; its folder exists, and an existing file is replaced.
      masks: for a bare pytree, name (entries joined by `/`) to mask: bools in the shape
        of the array, True for a kept weight, as `method.masks` returns them. A masked
        array takes a bit a weight and its kept weights. Default: no masks.

    Raises:
      ArtefactError: as in `encode` and `encode_tree`.
      OSError: the file cannot be written.
      TypeError: there are `masks`, and a network, which has its own.
    """
    if not isinstance(network, Subnetwork):
        data = encode_tree(network, masks or {})
    elif masks is None:
        data = encode(network)
    else:
        raise TypeError("save: a Subnetwork has its own masks; leave out masks=")
    with atomic_write(path) as file:
        file.write(data)


def encode(subnetwork: Subnetwork) -> bytes:
    """Returns the bytes of an artefact.

    The format is version 1 for all that version 1 can hold, else version 2.

    Args:
      subnetwork: result of `extract` or `load`.

    Returns:
      All bytes of the file.

    Raises:
      ArtefactError: the parts of the network contradict each other, or exceed the
        limits of a file.
    """
    collections = dict(subnetwork.variables)
    params = collections.pop("params")
    _check_weights(_flatten(params), subnetwork.layers)
    paths, extra_paths = _paths(params), _paths(collections)
    extra, net = _flatten(collections), None
    network: dict[str, Any] | Source | None = subnetwork.source
    names, extra_names = list(subnetwork.layers), list(extra)
    if network is None:
        net = architecture.unwrap(subnetwork.net)
        if not architecture.is_known(net):
            raise ArtefactError(
                f"encode: {type(net).__name__} is no network of this library, and has "
                "no source that names it"
            )
        network = architecture.to_config(net)
        names, extra_names = sorted(names), sorted(extra_names)
    segments = _SegmentWriter()
    header = Header(
        network=network,
        description=subnetwork.description,
        arrays=tuple(
            _encode_layer(subnetwork.layers[name], paths[name], segments)
            for name in names
        ),
        collections=tuple(
            _encode_extra(extra[name], extra_paths[name], segments)
            for name in extra_names
        ),
    )
    return _pack(header, net, segments)


def encode_tree(tree: Any, masks: Mapping[str, Any]) -> bytes:
    """Returns the bytes of an artefact that holds a bare pytree of arrays.

    Args:
      tree: pytree of arrays, such as effective weights.
      masks: mask of each masked array by name, True for a kept weight.

    Returns:
      All bytes of the file.

    Raises:
      ArtefactError: a mask has no array or another shape, a weight is not 0 where its
        mask drops it, a number is not finite, the dtype of an array is none of
        `packing.DTYPES`, or the tree exceeds the limits of a file.
    """
    paths, arrays, segments = _paths(tree), _flatten(tree), _SegmentWriter()
    for name in masks:
        shape = arrays[name].shape if name in arrays else None
        if np.shape(masks[name]) != shape:
            raise ArtefactError(
                f"save: the mask {name!r} has shape {np.shape(masks[name])}, and the "
                f"array of this name {shape or 'is missing'}"
            )
    headers = []
    for name, array in arrays.items():
        if array.dtype.name not in DTYPES or not np.isfinite(array).all():
            raise ArtefactError(
                f"save: {name!r} must hold finite numbers of {', '.join(DTYPES)}; got "
                f"{array.dtype}{list(array.shape)}"
            )
        mask = np.asarray(masks[name]) != 0 if name in masks else None
        layer = make_layer_weights(
            name, array, ternary_mask=None if mask is None else mask.astype(np.int8)
        )
        if not np.array_equal(layer.weights, array):
            raise ArtefactError(
                f"save: {name!r} has weights other than 0 where its mask drops them; "
                "give the effective weights"
            )
        headers.append(_encode_layer(layer, paths[name], segments))
    return _pack(Header(None, None, tuple(headers), ()), None, segments)


class _SegmentWriter:
    """Segments of a file in its order, compressed where that is smaller."""

    def __init__(self) -> None:
        self.contents: list[bytes] = []

    def add(self, data: bytes) -> Segment:
        stored, deflated = container.deflate(data)
        self.contents.append(stored)
        return Segment(len(stored), deflated)


def _pack(header: Header, net: Any, segments: _SegmentWriter) -> bytes:
    """Returns the bytes of a file, after checking the header as a reader does."""
    version = 1 if fits_format_1(header) else 2
    values = to_json(header, version)
    try:
        read_again = from_json(json.loads(json.dumps(values)), version)
        validation.check(read_again, net, sum(map(len, segments.contents)))
        return container.pack(version, values, segments.contents)
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
    return {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}


def _paths(tree: Any) -> dict[str, tuple[str, ...]]:
    """Returns the path of each leaf by name, and checks that no two names are equal."""
    paths: dict[str, tuple[str, ...]] = {}
    for path in leaf_paths(tree):
        if paths.setdefault("/".join(path), path) != path:
            raise ArtefactError(f"encode: two arrays have the name {'/'.join(path)!r}")
    return paths


def _encode_extra(
    array: np.ndarray, path: tuple[str, ...], segments: _SegmentWriter
) -> ExtraArray:
    return ExtraArray(
        path=path,
        shape=array.shape,
        dtype=array.dtype.name,
        sha256=sha256(array),
        data=segments.add(pack_numbers(array)),
    )


def _encode_layer(
    layer: LayerWeights, path: tuple[str, ...], segments: _SegmentWriter
) -> ArrayHeader:
    mask, inverted, data = layer.mask, None, None
    kept = layer.frozen.ravel() if mask is None else layer.frozen[mask]
    # In the order of the file: mask, inverted, data.
    packed = None if mask is None else segments.add(pack_bits(mask))
    if layer.ternary_mask is not None and (layer.ternary_mask < 0).any():
        inverted = segments.add(pack_bits(layer.ternary_mask[mask] < 0))
    if layer.origin == "signs":
        data = segments.add(pack_bits(np.signbit(kept)))
    elif layer.origin != "recipe":
        data = segments.add(pack_numbers(kept))
    signs = layer.recipe.draws_signs if layer.recipe else layer.origin == "signs"
    magnitude = layer.magnitude if signs else None
    return ArrayHeader(
        path=path,
        shape=layer.weights.shape,
        dtype=layer.weights.dtype.name,
        origin=layer.origin,
        sha256=sha256(layer.weights),
        scale=None if layer.scale is None else float(layer.scale),
        recipe=layer.recipe,
        magnitude=None if magnitude is None else float(magnitude),
        mask=packed,
        inverted=inverted,
        data=data,
    )
