"""Layers as the C code computes them: planes of sums, and the taps of each weight."""

import dataclasses

import numpy as np

from aslp_jax.export.integer.operations import Requantization
from aslp_jax.export.operations import Conv, Dense, Shape

__all__ = ["Layer", "conv_layer", "dense_layer"]


@dataclasses.dataclass(frozen=True, eq=False)
class Layer:
    """Convolution or dense layer, whose input lies channel by channel.

    Attributes:
      name: path of the weight that the kernel is made from, such as `"Conv_0/kernel"`.
      in_order: True if the kernel holds that weight in its own order.
      kernel: float32 `[taps, in_channels / groups, out_channels]`.
      taps: int32 `[taps, 5]`, a `struct tap` for each weight of a channel; None if the
        weights cover the whole input.
      in_size: numbers of a channel of the input.
      height: rows of the sums.
      width: columns of the sums.
      row_step: distance in the input of neighbouring rows of sums.
      step: distance in the input of neighbouring columns of sums.
      groups: number of groups that the channels are divided into.
      scale: float32 `[out_channels]`, multiplies the sums; None is 1.
      shift: float32 `[out_channels]`, added after the scale; None is 0.
      relu: True if negative results become 0.
      requantization: step from exact sums to integers; None for floats.
      pool: True if the result is the maximum of each 2x2 window; an odd last row or
        column is ignored.
    """

    name: str
    in_order: bool
    kernel: np.ndarray
    taps: np.ndarray | None
    in_size: int
    height: int
    width: int
    row_step: int
    step: int
    groups: int = 1
    scale: np.ndarray | None = None
    shift: np.ndarray | None = None
    relu: bool = False
    requantization: Requantization | None = None
    pool: bool = False


def conv_layer(conv: Conv, source: Shape, result: Shape) -> Layer:
    """Returns the layer of a convolution.

    Args:
      conv: the convolution, over one or two axes.
      source: shape of its input.
      result: shape of its sums.
    """
    missing = 2 - len(conv.strides)
    in_size, size, strides, dilation, window = (
        [1] * missing + list(numbers)
        for numbers in (
            source[:-1],
            result[:-1],
            conv.strides,
            conv.dilation,
            conv.kernel.shape[:-2],
        )
    )
    lows = [0] * missing + [low for low, _ in conv.padding]
    taps = []
    for row in range(window[0]):
        above = row * dilation[0] - lows[0]
        top, bottom = _inside(above, strides[0], in_size[0], size[0])
        for column in range(window[1]):
            before = column * dilation[1] - lows[1]
            left, right = _inside(before, strides[1], in_size[1], size[1])
            taps.append((above * in_size[1] + before, top, bottom, left, right))
    return Layer(
        *_origin(conv),
        conv.kernel.reshape(-1, *conv.kernel.shape[-2:]),
        np.array(taps, np.int32),
        in_size=in_size[0] * in_size[1],
        height=size[0],
        width=size[1],
        row_step=strides[0] * in_size[1],
        step=strides[1],
        groups=conv.groups,
        scale=conv.scale,
        shift=conv.shift,
    )


def dense_layer(dense: Dense, planes: tuple[int, int], result: Shape) -> Layer:
    """Returns the layer of a product with a matrix.

    Args:
      dense: the product.
      planes: number and size of the planes of its input. Those of a vector are the
        channels of a flattened image.
      result: shape of its result.
    """
    channels, size = planes
    *space, units = result
    width = space[-1] if space else 1
    height = size // width if space else 1
    whole = height * width == 1
    if whole and size == 1:
        # One long plane is summed without a loop of loops.
        channels, size = 1, channels
    return Layer(
        *_origin(dense),
        dense.kernel.reshape(-1, channels, units),
        None if whole else np.array([(0, 0, height, 0, width)], np.int32),
        in_size=size,
        height=height,
        width=width,
        row_step=width,
        step=1,
        scale=dense.scale,
        shift=dense.shift,
    )


def _origin(layer: Conv | Dense) -> tuple[str, bool]:
    """Returns the name of a layer's weight, and True if the kernel has its order."""
    name = layer.name if layer.origin is None else layer.origin.name
    return name or "a kernel that is computed", bool(layer.name)


def _inside(first: int, stride: int, inputs: int, outputs: int) -> tuple[int, int]:
    """Returns the range of outputs for which a weight meets the input.

    Args:
      first: input that the weight meets for output 0; outside if negative.
      stride: inputs from one output to the next.
      inputs: size of the input on this axis.
      outputs: size of the output on this axis.

    Returns:
      First output, and the output after the last one; (0, 0) for none.
    """
    found = [
        output for output in range(outputs) if 0 <= first + output * stride < inputs
    ]
    return (found[0], found[-1] + 1) if found else (0, 0)
