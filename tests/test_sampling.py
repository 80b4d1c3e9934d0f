import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.integrate
import scipy.special
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aslp_jax.ops import threefry
from aslp_jax.sampling import (
    bernoulli_st,
    logistic_noise,
    naive_gumbel_softmax,
    stgs,
)
from tests.helpers import quick_only

FLOATS = (jnp.float16, jnp.bfloat16, jnp.float32)
BATCH = (7, 11)
FIVE_SIGMAS = 5.7e-7  # two-sided
values = settings(max_examples=25, deadline=None, derandomize=True, database=None)


def kept_z(kept: int, draws: int, logit: float) -> float:
    """How many standard errors a count of ones lies from its binomial mean."""
    p, q = scipy.special.expit(logit), scipy.special.expit(-logit)
    return float((kept - draws * p) / np.sqrt(draws * p * q))


def soft_value(key, logits, temperature=1.0, shape=None):
    """The smooth stand-in that the gradient is said to be of."""
    shape = logits.shape if shape is None else shape
    noise = logistic_noise(key, shape).astype(logits.dtype)
    return jax.nn.sigmoid((jnp.broadcast_to(logits, shape) + noise) / temperature)


@functools.partial(jax.jit, static_argnums=0)
def pulled_back(sampler, key, logits, temperature, cotangent):
    """Gradients with respect to logits and temperature."""
    outputs, pull = jax.vjp(lambda m, t: sampler(key, m, t), logits, temperature)
    return pull(cotangent.astype(outputs.dtype))


def hard_value(key, logits, temperature):
    return stgs(key, logits, temperature=temperature)


@jax.jit
def drawn_and_pulled_back(key, logits, temperature, cotangent):
    """A sample, and its gradients with respect to logits and temperature."""
    outputs, pull = jax.vjp(functools.partial(hard_value, key), logits, temperature)
    return outputs, *pull(cotangent.astype(outputs.dtype))


def optimised(function):
    """The function compiled for millions of draws, unlike what else tests compile."""
    return jax.jit(function, compiler_options={"xla_backend_optimization_level": 1})


traced_temperature = jax.jit(hard_value)
compiled = jax.jit(stgs)
fast = {
    function: optimised(function)
    for function in (stgs, bernoulli_st, naive_gumbel_softmax)
}


@functools.partial(jax.jit, static_argnums=0)
def sample_and_slope(sampler, key, logits):
    """A sample, and its gradient for a cotangent of ones."""
    sample, pull = jax.vjp(functools.partial(sampler, key), logits)
    return sample, pull(jnp.ones_like(sample))[0]


@functools.cache
def batch(seed: int = 0, scale: float = 3.0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, scale, BATCH).astype(np.float32)


# Values.


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS)
def test_entries_are_exactly_zero_or_one(key, dtype):
    logits = np.linspace(-12, 12, 40_000).astype(dtype)
    runs = [compiled]
    if dtype == jnp.bfloat16:  # rounds most; without XLA, which may simplify
        runs.append(stgs)
    for run in runs:
        mask = run(key, logits)
        assert mask.dtype == dtype
        assert set(np.unique(np.asarray(mask, np.float64))) == {0.0, 1.0}


def test_entries_are_exactly_zero_or_one_in_float64(key):
    with jax.enable_x64(True):
        mask = compiled(key, np.linspace(-12, 12, 40_000))
        assert mask.dtype == jnp.float64
        assert set(np.unique(mask)) == {0.0, 1.0}


@pytest.mark.parametrize("logit", [0, 4, -4, 8, -8, 12, -12])
def test_frequency_is_the_sigmoid(key, logit):
    draws = 2**22
    logits = np.full(draws, logit, np.float32)
    kept = np.count_nonzero(fast[stgs](jax.random.fold_in(key, 50 + logit), logits))
    z = kept_z(kept, draws, logit)
    print(f"logit {logit:+d}: kept {kept} of {draws}, z = {z:+.2f}")  # shown by -rP
    assert abs(z) < 5


