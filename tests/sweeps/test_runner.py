"""Runs of a grid."""

import dataclasses
import io
import json
import shutil
import signal
import time
from pathlib import Path

import jax
import pytest

from aslp_jax._errors import BadInput
from aslp_jax.data import datasets
from aslp_jax.sweeps import runner
from aslp_jax.sweeps.budget import cells
from aslp_jax.sweeps.budget.cells import Cell
from aslp_jax.sweeps.grid import Grid
from aslp_jax.sweeps.table1 import cells as table1_cells
from aslp_jax.trainer import run_state
from aslp_jax.trainer.loop import train_sessions
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.progress import Progress
from aslp_jax.trainer.run_folder import RunFolder
from aslp_jax.trainer.session import begin
from aslp_jax.trainer.signals import Interrupted, Signals
from tests.sweeps.helpers import promotion_as_for_users


@pytest.mark.parametrize(
    ("seeds", "devices", "per_device", "expected"),
    [
        (5, 2, 1, [([0, 1], 1), ([2, 3], 1), ([4], 1)]),
        (5, 1, 8, [([0, 1, 2, 3, 4], 5)]),
        (5, 2, 4, [([0, 1, 2, 3], 2), ([4], 1)]),
        (3, 2, 2, [([0, 1], 1), ([2], 1)]),
        (2, 4, 1, [([0, 1], 1)]),
        (0, 4, 1, []),
    ],
)
def test_seeds_fill_the_devices_evenly(seeds, devices, per_device, expected):
    batches = runner._batches(range(seeds), devices, per_device)
    assert [(list(batch), share) for batch, share in batches] == expected


def test_the_smallest_budget_of_each_kind_is_tried_first():
    plain = Config(arch="conv2", dataset="digits")
    few, fewer = (dataclasses.replace(plain, keep_fraction=k) for k in (0.1, 0.01))
    layer = dataclasses.replace(few, scope="layer")
    other = dataclasses.replace(few, method="signed")
    without = Config(arch="conv4", dataset="digits")
    found = runner._tightest([plain, few, layer, fewer, without, other])
    assert list(found) == [fewer, layer, other]


def test_a_budget_that_is_too_small_for_a_network_shows_at_once(tmp_path):
    tried = [Cell("conv2", "aslp", keep) for keep in (0.1, 1e-6)]
    shared = {"dataset": "digits"}
    folder = Grid(tmp_path / "grid", {})
    with pytest.raises(BadInput, match=r"conv2 on digits cannot be begun: .* 1e-06 of"):
        runner.train_grid(
            folder,
            tried,
            [0],
            lambda cell, seed: cells.configure("fast", shared, cell, seed),
            datasets.load("digits"),
        )
    assert not (folder.path / "cells").exists()


def test_only_a_run_that_was_begun_may_be_deleted(tmp_path):
    cell, data = Cell("conv2", "magnitude", 0.1), datasets.load("digits")

    def train(folder: Grid, batch_size: int) -> str:
        shared = {"dataset": "digits", "batch_size": batch_size}
        with pytest.raises(BadInput) as raised:
            runner.train_grid(
                folder,
                [cell],
                [0],
                lambda cell, seed: cells.configure("fast", shared, cell, seed),
                data,
            )
        return str(raised.value)

    new = Grid(tmp_path / "new", {})
    message = train(new, 5000)
    assert "5000 is more than the 1280 training images" in message
    assert "delete" not in message
    begun = Grid(tmp_path / "begun", {})
    begun.folder(cell, 0).mkdir(parents=True)
    (begun.folder(cell, 0) / "config.json").write_text("{")
    assert f"(or delete {begun.folder(cell, 0)}, and" in train(begun, 32)


def test_a_beginning_that_works_is_not_complained_of():
    few = Config(dataset="digits", arch="conv2", batch_size=32, keep_fraction=0.1)
    run_state.check(few, datasets.load("digits"))


# Training.

EPOCHS = 4  # the schedule is compiled in: all runs take as many and share programs
CELL = table1_cells.Cell("conv2", False, "aslp", "none", True)
TIMES = {"seconds", "images_per_second"}


@pytest.fixture(scope="module")
def data() -> datasets.Dataset:
    """A few images of digits."""
    whole = datasets.load("digits")
    return dataclasses.replace(
        whole,
        train_images=whole.train_images[:96],
        train_labels=whole.train_labels[:96],
        test_images=whole.test_images[:32],
        test_labels=whole.test_labels[:32],
        validation=32,
    )


def options(cell: table1_cells.Cell, seed: int) -> Config:
    shared = {
        "dataset": "digits",
        "batch_size": 32,
        "epochs": EPOCHS,
        "eval_samples": 2,
    }
    return table1_cells.configure("fast", shared, cell, seed)


def train(grid: Grid, data: datasets.Dataset, seeds: int, **how) -> str:
    """Trains the cell, and returns the log."""
    log = io.StringIO()
    with promotion_as_for_users():
        runner.train_grid(
            grid, [CELL], range(seeds), options, data, progress_file=log, **how
        )
    return log.getvalue()


