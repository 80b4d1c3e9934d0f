"""Operators of ONNX for an integer graph: bytes between layers.

Each layer, sum, product and mean is an operator of floats between `DequantizeLinear`
and `QuantizeLinear`; a runtime computes all three as one operator of integers. What
only moves or compares numbers takes the bytes as they are.

All bytes are unsigned: int8 becomes uint8 with the zero point 128. Onnxruntime has
operators for signed bytes on x86 only where it can make them unsigned, which moves
prevent.

The file is long because it holds a rule for each operation.
"""

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from aslp_jax.export.integer.operations import (
    IntegerGraph,
    IntegerLayer,
    IntegerNode,
    IntegerOperation,
    IntegerProduct,
    IntegerSum,
    IntegerWindow,
    Lookup,
    Number,
    Requantization,
    Rescale,
    limits,
)
from aslp_jax.export.onnx_operators import (
    Held,
    Layout,
    Operators,
    axis_order,
    layer_path,
)
from aslp_jax.export.operations import (
    Concatenate,
    Conv,
    Dense,
    Graph,
    Node,
    Pad,
    Shape,
    Window,
)

__all__ = ["IntegerOperators"]

_LARGEST_SIGNED = 64
"""Largest weight of signed bytes.

x86 processors without VNNI add two products of an unsigned and a signed byte in 16 bits
and saturate. `2 * 255 * 64` fits; layers with larger weights have unsigned ones.
"""

_ZERO = 128
"""Zero point of signed numbers as unsigned bytes."""


@dataclasses.dataclass(frozen=True, eq=False)
class _Real:
    """Step from exact sums to a value, in real numbers.

    Attributes:
      factors: float64 `[channels]` or `[1]`, real number that 1 stands for; of an
        `IntegerSum` `[2]`, one for each operand.
      addend: float64 `[channels]` or `[1]`, added after the factor.
    """

    factors: np.ndarray
    addend: np.ndarray


