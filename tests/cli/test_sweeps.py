"""The commands that train and compare grids: table1, budget, compare."""

import dataclasses
import json
import runpy
import signal
import sys
from pathlib import Path

import jax
import pytest

from aslp_jax._claim import claim
from aslp_jax._errors import BadInput
from aslp_jax.cli import _sweeps, budget, compare, main, table1
from aslp_jax.data import datasets
from aslp_jax.sweeps.budget import cells as budget_cells
from aslp_jax.sweeps.budget.cells import Cell
from aslp_jax.sweeps.grid import Grid
from aslp_jax.sweeps.sweep import SweepOutcome
from aslp_jax.sweeps.table1 import cells as table1_cells
from aslp_jax.trainer.signals import Interrupted
from tests.sweeps.helpers import promotion_as_for_users, write_run
from tests.webpage import pages

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
BUDGET = Cell("conv4", "budget", 0.1)
MAGNITUDE = Cell("conv4", "magnitude", 0.1)


def chosen(command, line):
    """Returns the cells that a command line of table1 or budget asks for."""
    options = vars(command.parser().parse_args(line.split()))
    return command.choose_cells(options)


def test_cells_of_the_paper_come_first():
    cells = chosen(table1, "")
    assert {cell.method for cell in cells} == {"aslp", "supermask", "edge_popup"}
    first = [table1_cells.in_paper(cell) for cell in cells]
    assert first == 42 * [True] + 54 * [False]


def test_a_scope_is_of_the_methods_that_know_it():
    cells = chosen(budget, "--scope global layer")
    layered = {cell.method for cell in cells if cell.scope == "layer"}
    assert layered == set(budget_cells.METHODS) - {"budget"}
    assert len(cells) == 4 * (5 + 4)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--methods edge_popup --rescales smart", "valid: none, fan"),
        ("--cells nothing-*", "matches none of the 96 cells"),
        ("--methods magic", "choose from .*aslp.*supermask.*edge_popup"),
        ("--archs conv3", "choose from .*conv2"),
        ("--archs vgg19", "choose from .*conv2"),
        ("--method aslp", "unrecognized arguments: --method"),
        ("--seeds 0", "--seeds: must be a whole number from 1 to 10000, got 0"),
        ("--seeds 99999999999999999999", "must be a whole number from 1 to 10000"),
        ("--seeds x", "must be a whole number from 1 to 10000, got x"),
        ("--minutes -1", "--minutes: must be a number above 0, got -1"),
        ("--minutes abc", "must be a number above 0, got abc"),
        ("--methods edge_popup --temperature 2", "--temperature means nothing to edge"),
        ("--keep-fraction 1.5", "--keep-fraction must be at most 1, got 1.5"),
        ("--keep-fraction 0", "--keep-fraction must be above 0, got 0.0"),
    ],
)
def test_bad_input_of_table1_is_one_line(line, message):
    with pytest.raises(BadInput, match=message) as raised:
        table1.main([*line.split(), "--dataset", "digits"])
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--keep 0", "--keep-fraction must be above 0, got 0.0"),
        ("--keep 0.1 1.5", "--keep-fraction must be at most 1, got 1.5"),
        ("--keep nan", "--keep-fraction must be a finite number, got nan"),
        ("--keep few", "argument --keep/--keep-fraction: invalid float value: 'few'"),
        ("--method edge_popup", "invalid choice: 'edge_popup'"),
        ("--scope layer --method budget", "--scope layer means nothing to budget"),
        ("--arch conv3", "invalid choice: 'conv3'"),
        ("--method magnitude --mask-lr 1", "--mask-lr means nothing to magnitude"),
        ("--finetune", "unrecognized arguments: --finetune"),
    ],
)
def test_bad_input_of_budget_is_one_line(line, message):
    with pytest.raises(BadInput, match=message) as raised:
        budget.main([*line.split(), "--dataset", "digits"])
    assert "\n" not in str(raised.value)


def test_runs_that_are_not_what_was_asked_for_are_named(tmp_path, capsys):
    grid = Grid(tmp_path / "grid", {})
    lost = {"stochastic": False, "diverged": "the loss became nan in epoch 1"}
    found = {"stochastic": False, "budget_miss": 0.0}
    for cell, changes in (
        (MAGNITUDE, lost),
        (BUDGET, {**found, "budget_miss": 0.02}),
        (Cell("conv4", "aslp", 0.1), found),
    ):
        write_run(grid, cell, 0, **changes)
    codes = [
        budget.report_failures(grid, [cell], range(2))
        for cell in (MAGNITUDE, BUDGET, Cell("conv4", "aslp", 0.1))
    ]
    assert codes == [3, 4, 0]
    assert budget.report_failures(grid, budget_cells.cells_in(grid.path), [0, 1]) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "aslp-jax: conv4-magnitude-keep0.1, seed 0: the loss became nan in epoch 1"
    )
    words = "missed the budget: what counts as kept is 2.00% of all weights away"
    assert lines[1].startswith(f"aslp-jax: conv4-budget-keep0.1, seed 0: {words}")
    assert len(lines) == 4


