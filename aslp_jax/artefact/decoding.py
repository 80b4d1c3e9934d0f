"""Reads files as contents and subnetworks; a file is checked in full before use."""

import dataclasses
import math
import os
import stat
from collections.abc import Iterator, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax._tree import map_named
from aslp_jax.artefact import architecture, container, signature, validation
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.header import ArrayHeader, Header, Segment
from aslp_jax.artefact.header_json import from_json
from aslp_jax.artefact.packing import sha256, unpack_bits, unpack_numbers
from aslp_jax.artefact.source import Source
from aslp_jax.artefact.subnetwork import LayerWeights, Subnetwork, make_layer_weights
from aslp_jax.artefact.weight_recipe import apply_signs, initialise


@dataclasses.dataclass(frozen=True, eq=False)
class Contents:
    """Contents of a file; weights with a recipe are not yet initialised.

    Attributes:
      header: header of the file.
      net: network of the header's config; None if the header has none.
      ternary_masks: int8 mask of each masked array by name, each entry -1, 0 or 1.
      frozen: frozen weights of each array without a recipe by name.
      collections: extra arrays by collection and name joined by `/`.
      size: size of the file in bytes.
    """

    header: Header
    net: nn.Module | None
    ternary_masks: Mapping[str, np.ndarray]
    frozen: Mapping[str, np.ndarray]
    collections: Mapping[str, np.ndarray]
    size: int


def read(path: str | os.PathLike[str]) -> Contents:
    """Reads an artefact without initialising weights.

    Args:
      path: path of the file.

    Returns:
      The contents of the file.

    Raises:
      ArtefactError: the file is no artefact, of another format, damaged or
        inconsistent.
      OSError: the file cannot be read.
    """
    try:
        with open(path, "rb", opener=_open_without_waiting) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ArtefactError("is no regular file")
            if status.st_size > container.LARGEST_FILE:
                raise ArtefactError("is too large to be an artefact")
            # Bounded: a file that grows meanwhile fails the checksum.
            data = file.read(status.st_size)
        return decode(data)
    except ArtefactError as error:
        raise ArtefactError(f"{os.fspath(path)} {error}") from None


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a file; a named pipe is opened without waiting for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decode(data: bytes) -> Contents:
    """Returns the contents of an artefact.

    Args:
      data: all bytes of the file.

    Returns:
      The contents, checked against the header and the network.

    Raises:
      ArtefactError: as in `read`; the message continues the name of the file.
    """
    version, values, body = container.unpack(data)
    header, net = from_json(values, version), None
    if isinstance(header.network, dict):
        net = architecture.from_config(header.network)
    header = validation.check(header, net, len(body))
    segments = _SegmentReader(body)
    ternary_masks, frozen = {}, {}
    for array in header.arrays:
        kept = None
        if array.mask is not None:
            kept, ternary_masks[array.name] = _read_mask(
                array.mask, array.inverted, array.shape, segments
            )
        if array.data is not None:
            frozen[array.name] = _read_frozen(array.data, kept, array, segments)
    collections = {}
    for extra in header.collections:
        shape = extra.shape or ()
        numbers = segments.numbers(extra.data, math.prod(shape), extra.dtype)
        if sha256(numbers) != extra.sha256:
            raise ArtefactError(f"has {extra.name!r} with numbers of another sha256")
        collections[extra.name] = numbers.reshape(shape)
    for name, numbers in {**frozen, **collections}.items():
        if not np.isfinite(numbers).all():
            raise ArtefactError(f"has {name!r} with numbers that are not finite")
    return Contents(header, net, ternary_masks, frozen, collections, len(data))


