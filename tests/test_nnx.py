"""The NNX front runs any module unchanged, and is the same network as the Linen one."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import orbax.checkpoint as ocp
import pytest
from flax import nnx

import aslp_jax
from aslp_jax import ASLP, Magnitude
from aslp_jax.models import ConvNet
from aslp_jax.models.initialisers import (
    fan_in_uniform,
    kaiming_constant,
    kaiming_normal,
    signed_constant,
)
from aslp_jax.models.layers import max_pool_2x2
from aslp_jax.nnx import Frozen, Masked, MaskParam, Placeholder
from tests.helpers import quick_only

IMAGES = jnp.linspace(-1, 1, 2 * 4 * 4 * 3, dtype=jnp.float32).reshape(2, 4, 4, 3)
ROWS = jnp.sin(jnp.arange(32, dtype=jnp.float32)).reshape(8, 4)
FREE = ASLP(logit_std=1.0)


class SmallConv2(nnx.Module):
    """The network of `ConvNet(stages=(4,), hidden=(8,))`, its layers by one name."""

    def __init__(self, *, rngs):
        self.Conv_0 = nnx.Conv(3, 4, (3, 3), rngs=rngs)
        self.Conv_1 = nnx.Conv(4, 4, (3, 3), rngs=rngs)
        self.Dense_0 = nnx.Linear(16, 8, rngs=rngs)
        self.Dense_1 = nnx.Linear(8, 3, rngs=rngs)

    def __call__(self, images):
        x = nnx.relu(self.Conv_1(nnx.relu(self.Conv_0(images))))
        x = max_pool_2x2(x).reshape(images.shape[0], -1)
        return self.Dense_1(nnx.relu(self.Dense_0(x)))


class Net(nnx.Module):
    """Batch-norm, dropout, a method, a callable attribute, a counter, a sown value."""

    def __init__(self, *, rngs):
        self.first = nnx.Linear(4, 6, rngs=rngs)
        self.norm = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)
        self.head = nnx.Linear(6, 3, rngs=rngs)
        self.activation = nnx.relu
        self.calls = 0
        self.draft = 0

    def __call__(self, x):
        return self.head(self.dropout(self.encode(x)))

    def encode(self, x):
        return self.activation(self.norm(self.first(x)))

    def observe(self, x):
        features = self.encode(x)
        self.sow(nnx.Intermediate, "features", features)
        return features

    def remember(self, x):
        self.calls += 1
        self.last = nnx.data([x, self.first])
        self.extra = nnx.BatchStat(x)
        if hasattr(self, "draft"):
            del self.draft
        self.first.bias[...] += 1


@pytest.fixture
def net():
    return Net(rngs=nnx.Rngs(0))


@pytest.fixture
def model(net):
    return Masked(net, FREE, rngs=nnx.Rngs(params=1, mask=2))


def pure(tree):
    return jax.tree.map(np.asarray, nnx.as_pure(tree))


def weights_of(model):
    return model.method.effective_weights(
        nnx.as_pure(model.frozen), nnx.as_pure(model.params)
    )


def arrays(model, *kinds):
    return jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(model, *kinds)))


def assert_equal(got, wanted):
    assert jax.tree.structure(got) == jax.tree.structure(wanted)
    jax.tree.map(np.testing.assert_array_equal, got, wanted)


@pytest.fixture(scope="module")
def copies(key):
    linen_net = ConvNet(stages=(4,), hidden=(8,), classes=3, bias_init=fan_in_uniform)
    weights = jax.jit(linen_net.init)(key, IMAGES)["params"]
    net = nnx.eval_shape(lambda: SmallConv2(rngs=nnx.Rngs(0)))
    nnx.update(net, weights)
    return linen_net, weights, net


@pytest.mark.parametrize(
    "method",
    quick_only([FREE, Magnitude(0.5)], FREE),
    ids=lambda method: type(method).__name__,
)
def test_a_linen_and_an_nnx_copy_are_the_same_network(copies, method, key):
    linen_net, weights, net = copies
    model = Masked(net, method, rngs=key)
    frozen, params = method.init(key, weights)
    assert_equal(pure(model.frozen), pure(frozen))
    assert_equal(pure(model.params), pure(params))

    linen = aslp_jax.Masked(linen_net, method)
    rngs = {"mask": key}
    mask_key = linen.apply({}, rngs=rngs, method=lambda module: module.make_rng("mask"))

    def linen_loss(params):
        variables = {"frozen": frozen, "params": params}
        sampled = linen.apply(variables, IMAGES, sample=True, rngs=rngs)
        masks = method.masks(frozen, params)
        return jnp.sum(sampled**2), (masks, sampled, linen.apply(variables, IMAGES))

    def loss(model):
        sampled = model(IMAGES, sample=True, rngs=mask_key)
        masks = method.masks(nnx.as_pure(model.frozen), nnx.as_pure(model.params))
        return jnp.sum(sampled**2), (masks, sampled, model(IMAGES))

    results, gradient = nnx.jit(nnx.value_and_grad(loss, has_aux=True))(model)
    wanted = jax.jit(jax.value_and_grad(linen_loss, has_aux=True))(params)
    assert_equal((results, nnx.to_pure_dict(gradient)["params"]), wanted)
    assert all(np.any(np.asarray(leaf)) for leaf in jax.tree.leaves(wanted))


@pytest.mark.slow
def test_weight_init_gives_a_linen_and_an_nnx_copy_the_same_weights(copies, key):
    linen_net, weights, net = copies
    init = kaiming_constant()  # of no sum or root, which XLA may round in two ways
    linen = aslp_jax.Masked(linen_net, FREE, weight_init=init)
    variables = jax.jit(linen.init)(key, IMAGES)

    def keys(module):
        return [module.make_rng("params") for _ in range(2)]

    params_key = linen.apply({}, rngs={"params": key}, method=keys)[1]
    model = Masked(net, FREE, rngs=params_key, weight_init=init)
    params, frozen = pure(model.params), pure(model.frozen)
    assert_equal(params, pure(variables["params"]))
    for name, layer in frozen.items():
        np.testing.assert_array_equal(
            layer["kernel"], variables["frozen"][name]["kernel"]
        )
        magnitudes = np.unique(np.abs(layer["kernel"]))
        np.testing.assert_array_equal(
            magnitudes, np.float32(np.sqrt(2 / np.prod(layer["kernel"].shape[:-1])))
        )
        assert len(np.unique(layer["kernel"])) == 2
        np.testing.assert_array_equal(layer["bias"], weights[name]["bias"])
        np.testing.assert_array_equal(
            getattr(net, name).kernel[...], weights[name]["kernel"]
        )


@pytest.mark.slow
def test_weight_init_serves_shared_weights_and_seeds(key):
    tied = Tied(rngs=nnx.Rngs(0))
    init = signed_constant(kaiming_normal())

    def create(key):
        return Masked(tied, FREE, rngs=key, weight_init=init)

    keys = jax.random.split(key, 2)
    several = jax.jit(jax.vmap(lambda key: nnx.as_pure(create(key).frozen)))(keys)
    assert list(several["d"]["0"]) == ["bias"]
    a, c = several["a"]["kernel"], several["c"]["kernel"]
    assert np.any(a[0] != a[1]) and np.any(a[0] != c[0])
    assert len(np.unique(np.abs(a[1]))) == 1
    model = create(keys[1])
    np.testing.assert_allclose(a[1], model.frozen["a"]["kernel"][...], rtol=1e-6)
    np.testing.assert_array_equal(several["a"]["bias"][0], tied.b.bias[...])
    shapes = nnx.eval_shape(create, key)
    assert shapes.frozen["c"]["kernel"].shape == (4, 4)


def test_state_is_the_frozen_weights_the_learnt_params_and_the_rest(net, model):
    frozen = pure(model.frozen)
    assert_equal(frozen["first"], arrays(net.first))
    assert_equal(frozen["norm"], arrays(net.norm, nnx.Param))
    params = arrays(model, nnx.Param)
    assert_equal(params, {"params": pure(model.params)})
    assert_equal(params, arrays(model, MaskParam))
    assert list(params["params"]["logits"]) == ["first/kernel", "head/kernel"]
    assert_equal(arrays(model, Frozen), {"frozen": frozen})
    assert_equal(arrays(model.net, nnx.BatchStat), arrays(net, nnx.BatchStat))
    assert len(nnx.to_flat_state(nnx.state(model, Placeholder))) == 6
    assert jax.tree.leaves(nnx.state(model, Placeholder)) == []


@pytest.mark.slow
def test_the_module_given_stays_as_it_was(net, model):
    before = arrays(net, nnx.Not(nnx.RngKey))
    model(ROWS)
    assert_equal(arrays(net, nnx.Not(nnx.RngKey)), before)
    assert type(net.first.kernel) is nnx.Param
    assert np.any(model.net.norm.mean[...] != net.norm.mean[...])


def test_an_optimiser_trains_logits_and_scales_alone(net, model):
    optimiser = nnx.Optimizer(model, optax.sgd(1.0), wrt=nnx.Param)
    frozen, params = arrays(model, Frozen), arrays(model, nnx.Param)

    @nnx.jit
    def step(model, optimiser):
        def loss(model):
            return jnp.sum(model(ROWS, sample=True) ** 2)

        value, gradient = nnx.value_and_grad(loss)(model)
        optimiser.update(model, gradient)
        return value

    assert step(model, optimiser) != step(model, optimiser)
    assert_equal(arrays(model, Frozen), frozen)
    after = arrays(model, nnx.Param)
    assert jax.tree.structure(after) == jax.tree.structure(params)
    for new, old in zip(jax.tree.leaves(after), jax.tree.leaves(params), strict=True):
        assert np.any(new != old)
    assert model.rngs.count[...] == 2
    assert model.net.dropout.rngs.count[...] == net.dropout.rngs.count[...] + 2
    assert np.any(model.net.norm.var[...] != net.norm.var[...])


def test_batch_statistics_move_in_training_and_serve_in_evaluation(net, model):
    nnx.update(net, weights_of(model))  # the same network, without Masked
    for each in (net, model):
        each.set_attributes(nnx.Dropout, deterministic=True)
    start = arrays(net, nnx.BatchStat)
    np.testing.assert_array_equal(model(ROWS), net(ROWS))
    moved = arrays(net, nnx.BatchStat)
    assert_equal(arrays(model.net, nnx.BatchStat), moved)
    assert np.any(moved["norm"]["mean"] != start["norm"]["mean"])
    for each in (net, model):
        each.eval()
    np.testing.assert_array_equal(model(ROWS), net(ROWS))
    assert_equal(arrays(model.net, nnx.BatchStat), moved)


def test_train_eval_and_views_reach_the_layers(model):
    layers = model.net.dropout, model.net.norm
    model.eval()
    assert layers[0].deterministic and layers[1].use_running_average
    np.testing.assert_array_equal(model(ROWS), model(ROWS))
    model.train()
    assert not layers[0].deterministic and not layers[1].use_running_average
    view = nnx.view(model, deterministic=True, use_running_average=True)
    np.testing.assert_array_equal(view(ROWS), view(ROWS))
    assert view.params["scale"]["head/kernel"] is model.params["scale"]["head/kernel"]
    assert np.any(model(ROWS) != model(ROWS)), "the view leaves dropout on"


@pytest.mark.slow
def test_sampling_follows_its_stream_and_is_off_by_default(model, key):
    thresholded = model.encode(ROWS)
    np.testing.assert_array_equal(thresholded, model.encode(ROWS))
    assert model.rngs.count[...] == 0
    first, second = (model.encode(ROWS, sample=True) for _ in range(2))
    assert np.any(first != second) and np.any(first != thresholded)
    assert model.rngs.count[...] == 2
    stream = nnx.Rngs(mask=3).mask.fork()
    for fixed in (key, stream, nnx.Rngs(0), nnx.Rngs(mask=0)):
        again = nnx.clone(fixed) if not isinstance(fixed, jax.Array) else fixed
        once = model.encode(ROWS, sample=True, rngs=fixed)
        np.testing.assert_array_equal(once, model.encode(ROWS, sample=True, rngs=again))
        assert np.any(once != thresholded)
    assert model.rngs.count[...] == 2


class Noisy(nnx.Module):
    def __init__(self, *, rngs):
        self.layer = nnx.Linear(4, 3, rngs=rngs)

    def __call__(self, x, *, rngs=None):
        self.given = nnx.data([rngs])
        return self.layer(x)


@pytest.mark.slow
def test_streams_are_passed_to_a_module_that_takes_them(model, key):
    noisy, rngs = Masked(Noisy(rngs=nnx.Rngs(0)), FREE, rngs=key), nnx.Rngs(0)
    for options, given in [
        ({"sample": True, "rngs": rngs}, rngs),
        ({"rngs": rngs}, rngs),
        ({"rngs": key}, key),
        ({"sample": True, "rngs": key}, None),  # used up by the masks
    ]:
        noisy(ROWS, **options)
        assert noisy.net.given[0] is given
    model(ROWS, rngs=rngs)  # whose module takes none


class Tied(nnx.Module):
    """One layer used twice, and one weight in two layers."""

    def __init__(self, *, rngs):
        self.b = nnx.Linear(4, 4, rngs=rngs)
        self.a = self.b
        self.c = nnx.Linear(4, 4, rngs=rngs)
        self.d = nnx.data([nnx.Linear(4, 4, rngs=rngs)])
        self.d[0].kernel = self.c.kernel
        self.itself = self

    def __call__(self, x):
        for layer in (self.itself.a, self.b, self.c, self.d[0]):
            x = layer(x)
        return x


def test_a_shared_weight_has_one_logit_array(key):
    tied = Tied(rngs=nnx.Rngs(0))
    model = Masked(tied, FREE, rngs=key)
    assert list(model.params["logits"]) == ["a/kernel", "c/kernel"]
    weights = weights_of(model)
    a, c = weights["a"]["kernel"], weights["c"]["kernel"]
    np.testing.assert_allclose(model(ROWS), ROWS @ a @ a @ c @ c, rtol=1e-5, atol=1e-6)
    assert model.net.a is model.net.b and model.net.itself is model.net
    assert model.net.c.kernel is model.net.d[0].kernel
    loss = nnx.jit(lambda model: model(ROWS, sample=True, rngs=key).sum())
    slope = nnx.grad(loss)(model)
    assert all(np.any(leaf != 0) for leaf in jax.tree.leaves(nnx.as_pure(slope)))


@pytest.mark.slow
def test_splitting_and_merging_keep_the_network(model):
    parts = nnx.split(model, nnx.Param, nnx.BatchStat, ...)
    merged = nnx.merge(*parts, copy=True)
    np.testing.assert_array_equal(model(ROWS), merged(ROWS))
    np.testing.assert_array_equal(
        model.encode(ROWS, sample=True), merged.encode(ROWS, sample=True)
    )


@pytest.mark.slow
def test_seeds_are_trained_side_by_side():
    def create(rngs):
        return Masked(nnx.Linear(4, 3, rngs=rngs), FREE, rngs=rngs)

    def loss(model):
        return jnp.sum(model(ROWS, sample=True) ** 2)

    keys = jax.random.split(jax.random.key(0), 3)
    several = nnx.jit(nnx.vmap(lambda key: create(nnx.Rngs(key))))(keys)
    gradients = nnx.jit(nnx.vmap(nnx.grad(loss)))(several)
    logits = pure(several.params)["logits"]["kernel"]
    assert logits.shape == (3, 4, 3) and np.any(logits[0] != logits[1])
    alone = nnx.jit(lambda key: create(nnx.Rngs(key)))(keys[1])
    np.testing.assert_array_equal(logits[1], pure(alone.params)["logits"]["kernel"])
    for got, wanted in zip(
        jax.tree.leaves(pure(gradients)),
        jax.tree.leaves(pure(nnx.jit(nnx.grad(loss))(alone))),
        strict=True,
    ):
        np.testing.assert_allclose(got[1], wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_orbax_saves_and_restores_it(model, tmp_path):
    def create(seed):
        rngs = nnx.Rngs(seed, params=seed, mask=seed)
        return Masked(Net(rngs=rngs), FREE, rngs=rngs)

    model = create(0)
    model(ROWS, sample=True)
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(tmp_path / "model", nnx.state(model))
        checkpointer.wait_until_finished()
        graphdef, shapes = nnx.split(nnx.eval_shape(lambda: create(1)))
        restored = nnx.merge(graphdef, checkpointer.restore(tmp_path / "model", shapes))
    np.testing.assert_array_equal(model(ROWS, sample=True), restored(ROWS, sample=True))


def test_jax_transforms_close_over_the_model(model):
    model.eval()
    slope = jax.jit(jax.grad(lambda x: model(x).sum()))(ROWS)
    assert slope.shape == ROWS.shape
    rows = jax.vmap(model)(ROWS)
    np.testing.assert_allclose(rows, model(ROWS), rtol=1e-5, atol=1e-6)


def test_methods_of_the_module_are_reached_by_name(net, model):
    nnx.update(net, weights_of(model))
    wanted = net.encode(ROWS)
    np.testing.assert_array_equal(model.encode(ROWS), wanted)
    by_jit = nnx.jit(lambda model: model.encode(ROWS))(model)
    np.testing.assert_allclose(by_jit, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["nothing", "activation", "calls", "set_view", "_x"])
def test_what_is_no_method_of_the_module_is_an_attribute_error(name):
    class Viewed(Net):
        def set_view(self):
            pass

        def _x(self):
            pass

        def activation(self, x):
            """Hidden by the attribute, which is no method."""

    model = Masked(Viewed(rngs=nnx.Rngs(0)), rngs=nnx.Rngs(0))
    with pytest.raises(AttributeError, match=f"'Masked'.* no attribute '{name}'"):
        getattr(model, name)


def test_sown_values_are_captured(model):
    features, captured = nnx.capture(model.observe, nnx.Intermediate)(ROWS)
    np.testing.assert_array_equal(captured["net"]["features"][0], features)


def test_what_a_call_sets_on_the_module_stays_but_for_its_weights(model):
    bias = model.frozen["first"]["bias"][...]
    for count in (1, 2):
        model.remember(count * ROWS)
        assert model.net.calls == count and not hasattr(model.net, "draft")
        rows, layer = model.net.last
        np.testing.assert_array_equal(rows, count * ROWS)
        assert layer is model.net.first and type(layer.kernel) is Placeholder
        np.testing.assert_array_equal(model.net.extra[...], count * ROWS)
    assert len(jax.tree.leaves(nnx.state(model.net, nnx.Param))) == 0
    np.testing.assert_array_equal(model.frozen["first"]["bias"][...], bias)
    nnx.jit(lambda model: model.remember(ROWS))(model)
    assert model.net.calls == 3
    np.testing.assert_array_equal(model.net.extra[...], ROWS)


def test_select_chooses_by_path(net):
    model = Masked(net, FREE, rngs=nnx.Rngs(0), select=lambda name: "head" in name)
    assert list(model.params["logits"]) == ["head/bias", "head/kernel"]


def test_metadata_of_a_weight_is_there_when_the_module_runs():
    class Net(nnx.Module):
        def __init__(self):
            options = {"out_sharding": (None, "model"), "eager_sharding": False}
            self.kernel = nnx.Param(jnp.ones((4, 3)), **options)

        def __call__(self):
            return type(self.kernel), self.kernel.out_sharding

    kind, sharding = Masked(Net(), rngs=nnx.Rngs(0))()
    assert kind is nnx.Param and sharding == (None, "model")


def linear():
    return nnx.Linear(4, 3, rngs=nnx.Rngs(0))


def narrow(key, shape, dtype):
    return jnp.ones(shape, jnp.float16)


@pytest.mark.parametrize(
    ("build", "error", "message"),
    [
        (
            lambda: Masked(ConvNet(stages=(4,), classes=3), rngs=nnx.Rngs(0)),
            TypeError,
            r"^aslp_jax\.nnx\.Masked: expected a flax\.nnx\.Module, got a Linen module "
            r"ConvNet; use aslp_jax\.Masked$",
        ),
        (
            lambda: Masked(SmallConv2, rngs=nnx.Rngs(0)),
            TypeError,
            "got the class SmallConv2; give an instance of it$",
        ),
        (lambda: Masked([1], rngs=nnx.Rngs(0)), TypeError, r"got \[1\]$"),
        (
            lambda: Masked(linear(), ASLP, rngs=nnx.Rngs(0)),
            TypeError,
            r"expected a method, got the class ASLP; write ASLP\(\)$",
        ),
        (
            lambda: Masked(linear(), "aslp", rngs=nnx.Rngs(0)),
            TypeError,
            "expected a method, got 'aslp'$",
        ),
        (
            lambda: Masked(linear(), rngs=nnx.Rngs(0), select=lambda name: False),
            ValueError,
            r"select chooses none of the weights; .* \['bias', 'kernel'\]",
        ),
        (
            lambda: Masked(linear(), rngs=nnx.Rngs(mask=0)),
            KeyError,
            r"rngs has no stream 'params' and no default; it has \['mask'\]",
        ),
        (
            lambda: Masked(linear(), rngs=nnx.Rngs(0), weight_init=1.0),
            TypeError,
            r"^aslp_jax\.nnx\.Masked: weight_init must be an initialiser, .* got 1\.0$",
        ),
        (
            lambda: Masked(linear(), rngs=nnx.Rngs(0), weight_init=narrow),
            ValueError,
            r"weight_init: returned shape \(4, 3\) and dtype float16 for 'kernel'; "
            r"expected shape \(4, 3\) and dtype float32$",
        ),
        (
            lambda: Masked(linear(), rngs=0),
            TypeError,
            "rngs must be .* PRNG key, got 0",
        ),
    ],
)
def test_a_model_that_cannot_be_is_refused(build, error, message):
    with pytest.raises(error, match=message):
        build()


def test_a_weight_made_during_a_call_is_refused():
    class Lazy(nnx.Module):
        def __init__(self):
            self.first = linear()

        def __call__(self, x):
            self.second = linear()
            return self.first(x)

    model = Masked(Lazy(), rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"made a weight .* attribute 'second'; run"):
        model(ROWS)


def test_sampling_without_a_stream_is_refused(key):
    for rngs in (nnx.Rngs(params=0), key):
        model = Masked(linear(), rngs=rngs)
        with pytest.raises(ValueError, match=r"sample=True needs a stream 'mask'"):
            model(ROWS, sample=True)
    with pytest.raises(KeyError, match=r"no stream 'mask' .* it has \['dropout'\]"):
        model(ROWS, sample=True, rngs=nnx.Rngs(dropout=0))
