"""Memory plans overwrite no number before its last use, and are small."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from aslp_jax.export.c import memory
from aslp_jax.export.c.program import Map, Place, Pool, make_program
from aslp_jax.export.network import graph_of
from aslp_jax.export.operations import Concatenate
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import trace
from tests.export.c.test_operations import SHAPE as INPUT
from tests.export.c.test_operations import conv, everything
from tests.export.networks import SHAPE, small


def indices(step, number):
    """Returns the places that a step visits, from the first: operand 0 to 2, or 3."""
    if isinstance(step, Map):
        moves = [
            np.arange(size) * steps[number]
            for size, steps in zip(step.sizes, step.steps, strict=True)
        ]
        return np.array([sum(each) for each in itertools.product(*moves)])
    if isinstance(step, Pool):
        sides = ("height", "width") if number == 3 else ("in_height", "in_width")
        return np.arange(math.prod(step.fields[each] for each in ("planes", *sides)))
    layer = step.layer
    _, channels, units = layer.kernel.shape
    if number == 3:
        shrink = 2 if layer.pool else 1
        return np.arange(units * (layer.height // shrink) * (layer.width // shrink))
    return np.arange(channels * layer.groups * layer.in_size)


def check(program, outside=()):
    """Runs a program on the names of buffers in the place of numbers."""
    plan = memory.plan(program, outside=outside)
    outputs = program.sizes[program.output]
    owners = {"memory": np.full(plan.size // 4, -1), "output": np.full(outputs, -1)}
    holders = {}  # buffers that lie in a part of another one

    def visit(place, visited):
        kind = "output" if place.buffer in plan.output else "memory"
        where = plan.buffers[place.buffer] // 4 + place.offset + visited
        assert where.min() >= 0 and where.max() < owners[kind].size
        return owners[kind], where

    if 0 not in outside:
        array, where = visit(Place(0, 0), np.arange(program.sizes[0]))
        array[where] = 0
    for index, step in enumerate(program.steps):
        for number, operand in enumerate(step.operands):
            if isinstance(operand, Place) and operand.buffer not in outside:
                array, where = visit(operand, indices(step, number))
                allowed = [operand.buffer]
                while allowed[-1] in holders:
                    allowed.append(holders[allowed[-1]])
                assert set(array[where]) <= {*allowed}
        if index in plan.idle:
            holders[step.operands[0].buffer] = step.out.buffer
        array, where = visit(step.out, indices(step, 3))
        if step.scratch:
            begin = plan.scratch[index] // 4
            owners["memory"][begin : begin + step.scratch] = -2
        for number, operand in enumerate(step.operands):
            if not isinstance(operand, Place) or operand.buffer in outside:
                continue
            source, taken = visit(operand, indices(step, number))
            if source is array and np.intersect1d(taken, where).size:
                # Only a function of each number may write where it has just read.
                assert isinstance(step, Map) and (taken == where).all()
        array[where] = step.out.buffer
        if step.scratch:
            assert (owners["memory"][begin : begin + step.scratch] == -2).all()
    assert set(owners["output"]) <= {program.output}
    return plan


@pytest.mark.parametrize("name", ["conv", "vgg", "resnet"])
def test_no_value_of_a_network_is_overwritten_before_its_last_use(name):
    subnetwork = small(name)
    graph = graph_of(subnetwork.net, subnetwork.variables, SHAPE)
    check(make_program(graph))


@pytest.fixture(scope="module")
def every_operation():
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return simplify(trace(everything, {}, jax.ShapeDtypeStruct(INPUT, jnp.float32)))


@pytest.mark.parametrize("outside", [(), (0,)])
def test_no_value_of_any_operation_is_overwritten(every_operation, outside):
    program = make_program(every_operation, channels_first=not outside)
    plan = check(program, outside)
    parts = [
        len(node.inputs)
        for node in every_operation.nodes
        if isinstance(node.operation, Concatenate)
    ]
    assert 3 < len(plan.idle) < sum(parts)


def test_memory_of_a_chain_is_that_of_its_widest_step(digits_network):
    graph = graph_of(digits_network.net, digits_network.variables, (8, 8, 1))
    # The image, what the first layer makes of it, what the second one pools of that.
    assert memory.plan(make_program(graph)).size == 4 * (64 + 4096 + 1024)


def plan_of(function, shape=(4, 4, 2)):
    graph = trace(
        lambda _, x: function(x), {}, jax.ShapeDtypeStruct(shape, jnp.float32)
    )
    return memory.plan(make_program(simplify(graph)))


def test_functions_of_numbers_take_no_memory():
    plan = plan_of(lambda x: nn.silu(nn.tanh(conv(x, 1, 1, 2, 3))).sum((1, 2)))
    # The sums beside the input, then beside their sigmoid. The output lies elsewhere.
    assert plan.size == 4 * (16 * 3 + 16 * 3)


def test_parts_are_computed_in_their_concatenation():
    def dense(x):
        x = jnp.concatenate([x, conv(x, 3, 3, 2, 5)], 3)
        x = jnp.concatenate([x, conv(x, 3, 3, 7, 5)], 3)
        return x.sum((1, 2))

    plan = plan_of(dense)
    assert len(plan.idle) == 4
    assert plan.size == 4 * 16 * (2 + 5 + 5)
