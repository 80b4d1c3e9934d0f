"""A convolution whose gradient is as fast inside a compiled loop as outside of one.

On a CPU, XLA runs the gradient of a convolution with respect to its kernel as a
convolution of unusual layout. Outside of loops it rewrites that one for a fast library;
inside the body of `scan` or `while_loop` it does not, and falls back to plain loops:
5.5 s instead of 0.14 s for 64 -> 64 channels on 64 images of 32x32 (jax 0.10, two
cores). The forward convolution suffers likewise on tiny images. Since an epoch here is
one compiled loop, networks take this function on a CPU: `nn.Conv(...,
conv_general_dilated=conv_in_loop)`.
"""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

_LAYOUT = ("NHWC", "HWIO", "NHWC")

_TINY = 8
"""Images of fewer pixels are convolved as one matmul: in a loop, 256 -> 256 channels on
32 images of 2x2 take 38 ms as a convolution and 2.6 ms so; at 4x4 the two are even."""


def conv_in_loop(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """Convolves like `jax.lax.conv_general_dilated`; kernel gradients are matmuls.

    Takes the arguments that `flax.linen.Conv` gives to its `conv_general_dilated`. The
    fast gradient covers two-dimensional convolutions of stride 1 without groups,
    dilation or negative padding; anything else is handed to `jax.lax` as it is. Reverse
    mode only.

    Args:
      inputs: `[batch, height, width, in_channels]`.
      kernel: `[kernel_height, kernel_width, in_channels, out_channels]`, same dtype.
      strides: of the window, in pixels.
      padding: `"SAME"`, `"VALID"`, or pixels (before, after) for each image axis.
      **options: other keyword arguments of `jax.lax.conv_general_dilated`.

    Returns:
      `[batch, out_height, out_width, out_channels]`.
    """
    precision = options.get("precision")
    if not _is_plain(inputs, strides, options):
        return lax.conv_general_dilated(inputs, kernel, strides, padding, **options)
    if isinstance(padding, str):
        sizes = inputs.shape[1:3], kernel.shape[:2]
        padding = lax.padtype_to_pads(*sizes, (1, 1), padding)
    pads = tuple((int(before), int(after)) for before, after in padding)
    if min(min(pad) for pad in pads) < 0:  # lax takes these as crops
        return lax.conv_general_dilated(inputs, kernel, strides, pads, **options)
    return _conv(inputs, kernel, pads, precision)


def _is_plain(
    inputs: jax.Array, strides: Sequence[int], options: dict[str, Any]
) -> bool:
    numbers = options.get("dimension_numbers")
    channels_last = lax.ConvDimensionNumbers((0, 3, 1, 2), (3, 2, 0, 1), (0, 3, 1, 2))
    dilations = (
        *(options.get("lhs_dilation") or ()),
        *(options.get("rhs_dilation") or ()),
    )
    return (
        inputs.ndim == 4
        and all(stride == 1 for stride in strides)
        and all(dilation == 1 for dilation in dilations)
        and options.get("feature_group_count", 1) == 1
        and options.get("batch_group_count", 1) == 1
        and options.get("preferred_element_type") is None
        and numbers in (_LAYOUT, channels_last)
    )


def _convolve(inputs, kernel, pads, precision):
    height, width, channels, _ = kernel.shape
    rows = inputs.shape[1] + sum(pads[0]) - height + 1
    columns = inputs.shape[2] + sum(pads[1]) - width + 1
    crops = min(min(pad) for pad in pads) < 0
    if crops or not 0 < rows * columns < _TINY:
        return lax.conv_general_dilated(
            inputs, kernel, (1, 1), pads, dimension_numbers=_LAYOUT, precision=precision
        )
    padded = jnp.pad(inputs, ((0, 0), *pads, (0, 0)))
    views = [
        padded[:, row : row + rows, column : column + columns]
        for row in range(height)
        for column in range(width)
    ]
    return jnp.matmul(
        jnp.concatenate(views, -1),
        kernel.reshape(height * width * channels, -1),
        precision=precision,
    )


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _conv(inputs, kernel, pads, precision):
    return _convolve(inputs, kernel, pads, precision)


def _forward(inputs, kernel, pads, precision):
    return _convolve(inputs, kernel, pads, precision), (inputs, kernel)


def _backward(pads, precision, residuals, gradient):
    inputs, kernel = residuals
    height, width = kernel.shape[:2]
    mirrored = jnp.flip(kernel, (0, 1)).swapaxes(2, 3)
    full = tuple(
        (size - 1 - before, size - 1 - after)
        for size, (before, after) in zip((height, width), pads, strict=True)
    )
    to_inputs = _convolve(gradient, mirrored, full, precision)

    # One entry of the kernel meets one shifted view of the inputs: a matmul over all
    # batch and image positions for each entry.
    _, rows, columns, _ = gradient.shape
    padded = jnp.pad(inputs, ((0, 0), *pads, (0, 0)))
    over_positions = (((0, 1, 2), (0, 1, 2)), ((), ()))

    def tap(row: int, column: int) -> jax.Array:
        view = padded[:, row : row + rows, column : column + columns]
        return lax.dot_general(view, gradient, over_positions, precision=precision)

    taps = [jnp.stack([tap(r, c) for c in range(width)]) for r in range(height)]
    return to_inputs, jnp.stack(taps)


_conv.defvjp(_forward, _backward)
