"""Channels of a graph: which ones are the same, which are constant, which must stay.

A channel is an index of the last axis of a value. An operation that keeps each channel
by itself, such as a ReLU, a sum or a pool, ties its channels to those of its inputs:
tied channels have one number and stay or go together. A channel of a concatenation, of
a flattened image or of a depthwise convolution has the number of the channel it is made
from. Channels of an operation that mixes them are pinned: they stay.

The file is long because it holds a rule for each operation.
"""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, cast

import numpy as np

from aslp_jax.export.operations import (
    Binary,
    Broadcast,
    Concatenate,
    Conv,
    Dense,
    Graph,
    Node,
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

__all__ = ["Channels", "is_depthwise", "read_channels"]

_UNARY: Mapping[str, Callable[[Any], Any]] = {
    "abs": np.abs,
    "ceil": np.ceil,
    "cos": np.cos,
    "erf": np.vectorize(math.erf, otypes=[np.float64]),
    "erfc": np.vectorize(math.erfc, otypes=[np.float64]),
    "exp": np.exp,
    "expm1": np.expm1,
    "floor": np.floor,
    "log": np.log,
    "log1p": np.log1p,
    "logistic": lambda x: 1 / (1 + np.exp(-x)),
    "neg": np.negative,
    "rsqrt": lambda x: 1 / np.sqrt(x),
    "sign": np.sign,
    "sin": np.sin,
    "sqrt": np.sqrt,
    "tanh": np.tanh,
}
"""Functions of a graph, in float64."""

_BINARY: Mapping[str, Callable[[Any, Any], Any]] = {
    "add": np.add,
    "div": np.divide,
    "eq": np.equal,
    "ge": np.greater_equal,
    "gt": np.greater,
    "le": np.less_equal,
    "lt": np.less,
    "max": np.maximum,
    "min": np.minimum,
    "mul": np.multiply,
    "ne": np.not_equal,
    "pow": np.power,
    "sub": np.subtract,
}
"""Functions of a graph, in float64."""


@dataclasses.dataclass(frozen=True, eq=False)
class Channels:
    """Channels of every value of a graph.

    Attributes:
      numbers: int `[channels]` for each value; tied channels have one number.
      constants: float64 `[channels]` for each value, NaN for a channel that varies over
        inputs or positions.
      chooses: True for each value whose operation chooses its channels freely: a dense
        layer, or a convolution of one group.
      pinned: bool `[count]`, True for each number whose channels must stay.
    """

    numbers: list[np.ndarray]
    constants: list[np.ndarray]
    chooses: list[bool]
    pinned: np.ndarray

    def of(self, flags: np.ndarray, value: int) -> np.ndarray:
        """Returns the flags of the channels of a value, from those of all numbers."""
        return flags[self.numbers[value]]


def is_depthwise(conv: Conv) -> bool:
    """Returns True if a convolution has one group for each input channel."""
    return conv.groups > 1 and conv.kernel.shape[-2] == 1


def read_channels(graph: Graph) -> Channels:
    """Finds the channels of every value of a graph."""
    reader = _Reader([], [], [], [])
    inputs = _count(graph.input_shape)
    reader.put(reader.fresh(inputs, pinned=True), np.full(inputs, np.nan))
    for node in graph.nodes:
        with np.errstate(all="ignore"):
            reader.read(node, [graph.shapes[index] for index in node.inputs])
    roots = np.array([reader.root(number) for number in range(len(reader.parents))])
    pinned = np.zeros(len(roots), bool)
    pinned[roots[np.asarray(reader.pinned, bool)]] = True
    numbers = [roots[each] for each in reader.numbers]
    pinned[numbers[-1]] = True
    chooses = [False, *(_chooses(node) for node in graph.nodes)]
    return Channels(numbers, reader.constants, chooses, pinned)


def _chooses(node: Node) -> bool:
    operation = node.operation
    return isinstance(operation, Dense) or (
        isinstance(operation, Conv) and operation.groups == 1
    )


def _count(shape: Shape) -> int:
    """Returns the number of channels of a shape; a single number is one."""
    return shape[-1] if shape else 1


@dataclasses.dataclass(frozen=True, eq=False)
class _Reader:
    """Channels of the values so far.

    Attributes:
      numbers: as in `Channels`, before ties.
      constants: as in `Channels`.
      parents: a number that each number is tied to, or itself.
      pinned: True for each number whose channel must stay.
    """

    numbers: list[np.ndarray]
    constants: list[np.ndarray]
    parents: list[int]
    pinned: list[bool]

    def root(self, number: int) -> int:
        """Returns the number that stands for all that are tied to one."""
        while self.parents[number] != number:
            self.parents[number] = self.parents[self.parents[number]]
            number = self.parents[number]
        return number

    def fresh(self, count: int, *, pinned: bool) -> np.ndarray:
        """Returns new numbers."""
        start = len(self.parents)
        self.parents.extend(range(start, start + count))
        self.pinned.extend([pinned] * count)
        return np.arange(start, start + count)

    def tie(self, first: np.ndarray, second: np.ndarray) -> None:
        """Ties channels pair by pair."""
        for one, other in zip(first.tolist(), second.tolist(), strict=True):
            self.parents[self.root(other)] = self.root(one)

    def pin(self, value: int) -> None:
        """Keeps all channels of a value."""
        for number in self.numbers[value].tolist():
            self.pinned[number] = True

    def put(self, numbers: np.ndarray, constants: np.ndarray) -> None:
        """Adds the channels of a value."""
        self.numbers.append(numbers)
        self.constants.append(np.where(np.isfinite(constants), constants, np.nan))

    def mix(self, node: Node) -> None:
        """Adds the channels of an operation that may mix them."""
        for index in node.inputs:
            self.pin(index)
        count = _count(node.shape)
        self.put(self.fresh(count, pinned=True), np.full(count, np.nan))

    def read(self, node: Node, shapes: list[Shape]) -> None:
        """Adds the channels of a node, whose inputs have the given shapes."""
        first, shape = node.inputs[0], shapes[0]
        numbers, constants = self.numbers[first], self.constants[first]
        last = len(shape) - 1
        match node.operation:
            case Conv() as conv if is_depthwise(conv):
                times = conv.kernel.shape[-1] // conv.groups
                repeated = np.repeat(constants, times)
                self.put(np.repeat(numbers, times), _depthwise_sums(conv, repeated))
            case (Conv() | Dense()) as layer if _chooses(node):
                found = _constant_sums(layer, constants)
                self.put(self.fresh(len(found), pinned=False), found)
            case Unary(function):
                self.put(numbers, _UNARY[function](constants))
            case Binary() | Select():
                self._elementwise(node)
            case Reduce(function, axes) if last not in axes:
                count = math.prod(shape[axis] for axis in axes)
                factor = count if function == "sum" else 1
                self.put(numbers, constants * factor)
            case Window(function, window, strides, padding) if (
                window[-1],
                strides[-1],
                padding[-1],
            ) == (1, 1, (0, 0)):
                self.put(numbers, _constant_windows(node.operation, constants))
            case Reshape() if shape and node.shape and node.shape[-1] % shape[-1] == 0:
                # Row by row, the numbers of a channel stay as far apart.
                times = node.shape[-1] // shape[-1]
                self.put(np.tile(numbers, times), np.tile(constants, times))
            case Broadcast() if shape and shape[-1] == node.shape[-1]:
                self.put(numbers, constants)
            case Transpose(permutation) if permutation[-1:] == (last,):
                self.put(numbers, constants)
            case Concatenate():
                self._concatenation(node)
            case Pad(padding, value) if padding and padding[-1] == (0, 0):
                same = constants == value
                self.put(numbers, np.where(same, constants, np.nan))
            case Slice(starts, strides) if strides and strides[-1] == 1:
                part = slice(starts[-1], starts[-1] + node.shape[-1])
                self.put(numbers[part], constants[part])
            case _:
                self.mix(node)

    def _elementwise(self, node: Node) -> None:
        """Adds the channels of a function of several operands."""
        count, operation = _count(node.shape), node.operation
        whole = [index for index in node.inputs if len(self.numbers[index]) == count]
        if not whole:
            self.mix(node)
            return
        for index in node.inputs:
            if index in whole:
                self.tie(self.numbers[whole[0]], self.numbers[index])
            else:
                self.pin(index)
        operands = [
            np.broadcast_to(self.constants[index], (count,)) for index in node.inputs
        ]
        if isinstance(operation, Binary):
            if operation.constant is not None:
                operands.append(_by_channel(operation.constant, count))
            if operation.constant_first:
                operands.reverse()
            found = _BINARY[operation.function](*operands)
        else:
            operation = cast(Select, operation)
            rest = iter(operands)
            operands = [
                next(rest) if each is None else _by_channel(each, count)
                for each in operation.constants
            ]
            found = np.where(operands[0] != 0, operands[2], operands[1])
        varies = np.isnan(operands).any(0)
        self.put(self.numbers[whole[0]], np.where(varies, np.nan, found))

    def _concatenation(self, node: Node) -> None:
        """Adds the channels of a concatenation."""
        operation = cast(Concatenate, node.operation)
        rest = iter(node.inputs)
        numbers, constants = [], []
        by_channel = operation.axis == len(node.shape) - 1
        for each in operation.constants:
            if each is None:
                index = next(rest)
                numbers.append(self.numbers[index])
                constants.append(self.constants[index])
            else:
                count = each.shape[-1]
                numbers.append(self.fresh(count, pinned=False))
                constants.append(_by_channel(each, count))
        if by_channel:
            self.put(np.concatenate(numbers), np.concatenate(constants))
            return
        for other in numbers[1:]:
            self.tie(numbers[0], other)
        same = np.logical_and.reduce([each == constants[0] for each in constants])
        self.put(numbers[0], np.where(same, constants[0], np.nan))


def _by_channel(constant: np.ndarray, count: int) -> np.ndarray:
    """Returns a constant's number for each channel, NaN where it varies.

    Args:
      constant: array that broadcasts.
      count: number of channels.
    """
    array = np.asarray(constant, np.float64)
    rows = array.reshape(-1, array.shape[-1] if array.ndim else 1)
    same = (rows == rows[:1]).all(0)
    return np.broadcast_to(np.where(same, rows[0], np.nan), (count,))


def _scale_and_shift(layer: Conv | Dense, sums: np.ndarray) -> np.ndarray:
    """Applies the scales and shifts of a layer to its sums."""
    sums = sums if layer.scale is None else sums * layer.scale
    return sums if layer.shift is None else sums + layer.shift


def _known(layer: Conv | Dense, inputs: np.ndarray) -> np.ndarray:
    """Returns True for each input whose contribution is the same everywhere."""
    pads = isinstance(layer, Conv) and any(map(any, layer.padding))
    return inputs == 0 if pads else ~np.isnan(inputs)


def _constant_sums(layer: Conv | Dense, inputs: np.ndarray) -> np.ndarray:
    """Returns a layer's constant outputs, NaN for the others."""
    known, window = _known(layer, inputs), tuple(range(layer.kernel.ndim - 2))
    varying = (layer.kernel[..., ~known, :] != 0).any((*window, -2))
    weights = layer.kernel[..., known, :].sum(window, dtype=np.float64)
    return np.where(varying, np.nan, _scale_and_shift(layer, inputs[known] @ weights))


def _depthwise_sums(conv: Conv, inputs: np.ndarray) -> np.ndarray:
    """Returns a depthwise convolution's constant outputs, NaN for the others.

    Args:
      conv: the convolution.
      inputs: float64 `[out_channels]`, the constant input of each output, or NaN.
    """
    window = tuple(range(conv.kernel.ndim - 1))
    known = _known(conv, inputs)
    varying = ~known & (conv.kernel != 0).any(window)
    sums = np.where(known, inputs, 0) * conv.kernel.sum(window, dtype=np.float64)
    return np.where(varying, np.nan, _scale_and_shift(conv, sums))


def _constant_windows(window: Window, constants: np.ndarray) -> np.ndarray:
    """Returns the windows of constant channels, NaN where they vary."""
    if window.function == "max":
        empty = any(
            max(pads) >= size
            for pads, size in zip(window.padding, window.window, strict=True)
        )
        return np.full_like(constants, np.nan) if empty else constants
    if any(map(any, window.padding)):
        return np.where(constants == 0, constants, np.nan)
    return constants * math.prod(window.window)
