"""Networks as pure functions: Linen, NNX, and bare functions of other libraries."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from aslp_jax import ASLP, Masked, evaluate, functional, train
from aslp_jax._initialise import initialise
from aslp_jax._tree import kernels, stream
from aslp_jax.models.initialisers import kaiming_normal
from tests.helpers import quick_only

INPUTS = jax.random.normal(jax.random.key(1), (8, 4, 4, 2))
LABELS = jnp.arange(8) % 3


class LinenNet(nn.Module):
    """Convolution, batch-norm, dropout and a dense layer."""

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.Conv(4, (3, 3), name="conv")(x)
        x = nn.relu(nn.BatchNorm(use_running_average=not train, name="norm")(x))
        x = nn.Dropout(0.1, deterministic=not train)(x)
        return nn.Dense(3, name="dense")(x.reshape(x.shape[0], -1))


class NNXNet(nnx.Module):
    """The same network, with the same names."""

    def __init__(self, *, rngs):
        self.conv = nnx.Conv(2, 4, (3, 3), rngs=rngs)
        self.norm = nnx.BatchNorm(4, momentum=0.5, rngs=rngs)
        self.dropout = nnx.Dropout(0.1, rngs=rngs)
        self.dense = nnx.Linear(64, 3, rngs=rngs)

    def __call__(self, x):
        x = self.dropout(nnx.relu(self.norm(self.conv(x))))
        return self.dense(x.reshape(x.shape[0], -1))


def make_nnx(rngs):
    return NNXNet(rngs=rngs)


LINEN, NNX = functional.Linen(LinenNet()), functional.NNX(make_nnx)


def identity(images):
    return images


@pytest.fixture(scope="module", params=["linen", "nnx"])
def net(request):
    return {"linen": LINEN, "nnx": NNX}[request.param]


@pytest.fixture(scope="module")
def start(net):
    return jax.jit(net.init)(jax.random.key(0), INPUTS)


@pytest.fixture(scope="module")
def run_training(net):
    return jax.jit(lambda *args, key: net.apply(*args, INPUTS, train=True, key=key))


class TestNetwork:
    def test_linen_and_nnx_compute_the_same(self, net, start):
        weights, _ = start
        linen, _ = LINEN.apply(weights, *self.statistics(LINEN))
        found, _ = net.apply(weights, *self.statistics(net))
        np.testing.assert_allclose(found, linen, rtol=1e-5, atol=1e-5)

    @staticmethod
    def statistics(net):
        values = {"norm": {"mean": jnp.full(4, 0.25), "var": jnp.full(4, 2.0)}}
        return {"batch_stats" if net is LINEN else "state": values}, INPUTS

    def test_dropout_follows_the_key(self, start, run_training):
        outputs = [
            run_training(*start, key=jax.random.key(seed))[0] for seed in (0, 0, 1)
        ]
        assert np.array_equal(outputs[0], outputs[1])
        assert not np.allclose(outputs[0], outputs[2])

    def test_training_updates_the_statistics(self, start, run_training):
        _, before = start
        _, after = run_training(*start, key=jax.random.key(0))
        assert jax.tree.structure(before) == jax.tree.structure(after)
        for old, new in zip(*map(jax.tree.leaves, (before, after)), strict=True):
            assert not np.array_equal(old, new)

    def test_evaluation_leaves_the_state(self, net, start):
        outputs, collections = net.apply(*start, INPUTS)
        again, _ = net.apply(*start, INPUTS, key=jax.random.key(5))
        assert collections is start[1]
        assert np.array_equal(outputs, again)

    def test_values_are_equal_and_hashable(self):
        assert functional.network(LinenNet()) == LINEN
        assert hash(functional.network(LinenNet())) == hash(LINEN)
        assert functional.NNX(make_nnx) == NNX
        module = make_nnx(nnx.Rngs(0))
        assert functional.network(module) == functional.network(module)
        assert functional.network(module) != functional.network(make_nnx(nnx.Rngs(0)))

    def test_a_module_may_have_lists(self):
        nets = [
            functional.network(nn.Sequential([nn.Dense(width), jnp.cos]))
            for width in (3, 3, 4)
        ]
        assert nets[0] == nets[1] != nets[2]
        assert hash(nets[0]) == hash(nets[1])
        weights, collections = nets[0].init(jax.random.key(0), INPUTS)
        variables = {"params": weights, **collections}
        found = evaluate.run(variables, INPUTS, net=nets[0], prepare=identity)
        assert found.shape == (8, 4, 4, 3)
        count = evaluate._run._cache_size()
        evaluate.run(variables, INPUTS, net=nets[1], prepare=identity)
        assert evaluate._run._cache_size() == count

    def test_an_nnx_module_stands_for_its_own_weights(self):
        module = make_nnx(nnx.Rngs(3))
        weights, _ = functional.network(module).init(jax.random.key(0), INPUTS)
        assert np.array_equal(weights["conv"]["kernel"], module.conv.kernel)

    @pytest.mark.parametrize(
        ("name", "value"), [("train", True), ("deterministic", False), ("other", None)]
    )
    def test_the_mode_has_the_name_that_the_module_gives_it(self, name, value):
        seen = {}
        source = f"def call(self, x, {name}=None): seen['value'] = {name}; return x"
        scope = {"seen": seen}
        exec(source, scope)
        module = type("Net", (nn.Module,), {"__call__": scope["call"]})()
        functional.network(module).apply({}, {}, INPUTS, train=True)
        assert seen["value"] is value

    def test_streams_of_any_name_have_keys(self):
        class Noisy(nn.Module):
            @nn.compact
            def __call__(self, x):
                return x + jax.random.normal(self.make_rng("noise"), x.shape)

        noisy = functional.network(Noisy())
        first, second = (
            noisy.apply({}, {}, INPUTS, train=True, key=jax.random.key(seed))[0]
            for seed in (0, 1)
        )
        assert not np.array_equal(first, second)

    @pytest.mark.parametrize(
        ("net", "words"),
        [(LinenNet, "the class LinenNet; give an instance"), (3, "got 3")],
    )
    def test_refuses_what_is_no_network(self, net, words):
        with pytest.raises(TypeError, match=words):
            functional.network(net)


class TestModel:
    def test_weight_init_draws_by_name(self):
        model = functional.Model(NNX, ASLP(), weight_init=kaiming_normal())
        key = jax.random.key(4)
        found = jax.jit(model.init)(key, INPUTS)["frozen"]
        weights, _ = NNX.init(stream(key, "init"), INPUTS)
        expected = initialise(
            kaiming_normal(), stream(key, "method"), weights, select=kernels
        )
        np.testing.assert_allclose(
            found["dense"]["kernel"], expected["dense"]["kernel"], rtol=1e-5
        )
        assert not np.allclose(found["dense"]["kernel"], weights["dense"]["kernel"])

    def test_an_instance_of_masked_is_initialised_by_itself(self):
        model = Masked(LinenNet(), ASLP())
        found = functional.init(model, jax.random.key(0), INPUTS)
        expected = model.init(jax.random.key(0), INPUTS)
        for one, other in zip(*map(jax.tree.leaves, (found, expected)), strict=True):
            assert np.array_equal(one, other)

    def test_refuses_a_collection_named_as_its_own(self):
        net = functional.Functions(
            lambda key, inputs: ({"kernel": jnp.ones(2)}, {"frozen": {}}), identity
        )
        with pytest.raises(ValueError, match="the name 'frozen'"):
            functional.Model(net).init(jax.random.key(0), INPUTS)

    def test_refuses_bad_arguments_at_once(self):
        with pytest.raises(TypeError, match=r"functional\.network"):
            functional.Model(NNXNet)
        with pytest.raises(TypeError, match="Model: weight_init"):
            functional.Model(NNX, weight_init=3)


def of_equinox():
    eqx = pytest.importorskip("equinox")

    def init(key, inputs):
        first, second = jax.random.split(key)
        net = eqx.nn.Sequential(
            [
                eqx.nn.Conv2d(2, 4, 3, padding=1, key=first),
                eqx.nn.Lambda(jax.nn.relu),
                eqx.nn.Lambda(jnp.ravel),
                eqx.nn.Linear(64, 3, key=second),
            ]
        )
        return eqx.partition(net, eqx.is_inexact_array)

    _, static = init(jax.random.key(0), None)

    def apply(weights, inputs):
        run = jax.vmap(eqx.combine(weights, static))
        return run(jnp.moveaxis(inputs, -1, 1))

    return functional.stateless(lambda *args: init(*args)[0], apply), "weight"


def of_haiku():
    hk = pytest.importorskip("haiku")

    @hk.without_apply_rng
    @hk.transform
    def net(x):
        x = jax.nn.relu(hk.Conv2D(4, 3)(x))
        return hk.Linear(3)(x.reshape(x.shape[0], -1))

    return functional.stateless(net.init, net.apply), "w"


def of_plain_jax():
    def init(key, inputs):
        return {"w": 0.1 * jax.random.normal(key, (32, 3))}

    def apply(weights, inputs):
        return inputs.reshape(-1, 32) @ weights["w"]

    return functional.stateless(init, apply), "w"


def of_nnx():
    return NNX, "kernel"


@pytest.mark.parametrize(
    "make",
    quick_only([of_equinox, of_haiku, of_plain_jax, of_nnx], of_plain_jax),
)
def test_any_library_trains_and_is_evaluated(make):
    net, name = make()
    model = functional.Model(
        net, ASLP(), select=lambda path: path.rsplit("/", 1)[-1] == name
    )
    optimiser = optax.sgd(20.0)
    state = train.create(model, optimiser, jax.random.key(0), INPUTS)
    step = jax.jit(
        lambda state, key: train.step(
            state, INPUTS, LABELS, key, model=model, optimiser=optimiser
        )
    )
    first = state
    for seed in range(20):
        state, loss, _ = step(state, jax.random.key(seed))
    before, after = (
        evaluate.score(each.variables, INPUTS, LABELS, model=model, prepare=identity)
        for each in (first, state)
    )
    assert after[1] < before[1]
    assert np.isfinite(loss)
    for old, new in zip(
        *map(jax.tree.leaves, (first.frozen, state.frozen)), strict=True
    ):
        assert np.array_equal(old, new)


def test_a_network_is_compiled_once_for_equal_values():
    weights, collections = LINEN.init(jax.random.key(0), INPUTS)
    variables = {"params": weights, **collections}
    evaluate.run(variables, INPUTS, net=LinenNet(), prepare=identity)
    count = evaluate._run._cache_size()
    evaluate.run(variables, INPUTS, net=LINEN, prepare=identity)
    assert evaluate._run._cache_size() == count
    assert dataclasses.replace(LINEN) == LINEN
