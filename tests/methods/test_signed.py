"""Signed selection: the sampler of three classes and the method that uses it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
import scipy.stats

from aslp_jax import Signed
from aslp_jax.sampling import gumbel_noise, signed_stgs

DRAWS = 2**18


def test_noise_follows_the_gumbel_law(key):
    noise = np.asarray(gumbel_noise(key, (DRAWS,)), np.float64)
    distance, probability = scipy.stats.kstest(noise, scipy.stats.gumbel_r.cdf)
    assert distance < 4e-3 and probability > 1e-3
    for limit, tail in ((10.0, noise > 10), (-2.2, noise < -2.2)):
        law = scipy.stats.gumbel_r.sf if limit > 0 else scipy.stats.gumbel_r.cdf
        expected = DRAWS * law(limit)
        assert abs(tail.sum() - expected) < 5 * math.sqrt(expected)


@pytest.mark.parametrize(
    ("keep", "invert"),
    [(0.0, 0.0), (1.0, -2.0), (-4.0, -4.0), (8.0, 3.0), (-8.0, 6.0), (-12.0, -9.0)],
)
def test_each_class_is_drawn_as_often_as_the_softmax_says(key, keep, invert):
    full = jnp.full((DRAWS,), 1.0)
    drawn = np.asarray(jax.jit(signed_stgs)(key, keep * full, invert * full))
    assert set(np.unique(drawn)) <= {-1.0, 0.0, 1.0}
    expected = scipy.special.softmax(np.array([keep, 0.0, invert]))
    for value, p in zip((1, 0, -1), expected, strict=True):
        sigma = math.sqrt(p * (1 - p) * DRAWS)
        assert abs((drawn == value).sum() - p * DRAWS) < 5 * sigma + 1, value


@jax.jit
def weighted_slopes(key, keep, invert, temperature):
    """Gradients of a weighted sum of the samples, for all three arguments."""

    def total(keep, invert, temperature):
        sampled = signed_stgs(key, keep, invert, temperature=temperature)
        return jnp.sum(jnp.arange(500.0) * sampled)

    return jax.grad(total, argnums=(0, 1, 2))(keep, invert, temperature)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_the_gradient_is_that_of_the_softmax_of_the_three(key, temperature):
    keep, invert = jax.random.normal(key, (2, 500)) * 3
    *by_logits, by_temperature = weighted_slopes(key, keep, invert, temperature)
    noise = np.asarray(gumbel_noise(key, (3, 500)), np.float64)
    logits = np.stack([keep, np.zeros(500), invert]) + noise
    soft = scipy.special.softmax(logits / temperature, axis=0)
    for wrt, (own, sign) in enumerate(((0, 1), (2, -1))):
        # d(soft[0] - soft[2]) / d(the own logit)
        slope = soft[own] * (sign - (soft[0] - soft[2])) / temperature
        np.testing.assert_allclose(
            by_logits[wrt], np.arange(500) * slope, rtol=2e-4, atol=2e-4
        )

    towards = np.array([1.0, 0.0, -1.0])[:, None] - (soft[0] - soft[2])
    slope = -(soft * towards * logits).sum(0) / temperature**2
    np.testing.assert_allclose(
        by_temperature,
        (np.arange(500) * slope).sum(),
        rtol=1e-3,
        atol=0.5,
    )


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_samples_are_exact_and_of_the_dtype_of_the_logits(key, dtype):
    keep, invert = (30 * jax.random.normal(key, (2, 4096))).astype(dtype)

    @jax.jit
    def sample_and_slopes(keep):
        sampled, pull = jax.vjp(lambda keep: signed_stgs(key, keep, invert), keep)
        return sampled, pull(jnp.ones_like(sampled))[0]

    sampled, slopes = sample_and_slopes(keep)
    assert sampled.dtype == slopes.dtype == dtype
    assert set(np.unique(np.asarray(sampled, np.float32))) == {-1.0, 0.0, 1.0}
    assert np.isfinite(np.asarray(slopes, np.float32)).all()


def test_infinite_logits_are_certain_and_nan_stays_nan(key):
    inf, nan = jnp.inf, jnp.nan
    keep = jnp.array([inf, 0.0, -inf, -inf, nan, 1.0])
    invert = jnp.array([0.0, inf, -inf, 3.0, 0.0, nan])

    def total(keep, invert, temperature):
        sampled = signed_stgs(key, keep, invert, temperature=temperature)
        return sampled.sum(), sampled

    assert np.isnan(jax.jit(total)(keep[4:], invert[4:], 0.5)[1]).all()
    slopes, sampled = jax.jit(jax.grad(total, argnums=(0, 1, 2), has_aux=True))(
        keep[:4], invert[:4], 0.5
    )
    assert sampled[:3].tolist() == [1, -1, 0]
    assert np.isfinite(slopes[2])
    for each in slopes[:2]:
        assert each[:3].tolist() == [0, 0, 0]
        assert np.isfinite(each[3])


def test_bad_logits_and_temperatures_are_refused(key):
    ones = jnp.ones(3)
    with pytest.raises(ValueError, match=r"one shape, got \(3,\) and \(4,\)"):
        signed_stgs(key, ones, jnp.ones(4))
    with pytest.raises(TypeError, match="one dtype, got float32 and bfloat16"):
        signed_stgs(key, ones, ones.astype(jnp.bfloat16))
    with pytest.raises(TypeError, match="signed_stgs: logits must be floating point"):
        signed_stgs(key, jnp.arange(3), jnp.arange(3))
    for temperature in (0.0, -1.0, math.nan, math.inf):
        with pytest.raises(ValueError, match="signed_stgs: temperature must be"):
            signed_stgs(key, ones, ones, temperature=temperature)
        with pytest.raises(ValueError, match=r"^Signed: temperature must be positive"):
            Signed(temperature=temperature)
    with pytest.raises(ValueError, match="must be 'none' or 'smart', got 'dynamic'"):
        Signed(rescale="dynamic")


def test_the_deterministic_network_takes_the_likeliest_mask(key):
    logits = jnp.asarray(
        [[2.0, 1.0, -1.0, -1.0, 1.0, 0.0, -3.0], [1.0, 2.0, -2.0, 0.5, 1.0, 0.0, 0.0]]
    )
    weights = {"kernel": jnp.arange(1.0, 8.0)}
    method = Signed(rescale="none")
    made = method.effective_weights(weights, {"logits": {"kernel": logits}})["kernel"]
    np.testing.assert_array_equal(made, [1, -2, 0, -4, 5, 0, 0])
    probabilities = method.keep_probabilities(weights, {"logits": {"kernel": logits}})
    three = np.stack([logits[0], np.zeros(7), logits[1]]).astype(np.float64)
    expected = 1 - scipy.special.softmax(three, axis=0)[1]
    np.testing.assert_allclose(probabilities["kernel"], expected, rtol=1e-6)


def test_a_sampled_layer_is_scale_times_mask_times_weight(key):
    weights = {"kernel": jax.random.normal(key, (40, 50))}
    method = Signed(scale_init=1.5, logit_std=2.0)
    frozen, params = method.init(key, weights)
    assert params["logits"]["kernel"].shape == (2, 40, 50)

    def loss(params):
        made = method.effective_weights(frozen, params, key=key)["kernel"]
        return jnp.sum(made), made

    gradient, made = jax.jit(jax.grad(loss, has_aux=True))(params)
    mask = np.asarray(made) / np.asarray(1.5 * weights["kernel"])
    np.testing.assert_allclose(mask, np.round(mask), atol=1e-6)
    assert {-1.0, 0.0, 1.0} == set(np.round(mask).ravel().tolist())
    np.testing.assert_allclose(
        gradient["scale"]["kernel"],
        np.sum(np.round(mask) * np.asarray(weights["kernel"], np.float64)),
        rtol=1e-4,
    )
    assert (np.asarray(gradient["logits"]["kernel"]) != 0).any(axis=(1, 2)).all()
