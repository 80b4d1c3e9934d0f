"""Images of a run, held on the devices or streamed to them: one interface for both.

The file is long because both kinds state what each function of the interface does.
"""

import functools
import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from aslp_jax import evaluate, train
from aslp_jax._errors import BadInput
from aslp_jax.data import datasets, pipeline
from aslp_jax.data.streamed import Part, Streamed
from aslp_jax.trainer.devices import wait_for
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.processes import place
from aslp_jax.trainer.programs import Programs

__all__ = ["Resident", "Streaming"]

_State = tuple[train.TrainState, train.Totals]
_Batch = tuple[jax.Array, jax.Array]
_Check = Callable[[], None]


class Resident:
    """Images on the devices, for as long as the run lasts.

    Attributes:
      training: training images and labels, on the devices.
      steps: steps an epoch.
    """

    def __init__(
        self,
        config: Config,
        data: datasets.Dataset,
        everywhere: Sharding,
        scoring: Sharding,
    ) -> None:
        """Places the images on the devices.

        Args:
          config: options.
          data: data set.
          everywhere: sharding of all that each device of a step holds.
          scoring: sharding of everything that is scored.
        """
        chosen, held_out = datasets.split(
            data.train_count, data.validation, config.seed
        )
        self._data, self._scoring = data, scoring
        self.training = place(
            (data.train_images[chosen], data.train_labels[chosen]), everywhere
        )
        self._validation = place(
            (data.train_images[held_out], data.train_labels[held_out]), scoring
        )
        self.steps = len(chosen) // config.batch_size

    def take_steps(
        self,
        programs: Programs,
        state: train.TrainState,
        totals: train.Totals,
        key: jax.Array,
        bounds: tuple[np.int32, ...],
    ) -> _State:
        """Takes steps of an epoch, as one program.

        Args:
          programs: programs of the run.
          state: state before, overwritten.
          totals: sums over the epoch so far, overwritten.
          key: PRNG key of the training steps.
          bounds: epoch, first step, and step before which to stop.

        Returns:
          State after, and totals over the epoch so far.
        """
        return programs.steps(state, totals, *self.training, key, *bounds)

    def lower(
        self, programs: Programs, state: Any, totals: Any, key: Any
    ) -> jax.stages.Lowered:
        """Returns the program of `take_steps`, before it is compiled.

        Args:
          programs: programs of the run.
          state: train state, or its shapes and shardings.
          totals: totals, or their shapes and shardings.
          key: PRNG key of the training steps.
        """
        bounds = 3 * (np.int32(0),)
        return programs.steps.lower(state, totals, *self.training, key, *bounds)

    def score(
        self,
        programs: Programs,
        variables: Any,
        key: jax.Array | None,
        check: _Check | None = None,
    ) -> tuple[float, float]:
        """Returns accuracy and loss on the images held out for validation.

        Args:
          programs: programs of the run.
          variables: variables of the model, where they are scored.
          key: PRNG key of one sampled network; None takes the deterministic one.
          check: function that is not called, as one program scores all images.
        """
        return jax.device_get(programs.score(variables, *self._validation, key))

    def evaluate(
        self,
        programs: Programs,
        variables: Any,
        key: jax.Array,
        samples: int,
        check: _Check | None = None,
    ) -> evaluate.Evaluation:
        """Returns accuracies and loss on the test images.

        Args:
          programs: programs of the run.
          variables: variables of the model, where they are scored.
          key: PRNG key of the sampled networks.
          samples: number of networks to sample.
          check: function that is not called, as one program scores all images.
        """
        test = place((self._data.test_images, self._data.test_labels), self._scoring)
        return programs.evaluate(variables, *test, key, samples=samples)


