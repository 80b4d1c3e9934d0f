"""Graphs of networks compute the same as the modules, and count their weights."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import functional
from aslp_jax.export.cost import cost
from aslp_jax.export.network import graph_of
from aslp_jax.export.operations import Conv, Dense, MatMul, run
from aslp_jax.export.passes import compact
from aslp_jax.export.refusal import UnsupportedError
from aslp_jax.models import NETWORKS, Conv2, ConvNet
from aslp_jax.models.bottleneck import BottleneckResNet
from aslp_jax.models.initialisers import fan_in_uniform
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG
from tests.export.networks import run_graph, shapes_of


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
    graph = graph_of(net, variables, shape)
    found = jax.jit(functools.partial(run, graph))(images)
    assert found.shape == expected.shape and found.dtype == jnp.float32
    size = float(jnp.abs(expected).max())
    np.testing.assert_allclose(found, expected, rtol=0, atol=2e-6 * size)
    assert float(jnp.std(expected, axis=0).max()) > 1e-3 * size
    return graph


def layers(graph):
    operations = [node.operation for node in graph.nodes]
    return [each for each in operations if isinstance(each, Conv | Dense)]


BOTTLENECK = functools.partial(BottleneckResNet, stages=(2, 3), blocks=(2, 1))
BIASES = pytest.mark.parametrize("bias_init", [None, fan_in_uniform])


@pytest.mark.slow
@pytest.mark.parametrize(
    "arch, bias_init", [("conv2", None), ("conv4", fan_in_uniform), ("conv6", None)]
)
def test_the_papers_networks_on_digits(arch, bias_init):
    net = NETWORKS[arch](classes=10, bias_init=bias_init)
    graph = check(net, (8, 8, 1))
    shifts = [layer.shift is None for layer in layers(graph)]
    assert shifts == [bias_init is None] * len(shifts)


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
        (BOTTLENECK, (19, 16, 3)),
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
    graph = graph_of(net, zeros, (32, 32, 3))
    weights = sum(layer.kernel.size for layer in layers(graph))
    assert weights == {"vgg19": 20_024_000, "resnet18": 11_164_352}[arch]


def test_the_cost_of_conv2():
    net = Conv2(classes=10, bias_init=fan_in_uniform)
    variables = variables_of(net, (32, 32, 3))
    kernel = variables["params"]["Conv_1"]["kernel"]
    half = jnp.arange(kernel.size).reshape(kernel.shape) % 2
    variables["params"]["Conv_1"]["kernel"] = kernel * half.astype(jnp.float32)
    found = cost(graph_of(net, variables, (32, 32, 3)))
    weights = 4_300_992
    assert found.parameters == weights + 64 + 64 + 256 + 256 + 10
    assert found.nonzero == weights - 9 * 64 * 64 // 2
    dense = weights - 9 * 3 * 64 - 9 * 64 * 64
    assert found.multiply_adds == 1024 * 9 * (3 * 64 + 64 * 64) + dense
    assert found.nonzero_multiply_adds == 1024 * 9 * (3 * 64 + 64 * 32) + dense


def test_the_cost_of_attention():
    net = nn.MultiHeadDotProductAttention(num_heads=2)
    shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 5, 6)))
    variables = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), shapes)
    graph = graph_of(net, variables, (5, 6))
    found = cost(graph)
    # The queries are also scaled.
    assert found.parameters == 4 * (36 + 6) + 6 and found.nonzero == 4 * 36
    # Four projections of five tokens; then for each pair of tokens, two products.
    assert found.multiply_adds == 5 * 4 * 36 + 2 * 5 * 5 * 6
    assert sum(isinstance(n.operation, MatMul) for n in graph.nodes) == 2


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
    names = [layer.name for layer in layers(graph)]
    assert names == [
        *("Conv_0/kernel", "Conv_1/kernel", "Dense_0/kernel", "Dense_1/kernel")
    ]
    # Batch-norm and biases are part of the layers.
    assert cost(graph).parameters == sum(
        *([layer.kernel.size + layer.shift.size for layer in layers(graph)], 3)
    )


def test_a_network_of_functions():
    net = functional.stateless(
        lambda key, inputs: {"a": jnp.ones((3, 2))},
        lambda weights, inputs: jnp.tanh(inputs @ weights["a"]),
    )
    variables = {"params": {"a": np.full((3, 2), 0.5, np.float32)}}
    graph = graph_of(net, variables, (3,))
    assert layers(graph)[0].name == "a"
    found = run(graph, jnp.asarray([[1.0, 2, 3]]))
    np.testing.assert_allclose(found, np.tanh([[3.0, 3]]), rtol=1e-6)


def test_a_refusal_names_the_line():
    def fn(weights, inputs):
        return jnp.sort(inputs)

    net = functional.stateless(lambda key, inputs: {}, fn)
    with pytest.raises(UnsupportedError, match=r"sort is not .*test_network.py:\d+\)"):
        graph_of(net, {"params": {}}, (3,))


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "kind",
    [
        *("relu of a flattened image", "branches", "a sum of vectors"),
        *("a sum of flattened images", "a sum that broadcasts"),
        "a flattened image taken twice",
    ],
)
def test_layers_in_another_order(kind):
    with jax.numpy_rank_promotion("allow"):
        graph = check(Varied(kind), (6, 6, 2))
    images = np.random.default_rng(1).uniform(size=(3, 6, 6, 2)).astype(np.float32)
    found = run_graph(compact(graph), images)
    np.testing.assert_allclose(found, run(graph, jnp.asarray(images)), rtol=1e-5)
