"""What the papers state, held against the library."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats

from aslp_jax import ASLP, stgs
from aslp_jax.models import NETWORKS, ConvNet
from aslp_jax.models.initialisers import fan_in_uniform, kaiming_normal, signed_constant
from tests.helpers import quick_only

FIVE_SIGMAS = 5.7e-7  # two-sided


def two_gumbel(key, logits, temperature):
    """Equations (4) and (5) as written: two Gumbel draws, argmax, softmax."""
    noise = jax.random.gumbel(key, (2, *logits.shape), mode="high")
    pair = jnp.stack([logits, jnp.zeros_like(logits)]) + noise
    hard = (jnp.argmax(pair, axis=0) == 0).astype(logits.dtype)
    soft = jax.nn.softmax(pair / temperature, axis=0)[0]
    return hard + (soft - jax.lax.stop_gradient(soft))


def one_logistic(key, logits, temperature):
    return stgs(key, logits, temperature=temperature)


# Optimised a little, unlike what else tests compile: a million draws.
@functools.partial(
    jax.jit,
    static_argnums=(0, 2),
    compiler_options={"xla_backend_optimization_level": 1},
)
def drawn(sampler, key, draws, logit, temperature):
    """Masks of one logit and, of each, its gradient."""
    logits = jnp.full((draws,), logit)
    masks, pull = jax.vjp(lambda m: sampler(key, m, temperature), logits)
    return masks, pull(jnp.ones(draws))[0]


@pytest.mark.parametrize("logit", quick_only([-4.0, -1.0, 0.0, 2.0, 5.0], -1.0))
def test_mask_is_the_argmax_of_two_gumbels(key, logit):
    draws = 2**20
    first, second = jax.random.split(jax.random.fold_in(key, int(logit) + 9))
    ours, theirs = (
        np.count_nonzero(np.asarray(drawn(sampler, each, draws, logit, 1.0)[0]) > 0.5)
        for sampler, each in ((one_logistic, first), (two_gumbel, second))
    )
    p = scipy.special.expit(logit)
    assert abs(ours - theirs) < 5 * np.sqrt(2 * draws * p * (1 - p))


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [0.5, 1.0])
@pytest.mark.parametrize("logit", [0.0, 3.0])
def test_gradient_has_the_law_of_two_gumbels(key, logit, temperature):
    draws = 2**17
    first, second = jax.random.split(key)
    ours = drawn(one_logistic, first, draws, logit, temperature)[1]
    theirs = drawn(two_gumbel, second, draws, logit, temperature)[1]
    test = scipy.stats.ks_2samp(np.asarray(ours), np.asarray(theirs), method="asymp")
    assert test.pvalue > FIVE_SIGMAS


def test_mask_and_gradient_are_paired_as_with_two_gumbels(key):
    # A kept weight's soft value is above one half: with a logit of 0 the mean slope is
    # the same on both sides, with a logit of 2 it is larger among the dropped.
    draws = 2**18
    first, second = jax.random.split(key)
    sides = []
    for sampler, subkey in ((one_logistic, first), (two_gumbel, second)):
        masks, slopes = map(np.asarray, drawn(sampler, subkey, draws, 2.0, 1.0))
        kept, dropped = slopes[masks > 0.5], slopes[masks < 0.5]
        assert dropped.mean() > kept.mean() + 0.01
        sides.append((kept, dropped))
    for ours, theirs in zip(*sides, strict=True):
        error = np.sqrt(ours.var() / len(ours) + theirs.var() / len(theirs))
        assert abs(ours.mean() - theirs.mean()) < 5 * error


def sigmoid_slope(x):
    return scipy.special.expit(x) * scipy.special.expit(-x)


@pytest.mark.parametrize("logit, ratio", [(0.0, 0.67), (4.0, 2.3), (6.0, 4.1)])
def test_expected_gradient_beats_the_sigmoids_where_it_vanishes(key, logit, ratio):
    expected, _ = scipy.integrate.quad(
        lambda noise: sigmoid_slope(logit + noise) * sigmoid_slope(noise), -60, 60
    )
    assert expected / sigmoid_slope(logit) == pytest.approx(ratio, rel=0.02)

    slopes = np.asarray(drawn(one_logistic, key, 2**20, logit, 1.0)[1], np.float64)
    error = slopes.std() / np.sqrt(len(slopes))
    assert abs(slopes.mean() - expected) < 5 * error
    # Within 2 %: the tolerance is not what makes the line above pass.
    assert 5 * error < 0.02 * expected


# Equation (6).


def small_net():
    return ConvNet(stages=(4,), classes=3, hidden=(5,), bias_init=fan_in_uniform)


def test_a_sampled_layer_is_scale_times_mask_times_weight(key):
    rng = np.random.default_rng(0)
    weights = {
        "layer": {
            "kernel": jnp.asarray(rng.normal(size=(300, 20)), jnp.float32),
            "bias": jnp.asarray(rng.normal(size=20), jnp.float32),
        }
    }
    name = "layer/kernel"
    logits = jnp.asarray(rng.normal(size=(300, 20)), jnp.float32)
    method = ASLP()
    _, params = method.init(key, weights)
    assert params["scale"][name] == 1 and not params["logits"][name].any()
    params = {"logits": {name: logits}, "scale": {name: jnp.float32(1.5)}}

    given = jnp.asarray(rng.normal(size=(300, 20)), jnp.float32)

    @jax.jit
    def layer_and_gradient(params):
        def layer(params):
            return method.effective_weights(weights, params, key=key)["layer"]

        result, pull = jax.vjp(layer, params)
        return result, pull({"kernel": given, "bias": jnp.ones(20)})[0]

    drawn_layer, back = layer_and_gradient(params)
    kernel = np.asarray(weights["layer"]["kernel"])
    mask = np.asarray(drawn_layer["kernel"]) != 0
    np.testing.assert_allclose(drawn_layer["kernel"], 1.5 * (mask * kernel), rtol=1e-6)
    np.testing.assert_array_equal(drawn_layer["bias"], weights["layer"]["bias"])
    # Kept at random, by sigmoid(logit).
    p = scipy.special.expit(np.asarray(logits, np.float64))
    assert abs(mask.sum() - p.sum()) < 5 * np.sqrt((p * (1 - p)).sum())
    assert (mask != (p > 0.5)).any()

    # d/ds sum(g * s m w) = sum(g m w); d/dlogit is g s w times a slope in (0, 1/4].
    expected = (np.asarray(given, np.float64) * mask * kernel).sum()
    np.testing.assert_allclose(back["scale"][name], expected, rtol=1e-4)
    slope = np.asarray(back["logits"][name]) / (np.asarray(given) * 1.5 * kernel)
    assert (slope > 0).all() and (slope < 0.2501).all()


@pytest.mark.slow
def test_scale_multiplies_weights_and_not_biases(key):
    net = small_net()
    images = jax.random.normal(key, (2, 8, 8, 1))
    weights = jax.jit(net.init)(key, images)["params"]
    method = ASLP()
    _, params = method.init(key, weights)
    names = {"Conv_0/kernel", "Conv_1/kernel", "Dense_0/kernel", "Dense_1/kernel"}
    assert set(params["logits"]) == set(params["scale"]) == names
    params = {
        "logits": {n: m + 1 for n, m in params["logits"].items()},
        "scale": {n: 2 * s for n, s in params["scale"].items()},
    }
    effective = method.effective_weights(weights, params)
    by_hand = {
        layer: {"kernel": 2 * part["kernel"], "bias": part["bias"]}
        for layer, part in weights.items()
    }
    for layer, part in by_hand.items():
        assert np.asarray(part["bias"]).any()
        np.testing.assert_array_equal(effective[layer]["kernel"], part["kernel"])
        np.testing.assert_array_equal(effective[layer]["bias"], part["bias"])
    run = jax.jit(net.apply)
    outputs = run({"params": effective}, images)
    np.testing.assert_array_equal(outputs, run({"params": by_hand}, images))
    assert not np.allclose(outputs, run({"params": weights}, images))


def test_without_smart_rescale_there_is_no_scale(key):
    weights = {"kernel": jnp.arange(1.0, 7.0).reshape(2, 3)}
    method = ASLP(rescale="none")
    _, params = method.init(key, weights)
    assert set(params) == {"logits"}
    kept = {"logits": {"kernel": params["logits"]["kernel"] + 1}}
    np.testing.assert_array_equal(
        method.effective_weights(weights, kept)["kernel"], weights["kernel"]
    )


@pytest.mark.parametrize("keep_ties, tie", [(False, 0.0), (True, 1.0)])
def test_threshold_of_the_paper_and_of_its_code(keep_ties, tie):
    # The paper keeps p > 0.5, so not a logit that never moved; its code p >= 0.5.
    weights = {"kernel": jnp.ones((2, 3))}
    logits = jnp.asarray([[-1.0, -1e-30, -0.0], [0.0, 1e-30, 1.0]])
    params = {"logits": {"kernel": logits}, "scale": {"kernel": jnp.ones(())}}
    method = ASLP(keep_ties=keep_ties)
    expected = np.array([[0, 0, tie], [tie, 1, 1]])
    np.testing.assert_array_equal(
        method.effective_weights(weights, params)["kernel"], expected
    )
    np.testing.assert_array_equal(
        method.masks(weights, params)["kernel"], expected.astype(bool)
    )


@pytest.mark.parametrize(
    "name, count",
    [("conv2", 4_300_992), ("conv4", 2_425_024), ("conv6", 2_261_184)],
)
def test_kernel_counts(key, name, count):
    images = jnp.zeros((1, 32, 32, 3))
    net = NETWORKS[name](classes=10, bias_init=fan_in_uniform)
    weights = jax.eval_shape(net.init, key, images)["params"]
    logits = jax.eval_shape(ASLP().init, key, weights)[1]["logits"]
    assert sum(leaf.size for leaf in logits.values()) == count


@pytest.mark.slow
def test_signed_constant_of_each_layer_is_the_std_of_what_was_drawn(key):
    images = jnp.zeros((1, 8, 8, 1))
    options = {"stages": (4,), "classes": 3, "hidden": (5,)}
    constant = signed_constant(kaiming_normal())
    drawn = jax.jit(ConvNet(**options).init)(key, images)["params"]
    fixed = ConvNet(**options, conv_init=constant, dense_init=constant)
    fixed = jax.jit(fixed.init)(key, images)["params"]
    assert set(fixed) == set(drawn) == {"Conv_0", "Conv_1", "Dense_0", "Dense_1"}
    for layer, part in drawn.items():
        kernel = np.asarray(part["kernel"], np.float64)
        expected = np.sign(kernel) * kernel.std(ddof=1)
        np.testing.assert_allclose(fixed[layer]["kernel"], expected, rtol=1e-5)
