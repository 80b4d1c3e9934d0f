"""The reference networks are the published ones, and the same in Linen and NNX."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.helpers import quick_only
from tests.mlperf_tiny import NETWORKS, copy_weights

COMPILED = pytest.mark.parametrize("name", quick_only(NETWORKS, "ds_cnn"))


def small_inputs(name, count=8):
    shape = (count, *NETWORKS[name].small_shape)
    return jnp.asarray(np.random.default_rng(0).normal(size=shape), jnp.float32)


@pytest.fixture(scope="module")
def small():
    """Function from a name to Linen module, variables and NNX module, made once."""
    made = {}

    def make(name):
        if name not in made:
            reference = NETWORKS[name]
            linen = reference.linen(**reference.small)
            shapes = jax.eval_shape(linen.init, jax.random.key(0), small_inputs(name))
            variables = random_like(shapes)
            module = build(reference.nnx, reference.small)
            copy_weights(variables, module)
            made[name] = linen, variables, module
        return made[name]

    return make


def build(kind, options):
    """An NNX module, initialised by one program rather than one for each array."""
    return nnx.jit(lambda: kind(**options, rngs=nnx.Rngs(0)))()


def random_like(shapes):
    """Random arrays, variances above 0, so that no two arrays are equal."""
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        fan_in = max(1, int(np.prod(leaf.shape[:-1])))
        values = rng.normal(0, fan_in**-0.5, leaf.shape)
        name = path[-1].key
        values = values if name == "kernel" else 1 + 0.2 * np.tanh(values)
        return jnp.asarray(values, jnp.float32)

    return jax.tree_util.tree_map_with_path(fill, shapes)


def size_of(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@pytest.mark.parametrize(
    "name", quick_only(NETWORKS, "resnet8", "ds_cnn", "autoencoder")
)
def test_the_published_network_has_its_number_of_parameters(name):
    reference = NETWORKS[name]
    inputs = jax.ShapeDtypeStruct((2, *reference.shape), jnp.float32)
    linen = reference.linen()
    variables = jax.eval_shape(linen.init, jax.random.key(0), inputs)
    assert size_of(variables) == reference.parameters
    outputs = jax.eval_shape(linen.apply, variables, inputs)
    assert outputs.shape == (2, reference.outputs)

    module = nnx.eval_shape(lambda: reference.nnx(rngs=nnx.Rngs(0)))
    arrays = nnx.state(module, (nnx.Param, nnx.BatchStat))
    assert size_of(arrays) == reference.parameters


@pytest.mark.slow
@COMPILED
def test_linen_and_nnx_are_the_same_network(name, small):
    linen, variables, module = small(name)
    inputs = small_inputs(name)
    expected = jax.jit(linen.apply)(variables, inputs)
    reference = NETWORKS[name]
    outputs = reference.small.get("outputs", reference.outputs)
    assert expected.shape == (len(inputs), outputs)
    assert float(jnp.std(expected)) > 0.01
    module.eval()
    np.testing.assert_allclose(
        nnx.jit(lambda module, inputs: module(inputs))(module, inputs),
        expected,
        rtol=1e-5,
        atol=1e-5,
    )


@pytest.mark.slow
@COMPILED
def test_training_updates_the_same_statistics(name, small):
    linen, variables, module = small(name)
    inputs = small_inputs(name)

    def train(variables, inputs):
        return linen.apply(variables, inputs, train=True, mutable=["batch_stats"])

    expected, updated = jax.jit(train)(variables, inputs)
    module = nnx.clone(module)
    module.train()
    outputs = nnx.jit(lambda module, inputs: module(inputs))(module, inputs)
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-4)
    other = nnx.clone(module)
    copy_weights({**variables, **updated}, other)
    for found, wanted in zip(
        jax.tree.leaves(nnx.state(module, nnx.BatchStat)),
        jax.tree.leaves(nnx.state(other, nnx.BatchStat)),
        strict=True,
    ):
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
@pytest.mark.slow
def test_dropout_acts_in_training_alone():
    make = NETWORKS["ds_cnn"]
    options = {**make.small, "dropout": (0.2, 0.4)}
    inputs = small_inputs("ds_cnn", 1)
    linen = make.linen(**options)
    shapes = jax.eval_shape(linen.init, jax.random.key(0), inputs)
    variables = random_like(shapes)
    keys = {"dropout": jax.random.key(0)}
    trained, _ = linen.apply(
        variables, inputs, train=True, mutable=["batch_stats"], rngs=keys
    )
    plain, _ = make.linen(**make.small).apply(
        variables, inputs, train=True, mutable=["batch_stats"]
    )
    assert not np.allclose(trained, plain)
    module = build(make.nnx, options)
    copy_weights(variables, module)
    module.eval()
    np.testing.assert_allclose(
        module(inputs), linen.apply(variables, inputs), rtol=1e-5, atol=1e-5
    )


def test_weights_of_another_network_are_refused(small):
    _, variables, module = small("autoencoder")
    with pytest.raises(KeyError, match="norm1"):
        copy_weights({"params": variables["params"]}, nnx.clone(module))
    more = {"params": {**variables["params"], "more": {"kernel": jnp.ones(3)}}}
    with pytest.raises(KeyError, match="are in the variables alone"):
        copy_weights({**variables, **more}, nnx.clone(module))
    wrong = jax.tree.map(lambda array: array[:1], variables)
    with pytest.raises(ValueError, match="copy_weights"):
        copy_weights(wrong, nnx.clone(module))
