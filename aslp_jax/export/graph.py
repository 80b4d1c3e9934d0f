"""A network as a list of layers with their weights: what the exporters start from.

Three kinds of layer make up every network of `aslp_jax.networks`. What follows a
convolution on its own channels (batch-norm as scale and shift, ReLU, 2x2 max-pool) is
part of it, and a dense layer is a convolution whose kernel covers its whole input.
"""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax.models.layers import max_pool_2x2

Shape = tuple[int, int, int]

DENSE = "a weight is multiplied as a 0: only what compaction takes out saves time"
"""What becomes of one that is dropped, where matrices are multiplied."""


@dataclasses.dataclass(frozen=True, eq=False)
class Conv:
    """Weighted sums of a window of the input, and what is done to each of them.

    Attributes:
      name: of the Flax layer, such as `"Block_0/Conv_1"`.
      kernel: float32 `[height, width, in_channels, out_channels]`.
      stride: in pixels, of both axes.
      padding: zeros on each of the four sides.
      scale: float32 `[out_channels]`, multiplies the sums; None is 1.
      shift: float32 `[out_channels]`, added after that; None is 0.
      relu: whether negative results become 0.
      pool: whether the maximum of each 2x2 window is taken in the end, an odd last row
        or column left out.
      dense: whether it is a dense layer: its kernel, without padding, is as large as
        the input, and its one pixel of output goes to dense layers or is the logits.
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
    """The sum of two inputs of one shape.

    Attributes:
      relu: whether negative results become 0.
    """

    relu: bool = False


@dataclasses.dataclass(frozen=True)
class Mean:
    """The mean of each channel over all pixels."""


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """A layer in its place.

    Attributes:
      layer: what is computed.
      inputs: of which values; value 0 is the image, value i the result of node i - 1.
      shape: of the result, `(height, width, channels)`.
    """

    layer: Conv | Add | Mean
    inputs: tuple[int, ...]
    shape: Shape


@dataclasses.dataclass(frozen=True, eq=False)
class Graph:
    """A network; the channels of the last node, which has one pixel, are its logits.

    Attributes:
      input_shape: `(height, width, channels)` of an image.
      nodes: each after those whose results it takes.
    """

    input_shape: Shape
    nodes: tuple[Node, ...]

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shape of every value."""
        return (self.input_shape, *(node.shape for node in self.nodes))

    @property
    def classes(self) -> int:
        """Number of logits."""
        return self.nodes[-1].shape[2]


@dataclasses.dataclass(frozen=True)
class Cost:
    """What a network takes.

    Attributes:
      parameters: weights, scales and shifts that a dense file holds.
      nonzero: of the weights, those that are not 0.
      multiply_adds: for one image, where every weight is multiplied (with the padding,
        as is usual).
      nonzero_multiply_adds: of them, those of weights that are not 0.
    """

    parameters: int
    nonzero: int
    multiply_adds: int
    nonzero_multiply_adds: int


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
    """Returns what a graph takes."""
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
      shape: of its input, `(height, width, channels)`.
    """
    height, width = (
        (size + 2 * layer.padding - window) // layer.stride + 1
        for size, window in zip(shape[:2], layer.kernel.shape[:2], strict=True)
    )
    return height, width, layer.kernel.shape[3]


def signs(layer: Conv) -> tuple[np.ndarray, np.float32]:
    """Returns a kernel as signs and the one magnitude of all that is not 0.

    Args:
      layer: the convolution.

    Returns:
      int8 in the shape of the kernel, each -1, 0 or 1; and the magnitude, 1 where all
      weights are 0.

    Raises:
      ValueError: the weights have several magnitudes.
    """
    sizes = np.unique(np.abs(layer.kernel))
    sizes = sizes[sizes > 0]
    if len(sizes) > 1:
        raise ValueError(
            f"{layer.name!r} has weights of {len(sizes)} magnitudes where signs alone "
            "can be stored of one, as signed constants have"
        )
    magnitude = sizes[0] if len(sizes) else np.float32(1)
    return np.sign(layer.kernel).astype(np.int8), magnitude


def _compute(layer: Conv | Add | Mean, *inputs: jax.Array) -> jax.Array:
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
