"""Connectivity of pruned networks: empty layers, dead units, weights on no path."""

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax import functional
from aslp_jax._tree import map_named, named_leaves
from aslp_jax.export.operations import (
    Binary,
    Concatenate,
    Conv,
    Dense,
    Graph,
    MatMul,
    Node,
    Pad,
    Reduce,
    Select,
    Unary,
    Window,
    compute,
)
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import trace

__all__ = ["Connectivity", "Layer", "connectivity"]


class Layer(NamedTuple):
    """Connectivity of one layer, int32 scalars.

    Attributes:
      weights: number of weights of the kernel.
      kept: number of kept weights; 0 for an empty layer.
      on_path: number of kept weights on a path from an input to an output.
      units: number of units (output channels) of the layer.
      without_input: number of units that no input reaches.
      without_output: number of units that reach no output of the network.
    """

    weights: jax.Array
    kept: jax.Array
    on_path: jax.Array
    units: jax.Array
    without_input: jax.Array
    without_output: jax.Array


class Connectivity(NamedTuple):
    """Connectivity of a network.

    Attributes:
      layers: name of the kernel to its layer, in the order of the calls.
      outputs: number of outputs of the network, int32 scalar.
      reached: number of outputs that an input reaches, int32 scalar.
    """

    layers: dict[str, Layer]
    outputs: jax.Array
    reached: jax.Array


def connectivity(
    net: Any,
    weights: Any,
    collections: Mapping[str, Any],
    masks: Mapping[str, jax.Array],
    inputs: jax.Array | jax.ShapeDtypeStruct,
) -> Connectivity:
    """Follows all paths through a pruned network, from its inputs and its outputs.

    The network is traced, and its graph runs on zeros and ones. Each kernel is replaced
    by its mask and each layer outputs 1 for a position that the inputs reach, else 0.
    The gradient marks in the same way the positions that reach an output. All other
    operations pass the marks of all their inputs on. Constants, such as biases and the
    statistics of batch-norm, connect nothing and separate nothing. Every input position
    counts as an input, whatever its value. A weight that only meets padding is on no
    path. A normalisation over channels, such as layer norm, connects them all.

    Args:
      net: network, in any form that `functional.network` takes; its layers are the
        convolutions and dense layers whose kernels are weights.
      weights: weights of the network, as from its `init`; only names and shapes matter.
      collections: other collections of the network; only names and shapes matter.
      masks: bool masks by name, from the `masks` of a method; all weights of a kernel
        without a mask count as kept.
      inputs: one batch; only shape and dtype matter.

    Returns:
      Counts of each layer and of the outputs.

    Raises:
      KeyError: a mask names a weight that the network does not hold.
      UnsupportedError: the network computes something that has no place in a graph, so
        that its paths are unknown. The message names it.
    """
    network = functional.network(net)
    zeros = jax.tree.map(_zeros, dict(collections))
    graph = simplify(
        trace(
            lambda weights, inputs: network.apply(weights, zeros, inputs)[0],
            jax.tree.map(_zeros, weights),
            jax.ShapeDtypeStruct(inputs.shape[1:], inputs.dtype),
        )
    )
    ones = jax.tree.map(lambda leaf: np.ones(leaf.shape, np.float32), weights)
    ones = map_named(ones, masks, lambda name, _: masks[name].astype(jnp.float32))
    units = _units(graph)
    kept = {name: each for name, each in named_leaves(ones).items() if name in units}
    probes = {name: jnp.zeros(count, jnp.float32) for name, count in units.items()}
    runs = {
        assume_reached: jax.vjp(
            functools.partial(_follow, graph, assume_reached=assume_reached),
            kept,
            probes,
            has_aux=True,
        )
        for assume_reached in (False, True)
    }
    outputs, _, seen = runs[False]
    pulls = {mode: pull(jnp.ones_like(outputs)) for mode, (_, pull, _) in runs.items()}
    used = pulls[False][0]
    layers = {
        name: Layer(
            weights=jnp.asarray(kept[name].size, jnp.int32),
            kept=_count(kept[name] > 0),
            on_path=_count((kept[name] > 0) & (used[name] > 0)),
            units=jnp.asarray(count, jnp.int32),
            without_input=_count(~seen[name]),
            without_output=_count(~(pulls[True][1][name] > 0)),
        )
        for name, count in units.items()
    }
    reached = jnp.any(outputs > 0, axis=range(outputs.ndim - 1))
    return Connectivity(layers, jnp.asarray(reached.size, jnp.int32), _count(reached))


