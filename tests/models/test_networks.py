import ast
import functools
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.models import (
    NETWORKS,
    Conv2,
    Conv4,
    Conv6,
    ConvNet,
    conv_net,
    layers,
    resnet,
    vgg,
)
from aslp_jax.models.bottleneck import ResNet50
from aslp_jax.models.initialisers import fan_in_uniform
from aslp_jax.models.layers import max_pool_2x2

SIZES = [(8, 8, 1), (32, 32, 3), (28, 28, 1), (33, 31, 3)]


def small_net(**options):
    defaults = {"stages": (4, 6, 8), "classes": 10, "hidden": (7, 5)}
    return ConvNet(**(defaults | options))


def images_of(size, batch=2):
    pixels = np.random.default_rng(0).uniform(size=(batch, *size))
    return jnp.asarray(pixels, jnp.float32)


def variables_of(net, images):
    """Variables without compiling their initialisation: normal kernels, any biases."""
    rng = np.random.default_rng(1)

    def draw(leaf):
        fan_in = max(np.prod(leaf.shape[:-1]), 1)
        drawn = rng.normal(0, np.sqrt(2 / fan_in), leaf.shape)
        return jnp.asarray(drawn, leaf.dtype)

    return jax.tree.map(draw, jax.eval_shape(net.init, jax.random.key(0), images))


@pytest.mark.parametrize("name", NETWORKS)
def test_the_number_of_classes_comes_first(name):
    assert NETWORKS[name](7) == NETWORKS[name](classes=7)
    assert NETWORKS[name](7).classes == 7


@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("network", [Conv2, Conv4, Conv6])
def test_shapes(key, network, size, classes):
    images = jax.ShapeDtypeStruct((3, *size), jnp.float32)
    net = network(classes)
    outputs, variables = jax.eval_shape(net.init_with_output, key, images)
    assert outputs.shape == (3, classes) and outputs.dtype == jnp.float32
    assert set(variables) == {"params"}

    params = variables["params"]
    stages = {Conv2: [64], Conv4: [64, 128], Conv6: [64, 128, 256]}[network]
    widths = [width for width in stages for _ in range(2)]
    channels = [size[2], *widths]
    for i in range(len(widths)):
        shape = (3, 3, channels[i], channels[i + 1])
        assert params[f"Conv_{i}"]["kernel"].shape == shape
    height, width = (n // 2 ** len(stages) for n in size[:2])
    units = [height * width * stages[-1], 256, 256, classes]
    for i in range(3):
        assert params[f"Dense_{i}"]["kernel"].shape == (units[i], units[i + 1])
    assert len(params) == len(widths) + 3


def test_names():
    small = {"conv2": Conv2, "conv4": Conv4, "conv6": Conv6}
    deep = {"vgg19": vgg.VGG19, "resnet18": resnet.ResNet18}
    assert small | deep | {"resnet50": ResNet50} == NETWORKS


@pytest.mark.slow
@pytest.mark.parametrize("classes", [10, 100])
@pytest.mark.parametrize("size", SIZES)
def test_outputs_are_finite_and_tell_images_apart(size, classes):
    net, images = small_net(classes=classes), images_of(size)
    outputs = jax.jit(net.apply)(variables_of(net, images), images)
    assert outputs.shape == (2, classes) and outputs.dtype == jnp.float32
    assert np.isfinite(outputs).all()
    assert (outputs[0] != outputs[1]).any()


def test_layers_in_order():
    # The complete network once more, in NumPy.
    images = images_of((8, 9, 2))
    net = small_net(stages=(3, 4), hidden=(5,), bias_init=fan_in_uniform)
    variables = variables_of(net, images)
    outputs = jax.jit(net.apply)(variables, images)
    params, x = variables["params"], images

    def bias(layer, ndim):
        return params[layer]["bias"].reshape((1,) * (ndim - 1) + (-1,))

    for i in range(4):
        layer = f"Conv_{i}"
        padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), (1, 2))
        x = np.einsum("nhwcij,ijco->nhwo", windows, params[layer]["kernel"])
        x = np.maximum(x + bias(layer, 4), 0)
        if i % 2 == 1:
            rows, columns = x.shape[1] // 2, x.shape[2] // 2
            x = x[:, : 2 * rows, : 2 * columns]
            x = x.reshape(2, rows, 2, columns, 2, -1).max((2, 4))
    x = x.reshape(2, -1)
    x = np.maximum(x @ params["Dense_0"]["kernel"] + bias("Dense_0", 2), 0)
    x = x @ params["Dense_1"]["kernel"] + bias("Dense_1", 2)
    np.testing.assert_allclose(outputs, x, rtol=1e-4, atol=1e-5)
    assert (np.asarray(outputs) < 0).any()


