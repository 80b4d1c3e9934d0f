"""Keys, options and frozen zeros: taken with one meaning, or refused in one line."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import aslp_jax.nnx
from aslp_jax import (
    ASLP,
    Budget,
    EdgePopup,
    Magnitude,
    Masked,
    Signed,
    Supermask,
    functional,
    optim,
    stgs,
    train,
)
from aslp_jax.masked import ZeroWeightsWarning
from aslp_jax.methods import split_by_name
from aslp_jax.models.initialisers import kaiming_normal
from aslp_jax.ops import threefry
from aslp_jax.sampling import (
    bernoulli_st,
    gumbel_noise,
    logistic_noise,
    naive_gumbel_softmax,
    signed_stgs,
)
from tests.helpers import quick_only

METHODS = [ASLP(), Supermask(), Signed(), EdgePopup(), Budget(0.5), Magnitude(0.5)]
ZEROS, X = jnp.zeros((2, 3)), jnp.ones((2, 4))
MODEL = functional.Model(nn.Dense(3), ASLP())
OPTIMISER = optim.sgd_by_group({"logits": 1.0, "scale": 1e-3})


@functools.cache
def start():
    return train.create(MODEL, OPTIMISER, jax.random.key(0), X)


def step(key):
    state, labels = start(), jnp.zeros(2, jnp.int32)
    return train.step(state, X, labels, key, model=MODEL, optimiser=OPTIMISER)


def effective(method, key):
    frozen, params = method.init(jax.random.key(0), {"kernel": ZEROS + 1})
    return method.effective_weights(frozen, params, key=key)


TAKES_A_KEY = {
    "stgs": lambda key: stgs(key, ZEROS),
    "bernoulli_st": lambda key: bernoulli_st(key, ZEROS),
    "signed_stgs": lambda key: signed_stgs(key, ZEROS, ZEROS),
    "naive_gumbel_softmax": lambda key: naive_gumbel_softmax(key, ZEROS),
    "logistic_noise": lambda key: logistic_noise(key, (2, 3)),
    "gumbel_noise": lambda key: gumbel_noise(key, (2, 3)),
    "bits": lambda key: threefry.bits(key, (2, 3)),
    "split_by_name": lambda key: split_by_name(key, {"a": 0}),
    "stream": lambda key: train.stream(key, "mask"),
    "Model.init": lambda key: MODEL.init(key, X),
    "functional.init": lambda key: functional.init(Masked(nn.Dense(3)), key, X),
    "train.create": lambda key: train.create(MODEL, OPTIMISER, key, X),
    "train.step": step,
    "aslp_jax.nnx.Masked": lambda key: aslp_jax.nnx.Masked(
        nnx.Linear(4, 3, rngs=nnx.Rngs(0)), rngs=key
    ),
}
for method in METHODS:
    kind = type(method).__name__
    TAKES_A_KEY[f"init: {kind}"] = functools.partial(
        lambda method, key: method.init(key, {"kernel": ZEROS + 1}), method
    )
    TAKES_A_KEY[f"effective_weights: {kind}"] = functools.partial(effective, method)


@pytest.mark.parametrize("name", TAKES_A_KEY)
@pytest.mark.parametrize("raw", [False, True])
def test_several_keys_are_refused_by_name(name, raw):
    keys = jax.random.split(jax.random.key(0), 2)  # a forgotten `key, other =`
    keys = jax.random.key_data(keys) if raw else keys
    function = name.split(":")[0]
    text = (
        rf"^{function}: key must be one PRNG key, got an array of keys of shape \(2,\)"
    )
    with pytest.raises(ValueError, match=text):
        TAKES_A_KEY[name](keys)


@pytest.mark.parametrize("name", TAKES_A_KEY)
@pytest.mark.parametrize("bad", [7, np.zeros(3, np.uint32), np.zeros(2, np.float32)])
def test_what_is_no_key_is_refused_by_name(name, bad):
    if "nnx" in name and not isinstance(bad, jax.Array):
        bad = jnp.asarray(bad)
        if not bad.ndim:
            return
    with pytest.raises(TypeError, match=rf"^{name.split(':')[0]}: key must be a PRNG"):
        TAKES_A_KEY[name](bad)


@pytest.mark.parametrize(
    "name",
    quick_only(
        [name for name in TAKES_A_KEY if "nnx" not in name],
        "stgs",
        "bits",
        "init: ASLP",
        "effective_weights: ASLP",
    ),
)
def test_raw_keys_mean_what_typed_keys_mean(name):
    key = jax.random.key(3)
    run = jax.jit(TAKES_A_KEY[name]) if name == "train.step" else TAKES_A_KEY[name]
    expected = run(key)
    found = run(np.asarray(jax.random.key_data(key)))

    def plain(leaf):
        typed = jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
        return jax.random.key_data(leaf) if typed else leaf

    jax.tree.map(
        np.testing.assert_array_equal,
        jax.tree.map(plain, found),
        jax.tree.map(plain, expected),
    )


def test_a_variable_of_nnx_and_the_setting_of_raw_keys_are_respected():
    rngs = nnx.Rngs(0)
    mask = stgs(rngs.default.key, ZEROS)
    np.testing.assert_array_equal(mask, stgs(rngs.default.key.get_value(), ZEROS))
    raw = np.zeros(2, np.uint32)
    with jax.legacy_prng_key("error"), pytest.raises(ValueError, match="Legacy uint32"):
        stgs(raw, ZEROS)


def test_a_step_uses_no_key_twice():
    with jax.debug_key_reuse(True):
        jax.jit(step)(jax.random.key(1))


def test_a_shape_may_be_one_number():
    assert stgs(jax.random.key(0), 0.0, 5).shape == (5,)
    assert logistic_noise(jax.random.key(0), np.int64(5)).shape == (5,)
    with pytest.raises(TypeError, match=r"^stgs: shape must be integers, got 1\.5"):
        stgs(jax.random.key(0), 0.0, 1.5)


OPTIONS = [
    (ASLP, {"scale_init": 1.0}),
    (ASLP, {"logit_std": 1.0}),
    (Supermask, {"keep_fraction": 0.5}),
    (Signed, {"keep_fraction": 0.5}),
    (EdgePopup, {"keep_fraction": 0.5}),
    (Budget, {"keep_fraction": 0.5}),
    (Magnitude, {"keep_fraction": 0.5}),
    (functools.partial(Budget, 0.5), {"sharpness_init": 10.0}),
    (functools.partial(Budget, 0.5), {"budget_weight": 10.0}),
]


@pytest.mark.parametrize(("make", "option"), OPTIONS)
def test_an_option_is_a_number_that_can_be_hashed(make, option):
    ((name, value),) = option.items()
    for number in (np.float32(value), jnp.float32(value), np.asarray(value)):
        method = make(**{name: number})
        assert hash(method) == hash(make(**option)) and method == make(**option)
    with pytest.raises(TypeError, match=f": {name} must be a number, got '0.5'"):
        make(**{name: "0.5"})

    def traced(number):
        return make(**{name: number})

    with pytest.raises(TypeError, match=f": {name} must be a Python number, got a tr"):
        jax.eval_shape(traced, jnp.float32(value))


@pytest.mark.parametrize("method", quick_only([ASLP, Signed], ASLP))
def test_a_traced_temperature_changes_the_gradient_in_one_program(method):
    weights = {"kernel": jnp.ones((2, 3))}
    frozen, params = method().init(jax.random.key(0), weights)

    def loss(params, temperature):
        made = method(temperature=temperature)
        kernel = made.effective_weights(frozen, params, key=jax.random.key(1))["kernel"]
        return kernel.sum()

    slopes = jax.jit(jax.grad(loss))
    for temperature in (0.5, 2.0):
        jax.tree.map(
            functools.partial(np.testing.assert_allclose, rtol=1e-6),
            slopes(params, temperature),
            jax.grad(loss)(params, temperature),
        )
    assert slopes._cache_size() == 1


@pytest.mark.parametrize("value", [1e-38, 1e39])
def test_bounds_are_those_of_float32(value):
    for make in (ASLP, Signed):
        with pytest.raises(
            ValueError, match=r": temperature must be .*; float32 holds"
        ):
            make(temperature=value)
    with pytest.raises(ValueError, match=r"^stgs: temperature must be .*float32 holds"):
        stgs(jax.random.key(0), ZEROS, temperature=value)
    with pytest.raises(ValueError, match=r"ASLP: scale_init must be .*; float32 holds"):
        ASLP(scale_init=value)


@pytest.mark.parametrize("option", ["scale_init", "logit_std"])
def test_params_start_at_numbers_that_their_dtype_holds(option):
    weights = {"kernel": jnp.ones((2, 3), jnp.float16)}
    with pytest.raises(ValueError, match=f"^init: {option} gives 1e.05 for 'kernel'"):
        ASLP(**{option: 1e5}).init(jax.random.key(0), weights)


# Frozen zeros.


class Zeros(nn.Module):
    """A head, or the last scale of a residual branch, that starts at zero."""

    head: bool

    @nn.compact
    def __call__(self, x):
        head = nn.initializers.zeros if self.head else nn.initializers.ones
        scale = nn.initializers.ones if self.head else nn.initializers.zeros
        x = x + nn.LayerNorm(scale_init=scale, name="norm")(nn.Dense(4, name="body")(x))
        return nn.Dense(3, kernel_init=head, name="head")(x)


FRONTS = {
    "Masked": lambda net: Masked(net).init(jax.random.key(0), X),
    "Model": lambda net: functional.Model(net).init(jax.random.key(0), X),
    "train.create": lambda net: train.create(
        Masked(net), OPTIMISER, jax.random.key(0), X
    ),
}


@pytest.mark.parametrize("front", quick_only(FRONTS, "Masked"))
@pytest.mark.parametrize(
    ("head", "name"), [(True, "head/kernel"), (False, "norm/scale")]
)
def test_frozen_zeros_are_named_at_init(front, head, name):
    with pytest.warns(ZeroWeightsWarning, match=rf"^{front}: frozen .*: {name}; init"):
        FRONTS[front](Zeros(head))


def test_frozen_zeros_are_named_by_nnx_and_by_a_method_that_trains():
    net = nnx.Linear(4, 3, kernel_init=nnx.initializers.zeros, rngs=nnx.Rngs(0))
    with pytest.warns(ZeroWeightsWarning, match="^aslp_jax.nnx.Masked: .*: kernel;"):
        aslp_jax.nnx.Masked(net, rngs=nnx.Rngs(0))
    with pytest.warns(ZeroWeightsWarning, match="/head/kernel;"):
        Masked(Zeros(True), Budget(0.5)).init(jax.random.key(0), X)


@pytest.mark.filterwarnings("error")
def test_zeros_that_block_nothing_are_no_warning():
    key = jax.random.key(0)
    Masked(Zeros(True), weight_init=kaiming_normal()).init(key, X)
    Masked(Zeros(True), Magnitude(0.5)).init(key, X)  # trains them
    Masked(nn.Dense(3), select=lambda name: True).init(key, X)  # a bias
    jax.jit(Masked(Zeros(True)).init)(key, X)  # cannot be seen
