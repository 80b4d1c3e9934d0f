"""Small convolutional networks of the lottery-ticket papers: Conv2, Conv4, Conv6."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from aslp_jax.models.initialisers import kaiming_normal
from aslp_jax.models.layers import check_images, max_pool_2x2

__all__ = ["Conv2", "Conv4", "Conv6", "ConvNet"]


class ConvNet(nn.Module):
    """VGG-like network: stages of two 3x3 convolutions, then dense layers.

    Attributes:
      classes: number of outputs.
      stages: output channels of each stage; a stage is two "same" convolutions with
        ReLU and a 2x2 max-pool.
      hidden: units of each hidden dense layer, default (256, 256).
      conv_init: initialiser of the convolution kernels, default `kaiming_normal()`.
      dense_init: initialiser of the dense kernels, default `kaiming_normal()`.
      bias_init: function from the fan_in of a layer to the initialiser of its biases;
        None (default) for no biases.
      conv_general_dilated: function that computes the convolutions; None (default) is
        `jax.lax.conv_general_dilated`. See `aslp_jax.ops.convolution` for training on a
        CPU.
      dtype: dtype of the computation, default float32. Weights and outputs are always
        float32.

    Source: Conv2, Conv4 and Conv6 of Frankle & Carbin 2019, arXiv:1803.03635, as in
      Dupont et al. 2022.
    """

    classes: int
    stages: tuple[int, ...]
    hidden: tuple[int, ...] = (256, 256)
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
          train: not used; this network has neither batch statistics nor dropout.

        Returns:
          float32 `[batch, classes]`.

        Raises:
          ValueError: `images` has not four axes, or is too small for the pooling.
        """
        del train
        check_images("ConvNet", images, least=2 ** len(self.stages))
        x = images.astype(self.dtype)
        for channels in self.stages:
            for _ in range(2):
                conv = nn.Conv(
                    channels,
                    (3, 3),
                    kernel_init=self.conv_init,
                    conv_general_dilated=self.conv_general_dilated,
                    **self._options(9 * x.shape[-1]),
                )
                x = nn.relu(conv(x))
            x = max_pool_2x2(x)
        x = x.reshape(x.shape[0], -1)
        for units in self.hidden:
            x = nn.relu(self._dense(units, x))
        return self._dense(self.classes, x).astype(jnp.float32)

    def _dense(self, units: int, x: jax.Array) -> jax.Array:
        options = self._options(x.shape[-1])
        return nn.Dense(units, kernel_init=self.dense_init, **options)(x)

    def _options(self, fan_in: int) -> dict[str, Any]:
        if self.bias_init is None:
            return {"use_bias": False, "dtype": self.dtype}
        return {"bias_init": self.bias_init(fan_in), "dtype": self.dtype}


Conv2 = functools.partial(ConvNet, stages=(64,))
"""`ConvNet` of one stage; takes the number of classes first."""


Conv4 = functools.partial(ConvNet, stages=(64, 128))
"""`ConvNet` of two stages; takes the number of classes first."""


Conv6 = functools.partial(ConvNet, stages=(64, 128, 256))
"""`ConvNet` of three stages; takes the number of classes first."""
