"""The four reference networks of MLPerf Tiny, as Linen and as NNX modules.

They know nothing of masks: networks as a person would bring them. Both versions of a
network have the same names for the same arrays. The outputs are logits; the softmax is
left to the loss. Dropout is a field, 0 unless it is asked for.

Source: Banbury et al. 2021, "MLPerf Tiny Benchmark", arXiv:2106.07597, and the models
that github.com/mlcommons/tiny publishes under `benchmark/training`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx, traverse_util

EPSILON = 1e-3
"""Of Keras, which the reference networks are written in."""


@dataclasses.dataclass(frozen=True)
class Reference:
    """A reference network at its published size, and a smaller one of its form.

    Attributes:
      shape: shape of one input.
      outputs: number of outputs.
      parameters: number of parameters as Keras counts them, which includes the mean and
        variance of batch-norm.
      linen: function from options to the Linen module.
      nnx: function from `rngs` and the same options to the NNX module.
      small: options of the smaller network.
      small_shape: shape of one input of the smaller network.
    """

    shape: tuple[int, ...]
    outputs: int
    parameters: int
    linen: Callable[..., nn.Module]
    nnx: Callable[..., nnx.Module]
    small: dict[str, Any]
    small_shape: tuple[int, ...]


def mean_of_pixels(x: jax.Array) -> jax.Array:
    """Averages over height and width, as the average-pooling of the published ones."""
    return jnp.mean(x, axis=(1, 2))


# --- ResNet-8 -------------------------------------------------------------------------


class ResidualBlock(nn.Module):
    """Two convolutions beside a shortcut, a convolution where the size changes."""

    channels: int
    stride: int

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        y = nn.Conv(self.channels, (3, 3), self.stride, name="conv1")(x)
        y = nn.relu(_norm(train, "norm1")(y))
        y = nn.Conv(self.channels, (3, 3), name="conv2")(y)
        y = _norm(train, "norm2")(y)
        if self.stride != 1:
            x = nn.Conv(self.channels, (1, 1), self.stride, name="shortcut")(x)
        return nn.relu(x + y)


class ResNet8(nn.Module):
    """Image classification: a convolution, three residual blocks, one dense layer."""

    classes: int = 10
    width: int = 16

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.Conv(self.width, (3, 3), name="conv")(images)
        x = nn.relu(_norm(train, "norm")(x))
        for i, stride in enumerate((1, 2, 2)):
            block = ResidualBlock(self.width * 2**i, stride, name=f"block{i + 1}")
            x = block(x, train=train)
        return nn.Dense(self.classes, name="dense")(mean_of_pixels(x))


class NnxResidualBlock(nnx.Module):
    """`ResidualBlock` in NNX."""

    def __init__(self, inputs: int, channels: int, stride: int, *, rngs: nnx.Rngs):
        self.conv1 = nnx.Conv(inputs, channels, (3, 3), stride, rngs=rngs)
        self.norm1 = _nnx_norm(channels, rngs)
        self.conv2 = nnx.Conv(channels, channels, (3, 3), rngs=rngs)
        self.norm2 = _nnx_norm(channels, rngs)
        self.shortcut = (
            nnx.Conv(inputs, channels, (1, 1), stride, rngs=rngs)
            if stride != 1
            else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        y = self.norm2(self.conv2(nnx.relu(self.norm1(self.conv1(x)))))
        return nnx.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class NnxResNet8(nnx.Module):
    """`ResNet8` in NNX."""

    def __init__(self, classes: int = 10, width: int = 16, *, rngs: nnx.Rngs):
        self.conv = nnx.Conv(3, width, (3, 3), rngs=rngs)
        self.norm = _nnx_norm(width, rngs)
        self.block1 = NnxResidualBlock(width, width, 1, rngs=rngs)
        self.block2 = NnxResidualBlock(width, 2 * width, 2, rngs=rngs)
        self.block3 = NnxResidualBlock(2 * width, 4 * width, 2, rngs=rngs)
        self.dense = nnx.Linear(4 * width, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(images)))
        x = self.block3(self.block2(self.block1(x)))
        return self.dense(mean_of_pixels(x))


# --- depthwise separable convolutions: MobileNetV1 and DS-CNN -------------------------


class SeparableBlock(nn.Module):
    """A depthwise 3x3 convolution and a 1x1 convolution, each with batch-norm, ReLU."""

    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        inputs = x.shape[-1]
        x = nn.Conv(
            inputs,
            (3, 3),
            self.stride,
            feature_group_count=inputs,
            name="depthwise",
        )(x)
        x = nn.relu(_norm(train, "norm1")(x))
        x = nn.Conv(self.channels, (1, 1), name="pointwise")(x)
        return nn.relu(_norm(train, "norm2")(x))


class NnxSeparableBlock(nnx.Module):
    """`SeparableBlock` in NNX."""

    def __init__(self, inputs: int, channels: int, stride: int = 1, *, rngs: nnx.Rngs):
        self.depthwise = nnx.Conv(
            inputs, inputs, (3, 3), stride, feature_group_count=inputs, rngs=rngs
        )
        self.norm1 = _nnx_norm(inputs, rngs)
        self.pointwise = nnx.Conv(inputs, channels, (1, 1), rngs=rngs)
        self.norm2 = _nnx_norm(channels, rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm1(self.depthwise(x)))
        return nnx.relu(self.norm2(self.pointwise(x)))


def mobilenet_blocks(width: float) -> list[tuple[int, int]]:
    """Returns output channels and stride of each block of MobileNetV1."""
    full = [(64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2)]
    full += [(512, 1)] * 5 + [(1024, 2), (1024, 1)]
    return [(int(channels * width), stride) for channels, stride in full]


class MobileNetV1(nn.Module):
    """Visual wake words: a convolution, thirteen separable blocks, one dense layer."""

    classes: int = 2
    width: float = 0.25

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.Conv(int(32 * self.width), (3, 3), 2, name="conv")(images)
        x = nn.relu(_norm(train, "norm")(x))
        for i, (channels, stride) in enumerate(mobilenet_blocks(self.width), 1):
            x = SeparableBlock(channels, stride, name=f"block{i}")(x, train=train)
        return nn.Dense(self.classes, name="dense")(mean_of_pixels(x))


class NnxMobileNetV1(nnx.Module):
    """`MobileNetV1` in NNX."""

    def __init__(self, classes: int = 2, width: float = 0.25, *, rngs: nnx.Rngs):
        inputs = int(32 * width)
        self.conv = nnx.Conv(3, inputs, (3, 3), 2, rngs=rngs)
        self.norm = _nnx_norm(inputs, rngs)
        blocks = mobilenet_blocks(width)
        self.names = tuple(f"block{i}" for i in range(1, len(blocks) + 1))
        for name, (channels, stride) in zip(self.names, blocks, strict=True):
            setattr(self, name, NnxSeparableBlock(inputs, channels, stride, rngs=rngs))
            inputs = channels
        self.dense = nnx.Linear(inputs, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.conv(images)))
        for name in self.names:
            x = getattr(self, name)(x)
        return self.dense(mean_of_pixels(x))


class DSCNN(nn.Module):
    """Keyword spotting: a 10x4 convolution, four separable blocks, one dense layer.

    The published network drops 0.2 after the first convolution and 0.4 before pooling.
    """

    classes: int = 12
    channels: int = 64
    dropout: tuple[float, float] = (0.0, 0.0)

    @nn.compact
    def __call__(self, spectra: jax.Array, *, train: bool = False) -> jax.Array:
        first, last = (
            nn.Dropout(rate, deterministic=not train) for rate in self.dropout
        )
        x = nn.Conv(self.channels, (10, 4), 2, name="conv")(spectra)
        x = first(nn.relu(_norm(train, "norm")(x)))
        for i in range(1, 5):
            x = SeparableBlock(self.channels, name=f"block{i}")(x, train=train)
        return nn.Dense(self.classes, name="dense")(mean_of_pixels(last(x)))


class NnxDSCNN(nnx.Module):
    """`DSCNN` in NNX."""

    def __init__(
        self,
        classes: int = 12,
        channels: int = 64,
        dropout: tuple[float, float] = (0.0, 0.0),
        *,
        rngs: nnx.Rngs,
    ):
        self.conv = nnx.Conv(1, channels, (10, 4), 2, rngs=rngs)
        self.norm = _nnx_norm(channels, rngs)
        self.dropout1 = nnx.Dropout(dropout[0], rngs=rngs)
        self.block1 = NnxSeparableBlock(channels, channels, rngs=rngs)
        self.block2 = NnxSeparableBlock(channels, channels, rngs=rngs)
        self.block3 = NnxSeparableBlock(channels, channels, rngs=rngs)
        self.block4 = NnxSeparableBlock(channels, channels, rngs=rngs)
        self.dropout2 = nnx.Dropout(dropout[1], rngs=rngs)
        self.dense = nnx.Linear(channels, classes, rngs=rngs)

    def __call__(self, spectra: jax.Array) -> jax.Array:
        x = self.dropout1(nnx.relu(self.norm(self.conv(spectra))))
        x = self.block4(self.block3(self.block2(self.block1(x))))
        return self.dense(mean_of_pixels(self.dropout2(x)))


# --- autoencoder ----------------------------------------------------------------------


def autoencoder_widths(hidden: int, code: int) -> list[int]:
    """Returns the widths of the layers between input and output."""
    return [hidden] * 4 + [code] + [hidden] * 4


class Autoencoder(nn.Module):
    """Anomaly detection: nine dense layers with batch-norm and ReLU, one without."""

    outputs: int = 640
    hidden: int = 128
    code: int = 8

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        for i, width in enumerate(autoencoder_widths(self.hidden, self.code), 1):
            x = nn.Dense(width, name=f"dense{i}")(x)
            x = nn.relu(_norm(train, f"norm{i}")(x))
        return nn.Dense(self.outputs, name="dense")(x)


class NnxAutoencoder(nnx.Module):
    """`Autoencoder` in NNX."""

    def __init__(
        self, outputs: int = 640, hidden: int = 128, code: int = 8, *, rngs: nnx.Rngs
    ):
        widths = autoencoder_widths(hidden, code)
        self.layers = len(widths)
        inputs = outputs
        for i, width in enumerate(widths, 1):
            setattr(self, f"dense{i}", nnx.Linear(inputs, width, rngs=rngs))
            setattr(self, f"norm{i}", _nnx_norm(width, rngs))
            inputs = width
        self.dense = nnx.Linear(inputs, outputs, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        for i in range(1, self.layers + 1):
            x = getattr(self, f"dense{i}")(x)
            x = nnx.relu(getattr(self, f"norm{i}")(x))
        return self.dense(x)


# --- both versions --------------------------------------------------------------------


def _norm(train: bool, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(use_running_average=not train, epsilon=EPSILON, name=name)


def _nnx_norm(channels: int, rngs: nnx.Rngs) -> nnx.BatchNorm:
    return nnx.BatchNorm(channels, epsilon=EPSILON, rngs=rngs)


def copy_weights(variables: dict[str, Any], module: nnx.Module) -> None:
    """Copies the arrays of a Linen network into the NNX module of the same names.

    Args:
      variables: `params`, and `batch_stats` if there are any.
      module: module whose `nnx.Param` and `nnx.BatchStat` are set.

    Raises:
      KeyError: only one side has an array.
      ValueError: an array has another shape.
    """
    arrays: dict[tuple[Any, ...], Any] = {}
    for collection in ("params", "batch_stats"):
        arrays |= traverse_util.flatten_dict(variables.get(collection, {}))
    for path, variable in nnx.iter_graph(module):
        if isinstance(variable, nnx.Param | nnx.BatchStat):
            array = arrays.pop(path)
            if array.shape != variable[...].shape:
                raise ValueError(f"copy_weights: {path} is {array.shape}")
            variable[...] = array
    if arrays:
        raise KeyError(f"copy_weights: {sorted(arrays)} are in the variables alone")


NETWORKS = {
    # Parameters: "Total params" that Keras prints for the published models.
    "resnet8": Reference(
        shape=(32, 32, 3),
        outputs=10,
        parameters=78_666,
        linen=ResNet8,
        nnx=NnxResNet8,
        small={"width": 4},
        small_shape=(8, 8, 3),
    ),
    "mobilenet": Reference(
        shape=(96, 96, 3),
        outputs=2,
        parameters=221_794,
        linen=MobileNetV1,
        nnx=NnxMobileNetV1,
        small={"width": 1 / 16},
        small_shape=(32, 32, 3),
    ),
    "ds_cnn": Reference(
        shape=(49, 10, 1),
        outputs=12,
        parameters=24_908,
        linen=DSCNN,
        nnx=NnxDSCNN,
        small={"channels": 8},
        small_shape=(49, 10, 1),
    ),
    "autoencoder": Reference(
        shape=(640,),
        outputs=640,
        parameters=269_992,
        linen=Autoencoder,
        nnx=NnxAutoencoder,
        small={"outputs": 20, "hidden": 12, "code": 3},
        small_shape=(20,),
    ),
}
"""The networks by name."""
