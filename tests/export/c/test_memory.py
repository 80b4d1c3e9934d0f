"""Memory plans overwrite no value before its last use, and are small."""

import math

import numpy as np
import pytest

from aslp_jax.export import graph as graphs
from aslp_jax.export.c import memory
from aslp_jax.export.lower import layers_of
from tests.export.networks import SHAPE, small


@pytest.mark.parametrize("name", ["conv", "vgg", "resnet"])
def test_no_value_is_overwritten_before_its_last_use(name):
    subnetwork = small(name)
    graph = layers_of(subnetwork.net, subnetwork.variables, SHAPE)
    plan = memory.plan(graph)
    sizes = [math.prod(shape) for shape in graph.shapes]
    owner = np.full(plan.size, -1)  # of each float

    def part(value):
        begin = plan.values[value]
        assert begin + sizes[value] <= plan.size
        return owner[begin : begin + sizes[value]]

    part(0)[:] = 0
    for step, node in enumerate(graph.nodes):
        assert all((part(value) == value).all() for value in node.inputs)
        sums = owner[:0]
        if isinstance(node.layer, graphs.Conv) and node.layer.pool:
            shape = graphs.summed_shape(node.layer, graph.shapes[node.inputs[0]])
            begin, size = plan.scratch[step], math.prod(shape[:2])
            sums = owner[begin : begin + size]
            assert sums.size == size
            sums[:] = -2
        if step + 1 < len(graph.nodes):
            part(step + 1)[:] = step + 1
        assert (sums == -2).all()
        # A sum may be written where one of its own inputs was.
        if not isinstance(node.layer, graphs.Add):
            assert all((part(value) == value).all() for value in node.inputs)


def test_memory_of_a_chain_is_that_of_its_widest_step(digits_network):
    graph = layers_of(digits_network.net, digits_network.variables, (8, 8, 1))
    # The image, what the first layer makes of it, what the second one pools of that.
    assert memory.plan(graph).size == 64 + 4096 + 1024
