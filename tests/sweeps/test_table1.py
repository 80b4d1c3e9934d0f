"""The grid of table 1: its cells, its folder, its report, and the program itself."""

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure

from aslp_jax._errors import BadInput
from aslp_jax.cli import compare, table1
from aslp_jax.sweeps import grid, runner
from aslp_jax.sweeps import statistics as seed_statistics
from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.runner import GridProgress
from aslp_jax.sweeps.table1 import cells as table1_layout
from aslp_jax.sweeps.table1 import claims as table1_claims
from aslp_jax.sweeps.table1 import plot as table1_picture
from aslp_jax.sweeps.table1 import report as table1_report
from aslp_jax.sweeps.table1.cells import Cell, all_cells
from aslp_jax.trainer.presets import PRESETS

PROGRAM = Path(__file__).parents[2] / "experiments" / "table1.py"
ASLP = Cell("conv4", True, "aslp", "smart", True)


# Cells.


def test_every_cell_means_something_and_has_a_name_of_its_own():
    cells = all_cells()
    assert len(cells) == len({cell.name for cell in cells}) == 144
    assert {cell.rescale for cell in cells if cell.method == "edge_popup"} == {
        "none",
        "fan",
    }
    assert ASLP in cells and ASLP.name == "conv4-augmented-aslp-smart-sc"
    for cell in cells:
        chosen = table1_layout.configure("fast", {"dataset": "digits"}, cell, 3)
        assert (chosen.arch, chosen.method, chosen.rescale, chosen.seed) == (
            cell.arch,
            cell.method,
            cell.rescale,
            3,
        )
        assert chosen.augment == cell.augment
        assert chosen.signed_constant == ("all" if cell.signed_constant else "none")


def test_an_option_of_one_method_reaches_that_method_alone():
    chosen = {"weight_decay": 0.3, "temperature": 0.5}
    popup = Cell("conv2", False, "edge_popup", "fan", True)
    assert table1_layout.configure(None, chosen, popup, 0).weight_decay == 0.3
    assert table1_layout.configure(None, chosen, ASLP, 0).temperature == 0.5


def test_cells_of_the_paper_come_first():
    options = vars(table1._parser().parse_args([]))
    cells = table1._choose(options)
    assert {cell.method for cell in cells} == {"aslp", "supermask", "edge_popup"}
    assert [table1_layout.in_paper(cell) for cell in cells] == 42 * [True] + 54 * [
        False
    ]


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
def test_bad_input_is_one_line(line, message):
    with pytest.raises(BadInput, match=message) as raised:
        table1.main([*line.split(), "--dataset", "digits"])
    assert "\n" not in str(raised.value)


# The folder.


def test_a_grid_of_another_recipe_is_left_alone(tmp_path):
    path = tmp_path / "new" / "grid"
    Grid(path, {"version": "1", "preset": "fast"})
    before = (path / "grid.json").read_bytes()
    Grid(path, {"version": "1", "preset": "fast"})
    for recipe, words in (
        ({"version": "2", "preset": "fast"}, "version '1', not '2'"),
        ({"version": "1", "preset": "paper"}, "preset 'fast', not 'paper'"),
        ({"version": "1", "preset": "fast", "epochs": 3}, "epochs None, not 3"),
        ({"version": "1", "preset": {"aslp": 3}}, "preset 'fast', not None"),
    ):
        with pytest.raises(BadInput, match=words):
            Grid(path, recipe)
    assert (path / "grid.json").read_bytes() == before


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(BadInput, match="holds something else"):
        Grid(tmp_path, {})
    with pytest.raises(BadInput, match="is a file"):
        Grid(tmp_path / "file", {})
    with pytest.raises(BadInput, match="cannot write to"):
        Grid(tmp_path / "file" / "grid", {})
    for text in ("{", "3"):
        (tmp_path / "grid.json").write_text(text)
        with pytest.raises(BadInput, match=r"grid\.json is damaged"):
            Grid(tmp_path, {})


WHOLE = {**dict.fromkeys(grid.RESULT, 0.5), "stochastic": True}


