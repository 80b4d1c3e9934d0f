"""Thresholding, averaging, a single sample, and what a selection is summarised to."""

import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP, EdgePopup, Magnitude, Masked
from aslp_jax._tree import split_by_name
from aslp_jax.data import augment
from aslp_jax.evaluate import (
    evaluate,
    evaluate_batches,
    score,
    score_batches,
    summarise,
)
from aslp_jax.models import ConvNet

NET = ConvNet(stages=(), classes=3, hidden=(8,))  # dense layers compile sooner
METHOD = ASLP()
MODEL = Masked(NET, METHOD)
OPTIONS = {"model": MODEL, "prepare": augment.to_float}


@pytest.fixture(scope="module")
def trained(key):
    """Weights, random logits, and 50 images with labels."""
    variables = jax.jit(MODEL.init)(key, jnp.zeros((1, 8, 8, 1)))
    params = variables["params"]
    params["logits"] = {
        name: jax.random.normal(each, params["logits"][name].shape)
        for name, each in split_by_name(key, params["logits"]).items()
    }
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (50, 8, 8, 1)).astype(np.uint8))
    labels = jnp.asarray(rng.integers(0, 3, 50).astype(np.int32))
    return variables, images, labels


@jax.jit
def logits_by_hand(variables, images, key):
    weights = METHOD.effective_weights(
        variables["frozen"], variables["params"], key=key
    )
    return NET.apply({"params": weights}, jnp.asarray(images, jnp.float32) / 255)


def by_hand(variables, images, labels, key=None):
    logits = np.asarray(logits_by_hand(variables, images, key), np.float64)
    top = logits.max(1, keepdims=True)
    log_sum = np.log(np.exp(logits - top).sum(1)) + top[:, 0]
    loss = log_sum - logits[np.arange(len(labels)), labels]
    return (logits.argmax(1) == np.asarray(labels)).mean(), loss.mean()


@pytest.mark.parametrize("batch_size", [7, 50, 250])
def test_the_score_is_that_of_all_images_at_once(trained, batch_size):
    accuracy, loss = score(*trained, batch_size=batch_size, **OPTIONS)
    expected = by_hand(*trained)
    np.testing.assert_allclose((accuracy, loss), expected, rtol=1e-5)


def test_a_key_scores_one_drawn_network(trained, key):
    got = score(*trained, key, **OPTIONS)
    np.testing.assert_allclose(got, by_hand(*trained, key), rtol=1e-5)
    assert got[1] != score(*trained, **OPTIONS)[1]


def test_one_call_evaluates_in_every_way(trained, key):
    result = evaluate(*trained, key, samples=4, **OPTIONS)
    accuracy, loss = by_hand(*trained)
    drawn = [by_hand(*trained, each)[0] for each in jax.random.split(key, 4)]
    assert len(set(drawn)) > 1
    np.testing.assert_allclose(
        result,
        (accuracy, np.mean(drawn), np.std(drawn, ddof=1), drawn[0], loss, np.nan),
        rtol=1e-5,
    )
    assert all(type(value) is float for value in result)


def test_batches_score_as_all_images_together(trained, key):
    variables, images, labels = trained
    # The last batch is filled up with images that have no label and do not count.
    batches = [
        (images[:20], labels[:20]),
        (images[20:40], labels[20:40]),
        (jnp.concatenate([images[40:], images[:10]]), labels[40:]),
    ]
    for each in (None, key):
        found = score_batches(variables, iter(batches), each, **OPTIONS)
        np.testing.assert_allclose(found, score(*trained, each, **OPTIONS), rtol=1e-6)
    found = evaluate_batches(variables, iter(batches), key, samples=3, **OPTIONS)
    whole = evaluate(*trained, key, samples=3, **OPTIONS)
    np.testing.assert_allclose(found, whole, rtol=1e-6)

    dense = {**OPTIONS, "model": Masked(NET, Magnitude(keep_fraction=0.3))}
    weights = jax.jit(dense["model"].init)(key, jnp.zeros((1, 8, 8, 1)))
    found = evaluate_batches(weights, iter(batches), key, **dense)
    whole = evaluate(weights, images, labels, key, **dense)
    assert whole.pruning_change > 0.1
    np.testing.assert_allclose(found, whole, rtol=1e-5)


def test_no_batch_and_no_image_are_one_clear_error(trained, key):
    variables, images, labels = trained
    empty = [(images[:20], labels[:20]), (images[:0], labels[:0])]
    for batches, words in (([], "there is no batch"), (empty, "a batch has no label")):
        with pytest.raises(ValueError, match=f"^score_batches: {words}; expected at"):
            score_batches(variables, batches, **OPTIONS)
        with pytest.raises(ValueError, match=f"^evaluate: {words}; expected at least"):
            evaluate_batches(variables, iter(batches), key, samples=1, **OPTIONS)
    with pytest.raises(ValueError, match=r"^evaluate: a batch has no label"):
        evaluate(variables, images[:0], labels[:0], key, samples=1, **OPTIONS)


