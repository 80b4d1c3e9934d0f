"""Augmentation on the device: random crops and flips by key, pixels to floats."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp

__all__ = ["crop_and_flip", "to_float"]


def crop_and_flip(
    key: jax.Array, images: jax.Array, *, pad: int = 4, flip: bool = True
) -> jax.Array:
    """Crops each image at random after padding it with zeros, and mirrors half of them.

    Every image of the batch has its own random offset and side.

    Args:
      key: PRNG key, consumed by this call.
      images: `[batch, height, width, channels]`, any dtype.
      pad: width of the zero padding on each side, in pixels, >= 0.
      flip: True to mirror left and right with probability one half.

    Returns:
      Cropped images, shape and dtype of `images`.

    Raises:
      ValueError: `images` does not have four axes, or `pad` is negative.

    Source: Dupont et al. 2022, section 3.1 (pad 4, crop 32, horizontal flip).
    """
    if images.ndim != 4 or pad < 0:
        raise ValueError(
            "crop_and_flip: images must be [batch, height, width, channels] and pad "
            f"at least 0, got shape {images.shape} and pad {pad}"
        )
    batch, height, width, channels = images.shape
    offset_key, flip_key = jax.random.split(key)
    offsets = jax.random.randint(offset_key, (batch, 2), 0, 2 * pad + 1)
    padded = jnp.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))

    def crop(image: jax.Array, offset: jax.Array) -> jax.Array:
        start = (offset[0], offset[1], jnp.zeros_like(offset[0]))
        return jax.lax.dynamic_slice(image, start, (height, width, channels))

    cropped = jax.vmap(crop)(padded, offsets)
    if not flip:
        return cropped
    mirror = jax.random.bernoulli(flip_key, shape=(batch, 1, 1, 1))
    return jnp.where(mirror, cropped[:, :, ::-1], cropped)


def to_float(
    images: jax.Array,
    *,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
) -> jax.Array:
    """Converts bytes to pixels in [0, 1], or to standardised pixels.

    Args:
      images: uint8 `[batch, height, width, channels]`.
      mean: mean of each channel, for pixels in [0, 1]; given together with `std`.
      std: standard deviation of each channel, > 0.

    Returns:
      Pixels, float32, shape of `images`.

    Raises:
      TypeError: `images` is not uint8.
      ValueError: only one of `mean` and `std` is given, or their length is not the
        number of channels.
    """
    if images.dtype != jnp.uint8:
        raise TypeError(f"to_float: images must be uint8, got {images.dtype}")
    pixels = images.astype(jnp.float32) / 255
    if mean is None and std is None:
        return pixels
    channels = images.shape[-1]
    if mean is None or std is None or not len(mean) == len(std) == channels:
        raise ValueError(
            f"to_float: mean and std must both have {channels} entries, one a channel, "
            f"got {mean} and {std}"
        )
    per_channel = (1,) * (images.ndim - 1) + (channels,)
    shift = jnp.asarray(mean, jnp.float32).reshape(per_channel)
    width = jnp.asarray(std, jnp.float32).reshape(per_channel)
    return (pixels - shift) / width
