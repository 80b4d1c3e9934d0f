"""What the benchmarks train: the paper's networks and recipe, on random images."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aslp_jax import ASLP, Masked, models, optim, train
from aslp_jax.data import augment
from aslp_jax.data.augment import to_float
from aslp_jax.methods import Method
from aslp_jax.models import initialisers
from aslp_jax.ops.convolution import conv_in_loop
from benchmarks.timing import Side

EPOCH = 45_000
"""Images of an epoch: CIFAR-10 less its validation images."""

BATCH_SIZE = 256
STEPS = EPOCH // BATCH_SIZE
SIDE = 32
_IMAGE = jax.ShapeDtypeStruct((1, SIDE, SIDE, 3), jnp.float32)

MICRO_BATCH = 64
"""Images that a CPU takes at once: their activations stay in its cache."""


def random_images(count: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 `[count, side, side, 3]` and int32 `[count]`, always the same."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return images, rng.integers(0, 10, count, dtype=np.int32)


def network(arch: str, *, width: int = 1, dtype: Any = jnp.float32) -> Any:
    """Returns a network of the paper with signed constants, for ten classes.

    Args:
      arch: its name.
      width: of what, times so many, its layers are wide.
      dtype: of the computation.
    """
    constant = initialisers.signed_constant(initialisers.kaiming_normal())
    net: Any = models.NETWORKS[arch](
        classes=10,
        conv_init=constant,
        dense_init=constant,
        conv_general_dilated=conv_in_loop if _on_cpu() else None,
        dtype=dtype,
    )
    if width == 1:
        return net
    return net.clone(
        stages=tuple(width * channels for channels in net.stages),
        hidden=tuple(width * units for units in net.hidden),
    )


def kernels(net: Any) -> Any:
    """Returns shapes and dtypes of a network's weights."""
    return jax.eval_shape(net.init, jax.random.key(0), _IMAGE)


def flops(net: Any) -> float:
    """Returns the floating point operations of a training step, an image.

    Those of the forward pass as XLA counts them, and twice as many backwards.
    """
    # On one image: what a CPU does instead of a convolution would count otherwise.
    plain = net.clone(conv_general_dilated=None)
    forward = jax.jit(plain.apply).lower(kernels(plain), _IMAGE)
    counted: Any = forward.cost_analysis()
    return 3 * counted["flops"]


def sgd() -> optax.GradientTransformation:
    """Returns the paper's optimiser, with a rate for weights where they are trained."""
    return optim.sgd_by_group(
        {"logits": 50.0, "scale": 1e-3, "weights": 1e-3}, momentum=0.9
    )


def augmented(key: jax.Array, images: jax.Array) -> jax.Array:
    """Crops, flips and scales pixels to [0, 1]."""
    return to_float(augment.crop_and_flip(key, images))


def plain(key: jax.Array, images: jax.Array) -> jax.Array:
    """Scales pixels to [0, 1]."""
    return to_float(images)


def training(
    net: Any,
    *,
    method: Method | None = None,
    prepare: Callable[[jax.Array, jax.Array], jax.Array] = plain,
    batch_size: int = BATCH_SIZE,
    micro_batch: int | None = None,
    **options: Any,
) -> tuple[Any, Callable[[], train.TrainState]]:
    """Returns the compiled steps of a network, and what makes the state at their start.

    Args:
      net: the plain network.
      method: how weights are selected; None is ASLP with smart rescale.
      prepare: from key and uint8 images to the network's inputs.
      batch_size: images a step.
      micro_batch: images a forward pass; None is what suits the device.
      **options: of `train.compile_steps`.
    """
    if micro_batch is None and _on_cpu():
        micro_batch = min(batch_size, MICRO_BATCH)
    model, optimiser = Masked(net, ASLP() if method is None else method), sgd()
    program = train.compile_steps(
        batch_size=batch_size,
        prepare=prepare,
        model=model,
        optimiser=optimiser,
        micro_batch=micro_batch,
        **options,
    )
    inputs = jnp.zeros(_IMAGE.shape)
    create = functools.partial(train.create, model, optimiser, inputs=inputs)
    return program, lambda: jax.jit(create)(jax.random.key(0))


def side(
    program: Callable[..., Any],
    state: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    steps: int,
) -> Side:
    """Returns what takes `steps` steps with a program of `training`.

    Args:
      program: the compiled steps.
      state: to start from; it is used up.
      images: uint8, `steps` batches of them or more.
      labels: int32.
      steps: of a turn.

    Raises:
      RuntimeError: (in a turn) the loss became infinite or NaN, which ends the steps
        early: the time would be that of nothing.
    """
    totals, expected = train.Totals.zeros(), 0
    data = jax.device_put((images, labels))

    def run() -> None:
        nonlocal state, totals, expected
        state, totals = program(state, totals, *data, *key_and_bounds(steps))
        expected += steps
        if int(totals.steps) != expected:
            raise RuntimeError(f"the loss was not finite after step {totals.steps}")

    return run


def key_and_bounds(steps: int) -> tuple[Any, ...]:
    """Returns the last arguments of the compiled steps: key, epoch, start and stop."""
    bounds = (jnp.asarray(number, jnp.int32) for number in (0, 0, steps))
    return (jax.random.key(0), *bounds)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"
