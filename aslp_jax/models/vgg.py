"""VGG networks with batch-norm, as CIFAR takes them."""

import functools
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from aslp_jax.models.initialisers import kaiming_normal
from aslp_jax.models.layers import check_images, classify, max_pool_2x2, normalised_conv


class VGG(nn.Module):
    """Stages of 3x3 convolutions with batch-norm, then one dense layer.

    Attributes:
      stages: output channels of each convolution of each stage; a stage is "same"
        convolutions with batch-norm and ReLU, and a 2x2 max-pool.
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

    Source: Simonyan & Zisserman 2015, arXiv:1409.1556, table 1 E, with the single dense
      layer that is usual for CIFAR.
    """

    stages: tuple[tuple[int, ...], ...]
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
          images: float `[batch, height, width, channels]`, height and width at least
            2 to the power of the number of stages.
          train: whether to normalise by the batch, and update the running statistics in
            `batch_stats`.

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
        # One pixel of a 32x32 image is left; of a larger one, the mean.
        return classify(x, self.classes, self.dense_init, self.bias_init)


VGG19 = functools.partial(
    VGG, stages=((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
)
