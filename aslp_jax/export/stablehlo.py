"""Encoder of StableHLO, by `jax.export`; XLA runs it without this library."""

import jax
import jax.numpy as jnp
from jax import export

from aslp_jax.artefact import Subnetwork
from aslp_jax.export import graph as graphs
from aslp_jax.export import passes
from aslp_jax.export.lower import layers_of
from aslp_jax.export.result import MULTIPLIED_AS_ZEROS, ExportResult

__all__ = ["PLATFORMS", "encode"]

PLATFORMS = ("cpu", "cuda", "tpu")
"""Platforms that a serialised function runs on."""


def encode(subnetwork: Subnetwork, *, compact: bool = True) -> ExportResult:
    """Returns the serialised function from images to logits, with its weights.

    `jax.export.deserialize(content).call(images)` runs the function on any of
    `PLATFORMS`. Images are uint8 `[batch, height, width, channels]`, the batch at least
    one. The function computes in float32, whatever the dtype of the network. The logits
    equal those of a float32 network up to rounding.

    Args:
      subnetwork: the network.
      compact: True removes dead units (`passes.compact`), except for those that keep
        the number of channels a multiple of `passes.CHANNEL_MULTIPLE`.

    Returns:
      One file.

    Raises:
      ValueError: the network's module is not supported.
    """
    shape = subnetwork.description.image_shape
    network = layers_of(subnetwork.net, subnetwork.variables, shape)
    before = after = graphs.cost(network)
    if compact:
        network = passes.compact(network, multiple=passes.CHANNEL_MULTIPLE)
        after = graphs.cost(network)

    def logits(images: jax.Array) -> jax.Array:
        return graphs.run(network, subnetwork.prepare(images))

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
    exported = export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    return ExportResult(
        {"": bytes(exported.serialize())},
        before,
        after,
        operations=after.multiply_adds,
        dropped=MULTIPLIED_AS_ZEROS,
    )
