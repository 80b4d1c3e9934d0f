"""Program of a graph: the steps that the C code takes, and the buffers between them.

A step calls one function of the runtime. What only moves numbers (reshape, transpose,
slice, broadcast) is a view where possible, and no step. A layer takes a ReLU and a 2x2
max-pool that follow into its own step. The file is long because it holds a rule for
each operation.

A graph of integers becomes steps of the same kinds. They carry its requantisations.
"""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple, NoReturn, TypeAlias, cast

import numpy as np

from aslp_jax.export.c import views
from aslp_jax.export.c.functions import EXPRESSIONS, SUPPORTED
from aslp_jax.export.c.layers import Layer, conv_layer, dense_layer
from aslp_jax.export.c.views import View
from aslp_jax.export.integer.operations import (
    IntegerGraph,
    IntegerLayer,
    IntegerNode,
    IntegerProduct,
    IntegerSum,
    IntegerWindow,
    Lookup,
    Requantization,
    Rescale,
)
from aslp_jax.export.operations import (
    Binary,
    Broadcast,
    Concatenate,
    Conv,
    Dense,
    Graph,
    MatMul,
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
from aslp_jax.export.refusal import UnsupportedError

__all__ = [
    "AnyNode",
    "DType",
    "Map",
    "Place",
    "Pool",
    "Program",
    "Run",
    "Step",
    "make_program",
]

DType = Literal["float32", "uint8", "int8", "int16"]
"""Dtype of the numbers of a buffer, as NumPy names it."""

_SUPPORTED = (
    "1-D and 2-D convolutions, dense layers, matrix products, windows over up to two "
    "axes, sum, mean, max and min over axes, concatenate, pad, slice, reshape, "
    f"transpose, broadcast, select, and the functions {', '.join(SUPPORTED)}"
)

_EMPTY = {"sum": 0.0, "mean": 0.0, "max": -math.inf, "min": math.inf}
"""Result of each statistic for no numbers."""


class Place(NamedTuple):
    """Place of a number in a buffer."""

    buffer: int
    offset: int


@dataclasses.dataclass(frozen=True, eq=False)
class Run:
    """Step that computes a layer.

    Attributes:
      layer: the layer.
      operands: its input.
      out: place of its first result.
    """

    layer: Layer
    operands: tuple[Place]
    out: Place

    @property
    def requantization(self) -> Requantization | None:
        """Step from exact sums to the result; None for none."""
        return self.layer.requantization

    @property
    def scratch(self) -> int:
        """Number of floats that the step needs besides, for the sums of one unit.

        Sums of integers have an array of their own.
        """
        if self.layer.requantization is not None or not self.layer.pool:
            return 0
        return self.layer.height * self.layer.width


@dataclasses.dataclass(frozen=True, eq=False)
class Map:
    """Step that applies a function of up to three numbers in loops.

    Attributes:
      function: a key of `EXPRESSIONS`, or of `INTEGER_EXPRESSIONS`.
      sizes: size of each loop, the outermost first.
      steps: for each loop, the steps of the three operands and of the result.
      operands: the operands, of which an array is constant. Where a function has fewer
        than three, the first is repeated.
      out: place of the first result.
      is_part: True if the step copies one part of a concatenation.
      requantization: step from exact integers to the result; None for none.
    """

    function: str
    sizes: tuple[int, ...]
    steps: tuple[tuple[int, ...], ...]
    operands: tuple[Place | np.ndarray, ...]
    out: Place
    is_part: bool = False
    scratch: int = 0
    requantization: Requantization | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Pool:
    """Step that takes the sum or the maximum of windows.

    Attributes:
      fields: fields of `struct window`, in the order of their declaration.
      operands: the input.
      out: place of the first result.
      requantization: step from exact sums to the result; None for none.
    """

    fields: Mapping[str, int]
    operands: tuple[Place]
    out: Place
    scratch: int = 0
    requantization: Requantization | None = None


Step: TypeAlias = Run | Map | Pool
"""Step of a program."""

AnyNode: TypeAlias = Node | IntegerNode
"""Node of a graph of floats or of integers."""


class Program(NamedTuple):
    """Steps, and the buffers that hold what they take and give.

    Attributes:
      steps: steps in their order.
      sizes: count of numbers in each buffer; buffer 0 is the input of the network.
      dtypes: dtype of the numbers of each buffer.
      output: buffer of the output, row by row.
    """

    steps: tuple[Step, ...]
    sizes: tuple[int, ...]
    dtypes: tuple[DType, ...]
    output: int


def make_program(
    graph: Graph | IntegerGraph, *, channels_first: bool = True
) -> Program:
    """Returns the program of a graph.

    Args:
      graph: a simplified graph.
      channels_first: True if the input lies channel by channel; False if row by row.

    Raises:
      UnsupportedError: the C code cannot compute an operation.
    """
    shape = graph.input_shape
    order = views.channels_first(len(shape)) if channels_first else range(len(shape))
    nodes: Sequence[AnyNode] = graph.nodes
    dtypes: list[DType] = ["float32"] * len(graph.shapes)
    if isinstance(graph, IntegerGraph):
        dtypes = [number.kind for number in graph.numbers]
    whole = {0: views.stored(0, shape, tuple(order))}
    builder = _Builder([], [math.prod(shape)], dtypes[:1], whole)
    fused = _find_fused(nodes)
    done: set[int] = set()
    for value, node in enumerate(nodes, start=1):
        if value not in done:
            followers = fused.get(value, ())
            following = [nodes[each - 1] for each in followers]
            builder.add(value, node, following, dtypes[value])
            done.update(followers)
            for each in followers:
                builder.values[each] = builder.values[value]
    output = builder.finish(len(nodes))
    return Program(
        tuple(builder.steps), tuple(builder.sizes), tuple(builder.dtypes), output
    )


def _find_fused(nodes: Sequence[AnyNode]) -> dict[int, list[int]]:
    """Returns the values that are computed together with the one before them."""
    users: dict[int, list[int]] = {}
    for value, node in enumerate(nodes, start=1):
        for index in node.inputs:
            users.setdefault(index, []).append(value)
    fused = {}
    for value, node in enumerate(nodes, start=1):
        match node.operation:
            case Conv() | Dense():
                wanted = [_is_relu, _is_pool_2x2]
            case IntegerLayer():
                wanted = [_is_pool_2x2]
            case Binary("add"):
                wanted = [_is_relu]
            case _:
                continue
        found, last = [], value
        for is_wanted in wanted:
            following = users.get(last, [])
            if len(following) == 1 and is_wanted(nodes[following[0] - 1]):
                found += following
                last = following[0]
        fused[value] = found
    return fused


def _is_relu(node: AnyNode) -> bool:
    match node.operation:
        case Binary("max", constant) if constant is not None:
            return np.size(constant) == 1 and not np.any(constant)
    return False


def _is_pool_2x2(node: AnyNode) -> bool:
    match node.operation:
        case Window("max", (2, 2, 1), (2, 2, 1), padding):
            return not any(map(any, padding))
    return False


@dataclasses.dataclass(frozen=True, eq=False)
class _Builder:
    """The program so far.

    Attributes:
      steps: steps so far.
      sizes: count of numbers in each buffer so far.
      dtypes: dtype of each buffer so far.
      values: view of each value of the graph.
    """

    steps: list[Step]
    sizes: list[int]
    dtypes: list[DType]
    values: dict[int, View]

    def add(
        self,
        value: int,
        node: AnyNode,
        followers: Sequence[AnyNode],
        dtype: DType,
    ) -> None:
        """Adds the steps of an operation and of those that it takes with it."""
        operands = [self.values[index] for index in node.inputs]
        self.values[value] = self._compute(node, operands, followers, dtype)

    def finish(self, value: int) -> int:
        """Returns the buffer that holds a value alone, row by row."""
        view = self.values[value]
        in_rows = len(view.digits) <= 1 and self._is_whole(view, view.shape)
        if in_rows and view.buffer:
            return view.buffer
        return self._copy(view, tuple(range(len(view.axes)))).buffer

    def _compute(
        self,
        node: AnyNode,
        operands: list[View],
        followers: Sequence[AnyNode],
        dtype: DType,
    ) -> View:
        first, shape = operands[0], node.shape
        match node.operation:
            case Conv() | Dense() as layer if _is_supported(layer):
                return self._layer(layer, first, node, followers, dtype)
            case IntegerLayer(layer, step) if _is_supported(layer):
                return self._layer(layer, first, node, followers, dtype, step)
            case MatMul():
                return self._matmul(operands[0], operands[1], shape)
            case Unary(function) if function in EXPRESSIONS:
                return self._elementwise(function, operands, shape, dtype)
            case Binary(function, constant, constant_first) if function in EXPRESSIONS:
                parts: list[View | np.ndarray] = [*operands]
                if constant is not None:
                    parts.insert(0 if constant_first else 1, constant)
                function = f"{function}_relu" if followers else function
                return self._elementwise(function, parts, shape, dtype)
            case Select(constants):
                rest = iter(operands)
                parts = [next(rest) if each is None else each for each in constants]
                return self._elementwise("select", parts, shape, dtype)
            case Lookup(table, start):
                # The index of an entry is its integer modulo 256.
                parts = [first, np.roll(table, start).astype(dtype)]
                return self._elementwise("lookup", parts, shape, dtype)
            case Rescale(step):
                parts = [first, step.multipliers, step.offsets]
                return self._elementwise("rescale", parts, shape, dtype, step)
            case IntegerSum(step):
                return self._elementwise("sum", operands, shape, dtype, step)
            case IntegerProduct(step):
                return self._elementwise("product", operands, shape, dtype, step)
            case Reduce(function, axes):
                return self._reduce(function, axes, first, shape)
            case Window() as window:
                return self._window(window, first, node, dtype)
            case IntegerWindow(window, step):
                return self._window(window, first, node, dtype, step)
            case Reshape():
                reshaped = views.reshape(first, shape)
                if reshaped is None:
                    rows = self._copy(first, tuple(range(len(first.axes))))
                    reshaped = views.reshape(rows, shape)
                return cast(View, reshaped)
            case Broadcast():
                return views.broadcast(first, shape)
            case Transpose(permutation):
                return views.permute(first, permutation)
            case Slice(starts, strides):
                found = views.cut(first, starts, strides, shape)
                if found is None:
                    found = views.cut(self._copy(first), starts, strides, shape)
                return cast(View, found)
            case Concatenate(axis, constants):
                return self._concatenate(axis, constants, operands, shape, dtype)
            case Pad(padding, filler):
                return self._pad(padding, filler, first, shape, dtype)
        _refuse(node)

    def _new(
        self, shape: Shape, dtype: DType, order: Sequence[int] | None = None
    ) -> View:
        """Returns a new buffer, by default with its channels first."""
        self.sizes.append(math.prod(shape))
        self.dtypes.append(dtype)
        order = views.channels_first(len(shape)) if order is None else order
        return views.stored(len(self.sizes) - 1, shape, order)

    def _is_whole(self, view: View, shape: Shape) -> bool:
        """Returns True if a view has a shape and all numbers of its buffer."""
        return view.shape == shape and view.is_whole(self.sizes[view.buffer])

    def _copy(self, view: View, order: Sequence[int] | None = None) -> View:
        """Returns a view of the same numbers in a new buffer."""
        out = self._new(view.shape, self.dtypes[view.buffer], order)
        self._map("copy", [view], out)
        return out

    def _map(
        self,
        function: str,
        operands: Sequence[View | np.ndarray],
        out: View,
        *,
        is_part: bool = False,
        requantization: Requantization | None = None,
    ) -> bool:
        """Adds a step; returns False if its operands have no loops in common."""
        aligned: list[View] = []
        places: list[Place | np.ndarray] = []
        for each in operands:
            if isinstance(each, View):
                view = each
                places.append(Place(each.buffer, each.offset))
            else:
                is_table = function == "lookup"
                array = each if is_table else _shrink(each)
                if self.dtypes[out.buffer] == "float32":
                    array = array.astype(np.float32)
                shape = () if is_table else array.shape
                view = views.stored(-1, shape, range(len(shape)))
                places.append(array)
            aligned.append(views.broadcast(view, out.shape))
        missing = 3 - len(operands)
        aligned += aligned[:1] * missing
        places += places[:1] * missing
        found = views.loops([*aligned, out])
        if found is None:
            return False
        sizes, steps = found
        self.steps.append(
            Map(
                function,
                tuple(sizes),
                tuple(map(tuple, steps)),
                tuple(places),
                Place(out.buffer, out.offset),
                is_part,
                requantization=requantization,
            )
        )
        return True

    def _elementwise(
        self,
        function: str,
        operands: Sequence[View | np.ndarray],
        shape: Shape,
        dtype: DType,
        requantization: Requantization | None = None,
    ) -> View:
        """Adds a function of the numbers at each index of a shape."""
        out = self._new(shape, dtype)
        for each in operands:
            # The result may then take the place of the operand.
            if isinstance(each, View) and self._is_whole(each, shape):
                out = out._replace(axes=each.axes)
                break
        if not self._map(function, operands, out, requantization=requantization):
            copies = [
                self._copy(each) if isinstance(each, View) else each
                for each in operands
            ]
            out = self._new(shape, dtype)
            self._map(function, copies, out, requantization=requantization)
        return out

    def _layer(
        self,
        operation: Conv | Dense,
        source: View,
        node: AnyNode,
        followers: Sequence[AnyNode],
        dtype: DType,
        requantization: Requantization | None = None,
    ) -> View:
        found = views.planes(source)
        if found is None:
            source = self._copy(source)
            found = cast(tuple[int, int], views.planes(source))
        if isinstance(operation, Conv):
            layer = conv_layer(operation, source.shape, node.shape)
        else:
            layer = dense_layer(operation, found, node.shape)
        layer = dataclasses.replace(
            layer,
            requantization=requantization,
            relu=any(map(_is_relu, followers)),
            pool=any(map(_is_pool_2x2, followers)),
        )
        out = self._new([node, *followers][-1].shape, dtype)
        source_place = Place(source.buffer, source.offset)
        self.steps.append(Run(layer, (source_place,), Place(out.buffer, 0)))
        return out

    def _matmul(self, first: View, second: View, shape: Shape) -> View:
        out = self._new(shape, "float32")
        *batch, rows, inner = first.axes
        columns = second.axes[-1]
        repeated = [_repeated(size) for size in (*shape[-2:], first.shape[-1])]
        self._map("copy", [np.zeros((), np.float32)], out)
        operands = [
            out._replace(axes=(*out.axes[:-1], repeated[2], out.axes[-1])),
            first._replace(axes=(*batch, rows, inner, repeated[1])),
            second._replace(
                axes=(*second.axes[:-2], repeated[0], second.axes[-2], columns)
            ),
        ]
        if not self._map("multiply_add", operands, operands[0]):
            return self._matmul(self._copy(first), self._copy(second), shape)
        return out

    def _reduce(
        self, function: str, axes: Sequence[int], source: View, shape: Shape
    ) -> View:
        out = self._new(shape, "float32")
        self._map("copy", [np.array(_EMPTY[function], np.float32)], out)
        kept = iter(out.axes)
        spread = out._replace(
            axes=tuple(
                _repeated(size) if axis in axes else next(kept)
                for axis, size in enumerate(source.shape)
            )
        )
        combine = {"sum": "add", "mean": "add"}.get(function, function)
        self._map(combine, [spread, source], spread)
        if function == "mean":
            count = math.prod(source.shape[axis] for axis in axes)
            self._map("div", [out, np.array(count, np.float32)], out)
        return out

    def _window(
        self,
        window: Window,
        source: View,
        node: AnyNode,
        dtype: DType,
        requantization: Requantization | None = None,
    ) -> View:
        rank = len(node.shape)
        still = (1, 1, (0, 0))
        moving = [
            axis
            for axis, each in enumerate(
                zip(window.window, window.strides, window.padding, strict=True)
            )
            if each != still
        ]
        if len(moving) > 2:
            _refuse(node)
        space = list(range(rank - 1))[-2:]
        if not set(moving) <= set(space):
            space = moving
        planes = [axis for axis in views.channels_first(rank) if axis not in space]
        order = (*planes, *space)
        if views.permute(source, order).digits not in ((), ((_count(source), 1),)):
            source = self._copy(source, order)
        out = self._new(node.shape, dtype, order)

        def pair(numbers: Sequence[int], missing: int) -> tuple[int, int]:
            found = [missing] * (2 - len(space)) + [numbers[axis] for axis in space]
            return found[0], found[1]

        fields = {
            "is_sum": int(window.function == "sum"),
            "planes": math.prod(node.shape[axis] for axis in planes),
        }
        lows = [low for low, _ in window.padding]
        for names, numbers, missing in (
            (("in_height", "in_width"), source.shape, 1),
            (("height", "width"), node.shape, 1),
            (("rows", "columns"), window.window, 1),
            (("row_step", "column_step"), window.strides, 1),
            (("top", "left"), lows, 0),
        ):
            fields |= dict(zip(names, pair(numbers, missing), strict=True))
        place = Place(source.buffer, source.offset)
        self.steps.append(
            Pool(fields, (place,), Place(out.buffer, 0), requantization=requantization)
        )
        return out

    def _concatenate(
        self,
        axis: int,
        constants: Sequence[np.ndarray | None],
        operands: Sequence[View],
        shape: Shape,
        dtype: DType,
    ) -> View:
        out, rest, start = self._new(shape, dtype), iter(operands), 0
        for constant in constants:
            part = next(rest) if constant is None else constant.astype(dtype)
            starts = [start if each == axis else 0 for each in range(len(shape))]
            target = views.cut(out, starts, (1,) * len(shape), part.shape)
            self._map("copy", [part], cast(View, target), is_part=True)
            start += part.shape[axis]
        return out

    def _pad(
        self,
        padding: Sequence[tuple[int, int]],
        filler: float,
        source: View,
        shape: Shape,
        dtype: DType,
    ) -> View:
        out = self._new(shape, dtype)
        self._map("copy", [np.array(filler, dtype)], out)
        starts = [low for low, _ in padding]
        target = views.cut(out, starts, (1,) * len(shape), source.shape)
        self._map("copy", [source], cast(View, target))
        return out


def _repeated(size: int) -> views.Digits:
    """Returns the digits of an axis along which a number is repeated."""
    return ((size, 0),) if size > 1 else ()


def _count(view: View) -> int:
    """Returns the number of numbers in a view."""
    return math.prod(view.shape)


def _shrink(constant: np.ndarray) -> np.ndarray:
    """Returns a constant with size 1 along axes where it does not change."""
    array = np.asarray(constant)
    for axis in range(array.ndim):
        first = array.take([0], axis)
        if (array == first).all():
            array = first
    return array


def _is_supported(layer: Conv | Dense) -> bool:
    """Returns False for a convolution over more than two axes."""
    return isinstance(layer, Dense) or len(layer.strides) <= 2


def _refuse(node: AnyNode) -> NoReturn:
    operation = node.operation
    if isinstance(operation, IntegerLayer):
        operation = operation.layer
    words = [type(operation).__name__, getattr(operation, "function", "")]
    if getattr(operation, "name", ""):
        words.append(repr(operation.name))  # type: ignore[union-attr]
    about = " ".join(filter(None, words))
    raise UnsupportedError(
        f"c: {about} to {list(node.shape)} is not supported; supported are {_SUPPORTED}"
    )
