"""Folder of a grid."""

import json
import shutil

import pytest

from aslp_jax._errors import BadInput
from aslp_jax.sweeps.grid import Grid
from aslp_jax.sweeps.table1.cells import Cell, all_cells
from tests.sweeps.helpers import ASLP, write_run


def test_a_grid_of_another_recipe_is_left_alone(tmp_path):
    path = tmp_path / "new" / "grid"
    Grid(path, {"version": "1", "preset": "fast"})
    before = (path / "grid.json").read_bytes()
    Grid(path, {"version": "1", "preset": "fast"})
    for settings, words in (
        ({"version": "2", "preset": "fast"}, "version '1', not '2'"),
        ({"version": "1", "preset": "paper"}, "preset 'fast', not 'paper'"),
        ({"version": "1", "preset": "fast", "epochs": 3}, "epochs None, not 3"),
        ({"version": "1", "preset": {"aslp": 3}}, "preset 'fast', not None"),
    ):
        with pytest.raises(BadInput, match=words):
            Grid(path, settings)
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


def test_finished_runs_are_found_in_the_order_of_the_cells(tmp_path):
    folder = Grid(tmp_path / "grid", {})
    popup = Cell("conv2", True, "edge_popup", "none", True)
    for cell, seed in ((ASLP, 10), (ASLP, 2), (popup, 0)):
        write_run(folder, cell, seed, thresholding=0.5)
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
    write_run(folder, ASLP, 7)
    for number in ("007", "²", "x"):
        path = folder.folder(ASLP, 7).with_name(f"{ASLP.name}-seed{number}")
        shutil.copytree(folder.folder(ASLP, 7), path)
    assert [record.seed for record in folder.records(all_cells())] == [7]


def test_what_was_cut_off_while_a_grid_was_begun_is_begun_again(tmp_path):
    (tmp_path / "grid.json.partial").write_text("{")
    assert Grid(tmp_path, {"version": "1"}).records(all_cells()) == []
    assert json.loads((tmp_path / "grid.json").read_text())["version"] == "1"