class IntegerOperators(Operators):
    """Operators and arrays of a model whose values are bytes.

    A value of the kind int16, which is the output, is float32.
    """

    dtype = np.uint8

    def __init__(self) -> None:
        super().__init__("int8")
        self._numbers: tuple[Number, ...] = ()
        self._source = Graph((), ())

    def add_integers(self, graph: IntegerGraph, source: str, result: str) -> None:
        """Adds the operators of a graph whose activations are int8.

        Args:
          graph: the network.
          source: name of the input, uint8 `[batch, *shape]`, as `quantised` makes it;
            channels come first if it is an image, which has three axes.
          result: name of the output, float32 `[batch, *shape]`.
        """
        self._begin(source, graph.shapes)
        self._numbers, self._source = graph.numbers, graph.source
        for value, node in enumerate(graph.nodes, start=1):
            self._held.append(self._integer(value, node))
        last, number = self.plain(len(graph.nodes)), graph.numbers[-1]
        if number.kind != "int16":
            last = self._dequantised(last, number)
        self._end(source, last, result)

    def quantised(self, source: str, number: Number, name: str = "") -> str:
        """Adds the bytes of real numbers and returns their name."""
        return self.emit("QuantizeLinear", [source, *self._parameters(number)], name)

    # Values.

    def _dequantised(self, source: str, number: Number) -> str:
        """Adds the real numbers of bytes and returns their name."""
        return self.emit("DequantizeLinear", [source, *self._parameters(number)])

    def _parameters(self, number: Number) -> list[str]:
        zero = _zero(number)
        return [
            self.array("scale", np.float32(number.scale)),
            self.array(f"zero_{zero}", zero, np.uint8),
        ]

    def _operand(self, value: int, layout: Layout) -> str:
        return self._dequantised(self._as(value, layout), self._numbers[value])

    def _scaled_operand(self, value: int, held: Held, factor: np.ndarray) -> str:
        """Adds the real numbers of a value, where 1 stands for another number.

        Args:
          value: the value.
          held: layout in which it is taken.
          factor: real number that 1 stands for, `[channels]` or `[1]`.
        """
        number = self._numbers[value]
        if factor.size == 1 and factor[0] > 0:
            number = number._replace(scale=float(factor[0]))
            return self._dequantised(self._as(value, held.layout), number)
        real, rank = self._operand(value, held.layout), len(self._shapes[value])
        ratio = self._constant(f"{real}/factor", factor / number.scale, held, rank)
        return self.emit("Mul", [real, ratio])

    # Rules.

    def _integer(self, value: int, node: IntegerNode) -> Held:
        """Adds the operators of a node and returns its result."""
        name, operation = f"v{value}", node.operation
        match operation:
            case IntegerLayer(layer, step):
                held = self._integer_layer(value, node, layer, step)
            case Rescale(step):
                held = self._common(node.inputs)
                real = self._real(value, step)
                found = self._scaled_operand(node.inputs[0], held, real.factors)
                held = self._plus(value, dataclasses.replace(held, name=found), real)
            case IntegerSum(step) | IntegerProduct(step):
                held = self._pair(value, node, operation, step)
            case IntegerWindow(window, step):
                held = self._mean(value, node, window, step)
            case Lookup(values=values):
                return self._function(value, node, values)
            case Concatenate(axis, constants):
                zero = _zero(self._numbers[value])
                parts = tuple(None if c is None else c + zero for c in constants)
                return self._node(value, _moved(node, Concatenate(axis, parts)))
            case Pad(padding, number):
                number += _zero(self._numbers[value])
                return self._node(value, _moved(node, Pad(padding, number)))
            case _:
                return self._node(value, Node(operation, node.inputs, node.shape))
        return self._rounded(value, held, step, name)

    def _integer_layer(
        self, value: int, node: IntegerNode, layer: Conv | Dense, step: Requantization
    ) -> Held:
        """Adds a layer with integer weights, before its rounding."""
        name, source = f"v{value}/sum", self._numbers[node.inputs[0]]
        kernel, scale, addend = _whole(layer.kernel, self._real(value, step), source)
        scaled = dataclasses.replace(
            layer,
            kernel=kernel,
            scale=scale[0] if (scale == scale[0]).all() else scale,
            shift=addend if addend.any() else None,
        )
        plain = Node(scaled, node.inputs, node.shape)
        if isinstance(scaled, Conv):
            return self._conv(scaled, plain, name)
        return self._dense(scaled, plain, name)

    def _kernel(
        self, layer: Conv | Dense, kernel: np.ndarray, shape: Shape, name: str
    ) -> str:
        path = layer.name or f"{name}/kernel"
        signed = np.abs(kernel).max(initial=0) <= _LARGEST_SIGNED
        dtype, zero = (np.int8, 0) if signed else (np.uint8, _ZERO)
        scale = np.asarray(layer.scale)
        inputs = [
            self.array(f"{path}/integers", kernel + zero, dtype),
            self.array(f"{path}/scale", scale),
            self.array(f"{path}/zero", np.full(scale.shape, zero), dtype),
        ]
        axis = kernel.ndim - len(shape)
        return self.emit("DequantizeLinear", inputs, path, axis=axis)

    def _bias(self, layer: Conv | Dense, value: int, name: str) -> list[str]:
        if layer.shift is None or layer.scale is None:
            return []
        path = f"{layer_path(layer, name)}/bias"
        scale = np.float32(layer.scale * self._numbers[value].scale)
        sums = np.rint(layer.shift / scale)
        inputs = [
            self.array(f"{path}/integers", sums, np.int32),
            self.array(f"{path}/scale", scale),
        ]
        return [self.emit("DequantizeLinear", inputs, path, axis=0)]

    def _pair(
        self,
        value: int,
        node: IntegerNode,
        operation: IntegerOperation,
        step: Requantization,
    ) -> Held:
        """Adds a sum or a product of two values, before its rounding."""
        held, real = self._common(node.inputs), self._real(value, step)
        if isinstance(operation, IntegerSum):
            kind, factors = "Add", np.split(real.factors, 2)
        else:
            kind, scale = "Mul", self._numbers[node.inputs[0]].scale
            factors = [np.array([scale]), real.factors / scale]
        inputs = [
            self._scaled_operand(index, held, factor)
            for index, factor in zip(node.inputs, factors, strict=True)
        ]
        held = dataclasses.replace(held, name=self.emit(kind, inputs))
        return self._plus(value, held, real)

    def _mean(
        self, value: int, node: IntegerNode, window: Window, step: Requantization
    ) -> Held:
        """Adds windows of sums, before their rounding."""
        real, first = self._real(value, step), node.inputs[0]
        factors, before = real.factors * math.prod(window.window), self._shapes[first]
        axes = [axis for axis, size in enumerate(before) if node.shape[axis] < size]

        def tensor(layout: Layout) -> str:
            return self._scaled_operand(first, Held("", layout), factors)

        whole = all(window.window[axis] == before[axis] for axis in axes)
        if not whole or any(map(any, window.padding)):
            return self._plus(value, self._pool(window, tensor), real)
        held = self._unflattened([first])
        source, order = tensor(held.layout), axis_order(held.layout, len(before))
        if not axes:
            found = source
        elif held.layout == "first" and axes == list(range(len(before) - 1)):
            found = self.emit("GlobalAveragePool", [source])
        else:
            over = [order.index(axis) + 1 for axis in axes]
            found = self.emit("ReduceMean", [source], axes=over, keepdims=1)
        return self._plus(value, dataclasses.replace(held, name=found), real)

    def _function(
        self, value: int, node: IntegerNode, values: tuple[int, int] | None
    ) -> Held:
        """Adds the functions that a table holds, in floats, and their rounding.

        An operator that reads a table of bytes takes twenty times as long as ReLU
        between conversions.
        """
        number, held = self._numbers[value], self._common(node.inputs)
        real = self._operand(node.inputs[0], held.layout)
        held = dataclasses.replace(held, name=real)
        if values is not None:
            real = self.inline(_between(self._source, *values), held)
        if number.kind != "int16":
            real = self.quantised(real, number, f"v{value}")
        return dataclasses.replace(held, name=real)

    # Rounding.

    def _real(self, value: int, step: Requantization) -> _Real:
        """Returns the step to a value in real numbers."""
        unit = np.ldexp(self._numbers[value].scale, -step.shift)
        half = 1 << (step.shift - 1)
        return _Real(step.multipliers * unit, (step.offsets - half) * unit)

    def _plus(self, value: int, held: Held, real: _Real) -> Held:
        """Adds the addend of a step to a tensor, unless it is 0."""
        if not real.addend.any():
            return held
        rank = len(self._shapes[value])
        addend = self._constant(f"{held.name}/addend", real.addend, held, rank)
        return dataclasses.replace(held, name=self.emit("Add", [held.name, addend]))

    def _rounded(self, value: int, held: Held, step: Requantization, name: str) -> Held:
        """Adds the rounding to a value, and limits that bytes do not have."""
        number = self._numbers[value]
        least, most = limits(number.kind)
        inside = step.low > least or step.high < most
        found = held.name
        if number.kind != "int16":
            found = self.quantised(found, number, "" if inside else name)
        if inside:
            found = self._clip(found, (step.low, step.high), number, name)
        return dataclasses.replace(held, name=found)

    def _clip(
        self, source: str, bounds: Sequence[int], number: Number, name: str
    ) -> str:
        integers = np.array(bounds)
        if number.kind == "int16":
            ends = (integers * number.scale).astype(np.float32)
        else:
            ends = (integers + _zero(number)).astype(np.uint8)
        arrays = [self.array(f"{name}/limit", each, ends.dtype) for each in ends]
        return self.emit("Clip", [source, *arrays], name)


