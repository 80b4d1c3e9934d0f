"""Comparison under a budget: cells, claims, report and plots."""

import csv

from aslp_jax.sweeps.budget import cells, claims, page, report
from aslp_jax.sweeps.budget.cells import Cell
from aslp_jax.sweeps.grid import RESULT, Grid, Record
from tests.sweeps.helpers import diverged, write_run
from tests.webpage import pages

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
        **dict.fromkeys(RESULT, 0.5),
        "stochastic": False,
        "thresholding": 0.8,
        "averaging_mean": 0.85,
        "pruning_change": 0.02,
        "budget_miss": 0.0,
        "keep_fraction": 0.1,
        "connectivity": {"a": LAYER, "b": LAYER},
        "best_epoch": 1,
        "epochs": 1,
        "outputs": 10,
        "outputs_reached": 10,
        **changes,
    }


def record(cell: Cell, seed: int = 0, **changes) -> Record:
    return Record(cell, seed, result(**changes), [])


def test_cells_have_names_that_are_read_again(tmp_path):
    every = [
        Cell("conv4", "magnitude", 0.1),
        Cell("conv4", "magnitude-finetune", 0.1),
        Cell("conv4", "aslp", 1e-05),
        Cell("conv4", "aslp", 1.0, "layer"),
        Cell("vgg19", "signed", 0.123456789),
    ]
    folder = Grid(tmp_path / "grid", {})
    for cell in every:
        folder.folder(cell, 3).mkdir(parents=True)
    for name in ("conv4-magic-keep0.1-seed0", "conv4-aslp-keep0.10-seed0", "x-seed1"):
        (folder.path / "cells" / name).mkdir()
    assert every[0].name == "conv4-magnitude-keep0.1"
    assert every[3].name == "conv4-aslp-keep1.0-layer"
    found = cells.cells_in(folder.path)
    assert set(found) == set(every)
    assert found[:2] == every[:2] and found[-1] == every[-1]
    # The densest first, as in a table from top to bottom.
    folder.folder(Cell("conv4", "magnitude", 0.5), 0).mkdir()
    assert cells.cells_in(folder.path)[0].keep == 0.5


def test_a_cell_stands_for_options_of_a_run():
    for preset in ("fast", "paper", None):
        for method in cells.METHODS:
            cell = Cell("vgg19", method, 0.05)
            shared = {"dataset": "cifar100", "epochs": 3, "mask_lr": 0.25}
            found = cells.configure(preset, shared, cell, 7)
            assert (found.arch, found.keep_fraction, found.seed) == ("vgg19", 0.05, 7)
            assert found.finetune == (method == "magnitude-finetune")
            assert found.method == method.removesuffix("-finetune")
            sampled = method in ("aslp", "signed")
            assert (found.mask_lr == 0.25) == sampled and found.epochs == 3


def test_a_rescale_is_asked_of_those_that_know_more_than_one():
    chosen = {"rescale": "none", "dataset": "digits"}
    assert cells.settings("fast", chosen)["aslp"]["rescale"] == "none"
    chosen = {"rescale": "smart", "dataset": "digits"}
    found = cells.settings("fast", chosen)
    assert found["signed"]["rescale"] == "smart"
    assert found["budget"]["rescale"] == "none"


def test_the_recipe_holds_what_cells_share_and_no_more():
    found = cells.settings("fast", {"dataset": "digits", "epochs": 3})
    assert list(found) == list(cells.METHODS)
    for shared in found.values():
        assert shared["epochs"] == 3 and shared["patience"] == 100
        assert not set(cells.AXES) & set(shared)
        assert not {"devices", "data_dir", "checkpoint_seconds"} & set(shared)
    assert found["budget"]["weight_lr"] == 0.05
    assert found["aslp"]["optimiser"] == "adam"
    assert found["aslp"]["layer"] == {"budget_weight": 100}
    assert "layer" not in found["budget"] and "layer" not in found["magnitude"]


def test_the_numbers_of_the_paper():
    numbers = cells.paper_numbers("cifar10")
    assert len(numbers) == 36
    assert numbers["conv4", "budget", 0.01] == 16.6
    assert numbers["vgg19", "magnitude-finetune", 0.03] == 93.0
    assert numbers["resnet18", "magnitude", 0.1] == 77.9
    tiny = cells.paper_numbers("tiny_imagenet")
    assert {arch for arch, _, _ in tiny} == {"conv4"}
    assert tiny["conv4", "budget", 0.01] == 35
    assert cells.paper_numbers("digits") == {}
    best = max(cells.anchors("cifar10", "conv2"), key=lambda each: -each.kept)
    assert (best.method, best.kept, best.accuracy) == ("signed supermask", 0.6, 68.37)
    assert "Koster" in best.source
    assert cells.anchors("digits", "conv2") == []


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
    summaries = report.summarise(records, "cifar10")
    text = report.markdown(summaries, records, "cifar10")
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
    summaries = report.summarise(records, "cifar10")
    text = report.markdown(summaries, records, "cifar10")
    assert "the last cut changes no" in text and "### What the last cut" not in text


