"""3x3 convolutions with four times fewer multiplications, for training on a CPU.

A tile of 4x4 results needs 6x6 inputs. Small constant matrices transform inputs and
kernel; then each of the 36 entries is a matrix product over the channels. XLA is fast
at matrix products on a CPU: on two cores, in a loop, for 64 images of 32x32 and
64 -> 64 channels, the forward pass takes 25 ms instead of 40, and the gradient of the
kernel 49 ms instead of 120 (jax 0.10).

XLA's CPU backend has no Winograd convolution. This module can be removed when
convolutions and their gradients are as fast inside a loop on a CPU; see JAX issue
#12868, https://github.com/jax-ml/jax/issues/12868.

Source: Lavin & Gray 2016, "Fast Algorithms for Convolutional Neural Networks",
arXiv:1509.09308, section 4; the gradient of the kernel is the transpose of their
bilinear form.
"""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

__all__ = ["Pads", "convolve", "is_faster", "kernel_gradient"]

_TAPS, _TILE = 3, 4
_ENTRIES = _TILE + _TAPS - 1

_POINTS = (0.0, 0.5, -0.5, 1.5, -1.5)
"""Points of evaluation of the polynomials, besides infinity. They are exact in binary
and give rounding errors of 7e-7 of the result; the usual 0, 1, -1, 2, -2 give 1.8e-6
and the direct sum 1.3e-7 (64 channels, float32)."""

_MIN_TILES = 256
"""Smallest number of tiles of a batch for which 36 products are faster than nine larger
ones."""


