"""Graphs of networks compute the same as the modules, and count their weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.export import graph as graphs
from aslp_jax.export.graph import Conv
from aslp_jax.export.lower import layers_of
from aslp_jax.export.trace import UnsupportedError
from aslp_jax.models import NETWORKS, Conv2, ConvNet
from aslp_jax.models.initialisers import fan_in_uniform
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG
from tests.export.networks import shapes_of


def variables_of(net, shape, seed=0):
    """Returns random variables, none of them 0 or 1."""
    rng = np.random.default_rng(seed)

    def fill(leaf):
        if leaf.ndim > 1:
            std = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return jnp.asarray(rng.normal(0, std, leaf.shape), leaf.dtype)
        return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)

    return jax.tree.map(fill, shapes_of(net, shape))


def check(net, shape, batch=3):
    variables = variables_of(net, shape)
    images = np.random.default_rng(1).uniform(size=(batch, *shape))
    images = jnp.asarray(images, jnp.float32)
    expected = jax.jit(net.apply)(variables, images)
    graph = layers_of(net, variables, shape)
    found = jax.jit(functools.partial(graphs.run, graph))(images)
    assert found.shape == expected.shape and found.dtype == jnp.float32
    size = float(jnp.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * size)
    assert float(jnp.std(expected, axis=0).max()) > 1e-3 * size
    return graph


BIASES = pytest.mark.parametrize("bias_init", [None, fan_in_uniform])


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch, bias_init", [("conv2", None), ("conv4", fan_in_uniform), ("conv6", None)]
)
def test_the_papers_networks_on_digits(arch, bias_init):
    net = NETWORKS[arch](classes=10, bias_init=bias_init)
    graph = check(net, (8, 8, 1))
    shifts = [node.layer.shift is None for node in graph.nodes]
    assert shifts == [bias_init is None] * len(graph.nodes)


@pytest.mark.slow
@BIASES
@pytest.mark.parametrize(
    "network, shape",
    [
        (functools.partial(ConvNet, stages=(3, 5), hidden=(7,)), (9, 11, 2)),
        (functools.partial(VGG, stages=((4,), (5, 6))), (8, 8, 3)),
        (functools.partial(VGG, stages=((4, 3),)), (7, 12, 3)),  # the mean of pixels
        (functools.partial(ResNet, stages=(4, 6, 6)), (9, 8, 3)),
        # A stride that leaves one pixel one pixel, and the channels as they are.
        (functools.partial(ResNet, stages=(4, 6, 6)), (2, 2, 3)),
    ],
)
def test_small_networks(network, shape, bias_init):
    check(network(classes=4, bias_init=bias_init), shape)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["vgg19", "resnet18"])
def test_deep_networks(arch):
    net = NETWORKS[arch](classes=10)
    # As deep as they are, and a sixteenth as wide.
    narrow = jax.tree.map(lambda width: width // 16, net.stages)
    check(net.clone(stages=narrow), (32, 32, 3), batch=2)
    zeros = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes_of(net, (32, 32, 3))
    )
    # Convolutions and the dense layer.
    weights = sum(
        node.layer.kernel.size
        for node in layers_of(net, zeros, (32, 32, 3)).nodes
        if isinstance(node.layer, Conv)
    )
    assert weights == {"vgg19": 20_024_000, "resnet18": 11_164_352}[arch]


def test_the_cost_of_conv2():
    net = Conv2(classes=10, bias_init=fan_in_uniform)
    variables = variables_of(net, (32, 32, 3))
    kernel = variables["params"]["Conv_1"]["kernel"]
    half = jnp.arange(kernel.size).reshape(kernel.shape) % 2
    variables["params"]["Conv_1"]["kernel"] = kernel * half.astype(jnp.float32)
    found = graphs.cost(layers_of(net, variables, (32, 32, 3)))
    weights = 4_300_992
    assert found.parameters == weights + 64 + 64 + 256 + 256 + 10
    assert found.nonzero == weights - 9 * 64 * 64 // 2
    dense = weights - 9 * 3 * 64 - 9 * 64 * 64
    assert found.multiply_adds == 1024 * 9 * (3 * 64 + 64 * 64) + dense
    assert found.nonzero_multiply_adds == 1024 * 9 * (3 * 64 + 64 * 32) + dense


def test_dense_layers_are_told_from_convolutions():
    net = Conv2(classes=10)
    graph = layers_of(net, variables_of(net, (8, 8, 1)), (8, 8, 1))
    assert [node.layer.dense for node in graph.nodes] == [False] * 2 + [True] * 3
    assert graph.nodes[2].layer.kernel.shape == (4, 4, 64, 256)
    assert graphs.summed_shape(graph.nodes[1].layer, (8, 8, 64)) == (8, 8, 64)
    assert graph.nodes[1].shape == (4, 4, 64) and graph.classes == 10


class Tiny(nn.Module):
    """A module that nobody here has described."""

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.relu(nn.Conv(3, (5, 3), strides=2, padding=1)(x))
        y = nn.Conv(3, (1, 1))(x)
        y = nn.BatchNorm(use_running_average=not train)(y)
        x = nn.relu(x + y)
        x = nn.relu(nn.Dense(5)(x)).mean((1, 2))
        return nn.Dense(2)(x)


def test_a_module_of_ones_own():
    graph = check(Tiny(), (9, 8, 2))
    kinds = [type(node.layer).__name__ for node in graph.nodes]
    assert kinds == ["Conv", "Conv", "Add", "Conv", "Mean", "Conv"]
    names = [node.layer.name for node in graph.nodes if isinstance(node.layer, Conv)]
    assert names == ["Conv_0", "Conv_1", "Dense_0", "Dense_1"]


class Refused(nn.Module):
    """Computes with one operation that no layer can hold."""

    kind: str

    @nn.compact
    def __call__(self, x, *, train):
        match self.kind:
            case "depthwise":
                x = nn.Conv(2, (3, 3), feature_group_count=2)(x)
            case "same":
                x = nn.Conv(2, (3, 3), strides=2)(x)
            case "tanh":
                x = nn.tanh(nn.Conv(2, (3, 3))(x))
            case "pool":
                x = nn.max_pool(nn.Conv(2, (3, 3))(x), (3, 3))
            case "shared":
                x = nn.Conv(2, (3, 3))(x)
                return nn.Dense(2)((nn.relu(x) + x).mean((1, 2)))
            case "pixels":
                return nn.Dense(2)(x)
        return nn.Dense(2)(x.mean((1, 2)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("depthwise", "the convolution 'Conv_0' with strides"),
        ("same", "padding ((0, 1), (0, 1)), dilation"),
        ("tanh", "lower: Unary tanh to [8, 8, 2] is part of no layer; supported are"),
        ("pool", "lower: Window max to [6, 6, 2] is part of no layer"),
        ("shared", "lower: Binary max to [8, 8, 2] is part of no layer"),
        ("pixels", "returns [8, 8, 2] for each image; expected logits"),
    ],
)
def test_an_operation_that_no_layer_holds_is_refused_by_name(kind, words):
    net = Refused(kind)
    variables = net.init(jax.random.key(0), jnp.zeros((1, 8, 8, 2)), train=False)
    with pytest.raises(UnsupportedError) as refused:
        layers_of(net, variables, (8, 8, 2))
    assert words in str(refused.value) and "\n" not in str(refused.value)


class Varied(nn.Module):
    """Computes with layers in an order that the built-in networks do not have."""

    kind: str

    @nn.compact
    def __call__(self, x, *, train=False):
        x = nn.Conv(3, (3, 3))(x)
        match self.kind:
            case "relu of a flattened image":
                return nn.Dense(2)(nn.relu(x.reshape(x.shape[0], -1)))
            case "branches":
                y, z = nn.Conv(3, (1, 1))(x), nn.Conv(3, (3, 3))(x)
                x = nn.relu(y) + nn.relu(z)
            case "a sum of vectors":
                x = x.mean((1, 2))
                return nn.relu(nn.Dense(2)(x) + nn.Dense(2)(x))
            case "a sum of flattened images":
                y = nn.Conv(3, (3, 3))(x)
                flat = [each.reshape(each.shape[0], -1) for each in (x, y)]
                return nn.Dense(2)(flat[0] + flat[1])
            case "a sum that broadcasts":
                x = x + nn.Conv(3, (6, 6), padding="VALID")(x)
            case "a flattened image taken twice":
                flat = x.reshape(x.shape[0], -1)
                return nn.Dense(2)(nn.relu(flat)) + nn.Dense(2)(flat)
        return nn.Dense(2)(x.mean((1, 2)))


@pytest.mark.parametrize(
    "kind", ["relu of a flattened image", "branches", "a sum of vectors"]
)
def test_layers_in_another_order(kind):
    check(Varied(kind), (6, 6, 2))


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("a sum of flattened images", "lower: Binary add to [108] is part of no layer"),
        ("a sum that broadcasts", "lower: Binary add to [6, 6, 3] is part of no layer"),
        ("a flattened image taken twice", "lower: Binary max to [108] is part of no"),
    ],
)
def test_what_only_looks_like_a_layer_is_refused(kind, words):
    net = Varied(kind)
    with jax.numpy_rank_promotion("allow"):
        variables = net.init(jax.random.key(0), jnp.zeros((1, 6, 6, 2)))
        with pytest.raises(UnsupportedError) as refused:
            layers_of(net, variables, (6, 6, 2))
    assert words in str(refused.value)
