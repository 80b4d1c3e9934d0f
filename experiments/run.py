"""A run in memory: what is compiled, where it stands, and the best state so far."""

import dataclasses
import hashlib
import math
import time
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from config import FIELDS, BadInput, Config
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from aslp_jax import augment, datasets, evaluate, initialisers, train
from aslp_jax.convolution import conv_in_loop
from aslp_jax.masked import Masked
from aslp_jax.methods import METHODS
from aslp_jax.networks import NETWORKS
from aslp_jax.optim import sgd_by_group

_CPU_MICRO_BATCH = 64
"""Images a forward pass on a CPU: activations of 256 fall out of the cache (Conv2 at
256: 97 images/s whole, 235 in parts of 64, two cores)."""


_PAD_SHARE = 8
"""Random crops shift by up to an eighth of the image: the paper's 4 pixels of 32."""


class LossNotFinite(Exception):
    """The loss became NaN or infinite; the message names epoch and step."""


@dataclasses.dataclass
class Position:
    """Where a run stands; saved with the arrays as numbers of fixed width.

    Attributes:
      epoch: epochs finished and validated.
      step: steps taken of the next epoch.
      best_epoch: the epoch (from 1) with the best validation accuracy, 0 before any.
      best_accuracy: of that epoch, -1 before any.
      seconds: spent training and validating.
    """

    epoch: int = 0
    step: int = 0
    best_epoch: int = 0
    best_accuracy: float = -1.0
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
      devices: over which each batch is spread.
      steps: of an epoch.
      method: how weights are selected.
      model: the network on those weights.
      state: the train state after the last step taken.
      best: what was learnt when the validation accuracy was best.
      position: where the run stands.
      seconds_per_step: of the last steps taken.
    """

    def __init__(self, config: Config, data: datasets.Dataset) -> None:
        self.config = config
        self.devices = _choose_devices(config)
        self.micro_batch = _choose_micro_batch(config, self.devices)
        mesh = jax.make_mesh(
            (len(self.devices),),
            (train.BATCH,),
            axis_types=(AxisType.Auto,),
            devices=self.devices,
        )
        self._everywhere = NamedSharding(mesh, PartitionSpec())

        root = jax.random.key(config.seed)
        self._key = train.stream(root, "train")
        self._validation_key = train.stream(root, "validation")
        self._test_key = train.stream(root, "test")

        chosen, held_out = datasets.split(
            len(data.train_labels), data.validation, config.seed
        )
        self.data = data
        self.images_sha256 = hashlib.sha256(
            np.concatenate([data.train_images.ravel(), data.test_images.ravel()])
        ).hexdigest()
        self._train = self._place(
            (data.train_images[chosen], data.train_labels[chosen])
        )
        self._validation = self._place(
            (data.train_images[held_out], data.train_labels[held_out])
        )
        self.steps = len(chosen) // config.batch_size
        if self.steps == 0:
            raise BadInput(
                f"--batch-size {config.batch_size} is more than the {len(chosen)} "
                f"training images of {config.dataset}"
            )

        method: Any = METHODS[config.method]
        options = {field.name for field in dataclasses.fields(method)} & set(FIELDS)
        self.method = method(**{name: getattr(config, name) for name in options})
        self.model = Masked(
            _network(config, data.classes, self.devices[0].platform), self.method
        )
        optimiser = sgd_by_group(
            {"logits": config.mask_lr, "scale": config.scale_lr},
            momentum=config.momentum,
        )
        plain, augmented = _preparation(config, data)
        self.state = self._place(
            train.create(
                self.model,
                optimiser,
                train.stream(root, "weights"),
                plain(jnp.asarray(data.train_images[:1])),
            )
        )
        self.totals = self._place(train.Totals.zeros())
        self._masks = jax.jit(self.method.masks)
        self.previous = self._masks(self.state.frozen, self.state.params)
        self.best = self._selection_of(self.state)
        self.position = Position()
        self.seconds_per_step = math.inf  # not known before the first, which compiles
        self._scoring: dict[str, Any] = {"model": self.model, "prepare": plain}
        self._steps = train.compile_steps(
            mesh=mesh,
            batch_size=config.batch_size,
            prepare=augmented,
            model=self.model,
            optimiser=optimiser,
            micro_batch=self.micro_batch,
        )

    def take_steps(self, count: int) -> float:
        """Takes `count` more steps of the present epoch.

        Returns:
          Seconds that took.

        Raises:
          LossNotFinite: the loss of a step was not finite.
        """
        where = self.position
        began = time.monotonic()
        bounds = (where.epoch, where.step, where.step + count)
        self.state, self.totals = self._steps(
            self.state,
            self.totals,
            *self._train,
            self._key,
            *(jnp.asarray(number, jnp.int32) for number in bounds),
        )
        # Waiting in Python, not in the runtime, lets a second Ctrl-C stop at once.
        while not self.totals.loss.is_ready():
            time.sleep(0.002)
        seconds = time.monotonic() - began
        if not math.isfinite(float(self.totals.loss)):
            raise LossNotFinite(
                f"the loss became {float(self.totals.loss)} in epoch "
                f"{where.epoch + 1}, step {int(self.totals.steps)} of {self.steps}"
            )
        where.step += count
        where.seconds += seconds
        self.seconds_per_step = seconds / count
        return seconds

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
            evaluate.score(state.variables, *self._validation, key, **self._scoring)
        )
        # Thresholding hides a NaN logit: the weight is merely dropped.
        if not (math.isfinite(loss) and _without_nan(state.params)):
            raise LossNotFinite(
                "the validation loss, a logit or a scale became NaN in epoch "
                f"{where.epoch + 1}, step {self.steps} of {self.steps}"
            )
        masks = self._masks(state.frozen, state.params)
        selection = jax.device_get(_summarise(masks, self.previous, state.params))
        totals = jax.device_get(self.totals)

        self.previous, self.totals = masks, self._place(train.Totals.zeros())
        where.epoch, where.step = where.epoch + 1, 0
        if accuracy > where.best_accuracy:
            where.best_epoch, where.best_accuracy = where.epoch, float(accuracy)
            self.best = self._selection_of(state)
        where.seconds += time.monotonic() - began
        images = int(totals.steps) * self.config.batch_size
        return {
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
            "images_per_second": images_per_second,
            "seconds": where.seconds,
        }

    @property
    def stopped(self) -> str | None:
        """Why training is over (`"patience"` or `"epochs"`), or None."""
        if self.position.epoch - self.position.best_epoch >= self.config.patience:
            return "patience"
        return "epochs" if self.position.epoch >= self.config.epochs else None

    def result(self) -> dict[str, Any]:
        """Evaluates the best state on the test set, which nothing looked at before."""
        images, labels = self._place((self.data.test_images, self.data.test_labels))
        best = self.state.replace(**self.best)
        scores = evaluate.evaluate(
            best.variables,
            images,
            labels,
            self._test_key,
            samples=self.config.eval_samples,
            **self._scoring,
        )
        masks = self._masks(best.frozen, best.params)
        selection = jax.device_get(_summarise(masks, masks, best.params))
        weights = {name: mask.size for name, mask in masks.items()}
        network = jax.eval_shape(self.method.realise, best.frozen, best.params)
        dense = sum(
            leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(network)
        )
        return {
            "arch": self.config.arch,
            "dataset": self.config.dataset,
            "method": self.config.method,
            "seed": self.config.seed,
            "thresholding": scores.thresholding,
            "averaging_mean": scores.averaging_mean,
            "averaging_std": scores.averaging_std,
            "single": scores.single,
            "eval_samples": self.config.eval_samples,
            "test_loss": scores.loss,
            "keep_fraction": float(selection.keep_fraction),
            "keep_fractions": _floats(selection.by_layer),
            "scalars": {
                group: _floats(leaves) for group, leaves in selection.scalars.items()
            },
            "weights": weights,
            "dense_bytes": dense,
            "mask_bytes": -(-sum(weights.values()) // 8),
            "best_epoch": self.position.best_epoch,
            "best_validation_accuracy": self.position.best_accuracy,
            "epochs": self.position.epoch,
            "stopped": self.stopped,
            "seconds": self.position.seconds,
        }

    def keep_probabilities(self) -> dict[str, np.ndarray]:
        """Returns the keep-probabilities of the best state, on the host."""
        return jax.device_get(
            self.method.keep_probabilities(self.state.frozen, self.best["params"])
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

    def _place(self, tree: Any) -> Any:
        return jax.device_put(tree, self._everywhere)

    def _selection_of(self, state: train.TrainState) -> dict[str, Any]:
        # A copy, because the next step is given the state's own buffers to overwrite.
        kept = {"params": state.params, "collections": state.collections}
        return jax.tree.map(jnp.copy, kept)


def _network(config: Config, classes: int, platform: str) -> Any:
    kaiming = initialisers.kaiming_normal()
    constant = initialisers.signed_constant(kaiming)
    return NETWORKS[config.arch](
        classes=classes,
        conv_init=kaiming if config.signed_constant == "none" else constant,
        dense_init=constant if config.signed_constant == "all" else kaiming,
        bias_init=initialisers.fan_in_uniform if config.bias == "uniform" else None,
        conv_general_dilated=conv_in_loop if platform == "cpu" else None,
        dtype=jnp.dtype(config.dtype),
    )


def _preparation(config: Config, data: datasets.Dataset) -> tuple[Any, Any]:
    """What turns uint8 images into inputs: plainly, and for training."""

    def plain(images: jax.Array) -> jax.Array:
        if config.standardise:
            return augment.to_float(images, mean=data.mean, std=data.std)
        return augment.to_float(images)

    def prepare(key: jax.Array, images: jax.Array) -> jax.Array:
        if config.augment:
            pad = images.shape[1] // _PAD_SHARE
            images = augment.crop_and_flip(key, images, pad=pad, flip=data.flip)
        return plain(images)

    return plain, prepare


def _choose_devices(config: Config) -> list[jax.Device]:
    found = jax.devices()
    count = config.devices
    if count is None:
        numbers = range(len(found), 0, -1)
        return found[: next(n for n in numbers if config.batch_size % n == 0)]
    if count > len(found):
        kinds = ", ".join(str(device) for device in found)
        raise BadInput(f"--devices {count}: only {len(found)} here ({kinds})")
    if config.batch_size % count:
        raise BadInput(
            f"--batch-size {config.batch_size} is not divisible by the {count} devices"
        )
    return found[:count]


def _choose_micro_batch(config: Config, devices: list[jax.Device]) -> int:
    """Examples a forward pass over all devices; `--micro-batch` counts one device's."""
    share = config.batch_size // len(devices)
    if config.micro_batch is not None:
        if share % config.micro_batch:
            raise BadInput(
                f"--micro-batch {config.micro_batch} does not divide the {share} "
                "images that each device gets of a batch"
            )
        return config.micro_batch * len(devices)
    if devices[0].platform != "cpu":
        return config.batch_size
    # A batch with no fitting divisor goes through whole, rather than in crumbs.
    fitting = range(_CPU_MICRO_BATCH, _CPU_MICRO_BATCH // 4, -1)
    size = next((size for size in fitting if share % size == 0), share)
    return size * len(devices)


@jax.jit
def _without_nan(params: Any) -> jax.Array:
    leaves = jax.tree.leaves(params)
    return ~jnp.any(jnp.stack([jnp.isnan(leaf).any() for leaf in leaves]))


@jax.jit
def _summarise(masks: Any, previous: Any, params: Any) -> evaluate.Selection:
    return evaluate.summarise(masks, previous, params)


def _floats(leaves: Mapping[str, Any]) -> dict[str, float]:
    return {name: float(value) for name, value in leaves.items()}
