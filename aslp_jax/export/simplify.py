"""Simplifies a traced graph: what a framework writes in many operations becomes few.

Scales and shifts of channels go into the convolution or dense layer before them, a sum
divided by its count is a mean, and a maximum of neighbouring slices is a window.
"""

import dataclasses
import math

import numpy as np

from aslp_jax.export.operations import (
    Binary,
    Conv,
    Dense,
    Graph,
    Node,
    Reduce,
    Reshape,
    Slice,
    Window,
)

__all__ = ["simplify"]


def simplify(graph: Graph) -> Graph:
    """Returns a graph of the same outputs, up to rounding, with fewer operations.

    Args:
      graph: any graph.
    """
    while True:
        found = _drop_unused(_rewrite(graph))
        if len(found.nodes) == len(graph.nodes):
            return found
        graph = found


def _rewrite(graph: Graph) -> Graph:
    """Applies the first rule that fits each node, in the order of the graph."""
    uses, place = graph.uses, {0: 0}
    nodes: list[Node] = []
    for value, node in enumerate(graph.nodes, start=1):
        inputs = tuple(place[index] for index in node.inputs)
        sources = [nodes[index - 1] if index else None for index in inputs]
        once = all(uses[index] == 1 for index in node.inputs)
        node = dataclasses.replace(node, inputs=inputs)
        merged = _merge(node, sources, graph.input_shape, nodes) if once else None
        # Where two were merged, the node before is left without a use.
        nodes.append(node if merged is None else merged)
        place[value] = len(nodes)
    return Graph(graph.input_shape, tuple(nodes))


def _merge(
    node: Node,
    sources: list[Node | None],
    input_shape: tuple[int, ...],
    nodes: list[Node],
) -> Node | None:
    """Returns one node in the place of a node and those before it, or None."""
    source = sources[0]
    if source is None:
        return None
    before, operation = source.operation, node.operation
    match before, operation:
        case (Conv() | Dense(), Binary()):
            layer = _with_affine(before, operation, source.shape, node.shape)
            return None if layer is None else Node(layer, source.inputs, node.shape)
        case Reduce("sum", axes), Binary("div" | "mul" as function, constant, False):
            shape = (
                nodes[source.inputs[0] - 1].shape if source.inputs[0] else input_shape
            )
            count = math.prod(shape[axis] for axis in axes)
            if constant is None or np.size(constant) != 1:
                return None
            factor = float(np.ravel(constant)[0])
            expected = count if function == "div" else 1 / count
            if not math.isclose(factor, expected, rel_tol=1e-6):
                return None
            return Node(Reduce("mean", axes), source.inputs, node.shape)
        case Reshape(), Reshape():
            return Node(Reshape(), source.inputs, node.shape)
        case Slice() as first, Binary("max", None):
            other = sources[1]
            if other is None or other.inputs != source.inputs:
                return None
            shape = (
                nodes[source.inputs[0] - 1].shape if source.inputs[0] else input_shape
            )
            pair = _pair_window(first, other.operation, shape, node.shape)
            return None if pair is None else Node(pair, source.inputs, node.shape)
        case Slice() as cut, Window("max") as window:
            shape = (
                nodes[source.inputs[0] - 1].shape if source.inputs[0] else input_shape
            )
            if not _is_idle(cut, window, shape, source.shape):
                return None
            return Node(window, source.inputs, node.shape)
        case Window("max") as first, Window("max") as second:
            combined = _combined(first, second)
            return (
                None if combined is None else Node(combined, source.inputs, node.shape)
            )
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
