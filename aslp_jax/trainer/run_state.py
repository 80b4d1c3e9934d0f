"""A run in memory: its arrays, its position, and the best state so far.

The file is long because it places, trains, scores, saves and restores every array of a
run.
"""

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import (
    AxisType,
    Mesh,
    NamedSharding,
    PartitionSpec,
    Sharding,
    SingleDeviceSharding,
)

from aslp_jax import _sharding, evaluate, train
from aslp_jax._errors import BadInput
from aslp_jax.data import datasets
from aslp_jax.data.streamed import Streamed
from aslp_jax.trainer.budget_miss import budget_miss
from aslp_jax.trainer.devices import choose_devices, choose_micro_batch, wait_for
from aslp_jax.trainer.feeding import Resident, Streaming
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.position import Position
from aslp_jax.trainer.processes import of_first, place
from aslp_jax.trainer.programs import compile_programs
from aslp_jax.trainer.results import Divergence, EpochRow
from aslp_jax.trainer.spec import Images, ProgramSpec, program_spec

__all__ = ["Run", "as_floats", "check", "summarise", "without_nan"]


class Run:
    """A run in memory: its compiled programs, its state, and the best state so far.

    Attributes:
      config: options.
      data: data set, on the host.
      images_sha256: SHA-256 of training and test images, hexadecimal.
      weights_key: PRNG key of the frozen weights.
      test_key: PRNG key of the networks sampled for the test accuracy.
      devices: devices that share each batch.
      micro_batch: images a forward pass, over all devices.
      scoring: sharding of everything that is scored.
      steps: steps an epoch.
      spec: values that the programs depend on.
      programs: compiled programs.
      key: PRNG key of the training steps.
      images: images, held on the devices or streamed to them.
      state: train state after the last step taken.
      previous: masks after the epoch before.
      best: params and collections of the best epoch.
      totals: sums over the epoch so far.
      position: epochs and steps done, and the best epoch.
      seconds_per_step: time of a step, in seconds; infinite before the first steps,
        which compile.
    """

    def __init__(
        self,
        config: Config,
        data: datasets.Dataset | Streamed,
        *,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """Initialises the weights and places all arrays on the devices.

        Args:
          config: options.
          data: data set.
          devices: devices that share each batch; None chooses those of the options.

        Raises:
          BadInput: the batch does not fit the images or the devices, the network cannot
            take the images, or the budget is less than one weight a layer.
        """
        self.config = config
        self.devices = choose_devices(config) if devices is None else list(devices)
        self.micro_batch = choose_micro_batch(config, self.devices)
        mesh = None
        self._everywhere: Sharding = SingleDeviceSharding(self.devices[0])
        # One device scores for all: another would compile the same once more.
        self.scoring: Sharding = SingleDeviceSharding(jax.local_devices()[0])
        if len(self.devices) > 1:
            mesh = jax.make_mesh(
                (len(self.devices),),
                (train.BATCH,),
                axis_types=(AxisType.Auto,),
                devices=self.devices,
            )
            self._everywhere = self.scoring = NamedSharding(mesh, PartitionSpec())

        self._spread = mesh if config.shard == "params" else None

        root = jax.random.key(config.seed)
        self.key = self._place(train.stream(root, "train"))
        self._validation_key = place(train.stream(root, "validation"), self.scoring)
        self.test_key = place(train.stream(root, "test"), self.scoring)
        self.weights_key = train.stream(root, "weights")

        self.data = data
        self.images_sha256 = data.images_sha256()
        trained = data.train_count - data.validation
        if trained < config.batch_size:
            raise BadInput(
                f"--batch-size {config.batch_size} is more than the {trained} "
                f"training images of {config.dataset_name}",
                page="docs/training.md#your-own-images",
            )
        placed = (self._everywhere, self.scoring)
        self.images: Resident | Streaming
        if isinstance(data, Streamed):
            self.images = Streaming(config, data, *placed)
        else:
            self.images = Resident(config, data, *placed)
        self.steps = self.images.steps

        self.spec = _spec(
            config, data, self.steps, self.devices[0].platform, self.micro_batch, mesh
        )
        self.programs = compile_programs(self.spec)
        with _naming_network(config):
            state = self.programs.create(self.weights_key)
        self.state = self._place_state(state)
        self.totals = self._place(train.Totals.zeros())
        self.previous = self.programs.masks(self.state.frozen, self.state.params)
        self.best = self._trainable_part(self.state)
        self.position = Position()
        self.seconds_per_step = math.inf

    @property
    def device(self) -> str:
        """Number and kind of the devices, such as `1 x cpu`."""
        processes = jax.process_count()
        where = f" in {processes} processes" if processes > 1 else ""
        return f"{len(self.devices)} x {self.devices[0].device_kind}{where}"

    def take_steps(self, count: int) -> float:
        """Takes `count` more steps of the present epoch; `account` must follow.

        Args:
          count: steps, at least 1.

        Returns:
          The time that the steps took, in seconds.
        """
        began = time.monotonic()
        self.state, self.totals = self.images.take_steps(
            self.programs, self.state, self.totals, self.key, self.bounds(count)
        )
        wait_for(self.totals.loss)
        return time.monotonic() - began

    def bounds(self, count: int) -> tuple[np.int32, ...]:
        """Returns epoch, first step and end step (exclusive) as the program takes them.

        Args:
          count: steps, at least 1.
        """
        position = self.position
        numbers = (position.epoch, position.step, position.step + count)
        return tuple(np.int32(number) for number in numbers)

    def account(
        self, count: int, seconds: float, *, runs: int = 1
    ) -> Divergence | None:
        """Moves the position to the state, which is `count` steps further.

        Args:
          count: steps taken.
          seconds: time that the steps took, in seconds.
          runs: number of runs trained side by side in this time, default 1.

        Returns:
          The divergence if the loss of a step was not finite, in which case nothing
          changes; otherwise None.
        """
        position = self.position
        if not math.isfinite(loss := float(self.totals.loss)):
            step = int(self.totals.steps)
            return Divergence(position.epoch + 1, step, self.steps, loss)
        position.step += count
        position.seconds += seconds / runs
        self.seconds_per_step = seconds / count
        return None

    def finish_epoch(
        self, images_per_second: float, check: Callable[[], None] | None = None
    ) -> EpochRow | Divergence:
        """Validates, keeps the state if it is the best, and starts the next epoch.

        Args:
          images_per_second: training speed over the epoch, in images per second.
          check: function called before each batch of streamed images is scored; if it
            raises, nothing changes. Default: none.

        Returns:
          The row of the epoch; or the divergence if the validation loss is not finite
          or a parameter is NaN, in which case nothing changes.
        """
        position, state = self.position, self.programs.averaged(self.state)
        began = time.monotonic()
        key = None
        if self.config.select_by == "sample":
            key = jax.random.fold_in(self._validation_key, position.epoch)
        accuracy, loss = self.images.score(
            self.programs, self.place_scored(state.variables), key, check
        )
        # Thresholding hides a NaN logit, where the weight is merely dropped; an average
        # keeps it.
        if not (math.isfinite(loss) and without_nan(state.params)):
            return Divergence(position.epoch + 1, self.steps, self.steps, None)
        masks = self.programs.masks(state.frozen, state.params)
        selection = jax.device_get(summarise(masks, self.previous, state.params))
        totals = jax.device_get(self.totals)

        self.previous, self.totals = masks, self._place(train.Totals.zeros())
        position.epoch, position.step = position.epoch + 1, 0
        miss = self._budget_miss(state, masks)
        if (-miss, accuracy) > (-position.best_miss, position.best_accuracy):
            position.best_epoch, position.best_miss = position.epoch, miss
            position.best_accuracy = float(accuracy)
            self.best = self._trainable_part(state)
        position.seconds += time.monotonic() - began
        row = EpochRow(
            epoch=position.epoch,
            step=int(state.step),
            train_loss=float(totals.loss) / int(totals.steps),
            train_accuracy=int(totals.correct)
            / (int(totals.steps) * self.config.batch_size),
            validation_loss=float(loss),
            validation_accuracy=float(accuracy),
            best_validation_accuracy=position.best_accuracy,
            best_epoch=position.best_epoch,
            keep_fraction=float(selection.keep_fraction),
            keep_fractions=as_floats(selection.by_layer),
            flip_rate=float(selection.flip_rate),
            scalars={
                group: as_floats(leaves) for group, leaves in selection.scalars.items()
            },
            metrics={
                name: as_floats(leaves)
                for name, leaves in self.programs.metrics(
                    state.frozen, state.params
                ).items()
            },
            images_per_second=images_per_second,
            seconds=position.seconds,
        )
        if self._next_is_finetuning:
            self._begin_finetuning()
        return row

    @property
    def _next_is_finetuning(self) -> bool:
        return (
            self.config.finetune
            and self.position.pruned_epoch == 0
            and self.stopped is not None
        )

    def _begin_finetuning(self) -> None:
        """Prunes the best state and goes on from it, with pruned weights held at 0."""
        position = self.position
        position.best_epoch = position.pruned_epoch = position.epoch
        position.best_accuracy, position.best_miss = -1.0, math.inf
        pruned = self.programs.prune(self.state.replace(**self.best))
        self.state = self._place_state(pruned)
        self.previous = self.programs.masks(self.state.frozen, self.state.params)
        self.best = self._trainable_part(self.state)

    def _budget_miss(self, state: train.TrainState, masks: Mapping[str, Any]) -> float:
        """Returns the budget miss of a state; see `budget_miss`."""
        if self.config.keep_fraction is None:  # spares the device the count
            return 0.0
        return budget_miss(
            jax.device_get(self.programs.keep_counts(state.frozen, state.params)),
            {name: mask.size for name, mask in masks.items()},
            self.config.keep_fraction,
            scope=self.config.scope,
            tolerance=self.programs.method.tolerance,
        )

    @property
    def stopped(self) -> str | None:
        """Reason for the end of training, `"patience"` or `"epochs"`; None before."""
        if self.position.epoch - self.position.best_epoch >= self.config.patience:
            return "patience"
        taken = self.position.epoch - self.position.pruned_epoch
        return "epochs" if taken >= self.config.epochs else None

    def snapshot(self) -> dict[str, Any]:
        """Returns a copy of all values that a resumed run needs."""
        # A copy, because the next step is given the state's own buffers to overwrite.
        changing = {"state": self.state, "totals": self.totals}
        return {**self._values, **jax.tree.map(jnp.copy, changing)}

    def blank_snapshot(self) -> dict[str, Any]:
        """Returns arrays of the structure, shapes and dtypes of a snapshot.

        They are NumPy arrays of any values; no memory is touched.
        """
        return jax.tree.map(lambda leaf: np.empty(leaf.shape, leaf.dtype), self._values)

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continues from the snapshot of the first process; all must call this.

        Args:
          snapshot: snapshot of a run with the same options, on the host if there are
            several processes; `blank_snapshot` will do in others than the first.
        """
        self.position = Position.from_arrays(of_first(snapshot["position"]))
        self.state = self._receive(snapshot["state"])
        self.totals = self._receive(snapshot["totals"])
        self.previous = self._receive(snapshot["previous"])
        self.best = self._receive(snapshot["best"])
        if self._next_is_finetuning:  # epochs or patience became fewer meanwhile
            self._begin_finetuning()

    @property
    def _values(self) -> dict[str, Any]:
        """Values that a resumed run needs."""
        return {
            "state": self.state,
            "totals": self.totals,
            "previous": self.previous,
            "best": self.best,
            "position": self.position.as_arrays(),
        }

    def _receive(self, tree: Any) -> Any:
        """Places arrays of the first process, one after another."""
        return jax.tree.map(lambda leaf: self._place_state(of_first(leaf)), tree)

    def _place(self, tree: Any) -> Any:
        return place(tree, self._everywhere)

    def _place_state(self, tree: Any) -> Any:
        """Places arrays of the shapes of the state, spread if the state is."""
        if self._spread is None:
            return self._place(tree)
        return jax.tree.map(place, tree, _sharding.spread(tree, self._spread))

    def place_scored(self, variables: Any) -> Any:
        """Places variables of the model where they are scored; a spread state stays.

        Args:
          variables: variables of a state of this run.
        """
        return place(variables, self.scoring) if self._spread is None else variables

    def _trainable_part(self, state: train.TrainState) -> dict[str, Any]:
        """Returns a copy of params and collections."""
        # A copy, because the next step is given the state's own buffers to overwrite.
        kept = {"params": state.params, "collections": state.collections}
        return jax.tree.map(jnp.copy, kept)


def check(config: Config, data: datasets.Dataset | Streamed) -> None:
    """Checks that a run could initialise its weights, without initialising them.

    Args:
      config: options.
      data: data set.

    Raises:
      BadInput: the network cannot take the images, or the budget is less than one
        weight a layer.
    """
    platform = jax.local_devices()[0].platform
    programs = compile_programs(
        _spec(config, data, 1, platform, config.batch_size, None)
    )
    with _naming_network(config):
        jax.eval_shape(programs.create, jax.random.key(0))


@contextlib.contextmanager
def _naming_network(config: Config) -> Iterator[None]:
    """Raises an error of a network again as BadInput, with network and data set."""
    # A module of one's own may raise anything while it is traced.
    kind = ValueError if config.model is None else Exception
    try:
        yield
    except kind as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInput(
            f"{config.network_name} on {config.dataset_name} cannot be begun: "
            f"{lines[0]}",
            page="docs/own_network.md" if config.model else "docs/training.md#options",
        ) from error


def _spec(
    config: Config,
    data: datasets.Dataset | Streamed,
    steps: int,
    platform: str,
    micro_batch: int,
    mesh: Mesh | None,
) -> ProgramSpec:
    cropped = isinstance(data, Streamed) and data.train.crop is not None
    shape, means = data.image_shape, (data.mean, data.std)
    return program_spec(
        config,
        Images(shape, data.classes, *means, data.flip, cropped),
        steps=steps,
        platform=platform,
        micro_batch=micro_batch,
        mesh=mesh,
    )


@jax.jit
def without_nan(params: Any) -> jax.Array:
    """Returns True if no parameter is NaN; an infinite logit is a valid one.

    Args:
      params: pytree of float arrays.
    """
    leaves = jax.tree.leaves(params)
    return ~jnp.any(jnp.stack([jnp.isnan(leaf).any() for leaf in leaves]))


@jax.jit
def summarise(masks: Any, previous: Any, params: Any) -> evaluate.Selection:
    """Returns `evaluate.summarise`, compiled.

    Args:
      masks: masks by layer.
      previous: masks of an earlier epoch, by layer.
      params: params of the method.
    """
    return evaluate.summarise(masks, previous, params)


def as_floats(leaves: Mapping[str, Any]) -> dict[str, float]:
    """Returns scalars by name as Python floats."""
    return {name: float(value) for name, value in leaves.items()}