def _zeros(leaf: Any) -> Any:
    """Returns zeros in the shape of an array; a PRNG key as it is."""
    if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key):
        return leaf
    return np.zeros(leaf.shape, leaf.dtype)


def _units(graph: Graph) -> dict[str, int]:
    """Returns the number of units of each layer, by the name of its kernel."""
    return {
        node.operation.origin.name: node.shape[-1]
        for node in graph.nodes
        if isinstance(node.operation, Conv | Dense)
        and node.operation.origin is not None
    }


def _follow(
    graph: Graph,
    kept: Mapping[str, Any],
    probes: Mapping[str, jax.Array],
    *,
    assume_reached: bool,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Runs a graph on marks.

    Args:
      graph: the network.
      kept: 1 for each kept weight, else 0, by the name of the kernel.
      probes: zeros `[units]` by the name of the kernel, added to the marks of its
        layer.
      assume_reached: True marks every position of every layer as reached.

    Returns:
      Marks of the outputs, and bool `[units]` for each layer, True for a unit that the
      inputs reach.
    """
    seen: dict[str, jax.Array] = {}
    values = [jnp.ones((1, *graph.input_shape), jnp.float32)]
    for node in graph.nodes:
        marks = _pass_on(node, [values[index] for index in node.inputs], kept)
        layer = node.operation
        if isinstance(layer, Conv | Dense) and layer.origin is not None:
            name = layer.origin.name
            marks = _all_reached(marks) if assume_reached else marks
            units = jnp.any(marks > 0, axis=range(marks.ndim - 1))
            seen[name] = seen[name] | units if name in seen else units
            marks = marks + jnp.broadcast_to(probes[name], marks.shape)
        values.append(marks)
    return values[-1], seen


def _pass_on(
    node: Node, operands: list[jax.Array], kept: Mapping[str, Any]
) -> jax.Array:
    """Returns the marks of a node's result."""
    operation, shape = node.operation, (1, *node.shape)
    match operation:
        case Conv() | Dense():
            origin = operation.origin
            kernel: Any = np.ones(operation.kernel.shape, np.float32)
            if origin is not None:
                kernel = origin.arrange(kept[origin.name])
            operation = dataclasses.replace(
                operation, kernel=kernel, scale=None, shift=None
            )
        case MatMul():
            first, second = operands
            pairs = (first, jnp.ones_like(second)), (jnp.ones_like(first), second)
            return _reached(sum(one @ other for one, other in pairs))
        case Unary() | Binary() | Select():
            total = sum(jnp.broadcast_to(each, shape) for each in operands)
            return _reached(jnp.asarray(total))
        case Reduce(_, axes):
            operation = Reduce("sum", axes)
        case Window():
            operation = dataclasses.replace(operation, function="sum")
        case Pad(padding):
            operation = Pad(padding, 0.0)
        case Concatenate(axis, constants):
            empty = (None if each is None else 0 * each for each in constants)
            operation = Concatenate(axis, tuple(empty))
    return _reached(compute(dataclasses.replace(node, operation=operation), operands))


def _count(flags: jax.Array) -> jax.Array:
    return jnp.sum(flags, dtype=jnp.int32)


@jax.custom_vjp
def _reached(x: jax.Array) -> jax.Array:
    """Returns 1 for positive entries, else 0; the gradient is marked alike."""
    return (x > 0).astype(x.dtype)


@jax.custom_vjp
def _all_reached(x: jax.Array) -> jax.Array:
    """Returns 1 everywhere; the gradient is that of `_reached`."""
    return jnp.ones_like(x)


def _back(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return ((gradient > 0).astype(gradient.dtype),)


_reached.defvjp(lambda x: (_reached(x), None), _back)
_all_reached.defvjp(lambda x: (_all_reached(x), None), _back)