def test_training_changes_nothing():
    images = images_of((8, 8, 1))
    net = small_net(stages=(4,), hidden=())
    variables = variables_of(net, images)

    @jax.jit
    def both(variables):
        apply = functools.partial(net.apply, variables, images)
        return apply(train=True), apply()

    np.testing.assert_array_equal(*both(variables))


@pytest.mark.parametrize(
    "network, shape",
    [
        (Conv2, (1, 1, 8, 3)),
        (Conv4, (1, 8, 3, 3)),
        (Conv6, (1, 7, 32, 3)),
        (Conv6, (1, 32, 7, 3)),
        (Conv4, (32, 32, 3)),
        (Conv4, (1, 32, 32, 3, 3)),
    ],
)
def test_images_that_are_too_small_or_not_a_batch(key, network, shape):
    least = {Conv2: "2x2", Conv4: "4x4", Conv6: "8x8"}[network]
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError) as error:
        jax.eval_shape(network(classes=10).init, key, images)
    assert str(error.value).startswith("ConvNet: images must be [batch, height")
    assert least in str(error.value) and str(shape) in str(error.value)


def test_no_biases_unless_asked(key):
    variables = jax.eval_shape(small_net().init, key, images_of((8, 8, 1)))
    params = variables["params"]
    assert all(set(layer) == {"kernel"} for layer in params.values())


def test_biases_are_within_their_bounds(key):
    zeros = {"conv_init": nn.initializers.zeros, "dense_init": nn.initializers.zeros}
    net = small_net(stages=(40,), hidden=(50,), bias_init=fan_in_uniform, **zeros)
    params = jax.jit(net.init)(key, images_of((8, 8, 3)))["params"]
    fan_in = {"Conv_0": 27, "Conv_1": 360, "Dense_0": 640, "Dense_1": 50}
    assert set(params) == set(fan_in)
    for layer, inputs in fan_in.items():
        biases = np.abs(params[layer]["bias"]) * np.sqrt(inputs)
        assert biases.max() <= 1.0001
        # P(all 10 below 0.4) is 1e-4, and the key is fixed.
        assert biases.max() > 0.4


def test_bias_init_is_told_the_fan_in(key):
    def as_bias(fan_in):
        return nn.initializers.constant(fan_in)

    zeros = {"conv_init": nn.initializers.zeros, "dense_init": nn.initializers.zeros}
    net = small_net(stages=(4, 6), hidden=(7,), bias_init=as_bias, **zeros)
    params = jax.jit(net.init)(key, images_of((8, 12, 3)))["params"]
    found = {layer: set(np.asarray(part["bias"])) for layer, part in params.items()}
    convolutions = {"Conv_0": {27}, "Conv_1": {36}, "Conv_2": {36}, "Conv_3": {54}}
    assert found == convolutions | {"Dense_0": {36}, "Dense_1": {7}}


def test_initialisers_reach_their_layers(key):
    constant = nn.initializers.constant
    net = small_net(stages=(4,), conv_init=constant(2.0), dense_init=constant(3.0))
    params = jax.jit(net.init)(key, images_of((8, 8, 1)))["params"]
    for layer, part in params.items():
        expected = 2 if layer.startswith("Conv") else 3
        np.testing.assert_array_equal(part["kernel"], expected)


def test_kernels_are_kaiming_normal_by_default(key):
    net = small_net(stages=(40,), hidden=())
    params = jax.jit(net.init)(key, images_of((8, 8, 3)))["params"]
    for layer, inputs in {"Conv_1": 360, "Dense_0": 640}.items():
        kernel = np.asarray(params[layer]["kernel"])
        std = np.sqrt(2 / inputs)
        assert abs(kernel.std() - std) < 5 * std / np.sqrt(2 * kernel.size)


