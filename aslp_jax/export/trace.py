"""Traces a network: from a function of weights and inputs to a graph.

JAX traces the function on a batch. A value that does not depend on the inputs is
computed at once and is a constant of the graph. Every other equation of the jaxpr
becomes one operation. Nothing here knows a framework or a network. The file is long
because it holds a rule for each primitive.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import Literal

from aslp_jax.export.operations import (
    BINARY,
    UNARY,
    Binary,
    Broadcast,
    Concatenate,
    Conv,
    Dense,
    Graph,
    MatMul,
    Node,
    Operation,
    Pad,
    Reduce,
    Reshape,
    Select,
    Shape,
    Slice,
    Transpose,
    Unary,
    Window,
)

__all__ = ["SUPPORTED", "UnsupportedError", "trace"]

_BATCH = 5
"""Examples in the batch that is traced; the first axis of every value has this size."""

_CALLS = {
    "checkpoint": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "remat2": "jaxpr",
}
"""Primitives that call another jaxpr, and the parameter that holds it."""

_IDENTITIES = {"copy", "copy_p", "optimization_barrier", "stop_gradient"}


class _Refusal(Exception):
    """Equation that has no place in a graph.

    Attributes:
      text: primitive, and what about it is not supported.
      line: file and line of the source; empty if only JAX's own are known.
    """

    def __init__(self, text: str, line: str) -> None:
        super().__init__(text)
        self.text, self.line = text, line


class UnsupportedError(ValueError):
    """A network computes something that has no place in a graph."""


@dataclasses.dataclass(frozen=True)
class _Value:
    """A number of a value of the graph, and its shape without the batch."""

    index: int
    shape: Shape


@dataclasses.dataclass(frozen=True)
class _Constant:
    """An array that no input reaches, and the weight that it is, if it is one."""

    array: Any
    name: str = ""


def trace(
    fn: Callable[[Any, jax.Array], Any],
    weights: Any,
    example: jax.Array | jax.ShapeDtypeStruct,
) -> Graph:
    """Traces a deterministic network.

    Args:
      fn: function from weights and a batch of inputs to a batch of outputs, such as
        `lambda variables, x: net.apply(variables, x, train=False)`.
      weights: pytree of arrays, the first argument of `fn`.
      example: one input without the batch, `[*shape]`; only shape and dtype matter.

    Returns:
      The graph. A kernel is named by the path of its array in `weights`.

    Raises:
      UnsupportedError: `fn` computes something that has no place in a graph. The
        message names the primitive and the line of source that it comes from.
    """
    batch = jax.ShapeDtypeStruct((_BATCH, *example.shape), example.dtype)
    closed, shape = jax.make_jaxpr(fn, return_shape=True)(weights, batch)
    leaves = jax.tree_util.tree_leaves_with_path(weights)
    arguments: list[_Value | _Constant] = [
        _Constant(leaf, jax.tree_util.keystr(path, simple=True, separator="/"))
        for path, leaf in leaves
    ]
    arguments.append(_Value(0, tuple(example.shape)))
    outputs = jax.tree.leaves(shape)
    if len(outputs) != 1:
        raise UnsupportedError(
            f"trace: the function returns {len(outputs)} arrays; expected one, "
            "[batch, ...]"
        )
    tracer = _Tracer([])
    try:
        (output,) = tracer.run(closed.jaxpr, closed.consts, arguments)
    except _Refusal as refused:
        raise UnsupportedError(
            f"trace: {refused.text} is not supported ({refused.line}); supported "
            f"primitives are {', '.join(SUPPORTED)}"
        ) from None
    if not isinstance(output, _Value):
        raise UnsupportedError("trace: the outputs do not depend on the inputs")
    if output.index != len(tracer.nodes):
        tracer.add(Reshape(), [output], output.shape)
    return Graph(tuple(example.shape), tuple(tracer.nodes))


@dataclasses.dataclass(frozen=True)
class _Tracer:
    """The nodes so far, and the rules that add one for each equation."""

    nodes: list[Node]

    def add(
        self, operation: Operation, inputs: Sequence[_Value], shape: Sequence[int]
    ) -> _Value:
        """Adds a node and returns its result."""
        shape = tuple(shape)
        self.nodes.append(Node(operation, tuple(v.index for v in inputs), shape))
        return _Value(len(self.nodes), shape)

    def run(
        self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]
    ) -> list[_Value | _Constant]:
        """Adds the equations of a jaxpr and returns its outputs."""
        known: dict[Any, _Value | _Constant] = {}

        def read(atom: Any) -> _Value | _Constant:
            return _Constant(atom.val) if isinstance(atom, Literal) else known[atom]

        known.update(zip(jaxpr.constvars, map(_Constant, constants), strict=True))
        known.update(zip(jaxpr.invars, arguments, strict=True))
        for equation in jaxpr.eqns:
            operands = [read(atom) for atom in equation.invars]
            results = self._equation(equation, operands)
            known.update(zip(equation.outvars, results, strict=True))
        return [read(atom) for atom in jaxpr.outvars]

    def _equation(self, equation: Any, operands: list[Any]) -> Sequence[Any]:
        name, options = equation.primitive.name, equation.params
        if name in _CALLS:
            called = options[_CALLS[name]]
            constants = getattr(called, "consts", ())
            try:
                return self.run(getattr(called, "jaxpr", called), constants, operands)
            except _Refusal as refused:
                # A function of JAX has no line of one's own; the call of it has.
                raise _Refusal(
                    refused.text, refused.line or _line_of(equation)
                ) from None
        values = [each for each in operands if isinstance(each, _Value)]
        if not values:
            return _compute(equation, operands)
        shape = tuple(equation.outvars[0].aval.shape)
        if shape[:1] != (_BATCH,):
            _refuse(equation, "across the examples of a batch")
        if name in _IDENTITIES:
            return [values[0]]
        rule = _RULES.get(name)
        if rule is None:
            _refuse(equation)
        result = rule(self, equation, operands, shape[1:])
        return result if isinstance(result, list) else [result]

    # Rules: from an equation, its operands and the shape of its result to that result.

    def convert(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        kind = equation.params["new_dtype"]
        if not (jnp.issubdtype(kind, jnp.floating) or kind == jnp.bool_):
            _refuse(equation, f"to {kind}")
        return operands[0]

    def unary(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        return self.add(Unary(equation.primitive.name), operands, shape)

    def square(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        return self.add(Binary("mul"), operands * 2, shape)

    def integer_pow(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        power = equation.params["y"]
        if not 1 <= power <= 8:
            _refuse(equation, f"with the power {power}")
        result = operands[0]
        for _ in range(power - 1):
            result = self.add(Binary("mul"), [result, operands[0]], shape)
        return result

    def binary(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        first, second = operands
        name = equation.primitive.name
        if isinstance(first, _Value) and isinstance(second, _Value):
            return self.add(Binary(name), operands, shape)
        constant = second if isinstance(first, _Value) else first
        value = first if isinstance(first, _Value) else second
        array = _of_one_example(equation, constant, len(shape))
        operation = Binary(name, array, constant_first=constant is first)
        return self.add(operation, [value], shape)

    def select(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        which = operands[0]
        if isinstance(which, _Constant):
            chosen = np.asarray(which.array)
            if (chosen == chosen.flat[0]).all():
                result = operands[1 + int(chosen.flat[0])]
                if isinstance(result, _Value):
                    return result
        constants = tuple(
            None
            if isinstance(each, _Value)
            else _of_one_example(equation, each, len(shape))
            for each in operands
        )
        values = [each for each in operands if isinstance(each, _Value)]
        return self.add(Select(constants), values, shape)

    def clamp(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        least, value, most = operands
        if isinstance(least, _Value) or isinstance(most, _Value):
            _refuse(equation, "with limits that depend on the inputs")
        for name, limit in (("max", least), ("min", most)):
            array = _of_one_example(equation, limit, len(shape))
            value = self.add(Binary(name, array), [value], shape)
        return value

    def reduce(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        axes = tuple(axis - 1 for axis in equation.params["axes"])
        function = equation.primitive.name.removeprefix("reduce_")
        return self.add(Reduce(function, axes), operands, shape)

    def window(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        options = equation.params
        dilations = (*options["base_dilation"], *options["window_dilation"])
        if options["window_dimensions"][0] != 1 or set(dilations) != {1}:
            _refuse(equation, "with a dilation")
        operation = Window(
            equation.primitive.name.removeprefix("reduce_window_"),
            tuple(options["window_dimensions"][1:]),
            tuple(options["window_strides"][1:]),
            tuple((int(low), int(high)) for low, high in options["padding"][1:]),
        )
        return self.add(operation, operands[:1], shape)

    def reshape(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        value = operands[0]
        if value.shape == shape:
            return value
        return self.add(Reshape(), [value], shape)

    def broadcast(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        value, axes = operands[0], equation.params["broadcast_dimensions"]
        if axes[0] != 0:
            _refuse(equation, "that moves the batch")
        aligned = [1] * len(shape)
        for size, axis in zip(value.shape, axes[1:], strict=True):
            aligned[axis - 1] = size
        if tuple(aligned) != value.shape:
            value = self.add(Reshape(), [value], aligned)
        return value if value.shape == shape else self.add(Broadcast(), [value], shape)

    def transpose(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        permutation = equation.params["permutation"]
        if permutation[0] != 0:
            _refuse(equation, "that moves the batch")
        return self._order(operands[0], [axis - 1 for axis in permutation[1:]])

    def concatenate(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        axis = equation.params["dimension"] - 1
        constants = tuple(
            None
            if isinstance(each, _Value)
            else _of_one_example(equation, each, len(shape))
            for each in operands
        )
        values = [each for each in operands if isinstance(each, _Value)]
        return self.add(Concatenate(axis, constants), values, shape)

    def pad(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        value, filler = operands
        pads = equation.params["padding_config"]
        if isinstance(filler, _Value) or any(inner for *_, inner in pads):
            _refuse(equation, "between the numbers of its input")
        cut = [(max(0, -low), max(0, -high)) for low, high, _ in pads[1:]]
        if any(map(any, cut)):
            sizes = [
                size - sum(ends) for size, ends in zip(value.shape, cut, strict=True)
            ]
            starts = tuple(low for low, _ in cut)
            value = self.add(Slice(starts, (1,) * len(starts)), [value], sizes)
        added = tuple((max(0, low), max(0, high)) for low, high, _ in pads[1:])
        if not any(map(any, added)):
            return value
        return self.add(Pad(added, float(np.asarray(filler.array))), [value], shape)

    def slice(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        starts = equation.params["start_indices"][1:]
        strides = (equation.params["strides"] or (1,) * (len(shape) + 1))[1:]
        return self.add(Slice(tuple(starts), tuple(strides)), operands, shape)

    def dynamic_slice(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        if any(isinstance(each, _Value) for each in operands[1:]):
            _refuse(equation, "at a place that depends on the inputs")
        starts = tuple(int(np.asarray(each.array)) for each in operands[2:])
        return self.add(Slice(starts, (1,) * len(starts)), operands[:1], shape)

    def split(self, equation: Any, operands: list[Any], shape: Shape) -> list[_Value]:
        axis, results, start = equation.params["axis"] - 1, [], 0
        for variable in equation.outvars:
            part = tuple(variable.aval.shape[1:])
            starts = tuple(start if each == axis else 0 for each in range(len(part)))
            results.append(
                self.add(Slice(starts, (1,) * len(part)), operands[:1], part)
            )
            start += part[axis]
        return results

    def conv(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        value, kernel = operands
        options = equation.params
        if isinstance(kernel, _Value) or not isinstance(value, _Value):
            _refuse(equation, "with a kernel that depends on the inputs")
        if options["batch_group_count"] != 1 or set(options["lhs_dilation"]) != {1}:
            _refuse(equation, "that is transposed")
        numbers = options["dimension_numbers"]
        if numbers.lhs_spec[0] != 0 or numbers.out_spec[0] != 0:
            _refuse(equation, "that moves the batch")
        # JAX lists batch, channels and window; here channels come last.
        source = [axis - 1 for axis in (*numbers.lhs_spec[2:], numbers.lhs_spec[1])]
        target = [axis - 1 for axis in (*numbers.out_spec[2:], numbers.out_spec[1])]
        out, inner, *window = numbers.rhs_spec
        operation = Conv(
            name=kernel.name
            if (*window, inner, out) == tuple(range(len(shape) + 1))
            else "",
            kernel=np.transpose(np.asarray(kernel.array), (*window, inner, out)),
            strides=tuple(options["window_strides"]),
            padding=tuple((int(low), int(high)) for low, high in options["padding"]),
            dilation=tuple(options["rhs_dilation"]),
            groups=options["feature_group_count"],
        )
        result = self.add(
            operation, [self._order(value, source)], [shape[axis] for axis in target]
        )
        return self._order(result, list(np.argsort(target)))

    def dot(self, equation: Any, operands: list[Any], shape: Shape) -> _Value:
        (over_first, over_second), (with_first, with_second) = equation.params[
            "dimension_numbers"
        ]
        first, second = operands
        if isinstance(first, _Value) and isinstance(second, _Value):
            if with_first[:1] != (0,) or with_second[:1] != (0,):
                _refuse(equation, "between the examples of a batch")
            return self._matmul(
                first, second, over_first, over_second, with_first, with_second, shape
            )
        if with_first or 0 in (
            over_first if isinstance(first, _Value) else over_second
        ):
            _refuse(equation, "with a constant for each example")
        if isinstance(second, _Value):
            _refuse(equation, "with the constant on the left")
        free = [
            axis for axis in range(1, len(first.shape) + 1) if axis not in over_first
        ]
        value = self._order(first, [axis - 1 for axis in (*free, *over_first)])
        kept = value.shape[: len(free)]
        inputs = math.prod(value.shape[len(free) :])
        value = self._reshape(value, (*kept, inputs))
        array = np.asarray(second.array)
        rest = [axis for axis in range(array.ndim) if axis not in over_second]
        order = (*over_second, *rest)
        kernel = np.transpose(array, order).reshape(inputs, -1)
        name = second.name if order == tuple(range(array.ndim)) else ""
        result = self.add(Dense(name, kernel), [value], (*kept, kernel.shape[1]))
        return self._reshape(result, shape)

    def _matmul(
        self,
        first: _Value,
        second: _Value,
        over_first: Sequence[int],
        over_second: Sequence[int],
        with_first: Sequence[int],
        with_second: Sequence[int],
        shape: Shape,
    ) -> _Value:
        """Adds a product of matrices, one for each index of the axes in common."""
        rows = _others(first, (*over_first, *with_first))
        columns = _others(second, (*over_second, *with_second))
        first = self._order(
            first, [axis - 1 for axis in (*with_first[1:], *rows, *over_first)]
        )
        second = self._order(
            second, [axis - 1 for axis in (*with_second[1:], *over_second, *columns)]
        )
        common = len(with_first) - 1
        batch = first.shape[:common]
        height = math.prod(first.shape[common : common + len(rows)])
        inner = math.prod(first.shape[common + len(rows) :])
        width = math.prod(second.shape[common + len(over_second) :])
        first = self._reshape(first, (*batch, height, inner))
        second = self._reshape(second, (*batch, inner, width))
        result = self.add(MatMul(), [first, second], (*batch, height, width))
        return self._reshape(result, shape)

    def _order(self, value: _Value, permutation: Sequence[int]) -> _Value:
        """Returns a value with its axes in another order."""
        order = tuple(int(axis) for axis in permutation)
        if order == tuple(range(len(order))):
            return value
        shape = [value.shape[axis] for axis in order]
        return self.add(Transpose(order), [value], shape)

    def _reshape(self, value: _Value, shape: Shape) -> _Value:
        """Returns a value in another shape."""
        if value.shape == tuple(shape):
            return value
        return self.add(Reshape(), [value], shape)


_RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(UNARY, _Tracer.unary),
    **dict.fromkeys(BINARY, _Tracer.binary),
    "broadcast_in_dim": _Tracer.broadcast,
    "clamp": _Tracer.clamp,
    "concatenate": _Tracer.concatenate,
    "conv_general_dilated": _Tracer.conv,
    "convert_element_type": _Tracer.convert,
    "dot_general": _Tracer.dot,
    "dynamic_slice": _Tracer.dynamic_slice,
    "expand_dims": _Tracer.reshape,
    "integer_pow": _Tracer.integer_pow,
    "pad": _Tracer.pad,
    "reduce_max": _Tracer.reduce,
    "reduce_min": _Tracer.reduce,
    "reduce_sum": _Tracer.reduce,
    "reduce_window_max": _Tracer.window,
    "reduce_window_sum": _Tracer.window,
    "reshape": _Tracer.reshape,
    "select_n": _Tracer.select,
    "slice": _Tracer.slice,
    "split": _Tracer.split,
    "square": _Tracer.square,
    "squeeze": _Tracer.reshape,
    "transpose": _Tracer.transpose,
}
"""Rules by the name of their primitive."""

SUPPORTED = tuple(sorted({*_RULES, *_CALLS, *_IDENTITIES}))
"""Names of the JAX primitives that a graph can hold."""


def _others(value: _Value, axes: Sequence[int]) -> list[int]:
    """Returns the axes of a value, the batch being 0, that are not among some."""
    return [axis for axis in range(len(value.shape) + 1) if axis not in axes]


def _compute(equation: Any, operands: Sequence[_Constant]) -> list[_Constant]:
    """Computes an equation that no input reaches."""
    with jax.ensure_compile_time_eval():
        results = equation.primitive.bind(
            *(each.array for each in operands), **equation.params
        )
    if not equation.primitive.multiple_results:
        results = [results]
    name = ""
    if equation.primitive.name in (*_IDENTITIES, "convert_element_type", "reshape"):
        name = operands[0].name
    return [_Constant(each, name) for each in results]


def _of_one_example(equation: Any, constant: _Constant, rank: int) -> np.ndarray:
    """Returns a constant operand without the axis of the batch.

    Args:
      equation: equation that takes the operand.
      constant: the operand.
      rank: number of axes of the result, without the batch.
    """
    array = np.asarray(constant.array)
    if array.ndim <= rank:
        return array
    if not (array == array[:1]).all():
        _refuse(equation, "with a constant that differs from example to example")
    return array[0]


def _refuse(equation: Any, where: str = "") -> NoReturn:
    """Refuses an equation."""
    text = f"{equation.primitive.name} {where}".rstrip()
    raise _Refusal(text, _line_of(equation))


def _line_of(equation: Any) -> str:
    """Returns file and line of the source of an equation, outside of JAX and Flax."""
    # JAX says this nowhere else (jax 0.10 to 0.12).
    from jax._src import source_info_util

    frame = source_info_util.user_frame(equation.source_info.traceback)
    return f"{frame.file_name}:{frame.start_line}" if frame is not None else ""
