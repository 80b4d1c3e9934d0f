"""StableHLO, as `jax.export` serialises it: for XLA, without this library."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import export

from aslp_jax.artefact import Subnetwork
from aslp_jax.export import graph as graphs
from aslp_jax.export.compaction import compact_where_it_pays
from aslp_jax.export.describe import describe

PLATFORMS = ("cpu", "cuda", "tpu")


def encode(subnetwork: Subnetwork, *, compact: bool = True) -> bytes:
    """Returns the serialised function from images to logits, its weights included.

    `jax.export.deserialize(content).call(images)` runs it on any of `PLATFORMS`, for
    uint8 images `[batch, height, width, channels]` and any batch of at least one. Its
    logits are those of the network up to rounding.

    Args:
      subnetwork: the network.
      compact: whether units on no path are left out, where that pays
        (`compaction.compact_where_it_pays`) and
        batch-norm is folded; False exports the module itself.

    Returns:
      The content of the file.

    Raises:
      ValueError: `compact` is asked for a network of an unknown module.
    """
    shape = subnetwork.description.image_shape
    network: Callable[[jax.Array], Any]
    if compact:
        graph = describe(subnetwork.net, subnetwork.variables, shape)
        network = functools.partial(graphs.run, compact_where_it_pays(graph))
    else:
        # What suits the convolutions of a CPU may be chosen by the size of the batch.
        net = subnetwork.net.clone(conv_general_dilated=None)
        network = functools.partial(net.apply, subnetwork.variables, train=False)

    def logits(images: jax.Array) -> Any:
        return network(subnetwork.prepare(images))

    (batch,) = export.symbolic_shape("batch")
    images = jax.ShapeDtypeStruct((batch, *shape), jnp.uint8)
    exported = export.export(jax.jit(logits), platforms=PLATFORMS)(images)
    return bytes(exported.serialize())
