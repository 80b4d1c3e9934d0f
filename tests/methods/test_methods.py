"""Names of leaves, and the methods with logits as pure rules on any pytree."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import aslp_jax
from aslp_jax import ASLP, Budget, EdgePopup, Magnitude, Signed, Supermask, methods
from aslp_jax._tree import kernels, map_named, named_leaves, split_by_name
from aslp_jax.methods import METHODS, Method
from aslp_jax.sampling import logistic_noise
from tests.helpers import compiled, quick_only


class Layer(NamedTuple):
    kernel: jax.Array
    bias: jax.Array


def tree():
    """A pytree that Flax never made: a list of named tuples beside a dict."""
    rng = np.random.default_rng(0)

    def normal(*shape):
        return jnp.asarray(rng.normal(size=shape), jnp.float32)

    return {
        "body": [
            Layer(normal(3, 4), jnp.ones(4)),
            Layer(normal(3, 4), jnp.ones(4)),
        ],
        "head": (normal(4, 2),),
    }


NAMES = ["body/0/kernel", "body/1/kernel"]


def test_kernels_are_chosen_by_the_last_entry_of_their_path():
    assert kernels("kernel")
    assert kernels("Conv_0/kernel")
    assert not kernels("Conv_0/bias")
    assert not kernels("kernel/scale")
    assert not kernels("my_kernel")


def test_named_leaves_of_any_pytree():
    weights = tree()
    named = named_leaves(weights, kernels)
    assert list(named) == NAMES
    assert named["body/1/kernel"] is weights["body"][1].kernel
    assert list(named_leaves(weights, lambda name: name == "head/0")) == ["head/0"]


def test_all_leaves_have_names_and_need_no_dtype(key):
    weights = tree() | {"count": 3}
    named = named_leaves(weights)
    assert list(named) == [
        *("body/0/kernel", "body/0/bias", "body/1/kernel", "body/1/bias"),
        *("count", "head/0"),
    ]
    assert named["count"] == 3 and named["head/0"] is weights["head"][0]


def test_nothing_selected_is_refused_with_the_names_there_are(key):
    with pytest.raises(ValueError, match=r"none of the weights.*'head/0'"):
        named_leaves(tree(), lambda name: False)


def test_an_integer_leaf_cannot_be_masked():
    with pytest.raises(ValueError, match="cannot mask 'kernel' of dtype int32"):
        named_leaves({"kernel": jnp.zeros(3, jnp.int32)}, kernels)
    with pytest.raises(ValueError, match="cannot mask 'kernel' of dtype float;"):
        named_leaves({"kernel": 1.0}, kernels)


def test_map_named_touches_the_named_leaves_alone(key):
    weights = tree()
    changed = map_named(weights, {"body/0/kernel": None}, lambda name, leaf: 2 * leaf)
    assert jax.tree.structure(changed) == jax.tree.structure(weights)
    np.testing.assert_array_equal(
        changed["body"][0].kernel, 2 * weights["body"][0].kernel
    )
    assert changed["body"][1].kernel is weights["body"][1].kernel
    assert changed["head"][0] is weights["head"][0]


def test_a_name_that_the_tree_lacks_is_refused(key):
    with pytest.raises(KeyError, match=r"no weight at 'Conv_9/kernel'; the tree holds"):
        map_named(tree(), {"Conv_9/kernel": None}, lambda name, leaf: leaf)


def test_each_name_gets_a_key_of_its_own_whatever_the_order(key):
    keys = split_by_name(key, {"b": 0, "a": 0, "c": 0})
    again = split_by_name(key, {"c": 0, "b": 0, "a": 0})
    data = {
        name: tuple(jax.random.key_data(each).tolist()) for name, each in keys.items()
    }
    assert len(set(data.values())) == 3
    assert data == {
        name: tuple(jax.random.key_data(each).tolist()) for name, each in again.items()
    }


def test_every_method_of_the_package_is_listed_by_its_class_name():
    public = {
        name: value
        for name, value in vars(methods).items()
        if isinstance(value, type) and Method in value.__mro__[1:]
    }
    assert {name.replace("_", "") for name in METHODS} == set(map(str.lower, public))
    for name, method in METHODS.items():
        assert public[method.__name__] is getattr(aslp_jax, method.__name__)
        assert name.replace("_", "") == method.__name__.lower()
    assert set(METHODS.values()) == {type(method) for method in EVERY}


def test_aslp_starts_at_probability_one_half_and_scale_one(key):
    weights = tree()
    frozen, params = ASLP().init(key, weights)
    assert frozen is weights
    assert sorted(params) == ["logits", "scale"]
    assert list(params["logits"]) == list(params["scale"]) == NAMES
    for name in NAMES:
        assert params["logits"][name].shape == (3, 4)
        assert not params["logits"][name].any()
        assert params["scale"][name].shape == () and params["scale"][name] == 1
    probabilities = ASLP().keep_probabilities(weights, params)
    assert all((leaf == 0.5).all() for leaf in probabilities.values())


def test_without_smart_rescale_there_is_no_scale(key):
    _, params = ASLP(rescale="none").init(key, tree())
    assert sorted(params) == ["logits"]


@pytest.mark.parametrize("method", [ASLP, Supermask])
def test_an_unknown_rescale_is_refused(method):
    text = f"^{method.__name__}: .* one of none, smart, dynamic, got 'fan'$"
    with pytest.raises(ValueError, match=text):
        method(rescale="fan")


@pytest.mark.parametrize("method", [ASLP, Supermask])
@pytest.mark.parametrize("start", [0.0, -1.0, float("nan"), float("inf")])
def test_a_start_of_the_scale_out_of_range_is_refused(method, start):
    text = f"^{method.__name__}: scale_init must be positive and finite, got {start}$"
    with pytest.raises(ValueError, match=text):
        method(scale_init=start)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan"), float("inf")])
def test_a_temperature_out_of_range_is_refused(temperature):
    with pytest.raises(ValueError, match="ASLP: temperature must be positive"):
        ASLP(temperature=temperature)


def with_logits(key, method, value=None):
    weights, rng = tree(), np.random.default_rng(1)
    _, params = method.init(key, weights)
    params["logits"] = {
        name: jnp.asarray(
            rng.normal(size=(3, 4)) if value is None else np.full((3, 4), value),
            jnp.float32,
        )
        for name in params["logits"]
    }
    return weights, params


def test_the_deterministic_network_keeps_what_is_more_likely_kept(key):
    weights, params = with_logits(key, ASLP())
    params["scale"]["body/1/kernel"] = jnp.asarray(3.0)
    made = ASLP().effective_weights(weights, params)
    logits = params["logits"]
    for index, (name, scale) in enumerate(zip(NAMES, (1.0, 3.0), strict=True)):
        kernel = np.asarray(weights["body"][index].kernel)
        expected = scale * np.where(np.asarray(logits[name]) > 0, kernel, 0)
        np.testing.assert_array_equal(made["body"][index].kernel, expected)
        assert made["body"][index].bias is weights["body"][index].bias
    assert made["head"][0] is weights["head"][0]


@pytest.mark.parametrize(("keep_ties", "kept"), [(False, 0), (True, 12)])
def test_ties_at_one_half(key, keep_ties, kept):
    method = ASLP(keep_ties=keep_ties)
    weights, params = with_logits(key, method, value=0.0)
    masks = method.masks(weights, params)
    assert [int(mask.sum()) for mask in masks.values()] == [kept, kept]
    assert all(mask.dtype == bool for mask in masks.values())


def test_sampled_networks_follow_the_key_and_equal_shapes_differ(key):
    ones = np.ones((40, 50), np.float32)
    weights = {"a": {"kernel": ones}, "b": {"kernel": ones}}
    method = ASLP()
    _, params = method.init(key, weights)
    run = compiled(method, "effective_weights")
    first, again, other = (
        jax.device_get(run(weights, params, key=each))
        for each in (key, key, jax.random.fold_in(key, 1))
    )
    a, b = first["a"]["kernel"], first["b"]["kernel"]
    np.testing.assert_array_equal(a, again["a"]["kernel"])
    # Independent masks at probability one half agree in half of 2,000 places, sigma 22.
    for one, two in ((a, b), (a, other["a"]["kernel"])):
        assert abs(int((one == two).sum()) - 1000) < 5 * 22.4


def test_gradients_reach_logits_and_scales_as_the_formula_says(key):
    method = ASLP(temperature=0.7)
    weights, params = with_logits(key, method)

    def loss(params):
        made = method.effective_weights(weights, params, key=key)
        return sum(jnp.sum(jnp.sin(layer.kernel)) for layer in made["body"])

    gradient = jax.jit(jax.grad(loss))(params)
    made = compiled(method, "effective_weights")(weights, params, key=key)
    logits = params["logits"]
    drawn = jax.device_get(jax.jit(noises)(key, logits))
    for index, name in enumerate(NAMES):
        kernel, effective = (
            np.asarray(each["body"][index].kernel) for each in (weights, made)
        )
        mask = effective / kernel
        outer = np.cos(effective)
        np.testing.assert_allclose(
            gradient["scale"][name], np.sum(outer * mask * kernel), rtol=1e-5
        )
        noised = (np.asarray(logits[name]) + drawn[name]) / 0.7
        slope = scipy.special.expit(noised) * scipy.special.expit(-noised) / 0.7
        np.testing.assert_allclose(
            gradient["logits"][name], outer * kernel * slope, rtol=1e-5
        )


@pytest.mark.parametrize("scale_init", [0.25, 2.5])
@pytest.mark.parametrize("method", [ASLP, Supermask])
def test_scales_start_where_they_are_told(key, method, scale_init):
    method = method(rescale="smart", scale_init=scale_init)
    weights = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), tree())
    _, params = method.init(key, weights)
    assert list(params["scale"]) == NAMES
    for scale in params["scale"].values():
        assert scale.shape == () and scale.dtype == jnp.bfloat16
        assert scale == scale_init
    made = method.effective_weights(weights, params, key=key)
    for before, after in zip(weights["body"], made["body"], strict=True):
        kept = after.kernel != 0
        assert kept.any() and not kept.all()
        np.testing.assert_array_equal(
            after.kernel, jnp.where(kept, scale_init * before.kernel, 0)
        )


def test_a_supermask_starts_at_one_half_and_is_rescaled_dynamically(key):
    assert Supermask() == Supermask(rescale="dynamic")
    weights = tree()
    frozen, params = Supermask().init(key, weights)
    assert frozen is weights
    assert sorted(params) == ["logits"]
    assert all(not leaf.any() for leaf in params["logits"].values())


# Masks that are sampled, by hand: the sample and the smooth stand-in of its gradient.

SAMPLED = {
    ASLP: lambda logits, noise: jax.nn.sigmoid(logits + noise),
    Supermask: lambda logits, noise: jax.nn.sigmoid(logits),
}


def noises(key, logits):
    keys = split_by_name(key, logits)
    return {
        name: logistic_noise(keys[name], leaf.shape) for name, leaf in logits.items()
    }


def mask_by_hand(method, logits, noise):
    soft = SAMPLED[method](logits, noise)
    hard = jnp.where(logits + noise > 0, 1.0, 0.0)
    return hard + (soft - jax.lax.stop_gradient(soft))


def rescaled(method, mask):
    return 12 / jnp.sum(mask) if method.rescale == "dynamic" else 1


@functools.partial(jax.jit, static_argnums=0)
def by_method_and_by_hand(method, key, weights, logits):
    """Weights and gradients, against scale(mask) * mask * weight of each array."""

    def by_method(logits):
        return method.effective_weights(weights, {"logits": logits}, key=key)["body"]

    def by_hand(logits):
        masks = {
            name: mask_by_hand(type(method), logits[name], noise)
            for name, noise in noises(key, logits).items()
        }
        return [
            Layer(rescaled(method, masks[name]) * masks[name] * kernel, bias)
            for name, (kernel, bias) in zip(NAMES, weights["body"], strict=True)
        ]

    def loss(layers):
        return sum(jnp.sum(jnp.sin(layer.kernel)) for layer in layers)

    return [
        (run(logits), jax.grad(lambda logits, run=run: loss(run(logits)))(logits))
        for run in (by_method, by_hand)
    ]


def check_by_hand(key, method, weights, logits):
    found, expected = by_method_and_by_hand(method, key, weights, logits)
    assert all(np.any(leaf) for leaf in expected[1].values())
    close = functools.partial(np.testing.assert_allclose, rtol=2e-5, atol=1e-6)
    jax.tree.map(close, found, expected)


@pytest.mark.parametrize("method", quick_only(SAMPLED, ASLP))
def test_the_straight_through_gradient_without_a_scale(key, method):
    weights, params = with_logits(key, method(rescale="none"))
    check_by_hand(key, method(rescale="none"), weights, params["logits"])


@pytest.mark.parametrize("method", quick_only(SAMPLED, ASLP))
def test_dynamic_rescale_is_size_over_number_kept_with_its_gradient(key, method):
    method = method(rescale="dynamic")
    weights, params = with_logits(key, method)
    assert sorted(params) == ["logits"]
    kept = {
        int((leaf != 0).sum())
        for leaf in named_leaves(
            method.effective_weights(weights, params, key=key)["body"], kernels
        ).values()
    }
    assert len(kept) == 2, "the arrays must differ, or one scale for all would pass"
    check_by_hand(key, method, weights, params["logits"])


@pytest.mark.slow
@pytest.mark.parametrize("count", [1, 2, 12])
@pytest.mark.parametrize("method", SAMPLED)
def test_dynamic_rescale_of_any_number_kept(key, method, count):
    weights, params = with_logits(key, method(rescale="dynamic"))
    # Logits that lie by one half above or below what the noise asks for.
    aim = jnp.where(jnp.arange(12).reshape(3, 4) < count, 0.5, -0.5)
    logits = {
        name: aim - noise for name, noise in noises(key, params["logits"]).items()
    }
    check_by_hand(key, method(rescale="dynamic"), weights, logits)


@pytest.mark.parametrize("drawn", [True, False])
@pytest.mark.parametrize("method", quick_only(SAMPLED, ASLP))
def test_an_empty_mask_is_rescaled_to_zeros_and_not_nan(key, method, drawn):
    method = method(rescale="dynamic")
    weights, params = with_logits(key, method)
    aim = jax.tree.map(lambda noise: -0.5 - noise, noises(key, params["logits"]))
    logits = aim if drawn else jax.tree.map(lambda leaf: -jnp.ones((3, 4)), aim)

    def total(logits):
        layers = method.effective_weights(
            weights, {"logits": logits}, key=key if drawn else None
        )["body"]
        return sum(jnp.sum(layer.kernel) for layer in layers), layers

    run = jax.jit(jax.value_and_grad(total, has_aux=True))
    (_, layers), slopes = jax.device_get(run(logits))
    for layer in layers:
        np.testing.assert_array_equal(layer.kernel, np.zeros((3, 4)))
    for slope in slopes.values():
        assert np.isfinite(slope).all()
        assert bool(slope.all()) == drawn  # what was drawn can come back


def test_dynamic_rescale_of_the_deterministic_network(key):
    method = Supermask()
    weights, params = with_logits(key, method)
    made = method.effective_weights(weights, params)
    for index, name in enumerate(NAMES):
        mask = np.asarray(params["logits"][name]) > 0
        expected = np.where(mask, weights["body"][index].kernel, 0) * 12 / mask.sum()
        np.testing.assert_allclose(made["body"][index].kernel, expected, rtol=1e-6)


def test_dynamic_rescale_counts_beyond_what_bfloat16_can(key):
    weights = {"kernel": jnp.ones((100, 100), jnp.bfloat16)}
    _, params = Supermask().init(key, weights)
    run = compiled(Supermask(), "effective_weights")
    kernel = np.asarray(run(weights, params, key=key)["kernel"], np.float32)
    kept = kernel[kernel != 0]
    assert abs(kept.size - 5000) < 5 * 50
    np.testing.assert_allclose(kept, 10_000 / kept.size, rtol=2**-8)


# What holds of every method.

EVERY = [
    ASLP(),
    ASLP(rescale="dynamic"),
    ASLP(logit_std=1.0, keep_fraction=0.25),
    Supermask(),
    Supermask(rescale="smart"),
    EdgePopup(),
    EdgePopup(scope="global", rescale="fan"),
    Signed(),
    Signed(logit_std=1.0, keep_fraction=0.25, scope="layer"),
    Budget(0.25),
    Budget(0.25, sharpness_scope="layer"),
    Magnitude(0.25),
    Magnitude(0.25, scope="layer"),
]


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("method", EVERY)
def test_effective_weights_keep_structure_shapes_and_dtypes(key, method, dtype):
    weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, dtype), tree())
    frozen, params = jax.eval_shape(method.init, key, weights)
    for mask_key in (key, None):
        made = jax.eval_shape(method.effective_weights, frozen, params, key=mask_key)
        assert jax.tree.map(
            lambda leaf: (leaf.shape, leaf.dtype), made
        ) == jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), weights)


@pytest.mark.slow
@pytest.mark.parametrize("method", EVERY)
def test_a_key_makes_a_difference_where_the_method_says_so(key, method):
    frozen, params = method.init(key, tree())

    def kernels_of(mask_key):
        body = compiled(method, "effective_weights")(frozen, params, key=mask_key)[
            "body"
        ]
        return np.concatenate([np.asarray(layer.kernel).ravel() for layer in body])

    drawn, other, fixed = map(kernels_of, (key, jax.random.fold_in(key, 1), None))
    assert (drawn != other).any() == method.stochastic
    assert (drawn != fixed).any() == (method.stochastic or method.trains_dense)
    assert not (method.stochastic and method.trains_dense)


@pytest.mark.slow
@pytest.mark.parametrize("method", EVERY)
def test_what_is_kept_is_told_by_masks_probabilities_and_sizes(key, method):
    frozen, params = method.init(key, tree())
    orders = []

    @jax.jit
    def kept(frozen, params):
        found = (
            method.masks(frozen, params),
            method.keep_probabilities(frozen, params),
            method.keep_counts(frozen, params),
        )
        orders.extend(map(list, found))  # here, as a compiled program sorts its results
        return found

    masks, probabilities, sizes = kept(frozen, params)
    assert orders == 3 * [NAMES]
    body = compiled(method, "effective_weights")(frozen, params)["body"]
    for name, layer in zip(NAMES, body, strict=True):
        assert masks[name].dtype == bool
        assert masks[name].shape == probabilities[name].shape == layer.kernel.shape
        np.testing.assert_array_equal(layer.kernel != 0, masks[name])
        assert ((probabilities[name] >= 0) & (probabilities[name] <= 1)).all()
        assert sizes[name].dtype == jnp.float32
        counted = probabilities[name] if isinstance(method, Budget) else masks[name]
        np.testing.assert_allclose(sizes[name], counted.sum(), rtol=1e-6)


@pytest.mark.parametrize("method", EVERY)
def test_nothing_is_asked_of_a_method_without_a_budget_loss(key, method):
    frozen, params = method.init(key, tree())
    penalty = compiled(method, "penalty")(frozen, params)
    assert penalty.shape == () and penalty.dtype == jnp.float32
    without = getattr(method, "budget_weight", None) is None
    assert (penalty == 0) == (without or method.keep_fraction is None)


# Initial logits.


@pytest.mark.parametrize("method", [ASLP, Supermask])
def test_initial_logits_are_normal_and_differ_between_layers(key, method):
    weights = {
        "a": {"kernel": jnp.ones((300, 40))},
        "b": {"kernel": jnp.ones((300, 40))},
    }
    _, params = method(logit_std=3.0).init(key, weights)
    first, second = (np.asarray(leaf) for leaf in params["logits"].values())
    count = first.size
    for drawn in (first, second):
        assert abs(drawn.mean()) < 5 * 3 / np.sqrt(count)
        assert abs(drawn.std() / 3 - 1) < 5 / np.sqrt(2 * count)
    correlation = (first * second).mean() / 9
    assert abs(correlation) < 5 / np.sqrt(count)
    _, other = method(logit_std=3.0).init(jax.random.fold_in(key, 1), weights)
    assert (other["logits"]["a/kernel"] != first).any()
    # As many are kept as with logits of 0.
    kept = (first > 0).mean()
    assert abs(kept - 0.5) < 5 * 0.5 / np.sqrt(count)


@pytest.mark.parametrize("std", [-1.0, float("nan"), float("inf")])
def test_a_spread_of_logits_out_of_range_is_refused(std):
    with pytest.raises(ValueError, match="ASLP: logit_std must be finite and at least"):
        ASLP(logit_std=std)
