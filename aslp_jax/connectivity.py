"""What pruning cut off: layers left empty, dead units, weights on no path."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from aslp_jax._tree import kernels, map_named, named_leaves

_NORMALISATIONS = (
    nn.BatchNorm,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
    nn.InstanceNorm,
)


class Layer(NamedTuple):
    """How a layer hangs together with the rest, int32 scalars.

    Attributes:
      weights: of its kernel.
      kept: of them; 0 where the layer was left empty.
      on_path: of those kept, how many lie on a path from an input to an output.
      units: outputs (channels) of the layer.
      without_input: units that no input reaches.
      without_output: units that reach no output of the network.
    """

    weights: jax.Array
    kept: jax.Array
    on_path: jax.Array
    units: jax.Array
    without_input: jax.Array
    without_output: jax.Array


class Connectivity(NamedTuple):
    """What remains of a network.

    Attributes:
      layers: by the name of the kernel, in the order in which they are called.
      outputs: of the network, int32.
      reached: of them, those that an input reaches, int32; none where no path remains.
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

    The network itself is run on zeros and ones: kernels are their masks, each layer
    says of every output whether it is reached, and the gradient says in the same way
    what reaches an output. ReLUs, sums, reshapes and pools pass this on as they are, if
    the pool shares its gradient among equal inputs, as the mean does and
    `layers.max_pool_2x2`; behind `flax.linen.max_pool`, which gives it to one of them,
    too few weights count as on a path. Normalisations are left out. A position counts
    as an input whatever its value, and a weight that meets nothing but padding is on no
    path.

    Args:
      net: a Flax module whose weights are the kernels of layers that are linear in
        their input, such as `Dense` and `Conv`, with ReLU-like functions between.
      variables: of the plain network, such as `{"params": weights, **collections}`;
        only names and shapes matter.
      masks: bool by name, as a method's `masks` returns them; a kernel without one
        counts as kept whole.
      inputs: one batch; only shape and dtype matter.
      **options: of the network's call, such as `train=False`.

    Returns:
      Counts for each layer, and for the outputs.

    Raises:
      KeyError: a mask names a weight that the network does not hold.
    """
    params = jax.tree_util.tree_map_with_path(_open, variables["params"])
    params = map_named(params, masks, lambda name, leaf: masks[name].astype(leaf.dtype))
    rest = {name: each for name, each in variables.items() if name != "params"}
    ones = jnp.ones((1, *inputs.shape[1:]), inputs.dtype)

    def run(params: Any, probes: Any, everywhere: bool) -> Any:
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
            reached = _assumed(outputs) if everywhere else _reached(outputs)
            units = jnp.any(reached > 0, axis=range(reached.ndim - 1))
            seen[name] = seen[name] | units if name in seen else units
            if not probes:
                return reached
            probe = probes[name].astype(reached.dtype)
            return reached + jnp.broadcast_to(probe, reached.shape)

        with nn.intercept_methods(layer):
            outputs = net.apply({"params": params, **rest}, ones, **options)
        return _reached(outputs), seen

    outputs, seen = run(params, {}, False)
    probes = {name: jnp.zeros(units.shape, jnp.float32) for name, units in seen.items()}
    pulls = {}
    for everywhere in (False, True):
        _, pull = jax.vjp(
            lambda params, probes, mode=everywhere: run(params, probes, mode)[0],
            params,
            probes,
        )
        pulls[everywhere] = pull(jnp.ones_like(outputs))
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


def _open(path: Any, leaf: jax.Array) -> jax.Array:
    """A kernel of which all is kept; of what is added to its outputs, nothing."""
    name = jax.tree_util.keystr(path, simple=True, separator="/")
    return jnp.ones_like(leaf) if kernels(name) else jnp.zeros_like(leaf)


@jax.custom_vjp
def _reached(x: jax.Array) -> jax.Array:
    """1 where anything arrives, else 0; in the gradient likewise."""
    return (x > 0).astype(x.dtype)


@jax.custom_vjp
def _assumed(x: jax.Array) -> jax.Array:
    """1 everywhere, as if all were reached; the gradient as that of `_reached`."""
    return jnp.ones_like(x)


def _back(_: None, gradient: jax.Array) -> tuple[jax.Array]:
    return ((gradient > 0).astype(gradient.dtype),)


_reached.defvjp(lambda x: (_reached(x), None), _back)
_assumed.defvjp(lambda x: (_assumed(x), None), _back)
