"""Compiled programs of a run, shared by all runs with the same specification.

The file is long because it states what each program takes and returns.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import optax
from flax.typing import Initializer
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from aslp_jax import _sharding, evaluate, functional, train
from aslp_jax.data import augment
from aslp_jax.masked import Masked
from aslp_jax.methods import Method
from aslp_jax.models import NETWORKS, initialisers
from aslp_jax.ops import convolution
from aslp_jax.optim import averaged, by_group, relative_sign_sgd, with_ema
from aslp_jax.trainer.spec import ProgramSpec

if TYPE_CHECKING:
    from aslp_jax.connectivity import Connectivity

__all__ = ["ByRank", "Programs", "compile_programs"]

_PAD_DIVISOR = 8
"""Random crops shift by up to an eighth of the image: the paper's 4 pixels of 32."""

_SCORED, _CPU_SCORED = 500, 50
"""Images scored in one pass, on an accelerator and on a CPU.

Conv4 on a CPU: 1.1 ms an image and 0.76 GB in all with 50, whose activations stay in
the cache; 1.4 ms and 0.99 GB with 250.
"""


@dataclasses.dataclass(frozen=True)
class Programs:
    """Compiled functions of a run; `jax.jit` keeps one version for each device.

    Attributes:
      method: method with its options.
      model: network with masked weights.
      create: function from the key of the weights to the state before the first step,
        spread over the devices if the specification says so.
      steps: training steps as from `train.compile_steps`, each batch spread over the
        devices.
      batch_step: `train.batch_step`, compiled; it overwrites state and totals.
      seed_steps: function from a mesh to training steps of a seed batch; see
        `train.compile_steps`.
      score: `evaluate.score` of variables, images, labels and key.
      score_batches: `evaluate.score_batches` of variables, batches and key.
      evaluate_batches: `evaluate.evaluate_batches` of variables, batches and key, with
        the number of samples.
      evaluate: `evaluate.evaluate` of variables, images, labels and key, with the
        number of samples.
      scored: images scored in one pass.
      masks: `method.masks`.
      keep_counts: `method.keep_counts`.
      keep_probabilities: `method.keep_probabilities`.
      metrics: `method.metrics`.
      averaged: function from a state to the state that is scored and kept, whose params
        are their moving averages, if the specification asks for them.
      prune: function from a state to the state that fine-tuning starts from; only for
        methods that can prune.
      connectivity: function from masks to the connectivity of the pruned network.
    """

    method: Method
    model: Masked | functional.Model
    create: Callable[[jax.Array], train.TrainState]
    steps: jax.stages.Wrapped
    batch_step: jax.stages.Wrapped
    seed_steps: Callable[[Mesh], Callable[..., Any]]
    score: Callable[..., Any]
    score_batches: Callable[..., tuple[float, float]]
    evaluate_batches: Callable[..., evaluate.Evaluation]
    evaluate: Callable[..., evaluate.Evaluation]
    scored: int
    masks: Callable[..., Any]
    keep_counts: Callable[..., Any]
    keep_probabilities: Callable[..., dict[str, jax.Array]]
    metrics: Callable[..., Any]
    averaged: Callable[[train.TrainState], train.TrainState]
    prune: Callable[[train.TrainState], train.TrainState]
    connectivity: Callable[..., "Connectivity"]


