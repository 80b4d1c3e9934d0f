"""The comparison under a budget: its cells, its report, its program."""

import csv
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aslp_jax._errors import BadInput
from aslp_jax.cli import budget
from aslp_jax.data import datasets
from aslp_jax.sweeps import grid, runner, sweep
from aslp_jax.sweeps import statistics as seed_statistics
from aslp_jax.sweeps.budget import cells as budget_layout
from aslp_jax.sweeps.budget import claims as budget_claims
from aslp_jax.sweeps.budget import report as budget_report
from aslp_jax.sweeps.budget.cells import Cell
from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.trainer import dead_units, run_state
from aslp_jax.trainer.options import Config

PROGRAM = Path(__file__).parents[2] / "experiments" / "budget.py"
BUDGET = Cell("conv4", "budget", 0.1)
MAGNITUDE = Cell("conv4", "magnitude", 0.1)

LAYER = {
    "weights": 100,
    "kept": 10,
    "on_path": 9,
    "units": 8,
    "without_input": 1,
    "without_output": 2,
}


def result(**changes) -> dict:
    return {
        **dict.fromkeys(grid.RESULT, 0.5),
        "stochastic": False,
        "thresholding": 0.8,
        "averaging_mean": 0.85,
        "pruning_change": 0.02,
        "budget_miss": 0.0,
        "keep_fraction": 0.1,
        "connectivity": {"a": LAYER, "b": LAYER},
        "outputs": 10,
        "outputs_reached": 10,
        **changes,
    }


def record(cell: Cell, seed: int = 0, **changes) -> Record:
    return Record(cell, seed, result(**changes), [])


# Cells.


def test_cells_have_names_that_are_read_again(tmp_path):
    cells = [
        Cell("conv4", "magnitude", 0.1),
        Cell("conv4", "magnitude-finetune", 0.1),
        Cell("conv4", "aslp", 1e-05),
        Cell("conv4", "aslp", 1.0, "layer"),
        Cell("vgg19", "signed", 0.123456789),
    ]
    folder = Grid(tmp_path / "grid", {})
    for cell in cells:
        folder.folder(cell, 3).mkdir(parents=True)
    for name in ("conv4-magic-keep0.1-seed0", "conv4-aslp-keep0.10-seed0", "x-seed1"):
        (folder.path / "cells" / name).mkdir()
    assert cells[0].name == "conv4-magnitude-keep0.1"
    assert cells[3].name == "conv4-aslp-keep1.0-layer"
    found = budget_layout.cells_in(folder.path)
    assert set(found) == set(cells)
    assert found[:2] == cells[:2] and found[-1] == cells[-1]
    # The densest first, as in a table from top to bottom.
    folder.folder(Cell("conv4", "magnitude", 0.5), 0).mkdir()
    assert budget_layout.cells_in(folder.path)[0].keep == 0.5


def test_a_cell_stands_for_options_of_a_run():
    for preset in ("fast", "paper", None):
        for method in budget_layout.METHODS:
            cell = Cell("vgg19", method, 0.05)
            shared = {"dataset": "cifar100", "epochs": 3, "mask_lr": 0.25}
            found = budget_layout.configure(preset, shared, cell, 7)
            assert (found.arch, found.keep_fraction, found.seed) == ("vgg19", 0.05, 7)
            assert found.finetune == (method == "magnitude-finetune")
            assert found.method == method.removesuffix("-finetune")
            drawn = method in ("aslp", "signed")
            assert (found.mask_lr == 0.25) == drawn and found.epochs == 3


def test_a_scope_is_of_the_methods_that_know_it():
    options = vars(budget._parser().parse_args(["--scope", "global", "layer"]))
    cells = budget._choose(options)
    assert not {"arch", "keep", "method", "scope"} & set(options)
    layered = {cell.method for cell in cells if cell.scope == "layer"}
    assert layered == set(budget_layout.METHODS) - {"budget"}
    assert len(cells) == 4 * (5 + 4)


