"""Arrays on meshes whose axes are explicit: sharding as a part of the type."""

import jax
from jax.sharding import NamedSharding, PartitionSpec

__all__ = ["like", "replicated"]


def replicated(array: jax.Array) -> jax.Array:
    """Returns the array with every element on every device, where axes are explicit.

    Ranking compares all elements, and batches are taken from anywhere in a set of
    images: JAX asks for a sharding of each result there. Other arrays are returned as
    they are.
    """
    if not _is_explicit(array):
        return array
    mesh = jax.typeof(array).sharding.mesh
    return jax.sharding.reshard(array, NamedSharding(mesh, PartitionSpec()))


def like(array: jax.Array, other: jax.Array) -> jax.Array:
    """Returns the array in the sharding of another of its shape, if it is explicit."""
    if not _is_explicit(other):
        return array
    if isinstance(other, jax.core.Tracer):
        return jax.sharding.reshard(array, jax.typeof(other).sharding)
    return jax.device_put(array, other.sharding)


def _is_explicit(array: jax.Array) -> bool:
    return any(part is not None for part in jax.typeof(array).sharding.spec)
