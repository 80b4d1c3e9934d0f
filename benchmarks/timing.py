"""How everything here is timed: sides that take turns, medians, a bound on a ratio."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Side = Callable[[], Any]
"""Does its work once; what it returns is waited for."""


def interleave(sides: Mapping[str, Side], repeats: int) -> dict[str, float]:
    """Times each side in turn, so that a machine that slows down slows all of them.

    Args:
      sides: by name; the first turn of each, which compiles, is not counted.
      repeats: turns of each that count, at least 1.

    Returns:
      Median seconds of a turn by name.
    """
    seconds = interleave_all(sides, repeats)
    return {name: statistics.median(each) for name, each in seconds.items()}


def interleave_all(sides: Mapping[str, Side], repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of every turn that counts; arguments as `take_turns`."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, turn in sides.items():
            began = time.perf_counter()
            jax.block_until_ready(turn())
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


class Claim(NamedTuple):
    """A measured number beside what it must be.

    Attributes:
      text: what was measured, in words.
      value: what it came to.
      bound: what it must not exceed, or fall below.
      least: whether the bound is from below.
      unit: of both.
    """

    text: str
    value: float
    bound: float
    least: bool = False
    unit: str = "times"

    @property
    def met(self) -> bool:
        """Whether the number is within its bound."""
        if self.least:
            return self.value >= self.bound
        return self.value <= self.bound

    def __str__(self) -> str:
        side = "at least" if self.least else "at most"
        verdict = "met" if self.met else "NOT MET"
        return (
            f"{self.text}: {self.value:.2f} {self.unit} "
            f"({side} {self.bound:g}: {verdict})"
        )


def where() -> str:
    """Returns what this runs on, in words."""
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0))
    kind = f"{cores} cores" if device.platform == "cpu" else device.device_kind
    return f"{kind}, Python {platform.python_version()}, jax {jax.__version__}"
