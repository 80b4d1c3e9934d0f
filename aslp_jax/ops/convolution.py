"""Convolution whose gradient is as fast inside a compiled loop as outside.

On a CPU, XLA computes the gradient of a convolution with respect to its kernel as a
convolution of unusual layout. Outside loops it calls a fast library for this layout.
Inside the body of `scan` or `while_loop` it does not, and uses plain loops: 5.5 s
instead of 0.14 s for 64 -> 64 channels on 64 images of 32x32 (jax 0.10, two cores).
Two other cases are slow in a loop: the forward convolution of tiny images, and at
stride 2 the gradient with respect to the inputs. An epoch is one compiled loop here, so
networks use this function on a CPU:
`nn.Conv(..., conv_general_dilated=conv_in_loop)`.

This module can be removed when JAX issue #12868, "Convolution is significantly slower
inside a loop body (CPU)" (open since October 2022), is solved:
https://github.com/jax-ml/jax/issues/12868.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from aslp_jax.ops import winograd

__all__ = ["Convolution", "conv_in_loop", "of_platform"]

Convolution = Callable[..., jax.Array]
"""Function that `flax.linen.Conv` takes as its `conv_general_dilated`."""

_LAYOUT = ("NHWC", "HWIO", "NHWC")

_TINY = 8
"""Number of pixels below which a convolution is one matmul: in a loop, 256 -> 256
channels on 32 images of 2x2 take 2.6 ms as a matmul and 38 ms as a convolution; at 4x4
the two are even."""


def of_platform(platform: str) -> Convolution | None:
    """Returns the convolution for the networks on a platform.

    Programs that must compute the same bits use this function to choose alike.

    Args:
      platform: platform of the devices, such as `"cpu"`.

    Returns:
      `conv_in_loop` on a CPU; elsewhere None, for `jax.lax.conv_general_dilated`.
    """
    return conv_in_loop if platform == "cpu" else None


def conv_in_loop(
    inputs: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: str | Sequence[tuple[int, int]],
    **options: Any,
) -> jax.Array:
    """Convolves like `jax.lax.conv_general_dilated`; kernel gradients are matmuls.

    It takes the arguments that `flax.linen.Conv` passes to `conv_general_dilated`. The
    fast gradient covers two-dimensional convolutions of strides 1 and 2 without groups,
    dilation or negative padding; `jax.lax` computes all others. Only reverse-mode
    differentiation is supported.

    Args:
      inputs: float `[batch, height, width, in_channels]`.
      kernel: `[kernel_height, kernel_width, in_channels, out_channels]`, same dtype.
      strides: strides of the window, in pixels.
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
        padding = lax.padtype_to_pads(*sizes, strides, padding)
    pads = tuple((int(before), int(after)) for before, after in padding)
    if min(min(pad) for pad in pads) < 0:  # lax crops by negative padding
        return lax.conv_general_dilated(inputs, kernel, strides, pads, **options)
    return _conv(inputs, kernel, tuple(strides), pads, precision)


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
        and all(stride in (1, 2) for stride in strides)
        and all(dilation == 1 for dilation in dilations)
        and options.get("feature_group_count", 1) == 1
        and options.get("batch_group_count", 1) == 1
        and options.get("preferred_element_type") is None
        and numbers in (_LAYOUT, channels_last)
    )


def _convolve(inputs, kernel, strides, pads, precision):
    if _by_winograd(inputs, kernel, strides, pads, precision):
        return winograd.convolve(inputs, kernel, pads)
    height, width, channels, _ = kernel.shape
    rows, columns = _out_shape(inputs, kernel, strides, pads)
    # A convolution spends time on pixels that a strided 1x1 kernel skips: 23 ms for
    # 64 -> 128 channels on 32 images of 32x32, where a matmul takes 1.4 ms.
    skips = height * width == 1 and max(strides) > 1
    if not (0 < rows * columns < _TINY or skips):
        return lax.conv_general_dilated(
            inputs,
            kernel,
            strides,
            pads,
            dimension_numbers=_LAYOUT,
            precision=precision,
        )
    views = _views(inputs, kernel, strides, pads)
    return jnp.matmul(
        jnp.concatenate([view for line in views for view in line], -1),
        kernel.reshape(height * width * channels, -1),
        precision=precision,
    )


def _by_winograd(inputs, kernel, strides, pads, precision):
    default = precision is None and max(strides) == 1
    return default and winograd.is_faster(inputs, kernel, pads)


