"""Encoder of StableHLO, by `jax.export`; XLA runs it without this library."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from aslp_jax.artefact import Subnetwork
from aslp_jax.export import passes
from aslp_jax.export.cost import Cost, cost
from aslp_jax.export.network import function_of, graph_of
from aslp_jax.export.operations import Shape, run
from aslp_jax.export.refusal import UnsupportedError
from aslp_jax.export.result import MULTIPLIED_AS_ZEROS, ExportResult

__all__ = ["PLATFORMS", "encode"]

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that a serialised function runs on."""


def encode(subnetwork: Subnetwork, *, compact: bool = True) -> ExportResult:
    """Returns the serialised function from inputs to outputs, with its weights.

    `jax.export.deserialize(content).call(images)` runs the function on any of
    `PLATFORMS`. Images are uint8 `[batch, height, width, channels]`, the batch at least
    one. Other inputs are float32, as the network takes them. The function computes in
    float32, whatever the dtype of the network. The outputs equal those of a float32
    network up to rounding.

    A network that has no graph, because it computes something that `trace` does not
    know, is exported as it is: nothing is left out, and an NNX module computes in its
    own dtype.

    Args:
      subnetwork: the network.
      compact: True removes dead units (`passes.compact`), except for those that keep
        the number of channels a multiple of `passes.CHANNEL_MULTIPLE`.

    Returns:
      One file. Its costs are None for a network without a graph.

    Raises:
      ValueError: JAX cannot export the network for any batch.
    """
    shape = subnetwork.description.image_shape
    function, before, after = _function(subnetwork, shape, compact)

    is_image = len(shape) == 3

    def logits(inputs: jax.Array) -> jax.Array:
        return function(subnetwork.prepare(inputs) if is_image else inputs)

    (batch,) = export.symbolic_shape("batch")
    kind = jnp.uint8 if is_image else jnp.float32
    inputs = jax.ShapeDtypeStruct((batch, *shape), kind)
    try:
        exported = export.export(jax.jit(logits), platforms=PLATFORMS)(inputs)
    except jax.core.InconclusiveDimensionOperation as error:
        reason = str(error).splitlines()[0]
        raise ValueError(
            f"stablehlo: the network cannot take batches of any size: {reason}"
        ) from None
    return ExportResult(
        {"": bytes(exported.serialize())},
        before,
        after,
        operations=None if after is None else after.multiply_adds,
        dropped=MULTIPLIED_AS_ZEROS,
    )


def _function(
    subnetwork: Subnetwork, shape: Shape, compact: bool
) -> tuple[Callable[[Any], Any], Cost | None, Cost | None]:
    """Returns the function of prepared images, and its costs before and after."""
    try:
        graph = graph_of(subnetwork.net, subnetwork.variables, shape)
    except UnsupportedError:
        network = function_of(subnetwork.net)
        collections = dict(subnetwork.variables)
        weights = collections.pop("params", {})
        return lambda x: network.apply(weights, collections, x)[0], None, None
    before = after = cost(graph)
    if compact:
        graph = passes.compact(graph, multiple=passes.CHANNEL_MULTIPLE)
        after = cost(graph)
    return functools.partial(run, graph), before, after
