"""Several runs that differ in their seed, trained as one program."""

import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aslp_jax import train
from aslp_jax.trainer.devices import wait_for
from aslp_jax.trainer.run_state import LossNotFinite, Run


class SeedBatch:
    """Runs side by side, as one program where they are several.

    Each keeps its own images, order, masks and state. One run a device gets bit for bit
    what it would have got alone; several on a device are vectorised, which sums in
    another order.
    """

    def __init__(self, runs: Sequence[Run]) -> None:
        """Puts what does not change side by side.

        Args:
          runs: a single run on any devices; or several of the same options but the
            seed, at the same step of the same epoch, on one device each, as many on
            one as on another and those of a device next to one another.
        """
        self._runs = runs
        if len(runs) > 1:
            devices = list(dict.fromkeys(run.devices[0] for run in runs))
            self._mesh = Mesh(
                np.array(devices), (train.SEED,), axis_types=(AxisType.Auto,)
            )
            self._inputs = self._join([(*run.training, run.key) for run in runs])

    def take_steps(self, count: int) -> tuple[float, list[str | None]]:
        """Takes `count` more steps of the present epoch of each run.

        Args:
          count: steps, at least 1.

        Returns:
          Seconds that took, and for each run why it cannot go on, or None.
        """
        runs, began = self._runs, time.monotonic()
        if len(runs) == 1:
            seconds = runs[0].take_steps(count)
        else:
            program = runs[0].programs.seed_steps(self._mesh)
            joined = self._join([(run.state, run.totals) for run in runs])
            after = program(*joined, *self._inputs, *runs[0].bounds(count))
            for run, (state, totals) in zip(runs, self._split(after), strict=True):
                run.state, run.totals = state, totals
                wait_for(totals.loss)
            seconds = time.monotonic() - began
        return seconds, [_problem(run, count, seconds, len(runs)) for run in runs]

    def _join(self, trees: Sequence[Any]) -> Any:
        """Stacks trees that lie on the devices of the mesh, each where it lies."""
        share = len(trees) // self._mesh.size
        spread = NamedSharding(self._mesh, PartitionSpec(train.SEED))

        def join(*leaves: jax.Array) -> jax.Array:
            stacks = [
                jnp.stack(leaves[start : start + share])
                for start in range(0, len(leaves), share)
            ]
            shape = (len(leaves), *leaves[0].shape)
            return jax.make_array_from_single_device_arrays(shape, spread, stacks)

        return jax.tree.map(join, *trees)

    def _split(self, tree: Any) -> list[Any]:
        """Takes apart what `_join` stacked, nothing leaving its device."""
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


def _problem(run: Run, count: int, seconds: float, share: int) -> str | None:
    try:
        run.account(count, seconds, share=share)
    except LossNotFinite as error:
        return str(error)
    return None
