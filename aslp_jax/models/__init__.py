"""Plain Flax Linen networks, by name.

They know nothing of masks and can be trained with any optimiser.
"""

from collections.abc import Callable

import flax.linen as nn

from aslp_jax.models.bottleneck import BottleneckResNet, ResNet50
from aslp_jax.models.conv_net import Conv2, Conv4, Conv6, ConvNet
from aslp_jax.models.resnet import ResNet, ResNet18
from aslp_jax.models.vgg import VGG, VGG19

NETWORKS: dict[str, Callable[..., nn.Module]] = {
    "conv2": Conv2,
    "conv4": Conv4,
    "conv6": Conv6,
    "vgg19": VGG19,
    "resnet18": ResNet18,
    "resnet50": ResNet50,
}
"""Constructors of the networks by name; each takes the number of classes first."""

__all__ = [
    "NETWORKS",
    "VGG",
    "VGG19",
    "BottleneckResNet",
    "Conv2",
    "Conv4",
    "Conv6",
    "ConvNet",
    "ResNet",
    "ResNet18",
    "ResNet50",
]
