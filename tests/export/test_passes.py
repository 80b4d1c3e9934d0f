"""Smaller networks with the same outputs, against a slow computation in NumPy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.lib.stride_tricks import sliding_window_view

from aslp_jax.connectivity import connectivity
from aslp_jax.export import graph as graphs
from aslp_jax.export.graph import Add, Conv, Graph, Mean, Node
from aslp_jax.export.lower import layers_of
from aslp_jax.export.passes import compact
from aslp_jax.models import ConvNet
from aslp_jax.models.initialisers import fan_in_uniform
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG
from tests.export.networks import shapes_of


def compute(graph, images):
    """Computes a graph as `graphs.run` does, in float64 and without JAX."""
    values = [np.asarray(images, np.float64)]
    for node in graph.nodes:
        layer, inputs = node.layer, [values[index] for index in node.inputs]
        if isinstance(layer, Conv):
            border = (layer.padding, layer.padding)
            padded = np.pad(inputs[0], ((0, 0), border, border, (0, 0)))
            windows = sliding_window_view(padded, layer.kernel.shape[:2], (1, 2))
            windows = windows[:, :: layer.stride, :: layer.stride]
            result = np.einsum("nyxihw,hwio->nyxo", windows, layer.kernel)
            result = result * (1 if layer.scale is None else layer.scale)
            result = result + (0 if layer.shift is None else layer.shift)
        elif isinstance(layer, Add):
            result = inputs[0] + inputs[1]
        else:
            result = inputs[0].mean((1, 2), keepdims=True)
        if not isinstance(layer, Mean) and layer.relu:
            result = np.maximum(result, 0)
        if isinstance(layer, Conv) and layer.pool:
            n, height, width, channels = result.shape
            result = result[:, : height // 2 * 2, : width // 2 * 2]
            result = result.reshape(n, height // 2, 2, width // 2, 2, channels)
            result = result.max((2, 4))
        assert result.shape[1:] == node.shape
        values.append(result)
    return values[-1].reshape(len(images), -1)


def random_weights(net, shape, seed, keep):
    """Weights with random masks; batch statistics and biases of both signs."""
    rng = np.random.default_rng(seed)

    def fill(path, leaf):
        name = jax.tree_util.keystr(path)
        values = rng.normal(size=leaf.shape).astype(np.float32)
        if "kernel" in name:
            return values * (rng.random(leaf.shape) < keep)
        return np.abs(values) if "var" in name else values

    return jax.tree_util.tree_map_with_path(fill, shapes_of(net, shape))


def pixels(shape, batch=3):
    return np.random.default_rng(7).uniform(size=(batch, *shape)).astype(np.float32)


PLAIN = ConvNet(stages=(6, 8), hidden=(10, 9), classes=4)
BIASED = PLAIN.clone(bias_init=fan_in_uniform)
NETWORKS = {
    "plain": (PLAIN, (8, 8, 2)),
    "biased": (BIASED, (9, 8, 2)),
    "vgg": (VGG(stages=((5, 6), (7, 8)), classes=4), (8, 8, 2)),
    "resnet": (ResNet(stages=(5, 6, 6), classes=4), (9, 8, 2)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
@given(
    seed=st.integers(0, 10**6),
    keep=st.sampled_from([0.01, 0.03, 0.1, 0.3]),
    multiple=st.sampled_from([1, 4]),
)
@settings(max_examples=20, deadline=None)
def test_the_outputs_stay(name, seed, keep, multiple):
    net, shape = NETWORKS[name]
    graph = layers_of(net, random_weights(net, shape, seed, keep), shape)
    images = pixels(shape)
    expected = compute(graph, images)
    size = max(1.0, float(np.abs(expected).max()))
    for merge in (True, False):
        small = compact(graph, merge=merge, multiple=multiple)
        np.testing.assert_allclose(
            compute(small, images), expected, rtol=0, atol=1e-5 * size
        )
        assert len(small.nodes) == len(graph.nodes)
        before, after = graphs.cost(graph), graphs.cost(small)
        assert after.nonzero <= before.nonzero
        assert after.multiply_adds <= before.multiply_adds
        for old, new in zip(graph.nodes, small.nodes, strict=True):
            if isinstance(new.layer, Conv) and not merge:
                left = set(new.layer.kernel.ravel().tolist()) - {0.0}
                assert left <= set(old.layer.kernel.ravel().tolist())
            if not isinstance(new.layer, Mean | Add):
                channels = new.shape[2]
                assert channels % multiple == 0 or channels == old.shape[2]


@pytest.mark.slow
def test_the_oracle_agrees_with_jax():
    for net, shape in NETWORKS.values():
        graph = layers_of(net, random_weights(net, shape, 3, 0.5), shape)
        images = pixels(shape)
        np.testing.assert_allclose(
            jax.jit(functools.partial(graphs.run, graph))(images),
            compute(graph, images),
            rtol=1e-4,
        )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_weights_on_a_path_remain(seed):
    # Without biases nothing is constant but 0, and one pixel leaves no padding between.
    net, shape = ConvNet(stages=(12,), hidden=(10, 9), classes=5), (2, 2, 3)
    variables = random_weights(net, shape, seed, 0.12)
    small = compact(layers_of(net, variables, shape))
    masks = {
        f"{layer}/kernel": jnp.asarray(entry["kernel"] != 0)
        for layer, entry in variables["params"].items()
    }
    images = jnp.ones((1, *shape))
    found = jax.jit(functools.partial(connectivity, net))(variables, masks, images)
    left = {
        f"{node.layer.name}/kernel": np.count_nonzero(node.layer.kernel)
        for node in small.nodes
    }
    for name, layer in found.layers.items():
        # A convolution's taps in the padding are counted by us alone.
        assert left[name] >= int(layer.on_path)
        if name.startswith("Dense"):
            assert left[name] == int(layer.on_path), name
        assert left[name] <= int(layer.kept)
    total = sum(int(layer.kept) for layer in found.layers.values())
    assert sum(left.values()) < 0.9 * total


def conv(kernel, **options):
    return Conv("Conv", np.asarray(kernel, np.float32), **options)


def chain(shape, *layers):
    """A graph of layers one behind another, that ends in the mean of all pixels."""
    nodes, (height, width, _) = [], shape
    for index, layer in enumerate(layers):
        nodes.append(Node(layer, (index,), (height, width, layer.kernel.shape[3])))
    channels = layers[-1].kernel.shape[3]
    nodes.append(Node(Mean(), (len(layers),), (1, 1, channels)))
    return Graph(shape, tuple(nodes))


def test_a_constant_meets_the_zeros_of_the_padding():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(3, 3, 1, 6))
    first[..., 2:5] = 0  # units 2, 3 and 4 are their shifts: 0.5, 2 and, by ReLU, 0
    shift = np.array([0, 0, 0.5, 2, -1, 0], np.float32)
    graph = chain(
        (4, 5, 1),
        conv(first, padding=1, shift=shift, relu=True),
        conv(rng.normal(size=(3, 3, 6, 3)), padding=1),
    )
    small = compact(graph)
    assert [node.shape[2] for node in small.nodes] == [4, 3, 3]
    # The largest one stands for both.
    np.testing.assert_array_equal(small.nodes[0].layer.shift, [0, 0, 2, 0])
    whole = compact(graph, merge=False)
    assert [node.shape[2] for node in whole.nodes] == [5, 3, 3]
    for each in (small, whole):
        np.testing.assert_allclose(
            compute(each, pixels((4, 5, 1))),
            compute(graph, pixels((4, 5, 1))),
            rtol=1e-5,
        )


def test_a_constant_goes_into_the_shift_where_nothing_is_padded():
    first = np.zeros((1, 1, 1, 3), np.float32)
    first[..., 0] = 1
    graph = chain(
        (2, 2, 1),
        conv(first, shift=np.array([0, 3, 5], np.float32)),
        conv([[[[1, 0], [2, 0], [0, 0]]]], scale=np.array([10, 10], np.float32)),
    )
    small = compact(graph)
    assert [node.shape[2] for node in small.nodes] == [1, 2, 2]
    np.testing.assert_array_equal(small.nodes[1].layer.kernel, [[[[1, 0]]]])
    np.testing.assert_array_equal(small.nodes[1].layer.shift, [60, 0])


def test_both_sides_of_a_sum_keep_the_same_channels():
    # Channel 1 of the left side has no input and is always 4; that of the right varies.
    left, right = np.zeros((1, 1, 1, 3)), np.zeros((1, 1, 1, 3))
    left[..., 0], right[..., 1] = 1, 1
    graph = Graph(
        (1, 1, 1),
        (
            Node(conv(left, shift=np.array([0, 4, 1], np.float32)), (0,), (1, 1, 3)),
            Node(conv(right), (0,), (1, 1, 3)),
            Node(Add(relu=True), (1, 2), (1, 1, 3)),
            Node(conv(np.ones((1, 1, 3, 1))), (3,), (1, 1, 1)),
        ),
    )
    small = compact(graph)
    assert [node.shape[2] for node in small.nodes] == [2, 2, 2, 1]
    images = np.array([-1.0, 0, 2]).reshape(3, 1, 1, 1)
    # relu(x) + relu(4 + x) + 1
    np.testing.assert_array_equal(compute(small, images).ravel(), [4, 5, 9])


def test_one_constant_stands_for_those_that_several_layers_need():
    first = np.zeros((1, 1, 1, 3), np.float32)
    first[..., 0] = 1
    kernel = np.random.default_rng(0).normal(size=(2, 3, 3, 3, 2))
    kernel[0, :, :, 2] = kernel[1, :, :, 1] = 0
    graph = Graph(
        (3, 3, 1),
        (
            Node(conv(first, shift=np.array([0, 2, 5], np.float32)), (0,), (3, 3, 3)),
            Node(conv(kernel[0], padding=1), (1,), (3, 3, 2)),
            Node(conv(kernel[1], padding=1), (1,), (3, 3, 2)),
            Node(Add(), (2, 3), (3, 3, 2)),
            Node(Mean(), (4,), (1, 1, 2)),
        ),
    )
    small = compact(graph)
    assert small.nodes[0].shape[2] == 2
    images = pixels((3, 3, 1))
    np.testing.assert_allclose(
        compute(small, images), compute(graph, images), rtol=1e-5
    )


def test_a_layer_that_nothing_needs_keeps_a_constant():
    first = np.zeros((1, 1, 1, 3), np.float32)
    first[..., 0] = first[..., 2] = 1
    shift = np.array([7, 8], np.float32)
    graph = chain((2, 2, 1), conv(first), conv(np.zeros((1, 1, 3, 2)), shift=shift))
    small = compact(graph)
    assert [node.shape[2] for node in small.nodes] == [1, 2, 2]
    assert graphs.cost(small).nonzero == 0
    np.testing.assert_array_equal(compute(small, pixels((2, 2, 1))), [shift] * 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_any_path_is_a_constant(name):
    net, shape = NETWORKS[name]
    variables = random_weights(net, shape, 5, 0.5)
    kernel = variables["params"]["Conv_0"]["kernel"]
    variables["params"]["Conv_0"]["kernel"] = np.zeros_like(kernel)
    graph = layers_of(net, variables, shape)
    small = compact(graph)
    found = compute(small, pixels(shape))
    np.testing.assert_allclose(found, compute(graph, pixels(shape)), rtol=1e-5)
    if name != "resnet":
        assert np.ptp(found, axis=0).max() == 0
    if name == "plain":
        assert [node.shape[2] for node in small.nodes] == [1, 1, 1, 1, 1, 1, 4]


def test_channels_stay_a_multiple_with_units_of_zeros():
    first = np.zeros((1, 1, 1, 16), np.float32)
    first[..., 3:8] = 1  # the others are their shifts: 1, and by ReLU, 0
    shift = np.array([1, -1] * 8, np.float32)
    last = np.ones((1, 1, 16, 6), np.float32)
    last[..., 4:] = 0
    layers = (
        conv(first, shift=shift, relu=True),
        conv(last),
        conv(np.ones((1, 1, 6, 3))),
    )
    graph = chain((2, 2, 1), *layers)
    assert [node.shape[2] for node in compact(graph).nodes] == [5, 4, 3, 3]
    small = compact(graph, multiple=8)
    # The second has no eight, and all logits stay in any case.
    assert [node.shape[2] for node in small.nodes] == [8, 6, 3, 3]
    images = pixels((2, 2, 1))
    np.testing.assert_allclose(
        compute(small, images), compute(graph, images), rtol=1e-6
    )
    zeros = small.nodes[0].layer.kernel.ravel() == 0
    assert zeros.tolist() == [True] * 3 + [False] * 5
    assert (small.nodes[0].layer.shift[zeros] == 0).all()
    assert (small.nodes[1].layer.kernel[:, :, zeros] == 0).all()


def test_a_remainder_of_rounding_stands_for_nothing():
    # Unit 1 is little enough to be what float32 leaves of 0, and stays for a sum.
    first = np.zeros((1, 1, 1, 3), np.float32)
    first[..., 0] = 1
    shift = np.array([0, 1e-8, 5], np.float32)
    kernel = np.random.default_rng(0).normal(size=(3, 3, 3, 3))
    last = np.ones((3, 3, 3, 2))
    last[:, :, 2] = 0
    graph = Graph(
        (3, 3, 1),
        (
            Node(conv(first, shift=shift), (0,), (3, 3, 3)),
            Node(conv(kernel, padding=1), (1,), (3, 3, 3)),
            Node(Add(), (1, 2), (3, 3, 3)),
            Node(conv(last), (3,), (1, 1, 2)),
        ),
    )
    small = compact(graph)
    assert np.abs(small.nodes[1].layer.kernel).max() < 100
    images = pixels((3, 3, 1))
    np.testing.assert_allclose(
        compute(small, images), compute(graph, images), rtol=1e-5
    )


def test_a_dense_network_stays_as_it_is():
    net, shape = NETWORKS["biased"]
    graph = layers_of(net, random_weights(net, shape, 0, 1.0), shape)
    small = compact(graph)
    for old, new in zip(graph.nodes, small.nodes, strict=True):
        np.testing.assert_array_equal(new.layer.kernel, old.layer.kernel)
        np.testing.assert_array_equal(new.layer.shift, old.layer.shift)
    assert graphs.cost(small) == graphs.cost(graph)
