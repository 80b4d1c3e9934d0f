"""Modules of Linen and NNX: traced, simplified, compacted, and run by onnxruntime."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.export.operations import run
from aslp_jax.export.passes import compact
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import trace
from tests.export.modules import NAMES, inputs_of, module, outputs_of, promotion
from tests.export.networks import run_graph

QUICK = {"perceptron", "signals", "squeeze_and_excite"}
EVERY = [
    pytest.param(name, marks=() if name in QUICK else pytest.mark.slow)
    for name in NAMES
]


@functools.cache
def traced(name):
    fn, weights, shape = module(name)
    with promotion():
        return trace(fn, weights, jax.ShapeDtypeStruct(shape, jnp.float32))


def assert_close(found, expected):
    size = float(np.ptp(expected))
    assert found.shape == expected.shape and size > 0.1
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * size)


@pytest.mark.parametrize("name", EVERY)
def test_a_model_of_the_simplified_graph(name):
    small = simplify(traced(name))
    assert len(small.nodes) < len(traced(name).nodes) or name == "einsum"
    found = run_graph(compact(small, multiple=4), inputs_of(name))
    assert_close(found, outputs_of(name))
    one = run_graph(small, inputs_of(name)[:1])
    assert_close(one, outputs_of(name)[:1])


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_graph_in_jax(name):
    graph = traced(name)
    found = jax.jit(functools.partial(run, graph))(inputs_of(name))
    assert_close(np.asarray(found), outputs_of(name))
