"""Residual networks of bottleneck blocks, in the form used for ImageNet."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from aslp_jax.models.initialisers import kaiming_normal
from aslp_jax.models.layers import check_images, classify, normalised_conv

__all__ = ["EXPANSION", "BottleneckBlock", "BottleneckResNet", "ResNet50"]

EXPANSION = 4
"""Channels of the result of a bottleneck block, over those of its 3x3 convolution."""


class BottleneckResNet(nn.Module):
    """Residual network: a 7x7 convolution, max-pool, stages of blocks, a dense layer.

    Attributes:
      classes: number of outputs.
      stages: channels of the 3x3 convolutions of each stage. The first convolution has
        the channels of the first stage. Each stage but the first halves height and
        width.
      blocks: number of blocks of each stage, as many numbers as `stages`.
      conv_init: initialiser of the convolution kernels, default `kaiming_normal()`.
      dense_init: initialiser of the dense kernel, default `kaiming_normal()`.
      bias_init: function from the fan_in of the dense layer to the initialiser of its
        biases; None (default) for no biases. The convolutions never have biases, which
        batch-norm would remove.
      conv_general_dilated: function that computes the convolutions; None (default) is
        `jax.lax.conv_general_dilated`. See `aslp_jax.ops.convolution` for training on a
        CPU.
      dtype: dtype of the computation, default float32. Weights, batch-norm and outputs
        are always float32.

    Source: He et al. 2016, arXiv:1512.03385, table 1, with the stride in the 3x3
      convolution of a block ("version 1.5"), as in most libraries.
    """

    classes: int
    stages: tuple[int, ...]
    blocks: tuple[int, ...]
    conv_init: Initializer = kaiming_normal()
    dense_init: Initializer = kaiming_normal()
    bias_init: Callable[[int], Initializer] | None = None
    conv_general_dilated: Callable[..., jax.Array] | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns class logits.

        Args:
          images: float `[batch, height, width, channels]`, at least one pixel.
          train: True normalises by the batch and updates the running statistics in
            `batch_stats`; False (default) normalises by the running statistics.

        Returns:
          float32 `[batch, classes]`.

        Raises:
          ValueError: `images` has not four axes, or no pixels.
        """
        check_images("BottleneckResNet", images, least=1)
        conv = functools.partial(
            normalised_conv,
            train=train,
            kernel_init=self.conv_init,
            conv_general_dilated=self.conv_general_dilated,
            dtype=self.dtype,
        )
        x = conv(images.astype(self.dtype), self.stages[0], size=7, stride=2)
        x = nn.max_pool(nn.relu(x), (3, 3), (2, 2), ((1, 1), (1, 1)))
        for stage, (channels, count) in enumerate(
            zip(self.stages, self.blocks, strict=True)
        ):
            for block in range(count):
                stride = 2 if stage > 0 and block == 0 else 1
                x = BottleneckBlock(conv, channels, stride=stride)(x)
        return classify(x, self.classes, self.dense_init, self.bias_init)


class BottleneckBlock(nn.Module):
    """Residual block: 1x1, 3x3 and 1x1 convolutions, whose result the input joins.

    If the stride is not 1 or the number of channels changes, a 1x1 convolution is
    applied to the input before the sum.

    Attributes:
      conv: function that convolves and normalises, such as `normalised_conv`.
      channels: channels of the first two convolutions; the last has `EXPANSION` times
        as many.
      stride: stride of the 3x3 convolution, in pixels, default 1.
    """

    conv: Callable[..., jax.Array]
    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the ReLU of the sum.

        Args:
          x: `[batch, height, width, in_channels]`.

        Returns:
          `[batch, ceil(height / stride), ceil(width / stride), EXPANSION * channels]`.
        """
        channels = EXPANSION * self.channels
        y = nn.relu(self.conv(x, self.channels, size=1))
        y = nn.relu(self.conv(y, self.channels, stride=self.stride))
        y = self.conv(y, channels, size=1)
        if self.stride != 1 or x.shape[-1] != channels:
            x = self.conv(x, channels, size=1, stride=self.stride)
        return nn.relu(x + y)


ResNet50 = functools.partial(
    BottleneckResNet, stages=(64, 128, 256, 512), blocks=(3, 4, 6, 3)
)
"""`BottleneckResNet` of sixteen blocks; takes the number of classes first."""
