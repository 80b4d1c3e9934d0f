"""Accuracy and loss of trained networks: thresholded, averaged, one sample.

The file is long because each function states shapes, units and ranges of all that it
takes and returns.
"""

import functools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
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
    "outputs",
    "run",
    "score",
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
    if samples < 1:
        raise ValueError(f"evaluate: samples must be at least 1, got {samples}")
    key = single_key("evaluate", key)
    run_network = functools.partial(
        outputs,
        variables,
        images,
        model=model,
        prepare=prepare,
        batch_size=batch_size,
    )
    deterministic, method = run_network(), model.method
    accuracy, loss = _grade(deterministic, labels)
    sampled, change = accuracy[None], 0.0
    if method.stochastic:
        keys = jax.random.split(key, samples)
        sampled = jnp.stack([_grade(run_network(key=k), labels)[0] for k in keys])
        change = math.nan
    elif method.trains_dense:
        dense = run_network(key=key)
        sampled = _grade(dense, labels)[0][None]
        change = float(_relative_change(deterministic, dense))
    return Evaluation(
        thresholding=float(accuracy),
        averaging_mean=float(sampled.mean()),
        averaging_std=float(sampled.std(ddof=1)) if sampled.size > 1 else 0.0,
        single=float(sampled[0]),
        loss=float(loss),
        pruning_change=change,
    )


@jax.jit
def _relative_change(new: jax.Array, old: jax.Array) -> jax.Array:
    """Returns the norm of the change over the norm before; 0 if nothing changes."""
    wide = old.astype(jnp.float32)
    norm = jnp.linalg.norm(new.astype(jnp.float32) - wide)
    return jnp.where(norm == 0, jnp.zeros(()), norm / jnp.linalg.norm(wide))


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
