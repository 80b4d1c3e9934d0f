"""Residual networks, in the form used for CIFAR."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from aslp_jax.models.initialisers import kaiming_normal
from aslp_jax.models.layers import check_images, classify, normalised_conv

__all__ = ["Block", "ResNet", "ResNet18"]


class ResNet(nn.Module):
    """Residual network: a convolution, stages of two blocks, then one dense layer.

    Attributes:
      classes: number of outputs.
      stages: channels of each stage. Each stage but the first halves height and width;
        the first 3x3 convolution has the channels of the first stage.
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

    Source: He et al. 2016, arXiv:1512.03385, with the 3x3 first convolution of stride 1
      that is usual for CIFAR.
    """

    classes: int
    stages: tuple[int, ...]
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
        check_images("ResNet", images, least=1)
        conv = functools.partial(
            normalised_conv,
            train=train,
            kernel_init=self.conv_init,
            conv_general_dilated=self.conv_general_dilated,
            dtype=self.dtype,
        )
        x = nn.relu(conv(images.astype(self.dtype), self.stages[0]))
        for stage, channels in enumerate(self.stages):
            x = Block(conv, channels, stride=1 if stage == 0 else 2)(x)
            x = Block(conv, channels)(x)
        return classify(x, self.classes, self.dense_init, self.bias_init)


class Block(nn.Module):
    """Residual block: two 3x3 convolutions whose result is added to the input.

    If the stride is not 1 or the number of channels changes, a 1x1 convolution is
    applied to the input before the sum.

    Attributes:
      conv: function that convolves and normalises, such as `normalised_conv`.
      channels: channels of the result.
      stride: stride of the first convolution, in pixels, default 1.
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
          `[batch, ceil(height / stride), ceil(width / stride), channels]`.
        """
        y = nn.relu(self.conv(x, self.channels, stride=self.stride))
        y = self.conv(y, self.channels)
        if self.stride != 1 or x.shape[-1] != self.channels:
            x = self.conv(x, self.channels, size=1, stride=self.stride)
        return nn.relu(x + y)


ResNet18 = functools.partial(ResNet, stages=(64, 128, 256, 512))
"""`ResNet` of four stages; takes the number of classes first."""
