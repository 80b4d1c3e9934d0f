"""Description of a Flax module with its weights as a graph of layers.

The construction of the networks in `aslp_jax.models` is repeated here; tests hold the
graphs equal to the modules.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import numpy as np

from aslp_jax.export.graph import Add, Conv, Graph, Mean, Node, Shape, summed_shape
from aslp_jax.models import ConvNet
from aslp_jax.models.layers import BATCH_NORM_EPSILON
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG

__all__ = ["SUPPORTED", "describe"]

SUPPORTED = ("ConvNet (conv2, conv4, conv6)", "VGG (vgg19)", "ResNet (resnet18)")
"""Modules that can be described."""


def describe(net: nn.Module, variables: Mapping[str, Any], input_shape: Shape) -> Graph:
    """Describes a network, as it is evaluated, by its layers.

    The graph computes in float32, whatever the dtype of the module.

    Args:
      net: a network of `aslp_jax.models`.
      variables: variables of the network, `{"params": effective weights,
        **collections}`.
      input_shape: `(height, width, channels)` of an image.

    Returns:
      The graph; its kernels are those of `variables`.

    Raises:
      ValueError: `net` is of another class.
    """
    builder = _GraphBuilder(variables, input_shape, [])
    # A subclass may compute something else.
    if type(net) is ConvNet:
        _conv_net(net, builder)
    elif type(net) is VGG:
        _vgg(net, builder)
    elif type(net) is ResNet:
        _res_net(net, builder)
    else:
        raise ValueError(
            f"describe: {type(net).__name__} is not supported; supported are "
            + ", ".join(SUPPORTED)
        )
    return Graph(input_shape, tuple(builder.nodes))


def _conv_net(net: ConvNet, builder: "_GraphBuilder") -> None:
    value = index = 0
    for _ in net.stages:
        for pool in (False, True):
            name = f"Conv_{index}"
            value = builder.conv(value, name, padding=1, relu=True, pool=pool)
            index += 1
    for layer in range(len(net.hidden) + 1):
        value = builder.dense(value, layer, relu=layer < len(net.hidden))


def _vgg(net: VGG, builder: "_GraphBuilder") -> None:
    value = index = 0
    for stage in net.stages:
        for number in range(1, len(stage) + 1):
            pool = number == len(stage)
            value = builder.normalised(value, "", index, relu=True, pool=pool)
            index += 1
    builder.dense(builder.add(Mean(), value), 0)


def _res_net(net: ResNet, builder: "_GraphBuilder") -> None:
    value = builder.normalised(0, "", 0, relu=True)
    for index in range(2 * len(net.stages)):
        scope = f"Block_{index}/"
        stride = 2 if index % 2 == 0 and index > 0 else 1
        inner = builder.normalised(value, scope, 0, stride=stride, relu=True)
        inner = builder.normalised(inner, scope, 1)
        if stride != 1 or builder.shape(inner)[2] != builder.shape(value)[2]:
            value = builder.normalised(value, scope, 2, stride=stride)
        value = builder.add(Add(relu=True), value, inner)
    builder.dense(builder.add(Mean(), value), 0)


@dataclasses.dataclass(frozen=True, eq=False)
class _GraphBuilder:
    """Graph under construction; a layer's name is its path in Flax.

    Attributes:
      variables: variables of the network.
      input_shape: `(height, width, channels)` of an image.
      nodes: nodes so far.
    """

    variables: Mapping[str, Any]
    input_shape: Shape
    nodes: list[Node]

    def shape(self, value: int) -> Shape:
        """Returns the shape of a value."""
        return self.nodes[value - 1].shape if value else self.input_shape

    def add(self, layer: Conv | Add | Mean, *inputs: int) -> int:
        """Appends a node and returns its value."""
        height, width, channels = self.shape(inputs[0])
        if isinstance(layer, Conv):
            height, width, channels = summed_shape(layer, (height, width, channels))
            if layer.pool:
                height, width = height // 2, width // 2
        elif isinstance(layer, Mean):
            height = width = 1
        self.nodes.append(Node(layer, inputs, (height, width, channels)))
        return len(self.nodes)

    def conv(self, value: int, name: str, **options: Any) -> int:
        """Appends a convolution and returns its value."""
        weights = self._layer("params", name)
        return self.add(
            Conv(name, weights["kernel"], shift=weights.get("bias"), **options), value
        )

    def dense(self, value: int, index: int, *, relu: bool = False) -> int:
        """Appends a dense layer over all pixels, flattened in Flax's order."""
        name = f"Dense_{index}"
        weights = self._layer("params", name)
        kernel = weights["kernel"].reshape(*self.shape(value), -1)
        layer = Conv(name, kernel, shift=weights.get("bias"), relu=relu, dense=True)
        return self.add(layer, value)

    def normalised(self, value: int, scope: str, index: int, **options: Any) -> int:
        """Appends a `layers.normalised_conv`, by the running statistics."""
        name, norm = f"{scope}Conv_{index}", f"{scope}BatchNorm_{index}"
        kernel = self._layer("params", name)["kernel"]
        params = self._layer("params", norm)
        running = self._layer("batch_stats", norm)
        variance = running["var"].astype(np.float64) + BATCH_NORM_EPSILON
        scale = params["scale"] / np.sqrt(variance)
        layer = Conv(
            name,
            kernel,
            padding=kernel.shape[0] // 2,
            scale=scale.astype(np.float32),
            shift=(params["bias"] - running["mean"] * scale).astype(np.float32),
            **options,
        )
        return self.add(layer, value)

    def _layer(self, collection: str, path: str) -> dict[str, np.ndarray]:
        """Returns the arrays of one layer as float32, by name."""
        found = self.variables[collection]
        for part in path.split("/"):
            found = found[part]
        return {name: np.asarray(each, np.float32) for name, each in found.items()}