def metrics(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in TIMES}
        for line in lines
    ]


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data) -> tuple[Grid, str]:
    """A grid of two seeds, and its log."""
    grid = Grid(tmp_path_factory.mktemp("sweep") / "trained", {})
    return grid, train(grid, data, 2)


@pytest.mark.slow
def test_seeds_side_by_side_are_what_each_is_alone(tmp_path, data, trained):
    grid, _ = trained
    config = options(CELL, 1)
    session = begin(
        config,
        data,
        RunFolder.new(tmp_path / "alone", config),
        resume=False,
        note=print,
        devices=jax.local_devices()[:1],
    )
    with promotion_as_for_users(), Signals() as signals:
        train_sessions([session], Progress(io.StringIO(), epochs=EPOCHS), signals)
    assert metrics(tmp_path / "alone") == metrics(grid.folder(CELL, 1))
    assert metrics(grid.folder(CELL, 0)) != metrics(grid.folder(CELL, 1))


@pytest.mark.slow
def test_a_finished_run_is_kept_and_the_log_tells_of_each_epoch(data, trained):
    grid, log = trained
    name = f"{CELL.name} seeds 0, 1"
    first, *lines, last = log.splitlines()
    assert first == f"{grid.path}: 2 runs to make, 0 finished before"
    starts = [f"run 1/2  {name}  epoch {epoch}/{EPOCHS}  train " for epoch in (1, 2)]
    assert len(lines) == EPOCHS
    for line, start in zip(lines, starts, strict=False):
        assert line.startswith(start) and line.endswith(" left")
    assert last.startswith(f"run 2/2  {name}  ") and "all done in" in last
    for seed in (0, 1):
        folder = grid.folder(CELL, seed)
        assert grid.record(CELL, seed) is not None
        assert not (folder / "checkpoints").exists()
    before = {path: path.stat().st_mtime_ns for path in grid.path.rglob("*")}
    assert train(grid, data, 2) == (f"{grid.path}: 0 runs to make, 2 finished before\n")
    assert before == {path: path.stat().st_mtime_ns for path in grid.path.rglob("*")}


@pytest.mark.slow
def test_a_run_that_another_process_finishes_meanwhile_is_kept(tmp_path, data, trained):
    other, grid = trained[0], Grid(tmp_path / "shared", {})

    def finished_elsewhere(cell: table1_cells.Cell, seed: int) -> Config:
        # Called between the look for what is to be trained, and the training.
        if not grid.folder(cell, seed).exists():
            shutil.copytree(other.folder(cell, seed), grid.folder(cell, seed))
        return options(cell, seed)

    log = io.StringIO()
    with promotion_as_for_users():
        runner.train_grid(
            grid, [CELL], [0, 1], finished_elsewhere, data, progress_file=log
        )
    head, *lines = log.getvalue().splitlines()
    assert head == f"{grid.path}: 2 runs to make, 0 finished before"
    for number, line in enumerate(lines):
        start = f"run {number + 1}/2  {CELL.name} seed {number}  finished by another"
        assert line.startswith(start)
    assert len(lines) == 2
    for made in other.path.rglob("*"):
        if made.is_file() and made.name != "grid.json":
            there = grid.path / made.relative_to(other.path)
            assert there.read_bytes() == made.read_bytes()
    assert not [*grid.path.rglob("lock.json")]


@pytest.mark.slow
def test_an_interrupted_grid_goes_on_as_if_it_had_not_been(
    tmp_path, data, trained, monkeypatch
):
    grid = Grid(tmp_path / "interrupted", {})
    folder = grid.folder(CELL, 0)
    report = Progress.epoch

    def report_and_interrupt(self, row):
        report(self, row)
        if row.epoch == 2:
            signal.raise_signal(signal.SIGTERM)

    with monkeypatch.context() as patch:
        patch.setattr(Progress, "epoch", report_and_interrupt)
        with pytest.raises(Interrupted, match="SIGTERM") as interrupted:
            train(grid, data, 1)
    assert interrupted.value.number == signal.SIGTERM
    assert len(metrics(folder)) == 2 and grid.record(CELL, 0) is None

    # The clock interrupts it too, here before anything more is done.
    with pytest.raises(Interrupted, match="the time limit"):
        train(grid, data, 1, deadline=time.monotonic())
    assert len(metrics(folder)) == 2

    # A folder that was left while it was made is made anew.
    half = grid.folder(CELL, 1)
    half.mkdir()
    (half / "config.json.partial").write_text("{")
    assert "2 runs to make" in train(grid, data, 2)
    resumed = json.loads((folder / "config.json").read_text())["resumed"]
    assert [each["after_epoch"] for each in resumed] == [2]
    for seed in (0, 1):
        made, expected = (each.folder(CELL, seed) for each in (grid, trained[0]))
        assert len(metrics(made)) == EPOCHS
        assert metrics(made) == metrics(expected)