@pytest.mark.slow
def test_pruning_changes_the_outputs_of_a_network_that_trains_dense(trained, key):
    _, images, labels = trained
    model = Masked(NET, Magnitude(keep_fraction=0.3))
    variables = jax.jit(model.init)(key, jnp.zeros((1, 8, 8, 1)))
    options = {"model": model, "prepare": augment.to_float}
    result = evaluate(variables, images, labels, key, **options)

    @jax.jit
    def dense_and_pruned(variables, images):
        images = augment.to_float(images)
        dense = model.apply(variables, images, sample=True, rngs={"mask": key})
        return dense, model.apply(variables, images)

    dense, pruned = (
        np.asarray(logits, np.float64) for logits in dense_and_pruned(variables, images)
    )
    change = np.linalg.norm(pruned - dense) / np.linalg.norm(dense)
    assert change > 0.1
    np.testing.assert_allclose(result.pruning_change, change, rtol=1e-5)
    for value, logits in (
        (result.averaging_mean, dense),
        (result.thresholding, pruned),
    ):
        accuracy = np.mean(logits.argmax(1) == labels)
        np.testing.assert_allclose(value, accuracy, rtol=1e-6)
    assert result.single == result.averaging_mean and result.averaging_std == 0
    # If all weights are kept nothing changes, even if the outputs are 0.
    model = Masked(NET, Magnitude(keep_fraction=1.0))
    nothing = jax.tree.map(jnp.zeros_like, variables)
    nothing["frozen"] = jax.tree.map(jnp.ones_like, variables["frozen"])
    options["model"] = model
    assert evaluate(nothing, images, labels, key, **options).pruning_change == 0


def test_a_single_sample_has_no_spread(trained, key):
    result = evaluate(*trained, key, samples=1, **OPTIONS)
    assert result.averaging_std == 0
    assert result.averaging_mean == result.single


class Counted(EdgePopup):
    """Edge-popup that notes each call of `effective_weights`, True with a key."""

    seen: ClassVar[list] = []

    def effective_weights(self, frozen, params, *, key=None):
        jax.debug.callback(self.seen.append, key is not None)
        return super().effective_weights(frozen, params, key=key)


@pytest.mark.slow
def test_a_method_that_does_not_sample_is_scored_once(trained, key):
    _, images, labels = trained
    model = Masked(NET, Counted())
    variables = jax.jit(model.init)(key, jnp.zeros((1, 8, 8, 1)))
    jax.effects_barrier()
    Counted.seen.clear()
    options = {"model": model, "prepare": augment.to_float}
    result = evaluate(variables, images, labels, key, samples=10, **options)
    jax.effects_barrier()
    assert [bool(drawn) for drawn in Counted.seen] == [False]

    @jax.jit
    def deterministic(frozen, params):
        weights = EdgePopup().effective_weights(frozen, params)
        return NET.apply({"params": weights}, augment.to_float(images))

    logits = deterministic(variables["frozen"], variables["params"])
    accuracy = np.mean(logits.argmax(1) == labels)
    np.testing.assert_allclose(result.thresholding, accuracy, rtol=1e-6)
    assert 0 < result.thresholding < 1
    assert result.averaging_mean == result.single == result.thresholding
    assert result.averaging_std == result.pruning_change == 0
    assert all(type(value) is float for value in result)


@pytest.mark.parametrize("samples", [0, -1])
def test_no_sample_is_refused_where_nothing_is_drawn_either(trained, key, samples):
    options = {"model": Masked(NET, EdgePopup()), "prepare": augment.to_float}
    with pytest.raises(ValueError, match=f"samples must be at least 1, got {samples}"):
        evaluate(*trained, key, samples=samples, **options)


def test_no_sample_is_refused(trained, key):
    with pytest.raises(ValueError, match="samples must be at least 1, got 0"):
        evaluate(*trained, key, samples=0, **OPTIONS)


def test_a_selection_is_summarised(key):
    masks = {"a": jnp.array([True, True, False, False]), "b": jnp.array([True] * 12)}
    previous = {"a": jnp.array([True, False, False, True]), "b": jnp.array([True] * 12)}
    params = {
        "logits": {"a": jnp.zeros(4), "b": jnp.zeros(12)},
        "scale": {"a": jnp.float32(2.0), "b": jnp.float32(3.0)},
    }
    got = jax.jit(summarise)(masks, previous, params)
    assert got.keep_fraction == 14 / 16
    assert {name: float(value) for name, value in got.by_layer.items()} == {
        "a": 0.5,
        "b": 1.0,
    }
    assert got.flip_rate == 2 / 16
    assert list(got.scalars) == ["scale"]
    assert jax.tree.map(float, got.scalars["scale"]) == {"a": 2.0, "b": 3.0}


def test_images_that_repeat_to_fill_a_batch_do_not_count_twice(trained):
    variables, images, labels = trained
    run = functools.partial(score, variables, **OPTIONS)
    # 49 right or wrong and a last one that must weigh 1/50, not 14/50.
    accuracies = [
        float(run(images, labels.at[-1].set(label), batch_size=32)[0])
        for label in range(3)
    ]
    assert max(accuracies) - min(accuracies) == pytest.approx(1 / 50)
