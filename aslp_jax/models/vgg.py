"""VGG networks with batch-norm, in the form used for CIFAR."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from aslp_jax.models.initialisers import kaiming_normal
from aslp_jax.models.layers import check_images, classify, max_pool_2x2, normalised_conv

__all__ = ["VGG", "VGG19"]


class VGG(nn.Module):
    """VGG network: stages of 3x3 convolutions with batch-norm, then one dense layer.

    Attributes:
      classes: number of outputs.
      stages: output channels of each convolution of each stage; a stage is "same"
        convolutions with batch-norm and ReLU, and a 2x2 max-pool.
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

    Source: Simonyan & Zisserman 2015, arXiv:1409.1556, table 1 E, with the single dense
      layer that is usual for CIFAR.
    """

    classes: int
    stages: tuple[tuple[int, ...], ...]
    conv_init: Initializer = kaiming_normal()
    dense_init: Initializer = kaiming_normal()
    bias_init: Callable[[int], Initializer] | None = None
    conv_general_dilated: Callable[..., jax.Array] | None = None
    dtype: Dtype = jnp.float32

    @nn.compact
    def __call__(self, images: jax.Array, *, train: bool = False) -> jax.Array:
        """Returns class logits.

        Args:
          images: float `[batch, height, width, channels]`, height and width at least
            2 to the power of the number of stages.
          train: True normalises by the batch and updates the running statistics in
            `batch_stats`; False (default) normalises by the running statistics.

        Returns:
          float32 `[batch, classes]`.

        Raises:
          ValueError: `images` has not four axes, or is too small for the pooling.
        """
        check_images("VGG", images, least=2 ** len(self.stages))
        x = images.astype(self.dtype)
        for stage in self.stages:
            for channels in stage:
                x = normalised_conv(
                    x,
                    channels,
                    train=train,
                    kernel_init=self.conv_init,
                    conv_general_dilated=self.conv_general_dilated,
                    dtype=self.dtype,
                )
                x = nn.relu(x)
            x = max_pool_2x2(x)
        # A 32x32 image is one pixel here; the pixels of a larger one are averaged.
        return classify(x, self.classes, self.dense_init, self.bias_init)


VGG19 = functools.partial(
    VGG, stages=((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
)
"""`VGG` of sixteen convolutions; takes the number of classes first."""
