"""Graph of a network: one operation a node, and the values between them.

A graph is what exporters start from. It knows no framework: `trace` makes it from the
jaxpr of any function. Shapes are those of one example, without the batch; channels come
last. The file is long because it holds each operation and how it is computed.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from types import ModuleType
from typing import Any, Literal, TypeAlias

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "BINARY",
    "UNARY",
    "Binary",
    "Broadcast",
    "Concatenate",
    "Conv",
    "Dense",
    "Graph",
    "MatMul",
    "Node",
    "Operation",
    "Origin",
    "Pad",
    "Pads",
    "Reduce",
    "Reshape",
    "Select",
    "Shape",
    "Slice",
    "Transpose",
    "Unary",
    "Window",
    "compute",
    "move",
    "run",
    "run_all",
]

Shape: TypeAlias = tuple[int, ...]
"""Size along each axis of one example."""

Pads: TypeAlias = tuple[tuple[int, int], ...]
"""Positions before and after each axis."""

UNARY: Mapping[str, Callable[[Any], jax.Array]] = {
    "abs": jnp.abs,
    "ceil": jnp.ceil,
    "cos": jnp.cos,
    "erf": jax.lax.erf,
    "erfc": jax.lax.erfc,
    "exp": jnp.exp,
    "expm1": jnp.expm1,
    "floor": jnp.floor,
    "log": jnp.log,
    "log1p": jnp.log1p,
    "logistic": jax.nn.sigmoid,
    "neg": jnp.negative,
    "rsqrt": jax.lax.rsqrt,
    "sign": jnp.sign,
    "sin": jnp.sin,
    "sqrt": jnp.sqrt,
    "tanh": jnp.tanh,
}
"""Functions of one number, by the name of their JAX primitive."""

BINARY: Mapping[str, Callable[[Any, Any], jax.Array]] = {
    "add": jnp.add,
    "div": jnp.divide,
    "eq": jnp.equal,
    "ge": jnp.greater_equal,
    "gt": jnp.greater,
    "le": jnp.less_equal,
    "lt": jnp.less,
    "max": jnp.maximum,
    "min": jnp.minimum,
    "mul": jnp.multiply,
    "ne": jnp.not_equal,
    "pow": jnp.power,
    "sub": jnp.subtract,
}
"""Functions of two numbers, by the name of their JAX primitive."""


@dataclasses.dataclass(frozen=True)
class Origin:
    """Weight that a kernel is made from, without any arithmetic.

    Attributes:
      name: path of the weight in the tree of weights.
      arrange: function from an array of the weight's shape to one of the kernel's,
        which only moves numbers.
    """

    name: str
    arrange: Callable[[Any], Any]

    def then(self, move: Callable[[Any], Any]) -> "Origin":
        """Returns the origin of what a function makes that only moves numbers."""
        return Origin(self.name, lambda weight: move(self.arrange(weight)))


@dataclasses.dataclass(frozen=True, eq=False)
class Conv:
    """Convolution with a constant kernel, then a scale and a shift for each channel.

    Attributes:
      name: path of the kernel in the tree of weights, such as `"Conv_0/kernel"`; empty
        if it is no weight, or one with its axes in another order.
      kernel: float32 `[*window, in_channels / groups, out_channels]`.
      strides: pixels, one for each axis of the window.
      padding: zeros before and after each of those axes.
      dilation: distance of neighbouring taps in pixels, one for each of those axes.
      groups: number of groups that the channels are divided into.
      scale: float32 `[out_channels]`, multiplies the sums; None is 1.
      shift: float32 `[out_channels]`, added after the scale; None is 0.
      origin: weight that the kernel is made from; None if there is none.
    """

    name: str
    kernel: np.ndarray
    strides: tuple[int, ...]
    padding: Pads
    dilation: tuple[int, ...]
    groups: int = 1
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    origin: Origin | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Dense:
    """Product of the last axis with a constant matrix, then a scale and a shift.

    Attributes:
      name: path of the kernel in the tree of weights, as in `Conv`.
      kernel: float32 `[inputs, outputs]`.
      scale: float32 `[outputs]`; None is 1.
      shift: float32 `[outputs]`; None is 0.
      origin: weight that the kernel is made from, as in `Conv`.
    """

    name: str
    kernel: np.ndarray
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    origin: Origin | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class MatMul:
    """Matrix product of two values, `[*batch, rows, k]` with `[*batch, k, columns]`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Unary:
    """Function of each number.

    Attributes:
      function: a key of `UNARY`.
    """

    function: str