def fill(folder: Grid, cell: Cell, seed: int, **result) -> None:
    path = folder.folder(cell, seed)
    path.mkdir(parents=True)
    (path / "result.json").write_text(json.dumps(WHOLE | result))
    rows = [{"epoch": 1, "validation_accuracy": 0.5}]
    (path / "metrics.jsonl").write_text("".join(json.dumps(row) for row in rows))


def test_finished_runs_are_found_in_the_order_of_the_cells(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    popup = Cell("conv2", True, "edge_popup", "none", True)
    for cell, seed in ((ASLP, 10), (ASLP, 2), (popup, 0)):
        fill(folder, cell, seed, thresholding=0.5)
    (folder.path / "cells" / f"{ASLP.name}-seed3").mkdir()  # was cut off
    (folder.path / "cells" / f"{ASLP.name}-seed2-mine").mkdir()
    found = [(record.cell, record.seed) for record in folder.records(all_cells())]
    assert found == [(popup, 0), (ASLP, 2), (ASLP, 10)]
    assert folder.record(ASLP, 3) is None
    for text in ("{", "3", '{"stochastic": true}'):
        (folder.folder(ASLP, 2) / "result.json").write_text(text)
        with pytest.raises(BadInput, match="seed2 is damaged; delete it"):
            folder.records(all_cells())


def test_folders_that_no_grid_names_are_left_out(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    fill(folder, ASLP, 7)
    for number in ("007", "²", "x"):
        path = folder.folder(ASLP, 7).with_name(f"{ASLP.name}-seed{number}")
        shutil.copytree(folder.folder(ASLP, 7), path)
    assert [record.seed for record in folder.records(all_cells())] == [7]


def test_a_run_that_diverged_in_its_first_epoch_has_no_metrics(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    path = folder.folder(ASLP, 0)
    path.mkdir(parents=True)
    lost = {"stochastic": True, "diverged": "in epoch 1"}
    (path / "result.json").write_text(json.dumps(lost))
    assert folder.records(all_cells()) == [Record(ASLP, 0, lost, [])]
    table1_report.write(folder, "digits")
    assert "| diverged (1) |" in (folder.path / "table1.md").read_text()
    (line,) = csv.DictReader((folder.path / "runs.csv").read_text().splitlines())
    assert (line["diverged"], line["thresholding"]) == ("in epoch 1", "")
    assert not (folder.path / "conv4.png").exists()


def test_what_was_cut_off_while_a_grid_was_begun_is_begun_again(tmp_path):
    (tmp_path / "grid.json.partial").write_text("{")
    assert Grid(tmp_path, {"version": "1"}).records(all_cells()) == []
    assert json.loads((tmp_path / "grid.json").read_text())["version"] == "1"


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
    groups = runner._groups(range(seeds), devices, per_device)
    assert [(list(group), share) for group, share in groups] == expected


def test_a_recipe_is_all_that_the_runs_share():
    paper = table1_layout.recipe("paper", {"dataset": "digits"})
    assert paper["aslp"]["mask_lr"] == 50 and paper["aslp"]["epochs"] == 120
    assert not {"seed", "arch", "rescale", "data_dir"} & set(paper["aslp"])
    fast = table1_layout.recipe("fast", {"dataset": "digits", "temperature": 0.3})
    assert fast["aslp"]["optimiser"] == "adam"
    assert fast["aslp"]["temperature"] == 0.3
    assert fast["edge_popup"]["temperature"] == 1.0
    # The preset standardises augmented images alone.
    plain = table1_layout.recipe("released_code", {"standardise": False})
    assert plain != table1_layout.recipe("released_code", {})
    assert "plain" not in plain["aslp"]
    always = table1_layout.recipe("released_code", {"standardise": True})
    released = table1_layout.recipe("released_code", {})
    assert always != released
    assert released["aslp"]["plain"] == {"standardise": False}


def test_a_recipe_says_which_layers_have_signed_constants():
    four = {
        name: value
        for name, value in PRESETS["released_code"].items()
        if name != "signed_constant"
    }
    alike = table1_layout.recipe("paper", {**four, "standardise": False})
    other = table1_layout.recipe("released_code", {"standardise": False})
    assert [made["aslp"].pop("signed_constant") for made in (alike, other)] == [
        "all",
        "conv",
    ]
    assert alike["aslp"] == other["aslp"]


def test_signed_constants_lie_where_the_preset_says():
    popup = Cell("conv2", False, "edge_popup", "none", True)
    normal = Cell("conv2", False, "aslp", "none", False)
    for preset, cell, expected in (
        ("released_code", ASLP, "conv"),
        ("released_code", normal, "none"),
        ("paper", popup, "all"),
        (None, ASLP, "all"),
    ):
        assert table1_layout.configure(preset, {}, cell, 0).signed_constant == expected


def test_progress_of_a_log_is_a_line_a_group(tmp_path):
    now = [0.0]
    with (tmp_path / "log").open("w+") as file:
        progress = GridProgress(file, runs=3, clock=lambda: now[0])
        progress.group("conv4 seeds 0, 1", 2, 12)
        progress.step(3, 1, 4, 100.0)
        now[0] = 60.0
        progress.step(12, 4, 4, 100.0)
        progress.finished("98.0%, 97.0%")
        progress.group("conv4 seed 2", 1, 12)
        now[0] = 90.0
        progress.finished("96.0%")
        progress.close()
        file.seek(0)
        assert file.read().splitlines() == [
            "run 2/3  conv4 seeds 0, 1  98.0%, 97.0%  about 30s left",
            "run 3/3  conv4 seed 2  96.0%  all done in 1m30s",
        ]


class Terminal(io.StringIO):
    """A file that says it is a terminal."""

    def isatty(self):
        return True


def test_progress_of_a_terminal_is_a_line_that_is_rewritten(monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    file, now = Terminal(), [0.0]
    progress = GridProgress(file, runs=4, clock=lambda: now[0])

    def shown():
        text = file.getvalue()
        file.seek(0)
        file.truncate()
        return text

    progress.close()
    assert shown() == ""  # there is no line to end
    progress.note("4 runs to make")
    assert shown() == "\r4 runs to make\x1b[K\n"
    progress.group("conv4 seed 0", 1, 10)
    now[0] = 10.0
    progress.finished("98.0%")
    assert shown() == "\rrun 1/4  conv4 seed 0  98.0%  about 30s left\x1b[K\n"
    progress.group("conv4 seeds 1, 2", 2, 10)
    now[0] = 21.0
    progress.step(6, 1, 2, 4321.0)
    assert shown() == (
        "\rrun 2/4  conv4 seeds 1, 2  epoch 6/10  4,321 images/s  about 19s left\x1b[K"
    )
    now[0] = 21.1  # too soon
    progress.step(6, 2, 2, 4321.0)
    assert shown() == ""
    monkeypatch.setenv("COLUMNS", "20")
    now[0] = 22.0
    progress.step(6, 2, 2, 4321.0)
    assert shown() == "\rrun 2/4  conv4 seed\x1b[K"
    progress.close()
    assert shown() == "\n"
    progress.finished("97.0%, 96.0%")
    shown()
    progress.close()
    assert shown() == ""


# The report.


def record(cell, seed, thresholding, averaging=None, keep=0.5, best=10):
    averaging = thresholding if averaging is None else averaging
    result = {
        "stochastic": cell.method != "edge_popup",
        "thresholding": thresholding,
        "averaging_mean": averaging,
        "best_validation_accuracy": thresholding,
        "keep_fraction": keep,
        "best_epoch": best,
    }
    rows = [{"epoch": e, "validation_accuracy": thresholding} for e in (1, 2)]
    return Record(cell, seed, result, rows)


def test_numbers_stand_beside_the_papers():
    records = [record(ASLP, 0, 0.85, 0.80), record(ASLP, 1, 0.87, 0.82)]
    averaging, thresholding = table1_report.make_entries(records, "cifar10")
    assert (averaging.evaluation, averaging.paper) == ("averaging", 84.1)
    assert (thresholding.evaluation, thresholding.paper) == ("thresholding", 84.8)
    assert thresholding.column == "wr_sc"
    assert averaging.accuracies == pytest.approx([80.0, 82.0])
    assert thresholding.accuracies == pytest.approx([85.0, 87.0])
    assert table1_report._cell_text(thresholding, 2) == "86.0 ± 1.4 (84.8, +1.2)"
    assert table1_report._cell_text(thresholding, 5).endswith("+1.2), n=2")
    line = table1_report._entry_line(thresholding)
    assert (line["mean"], line["std"], line["difference"]) == ("86.00", "1.41", "1.20")


def test_other_rescales_and_data_sets_have_no_number_of_the_paper():
    dynamic = Cell("conv4", True, "aslp", "dynamic", True)
    entries = table1_report.make_entries([record(dynamic, 0, 0.8)], "cifar10")
    assert {entry.paper for entry in entries} == {None}
    assert table1_report._row_name(entries[0]) == "ASLP, dynamic, averaging"
    entries = table1_report.make_entries([record(ASLP, 0, 0.8)], "digits")
    assert {entry.paper for entry in entries} == {None}


def test_a_method_that_draws_nothing_has_one_evaluation():
    popup = Cell("conv4", True, "edge_popup", "fan", True)
    (entry,) = table1_report.make_entries([record(popup, 0, 0.8)], "cifar10")
    assert (entry.evaluation, entry.paper) == ("deterministic", 80.5)


def test_a_run_that_diverged_is_counted_and_left_out():
    lost = Record(ASLP, 1, {"stochastic": True, "diverged": "in epoch 2"}, [])
    entries = table1_report.make_entries([record(ASLP, 0, 0.8), lost], "digits")
    assert [(entry.accuracies, entry.diverged) for entry in entries] == 2 * [
        ([80.0], 1)
    ]
    assert table1_report._cell_text(entries[0], 2) == "80.0, 1 diverged"
    line = table1_report._entry_line(entries[0])
    assert (line["mean"], line["seeds"], line["diverged"]) == ("80.00", 1, 1)
    alone = table1_report.make_entries([lost, lost], "digits")
    assert [table1_report._cell_text(entry, 2) for entry in alone] == 2 * [
        "diverged (2)"
    ]
    line = table1_report._entry_line(alone[0])
    assert (line["mean"], line["std"], line["seeds"]) == ("", "", 0)


def test_each_network_and_kind_of_images_has_a_table_of_its_own():
    records = [
        record(Cell("conv4", True, "supermask", "dynamic", True), 0, 0.5),
        record(Cell("conv4", True, "edge_popup", "fan", True), 0, 0.6),
        Record(
            Cell("conv4", True, "edge_popup", "fan", True),
            1,
            {"stochastic": False, "diverged": "in epoch 2"},
            [],
        ),
        record(Cell("conv4", False, "edge_popup", "fan", True), 0, 0.7),
        record(Cell("conv4", True, "edge_popup", "none", False), 0, 0.8),
    ]
    text = table1_report.markdown(
        table1_report.make_entries(records, "digits"), records, "digits"
    )
    head = ["", "| method | none | WR | SC | WR + SC |", "|---|---|---|---|---|"]
    begin = text.index("## Conv4")
    assert text[begin : text.index("## Epochs")].splitlines() == [
        "## Conv4, without augmentation",
        *head,
        "| Edge-popup |  |  |  | 70.0, n=1 |",
        "",
        "## Conv4, with augmentation",
        *head,
        "| Edge-popup | 80.0, n=1 |  |  | 60.0, 1 diverged |",
        "| Supermask, averaging |  |  |  | 50.0, n=1 |",
        "| Supermask, thresholding |  |  |  | 50.0, n=1 |",
        "",
    ]


def test_epochs_are_compared_between_runs_of_aslp_that_differ_in_rescale_alone():
    lost = Record(ASLP, 1, {"stochastic": True, "diverged": "in epoch 2"}, [])
    records = [
        record(ASLP, 0, 0.9, best=50),
        lost,
        record(Cell("conv4", True, "aslp", "none", True), 0, 0.8, best=100),
        record(Cell("conv4", True, "aslp", "none", False), 0, 0.8, best=10),
        record(Cell("conv4", True, "supermask", "none", True), 0, 0.8, best=10),
        record(Cell("conv2", True, "supermask", "none", True), 0, 0.8, best=10),
        record(Cell("conv2", True, "supermask", "smart", True), 0, 0.8, best=10),
    ]
    assert table1_report._epochs_table(records)[2:] == [
        "| Conv4 | yes | yes | 100.0 ± 0.0 | 50.0 ± 0.0 | 50.0 % |"
    ]


def verdicts(records):
    return {claim: verdict for claim, _, verdict in table1_claims.claims(records)}


def test_claims_follow_the_pairs():
    other = Cell("conv4", True, "supermask", "dynamic", True)
    better = [record(ASLP, seed, 0.9 + 0.001 * seed) for seed in range(4)]
    worse = [record(other, seed, 0.95, 0.8) for seed in range(4)]
    claim = "ASLP (thresholding) is above supermask (averaging)"
    assert verdicts([*better, *worse])[claim] == "holds"
    assert verdicts(better)[claim] == "not measured"
    assert verdicts([better[0], worse[0]])[claim] == "not measured"
    flipped = [record(ASLP, seed, 0.7 + 0.001 * seed) for seed in range(4)]
    assert verdicts([*flipped, *worse])[claim] == "does not hold"
    noise = [record(ASLP, seed, 0.8 + 0.1 * (-1) ** seed) for seed in range(4)]
    assert verdicts([*noise, *worse])[claim] == "does not hold (no difference)"


def test_claims_on_rescale_epochs_and_kept_fraction():
    none = Cell("conv4", True, "aslp", "none", True)
    records = [
        *(record(ASLP, s, 0.9 + 0.01 * s, 0.88, 0.5, 50 + s) for s in range(3)),
        *(record(none, s, 0.8, 0.81, 0.505, 90) for s in range(3)),
    ]
    found = verdicts(records)
    assert found["smart rescale helps the deeper networks (Conv4, Conv6)"] == "holds"
    assert found["smart rescale saves epochs to the best accuracy"] == "holds"
    kept = "the kept fraction stays near 50 % (ASLP, mean within 49 to 51 %)"
    assert found[kept] == "holds"
    for keep in (0.4, 0.6):
        assert verdicts([record(ASLP, 0, 0.9, keep=keep)])[kept] == "does not hold"
    text = table1_report.markdown(
        table1_report.make_entries(records, "digits"), records, "digits"
    )
    assert "| Conv4 | yes | yes | 90.0 ± 0.0 | 51.0 ± 1.0 | 43.3 % |" in text
    assert "## Conv4, with augmentation" in text


def test_each_claim_is_of_its_own_pairs():
    records = [
        record(Cell(arch, True, method, rescale, True), seed, *numbers)
        for arch in ("conv2", "conv4")
        for seed, below, keep in ((0, 0.02, 0.485), (1, -0.03, 0.505))
        for method, rescale, *numbers in (
            ("aslp", "smart", 0.9, 0.9 - below, keep, 50),
            ("aslp", "none", 0.8, 0.8 - below, keep, 90),
            ("aslp", "dynamic", 0.4, 0.4 - below, keep, 20),
            ("supermask", "dynamic", 0.3, 0.6, 0.9, 5),
            ("supermask", "smart", 0.2, 0.1, 0.9, 5),
            ("edge_popup", "fan", 0.7, 0.7, 0.9, 5),
        )
    ]
    exact = "± 0.00 {} (standard error), higher in {} pairs"
    found = [line[1:] for line in table1_claims.claims(records)]
    assert found[:6] == [
        ("+30.00 " + exact.format("points", "4 of 4"), "holds"),
        ("+20.00 " + exact.format("points", "4 of 4"), "holds"),
        ("+10.00 " + exact.format("points", "2 of 2"), "holds"),
        ("-0.50 ± 0.75 points (standard error), higher in 6 of 12 pairs", "holds"),
        ("49.5 ± 1.0 %, 48.5 to 50.5; 6 of 12 runs within", "holds"),
        ("+40.00 " + exact.format("epochs", "4 of 4"), "holds"),
    ]


@pytest.mark.parametrize(
    ("differences", "more", "at_least"),
    [
        ([1.0, 2.0, 3.0, 0.0], "holds", "holds"),
        ([0.0, 2.0, 3.0, -1.0], "does not hold (no difference)", "holds"),
        ([0.0, 0.0, 0.0, 0.0], "does not hold (no difference)", "holds"),
        ([0.0, -2.0, -3.0, 1.0], "does not hold (no difference)", "holds"),
        ([-1.0, -2.0, -3.0, 0.0], "does not hold", "does not hold"),
    ],
)
def test_a_claim_holds_beyond_two_standard_errors(differences, more, at_least):
    assert seed_statistics.verdict(differences)[1] == more
    assert seed_statistics.verdict(differences, at_least=True)[1] == at_least


def test_evidence_is_the_mean_its_error_and_how_many_are_higher():
    evidence, _ = seed_statistics.verdict([1.0, 2.0, 3.0, 0.0])
    assert evidence == "+1.50 ± 0.65 points (standard error), higher in 3 of 4 pairs"


@pytest.fixture
def drawn(monkeypatch):
    """The figures that were saved."""
    figures = []

    def keep(self, file, **_):
        figures.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    return figures


def curve(cell, seed, *accuracies):
    rows = [{"validation_accuracy": accuracy} for accuracy in accuracies]
    return Record(cell, seed, {}, rows)


def test_a_picture_has_a_panel_for_each_column_and_a_line_for_each_method(
    tmp_path, drawn
):
    records = [
        curve(ASLP, 0, 0.5, 0.6, 0.7),
        curve(ASLP, 1, 0.7, 0.8),  # stopped early
        curve(ASLP, 2),
        curve(Cell("conv4", True, "aslp", "dynamic", True), 0, 0.1, 0.1),
        curve(Cell("conv4", True, "edge_popup", "fan", True), 0, 0.3),
        curve(Cell("conv4", False, "edge_popup", "none", False), 0, 0.2),
    ]
    table1_picture.plot(records, tmp_path / "conv4.png", "conv4")
    assert [path.name for path in tmp_path.iterdir()] == ["conv4.png"]
    (figure,) = drawn
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["Edge-popup", "ASLP"]  # as they were drawn
    panels = {axes.get_title(): axes for axes in figure.axes}
    assert {title: len(axes.lines) for title, axes in panels.items()} == {
        "none, not augmented": 1,
        "WR + SC, not augmented": 0,
        "none, augmented": 0,
        "WR + SC, augmented": 2,
    }
    aslp, popup = panels["WR + SC, augmented"].lines
    np.testing.assert_allclose(aslp.get_xydata(), [[1, 60], [2, 70]])
    np.testing.assert_allclose(popup.get_xydata(), [[1, 30]])
    assert aslp.get_color() != popup.get_color()
    assert popup.get_marker() == "o"  # or one epoch would not be seen
    (band,) = panels["WR + SC, augmented"].collections[0].get_paths()
    low, high = band.vertices[:, 1].min(), band.vertices[:, 1].max()
    assert (low, high) == pytest.approx((60 - 200**0.5, 70 + 200**0.5))


def test_a_picture_is_of_one_network(tmp_path, drawn):
    folder = Grid(tmp_path / "grid", {})
    fill(folder, Cell("conv2", True, "aslp", "none", False), 0)
    fill(folder, ASLP, 0)
    table1_report.write(folder, "digits")
    titles = [[axes.get_title() for axes in figure.axes] for figure in drawn]
    assert titles == [["none, augmented"], ["WR + SC, augmented"]]


def test_csv_has_a_header_and_plain_line_ends():
    assert seed_statistics.csv_text([{"a": 1, "b": 2}]) == "a,b\n1,2\n"
    assert seed_statistics.csv_text([]) == ""


def test_the_report_is_written_whole(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    for seed in (0, 1):
        fill(folder, ASLP, seed, **record(ASLP, seed, 0.9).result)
    table1_report.write(folder, "digits")
    names = {path.name for path in folder.path.iterdir()}
    assert names == {
        "grid.json",
        "cells",
        "runs.csv",
        "table1.csv",
        "table1.md",
        "conv4.png",
    }
    lines = list(csv.DictReader((folder.path / "runs.csv").read_text().splitlines()))
    assert [line["seed"] for line in lines] == ["0", "1"]
    assert (lines[0]["arch"], lines[0]["augment"]) == ("conv4", "yes")
    assert (folder.path / "conv4.png").read_bytes().startswith(b"\x89PNG")


def test_a_grid_without_runs_says_so(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    table1_report.write(folder, "digits")
    assert "No run is finished yet." in (folder.path / "table1.md").read_text()


# The program.

EPOCHS = 4  # the schedule is compiled in: all runs take as many and share programs
RUN = f"--dataset digits --batch-size 320 --epochs {EPOCHS} --eval-samples 2"
SMALL = f"{RUN} --archs conv2 --methods aslp --rescales none --cells *-plain-*-sc"


@pytest.fixture
def start(tmp_path, program_flags):
    """Starts a program in a process of its own."""

    def begin(line: str, program: Path = PROGRAM) -> subprocess.Popen:
        return subprocess.Popen(
            [sys.executable, str(program), *line.split()],
            cwd=tmp_path,
            env={**os.environ, "XLA_FLAGS": program_flags, "JAX_PLATFORMS": "cpu"},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return begin


def end(child: subprocess.Popen) -> tuple[int, str, str]:
    out, err = child.communicate(timeout=150)
    return child.returncode, out, err


TIMES = {"seconds", "images_per_second"}


def metrics(folder: Path) -> list[dict]:
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    return [
        {name: value for name, value in json.loads(line).items() if name not in TIMES}
        for line in lines
    ]


@pytest.mark.program
def test_a_grid_from_first_run_to_last(tmp_path, start):
    line = f"{SMALL} --seeds 2"
    code, out, err = end(start(line))
    assert code == 0, err
    made = tmp_path / "runs" / "table1-digits"
    assert out == (made / "table1.md").read_text()
    assert "2 runs to make, 0 finished before" in err
    cells = made / "cells"
    names = [f"conv2-plain-aslp-none-sc-seed{seed}" for seed in (0, 1)]
    assert sorted(path.name for path in cells.iterdir()) == names
    assert not (cells / names[0] / "checkpoints").exists()

    # The seeds that went through one program are what each is alone.
    alone = (
        f"{RUN} --preset fast --arch conv2 --rescale none --no-augment --seed 1 "
        "--out alone --devices 1"
    )
    code, _, err = end(start(alone, PROGRAM.with_name("cifar.py")))
    assert code == 0, err
    assert metrics(tmp_path / "alone") == metrics(cells / names[1])
    assert metrics(cells / names[0]) != metrics(cells / names[1])

    # Again: nothing to do, nothing changed; another recipe is refused.
    before = {path: path.read_bytes() for path in made.glob("*.csv")}
    code, _, err = end(start(line))
    assert code == 0 and "0 runs to make, 2 finished before" in err
    assert before == {path: path.read_bytes() for path in made.glob("*.csv")}
    code, _, err = end(start(f"{line} --mask-lr 3"))
    assert code == 2 and "holds a grid with options aslp mask_lr 0.5, not 3.0" in err
    assert len(err.splitlines()) == 1


@pytest.mark.program
def test_a_grid_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path, start):
    line = f"{SMALL} --seeds 1"
    child = start(f"{line} --out stopped")
    name = "conv2-plain-aslp-none-sc-seed0"
    folder = tmp_path / "stopped" / "cells" / name
    while not (folder / "metrics.jsonl").exists():
        assert child.poll() is None
        time.sleep(0.01)
    child.send_signal(signal.SIGTERM)
    code, _, err = end(child)
    assert code == 143, err
    assert "stopped by SIGTERM, all is saved; the same command goes on" in err
    done = len(metrics(folder))
    assert 0 < done < EPOCHS

    # The clock stops it too, here before anything more is done.
    code, _, err = end(start(f"{line} --out stopped --minutes 0.001"))
    assert code == 0, err
    assert "stopped by the time limit, all is saved" in err
    assert len(metrics(folder)) == done

    # A folder that was cut off while it was made is made anew.
    whole = tmp_path / "whole" / "cells" / name
    whole.mkdir(parents=True)
    (whole / "config.json.partial").write_text("{")
    shutil.copy(tmp_path / "stopped" / "grid.json", tmp_path / "whole")
    for out in ("stopped", "whole"):
        code, _, err = end(start(f"{line} --out {out}"))
        assert code == 0, err
    assert len(metrics(folder)) == EPOCHS
    assert metrics(folder) == metrics(whole)


# Recipes side by side.


def test_recipes_are_compared_by_epochs(tmp_path, capsys):
    curves = {"paper": [0.2, 0.85, 0.9, 0.8], "fast": [0.5, 0.8], "poor": [0.1, 0.2]}
    for name, accuracies in curves.items():
        folder = Grid(tmp_path / name, {})
        for seed in (0, 1):
            # One goes on for longer; what all have counts.
            values = accuracies if seed else [*accuracies, 0.99]
            rows = [{"epoch": 1, "validation_accuracy": value} for value in values]
            fill(
                folder,
                ASLP,
                seed,
                best_validation_accuracy=max(accuracies),
                thresholding=max(accuracies) - 0.01 * seed,
                epochs=len(rows),
                seconds=60.0,
            )
            lines = "".join(json.dumps(row) + "\n" for row in rows)
            (folder.folder(ASLP, seed) / "metrics.jsonl").write_text(lines)
        fill(folder, ASLP, 2, diverged="in epoch 2")
        fill(folder, Cell("conv4", True, "aslp", "none", True), 0)
    recipes = [f"{name}={tmp_path / name}" for name in curves]
    out = tmp_path / "new" / "out"
    assert compare.main([*recipes, "--cell", ASLP.name, "--out", str(out)]) == 0
    assert capsys.readouterr().out == (out / "compare.md").read_text()
    lines = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert [line["epochs_to_reference"] for line in lines] == ["2", "2", ""]
    assert [line["validation_end"] for line in lines] == ["80.0", "80.0", "20.0"]
    assert [line["test_mean"] for line in lines] == ["89.5", "79.5", "19.5"]
    assert (
        "| poor | 2 | 3 | 20.0 | 20.0 ± 0.0 | 19.5 ± 0.7 | not reached | 1m00s |"
        in (out / "compare.md").read_text()
    )
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")


def test_the_end_of_a_curve_is_its_last_tenth():
    assert compare._level(range(20)) == 18.5
    assert compare._level(range(9)) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fast", "--cell", ASLP.name], "fast is not NAME=GRID"),
        ([], "the following arguments are required: NAME=GRID, --cell"),
        (["a=nowhere", "--cell", ASLP.name], "nowhere is not the folder of a grid"),
        (["a=nowhere", "--cell", "x"], "--cell x is none of the cells"),
    ],
)
def test_recipes_that_cannot_be_compared(arguments, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        compare.main([*arguments, "--out", str(tmp_path)])


def test_a_grid_that_is_damaged_is_not_compared(tmp_path):
    folder = Grid(tmp_path / "a", {})
    fill(folder, ASLP, 3)
    line = [f"a={tmp_path / 'a'}", "--cell", ASLP.name, "--out", str(tmp_path / "out")]
    (folder.folder(ASLP, 3) / "metrics.jsonl").write_text("")
    with pytest.raises(BadInput, match=r"has no metrics of .*, seed 3"):
        compare.main(line)
    (folder.folder(ASLP, 3) / "metrics.jsonl").write_text('{"validation_accuracy": 1}')
    (tmp_path / "a" / "grid.json").write_text("{")
    with pytest.raises(BadInput, match=r"grid\.json is damaged"):
        compare.main(line)


def test_grids_of_different_images_and_names_given_twice_are_not_compared(tmp_path):
    for name, images in (("a", "1"), ("b", "2")):
        folder = Grid(tmp_path / name, {"dataset": "digits", "images_sha256": images})
        fill(folder, ASLP, 0)
    rest = ["--cell", ASLP.name, "--out", str(tmp_path / "out")]
    a, b = (f"{name}={tmp_path / name}" for name in "ab")
    with pytest.raises(BadInput, match="of different images"):
        compare.main([a, b, *rest])
    with pytest.raises(BadInput, match="names a recipe twice"):
        compare.main([a, a, *rest])
    other = Cell("conv4", True, "aslp", "none", True).name
    with pytest.raises(BadInput, match=f"has no finished run of {other}"):
        compare.main([a, "--cell", other, *rest[2:]])
