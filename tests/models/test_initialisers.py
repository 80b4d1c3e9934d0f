import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from aslp_jax.models.initialisers import (
    fan_in_uniform,
    kaiming_constant,
    kaiming_normal,
    signed_constant,
)

FIVE_SIGMAS = 5.7e-7  # two-sided


@pytest.mark.parametrize(
    "shape, fan_in", [((3, 3, 64, 40), 576), ((5, 3, 8, 200), 120), ((400, 100), 400)]
)
def test_kaiming_normal(key, shape, fan_in):
    weights = np.asarray(kaiming_normal()(key, shape, jnp.float32), np.float64)
    assert weights.shape == shape
    std, count = np.sqrt(2 / fan_in), weights.size
    assert abs(weights.std() - std) < 5 * std / np.sqrt(2 * count)
    assert abs(weights.mean()) < 5 * std / np.sqrt(count)
    # Not truncated: the law of a normal, and of 20,000 and more, some beyond 3 std.
    fit = scipy.stats.kstest(weights.ravel() / std, "norm")
    assert fit.pvalue > FIVE_SIGMAS
    assert (np.abs(weights) > 3 * std).any()


def test_signed_constant(key):
    shape = (2, 3)  # few enough that the unbiased std is not the other one
    drawn = np.asarray(kaiming_normal()(key, shape, jnp.float32), np.float64)
    weights = signed_constant(kaiming_normal())(key, shape, jnp.float32)
    assert weights.dtype == jnp.float32
    np.testing.assert_array_equal(np.sign(weights), np.sign(drawn))
    assert len(np.unique(np.sign(drawn))) == 2
    spread = np.sqrt(((drawn - drawn.mean()) ** 2).sum() / (drawn.size - 1))
    np.testing.assert_allclose(np.abs(weights), np.full(shape, spread), rtol=1e-6)


def test_signed_constant_of_another_initialiser(key):
    def halves(key, shape, dtype):
        return jnp.asarray([[-0.5, 0.25], [0.25, 0.0]], dtype)

    weights = signed_constant(halves)(key, (2, 2), jnp.float32)
    std = np.std([-0.5, 0.25, 0.25, 0.0], ddof=1)
    np.testing.assert_allclose(weights, [[-std, std], [std, 0]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize(
    "shape, fan_in", [((3, 3, 64, 40), 576), ((5, 3, 8, 200), 120), ((400, 100), 400)]
)
def test_kaiming_constant(key, shape, fan_in, dtype):
    weights = kaiming_constant()(key, shape, dtype)
    assert weights.shape == shape and weights.dtype == dtype
    weights = np.asarray(weights, np.float64)
    # The std of the law, to the last bit alike, and not that of what was drawn.
    magnitude = np.float64(jnp.asarray(np.sqrt(2 / fan_in), dtype))
    np.testing.assert_array_equal(np.abs(weights), np.full(shape, magnitude))
    # Fair signs, each drawn on its own: along every axis they agree half of the time.
    signs = np.sign(weights)
    assert abs(signs.sum()) < 5 * np.sqrt(signs.size)
    for axis, length in enumerate(shape):
        first = signs.take(range(length - 1), axis)
        products = first * signs.take(range(1, length), axis)
        assert abs(products.sum()) < 5 * np.sqrt(products.size)


@pytest.mark.parametrize("fan_in", [1, 27, 400])
def test_fan_in_uniform(key, fan_in):
    bound = 1 / np.sqrt(fan_in)
    biases = np.asarray(fan_in_uniform(fan_in)(key, (20_000,), jnp.float32))
    assert biases.dtype == np.float32
    assert np.abs(biases).max() <= np.float32(bound)
    fit = scipy.stats.kstest(biases, scipy.stats.uniform(-bound, 2 * bound).cdf)
    assert fit.pvalue > FIVE_SIGMAS


@pytest.mark.parametrize("fan_in", [0, -3])
def test_fan_in_must_be_positive(fan_in):
    with pytest.raises(ValueError, match=f"fan_in_uniform: fan_in .*got {fan_in}"):
        fan_in_uniform(fan_in)


@pytest.mark.parametrize(
    "initialiser",
    [
        kaiming_normal(),
        kaiming_constant(),
        signed_constant(kaiming_normal()),
        fan_in_uniform(4),
    ],
)
def test_draws_follow_the_key_and_the_dtype(key, initialiser):
    first, second = jax.random.split(key)
    drawn = initialiser(first, (6, 50), jnp.bfloat16)
    assert drawn.shape == (6, 50) and drawn.dtype == jnp.bfloat16
    np.testing.assert_array_equal(drawn, initialiser(first, (6, 50), jnp.bfloat16))
    assert (drawn != initialiser(second, (6, 50), jnp.bfloat16)).any()


def test_one_weight_has_no_signed_constant(key):
    with pytest.raises(ValueError, match=r"at least two weights, got shape \(1, 1\)"):
        signed_constant(kaiming_normal())(key, (1, 1))
