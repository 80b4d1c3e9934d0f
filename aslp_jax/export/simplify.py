"""Simplifies a traced graph: what a framework writes in many operations becomes few.

Scales and shifts of channels go into the convolution or dense layer before them, a sum
divided by its count is a mean, a maximum of neighbouring slices is a window, and
transposes move on until they meet others.

The file is long because it holds one rule for each of these.
"""

import dataclasses
import math
from typing import Any

import numpy as np

from aslp_jax.export.operations import (
    Binary,
    Conv,
    Dense,
    Graph,
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

__all__ = ["simplify"]


def simplify(graph: Graph) -> Graph:
    """Returns a graph of the same outputs, up to rounding, with fewer operations.

    Args:
      graph: any graph.
    """
    while True:
        rewriting = _Rewriting(graph)
        found = _drop_unused(rewriting.run())
        if not rewriting.changed:
            return found
        graph = found


class _Rewriting:
    """One pass over a graph, which applies the first rule that fits each node.

    Attributes:
      graph: graph that is rewritten.
      nodes: nodes so far. Where a rule merges a node into another, the one before is
        left without a use.
      taken: number of times that each value of `nodes` is taken.
      changed: True if a rule was applied.
    """

    def __init__(self, graph: Graph) -> None:
        self.graph, self.nodes, self.changed = graph, list[Node](), False
        self.taken = [graph.uses[0]]

    def run(self) -> Graph:
        """Returns the rewritten graph, which may hold nodes without a use."""
        places, last = {0: 0}, len(self.graph.nodes)
        for value, node in enumerate(self.graph.nodes, start=1):
            inputs = tuple(places[index] for index in node.inputs)
            node = dataclasses.replace(node, inputs=inputs)
            found = self._rule(node, is_last=value == last)
            self.changed |= found is not None
            place = self.add(*_parts(node)) if found is None else found
            self.taken[place] += self.graph.uses[value] - 1
            places[value] = place
        if places[last] != len(self.nodes):
            self.add(Reshape(), (places[last],), self.graph.shapes[-1])
        return Graph(self.graph.input_shape, tuple(self.nodes))

    def add(self, operation: Operation, inputs: tuple[int, ...], shape: Shape) -> int:
        """Adds a node and returns the number of its value."""
        self.nodes.append(Node(operation, inputs, shape))
        self.taken.append(1)
        return len(self.nodes)

    def shape(self, value: int) -> Shape:
        """Returns the shape of a value."""
        return self.nodes[value - 1].shape if value else self.graph.input_shape

    def _source(self, value: int, *, once: bool = True) -> Node | None:
        """Returns the node of a value; None if it is the input or taken elsewhere."""
        if value == 0 or (once and self.taken[value] != 1):
            return None
        return self.nodes[value - 1]

    def _past(self, value: int) -> int:
        """Returns the input of a node that others may take too."""
        (source,) = self.nodes[value - 1].inputs
        self.taken[source] += self.taken[value] != 1
        return source

    def _rule(self, node: Node, *, is_last: bool) -> int | None:
        """Returns the value that stands for a node, or None if no rule fits."""
        first = node.inputs[0]
        match node.operation:
            case Reshape() if self.shape(first) == node.shape:
                return None if is_last else first
            case Reshape():
                source = self._source(first, once=False)
                if source is not None and isinstance(source.operation, Reshape):
                    return self.add(Reshape(), (self._past(first),), node.shape)
                return None
            case Transpose(permutation):
                return self._transpose(node, permutation, is_last=is_last)
            case Binary(constant=constant) as binary if constant is not None:
                for rule in (self._affine, self._split_affine, self._mean):
                    found = rule(binary, node)
                    if found is not None:
                        return found
            case Binary("max") | Window("max"):
                found = self._pool(node)
                if found is not None:
                    return found
        return self._after_transpose(node)

    def _affine(self, binary: Binary, node: Node) -> int | None:
        """Moves a scale or shift into the layer before it."""
        source = self._source(node.inputs[0])
        if source is None or not isinstance(source.operation, Conv | Dense):
            return None
        layer = _with_affine(source.operation, binary, source.shape, node.shape)
        return None if layer is None else self.add(layer, source.inputs, node.shape)

    def _split_affine(self, binary: Binary, node: Node) -> int | None:
        """Moves a scale or shift into a layer whose channels a reshape divides."""
        source = self._source(node.inputs[0])
        if source is None or not isinstance(source.operation, Reshape):
            return None
        before = self._source(source.inputs[0])
        if before is None or not isinstance(before.operation, Conv | Dense):
            return None
        if source.shape != node.shape:
            return None
        whole = np.broadcast_to(np.asarray(binary.constant), node.shape)
        rows = whole.reshape(-1, before.shape[-1])
        if not (rows == rows[:1]).all():
            return None
        moved = dataclasses.replace(binary, constant=rows[0])
        layer = _with_affine(before.operation, moved, before.shape, before.shape)
        if layer is None:
            return None
        value = self.add(layer, before.inputs, before.shape)
        return self.add(Reshape(), (value,), node.shape)

    def _mean(self, binary: Binary, node: Node) -> int | None:
        """Makes a mean of a sum that is divided by its count."""
        source = self._source(node.inputs[0])
        constant = np.asarray(binary.constant)
        if source is None or binary.constant_first or constant.size != 1:
            return None
        if isinstance(source.operation, Reshape) and source.shape == node.shape:
            # The axes that are summed may have been put back with size 1.
            source = self._source(source.inputs[0])
        if source is None or binary.function not in ("div", "mul"):
            return None
        match source.operation:
            case Reduce("sum", axes):
                shape = self.shape(source.inputs[0])
                count = math.prod(shape[axis] for axis in axes)
                factor = float(constant.ravel()[0])
                expected = count if binary.function == "div" else 1 / count
                if not math.isclose(factor, expected, rel_tol=1e-6):
                    return None
                value = self.add(Reduce("mean", axes), source.inputs, source.shape)
                if source.shape == node.shape:
                    return value
                return self.add(Reshape(), (value,), node.shape)
        return None

    def _pool(self, node: Node) -> int | None:
        """Makes one window of a maximum of slices or of windows."""
        sources = [self._source(value) for value in node.inputs]
        source = sources[0]
        if source is None or not source.inputs:
            return None
        shape = self.shape(source.inputs[0])
        found: Window | None = None
        match node.operation, source.operation:
            case Binary("max", None), Slice() as first:
                other = sources[1]
                if other is None or other.inputs != source.inputs:
                    return None
                found = _pair_window(first, other.operation, shape, node.shape)
            case Window("max") as window, Slice() as cut:
                idle = _is_idle(cut, window, shape, source.shape)
                found = window if idle else None
            case Window("max") as second, Window("max") as first:
                found = _combined(first, second)
        return None if found is None else self.add(found, source.inputs, node.shape)

    def _transpose(
        self, node: Node, permutation: tuple[int, ...], *, is_last: bool
    ) -> int | None:
        """Merges two transposes, and leaves out one that changes no order."""
        source, start = self._source(node.inputs[0], once=False), node.inputs[0]
        merged = source is not None and isinstance(source.operation, Transpose)
        if source is not None and isinstance(source.operation, Transpose):
            inner, start = source.operation.permutation, self._past(start)
            permutation = tuple(inner[axis] for axis in permutation)
        if permutation == tuple(range(len(permutation))):
            return None if is_last and not merged else start
        if not merged:
            return None
        return self.add(Transpose(permutation), (start,), node.shape)

    def _after_transpose(self, node: Node) -> int | None:
        """Computes before a transpose what may as well be computed there.

        Transposes so move on until they meet others, and layers their scales.
        """
        sources = [self._source(value, once=False) for value in node.inputs]
        orders = {
            source.operation.permutation
            if source is not None and isinstance(source.operation, Transpose)
            else None
            for source in sources
        }
        order = orders.pop()
        if order is None or orders:
            return None
        back = tuple(int(axis) for axis in np.argsort(order))
        if isinstance(node.operation, Reduce):
            axes = [order[axis] for axis in node.operation.axes]
            left = [axis for axis in order if axis not in axes]
            if left != sorted(left):
                return None
            moved = dataclasses.replace(node.operation, axes=tuple(sorted(axes)))
            return self.add(moved, tuple(map(self._past, node.inputs)), node.shape)
        operation = _reordered(node.operation, back)
        if operation is None:
            return None
        shape = tuple(node.shape[axis] for axis in back)
        value = self.add(operation, tuple(map(self._past, node.inputs)), shape)
        return self.add(Transpose(order), (value,), node.shape)


def _parts(node: Node) -> tuple[Operation, tuple[int, ...], Shape]:
    return node.operation, node.inputs, node.shape


def _reordered(operation: Operation, order: tuple[int, ...]) -> Operation | None:
    """Returns an operation on values whose axes are in another order, or None."""

    def array(constant: np.ndarray | None) -> np.ndarray | None:
        if constant is None or np.ndim(constant) == 0:
            return constant
        constant = np.asarray(constant)
        missing = (1,) * (len(order) - constant.ndim)
        return constant.reshape(missing + constant.shape).transpose(order)

    def entries(values: tuple[Any, ...]) -> tuple[Any, ...]:
        return tuple(values[axis] for axis in order)

    match operation:
        case Unary():
            return operation
        case Binary(constant=constant):
            return dataclasses.replace(operation, constant=array(constant))
        case Select(constants):
            return Select(tuple(map(array, constants)))
        case Window(function, window, strides, padding):
            return Window(function, entries(window), entries(strides), entries(padding))
        case Pad(padding, value):
            return Pad(entries(padding), value)
        case Slice(starts, strides):
            return Slice(entries(starts), entries(strides))
    return None


def _with_affine(
    layer: Conv | Dense,
    operation: Binary,
    before: tuple[int, ...],
    after: tuple[int, ...],
) -> Conv | Dense | None:
    """Returns a layer with a scale or a shift of its channels, or None."""
    if operation.constant is None or before != after:
        return None
    constant = np.asarray(operation.constant, np.float32)
    channels = after[-1]
    if constant.size != 1 and (
        constant.shape[-1:] != (channels,) or constant.size != channels
    ):
        return None
    factor = np.broadcast_to(constant.reshape(-1), (channels,))
    scale, shift = layer.scale, layer.shift
    match operation.function, operation.constant_first:
        case "mul", _:
            scale = factor if scale is None else scale * factor
            shift = None if shift is None else shift * factor
        case "div", False:
            scale = 1 / factor if scale is None else scale / factor
            shift = None if shift is None else shift / factor
        case "add", _:
            shift = factor if shift is None else shift + factor
        case "sub", False:
            shift = -factor if shift is None else shift - factor
        case "sub", True:
            scale = -np.ones_like(factor) if scale is None else -scale
            shift = factor if shift is None else factor - shift
        case _:
            return None
    return dataclasses.replace(layer, scale=scale, shift=shift)


def _pair_window(
    first: Slice, second: object, source: tuple[int, ...], shape: tuple[int, ...]
) -> Window | None:
    """Returns the window of a maximum of two slices that lie next to each other."""
    if not isinstance(second, Slice) or first.strides != second.strides:
        return None
    if sorted(first.strides)[:-1] != [1] * (len(source) - 1) or max(first.strides) != 2:
        return None
    axis = first.strides.index(2)
    wanted = tuple(1 if each == axis else 0 for each in range(len(source)))
    whole = tuple(
        size // 2 if each == axis else size for each, size in enumerate(source)
    )
    if any(first.starts) or second.starts != wanted or shape != whole:
        return None
    sizes = tuple(2 if each == axis else 1 for each in range(len(source)))
    return Window("max", sizes, sizes, ((0, 0),) * len(source))


def _is_idle(
    cut: Slice, window: Window, whole: tuple[int, ...], part: tuple[int, ...]
) -> bool:
    """Returns True if a slice cuts off only what no window reaches."""
    if any(cut.starts) or set(cut.strides) != {1} or any(map(any, window.padding)):
        return False
    sizes = zip(whole, part, window.window, window.strides, strict=True)
    return all(
        (size - width) // stride == (left - width) // stride
        for size, left, width, stride in sizes
    )


def _combined(first: Window, second: Window) -> Window | None:
    """Returns one window for two that lie over different axes, or None."""
    axes = [
        [
            axis
            for axis in range(len(each.window))
            if (each.window[axis], each.strides[axis], each.padding[axis])
            != (1, 1, (0, 0))
        ]
        for each in (first, second)
    ]
    if set(axes[0]) & set(axes[1]):
        return None
    chosen = [second if axis in axes[1] else first for axis in range(len(first.window))]
    return Window(
        "max",
        tuple(each.window[axis] for axis, each in enumerate(chosen)),
        tuple(each.strides[axis] for axis, each in enumerate(chosen)),
        tuple(each.padding[axis] for axis, each in enumerate(chosen)),
    )


def _drop_unused(graph: Graph) -> Graph:
    """Leaves out nodes whose results nothing takes."""
    needed = {len(graph.nodes)}
    for value in range(len(graph.nodes), 0, -1):
        if value in needed:
            needed.update(graph.nodes[value - 1].inputs)
    place, nodes = {0: 0}, []
    for value, node in enumerate(graph.nodes, start=1):
        if value in needed:
            inputs = tuple(place[index] for index in node.inputs)
            nodes.append(dataclasses.replace(node, inputs=inputs))
            place[value] = len(nodes)
    return Graph(graph.input_shape, tuple(nodes))
