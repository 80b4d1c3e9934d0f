"""Several runs that differ in their seed, trained as one program."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from run import LossNotFinite, Run, wait_for

from aslp_jax import train


def take_steps(runs: Sequence[Run], count: int) -> tuple[float, list[str | None]]:
    """Takes `count` more steps of the present epoch of each run.

    Runs on devices of their own are one program, each with its own images, order, masks
    and state. What each gets is what it would have got alone.

    Args:
      runs: a single run on any devices; or several of the same options but the seed, at
        the same step of the same epoch, on one device each, as many on one as on
        another and those of a device side by side.
      count: steps, at least 1.

    Returns:
      Seconds that took, and for each run why it cannot go on, or None.
    """
    first, began = runs[0], time.monotonic()
    if len(runs) == 1:
        seconds = first.take_steps(count)
    else:
        devices = list(dict.fromkeys(run.devices[0] for run in runs))
        mesh = Mesh(np.array(devices), (train.SEED,), axis_types=(AxisType.Auto,))
        parts = [(run.state, run.totals, *run.training, run.key) for run in runs]
        joined = _join(mesh, parts)
        state, totals = first.programs.together(mesh)(*joined, *first.bounds(count))
        parts = _split(mesh, (state, totals), len(runs))
        for run, (state, totals) in zip(runs, parts, strict=True):
            run.state, run.totals = state, totals
            wait_for(totals.loss)
        seconds = time.monotonic() - began
    return seconds, [_problem(run, count, seconds) for run in runs]


def _problem(run: Run, count: int, seconds: float) -> str | None:
    try:
        run.account(count, seconds)
    except LossNotFinite as error:
        return str(error)
    return None


def _join(mesh: Mesh, trees: Sequence[Any]) -> Any:
    """Stacks trees that lie on the devices of a mesh, each where it lies."""
    share = len(trees) // mesh.size
    spread = NamedSharding(mesh, PartitionSpec(train.SEED))

    def join(*leaves: jax.Array) -> jax.Array:
        stacks = [
            jnp.stack(leaves[start : start + share])
            for start in range(0, len(leaves), share)
        ]
        shape = (len(leaves), *leaves[0].shape)
        return jax.make_array_from_single_device_arrays(shape, spread, stacks)

    return jax.tree.map(join, *trees)


def _split(mesh: Mesh, tree: Any, count: int) -> list[Any]:
    """Takes apart what `_join` made, nothing leaving its device."""
    share = count // mesh.size
    leaves, structure = jax.tree.flatten(tree)
    shards = [
        {shard.device: shard.data for shard in leaf.addressable_shards}
        for leaf in leaves
    ]
    places = [(device, index) for device in mesh.devices for index in range(share)]
    return [
        jax.tree.unflatten(structure, [shard[device][index] for shard in shards])
        for device, index in places
    ]
