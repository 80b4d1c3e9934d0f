"""Connectivity of pruned networks: empty layers, dead units, weights on no path."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aslp_jax._tree import kernels, map_named, named_leaves, path_name

__all__ = ["Connectivity", "Layer", "connectivity"]

_NORMALISATIONS = (
    nn.BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.InstanceNorm,
)


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
    net: nn.Module,
    variables: Mapping[str, Any],
    masks: Mapping[str, jax.Array],
    inputs: jax.Array,
    **options: Any,
) -> Connectivity:
    """Follows all paths through a pruned network, from its inputs and its outputs.

    The network runs on zeros and ones. Each kernel is replaced by its mask and each
    layer outputs 1 for a position that the inputs reach, else 0. The gradient marks in
    the same way the positions that reach an output. ReLUs, sums, reshapes and pools
    pass the marks on. A pool must share its gradient among equal inputs, as the mean
    and `layers.max_pool_2x2` do; `flax.linen.max_pool` gives it to one input, so that
    too few weights count as on a path. Normalisations are skipped. Every input position
    counts as an input, whatever its value. A weight that only meets padding is on no
    path.

    Args:
      net: Flax module whose weights are the kernels of layers that are linear in their
        input, such as `Dense` and `Conv`, with ReLU-like functions between them.
      variables: variables of the plain network, such as
        `{"params": weights, **collections}`; only names and shapes matter.
      masks: bool masks by name, from the `masks` of a method; all weights of a kernel
        without a mask count as kept.
      inputs: one batch; only shape and dtype matter.
      **options: keyword arguments of the network's call, such as `train=False`.

    Returns:
      Counts of each layer and of the outputs.

    Raises:
      KeyError: a mask names a weight that the network does not hold.
    """
    params = jax.tree_util.tree_map_with_path(_unpruned, variables["params"])
    params = map_named(params, masks, lambda name, leaf: masks[name].astype(leaf.dtype))
    others = {name: each for name, each in variables.items() if name != "params"}
    ones = jnp.ones((1, *inputs.shape[1:]), inputs.dtype)

    def run(params: Any, probes: Any, assume_reached: bool) -> Any:
        seen: dict[str, jax.Array] = {}

        def layer(call: Any, args: Any, kwargs: Any, context: Any) -> Any:
            module = context.module
            if context.method_name != "__call__":
                return call(*args, **kwargs)
            if isinstance(module, _NORMALISATIONS):
                return args[0]
            if not module.has_variable("params", "kernel"):
                return call(*args, **kwargs)
            name = "/".join((*module.path, "kernel"))
            outputs = call(_reached(args[0]), *args[1:], **kwargs)
            reached = _all_reached(outputs) if assume_reached else _reached(outputs)
            units = jnp.any(reached > 0, axis=range(reached.ndim - 1))
            seen[name] = seen[name] | units if name in seen else units
            if not probes:
                return reached
            probe = probes[name].astype(reached.dtype)
            return reached + jnp.broadcast_to(probe, reached.shape)

        with nn.intercept_methods(layer):
            outputs = net.apply({"params": params, **others}, ones, **options)
        return _reached(outputs), seen

    outputs, seen = run(params, {}, False)
    probes = {name: jnp.zeros(units.shape, jnp.float32) for name, units in seen.items()}
    pulls = {}
    for assume_reached in (False, True):
        _, pull = jax.vjp(
            lambda params, probes, mode=assume_reached: run(params, probes, mode)[0],
            params,
            probes,
        )
        pulls[assume_reached] = pull(jnp.ones_like(outputs))
    used = named_leaves(pulls[False][0], lambda name: name in seen)
    kept = named_leaves(params, lambda name: name in seen)
    layers = {
        name: Layer(
            weights=jnp.asarray(kept[name].size, jnp.int32),
            kept=_count(kept[name] > 0),
            on_path=_count((kept[name] > 0) & (used[name] > 0)),
            units=jnp.asarray(units.size, jnp.int32),
            without_input=_count(~units),
            without_output=_count(~(pulls[True][1][name] > 0)),
        )
        for name, units in seen.items()
    }
    reached = jnp.any(outputs > 0, axis=range(outputs.ndim - 1))
    return Connectivity(layers, jnp.asarray(reached.size, jnp.int32), _count(reached))


def _count(flags: jax.Array) -> jax.Array:
    return jnp.sum(flags, dtype=jnp.int32)


def _unpruned(path: Any, leaf: jax.Array) -> jax.Array:
    """Returns ones for a kernel, and zeros for a bias, which connects nothing."""
    is_kernel = kernels(path_name(path))
    return jnp.ones_like(leaf) if is_kernel else jnp.zeros_like(leaf)


@jax.custom_vjp
def _reached(x: jax.Array) -> jax.Array:
    """Returns 1 for positive entries, else 0; the gradient is marked alike."""
    return (x > 0).astype(x.dtype)


@jax.custom_vjp
def _all_reached(x: jax.Array) -> jax.Array:
    """Returns 1 assume_reached; the gradient is that of `_reached`."""
    return jnp.ones_like(x)


def _back(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return ((gradient > 0).astype(gradient.dtype),)


_reached.defvjp(lambda x: (_reached(x), None), _back)
_all_reached.defvjp(lambda x: (_all_reached(x), None), _back)
