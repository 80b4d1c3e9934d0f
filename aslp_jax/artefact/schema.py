"""Checks of single JSON values.

Each check takes a value of any kind and its label, the path of the value in messages.
It returns the value in the form that the format uses, or raises ArtefactError with the
label, the value and the expected form.
"""

import re
import reprlib
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np

from aslp_jax.artefact.container import ArtefactError

LARGEST_SIZE = 1 << 16
"""Largest size of an axis of an image, and of a layer of a network."""

_LONGEST_TEXT = 200
_LONGEST_VALUE = 100
_LARGEST_FLOAT = float(np.finfo(np.float32).max)


def check_object(value: Any, label: str, keys: Iterable[str]) -> Mapping[str, Any]:
    """Checks for an object with exactly these keys."""
    keys = set(keys)
    expected = f"an object of {', '.join(sorted(keys))}"
    if type(value) is not dict:
        raise invalid(label, value, expected)
    if set(value) != keys:
        raise ArtefactError(
            f"{label} holds {shorten(sorted(value))}; expected {expected}"
        )
    return value


def check_entries(
    value: Any, label: str, most: int, check: Callable[[Any, str], Any]
) -> dict[str, Any]:
    """Checks for an object of at most `most` entries with any names.

    Args:
      value: value of any kind.
      label: path of the value in messages.
      most: largest number of entries.
      check: check of the value of an entry, given its label.
    """
    if type(value) is not dict or len(value) > most:
        raise invalid(label, value, f"an object of at most {most} entries")
    return {
        check_text(name, f"{label} key"): check(each, f"{label} {shorten(name)}")
        for name, each in value.items()
    }


def check_list(value: Any, label: str, most: int) -> list[Any]:
    """Checks for a list or tuple of at most `most` entries."""
    if type(value) not in (list, tuple) or len(value) > most:
        raise invalid(label, value, f"a list of at most {most}")
    return value


def check_sizes(
    value: Any, label: str, least: int, most: int, largest: int = LARGEST_SIZE
) -> tuple[int, ...]:
    """Checks for a list of `least` to `most` integers from 1 to `largest`."""
    entries = check_list(value, label, most)
    if len(entries) < least:
        raise invalid(label, value, f"a list of at least {least}")
    return tuple(check_integer(each, label, 1, largest) for each in entries)


def check_integer(value: Any, label: str, low: int, high: int) -> int:
    """Checks for an integer from `low` to `high`."""
    if type(value) is not int or not low <= value <= high:
        raise invalid(label, value, f"an integer from {low} to {high}")
    return value


def check_boolean(value: Any, label: str) -> bool:
    """Checks for true or false."""
    if type(value) is not bool:
        raise invalid(label, value, "true or false")
    return value


def check_number(value: Any, label: str) -> float:
    """Checks for a number within the range of float32."""
    if type(value) not in (int, float) or not abs(value) <= _LARGEST_FLOAT:
        raise invalid(label, value, "a number that float32 can hold")
    return float(value)


def check_fraction(value: Any, label: str) -> float:
    """Checks for a number from 0 to 1."""
    if not 0 <= check_number(value, label) <= 1:
        raise invalid(label, value, "a number from 0 to 1")
    return float(value)


def round_to_float32(value: Any, label: str) -> float:
    """Checks for a number and returns the nearest float32."""
    return float(np.float32(check_number(value, label)))


def check_text(value: Any, label: str) -> str:
    """Checks for a short text of printable characters."""
    if type(value) is not str or len(value) > _LONGEST_TEXT or not value.isprintable():
        raise invalid(label, value, f"at most {_LONGEST_TEXT} printable characters")
    return value


def check_sha256(value: Any, label: str) -> str:
    """Checks for a sha256 of 64 hexadecimal digits."""
    if type(value) is not str or not re.fullmatch("[0-9a-f]{64}", value):
        raise invalid(label, value, "64 hexadecimal digits")
    return value


def check_choice(value: Any, label: str, names: tuple[str, ...]) -> Any:
    """Checks for one of several names."""
    if type(value) is not str or value not in names:
        raise invalid(label, value, f"one of {', '.join(names)}")
    return value


def invalid(label: str, value: Any, expected: str) -> ArtefactError:
    """Returns the error that names a value and its expected form."""
    return ArtefactError(f"{label} is {shorten(value)}; expected {expected}")


def to_python(value: Any) -> Any:
    """Converts values of NumPy and JAX to Python's own, and lists to tuples."""
    value = _to_python_numbers(value)
    if isinstance(value, list | tuple):
        return tuple(map(_to_python_numbers, value))
    if isinstance(value, Mapping):
        return {
            _to_python_numbers(name): _to_python_numbers(each)
            for name, each in value.items()
        }
    return value


def _to_python_numbers(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def shorten(value: Any) -> str:
    """Returns the representation of a value in at most 100 printable characters."""
    text = reprlib.repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[: _LONGEST_VALUE - 3] + "..."