class _SegmentReader:
    """Reader of one segment after another; each has a known size once inflated."""

    def __init__(self, body: memoryview) -> None:
        self._rest = body

    def bits(self, segment: Segment, count: int) -> np.ndarray:
        return unpack_bits(self._next(segment, -(-count // 8)), count)

    def numbers(self, segment: Segment, count: int, dtype: str) -> np.ndarray:
        size = jnp.dtype(dtype).itemsize * count
        return unpack_numbers(self._next(segment, size), dtype)

    def _next(self, segment: Segment, size: int) -> bytes:
        stored = self._rest[: segment.bytes]
        self._rest = self._rest[segment.bytes :]
        if segment.deflated and size > 0:
            return container.inflate(stored, size)
        if segment.deflated or len(stored) != size:
            raise ArtefactError(
                f"has a segment of {len(stored)} bytes where {size} are needed"
            )
        return bytes(stored)


def _read_mask(
    mask: Segment,
    inverted: Segment | None,
    shape: tuple[int, ...],
    segments: _SegmentReader,
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the flat bool mask of an array, and its ternary mask."""
    kept = segments.bits(mask, math.prod(shape))
    ternary_mask = kept.astype(np.int8)
    if inverted is not None:
        flags = segments.bits(inverted, int(kept.sum()))
        ternary_mask[kept] -= 2 * flags.astype(np.int8)
    return kept, ternary_mask.reshape(shape)


def _read_frozen(
    data: Segment,
    kept: np.ndarray | None,
    array: ArrayHeader,
    segments: _SegmentReader,
) -> np.ndarray:
    """Returns the stored frozen weights of an array; dropped ones are 0."""
    size = math.prod(array.shape)
    count = size if kept is None else int(kept.sum())
    where: Any = slice(None) if kept is None else kept
    weights = np.zeros(size, jnp.dtype(array.dtype))
    if array.magnitude is None:
        weights[where] = segments.numbers(data, count, array.dtype)
    else:
        negative = segments.bits(data, count)
        with np.errstate(over="ignore"):  # a hostile magnitude; not finite then
            weights[where] = apply_signs(np.float32(array.magnitude), negative)
    return weights.reshape(array.shape)


def assemble(contents: Contents) -> Subnetwork:
    """Initialises weights with a recipe and builds the network.

    Args:
      contents: result of `read`, of a file that names a network.

    Returns:
      The network; the sha256 of each array is verified. Its `net` is None if it is not
      of this library, and its variables are nested dicts.

    Raises:
      ArtefactError: weights differ from those that were saved, or the file names no
        network; the message continues the name of the file.
    """
    header = contents.header
    if header.description is None:
        raise ArtefactError("holds a bare pytree, not a network")
    layers = _assemble_layers(contents)
    arrays: dict[tuple[str, ...], Any] = {
        ("params", *array.path): layers[array.name].weights for array in header.arrays
    }
    for extra in header.collections:
        arrays[extra.path] = contents.collections[extra.name]
    variables: Any = {"params": {}, **flax.traverse_util.unflatten_dict(arrays)}
    return Subnetwork(
        net=contents.net,
        variables=jax.tree.map(jnp.asarray, variables),
        layers=layers,
        description=header.description,
        source=header.network if isinstance(header.network, Source) else None,
    )


def assemble_tree(contents: Contents, like: Any = None) -> Any:
    """Returns the arrays of a file of a bare pytree.

    Args:
      contents: result of `read`, of a file that names no network.
      like: pytree of the same structure; default: None, for nested dicts.

    Raises:
      ArtefactError: arrays differ from those that were saved, or from `like`; the
        message continues the name of the file.
    """
    layers = _assemble_layers(contents)
    arrays = {name: jnp.asarray(layer.weights) for name, layer in layers.items()}
    if like is None:
        paths = {array.path: arrays[array.name] for array in contents.header.arrays}
        return flax.traverse_util.unflatten_dict(paths)
    signature.compare_arrays(like, arrays, "the tree given")
    return map_named(like, arrays, lambda name, _: arrays[name])


def _assemble_layers(contents: Contents) -> dict[str, LayerWeights]:
    arrays = contents.header.arrays
    return {array.name: _assemble_layer(array, contents) for array in arrays}


def _assemble_layer(array: ArrayHeader, contents: Contents) -> LayerWeights:
    for frozen in _candidates(array, contents):
        with np.errstate(over="ignore"):  # a hostile scale; the sha256 then differs
            layer = make_layer_weights(
                array.name,
                frozen,
                ternary_mask=contents.ternary_masks.get(array.name),
                scale=None if array.scale is None else np.float32(array.scale),
                recipe=array.recipe,
            )
        if sha256(layer.weights) == array.sha256 and np.isfinite(layer.weights).all():
            return layer
    if array.recipe is None:
        raise ArtefactError(f"has {array.name!r} with weights of another sha256")
    if array.recipe.draws_signs:
        raise ArtefactError(
            f"has {array.name!r} with weights of another sha256; signs are the same "
            "on every machine, so its mask, scale, magnitude or key was changed"
        )
    about = contents.header.description
    versions = about.versions.items() if about else ()
    made_with = ", ".join(f"{name} {version}" for name, version in versions)
    raise ArtefactError(
        f"cannot be used here: jax {jax.__version__} on {jax.default_backend()} does "
        f"not initialise the weights of {array.name!r} to the same bits "
        f"({array.recipe.initialiser}; made with {made_with}); extract it "
        "again where it was made, with --embed-weights, which stores them in the file"
    )


def _candidates(array: ArrayHeader, contents: Contents) -> Iterator[np.ndarray]:
    """Yields possible frozen weights of an array; stored ones are the only ones."""
    if array.recipe is None:
        yield contents.frozen[array.name]
    else:
        magnitude = None if array.magnitude is None else np.float32(array.magnitude)
        yield from initialise(array.recipe, array.shape, magnitude)