def test_bfloat16_computes_but_does_not_store():
    images = images_of((8, 8, 1))
    options = {"stages": (4,), "hidden": (5,), "bias_init": fan_in_uniform}
    net = small_net(dtype=jnp.bfloat16, **options)
    variables = variables_of(net, images)
    outputs = jax.jit(net.apply)(variables, images)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert outputs.dtype == jnp.float32
    wide = jax.jit(small_net(**options).apply)(variables, images)
    assert (outputs != wide).any()
    np.testing.assert_allclose(outputs, wide, atol=0.05 * float(jnp.abs(wide).max()))

    program = jax.make_jaxpr(net.apply)(variables, images)
    results = {
        (equation.primitive.name, str(out.aval.dtype))
        for equation in program.eqns
        for out in equation.outvars
        if equation.primitive.name in ("conv_general_dilated", "dot_general")
    }
    assert results == {
        ("conv_general_dilated", "bfloat16"),
        ("dot_general", "bfloat16"),
    }


def test_the_convolution_may_be_replaced():
    calls = []

    def counted(*arguments, **options):
        calls.append(1)
        return jax.lax.conv_general_dilated(*arguments, **options)

    images = images_of((8, 8, 1))
    options = {"stages": (4, 6), "hidden": ()}
    net = small_net(conv_general_dilated=counted, **options)
    variables = variables_of(net, images)
    calls.clear()
    outputs = jax.jit(net.apply)(variables, images)
    assert len(calls) == 4
    plain = jax.jit(small_net(**options).apply)(variables, images)
    np.testing.assert_array_equal(outputs, plain)


# The pooling.


def pooled(x):
    return nn.max_pool(x, (2, 2), (2, 2))


@functools.partial(jax.jit, static_argnums=0)
def value_and_gradient(pool, x, cotangent):
    value, pull = jax.vjp(pool, x)
    return value, pull(cotangent)[0]


@pytest.mark.parametrize(
    "shape", [(2, 4, 6, 3), (1, 5, 4, 2), (2, 4, 7, 1), (1, 3, 3, 2)]
)
def test_max_pool_is_flaxs_own(shape):
    rng = np.random.default_rng(0)
    x = rng.permutation(int(np.prod(shape))).reshape(shape)  # no ties
    x = jnp.asarray(x - x.size // 2, jnp.float32)
    cotangent = rng.normal(size=(shape[0], shape[1] // 2, shape[2] // 2, shape[3]))
    cotangent = jnp.asarray(cotangent, jnp.float32)
    value, gradient = value_and_gradient(max_pool_2x2, x, cotangent)
    expected, expected_gradient = value_and_gradient(pooled, x, cotangent)
    np.testing.assert_array_equal(value, expected)
    np.testing.assert_array_equal(gradient, expected_gradient)


def test_max_pool_behind_relu_agrees_with_ties_too():
    # Half of the pixels are the zeros of a ReLU, and many windows hold nothing else.
    x = jnp.asarray(np.random.default_rng(0).normal(-1, 1, (2, 8, 8, 5)), jnp.float32)
    assert (pooled(nn.relu(x)) == 0).any()
    cotangent = jnp.ones((2, 4, 4, 5))
    _, gradient = value_and_gradient(lambda x: max_pool_2x2(nn.relu(x)), x, cotangent)
    _, expected = value_and_gradient(lambda x: pooled(nn.relu(x)), x, cotangent)
    np.testing.assert_array_equal(gradient, expected)


def test_max_pool_shares_the_gradient_of_ties():
    value, gradient = value_and_gradient(
        max_pool_2x2, jnp.ones((1, 2, 2, 1)), jnp.full((1, 1, 1, 1), 8.0)
    )
    assert value.item() == 1
    np.testing.assert_array_equal(gradient, 2.0)


# Who knows whom.


def imported_by(path: Path) -> set[str]:
    """Every module and name that a file imports, dotted."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        if isinstance(node, ast.ImportFrom):
            found |= {f"{node.module or ''}.{alias.name}" for alias in node.names}
    return found


def test_networks_and_methods_do_not_know_each_other():
    for module in (conv_net, vgg, resnet, layers):
        path = Path(module.__file__)
        ours = [
            name for name in imported_by(path) if name.startswith(("aslp_jax", "."))
        ]
        known = {".".join(name.split(".")[:3]) for name in ours}
        shared = ("initialisers", "layers", "resnet", "vgg")
        assert known <= {f"aslp_jax.models.{name}" for name in shared}, path.name
    methods = list((path.parents[1] / "methods").glob("*.py"))
    assert len(methods) >= 3
    for method in methods:
        known = {part for name in imported_by(method) for part in name.split(".")}
        assert "aslp_jax" in known or method.stem in ("_top_k", "_trained", "__init__")
        assert not known & {"models", "masked", "flax"}, method.name
