"""Paths through pruned networks, against counting by hand and by matrix products."""

import functools
import itertools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aslp_jax import EdgePopup, Masked, functional
from aslp_jax._tree import kernels, named_leaves
from aslp_jax.connectivity import connectivity
from aslp_jax.export.refusal import UnsupportedError
from aslp_jax.models import ConvNet
from aslp_jax.models.layers import max_pool_2x2


class Perceptron(nn.Module):
    widths: tuple[int, ...]

    @nn.compact
    def __call__(self, x):
        for index, width in enumerate(self.widths):
            x = nn.Dense(width)(x)
            x = nn.relu(x) if index + 1 < len(self.widths) else x
        return x


def plain(net, key, inputs, **options):
    return jax.jit(lambda key: net.init(key, inputs, **options))(key)


@functools.partial(jax.jit, static_argnames=("net",))
def follow(net, variables, masks, inputs):
    collections = dict(variables)
    weights = collections.pop("params")
    return connectivity(net, weights, collections, masks, inputs)


def everything(variables):
    chosen = named_leaves(variables["params"], kernels)
    return {name: jnp.ones(leaf.shape, bool) for name, leaf in chosen.items()}


def numbers(layer):
    return tuple(int(each) for each in layer)


def test_paths_of_a_small_network_counted_by_hand(key):
    # Three inputs, four hidden units, two outputs.
    net, inputs = Perceptron((4, 2)), jnp.ones((5, 3))
    variables = plain(net, key, inputs)
    into = [[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]]  # unit 1 and 3 get nothing
    out = [[1, 0], [1, 0], [0, 0], [0, 0]]  # unit 2 and 3 give nothing, nor to output 1
    masks = {
        "Dense_0/kernel": jnp.asarray(into, bool),
        "Dense_1/kernel": jnp.asarray(out, bool),
    }
    found = follow(net, variables, masks, inputs)
    assert list(found.layers) == ["Dense_0/kernel", "Dense_1/kernel"]
    # weights, kept, on a path, units, without input, without output
    assert numbers(found.layers["Dense_0/kernel"]) == (12, 3, 2, 4, 2, 2)
    assert numbers(found.layers["Dense_1/kernel"]) == (8, 2, 1, 2, 1, 0)
    assert (int(found.outputs), int(found.reached)) == (2, 1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_paths_of_random_networks_are_those_of_matrix_products(key, seed):
    widths = (9, 8, 7, 3)
    net, inputs = Perceptron(widths), jnp.ones((1, 6))
    variables = plain(net, key, inputs)
    rng = np.random.default_rng(seed)
    sizes = (6, *widths)
    masks = [rng.random(pair) < 0.25 for pair in itertools.pairwise(sizes)]
    forward = [np.ones(6, bool)]
    for mask in masks:
        forward.append((forward[-1] @ mask.astype(int)) > 0)
    backward = [np.ones(widths[-1], bool)]
    for mask in reversed(masks):
        backward.insert(0, (mask.astype(int) @ backward[0]) > 0)
    named = {f"Dense_{i}/kernel": jnp.asarray(mask) for i, mask in enumerate(masks)}
    found = follow(net, variables, named, inputs)
    for index, mask in enumerate(masks):
        used = mask & forward[index][:, None] & backward[index + 1][None]
        assert numbers(found.layers[f"Dense_{index}/kernel"]) == (
            mask.size,
            mask.sum(),
            used.sum(),
            mask.shape[1],
            (~forward[index + 1]).sum(),
            (~backward[index + 1]).sum(),
        )
    assert int(found.reached) == forward[-1].sum()


@pytest.mark.slow
def test_an_unpruned_network_is_connected(key):
    net, inputs = ConvNet(stages=(3, 4), classes=2, hidden=(7,)), jnp.ones((1, 8, 8, 2))
    variables = plain(net, key, inputs)
    found = follow(net, variables, everything(variables), inputs)
    names = [f"Conv_{i}/kernel" for i in range(4)] + [
        "Dense_0/kernel",
        "Dense_1/kernel",
    ]
    assert list(found.layers) == names
    for layer in found.layers.values():
        assert layer.on_path == layer.kept == layer.weights
        assert layer.without_input == layer.without_output == 0
    assert found.reached == found.outputs == 2


class Single(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(4, (3, 3))(x).reshape(x.shape[0], -1)


def test_of_one_pixel_only_the_middle_of_a_kernel_is_used(key):
    inputs = jnp.ones((1, 1, 1, 2))
    variables = plain(Single(), key, inputs)
    found = follow(Single(), variables, everything(variables), inputs)
    assert numbers(found.layers["Conv_0/kernel"]) == (72, 72, 8, 4, 0, 0)


class Residual(nn.Module):
    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Conv(4, (3, 3), use_bias=False)(x)
        y = nn.BatchNorm(use_running_average=not train)(x)
        y = nn.Conv(4, (3, 3), use_bias=False)(nn.relu(y))
        y = nn.BatchNorm(use_running_average=not train)(y)
        x = max_pool_2x2(nn.relu(x + y))
        return nn.Dense(3)(x.mean((1, 2)))


@pytest.mark.slow
def test_a_shortcut_keeps_a_network_together(key):
    inputs = jnp.ones((1, 8, 8, 2))
    variables = plain(Residual(), key, inputs)
    masks = everything(variables)
    masks["Conv_1/kernel"] = jnp.zeros_like(masks["Conv_1/kernel"])
    found = follow(Residual(), variables, masks, inputs)
    assert numbers(found.layers["Conv_1/kernel"]) == (144, 0, 0, 4, 4, 0)
    assert numbers(found.layers["Conv_0/kernel"]) == (72, 72, 72, 4, 0, 0)
    assert found.reached == found.outputs == 3
    masks["Conv_0/kernel"] = jnp.zeros_like(masks["Conv_0/kernel"])
    found = follow(Residual(), variables, masks, inputs)
    assert found.reached == 0
    assert all(layer.on_path == 0 for layer in found.layers.values())
    # Without a path from the inputs, with one to the outputs.
    assert numbers(found.layers["Dense_0/kernel"]) == (12, 12, 0, 3, 3, 0)


@pytest.mark.slow
def test_it_runs_on_the_masks_of_a_method(key):
    net, inputs = ConvNet(stages=(4,), classes=3, hidden=(8,)), jnp.ones((1, 8, 8, 1))
    model = Masked(net, EdgePopup(keep_fraction=0.1))
    variables = jax.jit(model.init)(key, inputs)
    masks = jax.jit(model.method.masks)(variables["frozen"], variables["params"])
    plainly = {"params": variables["frozen"]}
    found = follow(net, plainly, masks, inputs)
    kept = sum(int(layer.kept) for layer in found.layers.values())
    assert kept == sum(int(mask.sum()) for mask in masks.values())
    assert 0 < sum(int(layer.on_path) for layer in found.layers.values()) < kept


def test_a_mask_of_no_kernel_is_refused(key):
    net, inputs = Perceptron((2,)), jnp.ones((1, 3))
    variables = plain(net, key, inputs)
    with pytest.raises(KeyError, match="no weight at 'Dense_7/kernel'"):
        follow(net, variables, {"Dense_7/kernel": jnp.ones((3, 2), bool)}, inputs)


def test_a_network_of_functions_with_its_kernels_in_another_order(key):
    # Outputs first, as Equinox and PyTorch have them.
    def apply(weights, inputs):
        x = nn.relu(inputs @ weights["first"].T)
        return x @ weights["last"].swapaxes(0, 1)

    net = functional.stateless(lambda key, inputs: {}, apply)
    weights = {
        "first": jax.ShapeDtypeStruct((4, 3), jnp.float32),
        "last": jax.ShapeDtypeStruct((2, 4), jnp.float32),
    }
    into = np.array([[1, 0, 1, 0], [1, 0, 0, 0], [0, 0, 0, 0]], bool)
    out = np.array([[1, 0], [1, 0], [0, 0], [0, 0]], bool)
    masks = {"first": jnp.asarray(into.T), "last": jnp.asarray(out.T)}
    found = jax.jit(
        lambda masks: connectivity(net, weights, {}, masks, jnp.ones((5, 3)))
    )(masks)
    # As the small network that was counted by hand.
    assert numbers(found.layers["first"]) == (12, 3, 2, 4, 2, 2)
    assert numbers(found.layers["last"]) == (8, 2, 1, 2, 1, 0)
    assert (int(found.outputs), int(found.reached)) == (2, 1)


@pytest.mark.slow
def test_an_nnx_network_with_attention(key):
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.embed = nnx.Linear(3, 4, rngs=rngs)
            self.attention = nnx.MultiHeadAttention(2, 4, decode=False, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.last = nnx.Linear(4, 2, rngs=rngs)

        def __call__(self, x):
            x = self.norm(self.embed(x))
            return self.last(self.drop(x + self.attention(x)).mean(1))

    net, inputs = functional.NNX(Net), jnp.ones((1, 5, 3))
    weights, collections = jax.eval_shape(net.init, key, inputs)
    masks = {
        name: jnp.ones(leaf.shape, bool)
        for name, leaf in named_leaves(weights, kernels).items()
    }
    values = masks["attention/value/kernel"]
    masks["attention/value/kernel"] = values.at[:, 0].set(False)  # of one head
    found = jax.jit(
        lambda masks: connectivity(net, weights, collections, masks, inputs)
    )(masks)
    assert set(found.layers) == set(masks)
    # A head without values still has its pattern; queries and keys reach the output.
    head = found.layers["attention/value/kernel"]
    assert numbers(head) == (16, 8, 8, 4, 2, 0)
    for name in ("attention/query/kernel", "attention/out/kernel", "embed/kernel"):
        layer = found.layers[name]
        assert layer.on_path == layer.weights == layer.kept
    masks["last/kernel"] = masks["last/kernel"].at[:, 1].set(False)
    masks["embed/kernel"] = masks["embed/kernel"].at[:, 2].set(False)
    found = jax.jit(
        lambda masks: connectivity(net, weights, collections, masks, inputs)
    )(masks)
    assert (int(found.outputs), int(found.reached)) == (2, 1)
    assert int(found.layers["embed/kernel"].without_input) == 1


def test_a_network_without_a_graph_is_refused():
    net = functional.stateless(
        lambda key, inputs: {}, lambda weights, inputs: jnp.sort(inputs @ weights["a"])
    )
    weights = {"a": jax.ShapeDtypeStruct((3, 4), jnp.float32)}
    with pytest.raises(UnsupportedError, match="trace: sort is not supported"):
        connectivity(net, weights, {}, {}, jnp.ones((1, 3)))