def test_bfloat16_logits_are_not_biased(key):
    draws, logit = 2**22, 12.0
    logits = np.full(draws, logit, jnp.bfloat16)
    kept = np.count_nonzero(fast[stgs](key, logits))
    assert abs(kept_z(kept, draws, logit)) < 5

    # The same count of a sampler whose noise is bfloat16: the bias is far outside.
    @optimised
    def narrow(key, logits):
        return logits + jax.random.logistic(key, logits.shape, jnp.bfloat16) > 0

    kept = np.count_nonzero(narrow(key, logits))
    assert abs(kept_z(kept, draws, logit)) > 100


@pytest.mark.slow
def test_noise_follows_the_logistic_law(key):
    draw = optimised(functools.partial(logistic_noise, shape=(2**22,)))
    noise = np.asarray(draw(key), np.float64)
    assert np.isfinite(noise).all()
    fit = scipy.stats.kstest(noise, "logistic")
    print(f"distance {fit.statistic:.2e}, p = {fit.pvalue:.2f}")  # shown by -rP
    assert fit.pvalue > FIVE_SIGMAS
    # The tails beyond 8 (probability 3e-4 each) on their own: by the law, and as often
    # on one side as on the other.
    right, left = noise[noise > 8] - 8, -8 - noise[noise < -8]
    given_tail = scipy.stats.expon  # to 3e-4, which 1,400 draws cannot tell
    for tail in (right, left):
        assert abs(kept_z(len(tail), len(noise), -8)) < 5
        assert scipy.stats.kstest(tail, given_tail.cdf).pvalue > FIVE_SIGMAS
    assert abs(len(right) - len(left)) < 5 * np.sqrt(len(right) + len(left))


def test_noise_is_symmetric_and_bounded_to_the_last_bit(monkeypatch):
    # All random words near the ends of the uint32 range and near its middle.
    near = np.arange(4096, dtype=np.uint64)
    words = np.concatenate([near, 2**31 - 1 - near, 2**31 + near, 2**32 - 1 - near])
    words = jnp.asarray(words.astype(np.uint32))
    monkeypatch.setattr(threefry, "bits", lambda key, shape: words)
    noise = np.sort(np.asarray(logistic_noise(jax.random.key(0), words.shape)))
    np.testing.assert_array_equal(noise, -noise[::-1])
    assert 22 < noise[-1] < 22.9
    # Fine far out: the 100 largest are 100 values.
    assert len(np.unique(noise[-100:])) == 100


def test_noise_takes_a_shape_and_is_float32(key):
    noise = jax.eval_shape(lambda: logistic_noise(key, [2, 3]))
    assert noise.shape == (2, 3) and noise.dtype == jnp.float32
    with jax.enable_x64(True):
        noise = jax.eval_shape(lambda: logistic_noise(key, (2,)))
        assert noise.dtype == jnp.float32