def test_a_rescale_is_asked_of_those_that_know_more_than_one():
    chosen = {"rescale": "none", "dataset": "digits"}
    assert budget_layout.recipe("fast", chosen)["aslp"]["rescale"] == "none"
    chosen = {"rescale": "smart", "dataset": "digits"}
    found = budget_layout.recipe("fast", chosen)
    assert found["signed"]["rescale"] == "smart"
    assert found["budget"]["rescale"] == "none"


def test_the_recipe_holds_what_cells_share_and_no_more():
    found = budget_layout.recipe("fast", {"dataset": "digits", "epochs": 3})
    assert list(found) == list(budget_layout.METHODS)
    for shared in found.values():
        assert shared["epochs"] == 3 and shared["patience"] == 100
        assert not set(budget_layout.AXES) & set(shared)
        assert not {"devices", "data_dir", "checkpoint_seconds"} & set(shared)
    assert found["budget"]["weight_lr"] == 0.05
    assert found["aslp"]["optimiser"] == "adam"
    assert found["aslp"]["layer"] == {"budget_weight": 100}
    assert "layer" not in found["budget"] and "layer" not in found["magnitude"]


def test_the_numbers_of_the_paper():
    numbers = budget_layout.paper_numbers("cifar10")
    assert len(numbers) == 36
    assert numbers["conv4", "budget", 0.01] == 16.6
    assert numbers["vgg19", "magnitude-finetune", 0.03] == 93.0
    assert numbers["resnet18", "magnitude", 0.1] == 77.9
    tiny = budget_layout.paper_numbers("tiny_imagenet")
    assert {arch for arch, _, _ in tiny} == {"conv4"}
    assert tiny["conv4", "budget", 0.01] == 35
    assert budget_layout.paper_numbers("digits") == {}
    best = max(budget_layout.anchors("cifar10", "conv2"), key=lambda each: -each.kept)
    assert (best.method, best.kept, best.accuracy) == ("signed supermask", 0.6, 68.37)
    assert "Koster" in best.source
    assert budget_layout.anchors("digits", "conv2") == []


# The report.


def test_the_paths_of_a_run_are_summed_over_its_layers():
    empty = {**LAYER, "kept": 0, "on_path": 0, "without_output": 8}
    found = dead_units.dead_units(
        result(connectivity={"a": LAYER, "b": empty}, outputs_reached=7)
    )
    assert found == (1, 2, 10, 16, pytest.approx(10.0), 3)
    nothing = dead_units.dead_units(result(connectivity={"b": empty}))
    assert nothing.off_path == 100


def test_a_row_a_budget_and_a_column_a_method():
    records = [
        record(MAGNITUDE, thresholding=0.60),
        record(MAGNITUDE, 1, thresholding=0.62),
        record(Cell("conv4", "magnitude-finetune", 0.1), pruning_change=0.0),
        record(BUDGET, thresholding=0.90, budget_miss=0.0123),
        Record(BUDGET, 1, {"stochastic": False, "diverged": "in epoch 2"}, []),
        record(
            Cell("conv4", "aslp", 0.02),
            pruning_change=None,
            keep_fraction=0.032,
            budget_miss=0.012,
        ),
        Record(
            Cell("conv4", "signed", 0.02), 0, {"stochastic": True, "diverged": "x"}, []
        ),
    ]
    entries = budget_report.make_entries(records, "cifar10")
    text = budget_report.markdown(entries, records, "cifar10")
    assert (
        "| pruned | Magnitude | Magnitude + fine-tuning | Budget-aware | "
        "ASLP to a budget | Signed to a budget |"
    ) in text
    assert (
        "| 90 % | 61.0 ± 1.4 (54.9, +6.1) | 80.0 (89.5, -9.5) | 90.0 (85.6, +4.4), "
        "before the cut off the budget by up to 1.23 % in 1 of 1 runs, 1 diverged |  |"
    ) in text
    assert (
        "| 98 % |  |  |  | 80.0, kept 3.20 %, off the budget by up to 1.20 % in 1 of 1 "
        "runs | diverged (1) |"
    ) in text
    # Before and after the cut; those that draw or were tuned have none at the end.
    cut = text.partition("### What the last cut changes")[2].partition("###")[0]
    assert "| pruned | Magnitude | Budget-aware |" in cut
    assert "| 90 % | 85.0 -> 61.0, 2.00 % | 85.0 -> 90.0, 2.00 % |" in cut
    below = text.partition("### Paths")[2]
    assert "| 90 % | 2.0 and 4.0 of 16, 10.0 % | 2.0 and" in below


