"""Event files as TensorBoard's own reader finds them."""

from pathlib import Path
from typing import Any


def read(folder: Path) -> Any:
    """Returns all that TensorBoard finds in a folder."""
    from tensorboard.backend.event_processing import event_accumulator

    everything = {event_accumulator.SCALARS: 0, event_accumulator.HISTOGRAMS: 0}
    return event_accumulator.EventAccumulator(str(folder), everything).Reload()


def scalars(found: Any, tag: str) -> list[tuple[int, float]]:
    """Returns step and value of each scalar of a tag."""
    return [(each.step, each.value) for each in found.Scalars(tag)]


def histogram_steps(found: Any, tag: str) -> list[int]:
    """Returns the steps of the histograms of a tag."""
    return [each.step for each in found.Histograms(tag)]
