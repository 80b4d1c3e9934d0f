"""Table 1: cells, claims, report and plots."""

import csv
import json

import numpy as np
import pytest
from matplotlib.figure import Figure

from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.report import csv_text
from aslp_jax.sweeps.table1 import cells, claims, page, plot, report
from aslp_jax.sweeps.table1.cells import Cell, all_cells
from aslp_jax.trainer.presets import PRESETS
from tests.sweeps.helpers import ASLP, diverged, write_run
from tests.webpage import pages


def test_every_cell_means_something_and_has_a_name_of_its_own():
    every = all_cells()
    assert len(every) == len({cell.name for cell in every}) == 144
    assert {cell.rescale for cell in every if cell.method == "edge_popup"} == {
        "none",
        "fan",
    }
    assert ASLP in every and ASLP.name == "conv4-augmented-aslp-smart-sc"
    for cell in every:
        chosen = cells.configure("fast", {"dataset": "digits"}, cell, 3)
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
    assert cells.configure(None, chosen, popup, 0).weight_decay == 0.3
    assert cells.configure(None, chosen, ASLP, 0).temperature == 0.5


def test_a_recipe_is_all_that_the_runs_share():
    paper = cells.settings("paper", {"dataset": "digits"})
    assert paper["aslp"]["mask_lr"] == 50 and paper["aslp"]["epochs"] == 120
    assert not {"seed", "arch", "rescale", "data_dir"} & set(paper["aslp"])
    fast = cells.settings("fast", {"dataset": "digits", "temperature": 0.3})
    assert fast["aslp"]["optimiser"] == "adam"
    assert fast["aslp"]["temperature"] == 0.3
    assert fast["edge_popup"]["temperature"] == 1.0
    # The preset standardises augmented images alone.
    plain = cells.settings("released_code", {"standardise": False})
    assert plain != cells.settings("released_code", {})
    assert "plain" not in plain["aslp"]
    always = cells.settings("released_code", {"standardise": True})
    released = cells.settings("released_code", {})
    assert always != released
    assert released["aslp"]["plain"] == {"standardise": False}


def test_a_recipe_says_which_layers_have_signed_constants():
    four = {
        name: value
        for name, value in PRESETS["released_code"].items()
        if name != "signed_constant"
    }
    alike = cells.settings("paper", {**four, "standardise": False})
    other = cells.settings("released_code", {"standardise": False})
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
        assert cells.configure(preset, {}, cell, 0).signed_constant == expected


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
    averaging, thresholding = report.table_numbers(records, "cifar10")
    assert (averaging.evaluation, averaging.score.paper) == ("averaging", 84.1)
    assert (thresholding.evaluation, thresholding.score.paper) == ("thresholding", 84.8)
    assert thresholding.cell.column == "wr_sc"
    assert averaging.score.accuracies == pytest.approx([80.0, 82.0])
    assert thresholding.score.accuracies == pytest.approx([85.0, 87.0])
    assert report.cell_text(thresholding.score, 2) == "86.0 ± 1.4 (84.8, +1.2)"
    assert report.cell_text(thresholding.score, 5).endswith("+1.2), n=2")
    line = report.number_line(thresholding)
    assert (line["mean"], line["std"], line["difference"]) == ("86.00", "1.41", "1.20")


def test_other_rescales_and_data_sets_have_no_number_of_the_paper():
    dynamic = Cell("conv4", True, "aslp", "dynamic", True)
    numbers = report.table_numbers([record(dynamic, 0, 0.8)], "cifar10")
    assert {each.score.paper for each in numbers} == {None}
    assert report.row_name(numbers[0]) == "ASLP, dynamic, averaging"
    numbers = report.table_numbers([record(ASLP, 0, 0.8)], "digits")
    assert {each.score.paper for each in numbers} == {None}


