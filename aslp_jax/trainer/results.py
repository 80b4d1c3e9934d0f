"""Results of a run: a row an epoch, the closing result, and a divergence.

The names on disk are older than some names here; a field's metadata holds its key where
the two differ. Importing this module imports no JAX.
"""

import dataclasses
import math
import types
import typing
from collections.abc import Collection, Mapping
from typing import Any, TypeVar

from aslp_jax._json import matches

__all__ = ["Divergence", "EpochRow", "RunResult"]

_T = TypeVar("_T")


@dataclasses.dataclass(frozen=True)
class EpochRow:
    """One epoch: a line of metrics.jsonl.

    Attributes:
      epoch: epochs finished, from 1.
      step: optimiser steps since the run began.
      train_loss: mean training loss over the epoch's batches, of smoothed labels if the
        options say so, budget loss included.
      train_accuracy: accuracy on the training images as seen, in [0, 1].
      validation_loss: mean cross-entropy on the validation images, in nats.
      validation_accuracy: accuracy on the validation images, in [0, 1].
      best_validation_accuracy: accuracy of the best epoch so far, in [0, 1].
      best_epoch: number of the best epoch so far, from 1.
      keep_fraction: fraction of all masked weights kept, in [0, 1].
      keep_fractions: the same fraction by layer.
      flip_rate: fraction of mask entries that changed since the epoch before, in
        [0, 1].
      scalars: learnt scalars, by group and layer; empty without any.
      metrics: the method's own metrics, by name and layer; empty without any.
        Stored as "statistics".
      images_per_second: training speed over the epoch, in images per second.
      seconds: time spent training and validating since the run began, in seconds.
    """

    epoch: int
    step: int
    train_loss: float
    train_accuracy: float
    validation_loss: float
    validation_accuracy: float
    best_validation_accuracy: float
    best_epoch: int
    keep_fraction: float
    keep_fractions: dict[str, float]
    flip_rate: float
    scalars: dict[str, dict[str, float]]
    metrics: dict[str, dict[str, float]] = dataclasses.field(
        metadata={"key": "statistics"}
    )
    images_per_second: float
    seconds: float

    def to_json(self) -> dict[str, Any]:
        """Returns the row as JSON values, under the names on disk."""
        return _to_json(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> "EpochRow":
        """Returns the row that a line of metrics.jsonl holds.

        Args:
          row: JSON object. Unknown keys are ignored; "statistics" may be missing.

        Raises:
          ValueError: another key is missing, or a value is of another type.
        """
        keys = [_key(field) for field in dataclasses.fields(cls)]
        return _from_json(cls, row, [key for key in keys if key != "statistics"])


@dataclasses.dataclass(frozen=True)
class RunResult:
    """A finished run: its result.json.

    Accuracies and losses are measured on the test images, with the best state.

    Attributes:
      arch: name of the network.
      stochastic: True if the method samples masks.
      trains_dense: True if the method trains a dense network and prunes it at the end.
        Stored as "relaxed".
      dataset: name of the data set.
      method: name of the method.
      seed: seed of the run.
      thresholding: accuracy of the thresholded network, in [0, 1].
      averaging_mean: mean accuracy over sampled networks, in [0, 1]; without sampling,
        accuracy of the dense network before pruning.
      averaging_std: standard deviation of these accuracies (n - 1).
      single: accuracy of the first sampled network, in [0, 1].
      eval_samples: number of sampled networks.
      test_loss: mean cross-entropy of the thresholded network, in nats.
      pruning_change: norm of the outputs' change by pruning over the norm of the
        outputs before; 0 if the trained network is the kept one, None if the method
        samples.
      keep_fraction: fraction of all masked weights kept, in [0, 1].
      keep_fractions: the same fraction by layer.
      scalars: learnt scalars, by group and layer; empty without any.
      connectivity: counts by layer; the names are the fields of `connectivity.Layer`;
        empty if the network cannot be traced.
      outputs: number of classes.
      outputs_reached: number of classes that a path from the images reaches; all
        classes if the network cannot be traced.
      weights: number of masked weights by layer.
      dense_bytes: size of all weights as float32, in bytes.
      mask_bytes: size of the masks at one bit a weight, in bytes.
      bits_per_kept_weight: bits stored per kept weight, besides its mask bit: 0, 1 or
        32. Stored as "kept_bits".
      best_epoch: number of the best epoch, from 1.
      best_validation_accuracy: validation accuracy of the best epoch, in [0, 1].
      keep_fraction_asked: fraction of weights asked for; None for no budget.
      scope: "global" or "layer", scope of the budget.
      finetuned: True if the pruned network was trained further.
      budget_miss: distance to the budget as a fraction of the masked weights (with
        scope "layer": of the worst layer's); 0 if the budget was met.
      epochs: epochs trained.
      stopped: "patience" or "epochs", reason for the end of training.
      seconds: time spent training and validating, in seconds.
      processes: number of processes that evaluated the run.
      devices: number of devices, of all processes together.
    """

    arch: str
    stochastic: bool
    trains_dense: bool = dataclasses.field(metadata={"key": "relaxed"})
    dataset: str
    method: str
    seed: int
    thresholding: float
    averaging_mean: float
    averaging_std: float
    single: float
    eval_samples: int
    test_loss: float
    pruning_change: float | None
    keep_fraction: float
    keep_fractions: dict[str, float]
    scalars: dict[str, dict[str, float]]
    connectivity: dict[str, dict[str, int]]
    outputs: int
    outputs_reached: int
    weights: dict[str, int]
    dense_bytes: int
    mask_bytes: int
    bits_per_kept_weight: int = dataclasses.field(metadata={"key": "kept_bits"})
    best_epoch: int
    best_validation_accuracy: float
    keep_fraction_asked: float | None
    scope: str
    finetuned: bool
    budget_miss: float
    epochs: int
    stopped: str | None
    seconds: float
    processes: int
    devices: int

    def to_json(self) -> dict[str, Any]:
        """Returns the result as JSON values, under the names on disk."""
        return _to_json(self)

    @classmethod
    def from_json(
        cls, result: Mapping[str, Any], *, needed: Collection[str] = ()
    ) -> "RunResult":
        """Returns the result that a result.json holds.

        Files of earlier versions lack some keys. A missing number reads as NaN (a
        missing count as 0), a missing string as "", a missing bool as False, a missing
        mapping as empty, and a missing optional value as None.

        Args:
          result: JSON object. Unknown keys are ignored.
          needed: keys on disk that must be present.

        Raises:
          ValueError: a needed key is missing, or a value is of another type.
        """
        return _from_json(cls, result, needed)


@dataclasses.dataclass(frozen=True)
class Divergence:
    """A loss or a parameter that is not finite: the end of a run.

    Attributes:
      epoch: epoch of the divergence, from 1.
      step: step of this epoch, from 1.
      steps: steps an epoch.
      loss: training loss, NaN or infinite; None if validation found the divergence.
    """

    epoch: int
    step: int
    steps: int
    loss: float | None

    def __str__(self) -> str:
        """Returns the divergence as a clause for a message."""
        found = (
            "the validation loss or something learnt became NaN"
            if self.loss is None
            else f"the loss became {self.loss}"
        )
        return f"{found} in epoch {self.epoch}, step {self.step} of {self.steps}"


def _key(field: dataclasses.Field) -> str:
    return field.metadata.get("key", field.name)


def _to_json(value: Any) -> dict[str, Any]:
    return {
        _key(field): getattr(value, field.name) for field in dataclasses.fields(value)
    }


def _from_json(kind: type[_T], found: Mapping[str, Any], needed: Collection[str]) -> _T:
    if missing := [key for key in needed if key not in found]:
        raise ValueError(f"{kind.__name__}: no {', '.join(missing)}")
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    for field in fields:
        key = _key(field)
        if key in found and not matches(found[key], field.type):
            raise ValueError(f"{kind.__name__}: {key} is of another type")
    return kind(
        **{field.name: found.get(_key(field), _absent(field.type)) for field in fields}
    )


def _absent(kind: Any) -> Any:
    """Returns the value of a field that a file lacks."""
    if isinstance(kind, types.UnionType):
        return None
    if typing.get_origin(kind) is dict:
        return {}
    return {str: "", int: 0, float: math.nan, bool: False}[kind]
