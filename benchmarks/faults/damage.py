"""Damage of files: as on a disk, and as by somebody who knows the format."""

import copy
import functools
import json
import math
from pathlib import Path
from typing import Any

import numpy as np

VALUES: tuple[Any, ...] = (
    *(-1, 0, 1, 2, 3, 1 << 16, 1 << 31, 1 << 53, 1 << 63, 10**30, 10**400),
    *(0.5, -0.0, 1e-46, 1e39, 1e308, math.nan, math.inf, True, False, None),
    *("", "0", "..", "/etc/passwd", "a/b", "\0", "\n", "\ud800", "x" * 5000),
    *([], {}, [[]], [1, 2], {"a": 1}, [0] * 100, [None] * 3),
)
"""Values that a hostile hand writes in the place of others."""

Place = tuple[Any, ...]


def spoil(rng: np.random.Generator, content: bytes) -> tuple[bytes, str]:
    """Damages bytes as a disk, a cable or an editor may.

    Returns:
      The bytes, and words on the damage.
    """
    found, size = bytearray(content), len(content)
    at = int(rng.integers(max(1, size)))
    length = min(1 << int(rng.integers(0, 13)), max(1, size - at))
    kind = rng.integers(8)
    if size == 0 or kind == 0:
        return content + rng.bytes(length), f"{length} bytes more at the end"
    if kind == 1:
        return content[:at], f"cut off at {at} of {size}"
    if kind == 2:
        found[at : at + length] = bytes(length)
        return bytes(found), f"{length} zeros at {at} of {size}"
    if kind == 3:
        found[at : at + length] = rng.bytes(length)
        return bytes(found), f"{length} random bytes at {at} of {size}"
    if kind == 4:
        del found[at : at + length]
        return bytes(found), f"{length} bytes missing at {at} of {size}"
    if kind == 5:
        found[at:at] = found[at : at + length]
        return bytes(found), f"{length} bytes twice at {at} of {size}"
    flips = int(rng.integers(1, 4)) if kind == 6 else 1
    for _ in range(flips):
        found[int(rng.integers(size))] ^= 1 << int(rng.integers(8))
    return bytes(found), f"{flips} bits flipped of {size} bytes"


def spoil_file(rng: np.random.Generator, file: Path) -> str:
    """Damages a file; returns words on the damage.

    A JSON file is changed in its values now and then, and any file may be gone, or be
    a folder.
    """
    kind = rng.integers(12)
    if kind == 0:
        file.unlink()
        return "deleted"
    if kind == 1:
        file.unlink()
        file.mkdir()
        return "a folder"
    content = file.read_bytes()
    if kind < 6 and file.suffix in (".json", ".jsonl"):
        whole = file.suffix == ".json"
        lines = [content.decode()] if whole else content.decode().splitlines()
        at = int(rng.integers(len(lines)))
        value, words = change(rng, json.loads(lines[at]))
        lines[at] = json.dumps(value)
        file.write_bytes("".join(f"{line}\n" for line in lines).encode())
        return words
    spoilt, words = spoil(rng, content)
    file.write_bytes(spoilt)
    return words


def places(value: Any, way: Place = ()) -> list[Place]:
    """Returns every place in a JSON value, as the keys that lead there."""
    inner = list(value.items()) if isinstance(value, dict) else []
    inner = list(enumerate(value)) if isinstance(value, list) else inner
    return [
        *([way] if way else []),
        *(place for key, each in inner for place in places(each, (*way, key))),
    ]


def change(rng: np.random.Generator, value: Any) -> tuple[Any, str]:
    """Changes a JSON value in one place.

    Returns:
      The changed copy, and words on the change.
    """
    value = copy.deepcopy(value)
    ways = places(value)
    if not ways:
        return VALUES[rng.integers(len(VALUES))], "another value"
    way = ways[rng.integers(len(ways))]
    holder = functools.reduce(lambda found, key: found[key], way[:-1], value)
    last, kind = way[-1], rng.integers(7)
    shown = "/".join(map(str, way))
    if kind == 0:
        del holder[last]
        return value, f"{shown} deleted"
    if kind == 1 and isinstance(holder, dict):
        holder["no_such_key"] = copy.deepcopy(holder[last])
        return value, f"a key more at {shown}"
    if kind == 2 and isinstance(holder, list):
        holder.insert(last, copy.deepcopy(holder[last]))
        return value, f"{shown} twice"
    if kind == 3:
        other = ways[rng.integers(len(ways))]
        found = functools.reduce(lambda found, key: found[key], other, value)
        holder[last] = copy.deepcopy(found)
        return value, f"{shown} is {'/'.join(map(str, other))}"
    if kind == 4 and type(holder[last]) in (int, float):
        step = int(rng.integers(1, 4)) * (-1) ** int(rng.integers(2))
        holder[last] += step
        return value, f"{shown} {step:+}"
    holder[last] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
    return value, f"{shown} is {str(holder[last])[:40]!r}"