def test_a_method_that_samples_nothing_has_one_evaluation():
    popup = Cell("conv4", True, "edge_popup", "fan", True)
    (number,) = report.table_numbers([record(popup, 0, 0.8)], "cifar10")
    assert (number.evaluation, number.score.paper) == ("deterministic", 80.5)


def test_a_run_that_diverged_is_counted_and_left_out():
    lost = diverged(ASLP, 1)
    numbers = report.table_numbers([record(ASLP, 0, 0.8), lost], "digits")
    assert [(each.score.accuracies, each.score.diverged) for each in numbers] == 2 * [
        ([80.0], 1)
    ]
    assert report.cell_text(numbers[0].score, 2) == "80.0, 1 diverged"
    line = report.number_line(numbers[0])
    assert (line["mean"], line["seeds"], line["diverged"]) == ("80.00", 1, 1)
    alone = report.table_numbers([lost, lost], "digits")
    assert [report.cell_text(each.score, 2) for each in alone] == 2 * ["diverged (2)"]
    line = report.number_line(alone[0])
    assert (line["mean"], line["std"], line["seeds"]) == ("", "", 0)


def test_a_run_that_diverged_in_its_first_epoch_has_no_metrics(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    path = folder.folder(ASLP, 0)
    path.mkdir(parents=True)
    lost = {"stochastic": True, "diverged": "in epoch 1"}
    (path / "result.json").write_text(json.dumps(lost))
    assert folder.records(all_cells()) == [Record(ASLP, 0, lost, [])]
    report.write(folder, "digits")
    assert "| diverged (1) |" in (folder.path / "table1.md").read_text()
    (line,) = csv.DictReader((folder.path / "runs.csv").read_text().splitlines())
    assert (line["diverged"], line["thresholding"]) == ("in epoch 1", "")
    assert not (folder.path / "conv4.png").exists()


def test_each_network_and_kind_of_images_has_a_table_of_its_own():
    records = [
        record(Cell("conv4", True, "supermask", "dynamic", True), 0, 0.5),
        record(Cell("conv4", True, "edge_popup", "fan", True), 0, 0.6),
        diverged(Cell("conv4", True, "edge_popup", "fan", True), 1, stochastic=False),
        record(Cell("conv4", False, "edge_popup", "fan", True), 0, 0.7),
        record(Cell("conv4", True, "edge_popup", "none", False), 0, 0.8),
    ]
    text = report.markdown(report.table_numbers(records, "digits"), records, "digits")
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
    lost = diverged(ASLP, 1)
    records = [
        record(ASLP, 0, 0.9, best=50),
        lost,
        record(Cell("conv4", True, "aslp", "none", True), 0, 0.8, best=100),
        record(Cell("conv4", True, "aslp", "none", False), 0, 0.8, best=10),
        record(Cell("conv4", True, "supermask", "none", True), 0, 0.8, best=10),
        record(Cell("conv2", True, "supermask", "none", True), 0, 0.8, best=10),
        record(Cell("conv2", True, "supermask", "smart", True), 0, 0.8, best=10),
    ]
    assert report.epochs_table(records)[2:] == [
        "| Conv4 | yes | yes | 100.0 ± 0.0 | 50.0 ± 0.0 | 50.0 % |"
    ]


def verdicts(records):
    return {claim: verdict for claim, _, verdict in claims.claims(records)}


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
    assert verdicts([*noise, *worse])[claim] == "not decided"


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
    text = report.markdown(report.table_numbers(records, "digits"), records, "digits")
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
    exact = "± 0.00 {} (95 % interval, 2 seeds, {} pairs), higher in {}"
    found = [line[1:] for line in claims.claims(records)]
    assert found[:6] == [
        ("+30.00 " + exact.format("points", 4, 4), "holds"),
        ("+20.00 " + exact.format("points", 4, 4), "holds"),
        ("+10.00 " + exact.format("points", 2, 2), "holds"),
        (
            "-0.50 ± 31.77 points (95 % interval, 2 seeds, 12 pairs), higher in 6",
            "not decided",
        ),
        ("49.5 ± 1.0 %, 48.5 to 50.5; 6 of 12 runs within", "holds"),
        ("+40.00 " + exact.format("epochs", 4, 4), "holds"),
    ]


@pytest.fixture
def figures(monkeypatch):
    """The figures that were saved."""
    saved = []

    def keep(self, file, **_):
        saved.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    return saved


def curve(cell, seed, *accuracies):
    rows = [{"validation_accuracy": accuracy} for accuracy in accuracies]
    return Record(cell, seed, {}, rows)


def test_a_plot_has_a_panel_for_each_column_and_a_line_for_each_method(
    tmp_path, figures
):
    records = [
        curve(ASLP, 0, 0.5, 0.6, 0.7),
        curve(ASLP, 1, 0.7, 0.8),  # stopped early
        curve(ASLP, 2),
        curve(Cell("conv4", True, "aslp", "dynamic", True), 0, 0.1, 0.1),
        curve(Cell("conv4", True, "edge_popup", "fan", True), 0, 0.3),
        curve(Cell("conv4", False, "edge_popup", "none", False), 0, 0.2),
    ]
    plot.plot(records, tmp_path / "conv4.png", "conv4")
    assert [path.name for path in tmp_path.iterdir()] == ["conv4.png"]
    (figure,) = figures
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert names == ["Edge-popup", "ASLP"]  # as they were plotted
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


def test_a_plot_is_of_one_network(tmp_path, figures):
    folder = Grid(tmp_path / "grid", {})
    write_run(folder, Cell("conv2", True, "aslp", "none", False), 0)
    write_run(folder, ASLP, 0)
    report.write(folder, "digits")
    titles = [[axes.get_title() for axes in figure.axes] for figure in figures]
    assert titles == [["none, augmented"], ["WR + SC, augmented"]]


def test_csv_has_a_header_and_plain_line_ends():
    assert csv_text([{"a": 1, "b": 2}]) == "a,b\n1,2\n"
    assert csv_text([]) == ""


def test_the_report_is_written_whole(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    for seed in (0, 1):
        write_run(folder, ASLP, seed, **record(ASLP, seed, 0.9).result)
    report.write(folder, "digits")
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


def test_the_page_holds_the_numbers_with_their_intervals(tmp_path):
    folder = Grid(tmp_path / "grid", {"options": {"<b>": None}})
    for seed, accuracy in enumerate((0.9, 0.8, 0.85)):
        write_run(folder, ASLP, seed, **record(ASLP, seed, accuracy).result)
    write_run(folder, ASLP, 3, diverged="in epoch 2")
    report.write(folder, "cifar10")
    page.write(folder, "cifar10")
    found = pages.check((folder.path / "report.html").read_text())
    accuracy, claims, runs, settings = pages.tables(found).values()
    row = accuracy[1]
    assert row["name"] == "conv4-augmented-aslp-smart-sc, thresholding"
    assert (row["mean"], row["std"], row["seeds"]) == ("85.00", "5.00", "3")
    # Student's t of 97.5 % for two degrees of freedom: 4.3027 * 5 / sqrt(3) = 12.42.
    assert row["95 % interval"] == "72.58 to 97.42"
    assert (row["diverged"], row["paper"], row["difference"]) == ("1", "84.8", "0.20")
    assert [each["seed"] for each in runs] == ["0", "1", "2", "3"]
    assert runs[3]["diverged"] == "in epoch 2"
    assert {each["verdict"] for each in claims} >= {"not measured"}
    assert {"setting": "options <b>", "value": "none"} in settings
    (plotted,) = found.all("img")
    assert "Conv4 on cifar10: validation accuracy" in plotted.attributes["alt"]
    assert not found.all("a")  # no run has a report of its own


def test_a_grid_without_runs_says_so(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    report.write(folder, "digits")
    assert "No run is finished yet." in (folder.path / "table1.md").read_text()
