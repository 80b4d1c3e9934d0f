"""Memory that a training step takes on each device, as XLA has planned it."""

import contextlib
import dataclasses
import math
from typing import Any

import jax
from jax.sharding import NamedSharding, PartitionSpec

from aslp_jax import _sharding
from aslp_jax.trainer.programs import compile_programs
from aslp_jax.trainer.run_state import Run

__all__ = ["StepMemory", "describe_step_memory", "step_memory"]


@dataclasses.dataclass(frozen=True)
class StepMemory:
    """Memory of a step on each device, in bytes.

    Attributes:
      state: train state alone.
      whole: train state, images, and all that the step computes; None if XLA does not
        say for this kind of device, or compiles no step that exceeds its memory.
    """

    state: int
    whole: int | None

    def __str__(self) -> str:
        """Returns the memory as a clause for a message."""
        state = f"{self.state / 1e6:,.1f} MB for the state"
        if self.whole is None:
            return state
        return f"{self.whole / 1e6:,.1f} MB a device, {state}"


def step_memory(run: Run, *, spread: bool) -> StepMemory:
    """Returns the memory of a step, from the program that XLA compiles; runs nothing.

    Args:
      run: run on several devices.
      spread: True for the state spread over the devices, False for a copy on each.

    Raises:
      TypeError: the run has one device.
    """
    mesh = run.spec.mesh
    if mesh is None:
        raise TypeError("step_memory: the run has one device; expected several")
    programs = run.programs
    if spread != run.spec.spread:
        # Past the cache, which holds the programs of one specification.
        other = dataclasses.replace(run.spec, spread=spread)
        programs = compile_programs.__wrapped__(other)
    everywhere = NamedSharding(mesh, PartitionSpec())

    def shaped(leaf: Any, sharding: NamedSharding) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(
            leaf.shape, leaf.dtype, sharding=sharding if spread else everywhere
        )

    state = jax.tree.map(shaped, run.state, _sharding.spread(run.state, mesh))
    lowered = run.images.lower(programs, state, run.totals, run.key)
    found = whole = None
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        # Some devices compile no program that exceeds their memory. This one is not
        # run, and may be the very one that the state is spread for.
        found = lowered.compile().memory_analysis()
    if found is not None:
        whole = found.argument_size_in_bytes + found.temp_size_in_bytes
        whole += found.output_size_in_bytes - found.alias_size_in_bytes
    size = sum(
        math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(state)
    )
    return StepMemory(size, whole)


def describe_step_memory(run: Run) -> str:
    """Returns the memory of a step with the state spread and without, in one line.

    Args:
      run: run on several devices.
    """
    parts, copies = (step_memory(run, spread=spread) for spread in (True, False))
    return f"a step takes {parts}; without --shard params {copies}"
