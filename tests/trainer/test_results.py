"""Rows and results, in memory and on disk."""

import json
import math
from pathlib import Path

import pytest

from aslp_jax.trainer.results import Divergence, EpochRow, RunResult
from tests.helpers import epoch_row, run_result

OLD = Path(__file__).parents[2] / "results" / "cifar10-jpeg-conv2" / "result.json"

ROW_KEYS = (
    "epoch step train_loss train_accuracy validation_loss validation_accuracy "
    "best_validation_accuracy best_epoch keep_fraction keep_fractions flip_rate "
    "scalars statistics images_per_second seconds"
)
RESULT_KEYS = (
    "arch stochastic relaxed dataset method seed thresholding averaging_mean "
    "averaging_std single eval_samples test_loss pruning_change keep_fraction "
    "keep_fractions scalars connectivity outputs outputs_reached weights dense_bytes "
    "mask_bytes kept_bits best_epoch best_validation_accuracy keep_fraction_asked "
    "scope finetuned budget_miss epochs stopped seconds processes devices"
)


def test_the_keys_on_disk_and_their_order_stay():
    assert list(epoch_row(1).to_json()) == ROW_KEYS.split()
    assert list(run_result().to_json()) == RESULT_KEYS.split()


def test_what_is_written_is_read_again():
    row, result = epoch_row(3, metrics={"gap": {"a": 0.5}}), run_result()
    assert EpochRow.from_json(json.loads(json.dumps(row.to_json()))) == row
    assert RunResult.from_json(json.loads(json.dumps(result.to_json()))) == result
    assert row.to_json()["statistics"] == {"gap": {"a": 0.5}}
    trained = run_result(trains_dense=True, bits_per_kept_weight=32).to_json()
    assert (trained["relaxed"], trained["kept_bits"]) == (True, 32)


def test_a_key_of_another_version_is_ignored():
    found = {**run_result().to_json(), "later": 1}
    assert RunResult.from_json(found) == run_result()
    assert EpochRow.from_json({**epoch_row(1).to_json(), "later": 1}) == epoch_row(1)


def test_a_result_of_an_earlier_version_loads():
    found = RunResult.from_json(json.loads(OLD.read_text()))
    assert (found.arch, found.method, found.stopped) == ("conv2", "aslp", "epochs")
    assert found.scope == "" and found.finetuned is False
    assert found.pruning_change is None and found.keep_fraction_asked is None
    assert found.connectivity == {} and found.outputs == 0
    assert math.isnan(found.budget_miss)


def test_a_key_that_a_reader_needs_is_asked_for():
    found = run_result().to_json()
    del found["thresholding"], found["kept_bits"]
    assert math.isnan(RunResult.from_json(found).thresholding)
    with pytest.raises(ValueError, match="RunResult: no thresholding, kept_bits"):
        RunResult.from_json(found, needed=("thresholding", "kept_bits", "seed"))


def test_a_row_lacks_no_key_but_the_metrics():
    found = epoch_row(1).to_json()
    del found["statistics"]
    assert EpochRow.from_json(found) == epoch_row(1, metrics={})
    del found["flip_rate"]
    with pytest.raises(ValueError, match="EpochRow: no flip_rate"):
        EpochRow.from_json(found)


def test_a_divergence_says_where():
    found = Divergence(epoch=2, step=3, steps=4, loss=math.inf)
    assert str(found) == "the loss became inf in epoch 2, step 3 of 4"
