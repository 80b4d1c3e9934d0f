"""Position of a run: epochs and steps done, and the best epoch so far."""

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

__all__ = ["Position"]


@dataclasses.dataclass
class Position:
    """Position of a run, saved with its arrays as numbers of fixed width.

    Attributes:
      epoch: epochs trained and validated, default 0.
      step: steps taken of the next epoch, default 0.
      best_epoch: number of the best epoch, from 1; 0 before any. The best epoch has the
        best validation accuracy among those that met the budget; if none did, it missed
        the budget least.
      best_accuracy: validation accuracy of the best epoch, in [0, 1]; -1 before any.
      pruned_epoch: number of the epoch after which fine-tuning began; 0 before.
      best_miss: budget miss of the best epoch, as a fraction of the masked weights;
        infinite before any.
      seconds: time spent training and validating, in seconds, default 0.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    pruned_epoch: int = 0
    best_miss: float = math.inf
    seconds: float = 0.0

    def as_arrays(self) -> dict[str, np.ndarray]:
        """Returns the numbers by name, as int64 and float64 scalars."""
        return {
            name: np.asarray(value, np.int64 if isinstance(value, int) else np.float64)
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Position":
        """Returns the position that `as_arrays` returned the arrays of."""
        return cls(**{name: array.item() for name, array in arrays.items()})
