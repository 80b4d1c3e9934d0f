"""Serialises the architecture of a network to and from JSON values."""

import functools
from collections.abc import Mapping
from typing import Any

import flax.linen as nn
import flax.traverse_util
import jax
import jax.numpy as jnp

from aslp_jax import functional
from aslp_jax.artefact import schema
from aslp_jax.models import ConvNet, initialisers
from aslp_jax.models.bottleneck import BottleneckResNet
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG
from aslp_jax.ops import convolution

FAMILIES: dict[str, type[nn.Module]] = {
    "ConvNet": ConvNet,
    "VGG": VGG,
    "ResNet": ResNet,
    "BottleneckResNet": BottleneckResNet,
}
"""Network classes that a file can hold, by their name in the file."""

DTYPES = ("float32", "bfloat16")
"""Dtypes that a network in a file can compute in."""

_DEEPEST = 64
"""Largest number of stages, and of layers or blocks in one."""

_OWN_SIZES = {
    "ConvNet": {"hidden": schema.LARGEST_SIZE},
    "BottleneckResNet": {"blocks": _DEEPEST},
}
"""Lists of sizes that one family alone has, each with the largest size."""


def unwrap(net: Any) -> Any:
    """Returns the Linen module of a network that is one, else the network itself.

    Args:
      net: network, in any form that `functional.network` takes.
    """
    return net.module if isinstance(net, functional.Linen) else net


def is_known(net: Any) -> bool:
    """Returns True if a file can name a network by its config.

    Args:
      net: network of any kind.
    """
    return type(net) in FAMILIES.values() and jnp.dtype(net.dtype).name in DTYPES


def to_config(net: Any) -> dict[str, Any]:
    """Returns the JSON values from which `from_config` makes an equal network.

    Args:
      net: network of one of the `FAMILIES`, as `is_known` has it.

    Returns:
      JSON values, with tuples for lists.
    """
    family = type(net).__name__
    config = {
        "family": family,
        "stages": net.stages,
        "classes": schema.to_python(net.classes),
        "biases": net.bias_init is not None,
        "dtype": jnp.dtype(net.dtype).name,
    }
    return config | {name: getattr(net, name) for name in _OWN_SIZES.get(family, ())}


def parse_config(value: Any) -> dict[str, Any]:
    """Returns the config of a network from JSON values, each of which is checked.

    Args:
      value: JSON values of any kind.

    Returns:
      Config, as `to_config` returns it.

    Raises:
      ArtefactError: a value is not as the format has it; the message names the value.
    """
    name = value.get("family") if type(value) is dict else None
    families = tuple(FAMILIES)
    family = schema.check_choice(name, "network.family", families)
    keys = ("biases", "classes", "dtype", "family", "stages")
    own = _OWN_SIZES.get(family, {})
    config = dict(schema.check_object(value, "network", (*keys, *own)))
    schema.check_choice(config["dtype"], "network.dtype", DTYPES)
    schema.check_boolean(config["biases"], "network.biases")
    schema.check_integer(config["classes"], "network.classes", 1, schema.LARGEST_SIZE)
    stages = config["stages"]
    if family == "VGG":
        lists = schema.check_list(stages, "network.stages", _DEEPEST)
        if not lists:
            raise schema.invalid("network.stages", stages, "a list of at least 1")
        config["stages"] = tuple(map(_parse_stages, lists))
    else:
        config["stages"] = _parse_stages(stages)
    for name, largest in own.items():
        config[name] = schema.check_sizes(
            config[name], f"network.{name}", 0, _DEEPEST, largest
        )
    if len(config.get("blocks", config["stages"])) != len(config["stages"]):
        blocks, count = config["blocks"], len(config["stages"])
        raise schema.invalid("network.blocks", blocks, f"a list of {count}, as stages")
    return config


def _parse_stages(value: Any) -> tuple[int, ...]:
    return schema.check_sizes(value, "network.stages", 1, _DEEPEST)


def from_config(config: Mapping[str, Any]) -> nn.Module:
    """Returns the network of a config, with the convolution of the default device.

    Args:
      config: result of `to_config`; lists of sizes are tuples.

    Returns:
      An unbound module.
    """
    options = dict(config)
    family, biases = FAMILIES[options.pop("family")], options.pop("biases")
    return family(
        **options | {"dtype": jnp.dtype(options["dtype"])},
        bias_init=initialisers.fan_in_uniform if biases else None,
        conv_general_dilated=convolution.of_platform(jax.default_backend()),
    )


def count_arrays(config: Mapping[str, Any]) -> int:
    """Returns the number of arrays of a network, in all its collections.

    Args:
      config: result of `to_config`.

    Returns:
      The number of arrays, computed without tracing the network.
    """
    stages, biases = config["stages"], 2 if config["biases"] else 1
    if config["family"] == "ConvNet":
        return biases * (2 * len(stages) + len(config["hidden"]) + 1)
    if config["family"] == "VGG":
        layers = sum(map(len, stages))
    elif config["family"] == "ResNet":
        # A first layer, four layers a stage, a shortcut in each stage but the first.
        layers = 5 * len(stages)
    else:
        # A first layer, three layers a block, and a shortcut a stage.
        layers = 1 + 3 * sum(config["blocks"]) + len(stages)
    # A layer has a kernel, and the scale, bias, mean and variance of its batch-norm.
    return 5 * layers + biases


@functools.lru_cache(maxsize=8)
def array_shapes(
    net: nn.Module, image_shape: tuple[int, ...]
) -> dict[str, dict[str, tuple[int, ...]]]:
    """Returns the shape of every array of a network without allocating any array.

    Args:
      net: the network.
      image_shape: height, width and channels of an image.

    Returns:
      Collection to name (joined by `/`) to shape, in the order in which the network
      calls its layers.

    Raises:
      ValueError: the network cannot take images of this shape.
    """
    shapes: dict[str, dict[str, tuple[int, ...]]] = {}

    def record(key: jax.Array, images: jax.Array) -> None:
        # Inside the trace: a tree that comes out of a trace is sorted by name.
        for collection, tree in net.init(key, images, train=False).items():
            leaves = flax.traverse_util.flatten_dict(tree, sep="/")
            shapes[collection] = {name: leaf.shape for name, leaf in leaves.items()}

    jax.eval_shape(
        record,
        jax.eval_shape(lambda: jax.random.key(0)),
        jax.ShapeDtypeStruct((1, *image_shape), jnp.float32),
    )
    return shapes
