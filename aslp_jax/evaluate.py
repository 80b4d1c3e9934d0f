"""Accuracy and loss of trained networks: thresholded, averaged, one sample.

The file is long because each function states shapes, units and ranges of all that it
takes and returns.
"""

import functools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aslp_jax import _sharding, functional
from aslp_jax._checks import single_key
from aslp_jax._tree import by_name
from aslp_jax.masked import FROZEN, PARAMS, Masked
from aslp_jax.methods import Method

__all__ = [
    "Evaluation",
    "Selection",
    "effective_weights",
    "evaluate",
    "evaluate_batches",
    "outputs",
    "run",
    "score",
    "score_batches",
    "summarise",
]


class Evaluation(NamedTuple):
    """Accuracies in [0, 1] and loss on one set of images.

    Attributes:
      thresholding: accuracy of the deterministic network.
      averaging_mean: mean accuracy of the sampled networks. For methods that do not
        sample: accuracy of the network that was trained, before pruning.
      averaging_std: standard deviation of these accuracies (n - 1 in the denominator;
        0 for n = 1).
      single: accuracy of the first sampled network.
      loss: mean cross-entropy of the deterministic network, in nats.
      pruning_change: change of the outputs by pruning, as the norm of the difference
        over the norm before, all images together. 0 for methods that train the network
        they keep, NaN for methods that sample.
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
    model: Masked | functional.Model,
    prepare: Callable[[jax.Array], jax.Array],
    batch_size: int = 250,
) -> tuple[jax.Array, jax.Array]:
    """Returns the accuracy and the loss of one network.

    Args:
      variables: variables of the model, from its `init` or from a train state.
      images: uint8 `[examples, ...]`, at least one.
      labels: int32 `[examples]`.
      key: PRNG key of one sampled network; None (default) takes the deterministic one.
      model: network and method; the network runs in evaluation mode.
      prepare: function from uint8 images to the inputs of the network. The same object
        in every call, as a new one is compiled again.
      batch_size: images a forward pass, default 250. It limits memory and does not
        change the result.

    Returns:
      Accuracy in [0, 1] and mean cross-entropy in nats, float32 scalars.
    """
    logits = outputs(
        variables, images, key, model=model, prepare=prepare, batch_size=batch_size
    )
    return _grade(logits, labels)


def outputs(
    variables: Mapping[str, Any],
    images: jax.Array,
    key: jax.Array | None = None,
    *,
    model: Masked | functional.Model,
    prepare: Callable[[jax.Array], jax.Array],
    batch_size: int = 250,
) -> jax.Array:
    """Returns the logits of one network for each image.

    One compiled program computes the effective weights and another runs the network, so
    that the second serves every method, sampled or not.

    Args:
      variables: variables of the model, from its `init` or from a train state.
      images: uint8 `[examples, ...]`, at least one.
      key: PRNG key of one sampled network; None (default) takes the deterministic one.
      model: network and method; the network runs in evaluation mode.
      prepare: function from uint8 images to the inputs of the network. The same object
        in every call, as a new one is compiled again.
      batch_size: images a forward pass, default 250. It limits memory and does not
        change the result.

    Returns:
      Logits `[examples, classes]`.
    """
    if key is not None:
        key = single_key("evaluate.outputs", key)
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
    """Returns `method.effective_weights(...)`, compiled once for all callers.

    Args:
      frozen: frozen arrays.
      params: trained arrays, by group.
      key: PRNG key of one sampled network; None takes the deterministic one.
      method: method that selects the weights.

    Returns:
      Pytree of the weights that the plain network runs on.
    """
    return method.effective_weights(frozen, params, key=key)


def run(
    variables: Mapping[str, Any],
    images: jax.Array,
    *,
    net: Any,
    prepare: Callable[[jax.Array], jax.Array],
    batch_size: int = 250,
) -> jax.Array:
    """Returns the logits of a plain network for each image.

    Args:
      variables: `{"params": weights, **collections}`.
      images: `[examples, ...]`, at least one.
      net: network, in any form that `functional.network` takes; it runs in evaluation
        mode.
      prepare: function from images to the inputs of the network. The same object in
        every call, as a new one is compiled again.
      batch_size: images a forward pass, default 250. It limits memory and does not
        change the result.

    Returns:
      Logits `[examples, classes]`.
    """
    size = min(batch_size, images.shape[0])
    plain = functional.network(net)
    return _run(variables, images, net=plain, prepare=prepare, batch_size=size)


@functools.partial(jax.jit, static_argnames=("net", "prepare", "batch_size"))
def _run(variables, images, *, net, prepare, batch_size):
    images, examples = _sharding.replicated(images), images.shape[0]
    batches = -(-examples // batch_size)
    # The last batch repeats the last example until it is full.
    index = jnp.arange(batches * batch_size, dtype=jnp.int32)
    rows = jnp.minimum(index, examples - 1).reshape(batches, batch_size)
    collections = dict(variables)
    weights = collections.pop("params")
    logits = jax.lax.map(
        lambda rows: net.apply(weights, collections, prepare(images[rows]))[0], rows
    )
    return logits.reshape(batches * batch_size, *logits.shape[2:])[:examples]


@jax.jit
def _grade(logits: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the accuracy and the mean cross-entropy of logits."""
    logits, labels = _sharding.replicated(logits), _sharding.replicated(labels)
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    right = jnp.argmax(logits, -1).astype(labels.dtype) == labels
    return jnp.mean(right, dtype=jnp.float32), jnp.mean(loss, dtype=jnp.float32)


