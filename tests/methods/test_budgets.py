"""Budgets: what the methods that are asked for a number of weights do about it."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP, Budget, EdgePopup, Magnitude, Signed, Supermask
from aslp_jax.methods import _keep_budget
from aslp_jax.methods.budget_aware import gate
from tests.helpers import compiled

METHODS = [ASLP, Budget, EdgePopup, Magnitude, Signed, Supermask]
SAMPLED = [ASLP, Signed, Supermask]
SIZES = {"a/kernel": 1200, "b/kernel": 400}


def tree():
    rng = np.random.default_rng(0)
    return {
        "a": {
            "kernel": jnp.asarray(rng.normal(0, 0.05, (30, 40)), jnp.float32),
            "bias": jnp.ones(40),
        },
        "b": {"kernel": jnp.asarray(rng.normal(0, 0.1, (40, 10)), jnp.float32)},
    }


def leaves(weights):
    return {f"{layer}/kernel": np.asarray(weights[layer]["kernel"]) for layer in "ab"}


def oracle(u):
    """h in float64, as the paper writes it."""
    u = np.asarray(u, np.float64)
    c2 = math.exp(-1)
    return (np.exp(-1 / (u**4 + 1)) - c2) / (1 - c2)


def slope(u):
    u = np.asarray(u, np.float64)
    inner = np.exp(-1 / (u**4 + 1)) / (1 - math.exp(-1))
    return inner * 4 * u**3 / (u**4 + 1) ** 2


# The gate h.


@pytest.mark.parametrize(
    ("argument", "value"),
    [
        (0.0, 0.0),
        (0.25, 0.002269),
        (0.5, 0.035261),
        (1.0, 0.377541),
        (1.5, 0.759441),
        (2.0, 0.909627),
        (4.0, 0.993856),
    ],
)
def test_the_gate_has_the_values_of_the_paper(argument, value):
    for u in (argument, -argument):
        assert float(gate(jnp.float32(u))) == pytest.approx(value, abs=1e-6)


def test_the_gate_agrees_with_float64_everywhere():
    u = np.concatenate([np.linspace(-6, 6, 1001), 10.0 ** np.arange(-12, 20)])
    got = np.asarray(jax.jit(gate)(jnp.asarray(u, jnp.float32)), np.float64)
    np.testing.assert_allclose(got, oracle(np.float32(u)), atol=2e-7)
    # Near 0 it is u^4 / (e - 1), where the paper's difference rounds to 0.
    small = jnp.float32(1e-3)
    assert float(gate(small)) == pytest.approx(1e-12 / (math.e - 1), rel=1e-5)


def test_the_slope_of_the_gate_agrees_with_float64_everywhere():
    u = np.concatenate([np.linspace(-6, 6, 1001), 10.0 ** np.arange(-8, 20)])
    got = jax.jit(jax.vmap(jax.grad(gate)))(jnp.asarray(u, jnp.float32))
    assert np.isfinite(got).all()
    np.testing.assert_allclose(got, slope(np.float32(u)), atol=3e-6)
    step = 1e-5
    numeric = (oracle(u[:1001] + step) - oracle(u[:1001] - step)) / (2 * step)
    np.testing.assert_allclose(np.asarray(got)[:1001], numeric, atol=3e-6)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("t", [0.0, 100.0, 3e38])
def test_no_weight_and_no_sharpness_makes_nan(key, dtype, t):
    weights = {"kernel": jnp.asarray([0, 1e-30, -1e-3, 0.5, -3e38], dtype)}
    method = Budget(0.4)
    frozen, params = method.init(key, weights)
    params["sharpness"] = {"all": jnp.float32(t)}

    def loss(params):
        made = method.effective_weights(frozen, params, key=key)["kernel"]
        return jnp.sum(jnp.tanh(made.astype(jnp.float32))) + method.penalty(
            frozen, params
        )

    value, gradient = jax.jit(jax.value_and_grad(loss))(params)
    assert np.isfinite(value)
    for leaf in jax.tree.leaves(gradient):
        assert np.isfinite(np.asarray(leaf, np.float64)).all()


# Budget-aware reparametrisation.


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_apparent_weights_are_weights_times_their_gate(key, scope):
    weights = tree()
    method = Budget(0.1, sharpness_scope=scope)
    frozen, params = method.init(key, weights)
    assert sorted(params) == ["sharpness", "weights"]
    names = ["all"] if scope == "global" else list(SIZES)
    assert list(params["sharpness"]) == names
    made = compiled(method, "effective_weights")(frozen, params, key=key)
    gates = {name: oracle(100 * w) for name, w in leaves(weights).items()}
    for name, weight in leaves(weights).items():
        np.testing.assert_allclose(
            leaves(made)[name], weight * gates[name], rtol=1e-5, atol=1e-8
        )
        counted = compiled(method, "keep_counts")(frozen, params)[name]
        assert counted == pytest.approx(gates[name].sum(), rel=1e-5)
        assert frozen["initial_count"][name] == counted
    np.testing.assert_array_equal(made["a"]["bias"], weights["a"]["bias"])


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_the_budget_loss_is_that_of_the_paper(key, scope):
    method = Budget(0.1, sharpness_scope=scope, budget_weight=3.0)
    frozen, params = method.init(key, tree())
    start = sum(float(count) for count in frozen["initial_count"].values())
    params["sharpness"] = jax.tree.map(lambda t: t / 4, params["sharpness"])
    now = sum(
        float(count)
        for count in compiled(method, "keep_counts")(frozen, params).values()
    )
    expected = 3 * ((now - 0.1 * sum(SIZES.values())) / start) ** 2
    run = jax.jit(jax.value_and_grad(lambda params: method.penalty(frozen, params)))
    value, gradient = jax.device_get(run(params))
    assert value == pytest.approx(expected, rel=1e-5)
    assert all(float(slope) > 0 for slope in gradient["sharpness"].values())
    assert np.abs(gradient["weights"]["a"]["kernel"]).max() > 0
    assert not gradient["weights"]["a"]["bias"].any()


def test_the_fraction_of_weights_at_rest(key):
    method = Budget(0.5, sharpness_init=10.0)
    weights = {"kernel": jnp.array([0.0, 0.024, -0.024, 0.026, -0.026, 1.0, 1.0, 1.0])}
    frozen, params = method.init(key, weights)
    assert method.metrics(frozen, params) == {"at_rest": {"kernel": 3 / 8}}
    assert ASLP().metrics({}, {}) == {}


@pytest.mark.slow
def test_pruning_keeps_the_largest_and_changes_none_of_them(key):
    method = Budget(0.1)
    frozen, params = method.init(key, tree())
    run = compiled(method, "effective_weights")
    before = leaves(run(frozen, params, key=key))
    after = leaves(run(frozen, params))
    masks = jax.device_get(compiled(method, "masks")(frozen, params))
    assert sum(int(mask.sum()) for mask in masks.values()) == 160
    least = min(np.abs(before[name])[masks[name]].min() for name in SIZES)
    most = max(np.abs(before[name])[~masks[name]].max() for name in SIZES)
    assert least >= most
    for name, mask in masks.items():
        np.testing.assert_array_equal(after[name], np.where(mask, before[name], 0))


# Magnitude pruning.


@pytest.mark.slow
@pytest.mark.parametrize(("scope", "kept"), [("global", None), ("layer", [120, 40])])
def test_magnitude_keeps_the_largest(key, scope, kept):
    weights = tree()
    method = Magnitude(0.1, scope=scope)
    frozen, params = method.init(key, weights)
    trained = method.effective_weights(frozen, params, key=key)
    jax.tree.map(np.testing.assert_array_equal, trained, weights)
    pruned = leaves(compiled(method, "effective_weights")(frozen, params))
    sizes = np.concatenate([np.abs(w).ravel() for w in leaves(weights).values()])
    limit = np.sort(sizes)[-160]
    for name, weight in leaves(weights).items():
        if scope == "layer":
            limit = np.sort(np.abs(weight).ravel())[-SIZES[name] // 10]
        np.testing.assert_array_equal(
            pruned[name], np.where(np.abs(weight) >= limit, weight, 0)
        )
    counted = [
        float(each) for each in compiled(method, "keep_counts")(frozen, params).values()
    ]
    assert sum(counted) == 160 and (kept is None or counted == kept)


@pytest.mark.slow
def test_what_is_pruned_stays_so_while_the_rest_is_tuned(key):
    method = Magnitude(0.1)
    frozen, params = method.init(key, tree())
    pruned = method.prune(frozen, params)
    masks = compiled(method, "masks")(frozen, params)
    jax.tree.map(np.testing.assert_array_equal, pruned["masks"], masks)

    def loss(params):
        made = method.effective_weights(pruned, params, key=key)
        return sum(jnp.sum(jnp.square(leaf - 1)) for leaf in jax.tree.leaves(made))

    gradient = leaves(jax.jit(jax.grad(loss))(params)["weights"])
    for name, mask in masks.items():
        np.testing.assert_array_equal(gradient[name] != 0, mask)
    # Even if a kept weight becomes smaller than a pruned one.
    params["weights"] = jax.tree.map(lambda leaf: 0 * leaf, params["weights"])
    jax.tree.map(
        np.testing.assert_array_equal, compiled(method, "masks")(pruned, params), masks
    )


# Sampled masks to a budget.


@pytest.mark.slow
@pytest.mark.parametrize("keep_fraction", [0.02, 0.1, 0.5, 0.9])
@pytest.mark.parametrize("method", SAMPLED)
def test_logits_start_at_the_budget(key, method, keep_fraction):
    weights = {"kernel": jax.random.normal(key, (300, 400))}
    sigma = math.sqrt(keep_fraction * (1 - keep_fraction) / 120_000)
    for std in (0.0, 10.0):
        made = method(keep_fraction=keep_fraction, logit_std=std)
        frozen, params = made.init(key, weights)
        probability = float(made.keep_probabilities(frozen, params)["kernel"].mean())
        if std == 0:
            assert probability == pytest.approx(keep_fraction, rel=1e-5)
        else:
            kept = float(made.keep_counts(frozen, params)["kernel"]) / 120_000
            assert abs(kept - keep_fraction) < 5 * sigma
            assert abs(probability - keep_fraction) < 0.005
    if made.rescale == "smart":
        expected = math.sqrt(0.5 / keep_fraction)
        assert float(params["scale"]["kernel"]) == pytest.approx(expected)


def test_small_layers_start_denser_than_large_ones():
    chosen = {
        "first": np.zeros((3, 3, 1, 64)),
        "wide": np.zeros((512, 256)),
        "deep": np.zeros((3, 3, 128, 128)),
        "last": np.zeros((256, 10)),
    }
    sizes = {name: leaf.size for name, leaf in chosen.items()}
    found = _keep_budget.erdos_renyi(chosen, 0.02, "global", maximum=0.5)
    kept = sum(found[name] * size for name, size in sizes.items())
    assert kept == pytest.approx(0.02 * sum(sizes.values()))
    # In proportion to the axes over the entries, up to the most.
    assert found["first"] == 0.5
    for name, axes in (("wide", 512 + 256), ("deep", 3 + 3 + 128 + 128)):
        ratio = found[name] * sizes[name] / axes
        assert ratio == pytest.approx(found["last"] * sizes["last"] / (256 + 10))
    assert found["deep"] < 0.02 < found["wide"] < found["last"] < 0.5
    for keep_fraction, scope in ((0.6, "global"), (0.02, "layer")):
        found = _keep_budget.erdos_renyi(chosen, keep_fraction, scope, maximum=0.5)
        assert found == pytest.approx(dict.fromkeys(chosen, keep_fraction))


@pytest.mark.parametrize("method", SAMPLED)
def test_logits_start_spread_out_where_a_number_of_weights_is_asked_for(method):
    assert method().initial_std == 0
    assert method(keep_fraction=0.1).initial_std == 10
    assert method(keep_fraction=0.1, logit_std=0.0).initial_std == 0
    assert method(logit_std=2.0).initial_std == 2


@pytest.mark.parametrize("method", SAMPLED)
def test_a_budget_is_allocated_to_the_layers_from_the_start(key, method):
    made = method(keep_fraction=0.05, scale_init=1.5, logit_std=0.0)
    frozen, params = made.init(key, tree())
    expected = _keep_budget.erdos_renyi(leaves(tree()), 0.05, "global", maximum=0.5)
    for name, probabilities in made.keep_probabilities(frozen, params).items():
        np.testing.assert_allclose(probabilities, expected[name], rtol=1e-5)
    for name, scale in params.get("scale", {}).items():
        assert float(scale) == pytest.approx(1.5 * math.sqrt(0.5 / expected[name]))
    alike = method(keep_fraction=0.05, scope="layer", logit_std=0.0)
    for probabilities in alike.keep_probabilities(*alike.init(key, tree())).values():
        np.testing.assert_allclose(probabilities, 0.05, rtol=1e-5)


@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("method", [ASLP, Supermask])
def test_sampled_and_kept_numbers_are_both_held_to_the_budget(key, method, scope):
    rng = np.random.default_rng(1)
    made = method(keep_fraction=0.2, scope=scope, budget_weight=2.0)
    frozen, params = made.init(key, tree())
    params["logits"] = {
        name: np.float32(rng.normal(0, 2, leaf.shape))
        for name, leaf in params["logits"].items()
    }
    names = [list(SIZES)] if scope == "global" else [[name] for name in SIZES]
    expected, pull = 0.0, {}
    for group in names:
        size = sum(SIZES[name] for name in group)
        logits = {
            name: np.asarray(params["logits"][name], np.float64) for name in group
        }
        soft = sum((1 / (1 + np.exp(-x))).sum() for x in logits.values())
        hard = sum((x > 0).sum() for x in logits.values())
        errors = [(count - 0.2 * size) / (0.2 * size) for count in (soft, hard)]
        expected += 2 * sum(error**2 for error in errors)
        for name, x in logits.items():
            p = 1 / (1 + np.exp(-x))
            pull[name] = 2 * 2 * sum(errors) / (0.2 * size) * p * (1 - p)
    run = jax.jit(jax.value_and_grad(lambda params: made.penalty(frozen, params)))
    value, gradient = run(params)
    assert float(value) == pytest.approx(expected, rel=1e-4)
    for name, slopes in gradient["logits"].items():
        np.testing.assert_allclose(slopes, pull[name], rtol=1e-3, atol=1e-9)


def test_a_miss_is_measured_by_the_smaller_part(key):
    weights = {"kernel": jnp.ones((100, 100))}
    for keep_fraction, part in ((0.1, 0.1), (0.9, 0.1), (0.001, 0.01), (1.0, 0.01)):
        made = ASLP(keep_fraction=keep_fraction, budget_weight=1.0)
        frozen, params = made.init(key, weights)
        params["logits"]["kernel"] = jnp.full((100, 100), -30.0)
        expected = 2 * (keep_fraction / part) ** 2
        assert float(made.penalty(frozen, params)) == pytest.approx(expected, rel=1e-4)


# All of them.


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.5, float("nan")])
@pytest.mark.parametrize("method", METHODS)
def test_a_fraction_out_of_range_is_refused(method, fraction):
    text = rf"^{method.__name__}: keep_fraction must be in \(0, 1\], got {fraction}$"
    with pytest.raises(ValueError, match=text):
        method(keep_fraction=fraction)


@pytest.mark.parametrize("method", [Budget, Magnitude])
def test_methods_that_cannot_do_without_a_number_refuse_none(method):
    with pytest.raises(
        ValueError, match=r"keep_fraction must be in \(0, 1\], got None"
    ):
        method(keep_fraction=None)


@pytest.mark.parametrize("method", METHODS)
def test_an_unknown_scope_is_refused(method):
    name = "sharpness_scope" if method is Budget else "scope"
    text = f"^{method.__name__}: {name} must be 'global' or 'layer', got 'all'$"
    with pytest.raises(ValueError, match=text):
        method(keep_fraction=0.5, **{name: "all"})


@pytest.mark.parametrize("weight", [0.0, -1.0, float("inf"), float("nan")])
@pytest.mark.parametrize("method", [*SAMPLED, Budget])
def test_a_weight_of_the_budget_loss_out_of_range_is_refused(method, weight):
    text = (
        f"^{method.__name__}: budget_weight must be positive and finite, got {weight}"
    )
    with pytest.raises(ValueError, match=text):
        method(keep_fraction=0.5, budget_weight=weight)


@pytest.mark.parametrize("method", [*SAMPLED, Budget, Magnitude])
def test_a_budget_below_one_weight_a_layer_is_refused(key, method):
    weights = tree()
    method(keep_fraction=2 / 1600).init(key, weights)
    with pytest.raises(
        ValueError, match=r"of 1,600 weights in a/kernel, b/kernel leaves"
    ):
        method(keep_fraction=1.9 / 1600).init(key, weights)
    if method is Budget:
        return
    method(keep_fraction=1 / 400, scope="layer").init(key, weights)
    with pytest.raises(
        ValueError, match=r"of 400 weights in b/kernel leaves less than"
    ):
        method(keep_fraction=0.9 / 400, scope="layer").init(key, weights)


@pytest.mark.slow
@pytest.mark.parametrize("scope", ["global", "layer"])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_an_exact_number_is_within_the_budget_even_where_all_tie(scope, dtype):
    order = []

    @jax.jit
    def mark(b, a):
        marked = _keep_budget.top_k_masks({"b": b, "a": a}, 0.3, scope)
        order.extend(marked)  # here, as a compiled program sorts its results
        return marked

    marked = mark(np.ones((4, 5), dtype), np.ones(30, dtype))
    assert order == ["b", "a"] and marked["b"].shape == (4, 5)
    counted = [int(np.sum(marked[name])) for name in order]
    assert counted == ([6, 9] if scope == "layer" else [0, 15])