def test_keys_decide_the_sample(key):
    logits = np.zeros(200, np.float32)
    keys = jax.random.split(key)
    first, again, other = (
        np.asarray(compiled(keys[index], logits)) for index in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_old_style_keys(key):
    logits = np.zeros(200, np.float32)
    old, new = jax.random.PRNGKey(3), jax.random.key(3)
    assert old.dtype == jnp.uint32
    mask = np.asarray(compiled(old, logits))
    np.testing.assert_array_equal(mask, compiled(new, logits))
    assert 0 < mask.sum() < 200


# Gradients.


@values
@given(
    temperature=st.floats(0.0625, 16, width=32),
    shift=st.floats(-10, 10, width=32),
    seed=st.integers(0, 2**31 - 1),
)
def test_gradient_is_that_of_the_soft_value(temperature, shift, seed):
    key = jax.random.key(seed)
    logits = jnp.asarray(batch()) + jnp.float32(shift)
    cotangent = jnp.asarray(batch(1))
    arguments = key, logits, jnp.float32(temperature), cotangent
    by_logits, by_temperature = pulled_back(hard_value, *arguments)
    # In float64: far out, autodiff of a float32 sigmoid is but rounding.
    with jax.enable_x64(True):
        wide = [jnp.asarray(x, jnp.float64) for x in arguments[1:]]
        soft_by_logits, soft_by_temperature = pulled_back(soft_value, key, *wide)
    np.testing.assert_allclose(by_logits, soft_by_logits, rtol=2e-4, atol=1e-13)
    # The temperature's is a sum of 77 terms of both signs.
    np.testing.assert_allclose(
        by_temperature, soft_by_temperature, rtol=2e-4, atol=1e-4 / temperature
    )


@pytest.mark.parametrize("temperature", [0.3, 1.0, 4.0])
def test_gradient_agrees_with_finite_differences(key, temperature):
    logits = batch().astype(np.float64)
    cotangent = batch(1).astype(np.float64)
    with jax.enable_x64(True):
        by_logits, by_temperature = pulled_back(
            hard_value,
            key,
            jnp.asarray(logits),
            jnp.asarray(temperature, jnp.float64),
            jnp.asarray(cotangent),
        )
        noise = np.asarray(logistic_noise(key, BATCH), np.float64)
    assert by_logits.dtype == np.float64

    def soft(logits, temperature):
        return scipy.special.expit((logits + noise) / temperature)

    h = 1e-5
    up, down = soft(logits + h, temperature), soft(logits - h, temperature)
    np.testing.assert_allclose(by_logits, cotangent * (up - down) / (2 * h), atol=1e-8)
    up, down = soft(logits, temperature + h), soft(logits, temperature - h)
    expected = (cotangent * (up - down)).sum() / (2 * h)
    np.testing.assert_allclose(by_temperature, expected, rtol=1e-7, atol=1e-7)


@pytest.mark.parametrize("dtype", quick_only(FLOATS, jnp.bfloat16))
def test_gradient_keeps_the_dtype(key, dtype):
    logits = jnp.asarray(batch(), dtype)
    _, slope = sample_and_slope(stgs, key, logits)
    assert slope.dtype == dtype
    _, exact = sample_and_slope(soft_value, key, logits.astype(jnp.float32))
    np.testing.assert_allclose(
        slope.astype(jnp.float32), exact, rtol=float(jnp.finfo(dtype).eps), atol=1e-6
    )


@pytest.mark.slow
@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("temperature", [0.01, 1.0, 100.0])
def test_large_logits_stay_finite(key, dtype, temperature):
    large = np.array([20, 50, 88, 89, 104, 500, 1e3, 1e4])
    logits = np.concatenate([large, -large]).astype(dtype)
    ones = np.ones(16, np.float32)
    mask, by_logits, by_temperature = drawn_and_pulled_back(
        key, logits, np.float32(temperature), ones
    )
    np.testing.assert_array_equal(np.asarray(mask, np.float32)[1:8], 1)
    np.testing.assert_array_equal(np.asarray(mask, np.float32)[9:], 0)
    assert np.isfinite(np.asarray(by_logits, np.float64)).all()
    assert (np.asarray(by_logits, np.float64) >= 0).all()
    assert np.isfinite(by_temperature)


def test_slope_of_a_large_logit_is_not_rounded_to_zero(key):
    logits = np.full(BATCH, 40, np.float32)
    _, slope = sample_and_slope(stgs, key, logits)
    noise = np.asarray(logistic_noise(key, BATCH), np.float64)
    np.testing.assert_allclose(slope, np.exp(-40 - noise), rtol=1e-4)


@pytest.mark.parametrize("dtype", quick_only(FLOATS, jnp.float32))
def test_infinite_logits_are_certain(key, dtype):
    logits = np.asarray([-np.inf, np.inf] * 500, dtype)
    mask, by_logits, by_temperature = drawn_and_pulled_back(
        key, logits, np.float32(0.7), np.ones(1000, np.float32)
    )
    np.testing.assert_array_equal(np.asarray(mask, np.float32), [0, 1] * 500)
    np.testing.assert_array_equal(np.asarray(by_logits, np.float32), 0)
    assert by_temperature == 0


def test_nan_stays_visible(key):
    logits = jnp.asarray([0.0, jnp.nan, 1.0])
    mask, slope = sample_and_slope(stgs, key, logits)
    assert np.isnan(mask).tolist() == [False, True, False]
    assert np.isnan(slope).tolist() == [False, True, False]


@values
@given(temperature=st.floats(2**-10, 2**10, width=32), seed=st.integers(0, 2**31 - 1))
def test_temperature_never_changes_the_sample(temperature, seed):
    key, logits = jax.random.key(seed), batch()
    expected = compiled(key, logits)
    np.testing.assert_array_equal(stgs(key, logits, temperature=temperature), expected)
    traced = traced_temperature(key, logits, temperature)
    np.testing.assert_array_equal(traced, expected)


# Transformations.


def test_jit_gives_the_same_bits(key):
    logits = jnp.asarray(batch())
    np.testing.assert_array_equal(compiled(key, logits), stgs(key, logits))


def test_forward_mode_agrees_with_reverse_mode(key):
    logits, direction = jnp.asarray(batch()), jnp.asarray(batch(1))
    value, change = jax.jvp(
        hard_value,
        (key, logits, jnp.float32(0.7)),
        (np.zeros((), jax.dtypes.float0), direction, jnp.float32(0.3)),
    )
    np.testing.assert_array_equal(value, stgs(key, logits))
    _, soft_change = jax.jvp(
        lambda m, t: soft_value(key, m, t),
        (logits, jnp.float32(0.7)),
        (direction, jnp.float32(0.3)),
    )
    np.testing.assert_allclose(change, soft_change, rtol=1e-4, atol=1e-6)


def value_and_slope(key, logits):
    def total(logits):
        mask = stgs(key, logits)
        return mask.sum(), mask

    slope, mask = jax.grad(total, has_aux=True)(logits)
    return mask, slope


drawn_with_slope = jax.jit(value_and_slope)


def one_by_one(keys, logits):
    pairs = [drawn_with_slope(k, m) for k, m in zip(keys, logits, strict=True)]
    return tuple(np.stack(part) for part in zip(*pairs, strict=True))


@jax.jit
def scanned(keys, logits):
    return jax.lax.scan(lambda _, x: ((), value_and_slope(*x)), (), (keys, logits))[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    "many", [jax.jit(jax.vmap(value_and_slope)), scanned, jax.pmap(value_and_slope)]
)
def test_many_at_once_are_the_same_as_one_by_one(key, many):
    keys = jax.random.split(key, 4)
    logits = np.stack([batch(seed) for seed in range(4)])
    mask, slope = many(keys, logits)
    expected_mask, expected_slope = one_by_one(keys, logits)
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-5)
    assert (np.asarray(mask[0]) != np.asarray(mask[1])).any()


