"""Choices of a run, its budget, its divergence, and resuming in fine-tuning."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import checkpoint
from aslp_jax._errors import BadInput
from aslp_jax.data import datasets
from aslp_jax.models import NETWORKS
from aslp_jax.trainer import closing, devices, run_state, session
from aslp_jax.trainer.options import FIELDS, Config, check, fixed_options
from aslp_jax.trainer.position import Position
from aslp_jax.trainer.results import Divergence
from aslp_jax.trainer.run_folder import RunFolder


@pytest.fixture(scope="module")
def run():
    """A run with a budget, before its first step."""
    config = Config(
        dataset="digits",
        arch="conv2",
        keep_fraction=0.1,
        logit_std=1.0,
        batch_size=320,
        devices=1,
    )
    return run_state.Run(config, datasets.load("digits"))


@pytest.mark.parametrize(("batch", "count"), [(256, 4), (30, 3), (14, 2), (7, 1)])
def test_as_many_devices_as_divide_the_batch(batch, count):
    assert len(devices.choose_devices(Config(batch_size=batch))) == count


def test_devices_that_were_asked_for_must_divide_it():
    with pytest.raises(BadInput, match="30 is not divisible by the 4 devices"):
        devices.choose_devices(Config(batch_size=30, devices=4))


def test_every_network_may_be_chosen():
    assert FIELDS["arch"].metadata["choices"] == (*NETWORKS, "own")


def test_a_network_that_cannot_take_the_images_is_bad_input():
    config = Config(arch="vgg19", dataset="digits", batch_size=32, devices=1)
    with pytest.raises(BadInput) as error:
        run_state.Run(config, datasets.load("digits"))
    message = str(error.value)
    assert message.startswith("vgg19 on digits cannot be begun: VGG: ")
    assert "at least 32x32 pixels" in message and "\n" not in message


@pytest.mark.parametrize(
    ("batch", "size"), [(256, 64), (320, 64), (96, 48), (32, 32), (134, 134)]
)
def test_micro_batches_fit_the_cache_or_the_batch_stays_whole(batch, size):
    first = jax.devices()[:1]
    assert devices.choose_micro_batch(Config(batch_size=batch), first) == size


def test_a_nan_among_the_params_is_seen_and_an_infinity_is_not_one():
    params = {"logits": {"a": jnp.array([0.0, jnp.inf])}, "scale": {"a": jnp.ones(())}}
    assert run_state.without_nan(params)
    params["logits"]["a"] = jnp.array([0.0, jnp.nan])
    assert not run_state.without_nan(params)


def test_a_budget_of_less_than_a_weight_a_layer_is_one_line():
    few = Config(dataset="digits", arch="conv2", batch_size=32, keep_fraction=1e-6)
    with pytest.raises(BadInput, match="conv2 on digits cannot be begun: init: keep_"):
        run_state.Run(few, datasets.load("digits"))


@pytest.mark.slow
def test_a_run_that_is_resumed_with_fewer_epochs_is_still_fine_tuned():
    options = {
        "dataset": "digits",
        "arch": "conv2",
        "method": "magnitude",
        "rescale": "none",
        "keep_fraction": 0.1,
        "batch_size": 320,
        "devices": 1,
        "finetune": True,
    }
    data = datasets.load("digits")
    first = run_state.Run(Config(**options, epochs=9), data)
    first.position.epoch, first.position.best_epoch = 8, 8
    again = run_state.Run(Config(**options, epochs=8), data)
    again.restore(first.snapshot())
    assert again.position.pruned_epoch == again.position.epoch == 8
    held = jax.tree.leaves(again.state.frozen)
    kept = sum(int(mask.sum()) for mask in held)
    assert kept == round(0.1 * sum(mask.size for mask in held))
    assert again.stopped is None
    # What was pruned and tuned before is not pruned once more.
    again.position.epoch, again.position.best_accuracy = 16, 0.5
    third = run_state.Run(Config(**options, epochs=8), data)
    third.restore(again.snapshot())
    assert third.stopped == "epochs"
    assert third.position == again.position


@pytest.mark.slow
def test_the_miss_of_a_run_counts_what_its_method_keeps(run):
    logits = run.state.params["logits"]
    kept = {name: round(0.12 * leaf.size) for name, leaf in logits.items()}
    params = {
        **run.state.params,
        "logits": {
            name: jnp.where(jnp.arange(leaf.size) < kept[name], 1.0, -1.0).reshape(
                leaf.shape
            )
            for name, leaf in logits.items()
        },
    }
    state = run.state.replace(params=params)
    masks = run.programs.masks(state.frozen, state.params)
    assert run._budget_miss(state, masks) == pytest.approx(0.02, abs=2e-5)


@pytest.mark.slow
def test_a_divergence_leaves_the_run_where_it_was(run):
    totals = run.totals
    run.totals = totals.replace(loss=jnp.asarray(jnp.nan), steps=jnp.asarray(3))
    found = run.account(3, 1.0)
    run.totals = totals
    assert str(found) == f"the loss became nan in epoch 1, step 3 of {run.steps}"
    assert (run.position.step, run.position.seconds) == (0, 0.0)
    state = run.state
    scale = jax.tree.map(lambda leaf: leaf * jnp.nan, state.params["scale"])
    run.state = state.replace(params={**state.params, "scale": scale})
    found = run.finish_epoch(1.0)
    run.state = state
    assert str(found) == (
        "the validation loss or something learnt became NaN in epoch 1, step "
        f"{run.steps} of {run.steps}"
    )
    assert run.position.epoch == 0 and run.position.best_epoch == 0


@pytest.mark.slow
def test_a_run_is_scored_and_kept_by_its_moving_averages(tmp_path):
    config = Config(
        dataset="digits", arch="conv2", batch_size=320, devices=1, ema_decay=0.75
    )
    run = run_state.Run(config, datasets.load("digits"))
    mean = params = jax.device_get(run.state.params)
    for _ in range(2):
        run.account(1, run.take_steps(1))
        params = jax.device_get(run.state.params)
        mean = jax.tree.map(
            lambda before, now: 0.75 * before + 0.25 * now, mean, params
        )
    losses = {
        name: run.images.score(
            run.programs, run.state.replace(params=each).variables, None, None
        )[1]
        for name, each in (("mean", mean), ("params", params))
    }
    row = run.finish_epoch(1.0)
    assert row.validation_loss == pytest.approx(losses["mean"], rel=1e-4)
    assert abs(row.validation_loss - losses["params"]) > 1e-3
    assert row.best_epoch == 1
    chex.assert_trees_all_close(run.best["params"], mean, rtol=1e-5)
    chex.assert_trees_all_equal(run.state.params, params)
    now = closing.keep_probabilities(run, best=False)
    chex.assert_trees_all_close(now, closing.keep_probabilities(run, best=True))
    logits = params["logits"]["Dense_0/kernel"]
    assert np.abs(now["Dense_0/kernel"] - jax.nn.sigmoid(logits)).max() > 1e-3
    again = run_state.Run(config, datasets.load("digits"))
    checkpoint.save(tmp_path, 2, run.snapshot(), {})
    again.restore(checkpoint.restore(tmp_path, 2, again.blank_snapshot(), {}))
    chex.assert_trees_all_equal(again.state, run.state)
    assert session._identity(run)["ema_decay"] == 0.75


def test_a_checkpoint_of_an_older_version_may_lack_an_option(run):
    identity = session._identity(run)
    assert identity["mask_lr"] == 50 and "ema_decay" not in identity


@pytest.mark.parametrize(
    ("changes", "epoch", "advice"),
    [
        ({}, 0, "--resume --epochs 1"),
        ({}, 3, "--resume --epochs 3"),
        ({"schedule": "cosine"}, 3, None),
        ({"temperature_end": 0.5}, 3, None),
        ({"warmup_epochs": 3}, 3, None),
        ({"warmup_epochs": 3}, 4, "--resume --epochs 4"),
    ],
)
def test_advice_on_a_divergence_is_a_command_that_is_taken(
    run, tmp_path, monkeypatch, changes, epoch, advice
):
    config = dataclasses.replace(run.config, epochs=10, **changes)
    monkeypatch.setattr(run, "config", config)
    monkeypatch.setattr(run, "position", Position(epoch=epoch))
    lost = Divergence(epoch + 1, 3, 4, float("nan"))
    text = session.Session(run, RunFolder(tmp_path), [], lost).problem
    if advice is None:
        assert text.endswith("try smaller learning rates in a new run")
    else:
        assert text.endswith(advice)
        again = dataclasses.replace(config, epochs=int(advice.split()[-1]))
        check(again)
        same, wanted = (fixed_options(each.as_dict()) for each in (again, config))
        assert same == wanted
