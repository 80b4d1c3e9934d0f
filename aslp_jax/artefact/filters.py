"""Filters of a first layer, before and after masking, as pictures."""

import math
from typing import NamedTuple

import numpy as np

from aslp_jax._tree import kernels
from aslp_jax.artefact import ArtefactError, LayerWeights, Subnetwork, architecture

__all__ = ["Filters", "first_filters", "plotted_layers"]

_FILTERS = 64
"""Largest number of filters in a picture."""

_SIGNS = "blue above 0, red below; grey: dropped"
_COLOUR = "channels as colours about a grey of 0; light grey: all dropped"

_DROPPED = 0.88
"""Grey level of a dropped weight."""


class Filters(NamedTuple):
    """Filters of a layer, side by side.

    Attributes:
      title: name of the layer, and state of its weights.
      pixels: float `[height, width, 3]` in [0, 1], red, green and blue.
      note: meaning of the colours.
    """

    title: str
    pixels: np.ndarray
    note: str


def plotted_layers(subnetwork: Subnetwork) -> list[LayerWeights]:
    """Returns the layers in the plot, in the order in which the network uses them.

    These are the kernels of a network of this library, and the masked arrays of any
    other, of two axes or more.

    Args:
      subnetwork: the network.

    Raises:
      ArtefactError: there are none.
    """
    layers = list(subnetwork.layers.values())
    if subnetwork.source is None:
        shape = subnetwork.description.image_shape
        order = architecture.array_shapes(subnetwork.net, shape)["params"]
        return [subnetwork.layers[name] for name in order if kernels(name)]
    masked = [each for each in layers if each.mask is not None]
    found = [each for each in masked if each.weights.ndim > 1]
    if not found:
        raise ArtefactError("plot: the network has no masked array of two axes or more")
    return found


def first_filters(layer: LayerWeights) -> list[Filters]:
    """Returns the filters of a layer as they are frozen, and masked and scaled.

    Args:
      layer: the first layer of a network.

    Returns:
      Two pictures; none if the layer is no convolution of two axes.
    """
    if layer.weights.ndim != 4:
        return []
    name = layer.name.removesuffix("/kernel")
    # A file without a recipe holds only the kept weights of the frozen ones.
    frozen_mask = None if layer.recipe else layer.mask
    frozen_title = "frozen" if layer.recipe else "frozen (those kept)"
    note = _COLOUR if layer.weights.shape[2] == 3 else _SIGNS
    return [
        Filters(f"{name}, {title}", _tiles(_colours(weights, mask)), note)
        for title, weights, mask in (
            (frozen_title, layer.frozen, frozen_mask),
            ("masked and scaled", layer.weights, layer.mask),
        )
    ]


def _colours(weights: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Returns kernels `[height, width, in, out]` as `[out, height, width, 3]`.

    Three input channels become red, green and blue around a grey of 0. For other
    numbers of channels the mean is shown, blue above 0 and red below.

    Args:
      weights: float kernels.
      mask: True where a weight is kept; a pixel without a kept weight is light grey.
    """
    units = weights.transpose(3, 0, 1, 2)
    largest = float(np.abs(units).max()) or 1.0
    if units.shape[-1] == 3:
        colours = 0.5 + units / (2 * largest)
    else:
        part = units.mean(-1, keepdims=True) / largest
        fading = 1 - np.abs(part) * np.array([0.0, 0.75, 1.0])
        colours = np.where(part < 0, fading, fading[..., ::-1])
    if mask is None:
        return colours
    kept = np.any(mask, axis=2).transpose(2, 0, 1)
    return np.where(kept[..., None], colours, _DROPPED)


def _tiles(images: np.ndarray) -> np.ndarray:
    """Puts the first images side by side, with white lines between them."""
    images = np.pad(
        images[:_FILTERS], ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=1
    )
    columns = math.isqrt(len(images) - 1) + 1
    rows = -(-len(images) // columns)
    missing = rows * columns - len(images)
    images = np.pad(images, ((0, missing), *[(0, 0)] * 3), constant_values=1)
    _, height, width, _ = images.shape
    grid = images.reshape(rows, columns, height, width, 3).transpose(0, 2, 1, 3, 4)
    return grid.reshape(rows * height, columns * width, 3)
