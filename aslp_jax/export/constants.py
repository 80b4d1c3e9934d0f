"""Constants of a traced network: arrays that no input reaches, computed at once.

Floats are float32 whatever the dtype of the network, so that an export does not round
the weights of a network that computes in bfloat16.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax.export.operations import Origin

__all__ = ["Constant", "compute", "for_one_example", "shrink"]

_SAME_ORDER = frozenset(
    {"convert_element_type", "copy", "copy_p", "optimization_barrier", "reshape"}
    | {"expand_dims", "squeeze", "stop_gradient"}
)
"""Primitives that keep the numbers and their order."""

_MOVES = _SAME_ORDER | {"broadcast_in_dim", "rev", "slice", "transpose"}
"""Primitives that move numbers and change none."""

_SCALES = frozenset({"mul", "div"})
"""Primitives that leave each zero of their first operand where it is."""

_WITH_JAXPR = frozenset({"cond", "scan", "while"})
"""Primitives whose parameters fix the dtypes of their operands."""


@dataclasses.dataclass(frozen=True)
class Constant:
    """An array that no input reaches.

    Attributes:
      array: the array; floats are float32.
      name: path of the weight that has these numbers in this order; empty if none has.
      origin: weight whose numbers these are, in any order; None if there is none.
    """

    array: Any
    name: str = ""
    origin: Origin | None = None

    @classmethod
    def of(cls, array: Any) -> "Constant":
        """Returns a constant without a name."""
        return cls(_to_float32(array))

    @classmethod
    def weight(cls, name: str, array: Any) -> "Constant":
        """Returns the constant of a weight."""
        return cls(_to_float32(array), name, Origin(name, lambda weight: weight))

    def moved(self, move: Callable[[Any], Any]) -> "Constant":
        """Returns the constant after a function that only moves numbers."""
        origin = None if self.origin is None else self.origin.then(move)
        return Constant(move(np.asarray(self.array)), origin=origin)


def compute(equation: Any, operands: Sequence[Constant]) -> list[Constant]:
    """Computes an equation that no input reaches.

    Args:
      equation: equation of a jaxpr.
      operands: its operands.

    Returns:
      Its results.
    """
    primitive, options = equation.primitive, equation.params
    arrays = [each.array for each in operands]
    if primitive.name in _WITH_JAXPR:
        arrays = [
            jnp.asarray(array, variable.aval.dtype)
            for array, variable in zip(arrays, equation.invars, strict=True)
        ]
    else:
        options = {name: _widened(value) for name, value in options.items()}

    def bind(first: Any, *others: Any) -> Any:
        return primitive.bind(first, *others, **options)

    with jax.ensure_compile_time_eval():
        results = bind(*arrays) if arrays else primitive.bind(**options)
    if primitive.multiple_results:
        return [Constant.of(each) for each in results]
    name, origin = "", None
    first = operands[0] if operands else None
    if first is not None and first.origin is not None:
        if primitive.name in _MOVES and len(operands) == 1:
            origin = first.origin.then(bind)
            name = first.name if primitive.name in _SAME_ORDER else ""
        elif primitive.name in _SCALES and np.shape(results) == np.shape(arrays[0]):
            origin = first.origin
    return [Constant(_to_float32(results), name, origin)]


def for_one_example(constant: Constant, rank: int, batch: int) -> np.ndarray | None:
    """Returns a constant operand without the axis of the batch.

    Args:
      constant: the operand.
      rank: number of axes of the result, with the batch.
      batch: axis of the batch.

    Returns:
      The array; None if it differs from example to example.
    """
    array = np.asarray(constant.array)
    if array.ndim < rank:
        return array
    first = array.take(0, batch)
    return first if (array == np.expand_dims(first, batch)).all() else None


def shrink(array: np.ndarray, like: Sequence[int]) -> np.ndarray:
    """Returns a constant with size 1 along each axis where its numbers are the same.

    Args:
      array: constant of one example.
      like: shape that the other operand has; only axes where both have one size shrink.
    """
    if array.ndim != len(like):
        return array
    for axis, size in enumerate(like):
        if array.shape[axis] == size > 1:
            first = array.take([0], axis)
            if (array == first).all():
                array = first
    return array


def _to_float32(array: Any) -> Any:
    """Returns an array whose floats are float32."""
    kind = getattr(array, "dtype", None)
    if kind is None:
        array = np.asarray(array)
        kind = array.dtype
    if jnp.issubdtype(kind, jnp.floating) and kind != jnp.float32:
        return np.asarray(array, np.float32)
    return array


def _widened(value: Any) -> Any:
    """Returns a parameter of an equation, float32 for any other floating dtype."""
    if isinstance(value, np.dtype | type) and jnp.issubdtype(value, jnp.floating):
        return np.dtype(np.float32)
    return value
