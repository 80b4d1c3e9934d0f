"""Networks in words, so that a file can say which one it holds."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from aslp_jax.artefact import schema
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.models import ConvNet, initialisers
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG
from aslp_jax.ops import convolution

FAMILIES: dict[str, type[nn.Module]] = {
    "ConvNet": ConvNet,
    "VGG": VGG,
    "ResNet": ResNet,
}
"""What a network is made by, by the name that a file gives it."""

DTYPES = ("float32", "bfloat16")


def to_config(net: Any) -> dict[str, Any]:
    """Returns what makes a network of the same arrays and outputs, as JSON values.

    Args:
      net: of one of the `FAMILIES`.

    Raises:
      ArtefactError: it is of another class, or computes in another dtype than `DTYPES`.
    """
    family = type(net).__name__
    dtype = jnp.dtype(net.dtype).name if type(net) in FAMILIES.values() else ""
    if dtype not in DTYPES:
        raise ArtefactError(
            f"extract: no file can name the network {family}; expected one of "
            f"{', '.join(FAMILIES)} that computes in {' or '.join(DTYPES)}"
        )
    words = {
        "family": family,
        "stages": net.stages,
        "classes": schema.plain(net.classes),
        "biases": net.bias_init is not None,
        "dtype": dtype,
    }
    return words | ({"hidden": net.hidden} if family == "ConvNet" else {})


def from_config(words: Mapping[str, Any]) -> nn.Module:
    """Returns the network of some words, as the default device runs it best.

    Args:
      words: as `in_words` returns them, sizes as tuples.
    """
    made = dict(words)
    family, biases = FAMILIES[made.pop("family")], made.pop("biases")
    return family(
        **made | {"dtype": jnp.dtype(made["dtype"])},
        bias_init=initialisers.fan_in_uniform if biases else None,
        conv_general_dilated=convolution.of_platform(jax.default_backend()),
    )


def count_arrays(words: Mapping[str, Any]) -> int:
    """Returns how many arrays a network has, in all its collections.

    Args:
      words: as `in_words` returns them.
    """
    stages, biases = words["stages"], 2 if words["biases"] else 1
    if words["family"] == "ConvNet":
        return biases * (2 * len(stages) + len(words["hidden"]) + 1)
    # Of a ResNet: one at first, four a stage, and a shortcut of each but the first.
    layers = 5 * len(stages) if words["family"] == "ResNet" else sum(map(len, stages))
    # A kernel, and of batch-norm scale, bias, mean and variance.
    return 5 * layers + biases


@functools.lru_cache(maxsize=8)
def shapes_of(
    net: nn.Module, image_shape: tuple[int, int, int]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns the shape of every array of a network, allocating none.

    Args:
      net: the network.
      image_shape: of one image.

    Returns:
      Collection to name (joined by `/`) to shape, in the order in which the network
      calls its layers.

    Raises:
      ValueError: the network cannot take such images.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    def note(key: jax.Array, images: jax.Array) -> None:
        # Here, because a tree that comes out of a trace is sorted by name.
        for collection, tree in net.init(key, images, train=False).items():
            leaves = flax.traverse_util.flatten_dict(tree, sep="/")
            shapes[collection] = {name: leaf.shape for name, leaf in leaves.items()}

    jax.eval_shape(
        note,
        jax.eval_shape(lambda: jax.random.key(0)),
        jax.ShapeDtypeStruct((1, *image_shape), jnp.float32),
    )
    return shapes
