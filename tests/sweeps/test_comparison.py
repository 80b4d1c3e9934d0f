"""Comparison of one cell in several grids."""

import csv

import pytest

from aslp_jax._errors import BadInput
from aslp_jax.cli import compare
from aslp_jax.sweeps import comparison
from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.table1.cells import Cell
from tests.sweeps.helpers import ASLP, write_run
from tests.webpage import pages


def test_grids_are_compared_by_epochs(tmp_path, capsys):
    curves = {"paper": [0.2, 0.85, 0.9, 0.8], "fast": [0.5, 0.8], "poor": [0.1, 0.2]}
    for name, accuracies in curves.items():
        folder = Grid(tmp_path / name, {})
        for seed in (0, 1):
            # One goes on for longer; what all have counts.
            values = accuracies if seed else [*accuracies, 0.99]
            rows = [
                {"epoch": epoch, "validation_accuracy": value}
                for epoch, value in enumerate(values, 1)
            ]
            write_run(
                folder,
                ASLP,
                seed,
                rows,
                best_validation_accuracy=max(accuracies),
                thresholding=max(accuracies) - 0.01 * seed,
                epochs=len(rows),
                seconds=60.0,
            )
        write_run(folder, ASLP, 2, diverged="in epoch 2")
        write_run(folder, Cell("conv4", True, "aslp", "none", True), 0)
    grids = [f"{name}={tmp_path / name}" for name in curves]
    out = tmp_path / "new" / "out"
    assert compare.main([*grids, "--cell", ASLP.name, "--out", str(out)]) == 0
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
    page = pages.check((out / "report.html").read_text())
    (found,) = pages.tables(page).values()
    for row, line in zip(found, lines, strict=True):
        shown = {name.replace("_", " "): value for name, value in line.items()}
        interval = row.pop("test, 95 % interval")
        assert row == shown
        # Student's t of 97.5 % for one degree of freedom.
        half = 12.7062 * float(line["test_std"]) / 2**0.5
        low, high = map(float, interval.split(" to "))
        assert high - low == pytest.approx(2 * half, abs=0.02)
        assert (low + high) / 2 == pytest.approx(float(line["test_mean"]), abs=0.01)


def test_the_report_on_a_grid_is_not_replaced_by_a_comparison(tmp_path):
    folder = Grid(tmp_path / "a", {})
    write_run(folder, ASLP, 0)
    line = [f"a={folder.path}", "--cell", ASLP.name, "--out", str(folder.path)]
    with pytest.raises(BadInput, match=r"holds a grid\.json, and its report"):
        compare.main(line)
    assert compare.main([*line, "--no-report"]) == 0
    assert not (folder.path / "report.html").exists()


def test_the_end_of_a_curve_is_its_last_tenth():
    assert comparison.final_level(range(20)) == 18.5
    assert comparison.final_level(range(9)) == 8


@pytest.mark.parametrize(("epochs", "scale"), [(12, "linear"), (40, "log")])
def test_the_plot_of_many_epochs_has_a_logarithmic_axis(
    epochs, scale, tmp_path, monkeypatch
):
    figures = []
    monkeypatch.setattr(
        comparison, "save_figure", lambda figure, _: figures.append(figure)
    )
    rows = [{"validation_accuracy": 0.5}] * epochs
    runs = {"few": [Record(ASLP, 0, {}, rows[:2])], "many": [Record(ASLP, 0, {}, rows)]}
    comparison.plot(runs, tmp_path / "compare.png", "A title")
    (axes,) = figures[0].axes
    assert axes.get_xscale() == scale
    labels = [text.get_text() for text in axes.get_legend().get_texts()]
    assert labels == ["few (1 seed)", "many (1 seed)"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fast", "--cell", ASLP.name], "fast is not NAME=GRID"),
        ([], "the following arguments are required: NAME=GRID, --cell"),
        (["a=nowhere", "--cell", ASLP.name], "nowhere is not the folder of a grid"),
        (["a=nowhere", "--cell", "x"], "--cell x is none of the cells"),
    ],
)
def test_grids_that_cannot_be_compared(arguments, message, tmp_path):
    with pytest.raises(BadInput, match=message):
        compare.main([*arguments, "--out", str(tmp_path)])


def test_a_grid_that_is_damaged_is_not_compared(tmp_path):
    folder = Grid(tmp_path / "a", {})
    write_run(folder, ASLP, 3)
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
        write_run(folder, ASLP, 0)
    rest = ["--cell", ASLP.name, "--out", str(tmp_path / "out")]
    a, b = (f"{name}={tmp_path / name}" for name in "ab")
    with pytest.raises(BadInput, match="of different images"):
        compare.main([a, b, *rest])
    with pytest.raises(BadInput, match="names a grid twice"):
        compare.main([a, a, *rest])
    other = Cell("conv4", True, "aslp", "none", True).name
    with pytest.raises(BadInput, match=f"has no finished run of {other}"):
        compare.main([a, "--cell", other, *rest[2:]])