@dataclasses.dataclass(frozen=True, eq=False)
class Binary:
    """Function of two numbers, where shapes broadcast.

    Attributes:
      function: a key of `BINARY`.
      constant: the operand that no input reaches, which broadcasts to the result; None
        where both operands are values.
      constant_first: True if the constant is the first operand.
    """

    function: str
    constant: np.ndarray | None = None
    constant_first: bool = False


@dataclasses.dataclass(frozen=True, eq=False)
class Select:
    """The third operand where the first is true, else the second.

    Attributes:
      constants: the operands that no input reaches, None for each that is a value.
    """

    constants: tuple[np.ndarray | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Reduce:
    """Sum, mean, maximum or minimum over axes, which the result lacks.

    Attributes:
      function: statistic of the numbers.
      axes: axes of the input.
    """

    function: Literal["sum", "mean", "max", "min"]
    axes: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Window:
    """Sum or maximum of windows, which lie over all axes.

    Attributes:
      function: statistic of the numbers of a window.
      window: size along each axis.
      strides: steps along each axis.
      padding: positions before and after each axis, which count 0 in a sum and minus
        infinity in a maximum.
    """

    function: Literal["sum", "max"]
    window: tuple[int, ...]
    strides: tuple[int, ...]
    padding: Pads


@dataclasses.dataclass(frozen=True, eq=False)
class Reshape:
    """The same numbers, row by row, in another shape."""


@dataclasses.dataclass(frozen=True, eq=False)
class Broadcast:
    """The same numbers, repeated along new first axes and axes of size 1."""


@dataclasses.dataclass(frozen=True, eq=False)
class Transpose:
    """The same numbers with their axes in another order.

    Attributes:
      permutation: axes of the input in the order of the result.
    """

    permutation: tuple[int, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Concatenate:
    """Values and constants one after another.

    Attributes:
      axis: axis along which they follow one another.
      constants: constant parts, None for each part that is a value.
    """

    axis: int
    constants: tuple[np.ndarray | None, ...]


@dataclasses.dataclass(frozen=True, eq=False)
class Pad:
    """The input with a constant around it.

    Attributes:
      padding: positions before and after each axis, 0 or more.
      value: the constant.
    """

    padding: Pads
    value: float


@dataclasses.dataclass(frozen=True, eq=False)
class Slice:
    """Every stride-th position from a start, as many as the result has.

    Attributes:
      starts: first position along each axis.
      strides: steps along each axis.
    """

    starts: tuple[int, ...]
    strides: tuple[int, ...]


Operation: TypeAlias = (
    Conv
    | Dense
    | MatMul
    | Unary
    | Binary
    | Select
    | Reduce
    | Window
    | Reshape
    | Broadcast
    | Transpose
    | Concatenate
    | Pad
    | Slice
)
"""Operation of a node."""


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """An operation in its place.

    Attributes:
      operation: operation of this node.
      inputs: numbers of the values it takes; value 0 is the input of the network, value
        i the result of node i - 1.
      shape: shape of the result.
    """

    operation: Operation
    inputs: tuple[int, ...]
    shape: Shape


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A network; the result of the last node is its output.

    Attributes:
      input_shape: shape of the input.
      nodes: operations, each after those whose results it takes.
    """

    input_shape: Shape
    nodes: tuple[Node, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of every value."""
        return (self.input_shape, *(node.shape for node in self.nodes))

    @property
    def uses(self) -> tuple[int, ...]:
        """Number of times that each value is taken; the output counts as taken once."""
        counts = [0] * (len(self.nodes) + 1)
        for node in self.nodes:
            for index in node.inputs:
                counts[index] += 1
        counts[-1] += 1
        return tuple(counts)


def run(graph: Graph, inputs: jax.Array) -> jax.Array:
    """Computes a graph with `jax.numpy`.

    Args:
      graph: the network.
      inputs: float32 `[batch, *input_shape]`.

    Returns:
      `[batch, *shape]` of the last node.
    """
    return run_all(graph, inputs)[-1]


def run_all(graph: Graph, inputs: jax.Array) -> list[jax.Array]:
    """Computes every value of a graph, as `run`; the input is the first."""
    values = [inputs]
    for node in graph.nodes:
        values.append(compute(node, [values[index] for index in node.inputs]))
    return values


def compute(node: Node, operands: Sequence[jax.Array]) -> jax.Array:
    """Computes one node with `jax.numpy`.

    Args:
      node: operation in its place.
      operands: the values that it takes, float32 `[batch, *shape]`.

    Returns:
      `[batch, *node.shape]`.
    """
    first = operands[0]
    match node.operation:
        case Conv() as conv:
            axes = "DHW"[-len(conv.strides) :]
            result = jax.lax.conv_general_dilated(
                first,
                jnp.asarray(conv.kernel),
                conv.strides,
                conv.padding,
                rhs_dilation=conv.dilation,
                feature_group_count=conv.groups,
                dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
            )
            return _scale_and_shift(conv, result)
        case Dense() as dense:
            return _scale_and_shift(dense, first @ jnp.asarray(dense.kernel))
        case MatMul():
            return operands[0] @ operands[1]
        case Unary(function):
            return UNARY[function](first)
        case Binary(function, constant, constant_first):
            if constant is not None:
                other = _align(constant, first.ndim)
                pair = (other, first) if constant_first else (first, other)
            else:
                pair = (operands[0], operands[1])
            # A comparison gives 1 for true and 0 for false.
            return BINARY[function](*pair).astype(jnp.float32)
        case Select(constants):
            rest = iter(operands)
            parts = [
                next(rest) if each is None else _align(each, len(node.shape) + 1)
                for each in constants
            ]
            return jnp.where(parts[0].astype(bool), parts[2], parts[1])
        case Reduce(function, axes):
            over = tuple(axis + 1 for axis in axes)
            return getattr(jnp, function)(first, axis=over)
        case Window() as window:
            return _window(window, first)
        case _:
            return move(node.operation, node.shape, operands, jnp)


def move(
    operation: Any, shape: Shape, operands: Sequence[Any], numpy: ModuleType
) -> Any:
    """Computes an operation that only moves numbers, of any dtype.

    Args:
      operation: the operation.
      shape: shape of the result.
      operands: the values that it takes, `[batch, *shape]`.
      numpy: `numpy` or `jax.numpy`.

    Returns:
      `[batch, *shape]`.

    Raises:
      TypeError: the operation computes numbers, or is none.
    """
    first = operands[0]
    batch = first.shape[0]
    match operation:
        case Reshape():
            return first.reshape(batch, *shape)
        case Broadcast():
            missing = (1,) * (len(shape) + 1 - first.ndim)
            first = first.reshape(batch, *missing, *first.shape[1:])
            return numpy.broadcast_to(first, (batch, *shape))
        case Transpose(permutation):
            return first.transpose(0, *(axis + 1 for axis in permutation))
        case Concatenate(axis, constants):
            rest = iter(operands)
            parts = [
                next(rest)
                if each is None
                else numpy.broadcast_to(each, (batch, *each.shape))
                for each in constants
            ]
            return numpy.concatenate(parts, axis + 1)
        case Pad(padding, value):
            return numpy.pad(first, ((0, 0), *padding), constant_values=value)
        case Slice(starts, strides):
            spans = (
                slice(start, start + (size - 1) * stride + 1, stride)
                for start, stride, size in zip(starts, strides, shape, strict=True)
            )
            return first[(slice(None), *spans)]
    raise TypeError(f"run: {type(operation).__name__} is no operation")


def _align(constant: np.ndarray, rank: int) -> jax.Array:
    """Puts axes of size 1 before a constant, up to a number of axes."""
    constant = np.asarray(constant, np.float32)
    return jnp.asarray(constant.reshape((1,) * (rank - constant.ndim) + constant.shape))


def _scale_and_shift(layer: Conv | Dense, x: jax.Array) -> jax.Array:
    for array, function in ((layer.scale, jnp.multiply), (layer.shift, jnp.add)):
        if array is not None:
            x = function(x, _align(array, x.ndim))
    return x


def _window(window: Window, x: jax.Array) -> jax.Array:
    start, function = {
        "sum": (0.0, jax.lax.add),
        "max": (-jnp.inf, jax.lax.max),
    }[window.function]
    return jax.lax.reduce_window(
        x,
        np.asarray(start, x.dtype),
        function,
        (1, *window.window),
        (1, *window.strides),
        ((0, 0), *window.padding),
    )
