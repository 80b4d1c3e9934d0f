"""Extracts the deterministic network that a method selected."""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer

from aslp_jax._tree import Select, map_named, named_leaves
from aslp_jax._version import __version__
from aslp_jax.artefact import architecture, weight_recipe
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.description import Description
from aslp_jax.artefact.subnetwork import LayerWeights, Subnetwork, make_layer_weights
from aslp_jax.evaluate import effective_weights
from aslp_jax.masked import FROZEN, PARAMS, Masked
from aslp_jax.methods import ASLP, Method, ScaledMask

_VERSIONED = ("jax", "jaxlib", "flax")


class _InitArguments(NamedTuple):
    """Arguments of the initialiser of one array.

    Attributes:
      key: words of the PRNG key.
      fan_in: fan-in for biases; None for kernels.
    """

    key: tuple[int, int]
    fan_in: int | None


def extract(
    model: Masked,
    variables: Mapping[str, Any],
    description: Description,
    *,
    key: jax.Array | None = None,
) -> Subnetwork:
    """Returns the deterministic network that a method selected.

    Args:
      model: a ConvNet, VGG or ResNet with its method.
      variables: variables of the model, float32: frozen, params and other collections.
      description: facts about the network; `extract` fills in the versions.
      key: PRNG key of `model.init`, from which the frozen weights are initialised
        again. Without the key, or where this does not give the same bits, a file
        stores the frozen weights.

    Returns:
      The subnetwork. Its weights are those of `method.effective_weights` bit for bit,
      except for the sign of a 0. Its `net` is a new module with the convolution
      `convolution.of_platform` of the default device, so outputs equal those of `model`
      bit for bit only if `model.net` has the same convolution.

    Raises:
      ArtefactError: no file can hold the network; the description has other classes or
        images than the network; an array is missing, superfluous, not float32 or not
        finite; or an effective weight is not 0 where the method's mask drops it.
    """
    net = architecture.from_config(architecture.to_config(model.net))
    collections = dict(variables)
    frozen, params = collections.pop(FROZEN, {}), collections.pop(PARAMS)
    tree = effective_weights(frozen, params, None, method=model.method)
    all_masks = _masks(frozen, params, method=model.method)
    # One transfer, so that the host waits only once.
    effective, (masks, scaled_masks), sources, others = jax.device_get(
        (named_leaves(tree), all_masks, named_leaves(frozen), collections)
    )
    arrays = named_leaves({"params": effective, **others})
    _check_shapes(net, description, arrays)
    for name, array in arrays.items():
        _check_floats(name, array)
    arguments: Mapping[str, _InitArguments] = {}
    if key is not None:
        arguments = _init_arguments(model, key, description.image_shape)
    layers = {}
    for name, weights in effective.items():
        init, mask = arguments.get(name), masks.get(name)
        if name in scaled_masks:
            layer = _layer_of_frozen(name, sources[name], scaled_masks[name], init)
            if np.array_equal(layer.weights, weights):
                layers[name] = layer
                continue
            mask = scaled_masks[name].mask != 0
        layers[name] = _layer_of_effective(name, weights, mask, init)
    return Subnetwork(
        net=net,
        variables={
            "params": _replace_weights(tree, layers),
            **jax.tree.map(jnp.asarray, others),
        },
        layers=layers,
        description=dataclasses.replace(description, versions=_versions()),
    )


@functools.partial(jax.jit, static_argnames=("method",))
def _masks(frozen: Any, params: Any, *, method: Method) -> tuple[Any, Any]:
    """Returns the masks of arrays without a scaled mask, and the scaled masks."""
    scaled_masks = method.scaled_masks(frozen, params)
    masks = method.masks(frozen, params)
    rest = {name: mask for name, mask in masks.items() if name not in scaled_masks}
    return rest, scaled_masks


def _layer_of_frozen(
    name: str, frozen: np.ndarray, scaled: ScaledMask, init: _InitArguments | None
) -> LayerWeights:
    """Returns the weights of an array from frozen weights, mask and scale."""
    return make_layer_weights(
        name,
        frozen,
        ternary_mask=np.asarray(scaled.mask),
        scale=None if scaled.scale is None else np.float32(scaled.scale),
        recipe=init and weight_recipe.find(frozen, init.key, init.fan_in),
    )


