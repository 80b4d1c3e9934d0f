"""Rules from the equations of a jaxpr to the operations of a graph.

A value that does not depend on the inputs is computed at once and is a constant of the
graph. Every other equation becomes one operation or a few. The file is long because it
holds a rule for each primitive.
"""

import dataclasses
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.extend.core import DropVar, Literal

from aslp_jax.export.constants import Constant, compute, for_one_example, shrink
from aslp_jax.export.operations import (
    BINARY,
    UNARY,
    Binary,
    Broadcast,
    Concatenate,
    Conv,
    Dense,
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
from aslp_jax.export.refusal import Refusal, line_of, refuse

__all__ = ["ACROSS", "BATCH", "SUPPORTED", "Tracer", "Value"]

BATCH = 5
"""Examples in the batch that is traced."""

ACROSS = "across the examples of a batch"
"""Reason of a refusal."""

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

_IDENTITIES = frozenset(
    {"copy", "copy_p", "name", "optimization_barrier", "reduce_precision"}
    | {"sharding_constraint", "stop_gradient"}
)

_DIFFERS = "with a constant that differs from example to example"

_COMMUTATIVE = frozenset({"add", "eq", "max", "min", "mul", "ne"})

_LARGEST_POWER = 8
"""Largest integer power that is written as multiplications."""

_MOST_STEPS = 100
"""Largest number of steps of a loop that is written out."""

_MOST_PARTS = 32
"""Largest number of slices that a choice of places is written as."""


@dataclasses.dataclass(frozen=True)
class Value:
    """A value of the graph, as a value of the jaxpr.

    Attributes:
      index: number of the value in the graph.
      shape: shape of one example.
      batch: place of the batch among the axes of the jaxpr's value.
    """

    index: int
    shape: Shape
    batch: int = 0

    def axis(self, axis: int) -> int:
        """Returns the axis of one example, from another axis than the batch."""
        return axis - (axis > self.batch)

    def without_batch(self, sizes: Sequence[Any]) -> tuple[Any, ...]:
        """Returns entries of all axes of the jaxpr's value, without the batch's."""
        return (*sizes[: self.batch], *sizes[self.batch + 1 :])


@dataclasses.dataclass(frozen=True)
class Tracer:
    """The nodes so far, and the rules that add one for each equation."""

    nodes: list[Node]

    def add(
        self,
        operation: Operation,
        inputs: Sequence[Value],
        shape: Sequence[int],
        batch: int = 0,
    ) -> Value:
        """Adds a node and returns its result."""
        shape = tuple(shape)
        self.nodes.append(Node(operation, tuple(v.index for v in inputs), shape))
        return Value(len(self.nodes), shape, batch)

    def run(
        self, jaxpr: Any, constants: Sequence[Any], arguments: Sequence[Any]
    ) -> list[Value | Constant]:
        """Adds the equations of a jaxpr and returns its outputs."""
        known: dict[Any, Value | Constant] = {}

        def read(atom: Any) -> Value | Constant:
            return Constant.of(atom.val) if isinstance(atom, Literal) else known[atom]

        known.update(zip(jaxpr.constvars, map(Constant.of, constants), strict=True))
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
            except Refusal as refused:
                # A function of JAX has no line of one's own; the call of it has.
                raise Refusal(refused.text, refused.line or line_of(equation)) from None
        values = [each for each in operands if isinstance(each, Value)]
        if not values:
            return compute(equation, operands)
        if name in _CONTROL:
            return _CONTROL[name](self, equation, operands)
        if name in _IDENTITIES:
            return [values[0]]
        rule = _RULES.get(name)
        if rule is None:
            refuse(equation)
        result = rule(self, equation, operands)
        return result if isinstance(result, list) else [result]

    # Rules: from an equation and its operands to its result.

    def _on_convert(self, equation: Any, operands: list[Any]) -> Value:
        kind = equation.params["new_dtype"]
        if not (jnp.issubdtype(kind, jnp.floating) or kind == jnp.bool_):
            refuse(equation, f"to {kind}")
        return operands[0]

    def _on_unary(self, equation: Any, operands: list[Any]) -> Value:
        return self._unary(equation.primitive.name, operands[0])

    def _on_square(self, equation: Any, operands: list[Any]) -> Value:
        return self._binary("mul", operands[0], operands[0])

    def _on_exp2(self, equation: Any, operands: list[Any]) -> Value:
        return self._unary("exp", self._binary("mul", operands[0], math.log(2)))

    def _on_integer_pow(self, equation: Any, operands: list[Any]) -> Value:
        power = equation.params["y"]
        if not 1 <= abs(power) <= _LARGEST_POWER:
            refuse(equation, f"with the power {power}")
        result = value = operands[0]
        for _ in range(abs(power) - 1):
            result = self._binary("mul", result, value)
        if power > 0:
            return result
        one = Binary("div", np.asarray(1, np.float32), constant_first=True)
        return self.add(one, [result], result.shape, result.batch)

    def _on_is_finite(self, equation: Any, operands: list[Any]) -> Value:
        # Infinities and NaN differ from themselves by NaN.
        return self._binary("eq", self._binary("sub", operands[0], operands[0]), 0)

    def _on_logical(self, equation: Any, operands: list[Any]) -> Value:
        if equation.outvars[0].aval.dtype != jnp.bool_:
            refuse(equation, "of integers")
        function = {"and": "min", "or": "max", "xor": "ne", "not": "eq"}
        name = function[equation.primitive.name]
        if len(operands) == 1:
            return self._binary(name, operands[0], 0)
        return self._pair(equation, name, *operands)

    def _on_binary(self, equation: Any, operands: list[Any]) -> Value:
        return self._pair(equation, equation.primitive.name, *operands)

    def _on_select(self, equation: Any, operands: list[Any]) -> Value:
        if len(operands) != 3:
            refuse(equation, f"of {len(operands) - 1} cases")
        which = operands[0]
        if isinstance(which, Constant):
            chosen = np.asarray(which.array)
            if (chosen == chosen.flat[0]).all():
                result = operands[1 + int(chosen.flat[0])]
                if isinstance(result, Value):
                    return result
        batch = self._common_batch(equation, operands)
        shape = _shape(equation, batch)
        constants = tuple(
            None
            if isinstance(each, Value)
            else shrink(_one(equation, each, batch), shape)
            for each in operands
        )
        values = [each for each in operands if isinstance(each, Value)]
        return self.add(Select(constants), values, shape, batch)

    def _on_clamp(self, equation: Any, operands: list[Any]) -> Value:
        least, value, most = operands
        if isinstance(value, Constant):
            refuse(equation, "of a constant")
        value = self._pair(equation, "max", value, least)
        return self._pair(equation, "min", value, most)

    def _on_reduce(self, equation: Any, operands: list[Any]) -> Value:
        value, axes = operands[0], equation.params["axes"]
        if value.batch in axes:
            refuse(equation, ACROSS)
        function = {"and": "min", "or": "max"}
        name = equation.primitive.name.removeprefix("reduce_")
        batch = value.batch - sum(axis < value.batch for axis in axes)
        operation = Reduce(
            function.get(name, name),  # type: ignore[arg-type]
            tuple(sorted(value.axis(axis) for axis in axes)),
        )
        return self.add(operation, [value], _shape(equation, batch), batch)

    def _on_window(self, equation: Any, operands: list[Any]) -> Value:
        value, options = operands[0], equation.params
        dilations = (*options["base_dilation"], *options["window_dilation"])
        if set(dilations) != {1}:
            refuse(equation, "with a dilation")
        if options["window_dimensions"][value.batch] != 1:
            refuse(equation, ACROSS)
        name = equation.primitive.name.removeprefix("reduce_window_")
        if name == "min":
            value = self._unary("neg", value)
        padding = value.without_batch(options["padding"])
        operation = Window(
            "max" if name == "min" else name,  # type: ignore[arg-type]
            value.without_batch(options["window_dimensions"]),
            value.without_batch(options["window_strides"]),
            tuple((int(low), int(high)) for low, high in padding),
        )
        shape = _shape(equation, value.batch)
        result = self.add(operation, [value], shape, value.batch)
        return self._unary("neg", result) if name == "min" else result

    def _on_reshape(self, equation: Any, operands: list[Any]) -> Value:
        value, sizes = operands[0], tuple(equation.outvars[0].aval.shape)
        before = math.prod(value.shape[: value.batch])
        starts = [math.prod(sizes[:axis]) for axis in range(len(sizes))]
        places = [
            axis
            for axis, start in enumerate(starts)
            if start == before and sizes[axis] == BATCH
        ]
        if not places:
            refuse(equation, ACROSS)
        return self._reshape(value, _shape(equation, places[0]), places[0])

    def _on_broadcast(self, equation: Any, operands: list[Any]) -> Value:
        value, axes = operands[0], equation.params["broadcast_dimensions"]
        batch = axes[value.batch]
        result = Value(0, (), batch)
        shape = _shape(equation, batch)
        aligned = [1] * len(shape)
        for size, axis in zip(value.shape, value.without_batch(axes), strict=True):
            aligned[result.axis(axis)] = size
        value = self._reshape(value, tuple(aligned), batch)
        if value.shape == shape:
            return value
        return self.add(Broadcast(), [value], shape, batch)

    def _on_transpose(self, equation: Any, operands: list[Any]) -> Value:
        value, permutation = operands[0], equation.params["permutation"]
        batch = permutation.index(value.batch)
        order = [value.axis(axis) for axis in permutation if axis != value.batch]
        return self._order(value, order, batch)

    def _on_concatenate(self, equation: Any, operands: list[Any]) -> Value:
        batch = self._common_batch(equation, operands)
        axis = equation.params["dimension"]
        if axis == batch:
            refuse(equation, ACROSS)
        constants = tuple(
            None if isinstance(each, Value) else _one(equation, each, batch)
            for each in operands
        )
        values = [each for each in operands if isinstance(each, Value)]
        operation = Concatenate(values[0].axis(axis), constants)
        return self.add(operation, values, _shape(equation, batch), batch)

    def _on_pad(self, equation: Any, operands: list[Any]) -> Value:
        value, filler = operands
        if isinstance(filler, Value) or isinstance(value, Constant):
            refuse(equation, "with a value that depends on the inputs")
        config = equation.params["padding_config"]
        if tuple(config[value.batch]) != (0, 0, 0):
            refuse(equation, ACROSS)
        pads = value.without_batch(config)
        number = float(np.asarray(filler.array))
        value = self._spread(value, [inner + 1 for *_, inner in pads], number)
        return self._pad(value, [(low, high) for low, high, _ in pads], number)

    def _on_slice(self, equation: Any, operands: list[Any]) -> Value:
        value, options = operands[0], equation.params
        starts = options["start_indices"]
        strides = options["strides"] or (1,) * len(starts)
        if equation.outvars[0].aval.shape[value.batch] != BATCH:
            refuse(equation, ACROSS)
        operation = Slice(value.without_batch(starts), value.without_batch(strides))
        shape = _shape(equation, value.batch)
        return self.add(operation, [value], shape, value.batch)

    def _on_dynamic_slice(self, equation: Any, operands: list[Any]) -> Value:
        value, *places = operands
        if any(isinstance(each, Value) for each in places):
            refuse(equation, "at a place that depends on the inputs")
        sizes = equation.params["slice_sizes"]
        if sizes[value.batch] != BATCH:
            refuse(equation, ACROSS)
        shape = _shape(equation, value.batch)
        starts = value.without_batch([int(np.asarray(each.array)) for each in places])
        # A slice that reaches over an end is moved.
        starts = tuple(
            min(max(start, 0), whole - size)
            for start, whole, size in zip(starts, value.shape, shape, strict=True)
        )
        operation = Slice(starts, (1,) * len(starts))
        return self.add(operation, [value], shape, value.batch)

    def _on_split(self, equation: Any, operands: list[Any]) -> list[Value]:
        value, axis, start = operands[0], equation.params["axis"], 0
        if axis == value.batch:
            refuse(equation, ACROSS)
        axis, results = value.axis(axis), []
        for variable in equation.outvars:
            part = value.without_batch(variable.aval.shape)
            starts = tuple(start if each == axis else 0 for each in range(len(part)))
            operation = Slice(starts, (1,) * len(part))
            results.append(self.add(operation, [value], part, value.batch))
            start += part[axis]
        return results

    def _on_conv(self, equation: Any, operands: list[Any]) -> Value:
        value, kernel = operands
        options = equation.params
        if isinstance(kernel, Value) or not isinstance(value, Value):
            refuse(equation, "with a kernel that depends on the inputs")
        numbers = options["dimension_numbers"]
        if options["batch_group_count"] != 1 or numbers.lhs_spec[0] != value.batch:
            refuse(equation, ACROSS)
        # JAX lists batch, channels and window; here channels come last.
        batch = numbers.out_spec[0]
        result = Value(0, (), batch)
        source = [value.axis(a) for a in (*numbers.lhs_spec[2:], numbers.lhs_spec[1])]
        target = [result.axis(a) for a in (*numbers.out_spec[2:], numbers.out_spec[1])]
        shape = _shape(equation, batch)
        out, inner, *window = numbers.rhs_spec
        kernel = _ordered(kernel, (*window, inner, out))
        value = self._order(value, source)
        # A transposed convolution is one of pixels that lie apart.
        value = self._spread(value, [*options["lhs_dilation"], 1], 0.0)
        padding = [(int(low), int(high)) for low, high in options["padding"]]
        if min(map(min, padding)) < 0:
            cropped = [(min(low, 0), min(high, 0)) for low, high in padding]
            value = self._pad(value, [*cropped, (0, 0)], 0.0)
        operation = Conv(
            name=kernel.name,
            kernel=np.asarray(kernel.array),
            strides=tuple(options["window_strides"]),
            padding=tuple((max(low, 0), max(high, 0)) for low, high in padding),
            dilation=tuple(options["rhs_dilation"]),
            groups=options["feature_group_count"],
            origin=kernel.origin,
        )
        found = self.add(operation, [value], [shape[axis] for axis in target])
        return self._order(found, list(np.argsort(target)), batch)

    def _on_dot(self, equation: Any, operands: list[Any]) -> Value:
        (over_first, over_second), (with_first, with_second) = equation.params[
            "dimension_numbers"
        ]
        first, second = operands
        if isinstance(first, Value) and isinstance(second, Value):
            pairs = tuple(zip(with_first, with_second, strict=True))
            if (first.batch, second.batch) not in pairs:
                refuse(equation, "between the examples of a batch")
            batch = pairs.index((first.batch, second.batch))
            return self._matmul(equation, operands, batch)
        if with_first:
            refuse(equation, "with a constant for each index of an axis")
        constant_first = isinstance(first, Constant)
        value, constant = (second, first) if constant_first else (first, second)
        over, with_ = over_first, over_second
        if constant_first:
            over, with_ = over_second, over_first
        if value.batch in over:
            refuse(equation, ACROSS)
        free = [axis for axis in range(len(value.shape) + 1) if axis not in over]
        rest = [axis for axis in range(np.ndim(constant.array)) if axis not in with_]
        kept = [value.axis(axis) for axis in free if axis != value.batch]
        rows = tuple(value.shape[axis] for axis in kept)
        columns = tuple(np.shape(constant.array)[axis] for axis in rest)
        kernel = _reshaped(
            _ordered(constant, (*with_, *rest)), (-1, math.prod(columns))
        )
        value_ = self._order(value, [*kept, *(value.axis(axis) for axis in over)])
        value_ = self._reshape(value_, (*rows, np.shape(kernel.array)[0]))
        operation = Dense(kernel.name, np.asarray(kernel.array), origin=kernel.origin)
        result = self.add(operation, [value_], (*rows, math.prod(columns)))
        result = self._reshape(result, (*rows, *columns))
        batch = free.index(value.batch)
        if not constant_first:
            return dataclasses.replace(result, batch=batch)
        places = range(len(rows) + len(columns))
        order = [*places[len(rows) :], *places[: len(rows)]]
        return self._order(result, order, len(columns) + batch)

    def _matmul(self, equation: Any, operands: list[Any], batch: int) -> Value:
        """Adds a product of matrices, one for each index of the axes in common."""
        numbers = equation.params["dimension_numbers"]
        first, second = operands
        (over_first, over_second), (with_first, with_second) = (
            tuple(
                tuple(value.axis(axis) for axis in axes if axis != value.batch)
                for value, axes in zip(operands, pair, strict=True)
            )
            for pair in numbers
        )
        rows = _others(first, (*over_first, *with_first))
        columns = _others(second, (*over_second, *with_second))
        common = tuple(first.shape[axis] for axis in with_first)
        height = math.prod(first.shape[axis] for axis in rows)
        inner = math.prod(first.shape[axis] for axis in over_first)
        width = math.prod(second.shape[axis] for axis in columns)
        first = self._order(first, [*with_first, *rows, *over_first])
        second = self._order(second, [*with_second, *over_second, *columns])
        first = self._reshape(first, (*common, height, inner))
        second = self._reshape(second, (*common, inner, width))
        result = self.add(MatMul(), [first, second], (*common, height, width))
        return self._reshape(result, _shape(equation, batch), batch)

    def _on_stack(self, equation: Any, operands: list[Any]) -> Value:
        before, axis = self._common_batch(equation, operands), equation.params["axis"]
        batch = before + (axis <= before)
        result = Value(0, (), batch)
        shape = _shape(equation, batch)
        place = result.axis(axis)
        part = (*shape[:place], 1, *shape[place + 1 :])
        parts: list[Any] = []
        for each in operands:
            if isinstance(each, Value):
                parts.append(self._reshape(each, part, batch))
                continue
            array = for_one_example(each, len(shape), before)
            if array is None:
                refuse(equation, "with a constant that differs from example to example")
            parts.append(np.reshape(array, part))
        return self._join(parts, place, shape, batch)

    def _on_tile(self, equation: Any, operands: list[Any]) -> Value:
        value, times = operands[0], equation.params["reps"]
        if len(times) != len(value.shape) + 1 or times[value.batch] != 1:
            refuse(equation, "across the examples of a batch")
        for axis, count in enumerate(value.without_batch(times)):
            if count > 1:
                value = self._repeat(value, axis, count, blocks=True)
        return value

    def _on_reverse(self, equation: Any, operands: list[Any]) -> Value:
        value = operands[0]
        for axis in equation.params["dimensions"]:
            if axis == value.batch:
                refuse(equation, "across the examples of a batch")
            place = value.axis(axis)
            value = self._take(value, place, np.arange(value.shape[place])[::-1])
        return value

    def _on_gather(self, equation: Any, operands: list[Any]) -> Value:
        value, indices = operands
        numbers = equation.params["dimension_numbers"]
        if not isinstance(indices, Constant) or not isinstance(value, Value):
            refuse(equation, "at places that depend on the inputs")
        places = np.asarray(indices.array)
        whole = (*value.shape[: value.batch], BATCH, *value.shape[value.batch :])
        axes = numbers.start_index_map
        one = len(axes) == 1 and tuple(numbers.collapsed_slice_dims) == tuple(axes)
        if not one or places.shape[1:] != (1,) or numbers.operand_batching_dims:
            refuse(equation, "along several axes")
        (axis,) = axes
        sizes = tuple(1 if each == axis else size for each, size in enumerate(whole))
        if axis == value.batch or tuple(equation.params["slice_sizes"]) != sizes:
            refuse(equation, "across the examples of a batch")
        if places.min() < 0 or places.max() >= whole[axis]:
            refuse(equation, "beyond the end of an axis")
        value = self._take(value, value.axis(axis), places[:, 0])
        # The axis may also have moved.
        (target,) = set(range(len(whole))) - set(numbers.offset_dims)
        order = [each for each in range(len(whole)) if each != axis]
        order.insert(target, axis)
        batch = order.index(value.batch)
        moved = [value.axis(each) for each in order if each != value.batch]
        return self._order(value, moved, batch)

    def _on_scan(self, equation: Any, operands: list[Any]) -> list[Any]:
        options = equation.params
        length, body = options["length"], options["jaxpr"]
        first, carried = options["num_consts"], options["num_carry"]
        constants, rest = operands[:first], operands[first:]
        carry, over = rest[:carried], rest[carried:]
        if length > _MOST_STEPS or any(isinstance(each, Value) for each in over):
            refuse(equation, "over a value, or of many steps")
        if len(body.jaxpr.outvars) > carried and any(
            not isinstance(variable, DropVar) for variable in equation.outvars[carried:]
        ):
            refuse(equation, "with a result of each step")
        steps = range(length)
        for step in reversed(steps) if options["reverse"] else steps:
            parts = [each.moved(operator.itemgetter(step)) for each in over]
            results = self.run(body.jaxpr, body.consts, [*constants, *carry, *parts])
            carry = results[:carried]
        return [*carry, *(Constant.of(0) for _ in equation.outvars[carried:])]

    def _on_cond(self, equation: Any, operands: list[Any]) -> list[Any]:
        which, *others = operands
        branches = equation.params["branches"]
        if isinstance(which, Value):
            refuse(equation, "of a condition that depends on the inputs")
        chosen = min(max(int(np.asarray(which.array)), 0), len(branches) - 1)
        return self.run(branches[chosen].jaxpr, branches[chosen].consts, others)

    # Parts of rules.

    def _join(
        self, parts: Sequence[Any], axis: int, shape: Sequence[int], batch: int
    ) -> Value:
        """Puts values and constants one after another along an axis."""
        constants = tuple(
            None if isinstance(each, Value) else np.asarray(each) for each in parts
        )
        values = [each for each in parts if isinstance(each, Value)]
        return self.add(Concatenate(axis, constants), values, shape, batch)

    def _repeat(self, value: Value, axis: int, count: int, *, blocks: bool) -> Value:
        """Repeats a value along an axis, as a whole or each of its entries."""
        before, size, after = value.shape[:axis], value.shape[axis], value.shape[axis:]
        pair, wide = (1, size), (count, size)
        if not blocks:
            pair, wide = (size, 1), (size, count)
        batch = value.batch
        value = self._reshape(value, (*before, *pair, *after[1:]))
        value = self.add(Broadcast(), [value], (*before, *wide, *after[1:]))
        return self._reshape(value, (*before, size * count, *after[1:]), batch)

    def _take(self, value: Value, axis: int, places: np.ndarray) -> Value:
        """Returns a value at some places of an axis."""
        size, steps = value.shape[axis], np.diff(places)

        def part(places: np.ndarray, stride: int) -> Value:
            shape = [*value.shape]
            shape[axis] = len(places)
            starts, strides = [0] * len(shape), [1] * len(shape)
            starts[axis], strides[axis] = int(places[0]), stride
            operation = Slice(tuple(starts), tuple(strides))
            return self.add(operation, [value], shape, value.batch)

        if len(places) == 1 or (steps[0] > 0 and (steps == steps[0]).all()):
            return part(places, int(steps[0]) if len(steps) else 1)
        times = len(places) // size
        if np.array_equal(places, np.repeat(np.arange(size), times)):
            return self._repeat(value, axis, times, blocks=False)
        shape = [*value.shape]
        shape[axis] = len(places)
        runs = np.split(places, np.flatnonzero(steps != 1) + 1)
        if len(runs) <= _MOST_PARTS:
            parts = [part(run, 1) for run in runs]
            return self._join(parts, axis, shape, value.batch)
        chosen = np.zeros((size, len(places)), np.float32)
        chosen[places, np.arange(len(places))] = 1
        order = [each for each in range(len(shape)) if each != axis]
        order.append(axis)
        last = self._order(value, order)
        found = self.add(Dense("", chosen), [last], [shape[each] for each in order])
        return self._order(found, np.argsort(order).tolist(), value.batch)

    def _unary(self, function: str, value: Value) -> Value:
        return self.add(Unary(function), [value], value.shape, value.batch)

    def _binary(self, function: str, value: Value, other: Value | float) -> Value:
        """Adds a function of a value and itself, another of its shape, or a number."""
        if isinstance(other, Value):
            return self.add(Binary(function), [value, other], value.shape, value.batch)
        operation = Binary(function, np.asarray(other, np.float32))
        return self.add(operation, [value], value.shape, value.batch)

    def _pair(self, equation: Any, function: str, first: Any, second: Any) -> Value:
        """Adds a function of two operands of an equation."""
        batch = self._common_batch(equation, (first, second))
        shape = _shape(equation, batch)
        if isinstance(first, Value) and isinstance(second, Value):
            return self.add(Binary(function), [first, second], shape, batch)
        constant_first = isinstance(first, Constant)
        value, constant = (second, first) if constant_first else (first, second)
        array = shrink(_one(equation, constant, batch), value.shape)
        constant_first &= function not in _COMMUTATIVE
        operation = Binary(function, array, constant_first=constant_first)
        return self.add(operation, [value], shape, batch)

    def _common_batch(self, equation: Any, operands: Sequence[Any]) -> int:
        """Returns the axis of the batch, which all values must have in one place."""
        batches = {each.batch for each in operands if isinstance(each, Value)}
        if len(batches) != 1:
            refuse(equation, ACROSS)
        return batches.pop()

    def _pad(
        self, value: Value, pads: Sequence[tuple[int, int]], number: float
    ) -> Value:
        """Adds a number around a value; crops where the padding is negative."""
        cut = [(max(0, -low), max(0, -high)) for low, high in pads]
        sizes = [size - sum(ends) for size, ends in zip(value.shape, cut, strict=True)]
        if any(map(any, cut)):
            starts = tuple(low for low, _ in cut)
            operation = Slice(starts, (1,) * len(starts))
            value = self.add(operation, [value], sizes, value.batch)
        added = tuple((max(0, low), max(0, high)) for low, high in pads)
        if not any(map(any, added)):
            return value
        sizes = [size + sum(ends) for size, ends in zip(sizes, added, strict=True)]
        return self.add(Pad(added, number), [value], sizes, value.batch)

    def _spread(self, value: Value, steps: Sequence[int], number: float) -> Value:
        """Moves the entries of a value apart and fills the gaps with a number."""
        if set(steps) == {1}:
            return value
        sizes, batch = value.shape, value.batch
        pairs, pads, widths, ends = [], [], [], []
        for size, step in zip(sizes, steps, strict=True):
            apart = step > 1
            pairs += [size, 1] if apart else [size]
            pads += [(0, 0), (0, step - 1)] if apart else [(0, 0)]
            widths.append(size * step)
            ends.append((0, 1 - step))
        value = self._reshape(value, tuple(pairs))
        value = self._pad(value, pads, number)
        value = self._reshape(value, tuple(widths), batch)
        return self._pad(value, ends, number)

    def _order(self, value: Value, permutation: Sequence[int], batch: int = 0) -> Value:
        """Returns a value with its axes in another order."""
        order = tuple(int(axis) for axis in permutation)
        if order == tuple(range(len(order))):
            return dataclasses.replace(value, batch=batch)
        shape = [value.shape[axis] for axis in order]
        return self.add(Transpose(order), [value], shape, batch)

    def _reshape(self, value: Value, shape: Shape, batch: int = 0) -> Value:
        """Returns a value in another shape."""
        if value.shape == tuple(shape):
            return dataclasses.replace(value, batch=batch)
        return self.add(Reshape(), [value], shape, batch)


_RULES: Mapping[str, Callable[..., Any]] = {
    **dict.fromkeys(UNARY, Tracer._on_unary),
    **dict.fromkeys(BINARY, Tracer._on_binary),
    **dict.fromkeys(("and", "not", "or", "xor"), Tracer._on_logical),
    "broadcast_in_dim": Tracer._on_broadcast,
    "clamp": Tracer._on_clamp,
    "concatenate": Tracer._on_concatenate,
    "conv_general_dilated": Tracer._on_conv,
    "convert_element_type": Tracer._on_convert,
    "dot_general": Tracer._on_dot,
    "dynamic_slice": Tracer._on_dynamic_slice,
    "exp2": Tracer._on_exp2,
    "expand_dims": Tracer._on_reshape,
    "gather": Tracer._on_gather,
    "integer_pow": Tracer._on_integer_pow,
    "is_finite": Tracer._on_is_finite,
    "pad": Tracer._on_pad,
    "reduce_and": Tracer._on_reduce,
    "reduce_max": Tracer._on_reduce,
    "reduce_min": Tracer._on_reduce,
    "reduce_or": Tracer._on_reduce,
    "reduce_sum": Tracer._on_reduce,
    "reduce_window_max": Tracer._on_window,
    "reduce_window_min": Tracer._on_window,
    "reduce_window_sum": Tracer._on_window,
    "reshape": Tracer._on_reshape,
    "rev": Tracer._on_reverse,
    "select_n": Tracer._on_select,
    "slice": Tracer._on_slice,
    "split": Tracer._on_split,
    "square": Tracer._on_square,
    "squeeze": Tracer._on_reshape,
    "stack": Tracer._on_stack,
    "tile": Tracer._on_tile,
    "transpose": Tracer._on_transpose,
}
"""Rules by the name of their primitive."""

_CONTROL: Mapping[str, Callable[..., list[Any]]] = {
    "cond": Tracer._on_cond,
    "scan": Tracer._on_scan,
}
"""Rules of loops and branches, which give a result for each output."""

SUPPORTED = tuple(sorted({*_RULES, *_CONTROL, *_CALLS, *_IDENTITIES}))
"""Names of the JAX primitives that a graph can hold."""


def _shape(equation: Any, batch: int) -> Shape:
    """Returns the shape of the result of an equation for one example."""
    shape = tuple(equation.outvars[0].aval.shape)
    if shape[batch : batch + 1] != (BATCH,):
        refuse(equation, ACROSS)
    return (*shape[:batch], *shape[batch + 1 :])


def _others(value: Value, axes: Sequence[int]) -> list[int]:
    """Returns the axes of one example that are not among some."""
    return [axis for axis in range(len(value.shape)) if axis not in axes]


def _ordered(constant: Constant, axes: Sequence[int]) -> Constant:
    """Returns a constant with its axes in another order."""
    if tuple(axes) == tuple(range(np.ndim(constant.array))):
        return constant
    return constant.moved(lambda array: array.transpose(axes))


def _reshaped(constant: Constant, shape: Sequence[int]) -> Constant:
    """Returns a constant in another shape, with its name."""
    moved = constant.moved(lambda array: array.reshape(shape))
    return dataclasses.replace(moved, name=constant.name)


def _one(equation: Any, constant: Constant, batch: int) -> np.ndarray:
    """Returns a constant operand without the axis of the batch."""
    rank = len(equation.outvars[0].aval.shape)
    array = for_one_example(constant, rank, batch)
    if array is None:
        refuse(equation, _DIFFERS)
    return array