def test_sharding_over_four_devices_gives_the_same_bits(key):
    logits = jnp.asarray(np.random.default_rng(0).normal(size=(8, 6)), jnp.float32)
    mesh = Mesh(np.array(jax.devices()[:4]), ("batch",))
    sharding = NamedSharding(mesh, PartitionSpec("batch"))
    program = jax.jit(value_and_slope, out_shardings=sharding)
    mask, slope = program(key, jax.device_put(logits, sharding))
    assert len(mask.sharding.device_set) == 4
    expected_mask, expected_slope = drawn_with_slope(key, logits)
    assert len(expected_mask.sharding.device_set) == 1
    np.testing.assert_array_equal(mask, expected_mask)
    np.testing.assert_allclose(slope, expected_slope, rtol=1e-6)


def test_one_draw_and_no_stacked_pair(key):
    # Neither the program as traced nor the one compiled holds an array of more entries
    # than the logits, or more axes.
    logits = jnp.asarray(batch())
    traced = str(jax.make_jaxpr(value_and_slope)(key, logits))
    assert traced.count("name=_words") == 1
    compiled = jax.jit(value_and_slope).lower(key, logits).compile().as_text()
    for program in (traced, compiled):
        found = re.findall(r"\b(?:pred|bool|bf|f|u|s)(?:\d+)?\[(\d[\d,]*)\]", program)
        shapes = {tuple(map(int, shape.split(","))) for shape in found}
        assert BATCH in shapes
        assert max(len(shape) for shape in shapes) == 2
        assert max(np.prod(shape) for shape in shapes) == np.prod(BATCH)


# The shape of the result.

SHAPES = [((), (4,)), ((3,), (5, 3)), ((5, 1), (5, 3)), ((1,), (2, 3, 4)), ((3,), (3,))]


