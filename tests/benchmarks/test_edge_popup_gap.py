"""Gap: exactly half is half of each layer, and one choice is changed at a time."""

import shutil
from pathlib import Path

import jax
import pytest

from aslp_jax.data import datasets
from aslp_jax.trainer.presets import resolve
from aslp_jax.trainer.run_state import Run
from benchmarks import edge_popup_gap
from tests.sweeps.helpers import few_digits, promotion_as_for_users


@pytest.mark.slow
def test_half_of_each_layer_is_kept_and_what_was_kept_stays():
    options = {"dataset": "digits", "arch": "conv2", "method": "aslp"}
    run = Run(resolve("fast", options), datasets.load("digits"))
    state = edge_popup_gap.keep_half(run.state)
    own = run.programs.masks(run.state.frozen, run.state.params)
    for name, mask in run.programs.masks(state.frozen, state.params).items():
        assert int(mask.sum()) == round(mask.size / 2) != int(own[name].sum())
        # The smaller of both masks lies within the larger.
        both = int((mask & own[name]).sum())
        assert both == min(int(mask.sum()), int(own[name].sum()))
    scales = (each.params["scale"] for each in (run.state, state))
    assert jax.tree.all(jax.tree.map(lambda a, b: (a == b).all(), *scales))


def line(method, rate, seed, validation, selected, *, augment=False, scale=None):
    last = {"last": selected - 1, "selected_half": 50.0, "last_half": 40.0}
    return {
        "arch": "conv2",
        "method": method,
        "augment": augment,
        "rate": rate,
        "scale": scale,
        "seed": seed,
        "validation": validation,
        "selected": selected,
        **last,
    }


def test_each_line_changes_one_choice():
    runs = [
        line("aslp", 0.5, 0, 90.0, 91.0),
        line("aslp", 0.5, 1, 90.0, 92.0),
        line("aslp", 0.2, 0, 95.0, 96.0),
        line("aslp", 0.5, 0, 99.0, 97.0, scale=edge_popup_gap.OTHER_SCALE),
        line(edge_popup_gap.LESS_NOISE, 1.0, 1, 97.0, 98.0),
        line("edge_popup", 0.001, 0, 93.0, 94.0),
        line("edge_popup", 0.001, 1, 93.0, 94.0),
        line("edge_popup", 0.003, 0, 92.0, 99.0),
        line("aslp", 0.5, 0, 80.0, 70.0, augment=True),
        line("edge_popup", 0.001, 0, 80.0, 90.0, augment=True),
    ]
    found = dict(edge_popup_gap.changes(runs))
    assert list(found.values()) == [
        {0: [-3.0, -20.0], 1: [-2.0]},
        {0: [2.0, -20.0]},
        {0: [-3.0, -20.0], 1: [-2.0]},
        {0: [-44.0, -40.0], 1: [-44.0]},
        {0: [3.0]},
        {1: [4.0]},
        {0: [-20.0]},
        {0: [-3.0], 1: [-2.0]},
        {0: [-20.0]},
        {0: [2.0]},
        {},
        {1: [4.0]},
    ]


def test_the_committed_table_is_that_of_the_committed_runs(tmp_path, monkeypatch):
    kept = Path(__file__).parents[2] / "results/edge-popup-gap"
    shutil.copy(kept / "runs.csv", tmp_path)
    monkeypatch.setattr(edge_popup_gap, "settings", lambda seeds: iter(()))
    edge_popup_gap.main(["--out", str(tmp_path)])
    for name in ("gap.csv", "gap.md"):
        assert (tmp_path / name).read_text() == (kept / name).read_text()


@pytest.mark.slow
def test_a_command_trains_what_is_missing_alone(tmp_path, monkeypatch):
    trained = []
    few = few_digits(320, 64)
    monkeypatch.setattr(edge_popup_gap.datasets, "load", lambda name: few)
    chosen = list(edge_popup_gap.settings(1))[:2]
    monkeypatch.setattr(edge_popup_gap, "settings", lambda seeds: iter(chosen))
    train_once = edge_popup_gap.train_once

    def count(*, epochs, **setting):
        trained.append(setting)
        return train_once(**setting, epochs=epochs)

    monkeypatch.setattr(edge_popup_gap, "train_once", count)
    for _ in range(2):
        with promotion_as_for_users():
            edge_popup_gap.main(["--out", str(tmp_path), "--epochs", "1"])
    assert trained == chosen
    runs = edge_popup_gap.read_runs(tmp_path / "runs.csv")
    names = ("validation", *edge_popup_gap.MEASURES)
    assert all(0 < run[name] < 100 for run in runs for name in names)
    assert (tmp_path / "gap.md").read_text().startswith("| what is changed |")
