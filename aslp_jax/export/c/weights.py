"""Weights of a layer as the arrays that the C code reads, for each storage."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Literal

import numpy as np

from aslp_jax.artefact import LayerWeights
from aslp_jax.export.c.layers import Layer
from aslp_jax.export.signs import signs
from aslp_jax.ops.threefry import bits_on_host

__all__ = ["STORAGES", "PackedWeights", "Storage", "pack"]

Storage = Literal["dense", "sparse", "signs", "seed"]
"""Way to store the weights."""

STORAGES = ("sparse", "signs", "seed", "dense")
"""Ways to store the weights, the default first."""

_SKIP = 255
"""Byte that stands for a gap of this many dropped weights, without a kept one."""

_CHECKED = 64
"""Number of normal weights of a layer that are compared with the C code's results."""


@dataclasses.dataclass(frozen=True, eq=False)
class PackedWeights:
    """Weights of a layer in one storage.

    Attributes:
      fields: fields of `struct weights` in the order of their declaration: arrays of
        uint8, int8 or float32, and others as C.
      scale: float32, factor of every weight.
      summands: number of weights that the C code adds for all units at one pixel.
      normal: True if the C code computes normally distributed weights. Default: False.
    """

    fields: Mapping[str, np.ndarray | str]
    scale: np.float32
    summands: int
    normal: bool = False


def pack(layer: Layer, weights: LayerWeights | None, storage: Storage) -> PackedWeights:
    """Packs the weights of a layer.

    The order is unit by unit, in a unit channel by channel of its group, and in a
    channel tap by tap.

    Args:
      layer: the layer; for `"seed"` not a compacted one.
      weights: weights of the layer's kernel, from which `"seed"` takes the recipe; None
        if the kernel is no array of the network.
      storage: one of `STORAGES`.

    Returns:
      The weights in that storage.

    Raises:
      ValueError: the storage cannot hold the weights; the message names the layer.
    """
    one = np.float32(1)
    match storage:
        case "dense":
            values = _values(layer)
            return PackedWeights({"values": values}, one, values.size)
        case "sparse":
            values = _values(layer)
            kept = np.flatnonzero(values)
            arrays = {"values": values[kept], "gaps": _gaps(kept, values.size)}
            return PackedWeights(arrays, one, kept.size)
        case "signs":
            ternary, magnitude = signs(layer.kernel, layer.name)
            if layer.requantization is not None and magnitude != 1:
                raise ValueError(
                    f"c: {layer.name!r} has weights other than -1, 0 and 1; use "
                    "another storage"
                )
            ternary = _unit_first(ternary).reshape(layer.kernel.shape[2], -1)
            mask = ternary != 0
            arrays = {"kept": _bits(mask), "negative": _bits(ternary[mask] < 0)}
            multiplied = layer.requantization is not None and layer.taps is None
            summands = mask.size if multiplied else int(mask.sum())
            return PackedWeights(arrays, magnitude, summands)
        case "seed":
            return _pack_seed(layer, weights)


def _values(layer: Layer) -> np.ndarray:
    """Returns the weights in order, int8 or float32."""
    dtype = np.float32 if layer.requantization is None else np.int8
    return _unit_first(layer.kernel).ravel().astype(dtype)


def _unit_first(kernel: np.ndarray) -> np.ndarray:
    """Transposes `[taps, in, out]` to `[out, in, taps]`."""
    return kernel.transpose(2, 1, 0)


def _bits(flags: np.ndarray) -> np.ndarray:
    """Packs flags into bytes, the first flag in the lowest bit, and adds three bytes.

    The C code reads bits up to four bytes at a time.
    """
    return np.append(np.packbits(flags, bitorder="little"), np.zeros(3, np.uint8))


def _gaps(kept: np.ndarray, size: int) -> np.ndarray:
    """Returns the distances between kept weights, the last one to the end.

    Args:
      kept: int `[count]`, ascending indices of the kept weights.
      size: number of weights.

    Returns:
      uint8, a distance of `_SKIP` or more as several bytes.
    """
    ends = np.append(kept, size)
    distances = np.diff(ends, prepend=0)
    skips = distances // _SKIP
    last = np.cumsum(skips + 1) - 1
    gaps = np.full(last[-1] + 1, _SKIP, np.uint8)
    gaps[last] = distances % _SKIP
    return gaps


def _pack_seed(layer: Layer, weights: LayerWeights | None) -> PackedWeights:
    """Packs a layer as the key and the distribution of its weights, and its mask."""
    recipe = None if weights is None else weights.recipe
    if weights is None or recipe is None or not layer.in_order:
        lacks = "order of its weights" if recipe else "seed of its weights"
        raise ValueError(f"c: {layer.name!r} has no {lacks}; use another storage")
    words = bits_on_host(recipe.key, weights.frozen.size)
    high = words >> np.uint32(31) == 1
    law, negative, size = "SIGNS", ~high, weights.magnitude
    if size is None:
        # The standard deviation multiplies each sum, not each weight.
        fan_in = np.prod(weights.frozen.shape[:-1])
        law, size = "NORMAL", np.float32(np.sqrt(2 / fan_in))
    elif recipe.initialiser == "kaiming_constant":
        law, negative = "OPPOSITE_SIGNS", high
    ternary = weights.ternary_mask
    if ternary is None:
        ternary = np.ones_like(weights.frozen, np.int8)
    same = np.array_equal(np.signbit(weights.frozen).ravel(), negative)
    if layer.requantization is not None:
        if law == "NORMAL":
            raise ValueError(
                f"c: {layer.name!r} has normally distributed weights, which need "
                "floating point; use another storage"
            )
        expected = (ternary * np.sign(weights.frozen)).reshape(layer.kernel.shape)
        if np.array_equal(-expected, layer.kernel):  # by a negative scale
            law = {"SIGNS": "OPPOSITE_SIGNS", "OPPOSITE_SIGNS": "SIGNS"}[law]
        else:
            same = same and np.array_equal(expected, layer.kernel)
    if law == "NORMAL":
        checked = weights.frozen.ravel()[:_CHECKED]
        expected = size * _normal(words[:_CHECKED])
        same = same and np.allclose(checked, expected, rtol=1e-4, atol=1e-6)
    if not same:
        raise ValueError(
            f"c: {layer.name!r} differs from what its seed gives in C; use another "
            "storage"
        )
    ternary = _unit_first(ternary.reshape(layer.kernel.shape)).ravel()
    first, second = recipe.key
    inverted = _bits(ternary[ternary != 0] < 0) if (ternary < 0).any() else "0"
    fields = {
        "kept": _bits(ternary != 0),
        "inverted": inverted,
        "key": f"{{{first}u, {second}u}}",
        "law": law,
    }
    scale = size if weights.scale is None else weights.scale * size
    summands = int(np.count_nonzero(ternary))
    return PackedWeights(fields, scale, summands, normal=law == "NORMAL")


def _normal(words: np.ndarray) -> np.ndarray:
    """Returns the standard normal number of each word, by the quantile function."""
    uniform = (words >> np.uint32(9)).astype(np.float64) / 2**23 + 2.0**-25
    law = statistics.NormalDist()
    return np.array([law.inv_cdf(each) for each in uniform], np.float64)
