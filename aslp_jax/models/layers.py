"""What more than one network is made of."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

BATCH_NORM_EPSILON = 1e-5
"""Added to the variances."""


def check_images(network: str, images: jax.Array, *, least: int) -> None:
    """Checks that a network can take images of this shape.

    Args:
      network: its name, for the message.
      images: anything with a shape.
      least: pixels, of height and of width.

    Raises:
      ValueError: not four axes, or fewer pixels.
    """
    if images.ndim != 4 or min(images.shape[1:3]) < least:
        raise ValueError(
            f"{network}: images must be [batch, height, width, channels] of at least "
            f"{least}x{least} pixels, got shape {images.shape}"
        )


def normalised_conv(
    x: jax.Array,
    channels: int,
    *,
    train: bool,
    size: int = 3,
    stride: int = 1,
    **options: Any,
) -> jax.Array:
    """Convolves without biases and normalises over the batch; of a compact module.

    The layers belong to the module that calls this, as `Conv_0` and `BatchNorm_0` and
    so on. Batch-norm is float32 whatever the convolution computes in.

    Args:
      x: `[batch, height, width, in_channels]`.
      channels: of the result.
      train: whether to normalise by the statistics of `x`, and move the running ones a
        tenth of the way towards them; False normalises by the running ones.
      size: of the square kernel, odd.
      stride: in pixels, of both axes.
      **options: of `flax.linen.Conv`; `dtype` is that of the result too.

    Returns:
      `[batch, ceil(height / stride), ceil(width / stride), channels]`.
    """
    # As many zeros on both sides: at stride 2 "SAME" would have fewer above than below.
    conv = nn.Conv(
        channels,
        (size, size),
        (stride, stride),
        padding=size // 2,
        use_bias=False,
        **options,
    )
    norm = nn.BatchNorm(
        use_running_average=not train,
        momentum=0.9,
        epsilon=BATCH_NORM_EPSILON,
        dtype=jnp.float32,
    )
    x = conv(x)
    return norm(x.astype(jnp.float32)).astype(x.dtype)


def classify(
    x: jax.Array,
    classes: int,
    kernel_init: Initializer,
    bias_init: Callable[[int], Initializer] | None,
) -> jax.Array:
    """Averages over all pixels and ends in one dense layer; of a compact module.

    The layer belongs to the module that calls this, and computes in the dtype of `x`.

    Args:
      x: `[batch, height, width, channels]`.
      classes: number of outputs.
      kernel_init: initialiser of the kernel.
      bias_init: from the channels to the initialiser of the biases; None has none.

    Returns:
      float32 `[batch, classes]`.
    """
    options: dict[str, Any] = {"use_bias": False}
    if bias_init is not None:
        options = {"bias_init": bias_init(x.shape[-1])}
    dense = nn.Dense(classes, kernel_init=kernel_init, dtype=x.dtype, **options)
    return dense(x.mean((1, 2))).astype(jnp.float32)


def max_pool_2x2(x: jax.Array) -> jax.Array:
    """Takes the maximum over 2x2 windows as the maximum of four strided slices.

    Same values as `flax.linen.max_pool(x, (2, 2), (2, 2))`; on a CPU the gradient of
    that one (select-and-scatter) is slow. Where entries of a window tie, the gradient
    is shared among them; behind a ReLU ties are zeros and get none either way.

    Args:
      x: `[batch, height, width, channels]`; an odd last row or column is left out.

    Returns:
      `[batch, height // 2, width // 2, channels]`.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    top, bottom = x[:, 0::2], x[:, 1::2]
    rows = jnp.maximum(top, bottom)
    return jnp.maximum(rows[:, :, 0::2], rows[:, :, 1::2])
