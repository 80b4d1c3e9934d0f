"""The weights of a layer as the tables that C code reads, in each way to store them."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Literal

import numpy as np

from aslp_jax.artefact import LayerWeights
from aslp_jax.export.graph import Conv, signs
from aslp_jax.ops.threefry import bits_on_host

Storage = Literal["dense", "sparse", "signs", "seed"]
STORAGES = ("sparse", "signs", "seed", "dense")

_SKIP = 255
"""The byte that stands for so many weights which are not kept."""

_CHECKED = 64
"""Normal numbers of a layer that are compared with what the C code makes of a word."""


@dataclasses.dataclass(frozen=True, eq=False)
class Table:
    """How the weights of a layer are written down.

    Attributes:
      arrays: by field of `struct weights`, those to be written as constants: uint8 or
        float32.
      fields: the other fields of it, as C.
      scale: float32, what every weight is multiplied with.
      summands: how many weights the C code adds up for all units, at one pixel.
      normal: whether normal numbers have to be drawn.
    """

    arrays: Mapping[str, np.ndarray]
    fields: Mapping[str, str]
    scale: np.float32
    summands: int
    normal: bool = False


def pack(layer: Conv, entry: LayerWeights, storage: Storage) -> Table:
    """Returns the weights of a layer as tables.

    Args:
      layer: of a graph; for `"seed"` one that is not compacted.
      entry: of its kernel in the subnetwork, for `"seed"`.
      storage: one of `STORAGES`.

    Raises:
      ValueError: the weights cannot be stored in this way; the message names the layer.
    """
    one, nothing = np.float32(1), dict[str, str]()
    match storage:
        case "dense":
            weights = _by_unit(layer.kernel).ravel()
            return Table({"values": weights}, nothing, one, weights.size)
        case "sparse":
            weights = _by_unit(layer.kernel).ravel()
            kept = np.flatnonzero(weights)
            gaps = _gaps(kept, weights.size)
            arrays = {"values": weights[kept], "gaps": gaps}
            return Table(arrays, nothing, one, kept.size)
        case "signs":
            factors, magnitude = signs(layer)
            factors = _by_unit(factors).reshape(layer.kernel.shape[3], -1)
            mask = factors != 0
            negative = np.append(factors[mask] < 0, False)
            arrays = {"kept": _bits(mask), "negative": _bits(negative)}
            summands = _looked_at(mask) if layer.dense else int(mask.sum())
            return Table(arrays, nothing, magnitude, summands)
        case "seed":
            return _drawn(layer, entry)


def _by_unit(kernel: np.ndarray) -> np.ndarray:
    """`[height, width, in, out]` as `[out, in, height, width]`."""
    return kernel.transpose(3, 2, 0, 1)


def _bits(flags: np.ndarray) -> np.ndarray:
    return np.packbits(flags, bitorder="little")


def _looked_at(kept: np.ndarray) -> int:
    """Weights of a dense layer, less those in what is left of bytes that are all 0.

    Args:
      kept: bool `[units, inputs]`.
    """
    flags = np.zeros(-(-kept.size // 8) * 8, bool)
    flags[: kept.size] = kept.ravel()
    # Of each bit, whether it or one behind it in its byte is 1.
    rest = np.logical_or.accumulate(flags.reshape(-1, 8)[:, ::-1], 1)[:, ::-1].ravel()
    place = np.arange(kept.size)
    unit = place // kept.shape[1] * kept.shape[1]
    return int(np.count_nonzero(rest[np.maximum(place // 8 * 8, unit)]))


def _gaps(kept: np.ndarray, size: int) -> np.ndarray:
    """The distances that lead from one kept weight to the next, and behind the end."""
    ends = np.append(kept, size)
    distances = np.diff(ends, prepend=0)
    skips = distances // _SKIP
    places = np.cumsum(skips + 1) - 1
    gaps = np.full(places[-1] + 1, _SKIP, np.uint8)
    gaps[places] = distances % _SKIP
    return gaps


def _drawn(layer: Conv, entry: LayerWeights) -> Table:
    recipe = entry.recipe
    if recipe is None:
        raise ValueError(
            f"{entry.name!r} has no seed that its weights are drawn from; another "
            "storage holds them"
        )
    words = bits_on_host(recipe.key, entry.frozen.size)
    high = words >> np.uint32(31) == 1
    law, negative, size = "SIGNS", ~high, entry.magnitude
    if size is None:
        # A sum is multiplied with the standard deviation as a whole.
        law, size = "NORMAL", np.float32(np.sqrt(2 / np.prod(entry.frozen.shape[:-1])))
    elif recipe.initialiser == "kaiming_constant":
        law, negative = "OPPOSITE_SIGNS", high
    same = np.array_equal(np.signbit(entry.frozen).ravel(), negative)
    if law == "NORMAL":
        drawn = entry.frozen.ravel()[:_CHECKED]
        expected = size * _normal(words[:_CHECKED])
        same = same and np.allclose(drawn, expected, rtol=1e-4, atol=1e-6)
    if not same:
        raise ValueError(
            f"{entry.name!r} is not what its seed gives in C; another storage holds it"
        )
    factors = entry.factors
    if factors is None:
        factors = np.ones_like(entry.frozen, np.int8)
    factors = _by_unit(factors.reshape(layer.kernel.shape)).ravel()
    arrays = {"kept": _bits(factors != 0)}
    if (factors < 0).any():
        arrays["inverted"] = _bits(factors[factors != 0] < 0)
    first, second = recipe.key
    fields = {"key": f"{{{first}u, {second}u}}", "law": law}
    scale = size if entry.scale is None else entry.scale * size
    summands = int(np.count_nonzero(factors))
    return Table(arrays, fields, scale, summands, normal=law == "NORMAL")


def _normal(words: np.ndarray) -> np.ndarray:
    """The normal numbers of words, from the quantile that each stands for."""
    uniform = (words >> np.uint32(9)).astype(np.float64) / 2**23 + 2.0**-25
    law = statistics.NormalDist()
    return np.array([law.inv_cdf(each) for each in uniform], np.float64)
