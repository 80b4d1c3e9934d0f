"""Smaller networks with the same outputs; onnxruntime computes both."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aslp_jax.connectivity import connectivity
from aslp_jax.export.cost import cost
from aslp_jax.export.network import graph_of
from aslp_jax.export.operations import (
    Binary,
    Concatenate,
    Conv,
    Dense,
    Graph,
    Node,
    Reduce,
    Unary,
    run,
)
from aslp_jax.export.passes import compact
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import trace
from aslp_jax.models import ConvNet
from aslp_jax.models.initialisers import fan_in_uniform
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG
from tests.export import modules
from tests.export.networks import run_graph as compute
from tests.export.networks import shapes_of


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
    graph = graph_of(net, random_weights(net, shape, seed, keep), shape)
    images = pixels(shape)
    expected = compute(graph, images)
    size = max(1.0, float(np.abs(expected).max()))
    for merge in (True, False):
        small = compact(graph, merge=merge, multiple=multiple)
        np.testing.assert_allclose(
            compute(small, images), expected, rtol=0, atol=1e-5 * size
        )
        assert len(small.nodes) == len(graph.nodes)
        before, after = cost(graph), cost(small)
        assert after.nonzero <= before.nonzero
        assert after.multiply_adds <= before.multiply_adds
        for old, new in zip(graph.nodes, small.nodes, strict=True):
            if not isinstance(new.operation, Conv | Dense):
                continue
            if not merge:
                left = set(new.operation.kernel.ravel().tolist()) - {0.0}
                assert left <= set(old.operation.kernel.ravel().tolist())
            channels = new.shape[-1]
            assert channels % multiple == 0 or channels == old.shape[-1]


@pytest.mark.slow
def test_onnxruntime_agrees_with_jax():
    for net, shape in NETWORKS.values():
        graph = graph_of(net, random_weights(net, shape, 3, 0.5), shape)
        images = pixels(shape)
        np.testing.assert_allclose(
            jax.jit(functools.partial(run, graph))(images),
            compute(graph, images),
            rtol=1e-4,
        )


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(4))
def test_the_weights_on_a_path_remain(seed):
    # Without biases nothing is constant but 0, and one pixel leaves no padding between.
    net, shape = ConvNet(stages=(12,), hidden=(10, 9), classes=5), (2, 2, 3)
    variables = random_weights(net, shape, seed, 0.12)
    small = compact(graph_of(net, variables, shape))
    masks = {
        f"{layer}/kernel": jnp.asarray(entry["kernel"] != 0)
        for layer, entry in variables["params"].items()
    }
    images = jnp.ones((1, *shape))
    found = jax.jit(
        lambda masks: connectivity(net, variables["params"], {}, masks, images)
    )(masks)
    left = {
        node.operation.name: np.count_nonzero(node.operation.kernel)
        for node in small.nodes
        if isinstance(node.operation, Conv | Dense)
    }
    for name, layer in found.layers.items():
        # A convolution's taps in the padding are counted by us alone.
        assert left[name] >= int(layer.on_path)
        if name.startswith("Dense"):
            assert left[name] == int(layer.on_path), name
        assert left[name] <= int(layer.kept)
    total = sum(int(layer.kept) for layer in found.layers.values())
    assert sum(left.values()) < 0.9 * total


def conv(kernel, *, padding=0, **options):
    kernel = np.asarray(kernel, np.float32)
    return Conv("Conv", kernel, (1, 1), ((padding, padding),) * 2, (1, 1), **options)


RELU, ADD = Binary("max", np.float32(0)), Binary("add")
MEAN = Reduce("mean", (0, 1))


def chain(shape, *operations):
    """A graph of operations one behind another, that ends in the mean of all pixels."""
    nodes, (height, width, channels) = [], shape
    for index, each in enumerate(operations):
        channels = each.kernel.shape[3] if isinstance(each, Conv) else channels
        nodes.append(Node(each, (index,), (height, width, channels)))
    nodes.append(Node(MEAN, (len(operations),), (channels,)))
    return Graph(shape, tuple(nodes))


def widths(graph):
    """Number of channels of each layer, and of the outputs."""
    layers = [node for node in graph.nodes if isinstance(node.operation, Conv | Dense)]
    return [node.shape[-1] for node in (*layers, graph.nodes[-1])]


def test_a_constant_meets_the_zeros_of_the_padding():
    rng = np.random.default_rng(0)
    first = rng.normal(size=(3, 3, 1, 6))
    first[..., 2:5] = 0  # units 2, 3 and 4 are their shifts: 0.5, 2 and, by ReLU, 0
    shift = np.array([0, 0, 0.5, 2, -1, 0], np.float32)
    graph = chain(
        (4, 5, 1),
        conv(first, padding=1, shift=shift),
        RELU,
        conv(rng.normal(size=(3, 3, 6, 3)), padding=1),
    )
    small = compact(graph)
    assert widths(small) == [4, 3, 3]
    # The largest one stands for both.
    np.testing.assert_array_equal(small.nodes[0].operation.shift, [0, 0, 2, 0])
    whole = compact(graph, merge=False)
    assert widths(whole) == [5, 3, 3]
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
    assert widths(small) == [1, 2, 2]
    np.testing.assert_array_equal(small.nodes[1].operation.kernel, [[[[1, 0]]]])
    np.testing.assert_array_equal(small.nodes[1].operation.shift, [60, 0])


def test_both_sides_of_a_sum_keep_the_same_channels():
    # Channel 1 of the left side has no input and is always 4; that of the right varies.
    left, right = np.zeros((1, 1, 1, 3)), np.zeros((1, 1, 1, 3))
    left[..., 0], right[..., 1] = 1, 1
    graph = Graph(
        (1, 1, 1),
        (
            Node(conv(left, shift=np.array([0, 4, 1], np.float32)), (0,), (1, 1, 3)),
            Node(conv(right), (0,), (1, 1, 3)),
            Node(ADD, (1, 2), (1, 1, 3)),
            Node(RELU, (3,), (1, 1, 3)),
            Node(conv(np.ones((1, 1, 3, 1))), (4,), (1, 1, 1)),
        ),
    )
    small = compact(graph)
    assert widths(small) == [2, 2, 1, 1]
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
            Node(ADD, (2, 3), (3, 3, 2)),
            Node(MEAN, (4,), (2,)),
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
    assert widths(small) == [1, 2, 2]
    assert cost(small).nonzero == 0
    np.testing.assert_array_equal(compute(small, pixels((2, 2, 1))), [shift] * 3)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_network_without_any_path_is_a_constant(name):
    net, shape = NETWORKS[name]
    variables = random_weights(net, shape, 5, 0.5)
    kernel = variables["params"]["Conv_0"]["kernel"]
    variables["params"]["Conv_0"]["kernel"] = np.zeros_like(kernel)
    graph = graph_of(net, variables, shape)
    small = compact(graph)
    found = compute(small, pixels(shape))
    np.testing.assert_allclose(found, compute(graph, pixels(shape)), rtol=1e-5)
    if name != "resnet":
        assert np.ptp(found, axis=0).max() == 0
    if name == "plain":
        assert widths(small) == [1, 1, 1, 1, 1, 1, 4, 4]


def test_channels_stay_a_multiple_with_units_of_zeros():
    first = np.zeros((1, 1, 1, 16), np.float32)
    first[..., 3:8] = 1  # the others are their shifts: 1, and by ReLU, 0
    shift = np.array([1, -1] * 8, np.float32)
    last = np.ones((1, 1, 16, 6), np.float32)
    last[..., 4:] = 0
    layers = (
        conv(first, shift=shift),
        RELU,
        conv(last),
        conv(np.ones((1, 1, 6, 3))),
    )
    graph = chain((2, 2, 1), *layers)
    assert widths(compact(graph)) == [5, 4, 3, 3]
    small = compact(graph, multiple=8)
    # The second has no eight, and all logits stay in any case.
    assert widths(small) == [8, 6, 3, 3]
    images = pixels((2, 2, 1))
    np.testing.assert_allclose(
        compute(small, images), compute(graph, images), rtol=1e-6
    )
    zeros = small.nodes[0].operation.kernel.ravel() == 0
    assert zeros.tolist() == [True] * 3 + [False] * 5
    assert (small.nodes[0].operation.shift[zeros] == 0).all()
    assert (small.nodes[2].operation.kernel[:, :, zeros] == 0).all()


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
            Node(ADD, (1, 2), (3, 3, 3)),
            Node(conv(last), (3,), (1, 1, 2)),
        ),
    )
    small = compact(graph)
    assert np.abs(small.nodes[1].operation.kernel).max() < 100
    images = pixels((3, 3, 1))
    np.testing.assert_allclose(
        compute(small, images), compute(graph, images), rtol=1e-5
    )


def test_a_dense_network_stays_as_it_is():
    net, shape = NETWORKS["biased"]
    graph = graph_of(net, random_weights(net, shape, 0, 1.0), shape)
    small = compact(graph)
    for old, new in zip(graph.nodes, small.nodes, strict=True):
        if isinstance(new.operation, Conv | Dense):
            np.testing.assert_array_equal(new.operation.kernel, old.operation.kernel)
            np.testing.assert_array_equal(new.operation.shift, old.operation.shift)
    assert cost(small) == cost(graph)


SHRINK = {"convolutions", "perceptron", "signals", "squeeze_and_excite"}
"""Modules of which units are left out; the others mix channels, or return all."""


def sparse(weights, keep=0.15, seed=1):
    """Weights of which few are kept, none of some units."""
    rng = np.random.default_rng(seed)

    def prune(leaf):
        if leaf.ndim < 2:
            return leaf
        mask = rng.random(leaf.shape) < keep
        return leaf * (mask & (rng.random(leaf.shape[-1]) < 0.6))

    return jax.tree.map(prune, weights)


@pytest.mark.slow
@pytest.mark.parametrize("name", modules.NAMES)
def test_modules_with_dead_units(name):
    fn, weights, shape = modules.module(name)
    with modules.promotion():
        graph = trace(fn, sparse(weights), jax.ShapeDtypeStruct(shape, jnp.float32))
    graph, inputs = simplify(graph), modules.inputs_of(name)
    expected = compute(graph, inputs)
    for multiple in (1, 4):
        for merge in (True, False):
            small = compact(graph, merge=merge, multiple=multiple)
            found = compute(small, inputs)
            np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    fewer = cost(compact(graph)).parameters / cost(graph).parameters
    assert fewer < 0.9 or name not in SHRINK


def pointwise(rows, *, scale=None, shift=None):
    """A 1x1 convolution."""
    shift = None if shift is None else np.asarray(shift, np.float32)
    return conv(np.asarray(rows)[None, None], scale=scale, shift=shift)


FIRST = pointwise([[1, 0, 2, 0]], shift=[0, 3, 1, -1])
"""Four units of one channel; unit 1 and 3 are constant."""


def depthwise(kernel, channels, times=1, **options):
    layer = conv(np.reshape(kernel, (1, 1, 1, channels * times)), **options)
    return Conv("Depth", layer.kernel, (1, 1), layer.padding, (1, 1), groups=channels)


@pytest.mark.parametrize(("times", "left"), [(1, [1, 1, 2, 2]), (2, [1, 2, 2, 2])])
def test_a_unit_goes_with_its_depthwise_filter(times, left):
    width = 4 * times
    last = np.ones((width, 2))
    last[2 * times :] = 0  # unit 2 and 3 give nothing; 0 varies, and 1 is constant
    graph = chain(
        (2, 2, 1),
        FIRST,
        Unary("tanh"),
        depthwise(np.arange(1, width + 1), 4, times),
        pointwise(last),
    )
    nodes = list(graph.nodes)
    assert nodes[2].shape == (2, 2, width)
    small = compact(graph)
    assert widths(small) == left
    assert small.nodes[2].operation.groups == 1
    images = pixels((2, 2, 1))
    np.testing.assert_allclose(
        compute(small, images), compute(graph, images), rtol=1e-5
    )


def test_groups_of_several_channels_stay():
    kernel = np.zeros((1, 1, 2, 4), np.float32)
    kernel[..., 0, 0] = 1
    grouped = Conv("Group", kernel, (1, 1), ((0, 0),) * 2, (1, 1), groups=2)
    graph = chain((2, 2, 1), FIRST, grouped, pointwise(np.eye(4)))
    assert widths(compact(graph)) == [4, 4, 4, 4]


def test_concatenated_channels_are_those_of_the_parts():
    constant = np.full((2, 2, 3), 7, np.float32)
    last = np.zeros((11, 2))
    last[[0, 1, 4, 8, 9]] = 1  # of both parts, two of the constant, unit 1 of all
    last = np.where(last == 0, 0, np.arange(22).reshape(11, 2) + 1)
    graph = Graph(
        (2, 2, 1),
        (
            Node(FIRST, (0,), (2, 2, 4)),
            Node(pointwise(np.eye(4)[:1]), (0,), (2, 2, 4)),
            Node(Concatenate(2, (None, constant, None)), (1, 2), (2, 2, 11)),
            Node(pointwise(last), (3,), (2, 2, 2)),
            Node(MEAN, (4,), (2,)),
        ),
    )
    small = compact(graph)
    # The constants, 3 of unit 1 and 7, go into the shifts.
    assert widths(small) == [1, 1, 2, 2]
    assert small.nodes[2].operation.constants == (None, None)
    images = pixels((2, 2, 1))
    np.testing.assert_allclose(
        compute(small, images), compute(graph, images), rtol=1e-5
    )


def test_units_that_fill_up_are_numbers_where_they_divide():
    # One over the unit; of 0 it would be infinite, and 0 times that no number.
    first = pointwise([[1, 2, 3, 4]], shift=[2, 2, 2, 2])
    one_over = Binary("div", np.float32(1), constant_first=True)
    last = np.zeros((4, 2))
    last[0] = 1
    graph = chain((2, 2, 1), first, one_over, pointwise(last))
    root = chain((2, 2, 1), first, Unary("log"), pointwise(last))
    images = pixels((2, 2, 1))
    for each in (graph, root):
        small = compact(each, multiple=3)
        assert widths(small) == [3, 2, 2]
        np.testing.assert_allclose(
            compute(small, images), compute(each, images), rtol=1e-5
        )
