"""Layers that several networks share."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.typing import Initializer

__all__ = [
    "BATCH_NORM_EPSILON",
    "check_images",
    "classify",
    "max_pool_2x2",
    "normalised_conv",
]

BATCH_NORM_EPSILON = 1e-5
"""Number that batch-norm adds to the variances."""


def check_images(network: str, images: jax.Array, *, least: int) -> None:
    """Checks that a network can take images of this shape.

    Args:
      network: name of the network, for the message.
      images: array of images.
      least: smallest height and width, in pixels.

    Raises:
      ValueError: `images` has not four axes, or has fewer pixels.
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
    """Convolves without biases and applies batch-norm, inside a compact module.

    The layers belong to the calling module, as `Conv_0`, `BatchNorm_0` and so on.
    Batch-norm always computes in float32.

    Args:
      x: float `[batch, height, width, in_channels]`.
      channels: channels of the result.
      train: True normalises by the statistics of `x` and moves the running statistics
        one tenth of the way towards them; False normalises by the running statistics.
      size: height and width of the kernel, odd, default 3.
      stride: stride of both axes, in pixels, default 1.
      **options: keyword arguments of `flax.linen.Conv`; the result has its `dtype`.

    Returns:
      `[batch, ceil(height / stride), ceil(width / stride), channels]`.
    """
    # Equal padding on both sides; with stride 2, "SAME" would pad less above.
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
    """Averages over all pixels and applies a dense layer, inside a compact module.

    The layer belongs to the calling module and computes in the dtype of `x`.

    Args:
      x: float `[batch, height, width, channels]`.
      classes: number of outputs.
      kernel_init: initialiser of the kernel.
      bias_init: function from the number of channels to the initialiser of the biases;
        None for no biases.

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

    The values are those of `flax.linen.max_pool(x, (2, 2), (2, 2))`, whose gradient
    (select-and-scatter) is slow on a CPU. Tied entries of a window share the gradient;
    after a ReLU ties are zeros and get no gradient either way.

    Args:
      x: float `[batch, height, width, channels]`; an odd last row or column is dropped.

    Returns:
      `[batch, height // 2, width // 2, channels]`.
    """
    height, width = x.shape[1] // 2 * 2, x.shape[2] // 2 * 2
    x = x[:, :height, :width]
    top, bottom = x[:, 0::2], x[:, 1::2]
    rows = jnp.maximum(top, bottom)
    return jnp.maximum(rows[:, :, 0::2], rows[:, :, 1::2])
