"""Hostile artefacts whose checksum is right."""

import functools
import hashlib
import json
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.bounds import attempt, bounded
from benchmarks.faults.damage import VALUES, change, spoil
from benchmarks.faults.tries import WRONG, Failure, Kind, Workshop

_PREFIX = struct.Struct("<8sII")
_DIGEST = 32
_BOMB = 128 << 20  # bytes that a bomb inflates to


SOUND = ("stored values", "stored signs", "signs", "normal")
"""Kinds of sound files, by the origin of their weights; the last two are drawn again,
by programs that take seconds to compile."""


@functools.cache
def sound_file(kind: str) -> bytes:
    """Returns a sound file of a tiny network.

    Args:
      kind: one of `SOUND`.
    """
    import jax
    import jax.numpy as jnp

    from aslp_jax import ASLP, Masked, Signed, artefact, models
    from aslp_jax.artefact.encoding import encode
    from aslp_jax.models import initialisers

    kaiming, shape = initialisers.kaiming_normal(), (8, 8, 1)
    signed = kind.endswith("signs")
    init = initialisers.signed_constant(kaiming) if signed else kaiming
    net = models.ConvNet(
        stages=(4,),
        hidden=(6,),
        classes=3,
        conv_init=init,
        dense_init=init,
        bias_init=None if signed else initialisers.fan_in_uniform,
    )
    method: Any = Signed(logit_std=1.0) if signed else ASLP(logit_std=1.0)
    model, key, rng = Masked(net, method), jax.random.key(3), np.random.default_rng(3)
    initialise = functools.partial(model.init, train=False)
    images = jnp.zeros((1, *shape))
    if kind in ("signs", "normal"):
        variables, drawn = jax.jit(initialise)(key, images), key
    else:

        def fill(leaf: Any) -> np.ndarray:
            values = rng.normal(size=leaf.shape).astype(leaf.dtype)
            return np.sign(values) * leaf.dtype.type(0.5) if signed else values

        variables, drawn = jax.eval_shape(initialise, key, images), None
        variables = jax.tree.map(fill, dict(variables))
    about = artefact.Description("tiny", 3, shape, dataset="noise", method="any")
    return encode(artefact.extract(model, variables, about, key=drawn))


def values_of(data: bytes) -> dict[str, tuple[str, tuple[int, ...], bytes]]:
    """Returns dtype, shape and bytes of each array of a network."""
    from aslp_jax._tree import named_leaves
    from aslp_jax.artefact.decoding import assemble, decode

    subnetwork = assemble(decode(data))
    return {
        name: (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())
        for name, leaf in named_leaves(subnetwork.variables).items()
    }


def sealed(
    version: int, header: bytes, body: bytes, *, size: int | None = None
) -> bytes:
    """Returns a file with the right checksum.

    Args:
      version: version of the format.
      header: text of the header.
      body: bytes of all segments.
      size: size that is declared for the header; default: the right one.
    """
    magic = b"\x89ASLP\r\n\x1a"
    size = len(header) if size is None else size
    content = _PREFIX.pack(magic, version, size) + header + body
    return content + hashlib.sha256(content).digest()


def _other_values(rng: np.random.Generator, header: Any, body: bytes) -> Any:
    words = []
    for _ in range(int(rng.integers(1, 4))):
        header, each = change(rng, header)
        words.append(each)
    return json.dumps(header).encode(), body, ", ".join(words)


def _other_text(rng: np.random.Generator, header: Any, body: bytes) -> Any:
    text, words = spoil(rng, json.dumps(header).encode())
    return text, body, f"header: {words}"


def _other_body(rng: np.random.Generator, header: Any, body: bytes) -> Any:
    spoilt, words = spoil(rng, body)
    return json.dumps(header).encode(), spoilt, f"segments: {words}"


def _segments(header: Any) -> list[Any]:
    """Returns the segments of a header in the order of their bytes."""
    found = []
    for array in header["arrays"]:
        found += [array[name] for name in ("mask", "inverted", "data") if array[name]]
    return found + [extra["data"] for extra in header["collections"]]


def _other_segment(rng: np.random.Generator, header: Any, body: bytes) -> Any:
    """Replaces one segment, and declares its new size: nothing else is wrong."""
    segments = _segments(header)
    at = int(rng.integers(len(segments)))
    start = sum(each["bytes"] for each in segments[:at])
    old = body[start : start + segments[at]["bytes"]]
    content = zlib.decompress(old) if segments[at]["deflated"] else old
    kind = rng.integers(5)
    if kind == 0:  # legal: stored in the other way
        new = zlib.compress(content, int(rng.integers(0, 10)))
        deflated, words = True, "deflated otherwise"
    elif kind == 1:
        new, deflated, words = content, False, "stored"
    elif kind == 2:
        new, deflated, words = _bomb(), True, "a bomb"
    elif kind == 3:
        content, words = spoil(rng, content)
        new, deflated = zlib.compress(content), True
    else:
        new, deflated, words = zlib.compress(content) + b"\0", True, "a byte after it"
    segments[at] |= {"bytes": len(new), "deflated": deflated}
    body = body[:start] + new + body[start + len(old) :]
    return json.dumps(header).encode(), body, f"segment {at}: {words}"


