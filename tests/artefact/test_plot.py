"""Plots show filters, and where weights are kept."""

import numpy as np

from aslp_jax.artefact.filters import _colours, _tiles
from aslp_jax.artefact.plot import _blocks


def test_filters_are_tiles_in_colour():
    kernel = np.zeros((2, 2, 1, 3), np.float32)
    kernel[0, 0, 0] = 1, -1, 0
    mask = np.ones(kernel.shape, bool)
    mask[1, 1, 0, 2] = False
    colours = _colours(kernel, mask)
    assert colours.shape == (3, 2, 2, 3)
    blue, red, dropped = colours[0, 0, 0], colours[1, 0, 0], colours[2, 1, 1]
    assert blue[2] > blue[0] and red[0] > red[2]
    assert len(set(dropped)) == 1 and dropped[0] < 1
    np.testing.assert_array_equal(colours[2, 0, 0], 1)
    tiles = _tiles(colours)
    assert tiles.shape == (6, 6, 3)  # four places of 2x2 and a border
    np.testing.assert_array_equal(tiles[:2, 3:5], colours[1])
    np.testing.assert_array_equal(tiles[3:, 3:], 1)


def test_maps_are_means_of_blocks():
    values = np.arange(130.0 * 3).reshape(130, 3)
    means = _blocks(values)
    assert means.shape == (64, 3)
    assert means[0, 0] == values[:2, 0].mean() and means[-1, 2] == values[-3:, 2].mean()
