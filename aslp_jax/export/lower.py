"""Lowers a traced graph to the layers that the exporters write.

A layer is a convolution with everything that follows on its own channels: scale, shift,
ReLU, 2x2 max-pool. An operation that is part of no such layer is refused by name.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax.export import operations
from aslp_jax.export.graph import Add, Conv, Graph, Mean, Node
from aslp_jax.export.operations import Binary, Dense, Reduce, Reshape, Window
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import UnsupportedError, trace

__all__ = ["SUPPORTED", "layers_of", "lower"]

SUPPORTED = (
    "convolutions with square strides and the same padding on all sides, dense "
    "layers, scales and shifts of channels, ReLU, 2x2 max-pooling, sums of two values, "
    "the mean over all pixels, flattening"
)
"""Operations that a layer can hold, for messages."""


def layers_of(
    net: nn.Module, variables: Mapping[str, Any], input_shape: tuple[int, ...]
) -> Graph:
    """Returns the layers of a network, traced from its module.

    The graph computes in float32, whatever the dtype of the module.

    Args:
      net: Linen module, called with `train=False`.
      variables: variables of the network, `{"params": effective weights,
        **collections}`.
      input_shape: `(height, width, channels)` of an image.

    Returns:
      The graph; its kernels are those of `variables`.

    Raises:
      UnsupportedError: the network computes something that no layer can hold.
    """
    # XLA's own convolution, in float32: the form that is traced is not the fast one.
    fields = {field.name for field in dataclasses.fields(net)}
    plain = {"dtype": jnp.float32, "conv_general_dilated": None}
    net = net.clone(**{name: plain[name] for name in plain if name in fields})
    weights = jax.tree.map(lambda leaf: np.asarray(leaf, np.float32), dict(variables))
    traced = trace(
        lambda weights, images: net.apply(weights, images, train=False),
        weights,
        jax.ShapeDtypeStruct(input_shape, jnp.float32),
    )
    return lower(simplify(traced))


def lower(graph: operations.Graph) -> Graph:
    """Returns the layers of a simplified graph.

    Args:
      graph: graph of images, `(height, width, channels)`, to logits.

    Raises:
      UnsupportedError: an operation is part of no layer.
    """
    lowering = _Lowering(graph, [], {0: 0})
    for value, node in enumerate(graph.nodes, start=1):
        lowering.add(value, node)
    nodes = tuple(lowering.nodes)
    if not nodes or nodes[-1].shape[:2] != (1, 1) or len(graph.nodes[-1].shape) != 1:
        raise UnsupportedError(
            f"lower: the network returns {list(graph.shapes[-1])} for each image; "
            "expected logits, one for each class"
        )
    return Graph(graph.input_shape, nodes)  # type: ignore[arg-type]


@dataclasses.dataclass(frozen=True, eq=False)
class _Lowering:
    """Layers so far.

    Attributes:
      graph: graph that is lowered.
      nodes: layers so far.
      places: number of the lowered value that holds each value of the graph.
    """

    graph: operations.Graph
    nodes: list[Node]
    places: dict[int, int]

    def add(self, value: int, node: operations.Node) -> None:
        """Adds what one operation needs: a layer, part of the last one, or nothing."""
        sources = [self.places[index] for index in node.inputs]
        source = sources[0]
        match node.operation:
            case operations.Conv() as conv:
                self._append(_conv(conv), sources, node.shape)
            case Dense() as dense:
                self._append(self._dense(dense, node, source), sources, node.shape)
            case Binary("add", None) if self._shapes(sources) == {_full(node.shape)}:
                self._append(Add(), sources, node.shape)
            case Reduce("mean", (0, 1)) if len(node.shape) == 1:
                self._append(Mean(), sources, (1, 1, *node.shape))
            case Reshape() if len(node.shape) == 1:
                # Layers take pixels in the order of a flattened image.
                self.places[value] = source
                return
            case Binary("max", constant) if constant is not None and (
                constant.size == 1 and not constant.any()
            ):
                self._follow(node, source, relu=True)
                self.places[value] = source
                return
            case Window("max", (2, 2, 1), (2, 2, 1), ((0, 0), (0, 0), (0, 0))):
                self._follow(node, source, relu=False)
                self.places[value] = source
                return
            case _:
                _refuse(node)
        self.places[value] = len(self.nodes)

    def _append(
        self, layer: Conv | Add | Mean, sources: list[int], shape: tuple[int, ...]
    ) -> None:
        self.nodes.append(Node(layer, tuple(sources), _full(shape)))

    def _follow(self, node: operations.Node, source: int, *, relu: bool) -> None:
        """Makes a ReLU or a pool part of the layer before it."""
        # Nothing else may take the layer as it was, flattened or not.
        held = [value for value, place in self.places.items() if place == source]
        alone = source and all(self.graph.uses[value] == 1 for value in held)
        layer = self.nodes[source - 1].layer if alone else None
        changed: Conv | Add
        match layer:
            case Conv(relu=False, pool=False) if relu:
                changed = dataclasses.replace(layer, relu=True)
            case Conv(pool=False) if not relu:
                changed = dataclasses.replace(layer, pool=True)
            case Add(relu=False) if relu:
                changed = Add(relu=True)
            case _:
                _refuse(node)
        before = self.nodes[source - 1]
        # A ReLU keeps the shape, also of an image that was flattened.
        shape: Any = before.shape if relu else node.shape
        self.nodes[source - 1] = Node(changed, before.inputs, shape)

    def _shapes(self, sources: list[int]) -> set[tuple[int, ...]]:
        """Returns the shapes of some lowered values."""
        shapes = [self.graph.input_shape, *(node.shape for node in self.nodes)]
        return {shapes[source] for source in sources}

    def _dense(self, dense: Dense, node: operations.Node, source: int) -> Conv:
        """Returns the convolution that a dense layer is."""
        flat = len(node.shape) == 1
        shape = self.nodes[source - 1].shape if source else self.graph.input_shape
        window = shape if flat else (1, 1, shape[-1])
        return Conv(
            _layer_name(dense.name),
            dense.kernel.reshape(*window, dense.kernel.shape[1]),
            scale=dense.scale,
            shift=dense.shift,
            dense=flat,
        )


def _full(shape: tuple[int, ...]) -> Any:
    """Returns a shape with height and width, 1 for a vector."""
    return (*(1,) * (3 - len(shape)), *shape)


def _conv(conv: operations.Conv) -> Conv:
    """Returns the layer of a convolution."""
    stride, padding = conv.strides[0], conv.padding[0][0]
    same = set(conv.strides) == {stride} and set(map(tuple, conv.padding)) == {
        (padding, padding)
    }
    if (
        not same
        or len(conv.strides) != 2
        or set(conv.dilation) != {1}
        or conv.groups > 1
    ):
        raise UnsupportedError(
            f"lower: the convolution {_layer_name(conv.name)!r} with strides "
            f"{conv.strides}, padding {conv.padding}, dilation {conv.dilation} and "
            f"{conv.groups} groups is not supported; supported are {SUPPORTED}"
        )
    return Conv(
        _layer_name(conv.name),
        conv.kernel,
        stride=stride,
        padding=padding,
        scale=conv.scale,
        shift=conv.shift,
    )


def _layer_name(path: str) -> str:
    """Returns the path of a layer from that of its kernel."""
    return path.removeprefix("params/").removesuffix("/kernel")


def _refuse(node: operations.Node) -> NoReturn:
    operation = node.operation
    function = getattr(operation, "function", "")
    name = f"{type(operation).__name__} {function}".rstrip()
    raise UnsupportedError(
        f"lower: {name} to {list(node.shape)} is part of no layer; supported are "
        f"{SUPPORTED}"
    )
