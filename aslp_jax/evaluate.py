"""How good is what was learnt: thresholding, averaging, a single sample."""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from aslp_jax.masked import FROZEN, PARAMS, Masked
from aslp_jax.methods import Method


class Evaluation(NamedTuple):
    """Accuracies in [0, 1] of one set of images.

    Attributes:
      thresholding: of the one deterministic network.
      averaging_mean: mean over drawn networks; of the one that is trained, before what
        is not kept is cut off, where a method draws none.
      averaging_std: their standard deviation (n - 1 in the denominator; 0 for n = 1).
      single: of the first of them.
      loss: mean cross-entropy of the deterministic network, in nats.
      pruning_change: by how much cutting off what is not kept changes the outputs,
        as the norm of the change over that of the outputs before, all images together;
        0 where a method trains the network that it keeps, NaN where it draws many.
    """

    thresholding: float
    averaging_mean: float
    averaging_std: float
    single: float
    loss: float
    pruning_change: float


def score(
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array | None = None,
    *,
    model: Masked,
    prepare: Callable[[jax.Array], jax.Array],
    batch_size: int = 250,
) -> tuple[jax.Array, jax.Array]:
    """Returns accuracy and loss of one network.

    Args:
      variables: of the model, as its `init` or a train state gives them.
      images: uint8 `[examples, ...]`, at least one.
      labels: int32 `[examples]`.
      key: PRNG key of a drawn network; None takes the deterministic one.
      model: the network and its method; the network is called with `train=False`.
      prepare: from uint8 images to the network's inputs, the same for every call.
      batch_size: examples a forward pass; bounds the memory, never the result.

    Returns:
      Accuracy in [0, 1] and mean cross-entropy in nats, float32 scalars.
    """
    found = outputs(
        variables, images, key, model=model, prepare=prepare, batch_size=batch_size
    )
    return _grade(found, labels)


def outputs(
    variables: Mapping[str, Any],
    images: jax.Array,
    key: jax.Array | None = None,
    *,
    model: Masked,
    prepare: Callable[[jax.Array], jax.Array],
    batch_size: int = 250,
) -> jax.Array:
    """Returns what one network makes of each image.

    The network is realised by one compiled program and run on the images by another,
    which serves every method and both kinds of network.

    Args:
      variables: of the model, as its `init` or a train state gives them.
      images: uint8 `[examples, ...]`, at least one.
      key: PRNG key of a drawn network; None takes the deterministic one.
      model: the network and its method; the network is called with `train=False`.
      prepare: from uint8 images to the network's inputs, the same for every call.
      batch_size: examples a forward pass; bounds the memory, never the result.

    Returns:
      The network's logits, `[examples, classes]`.
    """
    collections = dict(variables)
    weights = effective_weights(
        collections.pop(FROZEN, {}), collections.pop(PARAMS), key, method=model.method
    )
    return run(
        {"params": weights, **collections},
        images,
        net=model.net,
        prepare=prepare,
        batch_size=batch_size,
    )


@functools.partial(jax.jit, static_argnames=("method",))
def effective_weights(
    frozen: Any, params: Any, key: jax.Array | None, *, method: Method
) -> Any:
    """Returns what `method.effective_weights` does, compiled once for every use."""
    return method.effective_weights(frozen, params, key=key)


def run(
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    net: nn.Module,
    prepare: Callable[[jax.Array], jax.Array],
    batch_size: int = 250,
) -> jax.Array:
    """Returns what a plain network makes of each image.

    Args:
      variables: of the network.
      images: `[examples, ...]`, at least one.
      net: called with `train=False`.
      prepare: from images to the network's inputs, the same for every call.
      batch_size: examples a forward pass; bounds the memory, never the result.

    Returns:
      The network's logits, `[examples, classes]`.
    """
    size = min(batch_size, images.shape[0])
    return _run(variables, images, net=net, prepare=prepare, batch_size=size)


