"""Files to subnetworks: read in full, checked, and only then put together."""

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

from aslp_jax.artefact import architecture, container, validation
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.header import Array, Header, Segment, from_json
from aslp_jax.artefact.packing import sha256, unpack_bits, unpack_floats
from aslp_jax.artefact.subnetwork import LayerWeights, Subnetwork, make_layer_weights
from aslp_jax.artefact.weight_recipe import initialise, with_signs


@dataclasses.dataclass(frozen=True, eq=False)
class Parts:
    """What a file holds, before weights are drawn again.

    Attributes:
      header: what it says.
      net: the network that it names.
      factors: of each array with a mask int8 in its shape: -1, 0 or 1.
      frozen: of each array without a recipe its frozen weights, float32 in its shape.
      collections: every array that is no parameter, by collection and name joined by
        `/`.
      size: of the file in bytes.
    """

    header: Header
    net: nn.Module
    factors: Mapping[str, np.ndarray]
    frozen: Mapping[str, np.ndarray]
    collections: Mapping[str, np.ndarray]
    size: int


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
    parts = read(path)
    try:
        return assemble(parts)
    except ArtefactError as error:
        raise ArtefactError(f"{os.fspath(path)} {error}") from None


def read(path: str | os.PathLike[str]) -> Parts:
    """Reads an artefact, but draws nothing.

    Args:
      path: of the file.

    Raises:
      ArtefactError: it is no artefact, of another format, damaged, or says what cannot
        be.
      OSError: it cannot be read.
    """
    try:
        with open(path, "rb", opener=_open_at_once) as file:
            status = os.fstat(file.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ArtefactError("is no regular file")
            if status.st_size > container.LARGEST_FILE:
                raise ArtefactError("is too large to be an artefact")
            # Of one that grows meanwhile no more than that, which is not whole.
            data = file.read(status.st_size)
        return decode(data)
    except ArtefactError as error:
        raise ArtefactError(f"{os.fspath(path)} {error}") from None


def _open_at_once(path: str, flags: int) -> int:
    """Opens without waiting for a writer, where it is a named pipe."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def decode(data: bytes) -> Parts:
    """Returns what the bytes of an artefact hold.

    Args:
      data: all of them.

    Raises:
      ArtefactError: as `read`; the message is what comes after the name of the file.
    """
    found, body = container.unpack(data)
    header = from_json(found)
    net = architecture.from_config(header.network)
    shapes = validation.check(header, net, len(body))
    sections = _Sections(body)
    factors, frozen = {}, {}
    for array in header.arrays:
        size = math.prod(array.shape)
        kept: Any = slice(None)
        if array.mask is not None:
            kept = sections.bits(array.mask, size)
            chosen = kept.astype(np.int8)
            size = int(kept.sum())
            if array.inverted is not None:
                inverted = sections.bits(array.inverted, size)
                chosen[kept] -= 2 * inverted.astype(np.int8)
            factors[array.name] = chosen.reshape(array.shape)
        if array.data is not None:
            weights = np.zeros(math.prod(array.shape), np.float32)
            if array.magnitude is None:
                weights[kept] = sections.floats(array.data, size)
            else:
                negative = sections.bits(array.data, size)
                weights[kept] = with_signs(np.float32(array.magnitude), negative)
            frozen[array.name] = weights.reshape(array.shape)
    collections = {}
    for held in header.collections:
        numbers = sections.floats(held.data, math.prod(shapes[held.name]))
        if sha256(numbers) != held.sha256:
            raise ArtefactError(f"has {held.name!r} with numbers of another sha256")
        collections[held.name] = numbers.reshape(shapes[held.name])
    for name, numbers in {**frozen, **collections}.items():
        if not np.isfinite(numbers).all():
            raise ArtefactError(f"has {name!r} with numbers that are not finite")
    return Parts(header, net, factors, frozen, collections, len(data))


class _Sections:
    """Takes one section after another, each of a size that is known before."""

    def __init__(self, body: memoryview) -> None:
        self._left = body

    def bits(self, section: Segment, count: int) -> np.ndarray:
        return unpack_bits(self._take(section, -(-count // 8)), count)

    def floats(self, section: Segment, count: int) -> np.ndarray:
        return unpack_floats(self._take(section, 4 * count))

    def _take(self, section: Segment, size: int) -> bytes:
        stored = self._left[: section.bytes]
        self._left = self._left[section.bytes :]
        if section.deflated and size > 0:
            return container.inflate(stored, size)
        if section.deflated or len(stored) != size:
            raise ArtefactError(
                f"has a section of {len(stored)} bytes where {size} are needed"
            )
        return bytes(stored)


def assemble(parts: Parts) -> Subnetwork:
    """Draws weights again and puts the network together.

    Args:
      parts: as `read` returns them.

    Raises:
      ArtefactError: weights are not those that the file was made of; the message is
        what comes after the name of the file.
    """
    entries = {array.name: _entry(array, parts) for array in parts.header.arrays}
    arrays = {f"params/{name}": entry.weights for name, entry in entries.items()}
    variables: Any = flax.traverse_util.unflatten_dict(
        {**arrays, **parts.collections}, sep="/"
    )
    return Subnetwork(
        net=parts.net,
        variables=jax.tree.map(jnp.asarray, variables),
        entries=entries,
        description=parts.header.description,
    )


def _entry(array: Array, parts: Parts) -> LayerWeights:
    for frozen in _candidates(array, parts):
        with np.errstate(over="ignore"):  # a hostile scale, which the hash finds out
            entry = make_layer_weights(
                array.name,
                frozen,
                factors=parts.factors.get(array.name),
                scale=None if array.scale is None else np.float32(array.scale),
                recipe=array.recipe,
            )
        if sha256(entry.weights) == array.sha256 and np.isfinite(entry.weights).all():
            return entry
    if array.recipe is None:
        raise ArtefactError(f"has {array.name!r} with weights of another sha256")
    if array.recipe.draws_signs:
        raise ArtefactError(
            f"has {array.name!r} with weights of another sha256; their signs are the "
            "same wherever they are drawn, so that its mask, scale, magnitude or key "
            "are not those that it was made of"
        )
    made = parts.header.description.versions.items()
    raise ArtefactError(
        f"cannot be used here: jax {jax.__version__} on {jax.default_backend()} does "
        f"not draw the weights of {array.name!r} again to the last bit "
        f"({array.recipe.initialiser}; made with "
        f"{', '.join(f'{name} {version}' for name, version in made)}); extract it "
        "again where it was made, with --embed-weights, which keeps them in the file"
    )


def _candidates(array: Array, parts: Parts) -> Iterator[np.ndarray]:
    """What the frozen weights may be: one thing, if the file holds them."""
    if array.recipe is None:
        yield parts.frozen[array.name]
    else:
        magnitude = None if array.magnitude is None else np.float32(array.magnitude)
        yield from initialise(array.recipe, array.shape, magnitude)
