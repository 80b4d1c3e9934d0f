"""A plot of an extracted network. The only module of the package with matplotlib."""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from aslp_jax._atomic import atomic_write
from aslp_jax._extras import require
from aslp_jax.artefact import LayerWeights, Subnetwork
from aslp_jax.artefact.filters import Filters, first_filters, plotted_layers

__all__ = ["plot"]

_PIXELS = 64
"""Largest number of pixels of a sparsity map along an axis; each is a block's mean."""


def plot(subnetwork: Subnetwork, path: str | os.PathLike[str]) -> None:
    """Plots kept fractions, first filters before and after, and kept weights by place.

    The PNG is written with one atomic write and replaces an existing one.

    Args:
      subnetwork: the network.
      path: path of the PNG; its folder exists.

    Raises:
      MissingExtra: matplotlib is not installed.
      OSError: the file cannot be written.
    """
    require("matplotlib", by="plot")
    # Figure without pyplot: no window, and no registry of figures.
    from matplotlib.figure import Figure

    about = subnetwork.description
    layers = plotted_layers(subnetwork)
    columns = min(8, len(layers))
    rows = -(-len(layers) // columns)
    heights = (4.4, 0.5 + 1.7 * rows)
    figure = Figure(figsize=(13, sum(heights)), dpi=100, layout="constrained")
    title = f"{about.arch} on {about.dataset}, {about.method}"
    figure.suptitle(title, fontsize=12, parse_math=False)
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    above, below = parts
    kept, before, after = above.subplots(1, 3)
    _plot_kept(kept, layers)
    _plot_filters(before, after, first_filters(layers[0]))
    _plot_maps(below, layers, rows, columns)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")


def _plot_kept(axes: Any, layers: Sequence[LayerWeights]) -> None:
    """Plots the kept fraction of each layer as a bar, and of all layers as a line."""
    names = [layer.name.removesuffix("/kernel") for layer in layers]
    fractions = [layer.kept / layer.weights.size for layer in layers]
    bars = axes.barh(names, fractions, color="tab:blue")
    weights = sum(layer.weights.size for layer in layers)
    total = sum(layer.kept for layer in layers) / weights
    axes.axvline(total, color="black", linewidth=1, zorder=0)
    labels = [f"{fraction:.1%}" for fraction in fractions]
    ground = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}
    size = 6.5 if len(layers) > 12 else 8.5
    axes.bar_label(bars, labels, padding=3, fontsize=size, bbox=ground)
    axes.tick_params(axis="y", labelsize=size)
    axes.invert_yaxis()
    axes.set_xlim(0, 1.25 * max(fractions, default=1) or 1)
    axes.xaxis.set_major_formatter(_percent)
    axes.set_xlabel(f"kept (% of the layer's weights); all together {total:.1%}")
    axes.set_title("Weights kept, by layer", fontsize=11)
    axes.spines[["top", "right"]].set_visible(False)


def _plot_filters(before: Any, after: Any, filters: Sequence[Filters]) -> None:
    """Plots the kernels of the first layer as tiles; nothing if it has none."""
    for axes in (before, after):
        axes.set_axis_off()
    for axes, each in zip((before, after), filters, strict=False):
        axes.set_title(each.title, fontsize=11)
        axes.imshow(each.pixels, interpolation="nearest")
        axes.text(
            0.5,
            -0.02,
            each.note,
            transform=axes.transAxes,
            horizontalalignment="center",
            verticalalignment="top",
            fontsize=8.5,
        )


def _plot_maps(
    figure: Any, layers: Sequence[LayerWeights], rows: int, columns: int
) -> None:
    """Plots a sparsity map of each layer, with one colour bar."""
    figure.suptitle(
        "Where weights are kept: inputs downwards, units to the right, means of blocks",
        fontsize=11,
    )
    maps = figure.subplots(rows, columns, squeeze=False).ravel()
    for axes in maps[len(layers) :]:
        axes.set_axis_off()
    for axes, layer in zip(maps, layers, strict=False):
        image = _plot_map(axes, layer)
    bar = figure.colorbar(image, ax=maps.tolist(), fraction=0.02, pad=0.01)
    bar.set_label("kept (%)")
    bar.ax.yaxis.set_major_formatter(_percent)


def _plot_map(axes: Any, layer: LayerWeights) -> Any:
    """Plots the kept fraction of the weights between inputs and units."""
    units = layer.weights.shape[-1]
    mask = np.ones(layer.weights.shape, bool) if layer.mask is None else layer.mask
    fraction = mask.reshape(-1, layer.weights.shape[-2], units).mean(0)
    image = axes.imshow(
        _blocks(fraction),
        vmin=0,
        vmax=1,
        cmap="viridis",
        aspect="auto",
        interpolation="nearest",
    )
    axes.set_title(f"{layer.name.removesuffix('/kernel')}", fontsize=8.5)
    axes.set_xlabel(f"{fraction.shape[0]:,} x {units:,}", fontsize=7.5)
    axes.set_xticks([])
    axes.set_yticks([])
    return image


def _blocks(values: np.ndarray) -> np.ndarray:
    """Returns means of blocks, at most `_PIXELS` along each of the two axes."""
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
