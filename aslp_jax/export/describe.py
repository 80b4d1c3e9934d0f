"""From a Flax module and its weights to the layers that it consists of.

This repeats how the networks of `aslp_jax.networks` are put together; tests hold it
equal to their own modules.
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

SUPPORTED = ("ConvNet (conv2, conv4, conv6)", "VGG (vgg19)", "ResNet (resnet18)")
"""The modules that can be described."""


def describe(net: nn.Module, variables: Mapping[str, Any], input_shape: Shape) -> Graph:
    """Describes a network, as it is evaluated, by its layers.

    The graph computes in float32, whatever the dtype of the module.

    Args:
      net: one of those of `aslp_jax.networks`.
      variables: its own, `{"params": effective weights, **collections}`.
      input_shape: `(height, width, channels)` of an image.

    Returns:
      The graph, its kernels as `variables` hold them.

    Raises:
      ValueError: `net` is of another class.
    """
    draft = _Draft(variables, input_shape, [])
    # A subclass may compute something else.
    if type(net) is ConvNet:
        _conv_net(net, draft)
    elif type(net) is VGG:
        _vgg(net, draft)
    elif type(net) is ResNet:
        _res_net(net, draft)
    else:
        raise ValueError(
            f"describe: {type(net).__name__} is not supported; supported are "
            + ", ".join(SUPPORTED)
        )
    return Graph(input_shape, tuple(draft.nodes))


def _conv_net(net: ConvNet, draft: "_Draft") -> None:
    value = index = 0
    for _ in net.stages:
        for pool in (False, True):
            value = draft.conv(value, f"Conv_{index}", padding=1, relu=True, pool=pool)
            index += 1
    for layer in range(len(net.hidden) + 1):
        value = draft.dense(value, layer, relu=layer < len(net.hidden))


def _vgg(net: VGG, draft: "_Draft") -> None:
    value = index = 0
    for stage in net.stages:
        for place in range(len(stage)):
            pool = place + 1 == len(stage)
            value = draft.normalised(value, "", index, relu=True, pool=pool)
            index += 1
    draft.dense(draft.add(Mean(), value), 0)


def _res_net(net: ResNet, draft: "_Draft") -> None:
    value = draft.normalised(0, "", 0, relu=True)
    for index in range(2 * len(net.stages)):
        place = f"Block_{index}/"
        stride = 2 if index % 2 == 0 and index > 0 else 1
        inner = draft.normalised(value, place, 0, stride=stride, relu=True)
        inner = draft.normalised(inner, place, 1)
        if stride != 1 or draft.shape(inner)[2] != draft.shape(value)[2]:
            value = draft.normalised(value, place, 2, stride=stride)
        value = draft.add(Add(relu=True), value, inner)
    draft.dense(draft.add(Mean(), value), 0)


@dataclasses.dataclass(frozen=True, eq=False)
class _Draft:
    """A graph in the making; layers have the paths that Flax gives them.

    Attributes:
      variables: of the network.
      input_shape: of an image.
      nodes: so far.
    """

    variables: Mapping[str, Any]
    input_shape: Shape
    nodes: list[Node]

    def shape(self, value: int) -> Shape:
        """The shape of a value."""
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
        """Appends a convolution."""
        weights = self._layer("params", name)
        return self.add(
            Conv(name, weights["kernel"], shift=weights.get("bias"), **options), value
        )

    def dense(self, value: int, index: int, *, relu: bool = False) -> int:
        """Appends a dense layer over all pixels, flattened as Flax does."""
        name = f"Dense_{index}"
        weights = self._layer("params", name)
        kernel = weights["kernel"].reshape(*self.shape(value), -1)
        layer = Conv(name, kernel, shift=weights.get("bias"), relu=relu, dense=True)
        return self.add(layer, value)

    def normalised(self, value: int, place: str, index: int, **options: Any) -> int:
        """Appends a `layers.normalised_conv`, by the running statistics."""
        name, norm = f"{place}Conv_{index}", f"{place}BatchNorm_{index}"
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
        found = self.variables[collection]
        for part in path.split("/"):
            found = found[part]
        return {name: np.asarray(each, np.float32) for name, each in found.items()}
