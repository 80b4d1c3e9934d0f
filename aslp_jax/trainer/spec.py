"""Specification of compiled programs: the values that they depend on, and no other."""

import dataclasses
from typing import NamedTuple

from jax.sharding import Mesh

from aslp_jax import functional
from aslp_jax.methods import METHODS, Method
from aslp_jax.trainer import own_network
from aslp_jax.trainer.options import METHOD_OPTIONS, Config

__all__ = ["Images", "ProgramSpec", "make_method", "program_spec"]


class Images(NamedTuple):
    """Facts about the images of a data set.

    Attributes:
      shape: shape of one image, (height, width, channels).
      classes: number of classes.
      mean: mean of each channel, pixels in [0, 1].
      std: standard deviation of each channel, pixels in [0, 1].
      flip: True if a mirrored image keeps its label.
      cropped: True if training images are cropped and mirrored before they come to the
        device, default False.
    """

    shape: tuple[int, ...]
    classes: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    flip: bool
    cropped: bool = False


@dataclasses.dataclass(frozen=True)
class ProgramSpec:
    """All values that the compiled programs of a run depend on.

    Runs with equal specifications, such as seeds of the same options, share their
    programs.

    Attributes:
      method: method with its options.
      arch: name of the network.
      model: network of `--model`; None for the one that `arch` names.
      module_init: True to keep the initial weights of that network.
      signed_constant: layers with weights of one magnitude: "none", "all" or "conv".
      constant: this magnitude: "std" or "kaiming".
      bias: frozen biases: "none" or "uniform".
      dtype: dtype of the network's computation.
      image_shape: shape of one image, (height, width, channels).
      classes: number of classes.
      mean: mean of each channel to subtract, pixels in [0, 1]; None for none.
      std: standard deviation of each channel to divide by; None for none.
      augment: True for random crops of the training images, on the device.
      flip: True for random flips of the training images; False without `augment`.
      batch_size: images a step, over all devices.
      micro_batch: images a forward pass, over all devices.
      optimiser: "sgd" or "adam".
      warmup_steps: steps over which the learning rates rise from 0.
      decay_steps: steps until cosine learning rates are 0; None for constant rates.
      mask_lr: learning rate of logits or scores.
      scale_lr: learning rate of scales.
      weight_lr: learning rate of trained weights.
      sharpness_lr: relative change of the sharpness in a step.
      momentum: SGD momentum, or adam's beta1.
      weight_decay: weight decay of logits, scores or trained weights.
      temperature_end: temperature after `temperature_steps`; None to leave it as it is.
      temperature_steps: steps until then; 0 without `temperature_end`.
      label_smoothing: share of each label that is spread over all classes.
      ema_decay: decay of the moving averages of params a step; 0 for none.
      platform: platform of the devices, "cpu" or another.
      mesh: devices that share each batch; None for one device.
      spread: True to spread the state over the mesh.
    """

    method: Method
    arch: str
    model: functional.Network | None
    module_init: bool
    signed_constant: str
    constant: str
    bias: str
    dtype: str
    image_shape: tuple[int, ...]
    classes: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    augment: bool
    flip: bool
    batch_size: int
    micro_batch: int
    optimiser: str
    warmup_steps: int
    decay_steps: int | None
    mask_lr: float
    scale_lr: float
    weight_lr: float
    sharpness_lr: float
    momentum: float
    weight_decay: float
    temperature_end: float | None
    temperature_steps: int
    label_smoothing: float
    ema_decay: float
    platform: str
    mesh: Mesh | None
    spread: bool


def make_method(config: Config) -> Method:
    """Returns the method of a run, with its options.

    Args:
      config: options of the run.
    """
    names = METHOD_OPTIONS[config.method]
    return METHODS[config.method](**{name: getattr(config, name) for name in names})


def program_spec(
    config: Config,
    images: Images,
    *,
    steps: int,
    platform: str,
    micro_batch: int,
    mesh: Mesh | None,
) -> ProgramSpec:
    """Returns the values that the programs of a run depend on.

    Args:
      config: options of the run.
      images: facts about the images.
      steps: steps an epoch.
      platform: platform of the devices, "cpu" or another.
      micro_batch: images a forward pass, over all devices.
      mesh: devices that share each batch; None for one device.
    """
    return ProgramSpec(
        method=make_method(config),
        arch=config.arch,
        model=_own_network(config),
        module_init=config.module_init,
        signed_constant=config.signed_constant,
        constant=config.constant,
        bias=config.bias,
        dtype=config.dtype,
        image_shape=images.shape,
        classes=images.classes,
        mean=images.mean if config.standardise else None,
        std=images.std if config.standardise else None,
        augment=config.augment and not images.cropped,
        flip=config.augment and images.flip and not images.cropped,
        batch_size=config.batch_size,
        micro_batch=micro_batch,
        optimiser=config.optimiser,
        warmup_steps=steps * config.warmup_epochs,
        decay_steps=steps * config.epochs if config.schedule == "cosine" else None,
        mask_lr=config.mask_lr,
        scale_lr=config.scale_lr,
        weight_lr=config.weight_lr,
        sharpness_lr=config.sharpness_lr,
        momentum=config.momentum,
        weight_decay=config.weight_decay,
        temperature_end=config.temperature_end,
        temperature_steps=0
        if config.temperature_end is None
        else steps * config.epochs,
        label_smoothing=config.label_smoothing,
        ema_decay=config.ema_decay,
        platform=platform,
        mesh=mesh,
        spread=mesh is not None and config.shard == "params",
    )


def _own_network(config: Config) -> functional.Network | None:
    if config.model is None:
        return None
    net = own_network.load(config.model, config.model_args, sha256=config.model_sha256)
    return functional.network(net)  # a value that can be hashed, as a module may not
