"""What a run compiles. Runs that differ in their seed alone share it, and can be one
program: each of several devices trains a seed of its own, or several as one batch.
"""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh

from aslp_jax import evaluate, train
from aslp_jax.connectivity import Connectivity, connectivity
from aslp_jax.data import augment
from aslp_jax.masked import Masked
from aslp_jax.methods import METHODS, Method
from aslp_jax.models import NETWORKS, initialisers
from aslp_jax.ops import convolution
from aslp_jax.optim import by_group, relative_sign_sgd
from aslp_jax.trainer.options import Config

_PAD_SHARE = 8
"""Random crops shift by up to an eighth of the image: the paper's 4 pixels of 32."""

_SCORED, _CPU_SCORED = 500, 50
"""Images scored at once. Where activations stay in the cache, Conv4 takes 1.1 ms an
image and a process 0.76 GB in all; with 250 at once 1.4 ms and 0.99 GB."""


class Inputs(NamedTuple):
    """What the programs need to know about the images.

    Attributes:
      shape: of one image, (height, width, channels).
      classes: number of classes.
      mean: of each channel, pixels being in [0, 1].
      std: likewise the standard deviation.
      flip: whether a mirrored image keeps its label.
      steps: of an epoch.
    """

    shape: tuple[int, ...]
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    flip: bool
    steps: int


@dataclasses.dataclass(frozen=True)
class Programs:
    """The compiled functions of a run; `jax.jit` keeps one version for each device.

    Attributes:
      method: how weights are selected.
      model: the network on those weights.
      create: from the key of the weights to the state before the first step.
      steps: as `train.compile_steps` returns it, the batch spread over the devices.
      seed_steps: the same for several seeds; see `train.compile_steps`.
      score: `evaluate.score` of variables, images, labels and key.
      evaluate: `evaluate.evaluate`, likewise, with the drawn networks' number.
      masks: `method.masks`.
      keep_counts: `method.keep_counts`.
      metrics: `method.metrics`.
      prune: from a state to the one that fine-tuning starts from, for methods that can.
      connectivity: from masks to how the network hangs together.
    """

    method: Method
    model: Masked
    create: Callable[[jax.Array], train.TrainState]
    steps: Callable[..., Any]
    seed_steps: Callable[[Mesh], Callable[..., Any]]
    score: Callable[..., Any]
    evaluate: Callable[..., evaluate.Evaluation]
    masks: Callable[..., Any]
    keep_counts: Callable[..., Any]
    metrics: Callable[..., Any]
    prune: Callable[[train.TrainState], train.TrainState]
    connectivity: Callable[..., Connectivity]