def _layer_of_effective(
    name: str, weights: np.ndarray, mask: np.ndarray | None, init: _InitArguments | None
) -> LayerWeights:
    """Returns the weights of an array from its effective weights."""
    if mask is None:
        recipe = init and weight_recipe.find(weights, init.key, init.fan_in)
        return make_layer_weights(name, weights, recipe=recipe)
    layer = make_layer_weights(name, weights, ternary_mask=mask.astype(np.int8))
    if not np.array_equal(layer.weights, weights):
        raise ArtefactError(
            f"extract: {name!r} has weights other than 0 where its mask drops them"
        )
    return layer


def _init_arguments(
    model: Masked, key: jax.Array, image_shape: tuple[int, ...]
) -> dict[str, _InitArguments]:
    """Returns the arguments that each initialiser receives in `model.init`, by name."""
    if str(jax.random.key_impl(key)) != weight_recipe.GENERATOR:
        return {}
    words, fan_ins, calls = jax.device_get(
        _record_init(key, net=model.net, select=model.select, image_shape=image_shape)
    )
    arguments = {}
    for name, call in calls.items():
        if call < 0:
            index = -int(call) - 1
            pair = (int(words[index, 0]), int(words[index, 1]))
            arguments[name] = _InitArguments(pair, int(fan_ins[index]) or None)
    return arguments


@functools.partial(jax.jit, static_argnames=("net", "select", "image_shape"))
def _record_init(
    key: jax.Array, *, net: Any, select: Select, image_shape: tuple[int, ...]
) -> tuple[jax.Array, jax.Array, dict[str, jax.Array]]:
    """Initialises a network with initialisers that record their arguments.

    Each fills its array with the negative number of its call, -1 for the first. Other
    initialisers of these networks give no negative numbers.

    Args:
      key: PRNG key of `model.init`.
      net: network of the model.
      select: the model's selection of weights.
      image_shape: height, width and channels of an image.

    Returns:
      `(words, fan_ins, calls)`: uint32 `[calls, 2]` words of the keys; int32 `[calls]`,
      0 for kernels; and one entry of each array by name.
    """
    words: list[jax.Array] = []
    fan_ins: list[int] = []

    def make_recorder(fan_in: int = 0) -> Initializer:
        def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
            words.append(jax.random.key_data(key))
            fan_ins.append(fan_in)
            return jnp.full(shape, -len(words), dtype)

        return init

    biases = None if net.bias_init is None else make_recorder
    net = net.clone(
        conv_init=make_recorder(), dense_init=make_recorder(), bias_init=biases
    )
    images = jnp.zeros((1, *image_shape), jnp.float32)
    # Any method serves that leaves the initial weights as they are.
    variables = Masked(net, ASLP(), select).init(key, images, train=False)
    frozen = named_leaves(variables[FROZEN])
    calls = {name: leaf.ravel()[0] for name, leaf in frozen.items()}
    return jnp.stack(words), jnp.array(fan_ins, jnp.int32), calls


def _replace_weights(tree: Any, layers: Mapping[str, LayerWeights]) -> Any:
    """Returns the tree with the weights of `layers` as its leaves."""
    return map_named(tree, layers, lambda name, _: jnp.asarray(layers[name].weights))


def _check_shapes(
    net: Any, about: Description, arrays: Mapping[str, np.ndarray]
) -> None:
    """Checks a description and the shapes of arrays against a network."""
    if about.classes != net.classes:
        raise ArtefactError(
            f"extract: the network has {net.classes} classes, and its description "
            f"{about.classes}"
        )
    try:
        shapes = architecture.array_shapes(net, about.image_shape)
    except (ValueError, TypeError, OverflowError) as error:
        raise ArtefactError(
            f"extract: the network takes no images of {about.image_shape}: {error}"
        ) from None
    wanted = flax.traverse_util.flatten_dict(shapes, sep="/")
    found = {name: np.shape(array) for name, array in arrays.items()}
    for name in sorted({*wanted, *found}):
        if found.get(name) != wanted.get(name):
            raise ArtefactError(
                f"extract: {name!r} has shape {found.get(name, 'none')}, where the "
                f"network for images of {about.image_shape} has "
                f"{wanted.get(name, 'none')}"
            )


def _check_floats(name: str, array: np.ndarray) -> None:
    if array.dtype != np.float32 or not np.isfinite(array).all():
        raise ArtefactError(
            f"extract: {name!r} must hold finite float32 numbers, got "
            f"{array.dtype}{list(array.shape)}"
        )


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in _VERSIONED}
    return {
        "aslp_jax": __version__,
        **packages,
        "platform": jax.default_backend(),
    }