# Runs of the same specification, such as seeds, follow one another.
@functools.lru_cache(maxsize=1)
def compile_programs(spec: ProgramSpec) -> Programs:
    """Returns the programs of a specification; the same objects for an equal one.

    Nothing is compiled before the first call of a program.

    Args:
      spec: values that the programs depend on.
    """
    method: Any = spec.method
    prepare = _to_inputs(spec.mean, spec.std)
    model = _model(spec)
    network = functional.network(model.net)
    optimiser = _optimiser(spec)
    image = jnp.zeros((1, *spec.image_shape), jnp.uint8)

    def prune(state: train.TrainState) -> train.TrainState:
        return state.replace(
            frozen=method.prune(state.frozen, state.params),
            opt_state=optimiser.init(state.params),
        )

    def create(key: jax.Array) -> train.TrainState:
        state = train.create(model, optimiser, key, prepare(image))
        _check_outputs(network, prepare(image), spec.classes)
        return state

    def connect(masks: Any) -> "Connectivity":
        # Only now: a run needs it at its end.
        from aslp_jax.connectivity import connectivity

        inputs = jax.eval_shape(prepare, image)
        weights, collections = jax.eval_shape(network.init, jax.random.key(0), inputs)
        return connectivity(network, weights, collections, masks, inputs)

    stepping: dict[str, Any] = {
        "prepare": _augmented(spec, prepare),
        "model": model,
        "optimiser": optimiser,
        "micro_batch": spec.micro_batch,
        "label_smoothing": spec.label_smoothing,
        "temperature": _temperature(spec),
        "spread": spec.mesh if spec.spread else None,
    }
    size = spec.batch_size
    scored = _CPU_SCORED if spec.platform == "cpu" else _SCORED
    scoring: dict[str, Any] = {
        "model": model,
        "prepare": prepare,
        "batch_size": scored,
    }
    return Programs(
        method=method,
        model=model,
        create=_created_on(spec.mesh, create) if spec.spread else jax.jit(create),
        steps=train.compile_steps(mesh=spec.mesh, batch_size=size, **stepping),
        batch_step=jax.jit(
            functools.partial(train.batch_step, **stepping), donate_argnums=(0, 1)
        ),
        seed_steps=functools.cache(
            lambda seeds: train.compile_steps(seeds=seeds, batch_size=size, **stepping)
        ),
        score=functools.partial(evaluate.score, **scoring),
        score_batches=functools.partial(evaluate.score_batches, **scoring),
        evaluate=functools.partial(evaluate.evaluate, **scoring),
        evaluate_batches=functools.partial(evaluate.evaluate_batches, **scoring),
        scored=scored,
        masks=jax.jit(method.masks),
        keep_counts=jax.jit(method.keep_counts),
        keep_probabilities=jax.jit(method.keep_probabilities),
        metrics=jax.jit(method.metrics),
        averaged=averaged if spec.ema_decay else lambda state: state,
        prune=jax.jit(prune),
        connectivity=jax.jit(connect),
    )


def _created_on(
    mesh: Mesh | None, create: Callable[[jax.Array], train.TrainState]
) -> Callable[[jax.Array], train.TrainState]:
    """Returns `create` with its result spread over a mesh, of the same bits."""
    if mesh is None:
        return jax.jit(create)

    def whole(key: jax.Array) -> train.TrainState:
        # Of each array in one piece, because a deviation over parts is rounded in
        # another order.
        everywhere = NamedSharding(mesh, PartitionSpec())
        return jax.lax.with_sharding_constraint(create(key), everywhere)

    def spread(key: jax.Array) -> train.TrainState:
        sharding = _sharding.spread(jax.eval_shape(create, key), mesh)
        return jax.jit(whole, out_shardings=sharding)(key)

    return spread


def _optimiser(spec: ProgramSpec) -> optax.GradientTransformation:
    """Returns the optimiser, with a learning rate for each group of params.

    Logits and scores share one rate.
    """

    def scheduled(rate: float) -> optax.ScalarOrSchedule:
        rise = spec.warmup_steps
        if spec.decay_steps is not None:
            later = optax.cosine_decay_schedule(rate, spec.decay_steps - rise)
        elif rise:
            later = optax.constant_schedule(rate)
        else:
            return rate
        if not rise:
            return later
        return optax.join_schedules(
            [optax.linear_schedule(0, rate, rise), later], [rise]
        )

    def rule(rate: float) -> optax.GradientTransformation:
        if spec.optimiser == "adam":
            return optax.adam(scheduled(rate), b1=spec.momentum)
        return optax.sgd(scheduled(rate), spec.momentum)

    def decayed(rate: float) -> optax.GradientTransformation:
        if spec.weight_decay == 0:
            return rule(rate)
        return optax.chain(optax.add_decayed_weights(spec.weight_decay), rule(rate))

    optimiser = by_group(
        {
            "scale": rule(spec.scale_lr),
            "sharpness": relative_sign_sgd(scheduled(spec.sharpness_lr)),
            "weights": decayed(spec.weight_lr),
        },
        default=decayed(spec.mask_lr),
    )
    return with_ema(optimiser, spec.ema_decay) if spec.ema_decay else optimiser


