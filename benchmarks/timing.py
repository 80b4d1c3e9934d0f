"""Timing of all benchmarks: interleaved sides, medians, and bounds on ratios."""

import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax

Side = Callable[[], Any]
"""Function that does the work of one side once; its result is waited for."""


def interleave(sides: Mapping[str, Side], repeats: int) -> dict[str, float]:
    """Returns each side's median time, the sides called alternately.

    A machine that slows down then slows all sides down.

    Args:
      sides: sides by name. The first call of each side compiles and does not count.
      repeats: counted calls of each side, at least 1.

    Returns:
      Median seconds of a call, by name.
    """
    seconds = interleave_all(sides, repeats)
    return {name: statistics.median(each) for name, each in seconds.items()}


def interleave_all(sides: Mapping[str, Side], repeats: int) -> dict[str, list[float]]:
    """Returns the seconds of every counted call; arguments as in `interleave`."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, side in sides.items():
            began = time.perf_counter()
            jax.block_until_ready(side())
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


class Claim(NamedTuple):
    """Measured number and its bound.

    Attributes:
      text: description of the measured quantity.
      value: the number.
      bound: upper bound, or lower bound if `least`.
      least: True for a lower bound. Default: False.
      unit: unit of number and bound. Default: "times".
    """

    text: str
    value: float
    bound: float
    least: bool = False
    unit: str = "times"

    @property
    def met(self) -> bool:
        """True if the number is within its bound."""
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
    """Returns the device, and the versions of Python and JAX, as text."""
    device = jax.devices()[0]
    cores = len(os.sched_getaffinity(0))
    kind = f"{cores} cores" if device.platform == "cpu" else device.device_kind
    return f"{kind}, Python {platform.python_version()}, jax {jax.__version__}"
