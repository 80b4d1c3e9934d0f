"""Subnetworks to bytes and back."""

import functools
import hashlib
import itertools
import math
import os
import reprlib
import stat
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax.artefact import container, network
from aslp_jax.artefact.header import (
    MOST_WEIGHTS,
    Array,
    Header,
    Section,
    from_json,
    to_json,
)
from aslp_jax.artefact.recipe import Recipe, platforms, with_signs
from aslp_jax.artefact.subnetwork import ArtefactError, Entry, Subnetwork, make_entry
from aslp_jax.whole_file import replacing

_FLOATS = np.dtype("<f4")


def load(path: str | os.PathLike[str]) -> Subnetwork:
    """Reads an artefact, and draws the weights again that it does not hold.

    Args:
      path: of the file.

    Returns:
      The network, its arrays verified one by one.

    Raises:
      ArtefactError: it is no artefact, of another format, damaged, says what cannot be,
        or its weights are not drawn again to the last bit.
      OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise ArtefactError(f"{os.fspath(path)} is no file")
        if status.st_size > container.LARGEST_FILE:
            raise ArtefactError(f"{os.fspath(path)} is too large to be an artefact")
        data = file.read()
    try:
        return decode(data)
    except ArtefactError as error:
        raise ArtefactError(f"{os.fspath(path)} {error}") from None


def save(subnetwork: Subnetwork, path: str | os.PathLike[str]) -> None:
    """Writes an artefact, which appears whole or not at all.

    Args:
      subnetwork: the network.
      path: of the file; its folder exists, and a file that is there is replaced.

    Raises:
      OSError: it cannot be written.
    """
    data = encode(subnetwork)
    with replacing(path) as file:
        file.write(data)


def encode(subnetwork: Subnetwork) -> bytes:
    """Returns the bytes of an artefact.

    Args:
      subnetwork: as `extract` or `load` returns it.
    """
    sections: list[bytes] = []

    def put(data: bytes) -> Section:
        stored, deflated = container.deflate(data)
        sections.append(stored)
        return Section(len(stored), deflated)

    rest = {
        collection: tree
        for collection, tree in subnetwork.variables.items()
        if collection != "params"
    }
    header = Header(
        network=network.in_words(subnetwork.net),
        description=subnetwork.description,
        arrays=tuple(
            _encode_entry(subnetwork.entries[name], put)
            for name in sorted(subnetwork.entries)
        ),
        collections={
            name: put(_to_bytes(np.asarray(leaf)))
            for name, leaf in sorted(
                flax.traverse_util.flatten_dict(rest, sep="/").items()
            )
        },
    )
    return container.pack(to_json(header), sections)


def _encode_entry(entry: Entry, put: Callable[[bytes], Section]) -> Array:
    mask, inverted, data = entry.mask, None, None
    kept = entry.frozen.ravel() if mask is None else entry.frozen[mask]
    packed = None if mask is None else put(np.packbits(mask).tobytes())
    if entry.factors is not None and (entry.factors < 0).any():
        inverted = put(np.packbits(entry.factors[mask] < 0).tobytes())
    if entry.origin == "signs":
        data = put(np.packbits(np.signbit(kept)).tobytes())
    elif entry.origin != "recipe":
        data = put(_to_bytes(kept))
    signs = entry.recipe.draws_signs if entry.recipe else entry.origin == "signs"
    magnitude = entry.magnitude if signs else None
    return Array(
        name=entry.name,
        shape=entry.weights.shape,
        origin=entry.origin,
        sha256=_sha256(entry.weights),
        scale=None if entry.scale is None else float(entry.scale),
        recipe=entry.recipe,
        magnitude=None if magnitude is None else float(magnitude),
        mask=packed,
        inverted=inverted,
        data=data,
    )


def decode(data: bytes) -> Subnetwork:
    """Returns the network of an artefact's bytes.

    Args:
      data: all of them.

    Raises:
      ArtefactError: as `load`; the message is what comes after the name of the file.
    """
    found, body = container.unpack(data)
    header = from_json(found)
    net = network.from_words(header.network)
    shapes = _check_sizes(header, net, len(body))
    taken = 0

    def take(section: Section, size: int) -> bytes:
        nonlocal taken
        stored = body[taken : taken + section.bytes]
        taken += section.bytes
        if section.deflated and size > 0:
            return container.inflate(stored, size)
        if section.deflated or len(stored) != size:
            raise ArtefactError(
                f"has a section of {len(stored)} bytes where {size} are needed"
            )
        return bytes(stored)

    with np.errstate(over="ignore"):  # it is found out below
        entries = {
            array.name: _decode_entry(array, take, header.description.versions)
            for array in header.arrays
        }
    arrays = {f"params/{name}": each.weights for name, each in entries.items()}
    for name, section in header.collections.items():
        shape = shapes[name]
        arrays[name] = _from_bytes(take(section, 4 * math.prod(shape))).reshape(shape)
    for name, array in arrays.items():
        if not np.isfinite(array).all():
            raise ArtefactError(f"has {name!r} with numbers that are not finite")
    variables: Any = flax.traverse_util.unflatten_dict(arrays, sep="/")
    return Subnetwork(
        net=net,
        variables=jax.tree.map(jnp.asarray, variables),
        entries=entries,
        description=header.description,
    )


def _check_sizes(header: Header, net: nn.Module, body: int) -> dict[str, Any]:
    """Compares names, shapes and lengths with the network and the file.

    Args:
      header: what the file says.
      net: that it names.
      body: bytes behind the header.

    Returns:
      Shapes of what is no parameter, by collection and name joined by `/`.
    """
    try:
        collections = dict(network.shapes_of(net, header.description.image_shape))
    except (ValueError, TypeError, OverflowError) as error:
        raise ArtefactError(f"names a network that cannot be: {error}") from None
    params = collections.pop("params")
    rest = flax.traverse_util.flatten_dict(collections, sep="/")
    shapes = {name: rest[name] for name in sorted(rest)}
    listed = [(array.name, array.shape) for array in header.arrays]
    for found, wanted in itertools.zip_longest(
        [*listed, *header.collections], [*params.items(), *shapes]
    ):
        if found != wanted:
            raise ArtefactError(
                f"has the array {reprlib.repr(found)} where its network has {wanted!r}"
            )
    weights = sum(map(math.prod, (*params.values(), *shapes.values())))
    if weights > MOST_WEIGHTS:
        raise ArtefactError(f"holds {weights} weights, more than {MOST_WEIGHTS}")
    declared = sum(section.bytes for section in header.sections)
    if declared != body:
        raise ArtefactError(
            f"declares sections of {declared} bytes and holds {body} bytes of them"
        )
    return shapes


def _decode_entry(
    array: Array, take: Callable[[Section, int], bytes], versions: Mapping[str, str]
) -> Entry:
    size = math.prod(array.shape)
    factors = mask = None
    kept = size
    if array.mask is not None:
        mask = _bits(take(array.mask, -(-size // 8)), size, array.name)
        kept = int(mask.sum())
        factors = mask.astype(np.int8)
        if array.inverted is not None:
            inverted = _bits(take(array.inverted, -(-kept // 8)), kept, array.name)
            factors[mask] -= 2 * inverted.astype(np.int8)
        factors = factors.reshape(array.shape)
    scale = None if array.scale is None else np.float32(array.scale)
    make = functools.partial(make_entry, array.name, factors=factors, scale=scale)
    if array.recipe is not None:
        return _drawn(array, array.recipe, make, versions)
    frozen = np.zeros(size, np.float32)
    if array.data is not None:
        frozen[slice(None) if mask is None else mask] = (
            with_signs(
                np.float32(array.magnitude),
                _bits(take(array.data, -(-kept // 8)), kept, array.name),
            )
            if array.magnitude is not None
            else _from_bytes(take(array.data, 4 * kept))
        )
    entry = make(frozen.reshape(array.shape))
    if _sha256(entry.weights) != array.sha256:
        raise ArtefactError(f"has {array.name!r} with weights of another sha256")
    return entry


def _drawn(
    array: Array,
    recipe: Recipe,
    make: Callable[..., Entry],
    versions: Mapping[str, str],
) -> Entry:
    """Draws the weights of one array again."""
    for platform in platforms():
        frozen = recipe.draw(array.shape, platform)
        if array.magnitude is not None:
            frozen = with_signs(np.float32(array.magnitude), np.signbit(frozen))
        entry = make(frozen, recipe=recipe)
        if _sha256(entry.weights) == array.sha256:
            return entry
    made = ", ".join(f"{name} {version}" for name, version in versions.items())
    raise ArtefactError(
        f"cannot be read here: jax {jax.__version__} on {jax.default_backend()} does "
        f"not draw the weights of {array.name!r} again to the last bit "
        f"({recipe.initialiser}; made with {made}); extract it again where it was made "
        "with --embed-weights, which keeps them in the file"
    )


def _bits(data: bytes, count: int, name: str) -> np.ndarray:
    """Unpacks bools; what fills up the last byte is 0."""
    bits = np.unpackbits(np.frombuffer(data, np.uint8)).view(bool)
    if bits[count:].any():
        raise ArtefactError(f"has bits of {name!r} beyond its last weight")
    return bits[:count]


def _to_bytes(array: np.ndarray) -> bytes:
    return array.astype(_FLOATS).tobytes()


def _from_bytes(data: bytes) -> np.ndarray:
    return np.frombuffer(data, _FLOATS).astype(np.float32)


def _sha256(weights: np.ndarray) -> str:
    return hashlib.sha256(_to_bytes(weights)).hexdigest()
