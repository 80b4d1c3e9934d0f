"""Residual networks, as CIFAR takes them."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from aslp_jax.models.initialisers import kaiming_normal
from aslp_jax.models.layers import check_images, classify, normalised_conv


class ResNet(nn.Module):
    """A 3x3 convolution, stages of two residual blocks, then one dense layer.

    Attributes:
      stages: channels of each stage; each but the first halves height and width. The
        first convolution has the channels of the first.
      classes: number of outputs.
      conv_init: initialiser of the convolution kernels.
      dense_init: initialiser of the dense kernel.
      bias_init: from the dense layer's fan_in to the initialiser of its biases; None
        has none. The convolutions have none either way: batch-norm takes away what
        they would add.
      conv_general_dilated: what computes the convolutions, None for `jax.lax`'s own;
        see `aslp_jax.convolution` for training on a CPU.
      dtype: of the computation; weights and batch-norm are float32, and so are outputs,
        whatever it is.

    Source: He et al. 2016, arXiv:1512.03385, with the 3x3 first convolution of stride 1
      that is usual for CIFAR.
    """

    stages: tuple[int, ...]
    classes: int
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
          train: whether to normalise by the batch, and update the running statistics in
            `batch_stats`.

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
    """Two 3x3 convolutions whose result is added to the input.

    With a stride or another number of channels, the input comes through a 1x1
    convolution.

    Attributes:
      conv: convolves and normalises, as `normalised_conv` does.
      channels: of the result.
      stride: of the first convolution, in pixels.
    """

    conv: Callable[..., jax.Array]
    channels: int
    stride: int = 1

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the sum, behind a ReLU.

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