@pytest.mark.slow
@pytest.mark.parametrize("given_shape, shape", SHAPES)
def test_shape_broadcasts_like_bernoulli(key, given_shape, shape):
    logits = jnp.asarray(np.random.default_rng(2).normal(size=given_shape), jnp.float32)
    with jax.numpy_rank_promotion("allow"):
        expected = jax.eval_shape(
            lambda p: jax.random.bernoulli(key, p, shape), logits
        ).shape
    given_to_shape = functools.partial(stgs, shape=shape)
    mask, slope = sample_and_slope(given_to_shape, key, logits)
    assert mask.shape == expected == shape
    broadcast = np.broadcast_to(logits, shape)
    broadcast_mask, broadcast_slope = sample_and_slope(stgs, key, broadcast)
    np.testing.assert_array_equal(mask, broadcast_mask)
    added = len(shape) - len(given_shape)
    summed = np.asarray(broadcast_slope).sum(tuple(range(added)))
    axes = tuple(i for i, n in enumerate(given_shape) if n != summed.shape[i])
    summed = summed.sum(axes, keepdims=True)
    assert slope.shape == given_shape
    np.testing.assert_allclose(slope, summed, rtol=1e-5)


def test_broadcast_entries_are_drawn_apart(key):
    drawn = jax.jit(stgs, static_argnums=2)(key, jnp.zeros((1, 100)), (50, 100))
    assert len(np.unique(drawn, axis=0)) == 50


@pytest.mark.parametrize(
    "given_shape, shape", [((3,), (4,)), ((2, 3), (3,)), ((3,), (3, 1)), ((3,), ())]
)
def test_shape_that_does_not_broadcast(key, given_shape, shape):
    with pytest.raises(ValueError), jax.numpy_rank_promotion("allow"):
        jax.random.bernoulli(key, jnp.full(given_shape, 0.5), shape)
    text = rf"stgs: .*{re.escape(str(given_shape))}.*{re.escape(str(shape))}"
    with pytest.raises(ValueError, match=text):
        stgs(key, jnp.zeros(given_shape), shape)


# Errors.


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.uint8, jnp.bool_, jnp.complex64])
def test_logits_must_be_floating_point(key, dtype):
    with pytest.raises(TypeError, match=f"stgs: .*{jnp.dtype(dtype).name}"):
        stgs(key, jnp.zeros(3, dtype))


@pytest.mark.parametrize(
    "temperature",
    [0, 0.0, 1e-39, -1.0, np.nan, np.inf, -np.inf, jnp.float32(0), np.float64(0)],
)
def test_temperature_must_be_positive_and_finite(key, temperature):
    with pytest.raises(ValueError, match="stgs: temperature must be positive"):
        stgs(key, jnp.zeros(3), temperature=temperature)


def test_temperature_must_be_a_scalar(key):
    with pytest.raises(ValueError, match=r"stgs: temperature must be a scalar.*\(1,\)"):
        stgs(key, jnp.zeros(3), temperature=np.ones(1))
    with pytest.raises(ValueError, match=r"stgs: temperature must be a scalar.*\(3,\)"):
        traced_temperature(key, jnp.zeros(3), jnp.ones(3))


@pytest.mark.parametrize("temperature", [2, np.float32(0.5), jnp.float32(0.5)])
def test_temperature_may_be_any_scalar(key, temperature):
    mask = stgs(key, batch(), temperature=temperature)
    np.testing.assert_array_equal(mask, compiled(key, batch()))


def test_logits_may_be_a_python_float_or_numpy(key):
    assert jax.eval_shape(lambda: stgs(key, 0.5)).shape == ()
    array = batch()
    np.testing.assert_array_equal(stgs(key, array), stgs(key, jnp.asarray(array)))


# The sampler whose gradient is the sigmoid's, and the one by log-probabilities.

OTHERS = (bernoulli_st, naive_gumbel_softmax)