@functools.partial(jax.jit, static_argnames=("net", "prepare", "batch_size"))
def _run(variables, images, *, net, prepare, batch_size):
    examples = images.shape[0]
    batches = -(-examples // batch_size)
    # The last batch is filled up with the last example.
    index = jnp.arange(batches * batch_size, dtype=jnp.int32)
    rows = jnp.minimum(index, examples - 1).reshape(batches, batch_size)
    found = jax.lax.map(
        lambda rows: net.apply(variables, prepare(images[rows]), train=False), rows
    )
    return found.reshape(batches * batch_size, *found.shape[2:])[:examples]


@jax.jit
def _grade(found: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Accuracy and mean cross-entropy of logits."""
    loss = optax.softmax_cross_entropy_with_integer_labels(found, labels)
    right = jnp.argmax(found, -1).astype(labels.dtype) == labels
    return jnp.mean(right, dtype=jnp.float32), jnp.mean(loss, dtype=jnp.float32)


def evaluate(
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    *,
    model: Masked,
    prepare: Callable[[jax.Array], jax.Array],
    samples: int = 10,
    batch_size: int = 250,
) -> Evaluation:
    """Evaluates the deterministic network and several drawn ones.

    Where the method draws nothing, the network that it trains stands for drawn ones.

    Args:
      variables: of the model, as its `init` or a train state gives them.
      images: uint8 `[examples, ...]`.
      labels: int32 `[examples]`.
      key: PRNG key of the drawn networks.
      model: the network and its method; the network is called with `train=False`.
      prepare: from uint8 images to the network's inputs, the same for every call.
      samples: how many networks to draw, at least 1.
      batch_size: examples a forward pass.

    Returns:
      The accuracies, as floats on the host.

    Raises:
      ValueError: `samples` is below 1.

    Source: Dupont et al. 2022, section 3.2 (thresholding; averaging over 10).
    """
    if samples < 1:
        raise ValueError(f"evaluate: samples must be at least 1, got {samples}")
    logits_of = functools.partial(
        outputs,
        variables,
        images,
        model=model,
        prepare=prepare,
        batch_size=batch_size,
    )
    deterministic, method = logits_of(), model.method
    accuracy, loss = _grade(deterministic, labels)
    drawn, change = accuracy[None], 0.0
    if method.stochastic:
        keys = jax.random.split(key, samples)
        drawn = jnp.stack([_grade(logits_of(key=subkey), labels)[0] for subkey in keys])
        change = math.nan
    elif method.trains_dense:
        whole = logits_of(key=key)
        drawn = _grade(whole, labels)[0][None]
        change = float(_change(deterministic, whole))
    return Evaluation(
        thresholding=float(accuracy),
        averaging_mean=float(drawn.mean()),
        averaging_std=float(drawn.std(ddof=1)) if drawn.size > 1 else 0.0,
        single=float(drawn[0]),
        loss=float(loss),
        pruning_change=change,
    )


@jax.jit
def _change(new: jax.Array, old: jax.Array) -> jax.Array:
    """Norm of the change over the norm before; 0 where nothing changes."""
    wide = old.astype(jnp.float32)
    norm = jnp.linalg.norm(new.astype(jnp.float32) - wide)
    return jnp.where(norm == 0, jnp.zeros(()), norm / jnp.linalg.norm(wide))


class Selection(NamedTuple):
    """What the deterministic network keeps.

    Attributes:
      keep_fraction: over all masked weights.
      by_layer: the same for each masked weight array, by name.
      flip_rate: fraction of the masks that differ from the ones compared with.
      scalars: the learnt scalars (scales) by group and name.
    """

    keep_fraction: jax.Array
    by_layer: dict[str, jax.Array]
    flip_rate: jax.Array
    scalars: dict[str, dict[str, jax.Array]]


def summarise(
    masks: Mapping[str, jax.Array], previous: Mapping[str, jax.Array], params: Any
) -> Selection:
    """Summarises a selection in a few numbers, jittable.

    Args:
      masks: bool masks by name, as a method's `masks` returns them.
      previous: masks to compare with, of an earlier state.
      params: what is learnt, by group.

    Returns:
      Fractions in [0, 1] and the learnt scalars.
    """
    size = sum(mask.size for mask in masks.values())
    kept = {name: jnp.sum(mask, dtype=jnp.int32) for name, mask in masks.items()}
    flipped = [
        jnp.sum(mask != previous[name], dtype=jnp.int32) for name, mask in masks.items()
    ]
    return Selection(
        keep_fraction=jnp.asarray(sum(kept.values()) / size),
        by_layer={name: kept[name] / mask.size for name, mask in masks.items()},
        flip_rate=jnp.asarray(sum(flipped) / size),
        scalars={
            group: dict(leaves)
            for group, leaves in params.items()
            if all(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(leaves))
        },
    )
