"""Masked runs networks of any kind unchanged, and keeps their weights apart."""

import functools
import zlib
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from flax.core.scope import in_filter, subtract_filters

from aslp_jax import ASLP, Masked
from aslp_jax._tree import kernels, named_leaves
from aslp_jax.masked import ZeroWeightsWarning
from aslp_jax.models import Conv4, ConvNet
from aslp_jax.models.initialisers import (
    fan_in_uniform,
    kaiming_constant,
    kaiming_normal,
    signed_constant,
)
from tests.helpers import quick_only


class ResidualBlock(nn.Module):
    @nn.compact
    def __call__(self, x, *, train):
        y = nn.Conv(x.shape[-1], (3, 3), use_bias=False)(x)
        y = nn.relu(nn.BatchNorm(use_running_average=not train)(y))
        y = nn.Conv(x.shape[-1], (3, 3), use_bias=False)(y)
        return nn.relu(x + nn.BatchNorm(use_running_average=not train)(y))


class ResidualNet(nn.Module):
    """Two residual blocks with batch-norm, dropout, a sown value and a method."""

    def setup(self):
        self.stem = nn.Conv(8, (3, 3))
        self.blocks = [ResidualBlock(), ResidualBlock()]
        self.dropout = nn.Dropout(0.5)
        self.head = nn.Dense(3)

    def __call__(self, x, *, train=False):
        features = self.features(x, train=train)
        self.sow("intermediates", "features", features)
        return self.head(self.dropout(features, deterministic=not train))

    def features(self, x, *, train=False):
        x = self.stem(x)
        for block in self.blocks:
            x = block(x, train=train)
        return x.mean((1, 2))


class Transformer(nn.Module):
    @nn.compact
    def __call__(self, tokens):
        x = nn.Embed(11, 16)(tokens)
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=4)(y, y)
        y = nn.LayerNorm()(x)
        x = x + nn.Dense(16)(nn.gelu(nn.Dense(32)(y)))
        return nn.Dense(11)(x)


IMAGES = jnp.linspace(0, 1, 2 * 8 * 8 * 3, dtype=jnp.float32).reshape(2, 8, 8, 3)
TOKENS = jnp.arange(12, dtype=jnp.int32).reshape(2, 6) % 11

NETS = {
    "conv": (ConvNet(5, (4,), (8,), bias_init=fan_in_uniform), IMAGES, 4),
    "residual": (ResidualNet(), IMAGES, 6),
    "transformer": (Transformer(), TOKENS, 7),
}


@pytest.fixture(scope="module", params=quick_only(NETS, "conv"))
def case(request, key):
    net, inputs, layers = NETS[request.param]
    model = Masked(net, ASLP())
    variables = jax.jit(model.init)(key, inputs)
    # Logits off zero: at zero nothing is kept, and every output would be alike.
    logits, rng = variables["params"]["logits"], np.random.default_rng(0)
    variables["params"]["logits"] = {
        name: np.float32(rng.normal(size=leaf.shape)) for name, leaf in logits.items()
    }
    return net, model, variables, inputs, layers


@pytest.fixture(scope="module")
def run(case, key):
    """Outputs (pure, wrapped) by `sample`, as a function of the seed of the masks."""
    net, model, variables, inputs, _ = case
    rest = {
        name: collection
        for name, collection in variables.items()
        if name not in ("frozen", "params")
    }

    @jax.jit
    def outputs(seed):
        rngs = {"mask": jax.random.fold_in(key, seed)}
        mask_key = model.apply(
            variables, rngs=rngs, method=lambda module: module.make_rng("mask")
        )
        found = {}
        for sample in (False, True):
            weights = model.method.effective_weights(
                variables["frozen"],
                variables["params"],
                key=mask_key if sample else None,
            )
            pure = net.apply({"params": weights, **rest}, inputs)
            options = {"sample": True} if sample else {}  # off by default
            found[sample] = pure, model.apply(variables, inputs, rngs=rngs, **options)
        return found

    return outputs


