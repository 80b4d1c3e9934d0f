"""A run in memory: its arrays, where it stands, and the best state so far.

Long, because every question about the devices of one run is answered here.
"""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterator, Mapping, Sequence
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

from aslp_jax import artefact, evaluate, train
from aslp_jax._errors import BadInput
from aslp_jax.data import datasets
from aslp_jax.trainer.devices import choose_devices, choose_micro_batch, wait_for
from aslp_jax.trainer.options import Config, fixed_options
from aslp_jax.trainer.programs import Inputs, Programs, programs


class LossNotFinite(Exception):
    """The loss became NaN or infinite; the message names epoch and step."""


@dataclasses.dataclass
class Position:
    """Where a run stands; saved with the arrays as numbers of fixed width.

    Attributes:
      epoch: epochs finished and validated.
      step: steps taken of the next epoch.
      best_epoch: the epoch (from 1) with the best validation accuracy among those that
        met the budget, else that which missed it least; 0 before any.
      best_accuracy: of that epoch, -1 before any.
      pruned_epoch: the epoch after which fine-tuning began, 0 before.
      best_miss: by how much of the masked weights that epoch missed the budget, 0 where
        it was met; infinite before any.
      seconds: spent training and validating.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
    pruned_epoch: int = 0
    best_miss: float = math.inf
    seconds: float = 0.0

    def as_arrays(self) -> dict[str, np.ndarray]:
        return {
            name: np.asarray(value, np.int64 if isinstance(value, int) else np.float64)
            for name, value in dataclasses.asdict(self).items()
        }

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, np.ndarray]) -> "Position":
        return cls(**{name: array.item() for name, array in arrays.items()})


class Run:
    """A run in memory: its compiled programs, its state, and the best state so far.

    Attributes:
      config: the options.
      data: the images, on the host.
      images_sha256: of training and test images.
      weights_key: PRNG key that the frozen weights were drawn from.
      devices: over which each batch is spread.
      steps: of an epoch.
      programs: what is compiled.
      key: PRNG key of the steps.
      training: images and labels, on the devices.
      state: the train state after the last step taken.
      best: what was learnt when the validation accuracy was best.
      totals: sums over the epoch so far.
      position: where the run stands.
      seconds_per_step: of the last steps taken.
    """

    def __init__(
        self,
        config: Config,
        data: datasets.Dataset,
        *,
        devices: Sequence[jax.Device] | None = None,
    ) -> None:
        """Draws the weights and places all on the devices.

        Args:
          config: the options.
          data: the images.
          devices: to spread each batch over; None chooses what the options ask for.

        Raises:
          BadInput: a batch that does not fit the images or the devices, a network
            that cannot take the images, or a budget of less than a weight a layer.
        """
        self.config = config
        self.devices = choose_devices(config) if devices is None else list(devices)
        self.micro_batch = choose_micro_batch(config, self.devices)
        mesh = None
        self._everywhere: Sharding = SingleDeviceSharding(self.devices[0])
        # One device scores for all: another would compile the same once more.
        self._scoring: Sharding = SingleDeviceSharding(jax.local_devices()[0])
        if len(self.devices) > 1:
            mesh = jax.make_mesh(
                (len(self.devices),),
                (train.BATCH,),
                axis_types=(AxisType.Auto,),
                devices=self.devices,
            )
            self._everywhere = self._scoring = NamedSharding(mesh, PartitionSpec())

        root = jax.random.key(config.seed)
        self.key = self._place(train.stream(root, "train"))
        self._validation_key = train.stream(root, "validation")
        self._test_key = train.stream(root, "test")
        self.weights_key = train.stream(root, "weights")

        chosen, held_out = datasets.split(
            len(data.train_labels), data.validation, config.seed
        )
        self.data = data
        self.images_sha256 = data.images_sha256()
        self.training = self._place(
            (data.train_images[chosen], data.train_labels[chosen])
        )
        self._validation = jax.device_put(
            (data.train_images[held_out], data.train_labels[held_out]), self._scoring
        )
        self.steps = len(chosen) // config.batch_size
        if self.steps == 0:
            raise BadInput(
                f"--batch-size {config.batch_size} is more than the {len(chosen)} "
                f"training images of {config.dataset}"
            )

        self.programs = _programs(
            config, data, self.steps, self.devices[0].platform, self.micro_batch, mesh
        )
        with _said_of(config):
            state = self.programs.create(self.weights_key)
        self.state = self._place(state)
        self.totals = self._place(train.Totals.zeros())
        self.previous = self.programs.masks(self.state.frozen, self.state.params)
        self.best = self._selection_of(self.state)
        self.position = Position()
        self.seconds_per_step = math.inf  # not known before the first, which compiles

    @property
    def device(self) -> str:
        """What it runs on, in words."""
        return f"{len(self.devices)} x {self.devices[0].device_kind}"

    def take_steps(self, count: int) -> float:
        """Takes `count` more steps of the present epoch, not yet accounted for.

        Returns:
          Seconds that took.
        """
        began = time.monotonic()
        self.state, self.totals = self.programs.steps(
            self.state, self.totals, *self.training, self.key, *self.bounds(count)
        )
        wait_for(self.totals.loss)
        return time.monotonic() - began

    def bounds(self, count: int) -> tuple[jax.Array, ...]:
        """Returns epoch, first step and step before which to stop, for the program."""
        where = self.position
        numbers = (where.epoch, where.step, where.step + count)
        return tuple(jnp.asarray(number, jnp.int32) for number in numbers)

    def account(self, count: int, seconds: float, *, share: int = 1) -> None:
        """Notes that the state is `count` steps on.

        Args:
          count: steps taken.
          seconds: that took.
          share: runs that were trained in that time, side by side.

        Raises:
          LossNotFinite: the loss of a step was not finite.
        """
        where = self.position
        if not math.isfinite(float(self.totals.loss)):
            raise LossNotFinite(
                f"the loss became {float(self.totals.loss)} in epoch "
                f"{where.epoch + 1}, step {int(self.totals.steps)} of {self.steps}"
            )
        where.step += count
        where.seconds += seconds / share
        self.seconds_per_step = seconds / count

    def finish_epoch(self, images_per_second: float) -> dict[str, Any]:
        """Validates, keeps the state if it is the best, and starts the next epoch.

        Args:
          images_per_second: training speed over the epoch.

        Returns:
          The row of metrics.jsonl.

        Raises:
          LossNotFinite: the validation loss is not finite.
        """
        where, state = self.position, self.state
        began = time.monotonic()
        key = None
        if self.config.select_by == "sample":
            key = jax.random.fold_in(self._validation_key, where.epoch)
        accuracy, loss = jax.device_get(
            self.programs.score(
                jax.device_put(state.variables, self._scoring), *self._validation, key
            )
        )
        # Thresholding hides a NaN logit: the weight is merely dropped.
        if not (math.isfinite(loss) and _without_nan(state.params)):
            raise LossNotFinite(
                "the validation loss or something learnt became NaN in epoch "
                f"{where.epoch + 1}, step {self.steps} of {self.steps}"
            )
        masks = self.programs.masks(state.frozen, state.params)
        selection = jax.device_get(_summarise(masks, self.previous, state.params))
        totals = jax.device_get(self.totals)

        self.previous, self.totals = masks, self._place(train.Totals.zeros())
        where.epoch, where.step = where.epoch + 1, 0
        miss = self._miss(state, masks)
        if (-miss, accuracy) > (-where.best_miss, where.best_accuracy):
            where.best_epoch, where.best_accuracy = where.epoch, float(accuracy)
            where.best_miss = miss
            self.best = self._selection_of(state)
        where.seconds += time.monotonic() - began
        images = int(totals.steps) * self.config.batch_size
        row = {
            "epoch": where.epoch,
            "step": int(state.step),
            "train_loss": float(totals.loss) / int(totals.steps),
            "train_accuracy": int(totals.correct) / images,
            "validation_loss": float(loss),
            "validation_accuracy": float(accuracy),
            "best_validation_accuracy": where.best_accuracy,
            "best_epoch": where.best_epoch,
            "keep_fraction": float(selection.keep_fraction),
            "keep_fractions": _floats(selection.by_layer),
            "flip_rate": float(selection.flip_rate),
            "scalars": {
                group: _floats(leaves) for group, leaves in selection.scalars.items()
            },
            "statistics": {
                name: _floats(leaves)
                for name, leaves in self.programs.metrics(
                    state.frozen, state.params
                ).items()
            },
            "images_per_second": images_per_second,
            "seconds": where.seconds,
        }
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
        """Prunes the best state and starts from it anew, what was pruned held at 0."""
        where = self.position
        where.best_epoch = where.pruned_epoch = where.epoch
        where.best_accuracy, where.best_miss = -1.0, math.inf
        self.state = self.programs.prune(self.state.replace(**self.best))
        self.previous = self.programs.masks(self.state.frozen, self.state.params)
        self.best = self._selection_of(self.state)

    def _miss(self, state: train.TrainState, masks: Mapping[str, Any]) -> float:
        """By how much of the masked weights the budget is missed, 0 within tolerance.

        With `--scope layer` each layer has its own, and the largest miss counts, of the
        weights of that layer.
        """
        if self.config.keep_fraction is None:
            return 0.0
        sizes = {name: mask.size for name, mask in masks.items()}
        counted = jax.device_get(self.programs.keep_counts(state.frozen, state.params))
        if self.config.scope == "global":
            sizes = {"": sum(sizes.values())}
            counted = {"": sum(counted.values())}
        misses = [
            abs(float(counted[name]) / size - self.config.keep_fraction)
            for name, size in sizes.items()
        ]
        worst = max(misses)
        # Half of a budget below 1 % is no miss of 1 %: nothing kept would meet it.
        tolerance = self.programs.method.tolerance
        tolerance = min(tolerance, self.config.keep_fraction / 2)
        return worst if worst > tolerance else 0.0

    @property
    def stopped(self) -> str | None:
        """Why training is over (`"patience"` or `"epochs"`), or None."""
        if self.position.epoch - self.position.best_epoch >= self.config.patience:
            return "patience"
        taken = self.position.epoch - self.position.pruned_epoch
        return "epochs" if taken >= self.config.epochs else None

    def result(self) -> dict[str, Any]:
        """Evaluates the best state on the test set, which nothing looked at before."""
        best = self.state.replace(**self.best)
        test = (self.data.test_images, self.data.test_labels)
        scores = self.programs.evaluate(
            *jax.device_put((best.variables, *test), self._scoring),
            self._test_key,
            samples=self.config.eval_samples,
        )
        masks = self.programs.masks(best.frozen, best.params)
        selection = jax.device_get(_summarise(masks, masks, best.params))
        weights = {name: mask.size for name, mask in masks.items()}
        network = jax.eval_shape(
            self.programs.method.effective_weights, best.frozen, best.params
        )
        dense = sum(
            leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(network)
        )
        paths = jax.device_get(self.programs.connectivity(masks))
        return {
            "arch": self.config.arch,
            "stochastic": self.programs.method.stochastic,
            "relaxed": self.programs.method.trains_dense,
            "dataset": self.config.dataset,
            "method": self.config.method,
            "seed": self.config.seed,
            "thresholding": scores.thresholding,
            "averaging_mean": scores.averaging_mean,
            "averaging_std": scores.averaging_std,
            "single": scores.single,
            "eval_samples": self.config.eval_samples,
            "test_loss": scores.loss,
            "pruning_change": None
            if math.isnan(scores.pruning_change)
            else scores.pruning_change,
            "keep_fraction": float(selection.keep_fraction),
            "keep_fractions": _floats(selection.by_layer),
            "scalars": {
                group: _floats(leaves) for group, leaves in selection.scalars.items()
            },
            "connectivity": {
                name: {field: int(n) for field, n in layer._asdict().items()}
                for name, layer in paths.layers.items()
            },
            "outputs": int(paths.outputs),
            "outputs_reached": int(paths.reached),
            "weights": weights,
            "dense_bytes": dense,
            "mask_bytes": -(-sum(weights.values()) // 8),
            "kept_bits": self.programs.method.bits_per_kept_weight,
            "best_epoch": self.position.best_epoch,
            "best_validation_accuracy": self.position.best_accuracy,
            "keep_fraction_asked": self.config.keep_fraction,
            "scope": self.config.scope,
            "finetuned": self.position.pruned_epoch > 0,
            "budget_miss": self.position.best_miss,
            "epochs": self.position.epoch,
            "stopped": self.stopped,
            "seconds": self.position.seconds,
        }

    def subnetwork(self, accuracies: Mapping[str, float]) -> artefact.Subnetwork:
        """Returns the network that the best state selects, alone.

        Args:
          accuracies: of it on the test set, by name.
        """
        height, width, channels = self.data.train_images.shape[1:]
        standardised = self.config.standardise
        return artefact.extract(
            self.programs.model,
            self.state.replace(**self.best).variables,
            artefact.Description(
                arch=self.config.arch,
                classes=self.data.classes,
                image_shape=(height, width, channels),
                mean=self.data.mean if standardised else None,
                std=self.data.std if standardised else None,
                dataset=self.config.dataset,
                method=self.config.method,
                seed=self.config.seed,
                accuracies=accuracies,
            ),
            key=self.weights_key,
        )

    def keep_probabilities(self) -> dict[str, np.ndarray]:
        """Returns the keep-probabilities of the best state, on the host."""
        return jax.device_get(
            self.programs.method.keep_probabilities(
                self.state.frozen, self.best["params"]
            )
        )

    def snapshot(self) -> dict[str, Any]:
        """Returns a copy of all that a resumed run needs."""
        # A copy, because the next step is given the state's own buffers to overwrite.
        changing = {"state": self.state, "totals": self.totals}
        return {
            **jax.tree.map(jnp.copy, changing),
            "previous": self.previous,
            "best": self.best,
            "position": self.position.as_arrays(),
        }

    def restore(self, snapshot: Mapping[str, Any]) -> None:
        """Continues from a snapshot of a run with the same options."""
        self.position = Position.from_arrays(snapshot["position"])
        self.state = self._place(snapshot["state"])
        self.totals = self._place(snapshot["totals"])
        self.previous = self._place(snapshot["previous"])
        self.best = self._place(snapshot["best"])
        if self._next_is_finetuning:  # epochs or patience became fewer meanwhile
            self._begin_finetuning()

    def _place(self, tree: Any) -> Any:
        return jax.device_put(tree, self._everywhere)

    def _selection_of(self, state: train.TrainState) -> dict[str, Any]:
        # A copy, because the next step is given the state's own buffers to overwrite.
        kept = {"params": state.params, "collections": state.collections}
        return jax.tree.map(jnp.copy, kept)


def check(config: Config, data: datasets.Dataset) -> None:
    """Checks what a run would stumble over when it draws its weights, drawing none.

    Args:
      config: the options.
      data: the images.

    Raises:
      BadInput: a network that cannot take the images, or a budget of less than a weight
        a layer.
    """
    platform = jax.local_devices()[0].platform
    made = _programs(config, data, 1, platform, config.batch_size, None)
    with _said_of(config):
        jax.eval_shape(made.create, jax.random.key(0))


@contextlib.contextmanager
def _said_of(config: Config) -> Iterator[None]:
    """Says of what network and images it is that a library function complains."""
    try:
        yield
    except ValueError as error:  # of the network or the method, while it is traced
        raise BadInput(
            f"{config.arch} on {config.dataset} cannot be begun: {error}"
        ) from error


def _programs(
    config: Config,
    data: datasets.Dataset,
    steps: int,
    platform: str,
    micro_batch: int,
    mesh: Mesh | None,
) -> Programs:
    # What changes no program is left out, so that other seeds find it compiled.
    shared = {**fixed_options(config.as_dict()), "epochs": config.epochs, "seed": 0}
    shape = data.train_images.shape[1:]
    inputs = Inputs(shape, data.classes, data.mean, data.std, data.flip, steps)
    return programs(Config(**shared), inputs, platform, micro_batch, mesh)


@jax.jit
def _without_nan(params: Any) -> jax.Array:
    leaves = jax.tree.leaves(params)
    return ~jnp.any(jnp.stack([jnp.isnan(leaf).any() for leaf in leaves]))


@jax.jit
def _summarise(masks: Any, previous: Any, params: Any) -> evaluate.Selection:
    return evaluate.summarise(masks, previous, params)


def _floats(leaves: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in leaves.items()}