@functools.cache
def _bomb() -> bytes:
    packer, block = zlib.compressobj(9), bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(_BOMB >> 20)]
    return b"".join([*parts, packer.flush()])


def _other_shape(rng: np.random.Generator, header: Any, body: bytes) -> Any:
    """Asks for large arrays, or for as many numbers in another shape."""
    array = header["arrays"][rng.integers(len(header["arrays"]))]
    if "shape" not in array:
        return _other_values(rng, header, body)
    shape = array["shape"]
    choices = [
        shape[::-1],
        [1, *shape],
        [*shape, 1 << int(rng.integers(1, 40))],
        [1 << int(rng.integers(1, 40))] * len(shape),
        [1 << 20] * 8,
        [0, *shape],
    ]
    array["shape"] = choices[rng.integers(len(choices))]
    return json.dumps(header).encode(), body, f"shape {array['shape']}"


def _other_arrays(rng: np.random.Generator, header: Any, body: bytes) -> Any:
    """Changes the order of arrays, their number, or the parts of one."""
    arrays = header["arrays"]
    one, other = (int(rng.integers(len(arrays))) for _ in range(2))
    kind = rng.integers(4)
    if kind == 0:
        arrays[one], arrays[other] = arrays[other], arrays[one]
        words = f"arrays {one} and {other} change places"
    elif kind == 1:
        count = int(rng.choice([1, 100, 3000]))
        arrays += [dict(arrays[one]) for _ in range(count)]
        words = f"array {one} {count} times more"
    elif kind == 2:
        del arrays[one]
        words = f"array {one} is missing"
    else:
        name = list(arrays[one])[rng.integers(len(arrays[one]))]
        arrays[one][name] = arrays[other].get(name)
        words = f"array {one} with the {name} of array {other}"
    return json.dumps(header).encode(), body, words


def _other_json(rng: np.random.Generator, header: Any, body: bytes) -> Any:
    """Writes the header as JSON that parsers disagree about."""
    text = json.dumps(header)
    kind = rng.integers(6)
    if kind == 0:
        text, words = (
            text[:-1] + f', "network": {json.dumps(header["network"])}}}',
            "a key twice",
        )
    elif kind == 1:
        text, words = '{"a":' * 100_000, "deep"
    elif kind == 2:
        text, words = text.encode("utf-16").decode("latin-1"), "UTF-16"
    elif kind == 3:
        text, words = text.replace("0", "0" * 5000, 1), "many digits"
    elif kind == 4:
        text, words = " " * (1 << 20) + text, "a long header"
    else:
        value = json.dumps(VALUES[rng.integers(len(VALUES))])
        text, words = value, f"the header is {value[:30]}"
    return text.encode("latin-1", "replace"), body, words


_CHANGES: tuple[Callable[..., Any], ...] = (
    *(_other_values,) * 4,
    *(_other_segment,) * 3,
    *(_other_shape, _other_arrays, _other_body, _other_text, _other_json),
)


def _attempt(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    from aslp_jax.artefact import ArtefactError

    kind = SOUND[rng.integers(len(SOUND))]
    data, wanted = sound_file(kind), sound_values(kind)
    _, version, size = _PREFIX.unpack_from(data)
    header = json.loads(data[_PREFIX.size : _PREFIX.size + size])
    body = data[_PREFIX.size + size : -_DIGEST]
    how = _CHANGES[rng.integers(len(_CHANGES))]
    text, body, words = how(rng, header, body)
    size = len(text)
    if rng.uniform() < 0.05:
        size += int(rng.integers(-20, 20)) if rng.integers(2) else 1 << 31
        words += f", {size} bytes of header declared"
    if rng.uniform() < 0.05:
        version = int(rng.choice([0, 1, 2, 3, 1 << 31]))
        words += f", format {version}"
    hostile = sealed(version, text, body, size=max(0, size))
    (folder / "network.aslp").write_bytes(hostile)
    about = f"{kind}: {words}"
    with bounded(about):
        found = attempt(lambda: values_of(hostile), (ArtefactError,))
    if found is None:
        return f"{about}: refused"
    if found != wanted:
        raise Failure(WRONG, f"{about}: loads as another network")
    return f"{about}: the same network"


@functools.cache
def sound_values(kind: str) -> dict[str, Any]:
    """Returns the arrays of a sound file."""
    return values_of(sound_file(kind))


KINDS = (
    Kind("artefacts", "hostile artefacts with the right checksum", _attempt, turn=150),
)
