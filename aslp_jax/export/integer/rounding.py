"""Rounding of real numbers, and of exact sums, to the integers of a value."""

import dataclasses
import math

import numpy as np

from aslp_jax.export.integer.operations import Number, Requantization, limits
from aslp_jax.export.operations import Binary
from aslp_jax.export.refusal import UnsupportedError

__all__ = ["RealStep", "requantization", "round_to"]

_PRODUCTS = 2**62
"""Bound on products with the offset."""


@dataclasses.dataclass(frozen=True, eq=False)
class RealStep:
    """Real factor and addend of an operation with exact sums, and its limits.

    Attributes:
      factor: float64 `[channels]` or `[]`, multiplies the sums.
      addend: float64 `[channels]` or `[]`, added after the factor.
      low: least result.
      high: largest result.
    """

    factor: np.ndarray
    addend: np.ndarray
    low: float = -math.inf
    high: float = math.inf

    @property
    def is_single(self) -> bool:
        """True if all channels have one factor and one addend."""
        return self.factor.size == self.addend.size == 1

    def then(self, operation: Binary, channels: int) -> "RealStep | None":
        """Returns this step with a function of its result, or None."""
        constant = _of_channels(operation, channels)
        if constant is None:
            return None
        function, first = operation.function, operation.constant_first
        if function in ("max", "min"):
            if constant.size != 1:
                return None
            limit = float(constant.reshape(-1)[0])
            if function == "max":
                low, high = max(self.low, limit), max(self.high, limit)
            else:
                low, high = min(self.low, limit), min(self.high, limit)
            return dataclasses.replace(self, low=low, high=high)
        limited = math.isfinite(self.low) or math.isfinite(self.high)
        if limited and constant.size != 1:
            return None
        match function, first:
            case "mul", _:
                return self._affine(constant, np.array(0.0))
            case "div", False:
                with np.errstate(divide="ignore"):
                    return self._affine(1 / constant, np.array(0.0))
            case "add", _:
                return self._affine(np.array(1.0), constant)
            case "sub", False:
                return self._affine(np.array(1.0), -constant)
            case "sub", True:
                return self._affine(np.array(-1.0), constant)
        return None

    def _affine(self, factor: np.ndarray, addend: np.ndarray) -> "RealStep | None":
        """Returns this step with a factor and an addend after it."""
        if not np.isfinite(factor).all() or not factor.any():
            return None
        limits = [self.low, self.high]
        if factor.size == addend.size == 1:
            limits = sorted(float(factor * each + addend) for each in limits)
        return RealStep(self.factor * factor, self.addend * factor + addend, *limits)


def round_to(reals: float | np.ndarray, number: Number) -> np.ndarray:
    """Returns the nearest integers of a kind, int16."""
    low, high = limits(number.kind)
    scaled = np.nan_to_num(np.asarray(reals, np.float64) / number.scale)
    return np.clip(np.floor(scaled + 0.5), low, high).astype(np.int16)


def requantization(
    real: RealStep, number: Number, bound: int, *, joined: bool = True
) -> Requantization:
    """Returns the fixed-point form of a real step, as precise as 64 bits allow.

    Args:
      real: factors of the sums, addends and limits, as real numbers.
      number: integers of the result.
      bound: largest absolute sum; of an `IntegerSum` that of all operands together.
      joined: True if factors that are equal may become one.
    """
    factors = np.atleast_1d(real.factor) / number.scale
    addends = np.atleast_1d(real.addend) / number.scale
    largest = float(np.abs(factors).max()) or 1.0
    # The largest multiplier has 31 bits.
    shift = min(31 - math.frexp(largest)[1], 62)
    least, most = limits(number.kind)
    # An addend far outside gives the limit, whatever the sum is.
    far = bound * largest + 2.0 * (most - least) + 2
    addends = np.clip(addends, -far, far)
    while True:
        multipliers = np.rint(np.ldexp(factors, shift))
        room = bound * float(np.abs(multipliers).max()) + float(
            np.ldexp(np.abs(addends).max() + 1, shift)
        )
        if room < _PRODUCTS and np.abs(multipliers).max() < 2**31:
            break
        shift -= 1
    if shift < 1:
        raise UnsupportedError(
            f"integers: a factor of {largest:g} is too large for fixed point"
        )
    offsets = np.rint(np.ldexp(addends, shift)) + 2.0 ** (shift - 1)
    low, high = (
        int(min(max(_limit(each, number.scale), least), most))
        for each in (real.low, real.high)
    )
    return Requantization(
        _shortest(multipliers.astype(np.int32)) if joined else multipliers.astype("i4"),
        _shortest(offsets.astype(np.int64)),
        shift,
        low,
        high,
    )


def _limit(real: float, scale: float) -> float:
    """Returns a limit in units of the result, rounded half up."""
    return math.floor(real / scale + 0.5) if math.isfinite(real) else real


def _shortest(numbers: np.ndarray) -> np.ndarray:
    """Returns one number for many that are equal."""
    return numbers[:1] if (numbers == numbers[0]).all() else numbers


def _of_channels(operation: Binary, channels: int) -> np.ndarray | None:
    """Returns a constant operand as float64 `[]` or `[channels]`, or None."""
    if operation.constant is None:
        return None
    constant = np.asarray(operation.constant, np.float64)
    if constant.size == 1:
        return constant.reshape(())
    if constant.shape[-1] == constant.size == channels:
        return constant.reshape(channels)
    return None
