"""A convolution whose gradient is as fast inside a compiled loop as outside of one.

On a CPU, XLA runs the gradient of a convolution with respect to its kernel as a
convolution of unusual layout. Outside of loops it rewrites that one for a fast library;
inside the body of `scan` or `while_loop` it does not, and falls back to plain loops:
5.5 s instead of 0.14 s for 64 -> 64 channels on 64 images of 32x32 (jax 0.10, two
cores). The forward convolution suffers likewise on tiny images, and at stride 2 the
gradient with respect to the inputs. Since an epoch here is one compiled loop, networks
take this function on a CPU: `nn.Conv(..., conv_general_dilated=conv_in_loop)`.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from aslp_jax.ops import winograd

Convolution = Callable[..., jax.Array]
"""What `flax.linen.Conv` takes as its `conv_general_dilated`."""

_LAYOUT = ("NHWC", "HWIO", "NHWC")

_TINY = 8
"""Images of fewer pixels are convolved as one matmul: in a loop, 256 -> 256 channels on
32 images of 2x2 take 38 ms as a convolution and 2.6 ms so; at 4x4 the two are even."""


def of_platform(platform: str) -> Convolution | None:
    """Returns what networks convolve with, to be fast and to compute the same bits.

    Args:
      platform: of the devices, such as `"cpu"`.

    Returns:
      `conv_in_loop` on a CPU; elsewhere None, which is `jax.lax`'s own.
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

    Takes the arguments that `flax.linen.Conv` gives to its `conv_general_dilated`. The
    fast gradient covers two-dimensional convolutions of strides 1 and 2 without groups,
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
        padding = lax.padtype_to_pads(*sizes, strides, padding)
    pads = tuple((int(before), int(after)) for before, after in padding)
    if min(min(pad) for pad in pads) < 0:  # lax takes these as crops
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
    # Pixels left out by a 1x1 kernel cost a convolution time: 23 ms, and 1.4 ms so, for
    # 64 -> 128 channels on 32 images of 32x32.
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
    return default and winograd.pays(inputs, kernel, pads)


def _out_shape(inputs, kernel, strides, pads):
    """Height and width of the result."""
    sizes = zip(inputs.shape[1:3], kernel.shape[:2], strides, pads, strict=True)
    return [
        max((size + sum(pad) - window) // stride + 1, 0)
        for size, window, stride, pad in sizes
    ]


def _views(inputs, kernel, strides, pads):
    """What each entry of the kernel meets, as `views[row][column]`."""
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

    # One entry of the kernel meets one shifted view of the inputs: a matmul over all
    # batch and image positions for each entry.
    over_positions = (((0, 1, 2), (0, 1, 2)), ((), ()))

    def tap(view: jax.Array) -> jax.Array:
        return lax.dot_general(view, gradient, over_positions, precision=precision)

    views = _views(inputs, kernel, strides, pads)
    return to_inputs, jnp.stack([jnp.stack([tap(v) for v in line]) for line in views])


def _to_inputs(inputs, kernel, strides, pads, precision, gradient):
    """The gradient of the inputs, by convolutions of stride 1.

    With stride 2, even and odd rows of the inputs meet different rows of the kernel
    (columns likewise), so each of the four phases is a convolution of its own.
    `jax.lax` sets zeros between the entries of the gradient instead, and multiplies
    them.
    """
    batch, *sizes, channels = inputs.shape
    counts = [-(-size // stride) for size, stride in zip(sizes, strides, strict=True)]
    axes = zip(strides, counts, kernel.shape, gradient.shape[1:], pads, strict=False)
    rows, columns = (_phases(*axis) for axis in axes)

    def convolved(vertical: tuple, horizontal: tuple) -> jax.Array:
        (down, above_below), (right, beside) = vertical, horizontal
        part = kernel[down, right]
        if part.size == 0:  # the kernel steps over these pixels
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
    """The images without what negative padding takes away, and the padding left.

    XLA on a CPU computes the convolution itself wrongly where an axis is padded by
    (-1, 1) and the other one not at all (jax 0.10).
    """
    starts = [max(0, -before) for before, _ in pads]
    stops = [
        size - max(0, -after)
        for size, (_, after) in zip(images.shape[1:3], pads, strict=True)
    ]
    cropped = images[:, starts[0] : stops[0], starts[1] : stops[1]]
    return cropped, tuple((max(0, before), max(0, after)) for before, after in pads)


def _phases(stride, count, window, out, pad):
    """What each phase of an axis meets of the kernel, and the gradient's padding.

    Input `stride * i + phase` meets entry `e` of the kernel in result
    `i + (phase + before - e) / stride`, where that is whole, `before` being the padding
    on that side.
    """
    phases = []
    for phase in range(stride):
        shift, first = divmod(phase + pad[0], stride)
        met = len(range(first, window, stride))
        pads = (met - 1 - shift, count + shift - out)
        phases.append((slice(first, None, stride), pads))
    return phases


_conv.defvjp(_forward, _backward)