def _zero(number: Number) -> int:
    """Returns the byte that stands for 0."""
    return 0 if number.kind == "uint8" else _ZERO


def _moved(node: IntegerNode, operation: Concatenate | Pad) -> Node:
    """Returns a node of bytes."""
    return Node(operation, node.inputs, node.shape)


def _whole(
    kernel: np.ndarray, real: _Real, source: Number
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns a layer whose bias, in the unit of its sums, is a whole number.

    Signs become larger numbers, so that this unit is small and the bias exact. A unit
    whose bias would leave 30 bits has a factor too small to matter, and no weights.

    Args:
      kernel: integers as float32 `[..., units]`.
      real: step to the result.
      source: integers that the layer takes.

    Returns:
      Integers `[..., units]`, their scale, float32 `[units]`, and the addend `[units]`.
    """
    factors, addend, weights = np.broadcast_arrays(
        real.factors, real.addend, np.abs(kernel).reshape(-1, kernel.shape[-1])
    )
    factors, addend = factors[0], addend[0]
    sums = weights.sum(0, dtype=np.float64) * limits("uint8")[1]
    largest = _LARGEST_SIGNED if addend.any() else 1
    finer = largest // weights.max(0, initial=1)
    finer = np.maximum(np.minimum(finer, 2**30 // np.maximum(sums, 1)), 1)
    size = np.maximum(np.abs(addend), 1e-20)
    most = np.minimum(2**30, 2**31 - 1 - sums)
    finer = np.minimum(finer, np.floor(most * np.abs(factors) / size))
    scale = np.where(finer > 0, np.abs(factors) / np.maximum(finer, 1), size / 2**30)
    scale = (scale / source.scale).astype(np.float32)
    return kernel * np.sign(factors) * finer, scale, addend


def _between(graph: Graph, first: int, last: int) -> Graph:
    """Returns the part of a graph that computes one value from another one."""
    needed = {last}
    for value in range(last, first, -1):
        if value in needed:
            needed.update(graph.nodes[value - 1].inputs)
    numbers = {value: number for number, value in enumerate(sorted(needed))}
    nodes = (graph.nodes[value - 1] for value in sorted(needed - {first}))
    return Graph(
        graph.shapes[first],
        tuple(
            dataclasses.replace(node, inputs=tuple(numbers[i] for i in node.inputs))
            for node in nodes
        ),
    )
