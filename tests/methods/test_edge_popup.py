"""Edge-popup: the largest scores, an exact number of them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from aslp_jax import EdgePopup
from aslp_jax.methods._top_k import top_k_mask
from tests.helpers import compiled

FIVE_SIGMAS = 5.7e-7  # two-sided
SHAPES = ((1,), (3, 5), (2, 3, 2))
examples = settings(max_examples=40, deadline=None, derandomize=True, database=None)


# The largest entries of an array.


def first_largest(values, count: int) -> np.ndarray:
    """The oracle: a stable sort of the negated values."""
    flat = np.asarray(values, np.float64).ravel()
    kept = np.zeros(flat.size, bool)
    kept[np.argsort(-flat, kind="stable")[:count]] = True
    return kept.reshape(np.shape(values))


top_k = jax.jit(top_k_mask)


@jax.jit
def of_every_count(values):
    counts = jnp.arange(values.size + 1, dtype=jnp.int32)
    return jax.lax.map(lambda count: top_k_mask(values, count), counts)


# Few enough values that most draws tie, and any others. Subnormal numbers are zero to
# the arithmetic of a CPU.
entries = st.one_of(
    st.sampled_from([-np.inf, -2.5, -1.0, -0.0, 0.0, 1.0, 2.5, np.inf]),
    st.floats(width=32, allow_nan=False, allow_subnormal=False),
)
arrays = st.sampled_from(SHAPES).flatmap(
    lambda shape: st.lists(
        entries, min_size=int(np.prod(shape)), max_size=int(np.prod(shape))
    ).map(lambda flat: np.asarray(flat, np.float32).reshape(shape))
)


@pytest.mark.slow
@examples
@given(values=arrays, dtype=st.sampled_from([jnp.float32, jnp.bfloat16]))
def test_top_k_keeps_what_a_stable_sort_puts_first(values, dtype):
    with np.errstate(over="ignore"):
        values = values.astype(dtype)
    kept = of_every_count(values)
    assert kept.dtype == bool
    expected = [first_largest(values, count) for count in range(values.size + 1)]
    np.testing.assert_array_equal(kept, expected)


# Beside the compiled program, one operation after the other, as XLA may simplify.
@pytest.mark.parametrize("run", [top_k_mask, top_k])
@pytest.mark.parametrize("zeros", [[-0.0, 0.0, -1.0], [0.0, -0.0, -1.0]])
def test_both_zeros_tie(run, zeros):
    assert run(np.float32(zeros), 1).tolist() == [True, False, False]


@pytest.mark.parametrize("run", [top_k_mask, top_k])
@pytest.mark.parametrize("nan", [np.nan, -np.nan], ids=["positive", "negative"])
def test_nan_is_larger_than_all_numbers(run, nan):
    values = np.array([1, nan, np.inf], np.float32)
    assert run(values, 1).tolist() == [False, True, False]
    assert run(values, 2).tolist() == [False, True, True]


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
@pytest.mark.parametrize("distinct", [1, 2, 300, 10**6])
@pytest.mark.parametrize("count", [0, 1, 2_500, 4_999, 5_000])
def test_top_k_of_many_with_ties(dtype, distinct, count):
    rng = np.random.default_rng(distinct)
    values = rng.integers(-distinct, distinct, (50, 100)) / np.float32(distinct)
    values = values.astype(dtype)
    kept = top_k(values, count)
    assert int(kept.sum()) == count
    np.testing.assert_array_equal(kept, first_largest(values, count))


def test_top_k_in_float64():
    with jax.enable_x64(True):
        kept = top_k(1 + np.arange(10) * 1e-15, 3)
    assert kept.tolist() == 7 * [False] + 3 * [True]


@pytest.mark.slow
def test_top_k_under_vmap():
    values = np.round(np.random.default_rng(0).normal(0, 4, (6, 5, 4)))
    values = values.astype(np.float32)
    values[0], values[1] = 0, np.arange(20).reshape(5, 4)
    run = functools.partial(top_k_mask, count=9)
    expected = np.stack([first_largest(each, 9) for each in values])
    np.testing.assert_array_equal(jax.jit(jax.vmap(run))(values), expected)


# The method.


def network(dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "Conv_0": {
            "kernel": jnp.asarray(rng.normal(size=(3, 3, 2, 5)), dtype),
            "bias": jnp.asarray(np.ones(5), dtype),
        },
        "Dense_0": {"kernel": jnp.asarray(rng.normal(size=(20, 8)), dtype)},
    }


SIZES = {"Conv_0/kernel": 90, "Dense_0/kernel": 160}
FAN_IN = {"Conv_0/kernel": 18, "Dense_0/kernel": 20}


def counts(masks):
    assert all(mask.dtype == bool for mask in masks.values())
    return {name: int(mask.sum()) for name, mask in masks.items()}


@pytest.mark.slow
@pytest.mark.parametrize(
    "keep_fraction, kept",
    [
        (1e-9, (1, 1)),
        (0.1, (9, 16)),
        (1.0, (90, 160)),
    ],
)
def test_each_layer_keeps_its_fraction(key, keep_fraction, kept):
    method, weights = EdgePopup(keep_fraction), network()
    _, params = method.init(key, weights)
    assert tuple(counts(compiled(method, "masks")(weights, params)).values()) == kept


@pytest.mark.slow
@pytest.mark.parametrize("keep_fraction, kept", [(1e-9, 1), (0.9, 225), (1.0, 250)])
def test_all_layers_together_keep_the_fraction(key, keep_fraction, kept):
    method, weights = EdgePopup(keep_fraction, scope="global"), network()
    _, params = method.init(key, weights)
    # Scores of one layer three times those of the other: it keeps more.
    params["scores"]["Dense_0/kernel"] = 3 * np.asarray(
        params["scores"]["Dense_0/kernel"]
    )
    masks = compiled(method, "masks")(weights, params)
    assert sum(counts(masks).values()) == kept
    together = np.concatenate(
        [np.abs(leaf).ravel() for leaf in params["scores"].values()]
    )
    np.testing.assert_array_equal(
        np.concatenate([mask.ravel() for mask in masks.values()]),
        first_largest(together, kept),
    )


@pytest.mark.parametrize("scope", ["layer", "global"])
def test_the_number_kept_is_exact_where_all_scores_tie(key, scope):
    method, weights = EdgePopup(0.3, scope=scope), network()
    rng = np.random.default_rng(0)
    scores = {
        name: rng.choice(np.float32([0.25, -0.25]), leaf.shape)
        for name, leaf in method.init(key, weights)[1]["scores"].items()
    }
    masks = compiled(method, "masks")(weights, {"scores": scores})
    expected = {"layer": (27, 48), "global": (75, 0)}[scope]
    assert tuple(counts(masks).values()) == expected


@pytest.mark.slow
def test_ties_over_many_layers_fall_alike_under_jit():
    # Layer 10 comes after layer 2 in the tree, and before it in the alphabet.
    ones = np.ones((2, 2), np.float32)
    weights = {"layers": [{"kernel": ones} for _ in range(12)]}
    method = EdgePopup(scope="global")
    _, params = jax.eval_shape(method.init, jax.random.key(0), weights)
    params = jax.tree.map(lambda leaf: ones, params)
    given = {"scores": {f"layers/{i}/kernel": ones for i in range(12)}}
    plain = counts(method.masks(weights, given))
    assert plain == counts(method.masks(weights, params))
    assert plain == counts(jax.jit(method.masks)(weights, given))


@pytest.mark.slow
@pytest.mark.parametrize(
    "scope, rescale, dtype",
    [
        ("layer", "none", jnp.float32),
        ("global", "none", jnp.bfloat16),
        ("layer", "fan", jnp.bfloat16),
        ("global", "fan", jnp.float32),
    ],
)
def test_the_network_is_mask_times_weight(key, scope, rescale, dtype):
    method = EdgePopup(0.3, scope=scope, rescale=rescale)
    weights = network(dtype)
    frozen, params = method.init(key, weights)
    assert frozen is weights
    run = jax.jit(lambda *args: (method.masks(*args), method.effective_weights(*args)))
    masks, made = run(weights, params)
    scale = np.sqrt(1 / 0.3) if rescale == "fan" else 1.0
    for layer in ("Conv_0", "Dense_0"):
        kernel = np.asarray(weights[layer]["kernel"], np.float64)
        expected = scale * np.where(masks[f"{layer}/kernel"], kernel, 0)
        got = np.asarray(made[layer]["kernel"], np.float64)
        if rescale == "none":  # the mask is 0 or 1 to the last bit
            np.testing.assert_array_equal(got, expected)
        np.testing.assert_allclose(got, expected, rtol=2 * float(jnp.finfo(dtype).eps))
    np.testing.assert_array_equal(made["Conv_0"]["bias"], weights["Conv_0"]["bias"])


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16, jnp.float32])
def test_entries_of_the_mask_are_exactly_zero_or_one_at_any_score(dtype):
    # Of weights that are all one; adding a large score and taking it off would round.
    weights = {"kernel": np.ones((200, 50), dtype)}
    scores = np.random.default_rng(0).normal(0, 1, (200, 50)) * np.logspace(-4, 4, 50)
    params = {"scores": {"kernel": scores.astype(dtype)}}
    method = EdgePopup()
    runs = [compiled(method, "effective_weights")]
    if dtype == jnp.bfloat16:  # rounds most; without XLA, which may simplify
        runs.append(method.effective_weights)
    for run in runs:
        kernel = np.asarray(run(weights, params)["kernel"], np.float32)
        assert set(np.unique(kernel)) == {0, 1}
        assert np.count_nonzero(kernel) == 5_000


@pytest.mark.parametrize("scope", ["layer", "global"])
@pytest.mark.parametrize("rescale", ["none", "fan"])
def test_the_gradient_passes_the_selection_as_the_identity_of_the_size(
    key, scope, rescale
):
    method, weights = EdgePopup(0.3, scope=scope, rescale=rescale), network()
    _, params = method.init(key, weights)
    outer = network(seed=1)

    def loss(params):
        made = method.effective_weights(weights, params)
        return sum(
            jnp.sum(outer[layer]["kernel"] * made[layer]["kernel"])
            for layer in ("Conv_0", "Dense_0")
        )

    slopes = jax.jit(jax.grad(loss))(params)["scores"]
    scale = np.sqrt(1 / 0.3) if rescale == "fan" else 1.0
    for layer in ("Conv_0", "Dense_0"):
        name = f"{layer}/kernel"
        scores, one, other = map(
            np.asarray,
            (params["scores"][name], outer[layer]["kernel"], weights[layer]["kernel"]),
        )
        expected = scale * one * other * np.sign(scores)
        assert expected.all(), "what is left out has a gradient too"
        np.testing.assert_allclose(slopes[name], expected, rtol=1e-5)


def test_scores_start_uniform_within_one_over_the_root_of_fan_in(key):
    weights = {
        "Conv_0": {"kernel": jnp.zeros((3, 3, 10, 300))},
        "Dense_0": {"kernel": jnp.zeros((400, 100))},
        "Dense_1": {"kernel": jnp.zeros((400, 100), jnp.bfloat16)},
    }
    _, params = EdgePopup().init(key, weights)
    assert list(params) == ["scores"]
    for (name, scores), fan_in in zip(
        params["scores"].items(), (90, 400, 400), strict=True
    ):
        kernel = weights[name.split("/")[0]]["kernel"]
        assert scores.shape == kernel.shape and scores.dtype == kernel.dtype
        bound = 1 / np.sqrt(fan_in)
        drawn = np.asarray(scores, np.float64).ravel()
        assert np.abs(drawn).max() <= bound * (1 + float(jnp.finfo(kernel.dtype).eps))
        # A uniform's std is bound / sqrt(3), its fourth moment bound ** 4 / 5.
        spread = np.sqrt((1 / 5 - 1 / 9) / drawn.size)
        assert abs((drawn**2).mean() / bound**2 - 1 / 3) < 5 * spread
        if scores.dtype == jnp.float32:
            fit = scipy.stats.kstest(drawn, scipy.stats.uniform(-bound, 2 * bound).cdf)
            assert fit.pvalue > FIVE_SIGMAS


@pytest.mark.slow
def test_the_key_decides_the_scores_and_nothing_else(key):
    method, weights = EdgePopup(), network()
    init = compiled(method, "init")
    first, again, other = (
        jax.device_get(init(each, weights)[1]["scores"])
        for each in (key, key, jax.random.fold_in(key, 1))
    )
    for name in SIZES:
        np.testing.assert_array_equal(first[name], again[name])
        assert (first[name] != other[name]).any()
    alike = {"a": weights["Dense_0"], "b": weights["Dense_0"]}
    one, two = jax.device_get(init(key, alike)[1]["scores"]).values()
    assert (one != two).any()
    run = compiled(method, "effective_weights")
    plain = run(weights, {"scores": first})
    for seed in range(3):
        drawn = run(weights, {"scores": first}, key=jax.random.key(seed))
        jax.tree.map(np.testing.assert_array_equal, drawn, plain)


@pytest.mark.slow
def test_probabilities_are_one_or_zero_as_the_mask_says(key):
    method, weights = EdgePopup(0.3), network(jnp.bfloat16)
    _, params = method.init(key, weights)
    masks = compiled(method, "masks")(weights, params)
    for name, probability in compiled(method, "keep_probabilities")(
        weights, params
    ).items():
        assert probability.dtype == jnp.bfloat16
        np.testing.assert_array_equal(probability, masks[name])


@pytest.mark.parametrize("fraction", [0.0, -0.5, 1.001, float("nan")])
def test_a_fraction_out_of_range_is_refused(fraction):
    text = rf"^EdgePopup: keep_fraction must be in \(0, 1\], got {fraction}$"
    with pytest.raises(ValueError, match=text):
        EdgePopup(keep_fraction=fraction)


def test_an_unknown_scope_or_rescale_is_refused():
    with pytest.raises(ValueError, match=r"^EdgePopup: scope .*'layer', got 'all'$"):
        EdgePopup(scope="all")
    with pytest.raises(ValueError, match=r"^EdgePopup: rescale .*'fan', got 'smart'$"):
        EdgePopup(rescale="smart")


def test_weights_without_a_kernel_and_scores_without_a_weight_are_refused(key):
    with pytest.raises(ValueError, match="select chooses none of the weights"):
        EdgePopup().init(key, {"bias": jnp.ones(3)})
    with pytest.raises(KeyError, match="no weight at 'lost'"):
        EdgePopup().effective_weights(network(), {"scores": {"lost": jnp.ones(3)}})
