"""How good is what was learnt: thresholding, averaging, a single sample."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from aslp_jax.masked import FROZEN, LEARNT, Masked
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
    """

    thresholding: float
    averaging_mean: float
    averaging_std: float
    single: float
    loss: float


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

    The network is realised by one compiled program and run on the images by another,
    which serves every method and both kinds of network.

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
    collections = dict(variables)
    weights = _realise(
        collections.pop(FROZEN, {}), collections.pop(LEARNT), key, method=model.method
    )
    return _score(
        {"params": weights, **collections},
        images,
        labels,
        net=model.net,
        prepare=prepare,
        batch_size=min(batch_size, labels.shape[0]),
    )


@functools.partial(jax.jit, static_argnames=("method",))
def _realise(frozen: Any, learnt: Any, key: jax.Array | None, *, method: Method) -> Any:
    return method.realise(frozen, learnt, key=key)


@functools.partial(jax.jit, static_argnames=("net", "prepare", "batch_size"))
def _score(variables, images, labels, *, net, prepare, batch_size):
    examples = labels.shape[0]
    batches = -(-examples // batch_size)
    index = jnp.arange(batches * batch_size, dtype=jnp.int32)

    def run(rows: jax.Array) -> tuple[jax.Array, jax.Array]:
        # The last batch is filled up with the last example, which then counts once.
        real = rows < examples
        rows = jnp.minimum(rows, examples - 1)
        inputs, truth = prepare(images[rows]), labels[rows]
        logits = net.apply(variables, inputs, train=False)
        loss = optax.softmax_cross_entropy_with_integer_labels(logits, truth)
        right = jnp.argmax(logits, -1).astype(truth.dtype) == truth
        return (
            jnp.sum(right & real, dtype=jnp.int32),
            jnp.sum(jnp.where(real, loss, 0)),
        )

    right, loss = jax.lax.map(run, index.reshape(batches, batch_size))
    return jnp.sum(right) / examples, jnp.sum(loss) / examples


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
    run = functools.partial(
        score,
        variables,
        images,
        labels,
        model=model,
        prepare=prepare,
        batch_size=batch_size,
    )
    accuracy, loss = run()
    method = model.method
    if not method.stochastic:
        samples = 1
        drawn = run(key=key)[0][None] if method.relaxed else accuracy[None]
    else:
        keys = jax.random.split(key, samples)
        drawn = jnp.stack([run(key=subkey)[0] for subkey in keys])
    return Evaluation(
        thresholding=float(accuracy),
        averaging_mean=float(drawn.mean()),
        averaging_std=float(drawn.std(ddof=1)) if samples > 1 else 0.0,
        single=float(drawn[0]),
        loss=float(loss),
    )


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