@pytest.mark.slow
@pytest.mark.parametrize(
    "sampler, logit",
    [(bernoulli_st, logit) for logit in (0, 2, -4, 8, -8)]
    + [(naive_gumbel_softmax, logit) for logit in (0, 1, -2, 4)],
)
def test_frequency_of_the_others_is_the_sigmoid_too(key, sampler, logit):
    draws = 2**20
    logits = np.full(draws, logit, np.float32)
    sample = fast[sampler](jax.random.fold_in(key, 70 + logit), logits)
    kept = np.count_nonzero(sample)
    assert abs(kept_z(kept, draws, logit)) < 5


@pytest.mark.parametrize("dtype", quick_only(FLOATS, jnp.bfloat16))
def test_bernoulli_st_draws_what_stgs_draws(key, dtype):
    logits = np.linspace(-12, 12, 40_000).astype(dtype)
    mask = bernoulli_st(key, logits)
    assert mask.dtype == dtype
    assert set(np.unique(np.asarray(mask, np.float32))) == {0, 1}
    np.testing.assert_array_equal(mask, compiled(key, logits))
    np.testing.assert_array_equal(mask, jax.jit(bernoulli_st)(key, logits))


@pytest.mark.parametrize("dtype", quick_only(FLOATS[1:], jnp.float32))
def test_slope_of_bernoulli_st_is_that_of_the_sigmoid_whatever_is_drawn(key, dtype):
    logits = jnp.asarray(np.linspace(-9, 9, 1001), dtype)
    wide = np.asarray(logits, np.float64)
    exact = scipy.special.expit(wide) * scipy.special.expit(-wide)
    cotangent = jnp.asarray(np.linspace(1, 2, 1001), dtype)

    @jax.jit
    def weighted(key):
        mask, pull = jax.vjp(functools.partial(bernoulli_st, key), logits)
        return mask, pull(cotangent)[0]

    drawn = []
    for each in jax.random.split(key, 3):
        mask, slope = weighted(each)
        assert slope.dtype == dtype
        np.testing.assert_allclose(
            np.asarray(slope, np.float64),
            exact * np.asarray(cotangent, np.float64),
            rtol=float(jnp.finfo(dtype).eps),
            atol=2e-7,  # float32: 1 - sigmoid is rounded
        )
        drawn.append(np.asarray(mask, np.float32))
    assert (drawn[0] != drawn[1]).any() and (drawn[1] != drawn[2]).any()


def test_bernoulli_st_in_float64(key):
    with jax.enable_x64(True):
        logits = jnp.linspace(-20, 20, 1001, dtype=jnp.float64)
        mask, slope = sample_and_slope(bernoulli_st, key, logits)
        assert mask.dtype == slope.dtype == jnp.float64
        assert set(np.unique(mask)) == {0.0, 1.0}
    exact = scipy.special.expit(logits) * scipy.special.expit(-np.asarray(logits))
    np.testing.assert_allclose(slope, exact, atol=1e-15)


@pytest.mark.parametrize(
    "logit, ratio", quick_only([(0, 0.67), (4, 2.3), (6, 4.1)], (4, 2.3))
)
def test_slope_of_stgs_outlives_that_of_the_sigmoid(key, logit, ratio):
    draws = 2**18
    logits = np.full(draws, logit, np.float32)
    slope = np.asarray(sample_and_slope(stgs, key, logits)[1], np.float64)
    plain = np.asarray(sample_and_slope(bernoulli_st, key, logits)[1])
    np.testing.assert_array_equal(plain, np.full(draws, plain[0]))
    # The mean over draws is the integral of the soft value's slope over the noise.
    law = scipy.stats.logistic.pdf
    mean, _ = scipy.integrate.quad(
        lambda noise: law(noise) * law(logit + noise), -40, 40
    )
    assert abs(slope.mean() - mean) < 5 * slope.std() / np.sqrt(draws)
    assert mean / float(plain[0]) == pytest.approx(ratio, rel=0.02)


@functools.partial(
    jax.jit,
    static_argnums=0,
    compiler_options={"xla_backend_optimization_level": 1},
)
def signed_slopes(sampler, key, logits, temperature):
    """Gradients with the sign of the sample, so that the law of both is compared."""
    mask, pull = jax.vjp(lambda m: sampler(key, m, temperature=temperature), logits)
    return (2 * mask - 1) * pull(jnp.ones_like(logits))[0]