def _matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the transforms of results, kernels and inputs.

    Their shapes are `[tile, entries]`, `[entries, taps]` and `[entries, entries]`. This
    is the Toom-Cook algorithm: evaluation of polynomials at points, and interpolation.
    """
    points, last = np.array(_POINTS), _ENTRIES - 1
    results = np.zeros((_TILE, _ENTRIES))
    kernels = np.zeros((_ENTRIES, _TAPS))
    inputs = np.zeros((_ENTRIES, _ENTRIES))
    for entry, point in enumerate(points):
        others = np.delete(points, entry)
        results[:, entry] = point ** np.arange(_TILE)
        kernels[entry] = point ** np.arange(_TAPS) / np.prod(point - others)
        inputs[entry, :last] = np.poly(others)[::-1]
    results[-1, last] = kernels[last, -1] = 1
    inputs[last] = np.poly(points)[::-1]
    return results, kernels, inputs


_RESULTS, _KERNELS, _INPUTS = _matrices()

Pads = Sequence[tuple[int, int]]
"""Zeros (before, after) of the height and of the width, at least 0."""


def is_faster(inputs: jax.Array, kernel: jax.Array, pads: Pads) -> bool:
    """Returns True if `convolve` is faster than a direct convolution for these sizes.

    Args:
      inputs: float `[batch, height, width, in_channels]`; only shape and dtype matter.
      kernel: `[kernel_height, kernel_width, in_channels, out_channels]`; only the shape
        matters.
      pads: zeros (before, after) of the height and of the width, at least 0.
    """
    if kernel.shape[:2] != (_TAPS, _TAPS) or inputs.dtype != jnp.float32:
        return False
    rows, columns = _out_shape(inputs, pads)
    if min(rows, columns) < _TILE:
        return False
    tiles = -(-rows // _TILE) * -(-columns // _TILE)
    fewest = min(kernel.shape[2:])
    enough = max(_MIN_TILES, *kernel.shape[2:])
    return (
        fewest >= 32
        and inputs.shape[0] * tiles >= enough
        and 2 * tiles * _ENTRIES**2 <= rows * columns * _TAPS**2
    )


def convolve(inputs: jax.Array, kernel: jax.Array, pads: Pads) -> jax.Array:
    """Convolves with stride 1.

    Args:
      inputs: float32 `[batch, height, width, in_channels]`.
      kernel: float32 `[3, 3, in_channels, out_channels]`.
      pads: zeros (before, after) of the height and of the width, at least 0.

    Returns:
      float32 `[batch, out_height, out_width, out_channels]`.
    """
    batch, channels = inputs.shape[0], kernel.shape[-1]
    rows, columns = _out_shape(inputs, pads)
    kernels = jnp.einsum("ia,jb,abco->ijco", *_both_axes(), kernel)
    products = [
        [jnp.dot(entry, kernels[i, j]) for j, entry in enumerate(line)]
        for i, line in enumerate(_transform(inputs, pads))
    ]
    tall, wide = -(-rows // _TILE), -(-columns // _TILE)

    def tile_line(weights: np.ndarray) -> jax.Array:
        line = [_sum(weights, column) for column in zip(*products, strict=True)]
        parts = [_sum(each, line) for each in _RESULTS]
        return jnp.stack([p.reshape(batch, tall, wide, channels) for p in parts], 3)

    tiles = jnp.stack([tile_line(weights) for weights in _RESULTS], 2)
    images = tiles.reshape(batch, tall * _TILE, wide * _TILE, channels)
    return images[:, :rows, :columns]


def kernel_gradient(inputs: jax.Array, gradient: jax.Array, pads: Pads) -> jax.Array:
    """Returns the gradient of the kernel, given the gradient of the result.

    Args:
      inputs: float32 `[batch, height, width, in_channels]`.
      gradient: gradient of the result of `convolve`, float32 `[batch, out_height,
        out_width, out_channels]`.
      pads: zeros (before, after) that were given to `convolve`.

    Returns:
      float32 `[3, 3, in_channels, out_channels]`.
    """
    _, rows, columns, channels = gradient.shape
    grown = ((0, 0), (0, -rows % _TILE), (0, -columns % _TILE), (0, 0))
    gradient = jnp.pad(gradient, grown)
    lines = [gradient[:, row::_TILE] for row in range(_TILE)]
    over_tiles = (((0,), (0,)), ((), ()))
    products = []
    for weights, met in zip(_RESULTS.T, _transform(inputs, pads), strict=True):
        line = _sum(weights, lines)
        parts = [line[:, :, column::_TILE] for column in range(_TILE)]
        for each, entry in zip(_RESULTS.T, met, strict=True):
            read = _sum(each, parts).reshape(-1, channels)
            products.append(lax.dot_general(entry, read, over_tiles))
    shape = (_ENTRIES, _ENTRIES, inputs.shape[-1], channels)
    stacked = jnp.stack(products).reshape(shape)
    return jnp.einsum("ia,jb,ijco->abco", *_both_axes(), stacked)


def _transform(inputs: jax.Array, pads: Pads) -> list[list[jax.Array]]:
    """Returns the entries of the transformed tiles, `[batch * tiles, channels]`."""
    tiles = [-(-size // _TILE) for size in _out_shape(inputs, pads)]
    grown = [
        (before, count * _TILE + _TAPS - 1 - size - before)
        for count, size, (before, _) in zip(tiles, inputs.shape[1:3], pads, strict=True)
    ]
    padded = jnp.pad(inputs, ((0, 0), *grown, (0, 0)))
    tall, wide = (_TILE * (count - 1) + 1 for count in tiles)
    lines = [padded[:, row : row + tall : _TILE] for row in range(_ENTRIES)]

    def entries(weights: np.ndarray) -> list[jax.Array]:
        line = _sum(weights, lines)
        parts = [line[:, :, at : at + wide : _TILE] for at in range(_ENTRIES)]
        return [_sum(each, parts).reshape(-1, inputs.shape[-1]) for each in _INPUTS]

    return [entries(weights) for weights in _INPUTS]


def _out_shape(inputs: jax.Array, pads: Pads) -> list[int]:
    sizes = zip(inputs.shape[1:3], pads, strict=True)
    return [size + sum(pad) - _TAPS + 1 for size, pad in sizes]


def _both_axes() -> tuple[jax.Array, jax.Array]:
    matrix = jnp.asarray(_KERNELS, jnp.float32)
    return matrix, matrix


def _sum(weights: np.ndarray, arrays: Sequence[jax.Array]) -> jax.Array:
    """Returns the weighted sum, without the arrays of weight 0."""
    used = [
        array if weight == 1 else float(weight) * array
        for weight, array in zip(weights, arrays, strict=True)
        if weight != 0
    ]
    return functools.reduce(jnp.add, used)
