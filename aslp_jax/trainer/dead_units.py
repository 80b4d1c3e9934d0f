"""What a run's connectivity comes to, over all layers."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class DeadUnits(NamedTuple):
    """How a pruned network hangs together.

    Attributes:
      empty_layers: layers of which nothing is kept.
      without_input: units that no input reaches.
      without_output: units that reach no output.
      units: in all.
      off_path: kept weights on no path from an input to an output, in %.
      unreached_classes: classes that no input reaches.
    """

    empty_layers: int
    without_input: int
    without_output: int
    units: int
    off_path: float
    unreached_classes: int


def dead_units(result: Mapping[str, Any]) -> DeadUnits:
    """Sums up the connectivity of a run.

    Args:
      result: what its result.json holds.
    """
    layers = result["connectivity"].values()
    kept, on_path = (sum(each[name] for each in layers) for name in ("kept", "on_path"))
    return DeadUnits(
        empty_layers=sum(each["kept"] == 0 for each in layers),
        without_input=sum(each["without_input"] for each in layers),
        without_output=sum(each["without_output"] for each in layers),
        units=sum(each["units"] for each in layers),
        off_path=100 * (1 - on_path / kept) if kept else 100.0,
        unreached_classes=result["outputs"] - result["outputs_reached"],
    )
