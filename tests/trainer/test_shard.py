"""A state that is spread over the devices trains as one that lies on each of them."""

import dataclasses

import jax
import numpy as np
import pytest

from aslp_jax import _sharding
from aslp_jax.data import datasets
from aslp_jax.trainer import memory
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.run_state import Run

CONFIG = Config(dataset="digits", arch="conv2", batch_size=32, devices=4)
SPREAD = dataclasses.replace(CONFIG, shard="params")


@pytest.fixture(scope="module")
def digits() -> datasets.Dataset:
    whole = datasets.load("digits")
    return dataclasses.replace(
        whole,
        train_images=whole.train_images[:180],
        train_labels=whole.train_labels[:180],
        test_images=whole.test_images[:40],
        test_labels=whole.test_labels[:40],
        validation=20,
    )


def on_host(tree):
    return jax.tree.map(np.asarray, tree)


@pytest.fixture(scope="module")
def whole(digits) -> tuple[Run, dict, float]:
    """A run without, its first snapshot, and its training loss after three steps."""
    run = Run(CONFIG, digits)
    first = jax.device_get(run.snapshot())
    run.take_steps(3)
    run.account(3, 1.0)
    return run, first, float(run.totals.loss)


@pytest.fixture(scope="module")
def spread(digits) -> Run:
    """The same run before its first step, spread."""
    return Run(SPREAD, digits)


def test_the_longest_axis_that_can_be_divided_is_split():
    mesh = jax.make_mesh(
        (4,),
        ("batch",),
        axis_types=(jax.sharding.AxisType.Auto,),
        devices=jax.devices(),
    )
    shapes = {
        (3, 3, 64, 128): (3, 3, 64, 32),
        (3, 3, 128, 128): (3, 3, 128, 32),
        (8192, 10): (2048, 10),
        (1026, 8): (1026, 2),
        (3, 5): (3, 5),
        (): (),
    }
    leaves = [jax.ShapeDtypeStruct(shape, np.float32) for shape in shapes]
    found = _sharding.spread(leaves, mesh)
    parts = [
        each.shard_shape(leaf.shape) for each, leaf in zip(found, leaves, strict=True)
    ]
    assert parts == list(shapes.values())


def test_a_spread_run_begins_with_the_same_bits_in_parts(whole, spread):
    _, first, _ = whole
    state = spread.state
    for one, other in zip(
        jax.tree.leaves(first["state"]), jax.tree.leaves(state), strict=True
    ):
        np.testing.assert_array_equal(one, np.asarray(other))
    sizes = {leaf.size for leaf in jax.tree.leaves(state)}
    assert max(sizes) == 256 * 1024
    for leaf in jax.tree.leaves(state):
        part = leaf.addressable_shards[0].data.size
        assert part == (leaf.size if leaf.ndim == 0 else leaf.size // 4)


@pytest.mark.slow
def test_it_samples_the_same_masks_and_has_the_same_loss(whole, spread):
    run, _, loss = whole
    spread.take_steps(3)
    assert spread.account(3, 1.0) is None
    np.testing.assert_allclose(float(spread.totals.loss), loss, rtol=1e-5)
    assert int(spread.totals.correct) == int(run.totals.correct)
    masks = [
        on_host(each.programs.masks(each.state.frozen, each.state.params))
        for each in (run, spread)
    ]
    for name, mask in masks[0].items():
        np.testing.assert_array_equal(mask, masks[1][name])
    leaf = spread.state.params["logits"]["Dense_0/kernel"]
    assert leaf.addressable_shards[0].data.size == leaf.size // 4


@pytest.mark.slow
def test_it_validates_is_saved_and_goes_on_without(whole, spread, digits):
    run, first, _ = whole
    for each in (run, spread):
        each.restore(first)
        each.take_steps(2)
        each.account(2, 1.0)
    rows = [each.finish_epoch(1.0) for each in (run, spread)]
    assert rows[0].validation_accuracy == rows[1].validation_accuracy
    np.testing.assert_allclose(*(row.validation_loss for row in rows), rtol=1e-5)
    assert rows[0].keep_fractions == rows[1].keep_fractions
    saved = jax.device_get(spread.snapshot())
    again = Run(CONFIG, digits)
    again.restore(saved)
    for one, other in zip(
        jax.tree.leaves(saved["state"]), jax.tree.leaves(again.state), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    assert jax.tree.leaves(again.state)[-1].sharding.is_fully_replicated
    results = [
        each.images.evaluate(
            each.programs, each.place_scored(each.state.variables), each.test_key, 2
        )
        for each in (again, spread)
    ]
    np.testing.assert_allclose(*(result[:5] for result in results), rtol=1e-5)


@pytest.mark.slow
def test_the_memory_of_a_step_is_that_of_the_programs(whole, spread):
    run, _, _ = whole
    parts, copies = (memory.step_memory(spread, spread=each) for each in (True, False))
    assert copies == memory.step_memory(run, spread=False)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(run.state))
    assert copies.state == size
    assert size / 4 < parts.state < size / 4 + 100
    saved = copies.whole - parts.whole
    assert 0.9 * 0.75 * size < saved
    found = memory.describe_step_memory(spread)
    assert f"{parts.state / 1e6:.1f} MB for the state; without" in found
    assert found.startswith(f"a step takes {parts.whole / 1e6:,.1f} MB a device, ")
    assert str(memory.StepMemory(2_000_000, None)) == "2.0 MB for the state"


def test_a_step_that_fits_no_device_is_said_and_does_not_end_the_run(
    spread, monkeypatch
):
    class Lowered:
        def compile(self):
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

    monkeypatch.setattr(spread.images, "lower", lambda *arguments: Lowered())
    found = memory.describe_step_memory(spread)
    size = sum(leaf.nbytes for leaf in jax.tree.leaves(spread.state))
    assert found.endswith(f"without --shard params {size / 1e6:.1f} MB for the state")


def test_one_device_has_nothing_to_spread(digits):
    run = Run(dataclasses.replace(SPREAD, devices=1), digits)
    assert not run.spec.spread
    with pytest.raises(TypeError, match="step_memory: the run has one device"):
        memory.step_memory(run, spread=True)
