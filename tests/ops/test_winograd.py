"""Winograd's convolution against the direct one, its gradient, and when it is taken."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from aslp_jax import models
from aslp_jax.ops import winograd
from aslp_jax.ops.convolution import conv_in_loop

LAYOUT = ("NHWC", "HWIO", "NHWC")
SAME = ((1, 1), (1, 1))
FLOATS = (jnp.float32, jnp.float32)


def direct(inputs, kernel, pads):
    return lax.conv_general_dilated(
        inputs, kernel, (1, 1), pads, dimension_numbers=LAYOUT
    )


def drawn(*shapes):
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def in_float64(function, *arrays):
    with jax.enable_x64(True):
        wide = [jnp.asarray(each, jnp.float64) for each in arrays]
        return jax.tree.map(np.asarray, jax.jit(function)(*wide))


def assert_close(found, expected, within):
    """Within a part of the largest entry, as a sum of rounded products is."""
    assert found.shape == expected.shape
    assert np.abs(np.asarray(found, np.float64) - expected).max() <= within * (
        np.abs(expected).max()
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, pads",
    [
        ((7, 10), SAME),  # tiles stick out; below, 32x32 pixels fill theirs
        ((6, 9), ((0, 0), (0, 0))),
        ((4, 5), ((2, 0), (0, 3))),
        ((3, 3), ((1, 1), (1, 1))),  # fewer results than a tile
    ],
)
def test_results_and_gradient_of_the_kernel_are_those_of_the_direct_sum(size, pads):
    shapes = (3, *size, 5), (3, 3, 5, 4)
    result = jax.eval_shape(
        functools.partial(direct, pads=pads), *map(jax.ShapeDtypeStruct, shapes, FLOATS)
    )
    inputs, kernel, given = drawn(*shapes, result.shape)

    def expected(inputs, kernel, given):
        result, pull = jax.vjp(lambda kernel: direct(inputs, kernel, pads), kernel)
        return result, pull(given)[0]

    @jax.jit
    def ours(inputs, kernel, given):
        result = winograd.convolve(inputs, kernel, pads)
        return result, winograd.kernel_gradient(inputs, given, pads)

    found = ours(inputs, kernel, given)
    wanted = in_float64(expected, inputs, kernel, given)
    for one, other in zip(found, wanted, strict=True):
        assert_close(one, other, 3e-6)


def test_a_single_one_is_moved_and_nothing_else_is_touched():
    # With whole numbers every step but the division of the kernels is exact.
    inputs = np.zeros((1, 8, 8, 1), np.float32)
    inputs[0, 3, 5, 0] = 64
    convolve = jax.jit(winograd.convolve, static_argnums=2)
    for row in range(3):
        for column in range(3):
            kernel = np.zeros((3, 3, 1, 1), np.float32)
            kernel[row, column] = 1
            found = convolve(inputs, kernel, SAME)
            # Entry (row, column) moves the image by (1 - row, 1 - column).
            expected = np.zeros((1, 8, 8, 1))
            expected[0, 4 - row, 6 - column, 0] = 64
            np.testing.assert_allclose(found, expected, atol=1e-4)


PAYS = ((64, 32, 32, 64), (3, 3, 64, 64))


@pytest.mark.parametrize(
    "shape, kernel, expected",
    [
        (*PAYS, True),
        (PAYS[0], (5, 5, 64, 64), False),
        (PAYS[0], (1, 1, 64, 64), False),
        ((64, 32, 32, 3), (3, 3, 3, 64), False),  # nothing to sum over
        ((64, 32, 32, 64), (3, 3, 64, 16), False),
        ((64, 3, 32, 64), PAYS[1], False),  # lower than a tile
        ((64, 5, 5, 64), PAYS[1], False),  # half of the tiles would stick out
        ((4, 32, 32, 64), PAYS[1], True),  # 256 tiles
        ((3, 32, 32, 64), PAYS[1], False),
        ((4, 32, 32, 64), (3, 3, 64, 512), False),  # its kernels cost more than it
    ],
)
def test_it_is_taken_where_it_saves_time(shape, kernel, expected):
    assert (
        winograd.is_faster(
            jax.ShapeDtypeStruct(shape, jnp.float32),
            jax.ShapeDtypeStruct(kernel, jnp.float32),
            SAME,
        )
        is expected
    )


def test_it_is_for_float32_alone():
    inputs, kernel = (jax.ShapeDtypeStruct(shape, jnp.bfloat16) for shape in PAYS)
    assert not winograd.is_faster(inputs, kernel, SAME)


@pytest.mark.slow
def test_convolutions_in_a_loop_take_it_with_both_gradients():
    inputs, kernel, given = drawn((4, 32, 32, 32), (3, 3, 32, 32), (4, 32, 32, 32))
    assert winograd.is_faster(inputs, kernel, SAME)

    def pulled(convolve, inputs, kernel, given):
        result, pull = jax.vjp(convolve, inputs, kernel)
        return result, *pull(given)

    ours = functools.partial(
        conv_in_loop, strides=(1, 1), padding="SAME", dimension_numbers=LAYOUT
    )
    exact = functools.partial(direct, pads=SAME)
    lowered = jax.jit(functools.partial(pulled, ours)).lower(inputs, kernel, given)
    assert "convolution" not in lowered.as_text()
    found = lowered.compile()(inputs, kernel, given)
    expected = in_float64(functools.partial(pulled, exact), inputs, kernel, given)
    for one, other in zip(found, expected, strict=True):
        assert_close(one, other, 5e-6)


def test_where_a_precision_is_asked_for_it_is_not_taken():
    inputs, kernel = drawn((4, 32, 32, 32), (3, 3, 32, 32))
    text = jax.jit(
        functools.partial(
            conv_in_loop,
            strides=(1, 1),
            padding="SAME",
            dimension_numbers=LAYOUT,
            precision=lax.Precision.HIGHEST,
        )
    ).lower(inputs, kernel)
    assert "convolution" in text.as_text()


@pytest.mark.slow
def test_the_gradient_of_a_whole_network_stays_the_same_to_1e_5(key):
    # Without a third convolution: in a deeper network some unit is so near to 0 that
    # rounding opens it, with the direct sum too.
    images = np.random.default_rng(0).uniform(size=(4, 32, 32, 3))
    images = images.astype(np.float32)
    labels = jnp.arange(4, dtype=jnp.int32)
    plain = models.ConvNet(10, stages=(32,), hidden=(16,))
    second = (jnp.zeros((4, 32, 32, 32)), jnp.zeros((3, 3, 32, 32)))
    assert winograd.is_faster(*second, SAME)
    params = jax.jit(plain.init)(key, images)

    def gradient(net, params, images):
        def loss(params):
            outputs = net.apply(params, images)
            each = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
            return each.mean()

        return jax.jit(jax.grad(loss))(params)

    fast = gradient(plain.clone(conv_general_dilated=conv_in_loop), params, images)
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float64), params)
        exact = gradient(
            plain.clone(dtype=jnp.float64), wide, jnp.asarray(images, jnp.float64)
        )
    for found, expected in zip(
        jax.tree.leaves(fast), jax.tree.leaves(exact), strict=True
    ):
        assert_close(found, np.asarray(expected), 1e-5)
