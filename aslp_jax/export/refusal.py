"""Refusals of a network, and of equations with their line of source."""

import itertools
from pathlib import Path
from typing import Any, NoReturn

__all__ = ["Refusal", "TooLargeError", "UnsupportedError", "line_of", "refuse"]

_PACKAGE = Path(__file__).parents[1]
"""Folder of this package."""

_INSTALLED = frozenset({"dist-packages", "site-packages"})
"""Names of the folders that hold installed packages."""


_TRACE = str(Path(__file__).with_name("trace.py"))
"""File whose function `trace` runs the function of a person."""


class Refusal(Exception):
    """Equation that has no place in a graph.

    Attributes:
      text: primitive, and what about it is not supported.
      line: file and line of the source; empty if only JAX's own are known.
    """

    def __init__(self, text: str, line: str) -> None:
        super().__init__(text)
        self.text, self.line = text, line


class TooLargeError(ValueError):
    """A network needs more memory than there is."""

    page = "docs/export.md#on-microcontrollers"


class UnsupportedError(ValueError):
    """A network computes something that has no place in a graph."""

    page = "docs/export.md#what-a-network-may-compute"


def refuse(equation: Any, where: str = "") -> NoReturn:
    """Refuses an equation."""
    text = f"{equation.primitive.name} {where}".rstrip()
    raise Refusal(text, line_of(equation))


def line_of(equation: Any) -> str:
    """Returns file and line of the source of an equation, outside of JAX and Flax.

    A line of one's own goes before a line of an installed package that it calls.
    """
    # JAX says this nowhere else (jax 0.10 to 0.12).
    from jax._src import source_info_util

    found = source_info_util.user_frames(equation.source_info.traceback)
    # Frames further out than `trace` have called it.
    inner = itertools.takewhile(lambda frame: frame.file_name != _TRACE, found)
    frames = sorted(inner, key=lambda frame: _is_installed(frame.file_name))
    return next((f"{each.file_name}:{each.start_line}" for each in frames), "")


def _is_installed(path: str) -> bool:
    """Returns True for a file of this package or of another that is installed."""
    file = Path(path)
    return file.is_relative_to(_PACKAGE) or not _INSTALLED.isdisjoint(file.parts)