def _out_shape(inputs, kernel, strides, pads):
    """Returns height and width of the result."""
    sizes = zip(inputs.shape[1:3], kernel.shape[:2], strides, pads, strict=True)
    return [
        max((size + sum(pad) - window) // stride + 1, 0)
        for size, window, stride, pad in sizes
    ]


def _views(inputs, kernel, strides, pads):
    """Returns the inputs that meet each kernel entry, as `views[row][column]`."""
    rows, columns = _out_shape(inputs, kernel, strides, pads)
    height, width = kernel.shape[:2]
    down, right = strides
    padded = jnp.pad(inputs, ((0, 0), *pads, (0, 0)))

    def view(row: int, column: int) -> jax.Array:
        bottom, side = row + down * rows, column + right * columns
        return padded[:, row:bottom:down, column:side:right]

    return [[view(row, column) for column in range(width)] for row in range(height)]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _conv(inputs, kernel, strides, pads, precision):
    return _convolve(inputs, kernel, strides, pads, precision)


def _forward(inputs, kernel, strides, pads, precision):
    return _convolve(inputs, kernel, strides, pads, precision), (inputs, kernel)


def _backward(strides, pads, precision, residuals, gradient):
    inputs, kernel = residuals
    to_inputs = _to_inputs(inputs, kernel, strides, pads, precision, gradient)
    if _by_winograd(inputs, kernel, strides, pads, precision):
        return to_inputs, winograd.kernel_gradient(inputs, gradient, pads)

    # Each kernel entry meets one shifted view of the inputs, so that its gradient is a
    # matmul over all batch and image positions.
    over_positions = (((0, 1, 2), (0, 1, 2)), ((), ()))

    def tap(view: jax.Array) -> jax.Array:
        return lax.dot_general(view, gradient, over_positions, precision=precision)

    views = _views(inputs, kernel, strides, pads)
    return to_inputs, jnp.stack([jnp.stack([tap(v) for v in line]) for line in views])


def _to_inputs(inputs, kernel, strides, pads, precision, gradient):
    """Returns the gradient of the inputs, by convolutions of stride 1.

    With stride 2, even and odd rows of the inputs meet different rows of the kernel,
    and columns too, so each of the four phases is a separate convolution. `jax.lax`
    inserts zeros between the entries of the gradient instead, and multiplies them.
    """
    batch, *sizes, channels = inputs.shape
    counts = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
    axes = zip(strides, counts, kernel.shape, gradient.shape[1:], pads, strict=False)
    rows, columns = (_phases(*axis) for axis in axes)

    def convolved(vertical: tuple, horizontal: tuple) -> jax.Array:
        (down, above_below), (right, beside) = vertical, horizontal
        part = kernel[down, right]
        if part.size == 0:  # the kernel skips these pixels
            return jnp.zeros((batch, *counts, channels), inputs.dtype)
        mirrored = jnp.flip(part, (0, 1)).swapaxes(2, 3)
        cropped, grown = _crop(gradient, (above_below, beside))
        return _convolve(cropped, mirrored, (1, 1), grown, precision)

    # [batch, row, phase of the row, column, phase of the column, channel]
    phases = jnp.stack(
        [jnp.stack([convolved(r, c) for c in columns], 3) for r in rows], 2
    )
    height, width = (n * stride for n, stride in zip(counts, strides, strict=True))
    phases = phases.reshape(batch, height, width, channels)
    return phases[:, : sizes[0], : sizes[1]]


def _crop(images, pads):
    """Returns the images cropped by negative padding, and the positive padding.

    XLA on a CPU computes a wrong convolution if one axis is padded by (-1, 1) and the
    other is not padded (jax 0.10).
    """
    starts = [max(0, -before) for before, _ in pads]
    stops = [
        size - max(0, -after)
        for size, (_, after) in zip(images.shape[1:3], pads, strict=True)
    ]
    cropped = images[:, starts[0] : stops[0], starts[1] : stops[1]]
    return cropped, tuple((max(0, before), max(0, after)) for before, after in pads)


def _phases(stride, count, window, out, pad):
    """Returns kernel entries and gradient padding of each phase of an axis.

    Input `stride * i + phase` meets kernel entry `e` in the result
    `i + (phase + before - e) / stride` if this is an integer; `before` is the padding
    before the axis.
    """
    phases = []
    for phase in range(stride):
        shift, first = divmod(phase + pad[0], stride)
        met = len(range(first, window, stride))
        pads = (met - 1 - shift, count + shift - out)
        phases.append((slice(first, None, stride), pads))
    return phases


_conv.defvjp(_forward, _backward)