def test_empty_layers_and_lost_classes_show_in_the_table():
    empty = {**LAYER, "kept": 0, "on_path": 0}
    lost = record(
        BUDGET, connectivity={"a": LAYER, "b": empty, "c": empty}, outputs_reached=4
    )
    whole = record(BUDGET, 1, connectivity={"a": LAYER, "b": LAYER, "c": LAYER})
    summaries = report.summarise([lost, whole], "digits")
    text = report.markdown(summaries, [lost, whole], "digits")
    words = "3.0 and 6.0 of 24, 10.0 %, 1.0 layers empty, 3.0 classes not reached |"
    assert words in text
    (line,) = map(report.summary_line, summaries)
    assert (line["empty_layers"], line["unreached_classes"]) == ("1.00", "3.00")
    assert (line["missed"], line["kept_percent"]) == (0, "10.00")
    assert line["paper"] == "" and line["mean"] == "80.00" and line["std"] == "0.00"
    (summary,) = report.summarise([lost], "digits")
    assert report.summary_line(summary)["std"] == ""


def test_layers_with_budgets_of_their_own_have_a_table_of_their_own():
    own = Cell("conv4", "magnitude", 0.1, "layer")
    records = [record(MAGNITUDE), record(own, thresholding=0.7)]
    summaries = report.summarise(records, "cifar10")
    assert [each.score.paper for each in summaries] == [54.9, None]
    text = report.markdown(summaries, records, "cifar10")
    tail = text.partition("## Conv4, each layer with a budget of its own")[2]
    assert "| 90 % | 70.0 |" in tail and "| 90 % | 80.0 (54.9" not in tail


def test_claims_are_about_pairs_of_the_same_budget_and_seed():
    worse = {"a": {**LAYER, "without_input": 5}}
    half, other = Cell("conv4", "budget", 0.5), Cell("conv4", "magnitude", 0.5)
    records = [
        *(record(BUDGET, seed, thresholding=0.85) for seed in range(4)),
        *(record(MAGNITUDE, seed, thresholding=0.6) for seed in range(3)),
        # Two budgets of a seed count as their mean.
        record(half, 1, thresholding=0.85),
        record(other, 1, thresholding=0.5),
        # Neither another budget nor a run that diverged makes a pair.
        record(Cell("conv4", "magnitude", 0.05), 3, thresholding=0.1),
        diverged(MAGNITUDE, 3, stochastic=False),
    ]
    above, ends, pruned = claims.claims(records)
    # 25, 30 and 25 points: standard error 1.67, and t of two degrees is 4.30.
    assert (
        above[1]
        == "+26.67 ± 7.17 points (95 % interval, 3 seeds, 4 pairs), higher in 4"
    )
    assert above[2] == "holds"
    assert ends[2] == "does not hold"  # as many in every pair
    assert pruned[1].startswith("+0.00") and pruned[2] == "holds"
    records[4:7] = [record(MAGNITUDE, seed, connectivity=worse) for seed in range(3)]
    ends = claims.claims(records)[1]
    # 1, 0.5 and 1 unit: standard error 0.167.
    assert ends[1].startswith("+0.83 ± 0.72 units") and ends[2] == "holds"
    lower = [record(BUDGET, seed, thresholding=0.5) for seed in (0, 1)]
    pruned = claims.claims(lower)[2]
    assert pruned[1].startswith("-35.00 ± 0.00") and pruned[2] == "does not hold"
    alone = claims.claims([record(BUDGET)])
    assert [verdict for _, _, verdict in alone] == 3 * ["not measured"]


def test_the_report_is_written_whole(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    for cell in (BUDGET, MAGNITUDE, Cell("conv2", "aslp", 0.02)):
        write_run(folder, cell, 0, **result())
    write_run(folder, BUDGET, 1, stochastic=False, diverged="x")
    report.write(folder, "cifar10")
    names = {path.name for path in folder.path.iterdir()}
    plots = {"conv2.png", "conv4.png"}
    assert names == {
        "grid.json",
        "cells",
        "runs.csv",
        "budget.csv",
        "budget.md",
        *plots,
    }
    for name in plots:
        assert (folder.path / name).read_bytes().startswith(b"\x89PNG")
    lines = list(csv.DictReader((folder.path / "runs.csv").read_text().splitlines()))
    assert [line["diverged"] for line in lines] == ["", "", "", "x"]
    assert lines[3]["without_input"] == "" and lines[2]["without_input"] == "2"
    lines = list(csv.DictReader((folder.path / "budget.csv").read_text().splitlines()))
    assert [line["paper"] for line in lines] == ["", "54.9", "85.6"]
    page.write(folder, "cifar10")
    found = pages.check((folder.path / "report.html").read_text())
    accuracy, *_ = pages.tables(found).values()
    for row, line in zip(accuracy, lines, strict=True):
        shown = {name.replace("_", " "): value for name, value in line.items()}
        assert row.items() >= shown.items() and row["95 % interval"] == ""
    assert len(found.all("img")) == 2


def test_a_grid_without_runs_says_so(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    report.write(folder, "digits")
    assert "No run is finished yet." in (folder.path / "budget.md").read_text()
