"""Dead units: connectivity of a run's network, summed over its layers."""

from typing import NamedTuple

from aslp_jax.trainer.results import RunResult

__all__ = ["DeadUnits", "dead_units"]


class DeadUnits(NamedTuple):
    """Parts of a pruned network that contribute nothing.

    Attributes:
      empty_layers: number of layers without a kept weight.
      without_input: number of units that no input reaches.
      without_output: number of units that reach no output.
      units: number of all units.
      off_path: kept weights on no path from an input to an output, in %.
      unreached_classes: number of classes that no input reaches.
    """

    empty_layers: int
    without_input: int
    without_output: int
    units: int
    off_path: float
    unreached_classes: int


def dead_units(result: RunResult) -> DeadUnits:
    """Returns the connectivity of a run, summed over its layers.

    Args:
      result: result with `connectivity`, `outputs` and `outputs_reached`.
    """
    layers = result.connectivity.values()
    kept, on_path = (sum(each[name] for each in layers) for name in ("kept", "on_path"))
    return DeadUnits(
        empty_layers=sum(each["kept"] == 0 for each in layers),
        without_input=sum(each["without_input"] for each in layers),
        without_output=sum(each["without_output"] for each in layers),
        units=sum(each["units"] for each in layers),
        off_path=100 * (1 - on_path / kept) if kept else 100.0,
        unreached_classes=result.outputs - result.outputs_reached,
    )
