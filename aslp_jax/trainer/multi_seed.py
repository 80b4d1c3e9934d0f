"""Seed batches: several runs that differ in their seed, trained as one program."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aslp_jax import train
from aslp_jax.trainer.devices import wait_for
from aslp_jax.trainer.feeding import Resident
from aslp_jax.trainer.run_state import Run

__all__ = ["SeedBatch", "step_function"]


def step_function(runs: Sequence[Run]) -> Callable[[int], float]:
    """Returns the function that takes steps of all runs at once.

    Args:
      runs: one run on any devices; or several, as `SeedBatch` takes them.

    Returns:
      A function from a number of steps to the time that they took, in seconds. Each run
      accounts for the steps afterwards.
    """
    return runs[0].take_steps if len(runs) == 1 else SeedBatch(runs).take_steps


def _training(run: Run) -> tuple[jax.Array, jax.Array]:
    if not isinstance(run.images, Resident):
        raise TypeError("SeedBatch: images are streamed; expected them on the devices")
    return run.images.training


class SeedBatch:
    """Several runs side by side, trained as one program.

    Each run keeps its own images, order, masks and state. With one run a device, each
    run is bit for bit the same as alone; several on a device are vectorised, which sums
    in another order.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        """Places the inputs that no step changes side by side.

        Args:
          runs: at least two runs that differ only in their seed, at the same step of
            the same epoch. Each uses one device; every device has the same number of
            runs, and the runs of a device follow one another.
        """
        self._runs = runs
        devices = list(dict.fromkeys(run.devices[0] for run in runs))
        self._mesh = Mesh(np.array(devices), (train.SEED,), axis_types=(AxisType.Auto,))
        self._inputs = self._join([(*_training(run), run.key) for run in runs])

    def take_steps(self, count: int) -> float:
        """Takes `count` more steps of the present epoch of each run.

        Args:
          count: steps, at least 1.

        Returns:
          The time that the steps took, in seconds.
        """
        runs, began = self._runs, time.monotonic()
        program = runs[0].programs.seed_steps(self._mesh)
        joined = self._join([(run.state, run.totals) for run in runs])
        after = program(*joined, *self._inputs, *runs[0].bounds(count))
        for run, (state, totals) in zip(runs, self._split(after), strict=True):
            run.state, run.totals = state, totals
            wait_for(totals.loss)
        return time.monotonic() - began

    def _join(self, trees: Sequence[Any]) -> Any:
        """Stacks trees on the devices of the mesh; no array leaves its device."""
        share = len(trees) // self._mesh.size
        sharding = NamedSharding(self._mesh, PartitionSpec(train.SEED))

        def join(*leaves: jax.Array) -> jax.Array:
            stacks = [
                jnp.stack(leaves[start : start + share])
                for start in range(0, len(leaves), share)
            ]
            shape = (len(leaves), *leaves[0].shape)
            return jax.make_array_from_single_device_arrays(shape, sharding, stacks)

        return jax.tree.map(join, *trees)

    def _split(self, tree: Any) -> list[Any]:
        """Undoes `_join`; no array leaves its device."""
        share = len(self._runs) // self._mesh.size
        leaves, structure = jax.tree.flatten(tree)
        shards = [
            {shard.device: shard.data for shard in leaf.addressable_shards}
            for leaf in leaves
        ]
        places = [(device, i) for device in self._mesh.devices for i in range(share)]
        return [
            jax.tree.unflatten(structure, [shard[device][i] for shard in shards])
            for device, i in places
        ]