@pytest.mark.slow
@pytest.mark.parametrize("temperature", [1.0, 0.5])
@pytest.mark.parametrize("logit", [0.0, 2.0, -1.0])
def test_naive_form_has_the_slopes_of_stgs(key, logit, temperature):
    logits, temperature = np.full(2**16, logit, np.float32), np.float32(temperature)
    first, second = jax.random.split(key)
    one = np.asarray(signed_slopes(stgs, first, logits, temperature))
    two = np.asarray(signed_slopes(naive_gumbel_softmax, second, logits, temperature))
    fit = scipy.stats.ks_2samp(one, two, method="asymp")
    assert fit.pvalue > FIVE_SIGMAS


@pytest.mark.parametrize(
    "dtype, logit, breaks",
    quick_only(
        [
            (jnp.float32, 8.0, False),
            (jnp.float32, -20.0, False),
            (jnp.float32, 20.0, True),
            (jnp.float32, -110.0, True),
            (jnp.bfloat16, 3.0, False),
            (jnp.bfloat16, 8.0, True),
        ],
        (jnp.float32, -20.0, False),
        (jnp.float32, 20.0, True),
    ),
)
def test_naive_form_breaks_at_large_logits_where_stgs_does_not(
    key, dtype, logit, breaks
):
    logits = jnp.full((100,), logit, dtype)
    mask, slope = sample_and_slope(naive_gumbel_softmax, key, logits)
    assert mask.dtype == slope.dtype == dtype
    assert set(np.unique(mask.astype(jnp.float32))) <= {0, 1}
    assert (np.isnan(np.asarray(slope, np.float32)) == breaks).all()
    _, stable = sample_and_slope(stgs, key, logits)
    assert np.isfinite(np.asarray(stable, np.float32)).all()


@pytest.mark.parametrize("sampler", quick_only(OTHERS, bernoulli_st))
def test_the_others_work_under_jit_and_vmap_and_grad(key, sampler):
    each = functools.partial(sample_and_slope, sampler)
    keys = jax.random.split(key, 3)
    logits = jnp.asarray(np.stack([batch(seed, 1.0) for seed in range(3)]))
    masks, slopes = jax.jit(jax.vmap(each))(keys, logits)
    assert (masks[0] != masks[1]).any()
    for index in range(3):
        mask, slope = each(keys[index], logits[index])
        np.testing.assert_array_equal(masks[index], mask)
        np.testing.assert_allclose(slopes[index], slope, rtol=1e-4, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("sampler", OTHERS)
@pytest.mark.parametrize("given_shape, shape", SHAPES)
def test_the_others_broadcast_like_stgs(key, sampler, given_shape, shape):
    logits = jnp.asarray(np.random.default_rng(2).normal(size=given_shape), jnp.float32)

    @jax.jit
    def both(logits):
        broadcast = jnp.broadcast_to(logits, shape)
        return sampler(key, logits, shape), sampler(key, broadcast)

    sample, expected = both(logits)
    assert sample.shape == shape
    np.testing.assert_array_equal(sample, expected)


@pytest.mark.parametrize("sampler", OTHERS)
def test_errors_of_the_others_name_them_in_one_line(key, sampler):
    name = sampler.__name__
    with pytest.raises(TypeError, match=rf"^{name}: .*floating point, got int32$"):
        sampler(key, jnp.zeros(3, jnp.int32))
    with pytest.raises(ValueError, match=rf"^{name}: .*\(3,\) .* \(3, 4\)$"):
        sampler(key, jnp.zeros(3), (3, 4))


@pytest.mark.parametrize("temperature", [0.0, -1.0, np.nan, np.inf])
def test_temperature_of_the_naive_form_must_be_positive_and_finite(key, temperature):
    text = r"^naive_gumbel_softmax: temperature must be positive and finite, got .*$"
    with pytest.raises(ValueError, match=text):
        naive_gumbel_softmax(key, jnp.zeros(3), temperature=temperature)
    with pytest.raises(ValueError, match=r"^naive_gumbel_softmax: .* a scalar"):
        naive_gumbel_softmax(key, jnp.zeros(3), temperature=np.ones(1))