@pytest.mark.slow
def test_params_hold_logits_and_scales_and_frozen_the_weights(case, key):
    net, _, variables, inputs, layers = case
    assert sorted(variables["params"]) == ["logits", "scale"]
    assert len(variables["params"]["logits"]) == layers
    frozen = variables["frozen"]
    plain = jax.eval_shape(net.init, key, inputs)["params"]
    assert jax.tree.map(jnp.shape, frozen) == jax.tree.map(jnp.shape, plain)
    for name, leaf in named_leaves(frozen, kernels).items():
        assert variables["params"]["logits"][name].shape == leaf.shape
        assert np.std(leaf) > 0, "the initial weight itself is kept, not a masked one"


@pytest.mark.slow
def test_both_fronts_are_the_same_network(run):
    for pure, wrapped in run(0).values():
        np.testing.assert_array_equal(wrapped, pure)


@pytest.mark.slow
def test_sampling_follows_its_stream_and_is_off_by_default(run):
    (thresholded, first), (_, again), (same, other) = (
        (found[False][1], found[True][1]) for found in (run(0), run(0), run(1))
    )
    np.testing.assert_array_equal(first, again)
    assert not np.allclose(first, other)
    np.testing.assert_array_equal(thresholded, same)
    assert not np.allclose(thresholded, first)


def test_gradients_reach_logits_and_scales_of_every_layer(case, key):
    _, model, variables, inputs, _ = case
    rest = {name: leaf for name, leaf in variables.items() if name != "params"}

    def loss(params):
        variables = {**rest, "params": params}
        return jnp.sum(
            model.apply(variables, inputs, sample=True, rngs={"mask": key}) ** 2
        )

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    for group in ("logits", "scale"):
        for name, leaf in gradient[group].items():
            assert np.isfinite(leaf).all()
            assert np.any(leaf), (group, name)


@pytest.fixture(scope="module")
def residual(key):
    model = Masked(ResidualNet(), ASLP(keep_ties=True))
    return model, jax.jit(model.init)(key, IMAGES)


@pytest.mark.slow
def test_batch_statistics_pass_through(residual, key):
    model, variables = residual
    before = variables["batch_stats"]

    @functools.partial(jax.jit, static_argnums=0)
    def statistics(net, variables):
        options = {"rngs": {"dropout": key}, "mutable": ["batch_stats"]}
        return net.apply(variables, IMAGES, train=True, **options)[1]

    updates = statistics(model, variables)
    assert sorted(updates) == ["batch_stats"]
    assert jax.tree.structure(updates["batch_stats"]) == jax.tree.structure(before)
    moved = jax.tree.map(
        lambda new, old: bool(np.any(new != old)), updates, {"batch_stats": before}
    )
    assert all(jax.tree.leaves(moved))
    weights = model.method.effective_weights(variables["frozen"], variables["params"])
    expected = statistics(ResidualNet(), {"params": weights, "batch_stats": before})
    for got, wanted in zip(
        jax.tree.leaves(updates), jax.tree.leaves(expected), strict=True
    ):
        np.testing.assert_array_equal(got, wanted)


def test_immutable_statistics_stay(residual):
    model, variables = residual
    output = jax.eval_shape(model.apply, variables, IMAGES)
    assert output.shape == (2, 3)


def test_frozen_and_params_are_never_written(residual, key):
    model, variables = residual
    options = {"train": True, "rngs": {"dropout": key}, "mutable": True}
    _, updates = jax.jit(functools.partial(model.apply, **options))(variables, IMAGES)
    for name in ("frozen", "params"):
        for new, old in zip(
            jax.tree.leaves(updates[name]),
            jax.tree.leaves(variables[name]),
            strict=True,
        ):
            np.testing.assert_array_equal(new, old)


@pytest.mark.parametrize(
    "mutable",
    [False, True, "frozen", "sown", ["params", "sown"], nn.DenyList(("sown",))],
)
def test_flax_subtracts_the_two_collections_from_any_filter(mutable):
    # A Flax internal, on which Masked relies.
    left = subtract_filters(mutable, ("frozen", "params"))
    assert not in_filter(left, "frozen") and not in_filter(left, "params")
    for name in ("batch_stats", "sown"):
        assert in_filter(left, name) == in_filter(mutable, name)


def test_sown_values_pass_through(residual):
    model, variables = residual
    apply = functools.partial(model.apply, mutable=["intermediates"])
    _, updates = jax.eval_shape(apply, variables, IMAGES)
    assert updates["intermediates"]["features"][0].shape == (2, 8)


