"""Operators of ONNX for the operations of a graph.

ONNX's convolutions and pools take channels first, so images stay in that layout from
layer to layer. Each value is held in the layout in which it was computed, and brought
into another one only where an operation needs it. The file is long because it holds a
rule for each operation.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import onnx.helper
import onnx.numpy_helper

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
from aslp_jax.export.signs import signs

__all__ = ["Held", "Layout", "Operators", "Storage", "axis_order", "layer_path"]

Storage = Literal["float", "int8"]
"""Way to store the weights."""

Layout = Literal["plain", "first", "flat"]
"""Order of a value's axes: as in the graph; channels first; an image that was flattened
with its channels first."""

_UNARY: dict[str, tuple[str, ...]] = {
    "abs": ("Abs",),
    "ceil": ("Ceil",),
    "cos": ("Cos",),
    "erf": ("Erf",),
    "exp": ("Exp",),
    "floor": ("Floor",),
    "log": ("Log",),
    "logistic": ("Sigmoid",),
    "neg": ("Neg",),
    "rsqrt": ("Sqrt", "Reciprocal"),
    "sign": ("Sign",),
    "sin": ("Sin",),
    "sqrt": ("Sqrt",),
    "tanh": ("Tanh",),
}
"""Functions of one number, as operators one after another."""

_BINARY = {
    "add": "Add",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "mul": "Mul",
    "pow": "Pow",
    "sub": "Sub",
}
"""Functions of two numbers."""

_COMPARISONS = {
    "eq": "Equal",
    "ge": "GreaterOrEqual",
    "gt": "Greater",
    "le": "LessOrEqual",
    "lt": "Less",
    "ne": "Equal",
}
"""Functions of two numbers whose result is true or false."""

_REDUCTIONS = {
    "max": "ReduceMax",
    "mean": "ReduceMean",
    "min": "ReduceMin",
    "sum": "ReduceSum",
}
"""Functions of the numbers along axes."""


@dataclasses.dataclass(frozen=True)
class Held:
    """A value as a tensor.

    Attributes:
      name: name of the tensor.
      layout: order of its axes.
      dims: shape of the image that was flattened; empty for the other layouts.
    """

    name: str
    layout: Layout = "plain"
    dims: Shape = ()


class Operators:
    """Operators and arrays of a model, added one after another.

    Attributes:
      storage: way to store the kernels.
      dtype: dtype of the values.
      nodes: operators so far.
      arrays: constant arrays so far, by name.
    """

    dtype: Any = np.float32

    def __init__(self, storage: Storage) -> None:
        self.storage = storage
        self.nodes: list[Any] = []
        self.arrays: dict[str, np.ndarray] = {}
        self._names: set[str] = set()
        self._held: list[Held] = []
        self._shapes: tuple[Shape, ...] = ()
        self._uses: tuple[int, ...] = ()
        self._bools: set[int] = set()
        self._moved: dict[tuple[int, Layout], str] = {}
        self._scaled: dict[int, tuple[Held, float]] = {}
        self._below: dict[int, tuple[Held, float]] = {}

    def array(self, name: str, array: Any, dtype: Any = np.float32) -> str:
        """Adds a constant array and returns its name, which may get a number."""
        array = np.ascontiguousarray(array, dtype).reshape(np.shape(array))
        wanted, number = name, 1
        while name in self._names:
            known = self.arrays.get(name)
            if (
                known is not None
                and known.dtype == array.dtype
                and np.array_equal(known, array)
            ):
                return name
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        self.arrays[name] = array
        return name

    def emit(
        self, kind: str, inputs: Sequence[str], name: str = "", **attributes: Any
    ) -> str:
        """Adds an operator and returns the name of its result."""
        wanted, number = name or f"{inputs[0]}/{kind}", 1
        name = wanted
        while name in self._names:
            number += 1
            name = f"{wanted}_{number}"
        self._names.add(name)
        self.nodes.append(
            onnx.helper.make_node(kind, list(inputs), [name], name=name, **attributes)
        )
        return name

    def add(self, graph: Graph, source: str, result: str) -> None:
        """Adds the operators of a graph.

        Args:
          graph: the network.
          source: name of the input, `[batch, *shape]`; channels come first if it is an
            image, which has three axes.
          result: name of the output, `[batch, *shape]`.
        """
        self._begin(source, graph.shapes)
        self._end(source, self._values(graph, "plain"), result)

    def inline(self, graph: Graph, source: Held) -> str:
        """Adds functions of each number of a tensor and returns the result's name.

        Args:
          graph: functions of each number, float32.
          source: the tensor, and the layout of the result.
        """
        inner = Operators(self.storage)
        inner.nodes, inner.arrays, inner._names = self.nodes, self.arrays, self._names
        inner._held = [source]
        return inner._values(graph, source.layout)

    def plain(self, value: int) -> str:
        """Returns the tensor of a value, its axes as in the graph."""
        return self._as(value, "plain")

    # Layouts.

    def _operand(self, value: int, layout: Layout) -> str:
        """Returns the tensor of a value that a layer takes, in a layout."""
        return self._as(value, layout)

    def _as(self, value: int, layout: Layout) -> str:
        """Returns the tensor of a value in a layout, numbers for true and false."""
        held = self._held[value]
        if value in self._bools:
            cast = self.emit("Cast", [held.name], to=onnx.TensorProto.FLOAT)
            held = dataclasses.replace(held, name=cast)
            self._held[value] = held
            self._bools.discard(value)
        rank = len(self._shapes[value])
        if held.layout == layout or (rank < 2 and held.layout != "flat"):
            return held.name
        if (value, layout) in self._moved:
            return self._moved[value, layout]
        name = held.name
        if held.layout == "flat":
            *pixels, channels = held.dims
            name = self._reshape(name, (channels, *pixels))
            name = self._transpose(name, axis_order("first", len(held.dims)), "plain")
            name = self._reshape(name, self._shapes[value])
        else:
            name = self._transpose(name, axis_order(held.layout, rank), layout)
        self._moved[value, layout] = name
        return name

    def _transpose(self, name: str, order: Sequence[int], layout: Layout) -> str:
        """Adds a transpose from an order of axes to a layout."""
        wanted = axis_order(layout, len(order))
        axes = [tuple(order).index(axis) for axis in wanted]
        if axes == list(range(len(axes))):
            return name
        return self.emit("Transpose", [name], perm=[0, *(axis + 1 for axis in axes)])

    def _reshape(self, name: str, shape: Sequence[int], result: str = "") -> str:
        """Adds a reshape; the batch stays."""
        sizes = self.array(f"shape_{'x'.join(map(str, shape))}", [0, *shape], np.int64)
        return self.emit("Reshape", [name, sizes], result)

    def _common(self, values: Sequence[int]) -> Held:
        """Returns the layout in which several values are best taken together."""
        held = [self._held[value] for value in values]
        layouts = {each.layout for each in held}
        rank = len(self._shapes[values[0]])
        if layouts == {"flat"} and len({each.dims for each in held}) == 1:
            return dataclasses.replace(held[0], name="")
        if layouts == {"first"} or ("first" in layouts and rank > 2):
            return Held("", "first")
        return Held("")

    def _constant(self, name: str, array: Any, held: Held, rank: int) -> str:
        """Adds a constant that broadcasts, in a layout."""
        array = np.asarray(array, np.float32)
        if array.size == 1:
            return self.array(name, array.reshape(()))
        array = array.reshape((1,) * (rank - array.ndim) + array.shape)
        if held.layout == "flat":
            array = _channels_first(array.reshape(held.dims)).reshape(-1)
        elif held.layout == "first":
            array = array.transpose(axis_order("first", rank))
        return self.array(name, array)

    # Rules.

    def _node(self, value: int, node: Node) -> Held:
        """Adds the operators of a node and returns its result."""
        name, first = f"v{value}", node.inputs[0]
        match node.operation:
            case Conv() as conv:
                return self._conv(conv, node, name)
            case Dense() as dense:
                return self._dense(dense, node, name)
            case MatMul():
                return Held(
                    self.emit("MatMul", list(map(self.plain, node.inputs)), name)
                )
            case Unary(function):
                held = self._common([first])
                source = self._as(first, held.layout)
                return dataclasses.replace(
                    held, name=self._unary(function, source, name)
                )
            case Binary() as binary:
                return self._binary(value, binary, node, name)
            case Select(constants):
                return self._select(constants, node, name)
            case Reduce(function, axes):
                return self._reduce(function, axes, node, name)
            case Window() as window:
                return self._window(value, window, node, name)
            case Reshape():
                return self._reshaped(node, name)
            case Broadcast():
                held = self._common([first])
                if held.layout == "flat":
                    held = Held("")
                sizes = [
                    node.shape[axis]
                    for axis in axis_order(held.layout, len(node.shape))
                ]
                shape = self.array(f"{name}/shape", [1, *sizes], np.int64)
                source = self._as(first, held.layout)
                return dataclasses.replace(
                    held, name=self.emit("Expand", [source, shape], name)
                )
            case Transpose(permutation):
                return self._transposed(permutation, node, name)
            case Concatenate() as parts:
                return self._concatenate(parts, node, name)
            case Pad(padding, number):
                held = self._unflattened([first])
                order = axis_order(held.layout, len(padding))
                low, high = ([padding[axis][side] for axis in order] for side in (0, 1))
                pads = self.array(f"{name}/pads", [0, *low, 0, *high], np.int64)
                filler = self.array(f"{name}/value", number, self.dtype)
                sources = [self._as(first, held.layout), pads, filler]
                return dataclasses.replace(held, name=self.emit("Pad", sources, name))
            case Slice(starts, strides):
                return self._slice(starts, strides, node, name)
        raise TypeError(f"onnx: {type(node.operation).__name__} is no operation")

    def _unflattened(self, values: Sequence[int]) -> Held:
        """Returns a common layout that has an axis for each of the graph's."""
        held = self._common(values)
        return Held("") if held.layout == "flat" else held

    def _conv(self, conv: Conv, node: Node, name: str) -> Held:
        axes = len(conv.strides)
        kernel = conv.kernel.transpose(axes + 1, axes, *range(axes))
        inputs = [self._operand(node.inputs[0], "first")]
        inputs.append(self._kernel(conv, kernel, (-1, *(1,) * (axes + 1)), name))
        inputs += self._bias(conv, node.inputs[0], name)
        attributes: dict[str, Any] = {
            "kernel_shape": conv.kernel.shape[:axes],
            "pads": [pads[side] for side in (0, 1) for pads in conv.padding],
            "strides": conv.strides,
        }
        if set(conv.dilation) != {1}:
            attributes["dilations"] = conv.dilation
        if conv.groups != 1:
            attributes["group"] = conv.groups
        return Held(self.emit("Conv", inputs, name, **attributes), "first")

    def _dense(self, dense: Dense, node: Node, name: str) -> Held:
        first, rank, kernel = node.inputs[0], len(node.shape), dense.kernel
        held = self._held[first]
        if rank == 1:
            if held.layout == "flat":
                image = kernel.reshape(*held.dims, -1)
                order = axis_order("first", len(held.dims))
                kernel = image.transpose(*order, image.ndim - 1).reshape(kernel.shape)
            flat = held.layout == "flat"
            inputs = [self._operand(first, "flat" if flat else "plain")]
            inputs.append(self._kernel(dense, kernel, (-1,), name))
            inputs += self._bias(dense, first, name)
            return Held(self.emit("Gemm", inputs, name))
        if held.layout == "first" and rank in (3, 4):
            window = (1,) * (rank - 1)
            kernel = kernel.T.reshape(*kernel.shape[::-1], *window)
            inputs = [self._operand(first, "first")]
            inputs.append(self._kernel(dense, kernel, (-1, *(1,) * rank), name))
            inputs += self._bias(dense, first, name)
            found = self.emit("Conv", inputs, name, kernel_shape=window)
            return Held(found, "first")
        inputs = [self._operand(first, "plain")]
        inputs.append(self._kernel(dense, kernel, (-1,), name))
        if dense.shift is None:
            return Held(self.emit("MatMul", inputs, name))
        product = self.emit("MatMul", inputs, f"{name}/MatMul")
        shift = self.array(f"{layer_path(dense, name)}/bias", dense.shift)
        return Held(self.emit("Add", [product, shift], name))

    def _bias(self, layer: Conv | Dense, value: int, name: str) -> list[str]:
        """Adds the shift of a layer, if it has one, and returns its name.

        Args:
          layer: the layer.
          value: the value that it takes.
          name: name of the layer's result.
        """
        if layer.shift is None:
            return []
        return [self.array(f"{layer_path(layer, name)}/bias", layer.shift)]

    def _kernel(
        self, layer: Conv | Dense, kernel: np.ndarray, shape: Shape, name: str
    ) -> str:
        """Adds a kernel, multiplied by the scales of its units, and returns its name.

        Args:
          layer: the layer.
          kernel: its kernel in the layout of ONNX.
          shape: shape in which the scales broadcast to the kernel.
          name: name of the layer's result.
        """
        path, scale = layer.name or f"{name}/kernel", layer.scale
        if self.storage == "float":
            if scale is not None:
                kernel = kernel * np.reshape(scale, shape)
            return self.array(path, kernel)
        ternary, magnitude = signs(kernel, path)
        factor: Any = magnitude
        if scale is not None:
            factor = np.reshape(magnitude * scale, shape)
        stored = self.array(f"{path}/signs", ternary, np.int8)
        cast = self.emit("Cast", [stored], to=onnx.TensorProto.FLOAT)
        scales = self.array(f"{path}/scale", factor)
        return self.emit("Mul", [cast, scales], path)

    def _unary(self, function: str, source: str, name: str) -> str:
        one = self.array("one", np.float32(1))
        match function:
            case "erfc":
                return self.emit("Sub", [one, self.emit("Erf", [source])], name)
            case "expm1":
                return self.emit("Sub", [self.emit("Exp", [source]), one], name)
            case "log1p":
                return self.emit("Log", [self.emit("Add", [source, one])], name)
        *before, last = _UNARY[function]
        for kind in before:
            source = self.emit(kind, [source])
        return self.emit(last, [source], name)

    def _binary(self, value: int, binary: Binary, node: Node, name: str) -> Held:
        function, number = binary.function, None
        if binary.constant is not None and np.size(binary.constant) == 1:
            number = float(np.ravel(binary.constant)[0])
        held = self._common(node.inputs)
        if number is not None and not binary.constant_first:
            known = self._simple(value, function, number, node, name)
            if known is not None:
                return known
        inputs = [self._as(index, held.layout) for index in node.inputs]
        if binary.constant is not None:
            rank = len(node.shape)
            inputs.append(
                self._constant(f"{name}/constant", binary.constant, held, rank)
            )
        if binary.constant_first:
            inputs.reverse()
        if function in _BINARY:
            return dataclasses.replace(
                held, name=self.emit(_BINARY[function], inputs, name)
            )
        found = self.emit(_COMPARISONS[function], inputs)
        if function == "ne":
            found = self.emit("Not", [found])
        self._bools.add(value)
        return dataclasses.replace(held, name=found)

    def _simple(
        self, value: int, function: str, number: float, node: Node, name: str
    ) -> Held | None:
        """Adds an operator of its own for a common function with a number, or None."""
        first = node.inputs[0]
        held = self._common([first])
        once = self._uses[first] == 1
        match function:
            case "max" if number == 0:
                source = dataclasses.replace(held, name=self._as(first, held.layout))
                self._below[value] = (source, number)
                return dataclasses.replace(
                    held, name=self.emit("Relu", [source.name], name)
                )
            case "min" if first in self._below and once:
                source, least = self._below[first]
                limits = [
                    self.array(f"limit_{limit:g}", np.float32(limit))
                    for limit in (least, number)
                ]
                found = self.emit("Clip", [source.name, *limits], name)
                return dataclasses.replace(source, name=found)
            case "div" if first in self._scaled:
                mean, factor = self._scaled[first]
                if math.isclose(factor, number, rel_tol=1e-6):
                    return mean
        return None

    def _select(
        self, constants: tuple[np.ndarray | None, ...], node: Node, name: str
    ) -> Held:
        held, rank = self._common(node.inputs), len(node.shape)
        rest, inputs = list(node.inputs), []
        for place, each in enumerate(constants):
            if each is not None:
                part = self._constant(f"{name}/constant_{place}", each, held, rank)
            else:
                index = rest.pop(0)
                if place == 0 and index in self._bools:
                    flags = self._held[index]
                    if flags.layout == held.layout and flags.dims == held.dims:
                        inputs.append(flags.name)
                        continue
                part = self._as(index, held.layout)
            if place == 0:
                part = self.emit("Cast", [part], to=onnx.TensorProto.BOOL)
            inputs.append(part)
        which, other, chosen = inputs
        found = self.emit("Where", [which, chosen, other], name)
        return dataclasses.replace(held, name=found)

    def _reduce(
        self, function: str, axes: Sequence[int], node: Node, name: str
    ) -> Held:
        first = node.inputs[0]
        held, rank = self._unflattened([first]), len(self._shapes[first])
        source, last = self._as(first, held.layout), rank - 1
        of_pixels = function == "mean" and sorted(axes) == list(range(last))
        if held.layout == "first" and of_pixels and rank in (3, 4):
            pooled = self.emit("GlobalAveragePool", [source])
            return Held(self.emit("Flatten", [pooled], name))
        order = axis_order(held.layout, rank)
        over = sorted(order.index(axis) + 1 for axis in axes)
        if function == "sum":
            array = self.array(f"{name}/axes", over, np.int64)
            found = self.emit("ReduceSum", [source, array], name, keepdims=0)
        else:
            found = self.emit(
                _REDUCTIONS[function], [source], name, axes=over, keepdims=0
            )
        stays = held.layout == "first" and last not in axes and len(node.shape) > 1
        return Held(found, "first" if stays else "plain")

    def _window(self, value: int, window: Window, node: Node, name: str) -> Held:
        def source(layout: Layout) -> str:
            return self._as(node.inputs[0], layout)

        if window.function == "max":
            return self._pool(window, source, name)
        held, count = self._pool(window, source), math.prod(window.window)
        self._scaled[value] = (held, count)
        factor = self.array(f"number_{count}", np.float32(count))
        return dataclasses.replace(
            held, name=self.emit("Mul", [held.name, factor], name)
        )

    def _pool(
        self, window: Window, tensor: Callable[[Layout], str], name: str = ""
    ) -> Held:
        """Adds the maximum or the mean of windows.

        Args:
          window: the windows; those of the function `"sum"` give the mean.
          tensor: function from a layout to the tensor.
          name: name of the result, if one operator computes it.
        """
        entries = list(zip(window.window, window.strides, window.padding, strict=True))
        by_channel = entries[-1] == (1, 1, (0, 0)) and len(entries) > 1
        source = tensor("first" if by_channel else "plain")
        if by_channel:
            entries.pop()
        else:
            axis = self.array("axis_1", [1], np.int64)
            source = self.emit("Unsqueeze", [source, axis])
        if len(entries) > 3:
            raise ValueError(
                f"onnx: a window over {len(entries)} axes is not supported"
            )
        attributes: dict[str, Any] = {
            "kernel_shape": [size for size, *_ in entries],
            "strides": [stride for _, stride, _ in entries],
        }
        pads = [pads[side] for side in (0, 1) for *_, pads in entries]
        if any(pads):
            attributes["pads"] = pads
        kind = "MaxPool"
        if window.function == "sum":
            kind = "AveragePool"
            if any(pads):
                attributes["count_include_pad"] = 1
        found = self.emit(kind, [source], name if by_channel else "", **attributes)
        if not by_channel:
            axis = self.array("axis_1", [1], np.int64)
            found = self.emit("Squeeze", [found, axis])
        return Held(found, "first" if by_channel else "plain")

    def _reshaped(self, node: Node, name: str) -> Held:
        first, target = node.inputs[0], node.shape
        held, shape = self._held[first], self._shapes[first]
        if held.layout == "flat":
            if target == shape:
                return held
            if target == held.dims:
                source = self._as(first, "flat")
                found = self._reshape(source, (target[-1], *target[:-1]), name)
                return Held(found, "first")
        if held.layout == "first":
            source = self._as(first, "first")
            if len(target) == 1:
                found = self.emit("Flatten", [source], name)
                plain = math.prod(shape[:-1]) == 1
                return Held(found) if plain else Held(found, "flat", shape)
            if target and shape[-1] == target[-1]:
                found = self._reshape(source, (target[-1], *target[:-1]), name)
                return Held(found, "first")
        source = self.plain(first)
        if len(target) > 2 and math.prod(target[:-1]) == 1 and shape == target[-1:]:
            found = self._reshape(source, (target[-1], *target[:-1]), name)
            return Held(found, "first")
        return Held(self._reshape(source, target, name))

    def _transposed(self, permutation: tuple[int, ...], node: Node, name: str) -> Held:
        first = node.inputs[0]
        held, rank = self._unflattened([first]), len(node.shape)
        source, order = self._as(first, held.layout), axis_order(held.layout, rank)
        layouts: tuple[Layout, ...] = ("plain", "first")
        for layout in layouts:
            axes = [permutation[axis] for axis in axis_order(layout, rank)]
            if tuple(axes) == order:
                return Held(source, layout)
        axes = [order.index(axis) + 1 for axis in permutation]
        return Held(self.emit("Transpose", [source], name, perm=[0, *axes]))

    def _concatenate(self, parts: Concatenate, node: Node, name: str) -> Held:
        held, rank = self._unflattened(node.inputs), len(node.shape)
        order = axis_order(held.layout, rank)
        sources = [self._as(index, held.layout) for index in node.inputs]
        rest, inputs = list(sources), []
        for place, each in enumerate(parts.constants):
            if each is None:
                inputs.append(rest.pop(0))
                continue
            array = np.transpose(each, order)
            constant = self.array(f"{name}/constant_{place}", array[None], self.dtype)
            batch = self.emit("Shape", [sources[0]], start=0, end=1)
            sizes = self.array(f"{name}/sizes_{place}", array.shape, np.int64)
            shape = self.emit("Concat", [batch, sizes], axis=0)
            inputs.append(self.emit("Expand", [constant, shape]))
        axis = order.index(parts.axis) + 1
        found = self.emit("Concat", inputs, name, axis=axis)
        return dataclasses.replace(held, name=found)

    def _slice(
        self, starts: Sequence[int], strides: Sequence[int], node: Node, name: str
    ) -> Held:
        first = node.inputs[0]
        held, rank = self._unflattened([first]), len(node.shape)
        order, shape = axis_order(held.layout, rank), self._shapes[first]
        axes = [axis for axis in range(rank) if shape[axis] != node.shape[axis]]
        source = self._as(first, held.layout)
        ends = [starts[a] + (node.shape[a] - 1) * strides[a] + 1 for a in axes]
        entries = {
            "starts": [starts[axis] for axis in axes],
            "ends": ends,
            "axes": [order.index(axis) + 1 for axis in axes],
            "steps": [strides[axis] for axis in axes],
        }
        if not axes:
            return dataclasses.replace(held, name=source)
        inputs = [
            self.array(f"{name}/{each}", values, np.int64)
            for each, values in entries.items()
        ]
        found = self.emit("Slice", [source, *inputs], name)
        return dataclasses.replace(held, name=found)

    # The whole model.

    def _begin(self, source: str, shapes: tuple[Shape, ...]) -> None:
        """Takes the input; channels come first if it is an image."""
        image = len(shapes[0]) == 3
        self._held = [Held(source, "first" if image else "plain")]
        self._shapes = shapes

    def _values(self, graph: Graph, layout: Layout) -> str:
        """Adds the values of a graph and returns the last one in a layout."""
        self._shapes, self._uses = graph.shapes, graph.uses
        for value, node in enumerate(graph.nodes, start=1):
            self._held.append(self._node(value, node))
        return self._as(len(graph.nodes), layout)

    def _end(self, source: str, last: str, result: str) -> None:
        """Gives the last tensor the name of the output."""
        if last == source or last in self.arrays:
            last = self.emit("Identity", [last])
        self._rename(last, result)
        self._prune(result)

    def _rename(self, name: str, wanted: str) -> None:
        """Gives a result another name."""
        for node in self.nodes:
            for names in (node.input, node.output):
                for place, each in enumerate(names):
                    if each == name:
                        names[place] = wanted
            if node.name == name:
                node.name = wanted

    def _prune(self, result: str) -> None:
        """Leaves out operators and arrays that the result does not need."""
        needed, kept = {result}, []
        for node in reversed(self.nodes):
            if node.output[0] in needed:
                kept.append(node)
                needed.update(node.input)
        self.nodes = kept[::-1]
        self.arrays = {n: each for n, each in self.arrays.items() if n in needed}


def axis_order(layout: Layout, rank: int) -> tuple[int, ...]:
    """Returns the axes of the graph in the order of a layout."""
    if layout == "first" and rank > 1:
        return (rank - 1, *range(rank - 1))
    return tuple(range(rank))


def _channels_first(array: np.ndarray) -> np.ndarray:
    return array.transpose(axis_order("first", array.ndim))


def layer_path(layer: Conv | Dense, name: str) -> str:
    """Returns the path of a layer, or the name of its result."""
    return layer.name.removesuffix("/kernel") or name
