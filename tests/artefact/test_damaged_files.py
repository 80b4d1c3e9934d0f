"""Ten thousand damaged and forged files, at random."""

import contextlib
import copy
import functools
import json
import math
import struct
import tracemalloc
from typing import Any

import numpy as np
import pytest

from aslp_jax.artefact import ArtefactError, Subnetwork
from aslp_jax.artefact.decoding import assemble, decode
from aslp_jax.artefact.loading import bind
from tests.artefact.networks import file_of, header_of, named, rewritten, sealed
from tests.artefact.own import Depthwise, Halved, own_file

VALUES: list[Any] = [
    *(-1, 0, 1, 2, 7, 2**16, 2**31, 2**32, 2**53, 2**63, 10**30, 10**400),
    *(0.5, -0.0, 1e-46, 1e308, math.nan, math.inf, True, False, None),
    *("", "..", "../../x", "a/b", "Conv_0/kernel", "\x00", "\n", "\ud800", "é" * 300),
    *([], {}, [[]], [1, 2], {"a": 1}, [0] * 100),
]

Place = tuple[Any, ...]


def places(value: Any, way: Place = ()) -> list[Place]:
    """Every place in a header, as the steps that lead there."""
    inner = list(value.items()) if isinstance(value, dict) else []
    inner = list(enumerate(value)) if isinstance(value, list) else inner
    found = [place for step, each in inner for place in places(each, (*way, step))]
    return [way, *found] if way else found


def at(header: Any, way: Place) -> Any:
    return functools.reduce(lambda found, step: found[step], way, header)


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Spoils some bytes: some are changed, left out, put in or doubled."""
    found = bytearray(data)
    while bytes(found) == data or rng.integers(2):
        at = int(rng.integers(len(found)))
        size = int(rng.integers(1, 9))
        kind = rng.integers(20)
        if kind < 4:
            found[at] ^= 1 << int(rng.integers(8))
        elif kind < 8:
            found[at : at + size] = rng.bytes(size)
        elif kind < 12:
            found[at:at] = rng.bytes(size)
        elif kind < 16:
            del found[at : at + size]
        elif kind < 19:
            found[at:at] = found[at : at + size]
        else:
            del found[max(1, at) :]
    return bytes(found)


def change(rng: np.random.Generator, header: Any, ways: list[Place]) -> None:
    """Makes a header say something else in one place."""
    *way, last = ways[rng.integers(len(ways))]
    inner = at(header, tuple(way))
    kind = rng.integers(6)
    if kind == 0:
        del inner[last]
    elif kind == 1 and isinstance(inner, list):
        inner.insert(last, copy.deepcopy(inner[last]))
    elif kind == 2 and isinstance(inner, list):
        inner[last], inner[0] = inner[0], inner[last]
    elif kind == 3:
        inner[last] = copy.deepcopy(at(header, ways[rng.integers(len(ways))]))
    elif kind == 4 and type(inner[last]) in (int, float):
        inner[last] += int(rng.integers(-2, 3))
    else:
        inner[last] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])


def changed(rng: np.random.Generator, text: str, ways: list[Place]) -> Any:
    """A header that says something else in one or two places.

    Args:
      rng: random generator.
      text: the header as JSON.
      ways: every place in it.
    """
    header = json.loads(text)
    change(rng, header, ways)
    if rng.integers(2):
        # The first change may have taken this place away.
        with contextlib.suppress(LookupError, TypeError):
            change(rng, header, ways)
    return header


OWN = {"linen": Depthwise(), "half": Halved()}
"""Networks that are not of this library, by the kind of their file."""


def restored(kind: str, data: bytes) -> Subnetwork:
    """The network of a file; one that is not of this library is given."""
    subnetwork = assemble(decode(data))
    return bind(subnetwork, OWN[kind]) if kind in OWN else subnetwork


@pytest.mark.slow
def test_ten_thousand_spoilt_files():
    """None crashes, hangs, takes much memory or passes for another network.

    A quarter is spoilt as on a disk. The others have the right checksum, as a forger
    would write it: with bytes changed anywhere, with a header of other bytes, or with a
    header of other values. A forged file that is read must be the same network, bit for
    bit.
    """
    rng = np.random.default_rng(20221016)
    files = {kind: file_of(kind) for kind in ("recipe", "values", "signs", "normal")}
    files |= {kind: own_file(kind) for kind in OWN}
    kinds = tuple(files)
    whole = {kind: restored(kind, files[kind]) for kind in kinds}
    texts = {kind: json.dumps(header_of(files[kind])) for kind in kinds}
    ways = {kind: places(json.loads(text)) for kind, text in texts.items()}
    refused, words, most = 0, set(), 0
    for number in range(10_000):
        # Measured for one in eight, because measuring slows all down.
        if number % 128 == 0:
            tracemalloc.start()
        elif number % 128 == 16:
            most = max(most, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        kind = kinds[number % len(kinds)]
        data, how = files[kind], number // len(kinds) % 4
        if how == 0:
            spoilt = mutated(rng, data)
        elif how == 1:
            spoilt = sealed(mutated(rng, data[:-32]))
        elif how == 2:
            size = struct.unpack_from("<I", data, 12)[0]
            spoilt = rewritten(data, mutated(rng, data[16 : 16 + size]))
        else:
            header = changed(rng, texts[kind], ways[kind])
            spoilt = rewritten(data, json.dumps(header).encode())
        try:
            found = restored(kind, spoilt)
        except ArtefactError as error:
            assert str(error).isprintable() and len(str(error)) < 1000
            refused += 1
            words.add(str(error)[:14])
            continue
        assert how > 0, "a damaged file was read"
        for name, layer in whole[kind].layers.items():
            assert found.layers[name].weights.tobytes() == layer.weights.tobytes()
        one, other = named(found.variables), named(whole[kind].variables)
        assert list(one) == list(other)
        for name, array in one.items():
            assert array.dtype == other[name].dtype
            assert array.tobytes() == other[name].tobytes()
        header = header_of(spoilt)
        assert found.description.arch == header["description"]["arch"]
        assert found.description.seed == header["description"]["seed"]
    tracemalloc.stop()
    assert 0 < most < 8 << 20, "bytes, of files of a few thousand"
    assert refused > 9_500 and len(words) > 12