def test_dropout_has_its_own_stream(residual, key):
    model, variables = residual

    @jax.jit
    def run(seed):
        rngs = {"dropout": jax.random.fold_in(key, seed)}
        options = {"train": True, "rngs": rngs, "mutable": ["batch_stats"]}
        return model.apply(variables, IMAGES, **options)[0]

    np.testing.assert_array_equal(run(0), run(0))
    assert not np.allclose(run(0), run(1))


def test_methods_of_the_network_are_reached_by_name(residual):
    model, variables = residual
    weights = model.method.effective_weights(variables["frozen"], variables["params"])
    expected = ResidualNet().apply(
        {"params": weights, "batch_stats": variables["batch_stats"]},
        IMAGES,
        method="features",
    )
    by_name = model.apply(variables, IMAGES, method="features")
    np.testing.assert_array_equal(by_name, expected)
    np.testing.assert_array_equal(model.bind(variables).features(IMAGES), expected)


def test_a_method_that_the_network_lacks_is_an_attribute_error(residual):
    model, variables = residual
    with pytest.raises(AttributeError, match="no attribute"):
        _ = model.bind(variables).nothing


def test_callable_fields_of_the_network_are_not_its_methods(key):
    class Net(nn.Module):
        activation: Callable = nn.relu

        @nn.compact
        def __call__(self, x):
            return self.activation(nn.Dense(2)(x))

    x = jnp.ones((1, 3))
    model = Masked(Net())
    variables = jax.jit(model.init)(key, x)
    with pytest.raises(AttributeError, match="no attribute"):
        _ = model.bind(variables).activation


def test_partitioned_weights_are_masked_like_any(key):
    init = nn.with_partitioning(nn.initializers.normal(), (None, "model"))
    model = Masked(nn.Dense(2, kernel_init=init))
    variables = model.init(key, jnp.ones((1, 3)))
    assert list(variables["params"]["logits"]) == ["kernel"]
    assert variables["frozen"]["kernel"].shape == (3, 2)


def test_select_chooses_by_path(key):
    model = Masked(Transformer(), ASLP(), select=lambda name: "Attention" in name)
    shapes = jax.eval_shape(model.init, key, TOKENS)
    logits = shapes["params"]["logits"]
    assert logits and all("Attention" in name for name in logits)
    assert any(name.endswith("bias") for name in logits)


def test_a_missing_collection_is_named(residual):
    model, variables = residual
    without = {name: variables[name] for name in ("frozen", "batch_stats")}
    with pytest.raises(
        KeyError, match=r"no collection 'params'.*\['batch_stats', 'fro"
    ):
        model.apply(without, IMAGES)
    without = {name: variables[name] for name in ("params", "batch_stats")}
    with pytest.raises(KeyError, match=r"no weight at .*; the tree holds \[\]"):
        model.apply(without, IMAGES)


def test_params_of_another_network_are_refused(residual):
    model, variables = residual
    logits = {"Conv_9/kernel": jnp.zeros((3, 3, 8, 8))}
    params = {**variables["params"], "logits": logits}
    with pytest.raises(KeyError, match="effective_weights: no weight at"):
        model.apply({**variables, "params": params}, IMAGES)


def test_masked_works_inside_another_module(key):
    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(Masked(nn.Dense(4), ASLP(keep_ties=True))(x))

    x = jnp.ones((3, 5))
    variables = jax.jit(Outer().init)(key, x)
    assert sorted(variables["params"]) == ["Dense_0", "Masked_0"]
    assert list(variables["frozen"]) == ["Masked_0"]
    doubled = jax.tree.map(np.copy, variables)
    doubled["params"]["Masked_0"]["scale"] = {"kernel": np.float32(2)}
    apply = jax.jit(Outer().apply)
    bias_free = [
        np.asarray(apply(each, x)) - np.asarray(each["params"]["Dense_0"]["bias"])
        for each in (variables, doubled)
    ]
    np.testing.assert_allclose(bias_free[1], 2 * bias_free[0], rtol=1e-6)


def test_init_can_be_evaluated_for_shapes_alone(key):
    model = Masked(Conv4(classes=10))
    shapes = jax.eval_shape(model.init, key, jnp.zeros((1, 32, 32, 3)))
    sizes = [leaf.size for leaf in shapes["params"]["logits"].values()]
    assert sum(sizes) == 2_425_024


