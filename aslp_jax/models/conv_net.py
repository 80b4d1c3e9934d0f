"""Plain Flax networks, by name. They know nothing of masks; anyone could train them
with SGD.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Dtype, Initializer

from aslp_jax.models.initialisers import kaiming_normal
from aslp_jax.models.layers import check_images, max_pool_2x2


class ConvNet(nn.Module):
    """A small VGG-like network: stages of two 3x3 convolutions, then three dense
    layers.

    Attributes:
      stages: output channels of each stage; a stage is two "same" convolutions with
        ReLU and a 2x2 max-pool.
      classes: number of outputs.
      hidden: units of the two hidden dense layers.
      conv_init: initialiser of the convolution kernels.
      dense_init: initialiser of the dense kernels.
      bias_init: from a layer's fan_in to the initialiser of its biases; None has none.
      conv_general_dilated: what computes the convolutions, None for `jax.lax`'s own;
        see `aslp_jax.convolution` for training on a CPU.
      dtype: of the computation; weights are float32 and outputs float32 whatever it is.

    Source: Conv2, Conv4 and Conv6 of Frankle & Carbin 2019, arXiv:1803.03635, as in
      Dupont et al. 2022.
    """

    stages: tuple[int, ...]
    classes: int
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
          train: taken by every network here; this one has no batch statistics and no
            dropout, so it changes nothing.

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


Conv4 = functools.partial(ConvNet, stages=(64, 128))


Conv6 = functools.partial(ConvNet, stages=(64, 128, 256))