def _temperature(spec: ProgramSpec) -> optax.Schedule | None:
    """Returns the temperature by step; None if it is that of the method throughout."""
    if spec.temperature_end is None:
        return None
    method: Any = spec.method
    # Of logarithms, because float32 may not hold the quotient of both ends.
    start = math.log(method.temperature)
    change = math.log(spec.temperature_end) - start
    return lambda step: jnp.exp(start + change * (step / spec.temperature_steps))


def _model(spec: ProgramSpec) -> Masked | functional.Model:
    """Returns the network and its method, with the initialisers of the options."""
    conv_init, dense_init = _initialisers(spec.signed_constant, spec.constant)
    if spec.model is not None:
        drawn = None if spec.module_init else ByRank(conv_init, dense_init)
        return functional.Model(spec.model, spec.method, weight_init=drawn)
    bias_init = initialisers.fan_in_uniform if spec.bias == "uniform" else None
    network = NETWORKS[spec.arch](
        classes=spec.classes,
        conv_init=conv_init,
        dense_init=dense_init,
        bias_init=bias_init,
        conv_general_dilated=convolution.of_platform(spec.platform),
        dtype=jnp.dtype(spec.dtype),
    )
    return Masked(network, spec.method)


# The same objects for the same options, so that equal networks compare as equal and
# scoring is compiled once: the network is a static argument there.
@functools.lru_cache(maxsize=8)
def _initialisers(
    signed_constant: str, constant: str
) -> tuple[Initializer, Initializer]:
    """Returns the initialisers of convolutions and of dense layers."""
    kaiming = initialisers.kaiming_normal()
    fixed = {
        "std": initialisers.signed_constant(kaiming),
        "kaiming": initialisers.kaiming_constant(),
    }[constant]
    return (
        kaiming if signed_constant == "none" else fixed,
        fixed if signed_constant == "all" else kaiming,
    )


@dataclasses.dataclass(frozen=True)
class ByRank:
    """Initialiser of a module's weights: one for convolutions, one for all others.

    Attributes:
      conv: initialiser of arrays of three or more axes.
      dense: initialiser of arrays of fewer axes.
    """

    conv: Initializer
    dense: Initializer

    def __call__(self, key: jax.Array, shape: Any, dtype: Any = jnp.float32) -> Any:
        """Initialises an array."""
        return (self.conv if len(shape) > 2 else self.dense)(key, shape, dtype)


def _check_outputs(
    network: functional.Network, inputs: jax.Array, classes: int
) -> None:
    """Checks that a network returns a logit for each class."""

    def run(key: jax.Array) -> Any:
        return network.apply(*network.init(key, inputs), inputs)[0]

    outputs = jax.eval_shape(run, jax.random.key(0))
    found = getattr(outputs, "shape", None)
    if found != (1, classes):
        given = f"{list(found)}" if found is not None else type(outputs).__name__
        raise ValueError(
            f"the network returns {given} for one image; expected [1, {classes}], a "
            "logit for each class"
        )


# The same object for the same numbers, for the same reason.
@functools.lru_cache(maxsize=8)
def _to_inputs(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Callable[[jax.Array], jax.Array]:
    """Returns the function from uint8 images to the network's inputs."""
    return functools.partial(augment.to_float, mean=mean, std=std)


def _augmented(
    spec: ProgramSpec, to_inputs: Callable[[jax.Array], jax.Array]
) -> train.Prepare:
    """Returns the function from a key and uint8 images to inputs for training."""

    def prepare(key: jax.Array, images: jax.Array) -> jax.Array:
        if spec.augment:
            pad = images.shape[1] // _PAD_DIVISOR
            images = augment.crop_and_flip(key, images, pad=pad, flip=spec.flip)
        return to_inputs(images)

    return prepare
