"""The grid of table 1: its cells, its folder, its report, and the program itself."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import compare
import config
import grid
import grid_training
import pytest
import table1
import table1_claims
import table1_layout
import table1_report
from config import BadInput
from grid import Cell, Grid, Record
from grid_training import GridProgress

PROGRAM = Path(config.__file__).parent / "table1.py"
ASLP = Cell("conv4", True, "aslp", "smart", True)


# Cells.


def test_every_cell_means_something_and_has_a_name_of_its_own():
    cells = grid.all_cells()
    assert len(cells) == len({cell.name for cell in cells}) == 96
    assert {cell.rescale for cell in cells if cell.method == "edge_popup"} == {
        "none",
        "fan",
    }
    assert ASLP in cells and ASLP.name == "conv4-augmented-aslp-smart-sc"
    for cell in cells:
        chosen = grid.configure("fast", {"dataset": "digits"}, cell, 3)
        assert (chosen.arch, chosen.method, chosen.rescale, chosen.seed) == (
            cell.arch,
            cell.method,
            cell.rescale,
            3,
        )
        assert chosen.augment == cell.augment
        assert chosen.signed_constant == ("all" if cell.signed_constant else "none")


def test_an_option_of_one_method_reaches_that_method_alone():
    chosen = {"keep_fraction": 0.3, "temperature": 0.5}
    popup = Cell("conv2", False, "edge_popup", "fan", True)
    assert grid.configure(None, chosen, popup, 0).keep_fraction == 0.3
    assert grid.configure(None, chosen, ASLP, 0).temperature == 0.5


def test_cells_of_the_paper_come_first():
    options = vars(table1._parser().parse_args([]))
    cells = table1._choose(options)
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
        ("--methods aslp --keep-fraction 0.3", "--keep-fraction means nothing to aslp"),
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
    path = tmp_path / "grid"
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
    (tmp_path / "grid.json").write_text("{")
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
    found = [(record.cell, record.seed) for record in folder.records()]
    assert found == [(popup, 0), (ASLP, 2), (ASLP, 10)]
    assert folder.record(ASLP, 3) is None
    for text in ("{", '{"stochastic": true}'):
        (folder.folder(ASLP, 2) / "result.json").write_text(text)
        with pytest.raises(BadInput, match="seed2 is damaged; delete it"):
            folder.records()


def test_a_run_that_diverged_in_its_first_epoch_has_no_metrics(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    path = folder.folder(ASLP, 0)
    path.mkdir(parents=True)
    lost = {"stochastic": True, "diverged": "in epoch 1"}
    (path / "result.json").write_text(json.dumps(lost))
    assert folder.records() == [Record(ASLP, 0, lost, [])]
    table1_report.write(folder, "digits")
    assert "| diverged (1) |" in (folder.path / "table1.md").read_text()
    assert not (folder.path / "conv4.png").exists()


def test_what_was_cut_off_while_a_grid_was_begun_is_begun_again(tmp_path):
    (tmp_path / "grid.json.partial").write_text("{")
    assert Grid(tmp_path, {"version": "1"}).records() == []
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
    groups = grid_training._groups(range(seeds), devices, per_device)
    assert [(list(group), share) for group, share in groups] == expected


def test_a_recipe_is_all_that_the_runs_share():
    paper = grid.recipe("paper", {"dataset": "digits"})
    assert paper["aslp"]["mask_lr"] == 50 and paper["aslp"]["epochs"] == 120
    assert not {"seed", "arch", "rescale", "data_dir"} & set(paper["aslp"])
    fast = grid.recipe("fast", {"dataset": "digits", "keep_fraction": 0.3})
    assert fast["aslp"]["optimiser"] == "adam"
    assert fast["aslp"]["keep_fraction"] == 0.5
    assert fast["edge_popup"]["keep_fraction"] == 0.3


def test_signed_constants_lie_where_the_preset_says():
    popup = Cell("conv2", False, "edge_popup", "none", True)
    normal = Cell("conv2", False, "aslp", "none", False)
    for preset, cell, expected in (
        ("released_code", ASLP, "conv"),
        ("released_code", normal, "none"),
        ("paper", popup, "all"),
        (None, ASLP, "all"),
    ):
        assert grid.configure(preset, {}, cell, 0).signed_constant == expected


def test_progress_of_a_log_is_a_line_a_group(tmp_path):
    now = [0.0]
    with (tmp_path / "log").open("w+") as file:
        progress = GridProgress(file, runs=3, clock=lambda: now[0])
        progress.group("conv4 seeds 0, 1", 2, 12)
        progress.step(3, 1, 4, 100.0)
        now[0] = 60.0
        progress.finished("98.0%, 97.0%")
        progress.group("conv4 seed 2", 1, 12)
        now[0] = 90.0
        progress.finished("96.0%")
        file.seek(0)
        assert file.read().splitlines() == [
            "run 2/3  conv4 seeds 0, 1  98.0%, 97.0%  about 30s left",
            "run 3/3  conv4 seed 2  96.0%  all done in 1m30s",
        ]


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
    alone = table1_report.make_entries([lost, lost], "digits")
    assert [table1_report._cell_text(entry, 2) for entry in alone] == 2 * [
        "diverged (2)"
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
    assert verdicts([record(ASLP, 0, 0.9, keep=0.6)])[kept] == "does not hold"
    text = table1_report.markdown(
        table1_report.make_entries(records, "digits"), records, "digits"
    )
    assert "| Conv4 | yes | yes | 90.0 ± 0.0 | 51.0 ± 1.0 | 43.3 % |" in text
    assert "## Conv4, with augmentation" in text


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
    assert (folder.path / "conv4.png").read_bytes().startswith(b"\x89PNG")


def test_a_grid_without_runs_says_so(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    table1_report.write(folder, "digits")
    assert "No run is finished yet." in (folder.path / "table1.md").read_text()


# The program.

SMALL = (
    "--dataset digits --archs conv2 --methods aslp --rescales none --seeds 2 "
    "--batch-size 320 --epochs 2 --eval-samples 2 --cells *-plain-*-sc"
)


def start(line: str, home: Path, program: Path = PROGRAM) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, str(program), *line.split()],
        cwd=home,
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_backend_optimization_level=0",
            "JAX_PLATFORMS": "cpu",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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
def test_a_grid_from_first_run_to_last(tmp_path):
    code, out, err = end(start(SMALL, tmp_path))
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
        "--preset fast --dataset digits --arch conv2 --rescale none --no-augment "
        "--seed 1 --batch-size 320 --epochs 2 --eval-samples 2 --out alone --devices 1"
    )
    code, _, err = end(start(alone, tmp_path, PROGRAM.with_name("cifar.py")))
    assert code == 0, err
    assert metrics(tmp_path / "alone") == metrics(cells / names[1])
    assert metrics(cells / names[0]) != metrics(cells / names[1])

    # Again: nothing to do, nothing changed; another recipe is refused.
    before = {path: path.read_bytes() for path in made.glob("*.csv")}
    code, _, err = end(start(SMALL, tmp_path))
    assert code == 0 and "0 runs to make, 2 finished before" in err
    assert before == {path: path.read_bytes() for path in made.glob("*.csv")}
    code, _, err = end(start(f"{SMALL} --mask-lr 3", tmp_path))
    assert code == 2 and "holds a grid with options aslp mask_lr 0.5, not 3.0" in err
    assert len(err.splitlines()) == 1


@pytest.mark.program
def test_a_grid_that_was_stopped_goes_on_as_if_it_had_not_been(tmp_path):
    epochs = 6
    line = f"{SMALL.replace('--epochs 2', f'--epochs {epochs}')} --seeds 1"
    child = start(f"{line} --out stopped", tmp_path)
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
    assert 0 < done < epochs

    # The clock stops it too, here before anything more is done.
    code, _, err = end(start(f"{line} --out stopped --minutes 0.001", tmp_path))
    assert code == 0, err
    assert "stopped by the time limit, all is saved" in err
    assert len(metrics(folder)) == done

    # A folder that was cut off while it was made is made anew.
    whole = tmp_path / "whole" / "cells" / name
    whole.mkdir(parents=True)
    (whole / "config.json.partial").write_text("{")
    shutil.copy(tmp_path / "stopped" / "grid.json", tmp_path / "whole")
    for out in ("stopped", "whole"):
        code, _, err = end(start(f"{line} --out {out}", tmp_path))
        assert code == 0, err
    assert len(metrics(folder)) == epochs
    assert metrics(folder) == metrics(whole)


# Recipes side by side.


def test_recipes_are_compared_by_epochs(tmp_path, capsys):
    curves = {"paper": [0.2, 0.5, 0.9, 0.8], "fast": [0.5, 0.9], "poor": [0.1, 0.2]}
    for name, accuracies in curves.items():
        folder = Grid(tmp_path / name, {})
        for seed in (0, 1):
            rows = [{"epoch": 1, "validation_accuracy": value} for value in accuracies]
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
    recipes = [f"{name}={tmp_path / name}" for name in curves]
    out = tmp_path / "out"
    assert compare.main([*recipes, "--cell", ASLP.name, "--out", str(out)]) == 0
    assert capsys.readouterr().out == (out / "compare.md").read_text()
    lines = list(csv.DictReader((out / "compare.csv").read_text().splitlines()))
    assert [line["epochs_to_reference"] for line in lines] == ["3", "2", ""]
    assert [line["validation_end"] for line in lines] == ["80.0", "90.0", "20.0"]
    assert [line["test_mean"] for line in lines] == ["89.5", "89.5", "19.5"]
    assert (
        "| poor | 2 | 2 | 20.0 | 20.0 ± 0.0 | 19.5 ± 0.7 | not reached | 1m00s |"
        in (out / "compare.md").read_text()
    )
    assert (out / "compare.png").read_bytes().startswith(b"\x89PNG")


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
