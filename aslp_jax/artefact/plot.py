"""What an extracted network looks like. Only here is matplotlib known."""

import math
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from aslp_jax._atomic import atomic_write
from aslp_jax._extras import require
from aslp_jax._tree import kernels
from aslp_jax.artefact import LayerWeights, Subnetwork, architecture

_FILTERS = 64
"""Drawn of the first layer, at the most."""

_PIXELS = 64
"""Of a sparsity map along each axis, at the most; each is the mean of a block."""

_SIGNS = "blue above 0, red below; grey: dropped"
_COLOUR = "channels as colours about a grey of 0; light grey: all dropped"

_DROPPED = 0.88
"""The grey of a weight that is dropped."""


def plot(subnetwork: Subnetwork, path: str | os.PathLike[str]) -> None:
    """Draws kept fractions, first filters before and after, and where weights are kept.

    The PNG appears whole or not at all; one that was there before is replaced.

    Args:
      subnetwork: the network.
      path: of the PNG; its folder exists.

    Raises:
      MissingExtra: matplotlib is not installed.
      OSError: the file cannot be written.
    """
    require("matplotlib", by="plot")
    # Figure without pyplot: no window, and no registry of figures.
    from matplotlib.figure import Figure

    about = subnetwork.description
    order = architecture.shapes_of(subnetwork.net, about.image_shape)["params"]
    entries = [subnetwork.entries[name] for name in order if kernels(name)]
    columns = min(8, len(entries))
    rows = -(-len(entries) // columns)
    heights = (4.4, 0.5 + 1.7 * rows)
    figure = Figure(figsize=(13, sum(heights)), dpi=100, layout="constrained")
    title = f"{about.arch} on {about.dataset}, {about.method}"
    figure.suptitle(title, fontsize=12, parse_math=False)
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = parts
    kept, before, after = above.subplots(1, 3)
    _plot_kept(kept, entries)
    _plot_filters(before, after, entries[0])
    below.suptitle(
        "Where weights are kept: inputs downwards, units to the right, means of blocks",
        fontsize=11,
    )
    maps = below.subplots(rows, columns, squeeze=False).ravel()
    for axes in maps[len(entries) :]:
        axes.set_axis_off()
    for axes, entry in zip(maps, entries, strict=False):
        image = _plot_map(axes, entry)
    bar = below.colorbar(image, ax=maps.tolist(), fraction=0.02, pad=0.01)
    bar.set_label("kept (%)")
    bar.ax.yaxis.set_major_formatter(_percent)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def _plot_kept(axes: Any, entries: Sequence[LayerWeights]) -> None:
    names = [entry.name.removesuffix("/kernel") for entry in entries]
    shares = [entry.kept / entry.weights.size for entry in entries]
    bars = axes.barh(names, shares, color="tab:blue")
    weights = sum(entry.weights.size for entry in entries)
    total = sum(entry.kept for entry in entries) / weights
    axes.axvline(total, color="black", linewidth=1, zorder=0)
    labels = [f"{share:.1%}" for share in shares]
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    size = 6.5 if len(entries) > 12 else 8.5
    axes.bar_label(bars, labels, padding=3, fontsize=size, bbox=ground)
    axes.tick_params(axis="y", labelsize=size)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(shares, default=1) or 1)
    axes.xaxis.set_major_formatter(_percent)
    axes.set_xlabel(f"kept (% of the layer's weights); all together {total:.1%}")
    axes.set_title("Weights kept, by layer", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _plot_filters(before: Any, after: Any, entry: LayerWeights) -> None:
    """Tiles the kernels of the first layer."""
    layer = entry.name.removesuffix("/kernel")
    unknown = None if entry.recipe else entry.mask
    held = "frozen" if entry.recipe else "frozen (those kept)"
    for axes, title, weights, mask in (
        (before, f"{layer}, {held}", entry.frozen, unknown),
        (after, f"{layer}, masked and scaled", entry.weights, entry.mask),
    ):
        axes.set_title(title, fontsize=11)
        axes.set_axis_off()
        axes.imshow(_tiles(_colours(weights, mask)), interpolation="nearest")
        axes.text(
            0.5,
            -0.02,
            _COLOUR if weights.shape[2] == 3 else _SIGNS,
            transform=axes.transAxes,
            horizontalalignment="center",
            verticalalignment="top",
            fontsize=8.5,
        )


def _colours(weights: np.ndarray, mask: np.ndarray | None) -> np.ndarray:
    """Kernels `[height, width, in, out]` as colours `[out, height, width, 3]`.

    Three input channels are red, green and blue around a grey of 0. Of any other number
    the mean is shown, blue above 0 and red below.

    Args:
      weights: the kernels.
      mask: which of them are kept; a pixel of which none is becomes light grey.
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
    """Puts the first images side by side, white between them."""
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


def _plot_map(axes: Any, entry: LayerWeights) -> Any:
    """Draws what share of the weights between inputs and units is kept."""
    units = entry.weights.shape[-1]
    mask = np.ones(entry.weights.shape, bool) if entry.mask is None else entry.mask
    share = mask.reshape(-1, entry.weights.shape[-2], units).mean(0)
    image = axes.imshow(
        _blocks(share),
        vmin=0,
        vmax=1,
        cmap="viridis",
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_title(f"{entry.name.removesuffix('/kernel')}", fontsize=8.5)
    axes.set_xlabel(f"{share.shape[0]:,} x {units:,}", fontsize=7.5)
    axes.set_xticks([])
    axes.set_yticks([])
    return image


def _blocks(values: np.ndarray) -> np.ndarray:
    """Means of blocks, as many as a map has pixels."""
    for axis in (0, 1):
        size = values.shape[axis]
        starts = np.linspace(0, size, min(size, _PIXELS), endpoint=False).astype(int)
        sums = np.add.reduceat(values, starts, axis)
        counts = np.diff([*starts, size])
        values = sums / np.expand_dims(counts, 1 - axis)
    return values


def _percent(value: float, position: int | None = None) -> str:
    """Formats a tick."""
    return f"{100 * value:g}"
