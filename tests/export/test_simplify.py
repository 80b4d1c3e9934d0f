"""Simplified graphs compute the same in fewer operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.export.operations import (
    Binary,
    Conv,
    Dense,
    Graph,
    Node,
    Reduce,
    Reshape,
    Slice,
    Window,
    run,
)
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import trace
from aslp_jax.models.layers import max_pool_2x2

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 6, 4)), jnp.float32)
VECTOR = jnp.linspace(0.5, 2, 4)
KERNEL = jnp.asarray(np.random.default_rng(1).normal(size=(4, 4)), jnp.float32)


def operations(fn):
    """Traces, simplifies, compares, and returns the operations that are left."""
    with jax.numpy_rank_promotion("allow"):
        expected = fn(X)
        graph = trace(lambda _, x: fn(x), {}, jnp.zeros(X.shape[1:]))
        small = simplify(graph)
        found = run(small, X)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    return [node.operation for node in small.nodes]


@pytest.mark.parametrize(
    "affine",
    [
        lambda y: y * VECTOR,
        lambda y: y / VECTOR,
        lambda y: 2.0 * y + VECTOR,
        lambda y: (y - VECTOR) * 3.0,
        lambda y: VECTOR - y,
        lambda y: (y - VECTOR) / VECTOR * 0.5 + 1.0,
    ],
)
def test_scales_and_shifts_go_into_the_layer_before(affine):
    (layer,) = operations(lambda x: affine(x @ KERNEL))
    assert isinstance(layer, Dense)


def test_what_others_take_too_stays():
    def fn(x):
        y = x @ KERNEL
        return y * VECTOR + y

    layer, scale, add = operations(fn)
    assert layer.scale is None and scale.function == "mul" and add.function == "add"


def test_a_scale_that_varies_over_pixels_stays():
    weights = jnp.linspace(1, 2, 6)[:, None]
    layer, scale = operations(lambda x: (x @ KERNEL) * weights)
    assert layer.scale is None and scale.constant.shape == (1, 6, 1)


@pytest.mark.slow
def test_scales_go_past_a_reshape_that_divides_the_channels():
    scales = jnp.linspace(1, 2, 4).reshape(2, 2)
    layer, reshape = operations(
        lambda x: (x @ KERNEL).reshape(-1, 7, 6, 2, 2) * scales + 1.0
    )
    np.testing.assert_allclose(layer.scale, scales.ravel())
    assert isinstance(reshape, Reshape)
    _, _, scale = operations(
        lambda x: (
            (x @ KERNEL).reshape(-1, 42, 2, 2) * jnp.linspace(1, 2, 42)[:, None, None]
        )
    )
    assert isinstance(scale, Binary)


@pytest.mark.slow
def test_a_network_with_channels_first_has_no_transposes_within():
    def fn(x):
        x = x.transpose(0, 3, 1, 2)
        for stride in (1, 2):
            y = jax.lax.conv_general_dilated(
                x, KERNEL[:, :, None, None], (stride, stride), "SAME"
            )
            x = jax.nn.relu(y * VECTOR[:, None, None] + VECTOR[:, None, None])
        x = jnp.tanh(x) + x
        return x.mean((2, 3))

    kinds = [type(each).__name__ for each in operations(fn)]
    assert kinds == ["Conv", "Binary", "Conv", "Binary", "Unary", "Binary", "Reduce"]
    kept = operations(lambda x: jnp.tanh(x.transpose(0, 2, 1, 3)))
    assert [type(each).__name__ for each in kept] == ["Unary", "Transpose"]
    (none,) = operations(lambda x: x.transpose(0, 2, 1, 3).transpose(0, 2, 1, 3))
    assert isinstance(none, Reshape)  # the result of a graph is a node's


def test_a_sum_divided_by_its_count_is_a_mean():
    mean, back = operations(lambda x: x.mean((1, 2), keepdims=True))
    assert mean.function == "mean" and isinstance(back, Reshape)
    (mean,) = operations(lambda x: x.mean((1, 2)))
    assert (mean.function, mean.axes) == ("mean", (0, 1))
    total, _ = operations(lambda x: x.sum((1, 2)) / 41.0)
    assert isinstance(total, Reduce) and total.function == "sum"


def test_our_max_pool_is_one_window_on_odd_sizes_too():
    (window,) = operations(max_pool_2x2)
    assert isinstance(window, Window)
    assert window.window == window.strides == (2, 2, 1)


@pytest.mark.parametrize(
    "fn",
    [
        lambda x: jnp.maximum(x[:, 1:6:2], x[:, 0:5:2]),  # starts in another order
        lambda x: jnp.maximum(x[:, 0:4:2], x[:, 1:5:2]),  # leaves a pair out
        lambda x: jnp.maximum(x[:, :6:3], x[:, 1:6:3]),  # a step of 3
        lambda x: jnp.maximum(x[:, :, :6:2], x[:, :, 1:6:2] * 2.0),
    ],
)
def test_other_slices_are_no_window(fn):
    assert any(isinstance(each, Slice) for each in operations(fn))


def test_windows_over_one_axis_twice_stay_two():
    def pool(x):
        return jnp.maximum(x[:, :, 0:-1:2], x[:, :, 1::2])

    first, *rest = operations(lambda x: pool(pool(x[:, :, :4])))
    windows = [each for each in (first, *rest) if isinstance(each, Window)]
    assert [each.window for each in windows] == [(1, 2, 1)] * 2


def test_nodes_that_nothing_takes_are_left_out():
    kernel = np.ones((1, 1, 4, 2), np.float32)
    unused = Node(Conv("a", kernel, (1, 1), ((0, 0),) * 2, (1, 1)), (0,), (7, 6, 2))
    kept = Node(Binary("mul", np.float32(2)), (0,), (7, 6, 4))
    small = simplify(Graph((7, 6, 4), (unused, kept)))
    assert small.nodes[0].operation is kept.operation and len(small.nodes) == 1