class Streaming:
    """Images that are decoded while the run trains, batch by batch.

    The order is that of `Resident`: the batches are the same. While the devices take a
    step, the next batch goes to them, and `pipeline.AHEAD` more are decoded. A process
    decodes its devices' share of each batch, and all images that are scored.

    Attributes:
      steps: steps an epoch.
    """

    def __init__(
        self, config: Config, data: Streamed, everywhere: Sharding, scoring: Sharding
    ) -> None:
        """Decodes nothing yet.

        Args:
          config: options.
          data: data set.
          everywhere: sharding of all that each device of a step holds.
          scoring: sharding of everything that is scored.
        """
        self._chosen, self._held_out = datasets.split(
            data.train_count, data.validation, config.seed
        )
        self._data, self._scoring = data, scoring
        self._batch_size = config.batch_size
        self._sharding = everywhere
        if isinstance(everywhere, NamedSharding):
            batch = PartitionSpec(train.BATCH)
            self._sharding = NamedSharding(everywhere.mesh, batch)
        # Not that of the run, which may span processes.
        self._key = train.stream(jax.random.key(config.seed), "train")
        self._crops = config.augment and data.train.crop is not None
        self.steps = len(self._chosen) // config.batch_size
        self._place: tuple[int, int] | None = None
        self._batches: Iterator[_Batch] = iter(())
        self._ready: list[_Batch] = []

    def take_steps(
        self,
        programs: Programs,
        state: train.TrainState,
        totals: train.Totals,
        key: jax.Array,
        bounds: tuple[np.int32, ...],
    ) -> _State:
        """Takes steps of an epoch, one after another.

        Args:
          programs: programs of the run.
          state: state before, overwritten.
          totals: sums over the epoch so far, overwritten.
          key: PRNG key of the training steps.
          bounds: epoch, first step, and step before which to stop.

        Returns:
          State after, and totals over the epoch so far.

        Raises:
          BadInput: an image cannot be read.
        """
        epoch, start, stop = map(int, bounds)
        for step in range(start, stop):
            images, labels = self._take(epoch, step)
            state, totals = programs.batch_step(state, totals, images, labels, key)
            # While the devices compute.
            self._ready = list(itertools.islice(self._batches, 1))
            wait_for(totals.loss)
        return state, totals

    def lower(
        self, programs: Programs, state: Any, totals: Any, key: Any
    ) -> jax.stages.Lowered:
        """Returns the program of a step of `take_steps`, before it is compiled.

        Args:
          programs: programs of the run.
          state: train state, or its shapes and shardings.
          totals: totals, or their shapes and shardings.
          key: PRNG key of the training steps.
        """
        shapes = ((*self._data.image_shape,), np.uint8), ((), np.int32)
        images, labels = (
            jax.ShapeDtypeStruct(
                (self._batch_size, *shape), dtype, sharding=self._sharding
            )
            for shape, dtype in shapes
        )
        return programs.batch_step.lower(state, totals, images, labels, key)

    def score(
        self,
        programs: Programs,
        variables: Any,
        key: jax.Array | None,
        check: _Check | None = None,
    ) -> tuple[float, float]:
        """Returns accuracy and loss on the images held out for validation.

        Args:
          programs: programs of the run.
          variables: variables of the model, where they are scored.
          key: PRNG key of one sampled network; None takes the deterministic one.
          check: function called before each batch, which ends the scoring if it raises;
            default: none.

        Raises:
          BadInput: an image cannot be read.
        """
        held_out = self._scored(programs, self._data.train, self._held_out, check)
        return programs.score_batches(variables, held_out, key)

    def evaluate(
        self,
        programs: Programs,
        variables: Any,
        key: jax.Array,
        samples: int,
        check: _Check | None = None,
    ) -> evaluate.Evaluation:
        """Returns accuracies and loss on the test images.

        Args:
          programs: programs of the run.
          variables: variables of the model, where they are scored.
          key: PRNG key of the sampled networks.
          samples: number of networks to sample.
          check: function called before each batch, which ends the scoring if it raises;
            default: none.

        Raises:
          BadInput: an image cannot be read.
        """
        part = self._data.test
        test = self._scored(programs, part, np.arange(part.count), check)
        return programs.evaluate_batches(variables, test, key, samples=samples)

    def _take(self, epoch: int, step: int) -> _Batch:
        """Returns the batch of a step, which is at hand unless the run has jumped."""
        if self._place != (epoch, step) or not self._ready:
            self._batches = self._epoch(epoch, step)
            self._ready = [next(self._batches)]
        self._place = (epoch, step + 1)
        return self._ready.pop()

    def _epoch(self, epoch: int, start: int) -> Iterator[_Batch]:
        """Yields the batches of an epoch from a step on, on the devices."""
        size, count = self._batch_size, self.steps * self._batch_size
        order = np.asarray(_order(self._key, np.int32(epoch), len(self._chosen)))
        first, last = self._own_rows()
        rows = self._chosen[order[:count]].reshape(self.steps, size)
        key = None
        if self._crops:
            crop = jax.random.fold_in(train.stream(self._key, "crop"), epoch)
            key = [int(word) for word in jax.random.key_data(crop).ravel()]
        share = rows[start:, first:last].ravel()
        for batch in _read(self._data.train, share, last - first, key):
            images, labels = (
                jax.make_array_from_process_local_data(
                    self._sharding, part, (size, *part.shape[1:])
                )
                for part in batch
            )
            yield images, labels

    def _own_rows(self) -> tuple[int, int]:
        """Returns the rows of a batch that lie on devices of this process."""
        places = self._sharding.addressable_devices_indices_map((self._batch_size,))
        bounds = [rows[0].indices(self._batch_size) for rows in places.values() if rows]
        return min(low for low, *_ in bounds), max(high for _, high, _ in bounds)

    def _scored(
        self, programs: Programs, part: Part, rows: np.ndarray, check: _Check | None
    ) -> Iterator[_Batch]:
        """Yields batches as the programs score them, all of one size."""
        for images, labels in _read(part, rows, programs.scored):
            if check is not None:
                check()
            missing = programs.scored - len(images)
            if missing:  # so that a last, smaller batch is not compiled again
                images = np.pad(images, ((0, missing), *3 * ((0, 0),)), mode="edge")
            yield place((images, labels), self._scoring)


@functools.partial(jax.jit, static_argnames=("examples",))
def _order(key: jax.Array, epoch: jax.Array, examples: int) -> jax.Array:
    return train.order(key, epoch, examples)


def _read(
    part: Part, rows: np.ndarray, batch_size: int, key: Sequence[int] | None = None
) -> Iterator[pipeline.Batch]:
    """Yields batches; an image that cannot be read is bad input."""
    try:
        yield from pipeline.batches(part, rows, batch_size, key=key)
    except (OSError, ValueError) as error:
        page = "docs/training.md#data-larger-than-memory"
        raise BadInput(str(error), page=page) from error