def test_frozen_weights_follow_the_key(key):
    x = jnp.ones((1, 3))
    init = jax.jit(Masked(nn.Dense(4)).init)

    def kernel(seed):
        return np.asarray(init(jax.random.fold_in(key, seed), x)["frozen"]["kernel"])

    np.testing.assert_array_equal(kernel(0), kernel(0))
    assert np.any(kernel(0) != kernel(1))


class Layers(nn.Module):
    """One layer of each kind, made in any order, with any initialiser of its own."""

    order: tuple[str, ...] = ("depthwise", "grouped", "dense", "heads", "merge")
    kernel_init: Callable = nn.initializers.ones

    @nn.compact
    def __call__(self, x):
        init, image = self.kernel_init, x[:, None, None]
        rows = x[:, None].repeat(3, 1)
        layers = {
            "depthwise": lambda name: nn.Conv(
                8, (3, 3), feature_group_count=8, kernel_init=init, name=name
            )(image),
            "grouped": lambda name: nn.Conv(
                4,
                (3, 3),
                feature_group_count=2,
                kernel_init=init,
                bias_init=nn.initializers.normal(),
                param_dtype=jnp.bfloat16,
                name=name,
            )(image.astype(jnp.bfloat16)),
            "dense": lambda name: nn.Dense(4, kernel_init=init, name=name)(x),
            "heads": lambda name: nn.DenseGeneral((2, 5), kernel_init=init, name=name)(
                x
            ),
            "merge": lambda name: nn.DenseGeneral(
                4, axis=(-2, -1), kernel_init=init, name=name
            )(rows),
        }
        self.variable("batch_stats", "seen", lambda: jnp.ones(()))
        return sum(layers[name](name).sum(dtype=jnp.float32) for name in self.order)


FAN_INS = {"depthwise": 9, "grouped": 36, "dense": 8, "heads": 16, "merge": 24}
EIGHT = jnp.ones((1, 8))


@pytest.fixture(scope="module")
def initialised(key):
    """Variables of three masked networks, from one key."""
    layers, init = Layers(), kaiming_constant()
    others = Layers(tuple(reversed(layers.order)), nn.initializers.uniform())
    models = (
        Masked(layers, ASLP(logit_std=1.0)),
        Masked(layers, ASLP(logit_std=1.0), weight_init=init),
        Masked(others, weight_init=init),
    )
    return jax.jit(lambda key: [model.init(key, EIGHT) for model in models])(key)


def test_weight_init_draws_the_masked_weights_alone(initialised):
    plain, model, _ = (dict(variables) for variables in initialised)
    before, after = plain.pop("frozen"), model.pop("frozen")
    jax.tree.map(np.testing.assert_array_equal, plain, model)
    assert sorted(before) == sorted(FAN_INS)
    for name in before:
        assert np.any(before[name]["kernel"] != after[name]["kernel"])
        np.testing.assert_array_equal(before[name]["bias"], after[name]["bias"])
    assert np.any(after["grouped"]["bias"] != 0)


def test_weight_init_counts_the_fan_in_by_the_shape(initialised):
    frozen = initialised[1]["frozen"]
    for name, fan_in in FAN_INS.items():
        kernel = frozen[name]["kernel"]
        dtype = jnp.bfloat16 if name == "grouped" else jnp.float32
        assert kernel.dtype == dtype
        wanted = np.full(kernel.shape, jnp.asarray(np.sqrt(2 / fan_in), dtype))
        np.testing.assert_array_equal(jnp.abs(kernel), wanted)
        assert len(np.unique(kernel)) == 2


def test_weight_init_follows_the_key_and_the_names_alone(initialised, key):
    _, first, second = (named_leaves(each["frozen"], kernels) for each in initialised)
    params_key = second_params_key(Masked(nn.Dense(1)), key)
    root = jax.random.fold_in(params_key, zlib.crc32(b"weights"))
    for name, kernel in first.items():
        np.testing.assert_array_equal(kernel, second[name])
        own = jax.random.fold_in(root, zlib.crc32(name.encode()))
        wanted = kaiming_constant()(own, kernel.shape, kernel.dtype)
        np.testing.assert_array_equal(kernel, wanted)


