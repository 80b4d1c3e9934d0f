"""Ranges of the values of a network, measured on images."""

import functools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple, TypeAlias

import jax
import numpy as np

from aslp_jax.export.operations import Graph, run_all

__all__ = ["CLIPPING", "CalibrationError", "Clipping", "Range", "calibrate"]

Clipping: TypeAlias = Literal["mse", "percentile", "max"]
"""Rule for the largest number that is kept."""

CLIPPING: tuple[Clipping, ...] = ("mse", "percentile", "max")
"""Rules for the largest number that is kept, the default first."""

_BATCH = 64
"""Number of images computed at once."""

_KEPT = 1 << 16
"""Number of results of each value that the rules look at."""

_PERCENTILE = 99.99
"""Percentage of the numbers that `"percentile"` keeps."""

_FRACTIONS = np.geomspace(0.05, 1, 61)
"""Parts of the largest number that `"mse"` tries."""


class CalibrationError(ValueError):
    """Images from which no range can be measured."""


class Range(NamedTuple):
    """Numbers of a value.

    Attributes:
      low: smallest number that was seen, 0 or less.
      high: largest number that was seen, 0 or more.
      kept: largest absolute number that 8 bits keep.
    """

    low: float
    high: float
    kept: float

    @property
    def size(self) -> float:
        """Largest absolute number that was seen."""
        return max(-self.low, self.high)


def calibrate(
    graph: Graph, inputs: np.ndarray, *, clipping: Clipping = "mse"
) -> tuple[Range, ...]:
    """Measures the range of each value of a network.

    8 bits keep the largest number, or less, so that their steps are smaller:

    - `"mse"`: what makes the mean squared error smallest.
    - `"percentile"`: 99.99 % of the numbers.
    - `"max"`: all numbers that were seen.

    Args:
      graph: the network.
      inputs: float32 `[count, *input_shape]`, such as standardised training images.
      clipping: rule for the largest number that 8 bits keep.

    Returns:
      Range of each value, the input first.

    Raises:
      CalibrationError: there are no inputs, they have another shape, or a value is not
        finite.
      ValueError: the rule is unknown.
    """
    if clipping not in CLIPPING:
        raise ValueError(
            f"calibrate: clipping must be one of {CLIPPING}, got {clipping!r}"
        )
    if inputs.ndim == 0 or not len(inputs):
        raise CalibrationError("calibrate: there are no images to calibrate on")
    if inputs.shape[1:] != graph.input_shape:
        raise CalibrationError(
            f"calibrate: the images are {list(inputs.shape[1:])}, the network takes "
            f"{list(graph.input_shape)}"
        )
    seen = [_Seen(math.prod(shape) * len(inputs)) for shape in graph.shapes]
    compute_all = jax.jit(functools.partial(run_all, graph))
    for start in range(0, len(inputs), _BATCH):
        # What is too large becomes infinite, and is refused as such.
        with np.errstate(over="ignore"):
            batch = np.asarray(inputs[start : start + _BATCH], np.float32)
        values: Sequence[jax.Array] = compute_all(batch)
        for each, value in zip(seen, values, strict=True):
            each.add(np.asarray(value))
    found = []
    for number, each in enumerate(seen):
        if not (math.isfinite(each.low) and math.isfinite(each.high)):
            what = "the input"
            if number:
                node = graph.nodes[number - 1]
                kind = type(node.operation).__name__
                what = f"operation {number}, {kind} to {list(node.shape)},"
            raise CalibrationError(
                f"calibrate: {what} is not finite on the calibration images"
            )
        found.append(each.range(clipping))
    return tuple(found)


class _Seen:
    """Numbers of one value so far: the extremes, and some of them at equal distances.

    Attributes:
      low: smallest number.
      high: largest number.
    """

    def __init__(self, total: int) -> None:
        # An odd distance meets every position of a value with an even size.
        self._distance = (total // _KEPT) | 1
        self._next, self._parts = 0, list[np.ndarray]()
        self.low, self.high = 0.0, 0.0

    def add(self, numbers: np.ndarray) -> None:
        """Adds numbers of any shape."""
        flat = numbers.ravel()
        if flat.size:
            # NaN wins, as it must be seen.
            self.low = float(np.minimum(flat.min(), self.low))
            self.high = float(np.maximum(flat.max(), self.high))
        # A view would keep all numbers in memory.
        self._parts.append(flat[self._next :: self._distance].copy())
        self._next = (self._next - flat.size) % self._distance

    def range(self, clipping: Clipping) -> Range:
        """Returns the range, and what a rule keeps of it."""
        size = max(-self.low, self.high)
        if clipping == "max" or size == 0:
            return Range(self.low, self.high, size)
        numbers = np.concatenate(self._parts)
        if clipping == "percentile":
            kept = float(np.percentile(np.abs(numbers), _PERCENTILE)) or size
        else:
            steps = 255 if self.low >= 0 else 127
            tried = _FRACTIONS * size
            errors = [_error(numbers, each / steps, steps) for each in tried]
            kept = float(tried[int(np.argmin(errors))])
        return Range(self.low, self.high, kept)


def _error(numbers: np.ndarray, scale: float, steps: int) -> float:
    """Returns the mean squared error of numbers that are rounded and clipped."""
    rounded = np.clip(np.rint(numbers / scale), -steps, steps) * scale
    return float(np.square(rounded - numbers, dtype=np.float64).mean())