@pytest.mark.parametrize("name", ["table1", "budget", "compare"])
def test_help_names_the_command_as_it_was_given(name, monkeypatch, capsys):
    for program, shown in (
        ("/bin/aslp-jax", f"aslp-jax {name}"),
        ("/lib/aslp_jax/__main__.py", f"aslp-jax {name}"),
        (f"experiments/{name}.py", f"{name}.py"),
    ):
        monkeypatch.setattr(sys, "argv", [program])
        with pytest.raises(SystemExit):
            {"table1": table1, "budget": budget, "compare": compare}[name].main(["-h"])
        assert capsys.readouterr().out.startswith(f"usage: {shown} [-h]")


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(0, 0, "the time limit"), (signal.SIGINT, 130, "SIGINT"), (15, 143, "SIGTERM")],
)
def test_an_interrupted_sweep_says_so(
    number, code, name, tmp_path, monkeypatch, capsys
):
    grid = Grid(tmp_path, {})
    outcome = SweepOutcome(grid, tmp_path / "budget.md", Interrupted(number))
    monkeypatch.setattr(_sweeps, "run_sweep", lambda *_: outcome)
    assert budget.main([]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.endswith(f"stopped by {name}, all is saved; the same command goes on\n")


# Training.

SMALL = "--dataset digits --epochs 1 --batch-size 32 --seeds 1"
TABLE1 = (
    f"{SMALL} --archs conv2 --methods aslp --rescales none --cells *-plain-*-sc "
    "--eval-samples 2"
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in; few digits are loaded, and devices are started."""
    jax.devices()
    digits = datasets.load("digits")
    few = dataclasses.replace(
        digits,
        train_images=digits.train_images[:144, ::2, ::2],
        train_labels=digits.train_labels[:144],
        test_images=digits.test_images[:50, ::2, ::2],
        test_labels=digits.test_labels[:50],
        validation=16,
    )
    monkeypatch.setattr(datasets, "load", lambda *_, **__: few)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["aslp-jax"])
    with promotion_as_for_users():
        yield tmp_path


@pytest.mark.slow
def test_table1_from_first_run_to_last(folder, capsys):
    # The clock is met before anything is trained, and that is no failure.
    assert main.main(["table1", *TABLE1.split(), "--minutes", "1e-9"]) == 0
    out, err = capsys.readouterr()
    assert out == "" and err.splitlines()[-1] == (
        "aslp-jax: stopped by the time limit, all is saved; the same command goes on"
    )
    made = folder / "runs" / "table1-digits"
    assert "No run is finished yet." in (made / "table1.md").read_text()
    assert "No run is finished yet." in (made / "report.html").read_text()

    assert main.main(["table1", *TABLE1.split()]) == 0
    out, err = capsys.readouterr()
    assert out == (made / "table1.md").read_text()
    assert "1 run to make, 0 finished before" in err
    assert "conv2-plain-aslp-none-sc seed 0  epoch 1/1  train " in err
    names = [path.name for path in (made / "cells").iterdir()]
    assert names == ["conv2-plain-aslp-none-sc-seed0"]
    page = pages.check((made / "report.html").read_text())
    (link,) = [each.attributes["href"] for each in page.all("a")]
    assert link == f"cells/{names[0]}/report.html"
    pages.check((made / link).read_text())

    # Again: nothing to do, nothing changed; other settings are refused.
    before = {path: path.read_bytes() for path in made.glob("*.csv")}
    assert main.main(["table1", *TABLE1.split()]) == 0
    assert "0 runs to make, 1 finished before" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in made.glob("*.csv")}
    assert main.main(["table1", *TABLE1.split(), "--mask-lr", "3"]) == 2
    *_, line = capsys.readouterr().err.splitlines()
    assert "holds a grid with options aslp mask_lr 0.5, not 3.0" in line
    with claim(made):
        assert main.main(["table1", *TABLE1.split()]) == 2
        out, err = capsys.readouterr()
        assert err.startswith(f"aslp-jax: {made.resolve()} is being written by process")
        assert out == "" and err.count("\n") == 1
    assert before == {path: path.read_bytes() for path in made.glob("*.csv")}


@pytest.mark.slow
def test_budget_from_first_run_to_last(folder, capsys, monkeypatch):
    line = f"{SMALL} --arch conv2 --keep 0.0005 --method budget --no-report"
    program = EXPERIMENTS / "budget.py"
    monkeypatch.setattr(sys, "argv", [str(program), *line.split()])
    with pytest.raises(SystemExit) as done:
        runpy.run_path(str(program), run_name="__main__")
    # In four steps no budget is met, and that is said.
    out, err = capsys.readouterr()
    assert done.value.code == 4, err
    made = Path("runs") / "budget-digits"
    assert out == (made / "budget.md").read_text()
    name = "conv2-budget-keep0.0005-seed0"
    assert [path.name for path in (made / "cells").iterdir()] == [name]
    last = err.splitlines()[-1]
    assert last.startswith("budget.py: conv2-budget-keep0.0005, seed 0: missed the")
    path = made / "cells" / name
    assert f"{path}: WARNING: " in err and "is left empty" in err
    assert not (path / "checkpoints").exists()
    assert not [*made.rglob("report.html")]
    rows = (path / "metrics.jsonl").read_text().splitlines()
    resting = json.loads(rows[-1])["statistics"]["at_rest"]
    assert len(resting) == 5 and all(0 <= part <= 1 for part in resting.values())