def second_params_key(model, key):
    def keys(module):
        return [module.make_rng("params") for _ in range(2)]

    return model.apply({}, rngs={"params": key}, method=keys)[1]


def test_without_weight_init_the_weights_are_those_of_the_module(key):
    method, net = ASLP(logit_std=1.0), nn.Dense(3)
    model = Masked(net, method)
    first = model.apply(
        {}, rngs={"params": key}, method=lambda module: module.make_rng("params")
    )
    weights = net.init({"params": first}, EIGHT)["params"]
    frozen, params = method.init(second_params_key(model, key), weights)
    found = model.init(key, EIGHT)
    jax.tree.map(
        np.testing.assert_array_equal, found, {"frozen": frozen, "params": params}
    )


@pytest.mark.slow
def test_weight_init_works_in_a_module_under_vmap_and_for_shapes(key):
    init = signed_constant(kaiming_normal())

    class Outer(nn.Module):
        @nn.compact
        def __call__(self, x):
            return nn.Dense(2)(Masked(nn.Dense(4), weight_init=init)(x))

    def create(key):
        return Outer().init(key, EIGHT)

    keys = jax.random.split(key, 2)
    several = jax.jit(jax.vmap(create))(keys)
    kernel = several["frozen"]["Masked_0"]["kernel"]
    assert len(np.unique(np.abs(kernel[0]))) == 1 and np.any(kernel[0] != kernel[1])
    shapes = jax.eval_shape(create, key)
    alone = jax.jit(create)(keys[1])
    assert jax.tree.map(jnp.shape, shapes) == jax.tree.map(jnp.shape, alone)
    np.testing.assert_allclose(
        kernel[1], alone["frozen"]["Masked_0"]["kernel"], rtol=1e-6
    )


@pytest.mark.parametrize(
    ("init", "error", "message"),
    [
        (
            lambda key, shape, dtype: jnp.ones((4, 8), dtype),
            ValueError,
            r"returned shape \(4, 8\) and dtype float32 for 'kernel'; expected shape "
            r"\(8, 4\) and dtype float32",
        ),
        (
            lambda key, shape, dtype: jnp.ones(shape, jnp.bfloat16),
            ValueError,
            ".* dtype bfloat16 for 'kernel'; expected .* dtype float32",
        ),
        (nn.initializers.he_normal, TypeError, "returned a function for 'kernel'"),
        (kaiming_normal, TypeError, "failed for 'kernel', shape .*: kaiming_normal"),
        (fan_in_uniform, TypeError, "failed for 'kernel'"),
    ],
)
def test_an_initialiser_that_serves_no_weight_is_refused(key, init, error, message):
    model = Masked(nn.Dense(4), weight_init=init)
    with pytest.raises(error, match=f"weight_init: {message}"):
        model.init(key, EIGHT)


def test_an_initialiser_that_refuses_a_shape_names_the_weight(key):
    model = Masked(
        nn.Dense(4), select=lambda name: True, weight_init=signed_constant(nn.zeros)
    )
    with pytest.warns(ZeroWeightsWarning, match="kernel"):
        model.init(key, EIGHT)
    model = Masked(nn.Dense(4), select=lambda name: True, weight_init=kaiming_normal())
    with pytest.raises(ValueError, match=r"failed for 'bias', shape \(4,\) and dtype"):
        model.init(key, EIGHT)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (
            lambda: Masked(nn.Dense(3), weight_init="kaiming"),
            r"Masked: weight_init must be an initialiser, a function \(key, shape, "
            r"dtype\) -> array, got 'kaiming'",
        ),
        (lambda: Masked(nn.Dense), "got the class Dense; give an instance of it"),
        (lambda: Masked(nn.Dense(3), ASLP), r"got the class ASLP; write ASLP\(\)"),
        (
            lambda: Masked(nnx.Linear(2, 3, rngs=nnx.Rngs(0))),
            "got an NNX module Linear; use aslp_jax.nnx.Masked",
        ),
        (lambda: Masked("conv4"), "expected a flax.linen.Module, got 'conv4'"),
    ],
)
def test_a_module_or_method_that_is_none_is_refused(build, words):
    with pytest.raises(TypeError, match=words):
        build()
