"""VGG19, ResNet18 and ResNet50: their shapes and sizes, small ones layer by layer."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP, Masked, train
from aslp_jax.models.bottleneck import BottleneckResNet, ResNet50
from aslp_jax.models.initialisers import fan_in_uniform
from aslp_jax.models.resnet import ResNet, ResNet18
from aslp_jax.models.vgg import VGG, VGG19
from aslp_jax.ops.convolution import conv_in_loop
from aslp_jax.optim import sgd_by_group

NETWORKS = [VGG19, ResNet18, ResNet50]
SMALL = [
    functools.partial(VGG, stages=((4,), (5, 6)), classes=3),
    functools.partial(ResNet, stages=(4, 6), classes=3),
    functools.partial(BottleneckResNet, stages=(2, 3), blocks=(2, 1), classes=3),
]


def images_of(*shape):
    pixels = np.random.default_rng(0).uniform(size=shape)
    return jnp.asarray(pixels, jnp.float32)


def variables_of(net, images):
    """Variables without compiling their initialisation: nothing is at 0 or 1."""
    return filled(jax.eval_shape(net.init, jax.random.key(0), images))


def filled(shapes):
    rng = np.random.default_rng(1)

    def draw(leaf):
        if leaf.ndim > 1:
            std = np.sqrt(2 / np.prod(leaf.shape[:-1]))
            return jnp.asarray(rng.normal(0, std, leaf.shape), leaf.dtype)
        return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), leaf.dtype)

    return jax.tree.map(draw, shapes)


def size_of(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@pytest.mark.slow
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("size", [(32, 32, 3), (64, 64, 3), (33, 47, 1)])
def test_shapes(key, network, size):
    images = jax.ShapeDtypeStruct((2, *size), jnp.float32)
    net = network(classes=100)
    outputs, variables = jax.eval_shape(net.init_with_output, key, images)
    assert outputs.shape == (2, 100) and outputs.dtype == jnp.float32
    assert set(variables) == {"params", "batch_stats"}
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(variables))
    last = 2048 if network is ResNet50 else 512
    assert variables["params"]["Dense_0"]["kernel"].shape == (last, 100)


def convolutions(network):
    """(size, in, out) of every convolution, from the papers."""
    if network is VGG19:
        widths = [64] * 2 + [128] * 2 + [256] * 4 + [512] * 8
        return [(3, a, b) for a, b in zip([3, *widths], widths, strict=False)]
    found = [(3, 3, 64)]
    for a, b in ((64, 64), (64, 128), (128, 256), (256, 512)):
        found += [(3, a, b)] + 3 * [(3, b, b)] + ([(1, a, b)] if a != b else [])
    return found


@pytest.mark.parametrize(
    "network, published, layers",
    # Of the implementation in common use; that of VGG19 gives its convolutions biases.
    [(VGG19, 20_040_522 - 5_504, 16), (ResNet18, 11_173_962, 20)],
)
def test_sizes_are_the_published_ones(key, network, published, layers):
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    net = network(classes=10, bias_init=fan_in_uniform)
    variables = jax.eval_shape(net.init, key, images)
    assert size_of(variables["params"]) == published

    convs = convolutions(network)
    assert len(convs) == layers
    channels = sum(b for _, _, b in convs)
    kernels = sum(size**2 * a * b for size, a, b in convs)
    assert published == kernels + 2 * channels + 512 * 10 + 10
    assert size_of(variables["batch_stats"]) == 2 * channels
    if network is VGG19:
        assert channels == 5_504

    # Without biases, the dense layer's are the ones that go.
    plain = jax.eval_shape(network(classes=10).init, key, images)["params"]
    assert size_of(plain) == published - 10
    assert set(plain["Dense_0"]) == {"kernel"}


def test_resnet50_has_the_usual_form_for_imagenet(key):
    images = jax.ShapeDtypeStruct((2, 224, 224, 3), jnp.float32)
    net = ResNet50(1000, bias_init=fan_in_uniform)
    sizes = []

    def note(next_call, args, kwargs, context):
        result = next_call(*args, **kwargs)
        if isinstance(context.module, nn.Conv):
            sizes.append((*context.module.kernel_size, *result.shape[1:]))
        return result

    with nn.intercept_methods(note):
        variables = jax.eval_shape(net.init, key, images)
    # The number that libraries for PyTorch, TensorFlow and JAX give.
    assert size_of(variables["params"]) == 25_557_032

    expected, side = [(7, 7, 112, 112, 64)], 56
    for channels, count in ((64, 3), (128, 4), (256, 6), (512, 3)):
        for block in range(count):
            halved = side // 2 if block == 0 and channels > 64 else side
            expected.append((1, 1, side, side, channels))
            expected.append((3, 3, halved, halved, channels))
            expected.append((1, 1, halved, halved, 4 * channels))
            if block == 0:
                expected.append((1, 1, halved, halved, 4 * channels))
            side = halved
    assert sizes == expected and len(sizes) == 53 and side == 7
    kernels = 49 * 3 * 64 + 2048 * 1000 + 1000 + 2 * sum(size[-1] for size in sizes)
    for name, block in variables["params"].items():
        if name.startswith("BottleneckBlock"):
            kernels += size_of([block[conv] for conv in block if "Conv" in conv])
    assert kernels == 25_557_032


@pytest.mark.parametrize(
    "network, shape, least",
    [
        (VGG19, (1, 31, 32, 3), "32x32"),
        (VGG19, (1, 32, 31, 3), "32x32"),
        (VGG19, (32, 32, 3), "32x32"),
        (ResNet18, (32, 32, 3), "1x1"),
        (ResNet18, (1, 0, 8, 3), "1x1"),
        (ResNet50, (224, 224, 3), "1x1"),
    ],
)
def test_images_that_are_too_small_or_not_a_batch(key, network, shape, least):
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    with pytest.raises(ValueError, match=r"images must be \[batch, height") as error:
        jax.eval_shape(network(classes=10).init, key, images)
    assert least in str(error.value) and str(shape) in str(error.value)


# The networks once more, in numpy and float64.


def convolved(x, kernel, stride=1):
    size = kernel.shape[0]
    x = np.pad(x, ((0, 0), (size // 2,) * 2, (size // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (size, size), (1, 2))
    return np.einsum("nhwcij,ijco->nhwo", windows[:, ::stride, ::stride], kernel)


class Reference:
    """Applies the layers of one module in their order, and notes the statistics."""

    def __init__(self, variables, *, train, path=()):
        self.params, self.statistics = variables["params"], variables["batch_stats"]
        for name in path:
            self.params = self.params[name]
            self.statistics = self.statistics[name]
        self.train, self.layer, self.seen = train, 0, {}

    def __call__(self, x, stride=1):
        index, self.layer = self.layer, self.layer + 1
        kernel = np.asarray(self.params[f"Conv_{index}"]["kernel"], np.float64)
        name = f"BatchNorm_{index}"
        norm, kept = self.params[name], self.statistics[name]
        x = convolved(x, kernel, stride)
        mean, var = np.asarray(kept["mean"]), np.asarray(kept["var"])
        if self.train:
            mean, var = x.mean((0, 1, 2)), x.var((0, 1, 2))
            self.seen[name] = {
                "mean": 0.9 * np.asarray(kept["mean"]) + 0.1 * mean,
                "var": 0.9 * np.asarray(kept["var"]) + 0.1 * var,
            }
        scale, shift = np.asarray(norm["scale"]), np.asarray(norm["bias"])
        return (x - mean) / np.sqrt(var + 1e-5) * scale + shift


def relu(x):
    return np.maximum(x, 0)


def dense(variables, x):
    layer = variables["params"]["Dense_0"]
    return x.mean((1, 2)) @ np.asarray(layer["kernel"]) + np.asarray(layer["bias"])


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_vgg_layer_by_layer(train):
    images = images_of(3, 9, 8, 2)
    net = SMALL[0](bias_init=fan_in_uniform)
    variables = variables_of(net, images)
    outputs, updates = jax.jit(
        functools.partial(net.apply, train=train, mutable=["batch_stats"])
    )(variables, images)

    layer = Reference(variables, train=train)
    x = relu(layer(np.asarray(images, np.float64)))
    x = x[:, :8].reshape(3, 4, 2, 4, 2, 4).max((2, 4))
    x = relu(layer(relu(layer(x))))
    x = x.reshape(3, 2, 2, 2, 2, 6).max((2, 4))
    np.testing.assert_allclose(outputs, dense(variables, x), rtol=1e-4, atol=1e-4)
    expected = layer.seen if train else variables["batch_stats"]
    assert_close(updates["batch_stats"], expected)


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
@pytest.mark.parametrize("size", [(8, 8), (7, 9)])
def test_resnet_layer_by_layer(size, train):
    images = images_of(3, *size, 2)
    net = SMALL[1](bias_init=fan_in_uniform)
    variables = variables_of(net, images)
    outputs, updates = jax.jit(
        functools.partial(net.apply, train=train, mutable=["batch_stats"])
    )(variables, images)

    stem = Reference(variables, train=train)
    x = relu(stem(np.asarray(images, np.float64)))
    seen = dict(stem.seen)
    for index, stride in enumerate((1, 1, 2, 1)):
        name = f"Block_{index}"
        layer = Reference(variables, train=train, path=(name,))
        y = layer(relu(layer(x, stride)))
        x = relu((layer(x, stride) if stride == 2 else x) + y)
        seen[name] = layer.seen
    np.testing.assert_allclose(outputs, dense(variables, x), rtol=1e-4, atol=1e-4)
    assert_close(updates["batch_stats"], seen if train else variables["batch_stats"])


@pytest.mark.slow
@pytest.mark.parametrize("train", [False, True])
def test_bottleneck_resnet_layer_by_layer(train):
    images = images_of(3, 13, 18, 2)
    net = SMALL[2](bias_init=fan_in_uniform)
    variables = variables_of(net, images)
    outputs, updates = jax.jit(
        functools.partial(net.apply, train=train, mutable=["batch_stats"])
    )(variables, images)

    stem = Reference(variables, train=train)
    x = relu(stem(np.asarray(images, np.float64), 2))
    seen = dict(stem.seen)
    assert x.shape == (3, 7, 9, 2)
    # Zeros do for what is outside, as nothing is below zero here.
    x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2)).max((-1, -2))
    x = x[:, ::2, ::2]
    for index, (stride, shortcut) in enumerate(((1, True), (1, False), (2, True))):
        name = f"BottleneckBlock_{index}"
        layer = Reference(variables, train=train, path=(name,))
        y = layer(relu(layer(relu(layer(x)), stride)))
        x = relu((layer(x, stride) if shortcut else x) + y)
        seen[name] = layer.seen
    assert x.shape == (3, 2, 3, 12)
    np.testing.assert_allclose(outputs, dense(variables, x), rtol=1e-4, atol=1e-4)
    assert_close(updates["batch_stats"], seen if train else variables["batch_stats"])


def assert_close(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("network", SMALL)
def test_initialisers_reach_their_layers(key, network):
    def constant(value):
        return jax.nn.initializers.constant(value)

    net = network(conv_init=constant(2.0), dense_init=constant(3.0), bias_init=constant)
    params = jax.jit(net.init)(key, images_of(1, 8, 8, 1))["params"]
    fan_in = params["Dense_0"]["kernel"].shape[0]
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        name = jax.tree_util.keystr(path, simple=True, separator="/")
        expected = {
            "Conv": 2.0,  # the kernels
            "Dense": 3.0 if name.endswith("kernel") else fan_in,
            "BatchNorm": 1.0 if name.endswith("scale") else 0.0,
        }[name.split("/")[-2].split("_")[0]]
        np.testing.assert_array_equal(leaf, expected, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("network", SMALL)
def test_bfloat16_convolves_and_batch_norm_does_not(network):
    images = images_of(2, 8, 8, 1)
    net = network(dtype=jnp.bfloat16)
    variables = variables_of(net, images)
    apply = functools.partial(net.apply, train=True, mutable=["batch_stats"])
    outputs, updates = jax.jit(apply)(variables, images)
    assert outputs.dtype == jnp.float32
    assert {leaf.dtype for leaf in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    wide = jax.jit(
        functools.partial(network().apply, train=True, mutable=["batch_stats"])
    )(variables, images)[0]
    assert (outputs != wide).any()
    np.testing.assert_allclose(outputs, wide, atol=0.05 * float(jnp.abs(wide).max()))

    program = jax.make_jaxpr(apply)(variables, images)
    dtypes = {
        name: {
            str(equation.outvars[0].aval.dtype)
            for equation in program.eqns
            if equation.primitive.name == name
        }
        for name in ("conv_general_dilated", "dot_general", "rsqrt")
    }
    assert dtypes == {
        "conv_general_dilated": {"bfloat16"},
        "dot_general": {"bfloat16"},
        "rsqrt": {"float32"},
    }


@pytest.mark.slow
@pytest.mark.parametrize("network", SMALL)
def test_a_step_trains_logits_and_moves_batch_statistics(key, network):
    model = Masked(network(conv_general_dilated=conv_in_loop), ASLP())
    optimiser = sgd_by_group({"logits": 5.0, "scale": 1e-2})
    images, labels = images_of(6, 8, 8, 1), jnp.arange(6, dtype=jnp.int32) % 3
    create = functools.partial(train.create, model, optimiser)
    shapes = jax.eval_shape(create, key, images[:1])
    still = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype), shapes.opt_state
    )
    state = filled(shapes).replace(opt_state=still)
    assert set(state.params) == {"logits", "scale"}
    assert list(state.collections) == ["batch_stats"]
    names = set(state.params["logits"])
    assert all(name.endswith("kernel") for name in names) and len(names) in (4, 11, 13)

    after, loss, _ = jax.jit(
        functools.partial(train.step, model=model, optimiser=optimiser)
    )(state, images, labels, key)
    assert np.isfinite(loss)
    before, then = jax.tree.leaves(state.frozen), jax.tree.leaves(after.frozen)
    for one, other in zip(before, then, strict=True):
        np.testing.assert_array_equal(one, other)
    for name in names:
        one, other = (
            np.asarray(each.params["logits"][name]) for each in (state, after)
        )
        assert (one != other).any()
    old, new = jax.tree.leaves(state.collections), jax.tree.leaves(after.collections)
    for one, other in zip(old, new, strict=True):
        # Of a channel that lost all its weights the mean stays at 0.
        assert (np.asarray(one) != np.asarray(other)).any()
    # The thresholded network reads the statistics and leaves them alone.
    logits = jax.jit(functools.partial(model.apply, train=False))(
        after.variables, images
    )
    assert logits.shape == (6, 3) and np.isfinite(logits).all()