def evaluate(
    variables: Mapping[str, Any],
    images: jax.Array,
    labels: jax.Array,
    key: jax.Array,
    *,
    model: Masked | functional.Model,
    prepare: Callable[[jax.Array], jax.Array],
    samples: int = 10,
    batch_size: int = 250,
) -> Evaluation:
    """Evaluates the deterministic network and several sampled ones.

    For methods that do not sample, the trained network replaces the sampled ones.

    Args:
      variables: variables of the model, from its `init` or from a train state.
      images: uint8 `[examples, ...]`, at least one.
      labels: int32 `[examples]`.
      key: PRNG key of the sampled networks.
      model: network and method; the network runs in evaluation mode.
      prepare: function from uint8 images to the inputs of the network. The same object
        in every call, as a new one is compiled again.
      samples: number of networks to sample, at least 1, default 10.
      batch_size: images a forward pass, default 250.

    Returns:
      Accuracies and loss, as floats on the host.

    Raises:
      TypeError: `key` is no PRNG key.
      ValueError: `samples` is below 1, or `key` is an array of keys.

    Source: Dupont et al. 2022, section 3.2 (thresholding; averaging over 10).
    """
    return evaluate_batches(
        variables,
        [(images, labels)],
        key,
        model=model,
        prepare=prepare,
        samples=samples,
        batch_size=batch_size,
    )


def evaluate_batches(
    variables: Mapping[str, Any],
    batches: Iterable[tuple[jax.Array, jax.Array]],
    key: jax.Array,
    *,
    model: Masked | functional.Model,
    prepare: Callable[[jax.Array], jax.Array],
    samples: int = 10,
    batch_size: int = 250,
) -> Evaluation:
    """Evaluates as `evaluate` does, on images that come in batches.

    Each batch is read once, for all networks. The result is that of `evaluate` on all
    images together, up to rounding.

    Args:
      variables: variables of the model, from its `init` or from a train state.
      batches: images and labels as `evaluate` takes them, at least one batch. A batch
        may have more images than labels; images behind the labels do not count.
      key: PRNG key of the sampled networks.
      model: network and method; the network runs in evaluation mode.
      prepare: function from uint8 images to the inputs of the network. The same object
        in every call, as a new one is compiled again.
      samples: number of networks to sample, at least 1, default 10.
      batch_size: images a forward pass, default 250.

    Returns:
      Accuracies and loss, as floats on the host.

    Raises:
      TypeError: `key` is no PRNG key.
      ValueError: `samples` is below 1, `key` is an array of keys, there is no batch, or
        a batch has no label.
    """
    if samples < 1:
        raise ValueError(f"evaluate: samples must be at least 1, got {samples}")
    key, method = single_key("evaluate", key), model.method
    keys: list[jax.Array] = []
    if method.stochastic:
        keys = list(jax.random.split(key, samples))
    elif method.trains_dense:
        keys = [key]

    def grade(images: jax.Array, labels: jax.Array) -> Any:
        logits = [
            outputs(
                variables,
                images,
                k,
                model=model,
                prepare=prepare,
                batch_size=batch_size,
            )
            for k in (None, *keys)
        ]
        count = labels.shape[0]
        if images.shape[0] > count:
            logits = [each[:count] for each in logits]
        accuracies, losses = zip(
            *(_grade(each, labels) for each in logits), strict=True
        )
        norms = _norms(logits[0], logits[-1]) if method.trains_dense else ()
        return (accuracies, losses[0]), norms

    graded = [
        (len(labels), *parts) for labels, parts in _in_turn("evaluate", grade, batches)
    ]
    counts = np.array([count for count, *_ in graded], np.float64)
    accuracies, loss = jax.tree.map(
        lambda *values: _mean(values, counts), *(means for _, means, _ in graded)
    )
    accuracy, *others = accuracies
    sampled = jnp.asarray(np.array(others or [accuracy], np.float32))
    change = math.nan if method.stochastic else 0.0
    if not method.stochastic and method.trains_dense:
        change = _relative_change([norms for *_, norms in graded])
    return Evaluation(
        thresholding=float(accuracy),
        averaging_mean=float(sampled.mean()),
        averaging_std=float(sampled.std(ddof=1)) if sampled.size > 1 else 0.0,
        single=float(sampled[0]),
        loss=float(loss),
        pruning_change=change,
    )