# The last one: seeds of the same options follow one another.
@functools.lru_cache(maxsize=1)
def programs(
    config: Config, inputs: Inputs, platform: str, micro_batch: int, mesh: Mesh | None
) -> Programs:
    """Returns what runs of these options compile, the same objects for the same.

    Args:
      config: the options; the seed changes nothing.
      inputs: about the images.
      platform: what it runs on, `"cpu"` or another.
      micro_batch: examples a forward pass, over all devices.
      mesh: devices over which each batch is spread; None for one device.
    """
    kind: Any = METHODS[config.method]
    fields = {field.name for field in dataclasses.fields(kind)}
    options = {name: value for name, value in vars(config).items() if name in fields}
    method = kind(**options)
    standardised = (inputs.mean, inputs.std) if config.standardise else (None, None)
    plain = _plainly(*standardised)
    network = _network(
        config.arch,
        config.signed_constant,
        config.constant,
        config.bias,
        config.dtype,
        inputs.classes,
        platform,
    )
    model = Masked(network, method)
    optimiser = _optimiser(config, inputs.steps)
    image = jnp.zeros((1, *inputs.shape), jnp.uint8)

    def prune(state: train.TrainState) -> train.TrainState:
        return state.replace(
            frozen=kind.prune(method, state.frozen, state.params),
            opt_state=optimiser.init(state.params),
        )

    def paths(masks: Any) -> Connectivity:
        shapes = jax.eval_shape(
            lambda key: network.init(key, plain(image), train=False), jax.random.key(0)
        )
        return connectivity(network, shapes, masks, plain(image), train=False)

    stepping: dict[str, Any] = {
        "batch_size": config.batch_size,
        "prepare": _preparation(config, inputs, plain),
        "model": model,
        "optimiser": optimiser,
        "micro_batch": micro_batch,
    }
    scoring: dict[str, Any] = {
        "model": model,
        "prepare": plain,
        "batch_size": _CPU_SCORED if platform == "cpu" else _SCORED,
    }
    return Programs(
        method=method,
        model=model,
        create=jax.jit(lambda key: train.create(model, optimiser, key, plain(image))),
        steps=train.compile_steps(mesh=mesh, **stepping),
        seed_steps=functools.cache(
            lambda seeds: train.compile_steps(seeds=seeds, **stepping)
        ),
        score=functools.partial(evaluate.score, **scoring),
        evaluate=functools.partial(evaluate.evaluate, **scoring),
        masks=jax.jit(method.masks),
        keep_counts=jax.jit(method.keep_counts),
        metrics=jax.jit(method.metrics),
        prune=jax.jit(prune),
        connectivity=jax.jit(paths),
    )


def _optimiser(config: Config, steps: int) -> optax.GradientTransformation:
    """Each group learns at a rate of its own, logits and scores at one.

    Args:
      config: the options.
      steps: of an epoch.
    """

    def scheduled(rate: float) -> optax.ScalarOrSchedule:
        if config.schedule == "cosine":
            return optax.cosine_decay_schedule(rate, steps * config.epochs)
        return rate

    def rule(rate: float) -> optax.GradientTransformation:
        if config.optimiser == "adam":
            return optax.adam(scheduled(rate), b1=config.momentum)
        return optax.sgd(scheduled(rate), config.momentum)

    def decayed(rate: float) -> optax.GradientTransformation:
        if config.weight_decay == 0:
            return rule(rate)
        return optax.chain(optax.add_decayed_weights(config.weight_decay), rule(rate))

    return by_group(
        {
            "scale": rule(config.scale_lr),
            "sharpness": relative_sign_sgd(scheduled(config.sharpness_lr)),
            "weights": decayed(config.weight_lr),
        },
        default=decayed(config.mask_lr),
    )


# The same object for the same network, so that its scoring is compiled once.
@functools.lru_cache(maxsize=8)
def _network(
    arch: str,
    signed_constant: str,
    constant: str,
    bias: str,
    dtype: str,
    classes: int,
    platform: str,
) -> Any:
    kaiming = initialisers.kaiming_normal()
    fixed = {
        "std": initialisers.signed_constant(kaiming),
        "kaiming": initialisers.kaiming_constant(),
    }[constant]
    return NETWORKS[arch](
        classes=classes,
        conv_init=kaiming if signed_constant == "none" else fixed,
        dense_init=fixed if signed_constant == "all" else kaiming,
        bias_init=initialisers.fan_in_uniform if bias == "uniform" else None,
        conv_general_dilated=convolution.of_platform(platform),
        dtype=jnp.dtype(dtype),
    )


# Likewise.
@functools.lru_cache(maxsize=8)
def _plainly(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Callable[[jax.Array], jax.Array]:
    """What turns uint8 images into inputs."""
    return functools.partial(augment.to_float, mean=mean, std=std)


def _preparation(
    config: Config, inputs: Inputs, plain: Callable[[jax.Array], jax.Array]
) -> train.Prepare:
    """The same for training, at random."""

    def prepare(key: jax.Array, images: jax.Array) -> jax.Array:
        if config.augment:
            pad = images.shape[1] // _PAD_SHARE
            images = augment.crop_and_flip(key, images, pad=pad, flip=inputs.flip)
        return plain(images)

    return prepare
