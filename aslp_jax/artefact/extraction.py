"""Extracts the deterministic network that a method selected."""

import dataclasses
import functools
import importlib.metadata
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax import _sharding, functional
from aslp_jax._frameworks import is_nnx
from aslp_jax._tree import map_named, named_leaves
from aslp_jax._version import __version__
from aslp_jax.artefact import architecture, signature, weight_recipe
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.description import Description
from aslp_jax.artefact.packing import DTYPES
from aslp_jax.artefact.recording import InitArguments, init_arguments
from aslp_jax.artefact.source import Source, default_source
from aslp_jax.artefact.subnetwork import LayerWeights, Subnetwork, make_layer_weights
from aslp_jax.evaluate import effective_weights
from aslp_jax.masked import FROZEN, PARAMS, Masked
from aslp_jax.methods import Method, ScaledMask

if TYPE_CHECKING:
    from aslp_jax import nnx as masked_nnx

_VERSIONED = ("jax", "jaxlib", "flax")


def extract(
    model: "Masked | functional.Model | masked_nnx.Masked",
    variables: Mapping[str, Any] | None,
    description: Description,
    *,
    key: jax.Array | None = None,
    source: Source | None = None,
) -> Subnetwork:
    """Returns the deterministic network that a method selected.

    If parts of the variables lie in other processes, these must call this too.

    Args:
      model: network of any framework with its method.
      variables: variables of the model: frozen, params and other collections; None for
        an `aslp_jax.nnx.Masked`, which holds its own.
      description: facts about the network; `extract` fills in the versions.
      key: PRNG key of `functional.init` (for a Linen `Masked`: of `model.init`), from
        which the frozen weights are initialised again. Without the key, or where this
        does not give the same bits, a file stores the frozen weights. A network that is
        not of this library has weights with a recipe where the model is a `Masked` of
        Linen or a `functional.Model` with a `weight_init`.
      source: name of a network that is not of this library, for people; default: the
        name of its class. Without effect on a network of this library, which a file
        names itself.

    Returns:
      The subnetwork. Its weights are those of `method.effective_weights` bit for bit,
      except for the sign of a 0. For a network of this library `net` is a new module
      with the convolution `convolution.of_platform` of the default device, so outputs
      equal those of `model` bit for bit only if `model.net` has the same convolution.

    Raises:
      ArtefactError: no file can hold the network; the description has other inputs or
        outputs than the network; an array is missing, superfluous, of another dtype or
        not finite; or an effective weight is not 0 where the method's mask drops it.
    """
    given: Any = model
    if is_nnx(given):
        given, variables = _parts_of_nnx(given)
    elif variables is None:
        raise ArtefactError("extract: variables are missing")
    plain = architecture.unwrap(given.net)
    if architecture.is_known(plain):
        net, source = architecture.from_config(architecture.to_config(plain)), None
    else:
        net, source = given.net, source or default_source(plain)
    collections = dict(variables)
    frozen, params = collections.pop(FROZEN, {}), collections.pop(PARAMS)
    tree = effective_weights(frozen, params, None, method=given.method)
    all_masks = _masks(frozen, params, method=given.method)
    # One transfer, so that the host waits only once.
    effective, (masks, scaled_masks), sources, others = _sharding.on_host(
        (named_leaves(tree), all_masks, named_leaves(frozen), collections)
    )
    arrays = named_leaves({"params": effective, **others})
    order = _check_arrays(net, description, arrays)
    for name, array in arrays.items():
        _check_numbers(name, array, DTYPES if source else ("float32",))
    arguments: Mapping[str, InitArguments] = {}
    if key is not None:
        arguments = init_arguments(given, plain, key, description.image_shape)
    layers = {}
    for name in order if source else effective:
        weights = effective[name]
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
        source=source,
    )


def _parts_of_nnx(
    model: "masked_nnx.Masked",
) -> tuple[functional.Model, Mapping[str, Any]]:
    """Returns the model and the variables of a masked NNX module."""
    from flax import nnx

    from aslp_jax import nnx as masked_nnx

    net = masked_nnx.unmask(model)
    # An NNX module stands for its own arrays, whatever the key and the inputs are.
    _, collections = functional.network(net).init(jax.random.key(0), jnp.zeros(()))
    variables = {
        FROZEN: nnx.as_pure(model.frozen),
        PARAMS: nnx.as_pure(model.params),
        **collections,
    }
    return functional.Model(net, model.method), variables


@functools.partial(jax.jit, static_argnames=("method",))
def _masks(frozen: Any, params: Any, *, method: Method) -> tuple[Any, Any]:
    """Returns the masks of arrays without a scaled mask, and the scaled masks."""
    scaled_masks = method.scaled_masks(frozen, params)
    masks = method.masks(frozen, params)
    rest = {name: mask for name, mask in masks.items() if name not in scaled_masks}
    return rest, scaled_masks


def _layer_of_frozen(
    name: str, frozen: np.ndarray, scaled: ScaledMask, init: InitArguments | None
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
    name: str, weights: np.ndarray, mask: np.ndarray | None, init: InitArguments | None
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


def _replace_weights(tree: Any, layers: Mapping[str, LayerWeights]) -> Any:
    """Returns the tree with the weights of `layers` as its leaves."""
    return map_named(tree, layers, lambda name, _: jnp.asarray(layers[name].weights))


def _check_arrays(
    net: Any, about: Description, arrays: Mapping[str, np.ndarray]
) -> tuple[str, ...]:
    """Checks a description and arrays against a network.

    Returns:
      Names of the weights, in the order in which the network uses them.
    """
    try:
        found = signature.trace(net, about.image_shape)
    except ArtefactError as error:
        raise ArtefactError(f"extract: the network {error}") from error
    try:
        signature.compare(found, arrays, about)
    except ArtefactError as error:
        raise ArtefactError(f"extract: the model {error}") from None
    return found.order


def _check_numbers(name: str, array: np.ndarray, dtypes: tuple[str, ...]) -> None:
    if array.dtype.name not in dtypes or not np.isfinite(array).all():
        raise ArtefactError(
            f"extract: {name!r} must hold finite {' or '.join(dtypes)} numbers, got "
            f"{array.dtype}{list(array.shape)}"
        )


def _versions() -> dict[str, str]:
    packages = {name: importlib.metadata.version(name) for name in _VERSIONED}
    return {
        "aslp_jax": __version__,
        **packages,
        "platform": jax.default_backend(),
    }
