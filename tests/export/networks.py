"""Small networks with random weights and masks, without training or compilation."""

import functools
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import onnxruntime

from aslp_jax.artefact import Description, Subnetwork, WeightRecipe
from aslp_jax.artefact.subnetwork import make_layer_weights
from aslp_jax.artefact.weight_recipe import initialise
from aslp_jax.export.onnx import model_of
from aslp_jax.models import ConvNet
from aslp_jax.models.initialisers import fan_in_uniform
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG

EXAMPLE = Path(__file__).parents[2] / "examples" / "embedded"

SHAPE = (9, 8, 3)


@functools.cache
def shapes_of(net, shape):
    """Returns shapes and dtypes of a network's variables."""
    images = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    return jax.eval_shape(net.init, jax.random.key(0), images)


def subnetwork(
    net, shape=SHAPE, *, keep=0.5, signed=False, scale=None, normal="", seed=0, **facts
):
    """Builds a network with random masks; biases and statistics are random too.

    Args:
      net: the module.
      shape: `(height, width, channels)` of an image.
      keep: fraction of each kernel that is kept.
      signed: True if the mask inverts half of the kept weights.
      scale: scale of every kernel.
      normal: prefix of the layers with normally distributed weights; all others have
        signed constants.
      seed: seed of everything that is random.
      **facts: fields of the description.
    """
    rng = np.random.default_rng(seed)
    layers = {}

    def fill(path, leaf):
        collection, *names = (each.key for each in path)
        name, kind = "/".join(names), names[-1]
        if kind == "kernel":
            layers[name] = _kernel(rng, name, leaf, keep, signed, scale, normal)
            return jnp.asarray(layers[name].weights)
        low, high = {"var": (0.3, 2), "scale": (0.5, 1.5)}.get(kind, (-0.5, 0.2))
        values = rng.uniform(low, high, leaf.shape).astype(np.float32)
        if collection == "params":
            layers[name] = make_layer_weights(name, values)
        return jnp.asarray(values)

    variables = jax.tree_util.tree_map_with_path(fill, shapes_of(net, shape))
    about = Description("small", net.classes, shape, **facts)
    return Subnetwork(net, variables, layers, about)


def _kernel(rng, name, leaf, keep, signed, scale, normal):
    words = tuple(int(word) for word in rng.integers(0, 2**32, 2))
    magnitude, initialiser = None, "kaiming_normal"
    if not (normal and name.startswith(normal)):
        fan_in = np.prod(leaf.shape[:-1])
        magnitude, initialiser = np.float32(np.sqrt(2 / fan_in)), "signed_constant"
        if name.endswith("Conv_0/kernel"):
            initialiser = "kaiming_constant"
    recipe = WeightRecipe(initialiser, words)
    frozen = next(iter(initialise(recipe, leaf.shape, magnitude)))
    mask = np.zeros(frozen.size, np.int8)
    mask[rng.permutation(frozen.size)[: round(keep * frozen.size)]] = 1
    if signed:
        mask *= rng.choice(np.array([-1, 1], np.int8), mask.size)
    scale = None if scale is None else np.float32(scale)
    mask = mask.reshape(frozen.shape)
    return make_layer_weights(
        name, frozen, ternary_mask=mask, scale=scale, recipe=recipe
    )


STANDARDISED = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
CONV = ConvNet(stages=(5, 6), classes=4, hidden=(9,), bias_init=fan_in_uniform)
SMALL = {
    # As the code published with the paper: constants in convolutions only.
    "mixed": (CONV, {"signed": True, "normal": "Dense"}),
    "conv": (CONV, {"signed": True, "scale": 1.3}),
    # Few enough weights for dead units, which batch-norm turns into constants.
    "vgg": (
        VGG(stages=((16, 16), (16,)), classes=4, bias_init=fan_in_uniform),
        {"keep": 0.08, "scale": 3.0},
    ),
    "resnet": (ResNet(stages=(4, 6), classes=4, bias_init=fan_in_uniform), {}),
}


@functools.cache
def small(name, shape=SHAPE):
    """Returns a network of `SMALL`."""
    net, options = SMALL[name]
    return subnetwork(net, shape, **options, **STANDARDISED)


def run_onnx(content, inputs):
    """Runs a model on inputs as a module takes them, and returns its outputs."""
    session = onnxruntime.InferenceSession(content)
    (source,) = session.get_inputs()
    given = inputs.transpose(0, 3, 1, 2) if inputs.ndim == 4 else inputs
    if source.type == "tensor(float)":
        given = given.astype(np.float32)
    (found,) = session.run(["logits"], {source.name: given})
    return found


def run_graph(graph, inputs):
    """Runs a graph in onnxruntime."""
    return run_onnx(model_of(graph).SerializeToString(), inputs)


def random_images(shape=SHAPE, count=20):
    """Returns uint8 images, always the same."""
    return np.random.default_rng(1).integers(0, 256, (count, *shape), np.uint8)


@functools.cache
def logits(name, count=20):
    """Returns the logits of a network of `SMALL` for `random_images`."""
    return np.asarray(small(name)(random_images(count=count)))


def assert_same(found, expected):
    """Checks logits against those of the network."""
    assert found.dtype == np.float32 and found.shape == expected.shape
    if len(expected) > 1:
        assert np.ptp(expected, axis=0).max() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))
