"""JSON of files that anything may have written: bounded and checked before use.

Length, depth and integers are bounded, and the value must be of the expected type. All
that is wrong with the content of a file is one error, `Unreadable`.
"""

import json
import math
import os
import re
import stat
import types
import typing
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["DEEPEST", "LONGEST", "Unreadable", "matches", "parse", "read", "read_bytes"]

LONGEST = 1 << 24
"""Largest size of a JSON text in bytes."""

DEEPEST = 64
"""Largest number of lists and objects within one another."""

_MOST_DIGITS = 20
"""Digits of the largest integer of 64 bits."""

_BRACKETS = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"?|[\[\]{}]', re.DOTALL)
# A string is skipped; without its end it is matched, too, so that the time is linear.


class Unreadable(ValueError):
    """Error of a file's content; the message is a clause that continues its name."""


def read(path: Path, kind: Any = dict[str, Any], *, strict: bool = False) -> Any:
    """Reads a file of one JSON value.

    Args:
      path: path of the file.
      kind: type that the value must have, as `matches` takes it.
      strict: as in `parse`.

    Returns:
      The value.

    Raises:
      OSError: the file cannot be read.
      Unreadable: the file is larger than `LONGEST`, or `parse` refuses its content.
    """
    return parse(read_bytes(path, LONGEST), kind, strict=strict)


def read_bytes(path: Path, longest: int) -> bytes:
    """Reads a regular file of a bounded size.

    Args:
      path: path of the file.
      longest: largest size of the file in bytes.

    Raises:
      OSError: the file cannot be read.
      Unreadable: the file is larger, or is no regular file.
    """
    with open(path, "rb", opener=_open_without_waiting) as file:
        status = os.fstat(file.fileno())
        if not stat.S_ISREG(status.st_mode):
            raise Unreadable("is no regular file")
        content = file.read(longest + 1) if status.st_size <= longest else None
    if content is None or len(content) > longest:
        raise Unreadable(f"has more than {longest:,} bytes")
    return content


def _open_without_waiting(path: str, flags: int) -> int:
    """Opens a file; a named pipe is opened without waiting for its writer."""
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))


def parse(
    text: bytes | str, kind: Any = dict[str, Any], *, strict: bool = False
) -> Any:
    """Returns the value of a JSON text.

    Args:
      text: the text; bytes are UTF-8.
      kind: type that the value must have, as `matches` takes it.
      strict: True to refuse a key that is there twice, NaN and infinite numbers.

    Raises:
      Unreadable: the text is no JSON, is nested deeper than `DEEPEST`, holds an integer
        of more than 20 digits, or is of another type.
    """
    try:
        decoded = text.decode() if isinstance(text, bytes) else text
        _check_depth(decoded)
        value = json.loads(
            decoded,
            parse_int=_integer,
            parse_float=_finite if strict else None,
            parse_constant=_refuse_constant if strict else None,
            object_pairs_hook=_distinct if strict else None,
        )
    except Unreadable:
        raise
    except ValueError as error:
        raise Unreadable(f"cannot be parsed ({error})") from None
    if not matches(value, kind):
        raise Unreadable(f"is no JSON {_name(kind)}")
    return value


def matches(value: Any, kind: Any) -> bool:
    """Returns True if a JSON value is of a type.

    Args:
      value: JSON value.
      kind: `Any`, `bool`, `int`, `float` (an integer will do), `str`, `None`, a list or
        dict of such types, or a union.
    """
    if kind is Any:
        return True
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if origin in (types.UnionType, typing.Union):
        return any(matches(value, each) for each in inner)
    if origin is dict:
        return type(value) is dict and all(
            matches(each, inner[1]) for each in value.values()
        )
    if origin is list:
        return type(value) is list and all(matches(each, inner[0]) for each in value)
    if kind is float:
        return type(value) in (int, float)
    return type(value) is (types.NoneType if kind is None else kind)


def _check_depth(text: str) -> None:
    """Checks the depth before the parser, whose own bound is that of the stack."""
    depth = 0
    for found in _BRACKETS.finditer(text):
        bracket = found[0]
        if bracket in "[{":
            depth += 1
            if depth > DEEPEST:
                raise Unreadable(f"cannot be parsed (deeper than {DEEPEST} levels)")
        elif bracket in "]}":
            depth -= 1


def _integer(digits: str) -> int:
    if len(digits.lstrip("-")) > _MOST_DIGITS:
        raise Unreadable(f"cannot be parsed (an integer of {len(digits)} digits)")
    return int(digits)


def _finite(digits: str) -> float:
    number = float(digits)
    if math.isinf(number):
        raise Unreadable(f"holds {digits:.20}, which no float can hold")
    return number


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    values = dict(pairs)
    if len(values) != len(pairs):
        raise Unreadable("holds the same key twice")
    return values


def _refuse_constant(constant: str) -> NoReturn:
    raise Unreadable(f"holds {constant}, which is no number")


def _name(kind: Any) -> str:
    return "object" if kind == dict[str, Any] else f"of the type {kind}"