def score_batches(
    variables: Mapping[str, Any],
    batches: Iterable[tuple[jax.Array, jax.Array]],
    key: jax.Array | None = None,
    *,
    model: Masked | functional.Model,
    prepare: Callable[[jax.Array], jax.Array],
    batch_size: int = 250,
) -> tuple[float, float]:
    """Returns the accuracy and the loss of one network on images in batches.

    Args:
      variables: variables of the model, from its `init` or from a train state.
      batches: images and labels, as `evaluate_batches` takes them.
      key: PRNG key of one sampled network; None (default) takes the deterministic one.
      model: network and method; the network runs in evaluation mode.
      prepare: function from uint8 images to the inputs of the network. The same object
        in every call, as a new one is compiled again.
      batch_size: images a forward pass, default 250.

    Returns:
      Accuracy in [0, 1] and mean cross-entropy in nats.

    Raises:
      ValueError: there is no batch, or a batch has no label.
    """

    def grade(images: jax.Array, labels: jax.Array) -> Any:
        logits = outputs(
            variables, images, key, model=model, prepare=prepare, batch_size=batch_size
        )
        return _grade(logits[: labels.shape[0]], labels)

    graded = [
        (len(labels), parts)
        for labels, parts in _in_turn("score_batches", grade, batches)
    ]
    counts = np.array([count for count, _ in graded], np.float64)
    accuracy, loss = (
        float(_mean(values, counts))
        for values in zip(*(parts for _, parts in graded), strict=True)
    )
    return accuracy, loss


def _in_turn(
    name: str,
    grade: Callable[[jax.Array, jax.Array], Any],
    batches: Iterable[tuple[jax.Array, jax.Array]],
) -> Iterator[tuple[jax.Array, Any]]:
    """Yields the labels and, on the host, the grades of each batch.

    While the device computes one batch, the next is read. More would fill the device.
    """
    waiting: list[tuple[jax.Array, Any]] = []
    for images, labels in batches:
        if labels.shape[0] == 0:
            raise ValueError(f"{name}: a batch has no label; expected at least one")
        for before, grades in waiting:
            yield before, jax.device_get(grades)
        waiting = [(labels, grade(images, labels))]
    if not waiting:
        raise ValueError(f"{name}: there is no batch; expected at least one")
    for before, grades in waiting:
        yield before, jax.device_get(grades)


def _mean(values: Sequence[Any], counts: np.ndarray) -> np.float32:
    """Returns the weighted mean of float32 values; of one value, that value."""
    return np.float32(np.sum(np.array(values, np.float64) * counts) / counts.sum())


@jax.jit
def _norms(new: jax.Array, old: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns the norm of the change and the norm before."""
    wide = old.astype(jnp.float32)
    return jnp.linalg.norm(new.astype(jnp.float32) - wide), jnp.linalg.norm(wide)


def _relative_change(norms: Sequence[Any]) -> float:
    """Returns the norm of the change over the norm before; 0 if nothing changes."""
    squares = np.square(np.array(norms, np.float64)).sum(0)
    change, before = np.sqrt(squares).astype(np.float32)
    with np.errstate(divide="ignore"):
        return 0.0 if change == 0 else float(change / before)


class Selection(NamedTuple):
    """Summary of the weights that the deterministic network keeps.

    Attributes:
      keep_fraction: fraction kept of all masked weights, in [0, 1].
      by_layer: fraction kept of each masked weight array, in [0, 1], by name.
      flip_rate: fraction of all masked weights whose mask differs from the previous
        one, in [0, 1].
      scalars: trained scalars (scales), by group and name.
    """

    keep_fraction: jax.Array
    by_layer: dict[str, jax.Array]
    flip_rate: jax.Array
    scalars: dict[str, dict[str, jax.Array]]


def summarise(
    masks: Mapping[str, jax.Array], previous: Mapping[str, jax.Array], params: Any
) -> Selection:
    """Summarises masks in a few numbers; can be jitted.

    Args:
      masks: bool masks by name, from the `masks` of a method.
      previous: masks of an earlier state, to compare with.
      params: trained arrays, by group.

    Returns:
      Fractions in [0, 1] and the trained scalars.
    """
    sizes = {name: max(1, mask.size) for name, mask in masks.items()}
    size = max(1, sum(mask.size for mask in masks.values()))
    kept = {name: jnp.sum(mask, dtype=jnp.int32) for name, mask in masks.items()}
    flipped = [
        jnp.sum(mask != previous[name], dtype=jnp.int32) for name, mask in masks.items()
    ]
    return Selection(
        keep_fraction=jnp.asarray(sum(kept.values()) / size),
        by_layer={name: kept[name] / sizes[name] for name in masks},
        flip_rate=jnp.asarray(sum(flipped) / size),
        scalars={
            group: by_name(leaves)
            for group, leaves in params.items()
            if all(jnp.ndim(leaf) == 0 for leaf in jax.tree.leaves(leaves))
        },
    )
