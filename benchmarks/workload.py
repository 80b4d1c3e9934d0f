"""Workload of the benchmarks: the paper's networks and optimiser, on random images."""

import functools
import math
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
"""Images of an epoch: CIFAR-10 without its validation images."""

BATCH_SIZE = 256
STEPS = EPOCH // BATCH_SIZE

SIDE = 32
"""Height and width of an image in pixels."""

MICRO_BATCH = 64
"""Images of one pass on a CPU; their activations stay in its cache."""


def random_images(count: int, side: int = SIDE) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 `[count, side, side, 3]` and int32 `[count]`, always the same."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, side, side, 3), dtype=np.uint8)
    return images, rng.integers(0, 10, count, dtype=np.int32)


def network(arch: str, *, width: int = 1, dtype: Any = jnp.float32) -> Any:
    """Returns a network of the paper with signed constants, for ten classes.

    Args:
      arch: name of the network.
      width: factor of every layer's width.
      dtype: dtype of the computation.
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


def kernels(net: Any, side: int = SIDE) -> Any:
    """Returns shapes and dtypes of a network's weights, for images of a size."""
    return jax.eval_shape(net.init, jax.random.key(0), _image(side))


def flops(net: Any, side: int = SIDE) -> float:
    """Returns the floating point operations of a training step for one image.

    Those of convolutions and matrix products, forwards, and twice as many backwards.
    They are counted in the traced network: XLA's own count leaves out what a GPU's
    libraries compute.
    """
    # With plain convolutions: on a CPU their replacement has another count.
    plain = net.clone(conv_general_dilated=None)
    traced = jax.make_jaxpr(plain.apply)(kernels(plain, side), _image(side))
    return 3.0 * _products(traced.jaxpr)


def _products(jaxpr: Any) -> int:
    """Returns the operations of all convolutions and matrix products of a trace."""
    found = 0
    for equation in jaxpr.eqns:
        for inner in jax.tree.leaves(
            list(equation.params.values()), is_leaf=lambda leaf: hasattr(leaf, "eqns")
        ):
            if hasattr(inner, "eqns"):
                found += _products(inner)
        name, parameters = equation.primitive.name, equation.params
        if name not in ("conv_general_dilated", "dot_general"):
            continue
        outputs, weights = equation.outvars[0].aval.size, equation.invars[1].aval
        if name == "dot_general":
            (_, contracted), _ = parameters["dimension_numbers"]
            sums = math.prod(weights.shape[axis] for axis in contracted)
        else:
            axis = parameters["dimension_numbers"].rhs_spec[0]
            sums = weights.size // weights.shape[axis]
        found += 2 * outputs * sums
    return found


def sgd() -> optax.GradientTransformation:
    """Returns the paper's optimiser, with a rate for trained weights too."""
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
    side: int = SIDE,
    **options: Any,
) -> tuple[Any, Callable[[], train.TrainState]]:
    """Returns the compiled steps of a network, and a function for their first state.

    Args:
      net: the plain network.
      method: method that selects weights; None is ASLP with smart rescale.
      prepare: function from key and uint8 images to the network's inputs.
      batch_size: images a step.
      micro_batch: images a forward pass; None suits the device.
      side: height and width of an image in pixels.
      **options: options of `train.compile_steps`.
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
    inputs = jnp.zeros(_image(side).shape)
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
    """Returns a side that takes `steps` steps with a program of `training`.

    Args:
      program: the compiled steps.
      state: state at the start; its buffers are donated.
      images: uint8 `[count, side, side, 3]`, at least `steps` batches.
      labels: int32 `[count]`.
      steps: steps of one call.

    Returns:
      The side. A call raises RuntimeError if the loss became infinite or NaN, because
      the steps then end early and the time means nothing.
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


def _image(side: int) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct((1, side, side, 3), jnp.float32)


def _on_cpu() -> bool:
    return jax.default_backend() == "cpu"
