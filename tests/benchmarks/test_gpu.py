"""GPU: nothing finished is repeated, and what the time cuts is tested all the same."""

import dataclasses
import json
import time
from pathlib import Path

import pytest

from aslp_jax.cli import budget, table1
from benchmarks import comparisons, gpu


def plan(out: Path) -> gpu.Plan:
    found = gpu.Plan(
        out=out,
        deadline=time.monotonic() + 60,
        platform="cpu",
        tiny=True,
        closing=0.0,
        workers=2,
        seeds=1,
        epochs=1,
        images=(),
        changes=("--dataset", "digits", "--batch-size", "320"),
    )
    found.work.mkdir(parents=True)
    return found


def test_cells_are_those_of_table_1_and_seeds_come_last(tmp_path):
    from aslp_jax.sweeps.table1 import cells

    known = {cell.name for cell in cells.all_cells() if cells.in_paper(cell)}
    assert set(gpu.CELLS) <= known and len(set(gpu.CELLS)) == len(gpu.CELLS)
    jobs = [job.name for job in gpu.cell_jobs(plan(tmp_path))]
    assert jobs == [f"{cell}-seed0" for cell in gpu.TINY]


@pytest.mark.parametrize("tiny", [True, False])
def test_comparisons_are_commands_that_exist(tmp_path, tiny):
    made = dataclasses.replace(
        plan(tmp_path),
        tiny=tiny,
        images=("--data-dir", str(tmp_path)),
        changes=(),
        fashion=("--manual-dir", str(tmp_path)),
    )
    jobs = list(gpu.comparison_jobs(made))
    assert len({job.name for job in jobs}) == len(jobs) == (8 if tiny else 14)
    for job in jobs:
        program, *words = job.command
        if program == "-m" and words[0] == "benchmarks.search":
            continue
        if program == "-m":
            assert words[0] == "benchmarks.comparisons"
            found = vars(comparisons.parser().parse_args(words[1:]))
            assert found["epochs"] == (1 if tiny else 10)
            assert ("fashion" in job.name) == (found["dataset"] == "fashion_mnist")
            continue
        command = {"table1.py": table1, "budget.py": budget}[Path(program).name]
        found = vars(command.parser().parse_args(words))
        assert found["epochs"] == 1 if tiny else found["epochs"] >= 10
        assert command.choose_cells(found)
        assert ("fashion" in job.name) == (found.get("dataset") == "fashion_mnist")


def test_a_measurement_is_made_once_and_a_failure_again(tmp_path, monkeypatch, capsys):
    made = plan(tmp_path)
    jobs = [
        gpu.Job("met", ("-c", "print(1)")),
        gpu.Job("not met", ("-c", "raise SystemExit(1)")),
        gpu.Job("broken", ("-c", "raise SystemExit(3)")),
        gpu.Job("too long", ("-c", "print(2)"), least=3600),
    ]
    monkeypatch.setattr(gpu, "measurements", lambda plan: iter(jobs))
    assert not gpu.measure(made)
    assert [made.is_done(job) for job in jobs] == [True, True, False, False]
    assert "broken ended with 3" in capsys.readouterr().out
    assert (tmp_path / "met.txt").read_text() == "1\n"
    assert not gpu.measure(made)
    assert "met: " not in capsys.readouterr().out


def test_jobs_that_fail_are_reported_and_not_marked(tmp_path):
    made = plan(tmp_path)
    good, missed, bad = (
        gpu.Job("good", ("-c", "")),
        gpu.Job("missed", ("-c", "raise SystemExit(4)")),  # its budget
        gpu.Job("bad", ("-c", "raise SystemExit(2)")),
    )
    assert gpu.train(made, {"paper": [good], "cells": [missed]})
    assert not gpu.train(made, {"paper": [good], "cells": [bad]})
    assert made.is_done(good) and made.is_done(missed) and not made.is_done(bad)


@pytest.mark.slow
def test_a_run_that_the_time_cuts_is_tested(tmp_path, monkeypatch, program_flags):
    monkeypatch.setenv("XLA_FLAGS", program_flags)
    made = plan(tmp_path)
    out = made.work / "paper-conv2"
    long = (
        *("experiments/cifar.py", "--arch", "conv2", "--epochs", "500"),
        *(*made.changes, "--out", str(out)),
    )
    job = gpu.Job("paper-conv2", long)
    monkeypatch.setattr(gpu, "paper_jobs", lambda plan: iter([job]))
    process = made.begin(job)
    while process.poll() is None and not (out / "metrics.jsonl").exists():
        time.sleep(0.1)
    process.terminate()
    assert process.wait() == 143 and not (out / "result.json").exists()
    gpu.close(made)
    result = json.loads((tmp_path / "paper-conv2-tested" / "result.json").read_text())
    rows = (tmp_path / "paper-conv2-tested" / "metrics.jsonl").read_text().splitlines()
    assert result["epochs"] == len(rows) < 500
    assert 0 <= result["thresholding"] <= 1
