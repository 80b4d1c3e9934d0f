"""Inputs to calibrate on are what the network takes, or refused in one line."""

import warnings

import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.artefact import Description
from aslp_jax.export import CalibrationError, Graph
from aslp_jax.export.integer.build import integer_graph
from aslp_jax.export.operations import Dense, Node


def build(inputs, **facts):
    """Makes integers of a layer after inputs of one axis, or of three."""
    *space, size = shape = (4,) if not facts else (2, 2, 3)
    layer = Dense("d", np.ones((size, 3), np.float32))
    graph = Graph(shape, (Node(layer, (0,), (*space, 3)),))
    about = Description("net", 3, shape, **facts)
    return integer_graph(graph, about, inputs, activations="int8")


@pytest.mark.parametrize("dtype", ["complex64", "datetime64[s]", "U1", "V4"])
def test_inputs_that_are_no_real_numbers_are_refused(dtype):
    with pytest.raises(CalibrationError, match="must be real numbers, got"):
        build(np.ones((2, 4)).astype(dtype))


@pytest.mark.parametrize("dtype", ["int64", "bool", "float64", "bfloat16"])
def test_any_real_numbers_serve(dtype):
    inputs = np.ones((2, 4)).astype(jnp.dtype(dtype))
    assert build(inputs).numbers[0] == ("uint8", 1 / 255)


def test_numbers_too_large_for_floats_are_refused():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(CalibrationError, match="the input is not finite"):
            build(np.full((2, 4), 1e39))


def test_one_number_is_no_image():
    with pytest.raises(CalibrationError, match="no images to calibrate on"):
        build(np.array(255, np.uint8), mean=(0.5,) * 3, std=(0.5,) * 3)