def test_what_is_never_cut_has_no_table_of_the_cut():
    records = [record(Cell("conv4", "aslp", 0.02), pruning_change=None)]
    entries = budget_report.make_entries(records, "cifar10")
    text = budget_report.markdown(entries, records, "cifar10")
    assert "the last cut changes no" in text and "### What the last cut" not in text


def test_empty_layers_and_lost_classes_show_in_the_table():
    empty = {**LAYER, "kept": 0, "on_path": 0}
    lost = record(
        BUDGET, connectivity={"a": LAYER, "b": empty, "c": empty}, outputs_reached=4
    )
    whole = record(BUDGET, 1, connectivity={"a": LAYER, "b": LAYER, "c": LAYER})
    entries = budget_report.make_entries([lost, whole], "digits")
    text = budget_report.markdown(entries, [lost, whole], "digits")
    words = "3.0 and 6.0 of 24, 10.0 %, 1.0 layers empty, 3.0 classes not reached |"
    assert words in text
    (line,) = map(budget_report._entry_line, entries)
    assert (line["empty_layers"], line["unreached_classes"]) == ("1.00", "3.00")
    assert (line["missed"], line["kept_percent"]) == (0, "10.00")
    assert line["paper"] == "" and line["mean"] == "80.00" and line["std"] == "0.00"
    (entry,) = budget_report.make_entries([lost], "digits")
    assert budget_report._entry_line(entry)["std"] == ""


def test_layers_with_budgets_of_their_own_have_a_table_of_their_own():
    own = Cell("conv4", "magnitude", 0.1, "layer")
    records = [record(MAGNITUDE), record(own, thresholding=0.7)]
    entries = budget_report.make_entries(records, "cifar10")
    assert [entry.paper for entry in entries] == [54.9, None]
    text = budget_report.markdown(entries, records, "cifar10")
    tail = text.partition("## Conv4, each layer with a budget of its own")[2]
    assert "| 90 % | 70.0 |" in tail and "| 90 % | 80.0 (54.9" not in tail


def test_claims_are_about_pairs_of_the_same_budget_and_seed():
    worse = {"a": {**LAYER, "without_input": 5}}
    half, other = Cell("conv4", "budget", 0.5), Cell("conv4", "magnitude", 0.5)
    records = [
        *(record(BUDGET, seed, thresholding=0.85) for seed in range(3)),
        *(record(MAGNITUDE, seed, thresholding=0.6) for seed in range(2)),
        # Two budgets of a seed count as their mean.
        record(half, 1, thresholding=0.85),
        record(other, 1, thresholding=0.5),
        # Neither another budget nor a run that diverged makes a pair.
        record(Cell("conv4", "magnitude", 0.05), 2, thresholding=0.1),
        Record(MAGNITUDE, 2, {"stochastic": False, "diverged": "x"}, []),
    ]
    above, ends, cut = budget_claims.claims(records)
    assert above[1].startswith("+27.50 ± 2.50 points") and above[2] == "holds"
    assert "in 2 of 2 pairs" in above[1]
    assert ends[2] == "does not hold (no difference)"
    assert cut[1].startswith("+0.00") and cut[2] == "holds"
    records[3:5] = [record(MAGNITUDE, seed, connectivity=worse) for seed in range(2)]
    ends = budget_claims.claims(records)[1]
    assert ends[1].startswith("+0.75 ± 0.25 units")
    cut = budget_claims.claims([record(BUDGET, s, thresholding=0.5) for s in (0, 1)])[2]
    assert cut[1].startswith("-35.00 ± 0.00") and cut[2] == "does not hold"
    alone = budget_claims.claims([record(BUDGET)])
    assert [verdict for _, _, verdict in alone] == 3 * ["not measured"]


