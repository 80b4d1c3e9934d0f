"""From a network and what was learnt to the subnetwork that remains of it."""

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

from aslp_jax._tree import map_named, named_leaves
from aslp_jax._version import __version__
from aslp_jax.artefact import architecture, weight_recipe
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.description import Description
from aslp_jax.artefact.subnetwork import LayerWeights, Subnetwork, make_layer_weights
from aslp_jax.evaluate import effective_weights
from aslp_jax.masked import FROZEN, PARAMS, Masked
from aslp_jax.methods import ASLP, Method, ScaledMask

_VERSIONED = ("jax", "jaxlib", "flax")


class _Noted(NamedTuple):
    """What the initialiser of an array was told: its key's words, and a fan_in."""

    key: tuple[int, int]
    fan_in: int | None


def extract(
    model: Masked,
    variables: Mapping[str, Any],
    description: Description,
    *,
    key: jax.Array | None = None,
) -> Subnetwork:
    """Returns the deterministic network that a method selected, alone.

    Args:
      model: one of `networks`, and its method.
      variables: of the model: frozen, learnt and other collections, float32.
      description: what it is about; versions are filled in.
      key: PRNG key that `model.init` was given, from which the frozen weights are drawn
        again; without it, or where they are not drawn again to the last bit, they
        themselves will be part of a file.

    Returns:
      The subnetwork; its weights are those of `method.effective_weights` bit for
      bit, but for the sign of a 0. Its `net` is made anew and convolves with
      `convolution.of_platform`
      of the default device, so that its outputs are those of `model` bit for bit only
      where `model.net` does too.

    Raises:
      ArtefactError: a network that no file can name, a description of other classes or
        images than it has, arrays that it does not have, of another dtype than float32,
        or not finite, or effective weights that are not 0 where the method's mask says
        they are dropped.
    """
    net = architecture.from_config(architecture.to_config(model.net))
    collections = dict(variables)
    frozen, params = collections.pop(FROZEN, {}), collections.pop(PARAMS)
    tree = effective_weights(frozen, params, None, method=model.method)
    choices = _choices(frozen, params, method=model.method)
    # All at once, so that the host waits but once.
    effective, (masks, factored), sources, others = jax.device_get(
        (named_leaves(tree), choices, named_leaves(frozen), collections)
    )
    arrays = named_leaves({"params": effective, **others})
    _check_fits(net, description, arrays)
    for name, array in arrays.items():
        _check(name, array)
    noted = {} if key is None else _note(model, key, description.image_shape)
    entries = {}
    for name, weights in effective.items():
        told, mask = noted.get(name), masks.get(name)
        if name in factored:
            entry = _factored(name, sources[name], factored[name], told)
            if np.array_equal(entry.weights, weights):
                entries[name] = entry
                continue
            mask = factored[name].mask != 0
        entries[name] = _whole(name, weights, mask, told)
    return Subnetwork(
        net=net,
        variables={
            "params": _like(tree, entries),
            **jax.tree.map(jnp.asarray, others),
        },
        entries=entries,
        description=dataclasses.replace(description, versions=_versions()),
    )


@functools.partial(jax.jit, static_argnames=("method",))
def _choices(frozen: Any, params: Any, *, method: Method) -> tuple[Any, Any]:
    """Returns the factors of the method, and the masks of what has none, by name."""
    factored = method.scaled_masks(frozen, params)
    masks = method.masks(frozen, params)
    rest = {name: mask for name, mask in masks.items() if name not in factored}
    return rest, factored


def _factored(
    name: str, frozen: np.ndarray, factored: ScaledMask, noted: _Noted | None
) -> LayerWeights:
    """An array whose frozen weights are selected from."""
    scale = None if factored.scale is None else np.float32(factored.scale)
    found = noted and weight_recipe.find(frozen, noted.key, noted.fan_in)
    factors = np.asarray(factored.mask)
    return make_layer_weights(name, frozen, factors=factors, scale=scale, recipe=found)


def _whole(
    name: str, weights: np.ndarray, mask: np.ndarray | None, noted: _Noted | None
) -> LayerWeights:
    """An array of which the effective weights themselves are what there is."""
    if mask is None:
        found = noted and weight_recipe.find(weights, noted.key, noted.fan_in)
        return make_layer_weights(name, weights, recipe=found)
    entry = make_layer_weights(name, weights, factors=mask.astype(np.int8))
    if not np.array_equal(entry.weights, weights):
        raise ArtefactError(
            f"extract: {name!r} has weights other than 0 where its mask drops them"
        )
    return entry


def _note(
    model: Masked, key: jax.Array, image_shape: tuple[int, ...]
) -> dict[str, _Noted]:
    """What the initialisers of each array are told when the model is drawn with a key.

    The network is drawn once more with others that keep their key, and write into the
    array that they return which of them it came from.
    """
    if str(jax.random.key_impl(key)) != weight_recipe.GENERATOR:
        return {}
    keys: list[jax.Array] = []
    fan_ins: list[int | None] = []

    def noting(fan_in: int | None = None) -> Initializer:
        def init(key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> jax.Array:
            keys.append(jax.random.key_data(key))
            fan_ins.append(fan_in)
            # Below 0, where no other initialiser of these networks starts.
            return jnp.full(shape, -len(keys), dtype)

        return init

    biases = None if model.net.bias_init is None else noting
    net = model.net.clone(conv_init=noting(), dense_init=noting(), bias_init=biases)

    @jax.jit
    def draw(key: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        images = jnp.zeros((1, *image_shape), jnp.float32)
        # Of any method that leaves the weights where they are.
        variables = Masked(net, ASLP(), model.select).init(key, images, train=False)
        firsts = {
            name: leaf.ravel()[0]
            for name, leaf in named_leaves(variables[FROZEN]).items()
        }
        return jnp.stack(keys), firsts

    words, firsts = jax.device_get(draw(key))
    noted = {}
    for name, first in firsts.items():
        if first < 0:
            index = -int(first) - 1
            pair = (int(words[index, 0]), int(words[index, 1]))
            noted[name] = _Noted(pair, fan_ins[index])
    return noted


def _like(tree: Any, entries: Mapping[str, LayerWeights]) -> Any:
    """A tree of the effective weights in the places of the network's parameters."""
    return map_named(tree, entries, lambda name, _: jnp.asarray(entries[name].weights))


def _check_fits(net: Any, about: Description, arrays: Mapping[str, np.ndarray]) -> None:
    """Checks that a description and arrays are those of a network."""
    if about.classes != net.classes:
        raise ArtefactError(
            f"extract: the network has {net.classes} classes, and its description "
            f"{about.classes}"
        )
    try:
        shapes = architecture.shapes_of(net, about.image_shape)
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


def _check(name: str, array: np.ndarray) -> None:
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
