"""The arrays and the outputs that a network has, without allocating any."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aslp_jax import functional
from aslp_jax._tree import map_named, named_leaves
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.description import Description


@dataclasses.dataclass(frozen=True, eq=False)
class Signature:
    """Arrays and outputs of a network for one input.

    Attributes:
      variables: `{"params": ..., **collections}` of shapes and dtypes.
      order: names of the arrays of `params`, in the order in which the network uses
        them.
      outputs: pytree of shapes and dtypes, with a batch of one.
    """

    variables: Mapping[str, Any]
    order: tuple[str, ...]
    outputs: Any


def trace(net: Any, image_shape: tuple[int, ...]) -> Signature:
    """Traces a network of any kind.

    Args:
      net: network, in any form that `functional.network` takes.
      image_shape: shape of an input, without the batch.

    Raises:
      TypeError: `net` is no network.
      ArtefactError: the network cannot take such inputs; the message continues a word
        for the network.
    """
    plain: Any = functional.network(net)
    try:
        return _trace(plain, image_shape)
    except Exception as error:  # a person's own code may raise anything
        reason = next(iter(str(error).splitlines()), "")
        raise ArtefactError(
            f"takes no inputs of {image_shape}: {type(error).__name__}: {reason}"
        ) from error


@functools.lru_cache(maxsize=8)
def _trace(net: functional.Network, image_shape: tuple[int, ...]) -> Signature:
    inputs = jax.ShapeDtypeStruct((1, *image_shape), jnp.float32)
    key = jax.eval_shape(lambda: jax.random.key(0))
    weights, collections = jax.eval_shape(net.init, key, inputs)
    program, outputs = jax.make_jaxpr(
        lambda *arguments: net.apply(*arguments)[0], return_shape=True
    )(weights, collections, inputs)
    names = list(named_leaves(weights))
    used = [index for index in _by_first_use(program.jaxpr) if index < len(names)]
    order = tuple(names[index] for index in used)
    return Signature({"params": weights, **collections}, order, outputs)


def _by_first_use(jaxpr: Any) -> list[int]:
    """Returns the indices of the arguments of a program by first use, unused last."""
    indices = {variable: index for index, variable in enumerate(jaxpr.invars)}
    order: dict[int, None] = {}
    for equation in jaxpr.eqns:
        used = equation.invars
        inner = equation.params.get("jaxpr") or equation.params.get("call_jaxpr")
        inner = getattr(inner, "jaxpr", inner)
        if inner is not None and len(inner.invars) == len(used):
            used = [used[index] for index in _by_first_use(inner)]
        for variable in used:
            # A literal is no variable, and cannot be hashed.
            if not hasattr(variable, "val") and variable in indices:
                order.setdefault(indices[variable])
    return [*order, *(i for i in range(len(indices)) if i not in order)]


def compare(
    signature: Signature, arrays: Mapping[str, Any], about: Description
) -> None:
    """Checks that arrays and a description are those of a network.

    Args:
      signature: arrays and outputs of the network.
      arrays: name to array; the name begins with the collection (`params/...`).
      about: description with the shape of an output.

    Raises:
      ArtefactError: one of them differs; the message names the first that does.
    """
    compare_arrays(dict(signature.variables), arrays, "the network")
    outputs = signature.outputs
    shape = outputs.shape[1:] if hasattr(outputs, "shape") else None
    if shape != about.outputs:
        kind = "more than one array" if shape is None else f"outputs of {shape}"
        raise ArtefactError(
            f"is described with outputs of {about.outputs}, where the network has "
            f"{kind}"
        )


def compare_arrays(tree: Any, arrays: Mapping[str, Any], owner: str) -> None:
    """Checks that arrays have the names, shapes and dtypes of the leaves of a tree.

    Args:
      tree: pytree of arrays, or of shapes and dtypes.
      arrays: name to array.
      owner: words for the owner of the tree, for the message.

    Raises:
      ArtefactError: one of them differs; the message names the first that does.
    """
    wanted = {name: _format(leaf) for name, leaf in named_leaves(tree).items()}
    found = {name: _format(array) for name, array in arrays.items()}
    for name in sorted({*wanted, *found}):
        if found.get(name) != wanted.get(name):
            raise ArtefactError(
                f"has {found.get(name, 'nothing')} at {name!r}, where {owner} has "
                f"{wanted.get(name, 'nothing')}"
            )


def restore(signature: Signature, arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arrays in the trees of a network.

    Args:
      signature: arrays of the network.
      arrays: name to array; the name begins with the collection (`params/...`).
    """
    return map_named(
        dict(signature.variables), arrays, lambda name, _: jnp.asarray(arrays[name])
    )


def _format(array: Any) -> str:
    """Returns the dtype and the shape of an array, such as `float32[3, 3]`."""
    return f"{array.dtype}{list(array.shape)}"
