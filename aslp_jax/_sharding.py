"""Shardings: arrays on meshes of explicit axes, and arrays in parts over a mesh."""

from typing import Any

import jax
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

__all__ = ["is_in_reach", "like", "on_host", "replicated", "spread"]


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


def spread(tree: Any, mesh: Mesh) -> Any:
    """Returns the sharding of each array that spreads it over all devices of a mesh.

    An array is split along its longest axis that the number of devices divides, the
    last of equals. An array without one lies on every device in full; such are scalars.

    Args:
      tree: pytree of arrays, or of their shapes.
      mesh: mesh of one axis.

    Returns:
      Pytree of shardings, of the structure of `tree`.
    """

    def choose(leaf: Any) -> NamedSharding:
        axes = [(size, i) for i, size in enumerate(leaf.shape) if size % mesh.size == 0]
        _, axis = max(axes, default=(0, None))
        names = () if axis is None else (*axis * (None,), *mesh.axis_names)
        return NamedSharding(mesh, PartitionSpec(*names))

    return jax.tree.map(choose, tree)


def is_in_reach(leaf: Any) -> bool:
    """Returns True unless some elements of an array lie in other processes alone.

    Args:
      leaf: array of any kind.
    """
    return (
        not isinstance(leaf, jax.Array)
        or leaf.is_fully_addressable
        or leaf.is_fully_replicated
    )


def on_host(tree: Any) -> Any:
    """Returns arrays as NumPy arrays, wherever their elements lie.

    If elements lie in other processes, these must call this too, with the same arrays
    in the same order. One such array at a time is gathered, on every device.

    Args:
      tree: pytree of arrays.
    """

    def gather(leaf: Any) -> Any:
        if is_in_reach(leaf):
            return leaf
        return multihost_utils.process_allgather(leaf, tiled=True)

    return jax.device_get(jax.tree.map(gather, tree))


def _is_explicit(array: jax.Array) -> bool:
    return any(part is not None for part in jax.typeof(array).sharding.spec)
