"""Values that JSON may hold, checked one by one.

Each function takes a value of any kind and what it is, in words, and returns it as the
format has it, or raises ArtefactError saying what it is and what was expected.
"""

import re
import reprlib
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from aslp_jax.artefact.container import ArtefactError

WIDEST = 1 << 16
"""Of the sizes that networks and images are made of."""

_LONGEST = 200
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def members(value: Any, what: str, keys: Iterable[str]) -> Mapping[str, Any]:
    """An object of exactly these keys."""
    keys = set(keys)
    expected = f"an object of {', '.join(sorted(keys))}"
    if type(value) is not dict:
        raise wrong(what, value, expected)
    if set(value) != keys:
        raise ArtefactError(f"{what} holds {shown(sorted(value))}; expected {expected}")
    return value


def items(value: Any, what: str, most: int) -> list[Any]:
    if type(value) not in (list, tuple) or len(value) > most:
        raise wrong(what, value, f"a list of at most {most}")
    return value


def sizes(
    value: Any, what: str, least: int, most: int, largest: int = WIDEST
) -> tuple[int, ...]:
    """A list of `least` to `most` whole numbers from 1 to `largest`."""
    found = items(value, what, most)
    if len(found) < least:
        raise wrong(what, value, f"a list of at least {least}")
    return tuple(integer(each, what, 1, largest) for each in found)


def integer(value: Any, what: str, low: int, high: int) -> int:
    if type(value) is not int or not low <= value <= high:
        raise wrong(what, value, f"a whole number from {low} to {high}")
    return value


def boolean(value: Any, what: str) -> bool:
    if type(value) is not bool:
        raise wrong(what, value, "true or false")
    return value


def number(value: Any, what: str) -> float:
    if type(value) not in (int, float) or not abs(value) <= _LARGEST_FLOAT:
        raise wrong(what, value, "a number that float32 can hold")
    return float(value)


def share(value: Any, what: str) -> float:
    """A number from 0 to 1."""
    if not 0 <= number(value, what) <= 1:
        raise wrong(what, value, "a number from 0 to 1")
    return float(value)


def single(value: Any, what: str) -> float:
    """The float32 that is nearest to a number."""
    return float(np.float32(number(value, what)))


def text(value: Any, what: str) -> str:
    if type(value) is not str or len(value) > _LONGEST or not value.isprintable():
        raise wrong(what, value, f"at most {_LONGEST} printable characters")
    return value


def digest(value: Any, what: str) -> str:
    if type(value) is not str or not re.fullmatch("[0-9a-f]{64}", value):
        raise wrong(what, value, "64 hexadecimal digits")
    return value


def one_of(value: Any, what: str, names: tuple[str, ...]) -> Any:
    if type(value) is not str or value not in names:
        raise wrong(what, value, f"one of {', '.join(names)}")
    return value


def wrong(what: str, value: Any, expected: str) -> ArtefactError:
    return ArtefactError(f"{what} is {shown(value)}; expected {expected}")


def plain(value: Any) -> Any:
    """Returns Python's own values for those of NumPy and JAX, and tuples for lists."""
    value = _own(value)
    if isinstance(value, list | tuple):
        return tuple(map(_own, value))
    if isinstance(value, Mapping):
        return {_own(name): _own(each) for name, each in value.items()}
    return value


def _own(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def shown(value: Any) -> str:
    """Returns a value in at most 100 printable characters."""
    text = reprlib.repr(value)
    return text if len(text) <= 100 else text[:97] + "..."
