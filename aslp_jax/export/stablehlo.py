"""StableHLO, as `jax.export` serialises it: for XLA, without this library."""

import jax
import jax.numpy as jnp
from jax import export

from aslp_jax.artefact import Subnetwork
from aslp_jax.export import graph as graphs
from aslp_jax.export.describe import describe
from aslp_jax.export.passes import ROUND
from aslp_jax.export.passes import compact as compacted
from aslp_jax.export.result import ExportResult

PLATFORMS = ("cpu", "cuda", "tpu")


def encode(subnetwork: Subnetwork, *, compact: bool = True) -> ExportResult:
    """Returns the serialised function from images to logits, its weights included.

    `jax.export.deserialize(content).call(images)` runs it on any of `PLATFORMS`, for
    uint8 images `[batch, height, width, channels]` and any batch of at least one. It
    computes in float32, whatever the dtype of the network; of a float32 network its
    logits are those of the network up to rounding.

    Args:
      subnetwork: the network.
      compact: whether units on no path are left out (`compaction.compact`), but for
        those that make the number of channels a round one.

    Returns:
      One file.

    Raises:
      ValueError: the network's module is not supported.
    """
    shape = subnetwork.description.image_shape
    network = describe(subnetwork.net, subnetwork.variables, shape)
    before = after = graphs.cost(network)
    if compact:
        network = compacted(network, multiple=ROUND)
        after = graphs.cost(network)

    def logits(images: jax.Array) -> jax.Array:
        return graphs.run(network, subnetwork.prepare(images))

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
    exported = export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    content = bytes(exported.serialize())
    return ExportResult({"": content}, before, after, after.multiply_adds, graphs.DENSE)
