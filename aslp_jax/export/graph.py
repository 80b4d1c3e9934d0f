"""Graph of a network's layers with their weights, from which every exporter starts.

Three kinds of layer make up every network of `aslp_jax.models`. Operations on a
convolution's own channels (batch-norm as scale and shift, ReLU, 2x2 max-pool) belong to
the convolution. A dense layer is a convolution whose kernel covers its whole input.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax.export.cost import Cost
from aslp_jax.models.layers import max_pool_2x2

__all__ = [
    "Add",
    "Conv",
    "Cost",
    "Graph",
    "Mean",
    "Node",
    "Shape",
    "cost",
    "run",
    "signs",
    "summed_shape",
]

Shape = tuple[int, int, int]
"""Height, width and channels of an image or of a layer's output."""


@dataclasses.dataclass(frozen=True, eq=False)
class Conv:
    """Convolution, followed by operations on each of its output channels.

    The operations run in the order scale, shift, ReLU, pool.

    Attributes:
      name: path of the Flax layer, such as `"Block_0/Conv_1"`.
      kernel: float32 `[height, width, in_channels, out_channels]`.
      stride: step of the window in pixels, on both axes.
      padding: rows or columns of zeros on each of the four sides.
      scale: float32 `[out_channels]`, factor of the sums; None is 1.
      shift: float32 `[out_channels]`, added after the scale; None is 0.
      relu: True if negative results become 0.
      pool: True if the result is the maximum of each 2x2 window; an odd last row or
        column is ignored.
      dense: True for a dense layer. Its kernel, without padding, is as large as the
        input. Its one output pixel goes to dense layers or is the logits.
    """

    name: str
    kernel: np.ndarray
    stride: int = 1
    padding: int = 0
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    relu: bool = False
    pool: bool = False
    dense: bool = False


@dataclasses.dataclass(frozen=True)
class Add:
    """Sum of two inputs of one shape.

    Attributes:
      relu: True if negative results become 0.
    """

    relu: bool = False


@dataclasses.dataclass(frozen=True)
class Mean:
    """Mean of each channel over all pixels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """Layer with its inputs and its output shape.

    Attributes:
      layer: the operation.
      inputs: values that the layer takes. Value 0 is the image, value i is the result
        of node i - 1.
      shape: `(height, width, channels)` of the result.
    """

    layer: Conv | Add | Mean
    inputs: tuple[int, ...]
    shape: Shape


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """Network as a list of nodes.

    The last node has one pixel; its channels are the logits.

    Attributes:
      input_shape: `(height, width, channels)` of an image.
      nodes: nodes in the order of computation.
    """

    input_shape: Shape
    nodes: tuple[Node, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of every value, the image first."""
        return (self.input_shape, *(node.shape for node in self.nodes))

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].shape[2]


def run(graph: Graph, images: jax.Array) -> jax.Array:
    """Computes a graph with `jax.numpy`.

    Args:
      graph: the network.
      images: float32 `[batch, *input_shape]`.

    Returns:
      float32 `[batch, classes]`.
    """
    values = [images]
    for node in graph.nodes:
        values.append(_compute(node.layer, *(values[index] for index in node.inputs)))
    return values[-1].reshape(images.shape[0], -1)


def cost(graph: Graph) -> Cost:
    """Counts the parameters and multiply-adds of a graph."""
    parameters = nonzero = dense = sparse = 0
    for node in graph.nodes:
        layer = node.layer
        if not isinstance(layer, Conv):
            continue
        kept = int(np.count_nonzero(layer.kernel))
        height, width, _ = summed_shape(layer, graph.shapes[node.inputs[0]])
        extra = [each.size for each in (layer.scale, layer.shift) if each is not None]
        parameters += layer.kernel.size + sum(extra)
        nonzero += kept
        dense += height * width * layer.kernel.size
        sparse += height * width * kept
    return Cost(parameters, nonzero, dense, sparse)


def summed_shape(layer: Conv, shape: Shape) -> Shape:
    """Returns the shape of a convolution's sums, before its pool.

    Args:
      layer: the convolution.
      shape: `(height, width, channels)` of its input.
    """
    height, width = (
        (size + 2 * layer.padding - window) // layer.stride + 1
        for size, window in zip(shape[:2], layer.kernel.shape[:2], strict=True)
    )
    return height, width, layer.kernel.shape[3]


def signs(layer: Conv) -> tuple[np.ndarray, np.float32]:
    """Splits a kernel into signs and the one magnitude of its nonzero weights.

    Args:
      layer: the convolution.

    Returns:
      Signs, int8 in the shape of the kernel, each -1, 0 or 1; and the magnitude, which
      is 1 if all weights are 0.

    Raises:
      ValueError: the weights have several magnitudes.
    """
    magnitudes = np.unique(np.abs(layer.kernel))
    magnitudes = magnitudes[magnitudes > 0]
    if len(magnitudes) > 1:
        raise ValueError(
            f"{layer.name!r} has weights of {len(magnitudes)} magnitudes; signs can be "
            "stored for one magnitude only, as signed constants have"
        )
    magnitude = magnitudes[0] if len(magnitudes) else np.float32(1)
    return np.sign(layer.kernel).astype(np.int8), magnitude


def _compute(layer: Conv | Add | Mean, *inputs: jax.Array) -> jax.Array:
    """Computes one layer."""
    if isinstance(layer, Add):
        total = inputs[0] + inputs[1]
        return nn.relu(total) if layer.relu else total
    if isinstance(layer, Mean):
        return inputs[0].mean((1, 2), keepdims=True)
    x = jax.lax.conv_general_dilated(
        inputs[0],
        jnp.asarray(layer.kernel),
        (layer.stride, layer.stride),
        [(layer.padding, layer.padding)] * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    if layer.scale is not None:
        x = x * layer.scale.reshape(1, 1, 1, -1)
    if layer.shift is not None:
        x = x + layer.shift.reshape(1, 1, 1, -1)
    if layer.relu:
        x = nn.relu(x)
    return max_pool_2x2(x) if layer.pool else x