@pytest.mark.parametrize(
    ("differences", "holds"),
    [
        ([0.5, 0.5], True),
        ([-0.5, -0.5], True),
        ([0.0, 0.6], False),
        ([9.0, 9.0], False),
    ],
)
def test_what_should_not_change_is_bounded_on_both_sides(differences, holds):
    verdict = seed_statistics.within(differences, 0.5)[1]
    assert verdict == ("holds" if holds else "does not hold")


def test_the_report_is_written_whole(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    for cell in (BUDGET, MAGNITUDE, Cell("conv2", "aslp", 0.02)):
        path = folder.folder(cell, 0)
        path.mkdir(parents=True)
        (path / "result.json").write_text(json.dumps(result()))
    lost = folder.folder(BUDGET, 1)
    lost.mkdir()
    (lost / "result.json").write_text('{"stochastic": false, "diverged": "x"}')
    budget_report.write(folder, "cifar10")
    names = {path.name for path in folder.path.iterdir()}
    pictures = {"conv2.png", "conv4.png"}
    assert names == {
        "grid.json",
        "cells",
        "runs.csv",
        "budget.csv",
        "budget.md",
        *pictures,
    }
    for name in pictures:
        assert (folder.path / name).read_bytes().startswith(b"\x89PNG")
    lines = list(csv.DictReader((folder.path / "runs.csv").read_text().splitlines()))
    assert [line["diverged"] for line in lines] == ["", "", "", "x"]
    assert lines[3]["without_input"] == "" and lines[2]["without_input"] == "2"
    lines = list(csv.DictReader((folder.path / "budget.csv").read_text().splitlines()))
    assert [line["paper"] for line in lines] == ["", "54.9", "85.6"]


def test_a_grid_without_runs_says_so(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    budget_report.write(folder, "digits")
    assert "No run is finished yet." in (folder.path / "budget.md").read_text()


# Before hours are spent.


def test_the_smallest_budget_of_each_kind_is_tried_first():
    plain = Config(arch="conv2", dataset="digits")
    few, fewer = (dataclasses.replace(plain, keep_fraction=k) for k in (0.1, 0.01))
    layer = dataclasses.replace(few, scope="layer")
    other = dataclasses.replace(few, method="signed")
    without = Config(arch="conv4", dataset="digits")
    found = runner._tightest([plain, few, layer, fewer, without, other])
    assert list(found) == [fewer, layer, other]


def test_a_budget_that_is_too_small_for_a_network_shows_at_once(tmp_path):
    cells = [Cell("conv2", "aslp", keep) for keep in (0.1, 1e-6)]
    shared = {"dataset": "digits"}
    folder = Grid(tmp_path / "grid", {})
    with pytest.raises(BadInput, match=r"conv2 on digits cannot be begun: .* 1e-06 of"):
        runner.train_grid(
            folder,
            cells,
            [0],
            lambda cell, seed: budget_layout.configure("fast", shared, cell, seed),
            datasets.load("digits"),
        )
    assert not (folder.path / "cells").exists()


def test_only_a_run_that_was_begun_may_be_deleted(tmp_path):
    cell, data = Cell("conv2", "magnitude", 0.1), datasets.load("digits")

    def fill(folder: Grid, batch_size: int) -> str:
        shared = {"dataset": "digits", "batch_size": batch_size}
        with pytest.raises(BadInput) as raised:
            runner.train_grid(
                folder,
                [cell],
                [0],
                lambda cell, seed: budget_layout.configure("fast", shared, cell, seed),
                data,
            )
        return str(raised.value)

    new = Grid(tmp_path / "new", {})
    message = fill(new, 5000)
    assert "5000 is more than the 1280 training images" in message
    assert "delete" not in message
    begun = Grid(tmp_path / "begun", {})
    begun.folder(cell, 0).mkdir(parents=True)
    (begun.folder(cell, 0) / "config.json").write_text("{")
    assert f"(or delete {begun.folder(cell, 0)}, and" in fill(begun, 32)


def test_a_beginning_that_works_is_not_complained_of():
    few = Config(dataset="digits", arch="conv2", batch_size=32, keep_fraction=0.1)
    run_state.check(few, datasets.load("digits"))


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
def test_bad_input_is_one_line(line, message):
    with pytest.raises(BadInput, match=message) as raised:
        budget.main([*line.split(), "--dataset", "digits"])
    assert "\n" not in str(raised.value)


def test_runs_that_are_not_what_was_asked_for_are_named(tmp_path, capsys):
    folder = Grid(tmp_path / "grid", {})
    lost = {"stochastic": False, "diverged": "the loss became nan in epoch 1"}
    for cell, found in (
        (MAGNITUDE, lost),
        (BUDGET, result(budget_miss=0.02)),
        (Cell("conv4", "aslp", 0.1), result()),
    ):
        folder.folder(cell, 0).mkdir(parents=True)
        (folder.folder(cell, 0) / "result.json").write_text(json.dumps(found))
    outcome = sweep.SweepOutcome(folder, range(2), 0, True)
    codes = {
        cells: budget._failures(outcome, cells)
        for cells in ((MAGNITUDE,), (BUDGET,), (Cell("conv4", "aslp", 0.1),))
    }
    assert list(codes.values()) == [3, 4, 0]
    assert budget._failures(outcome, list(budget_layout.cells_in(folder.path))) == 3
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == (
        "aslp-jax: conv4-magnitude-keep0.1, seed 0: the loss became nan in epoch 1"
    )
    words = "missed the budget: what counts as kept is 2.00% of all weights away"
    assert lines[1].startswith(f"aslp-jax: conv4-budget-keep0.1, seed 0: {words}")
    assert len(lines) == 4


# The program.


@pytest.mark.program
def test_a_comparison_from_first_run_to_last(tmp_path, program_flags):
    line = (
        "--dataset digits --arch conv2 --keep 0.0005 --method budget "
        "--epochs 1 --batch-size 320"
    )
    done = subprocess.run(
        [sys.executable, str(PROGRAM), *line.split()],
        cwd=tmp_path,
        env={
            **os.environ,
            "XLA_FLAGS": program_flags,
            "JAX_PLATFORMS": "cpu",
        },
        capture_output=True,
        text=True,
        timeout=150,
    )
    # In four steps no budget is met, and that is said.
    assert done.returncode == 4, done.stderr
    made = tmp_path / "runs" / "budget-digits"
    assert done.stdout == (made / "budget.md").read_text()
    name = "conv2-budget-keep0.0005-seed0"
    assert [path.name for path in (made / "cells").iterdir()] == [name]
    last = done.stderr.splitlines()[-1]
    assert last.startswith("budget.py: conv2-budget-keep0.0005, seed 0: missed the")
    path = Path("runs") / "budget-digits" / "cells" / name
    assert f"{path}: WARNING: " in done.stderr and "is left empty" in done.stderr
    assert not (made / "cells" / name / "checkpoints").exists()
    rows = (made / "cells" / name / "metrics.jsonl").read_text().splitlines()
    resting = json.loads(rows[-1])["statistics"]["at_rest"]
    assert len(resting) == 5 and all(0 <= part <= 1 for part in resting.values())
