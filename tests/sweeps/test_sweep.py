"""A sweep as a whole; its commands are tested in tests/cli/test_sweeps.py."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from aslp_jax._errors import BadInput
from aslp_jax.data import datasets
from aslp_jax.sweeps import sweep
from aslp_jax.sweeps.grid import Grid
from aslp_jax.sweeps.table1 import cells, page, report
from tests.sweeps.helpers import ASLP, write_run


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="counts all cores")
def test_a_cpu_takes_part_as_one_device_a_core_and_seed():
    code = (
        "import jax; from aslp_jax.sweeps.sweep import use_cores; use_cores(2); "
        "print(jax.local_device_count()); use_cores(1); print(jax.local_device_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    # Devices that have been started stay.
    expected = str(min(2, len(os.sched_getaffinity(0))))
    assert done.stdout.split() == [expected, expected]


def test_a_cell_gets_the_options_that_its_method_knows():
    shared = {"mask_lr": 0.25, "weight_lr": 0.125, "rescale": "smart"}
    own = {"arch": "conv2", "dataset": "digits", "seed": 3}
    found = sweep.cell_config("fast", shared, {**own, "method": "aslp"})
    assert (found.mask_lr, found.rescale) == (0.25, "smart")
    found = sweep.cell_config("fast", shared, {**own, "method": "magnitude"})
    assert (found.weight_lr, found.rescale) == (0.125, "none")


def plan(folder: Path, *, page_wanted: bool = True, **options) -> sweep.Plan:
    """A grid of one cell of table 1."""
    table = sweep.Table(
        report.NAME, [ASLP], cells.configure, cells.settings, report.write, page.write
    )
    schedule = sweep.Schedule(seeds=2, report=page_wanted)
    return sweep.plan(table, "fast", {"dataset": "digits", **options}, schedule, folder)


def test_a_grid_of_an_older_version_has_the_settings_of_this_one(tmp_path):
    digits = datasets.load("digits")
    alike = plan(tmp_path).settings(digits)
    Grid(tmp_path / "grid", alike)
    assert "ema_decay" in plan(tmp_path).shared["aslp"]
    assert "ema_decay" not in alike["options"]["aslp"]
    other = plan(tmp_path, ema_decay=0.5).settings(digits)
    with pytest.raises(BadInput, match=r"options aslp ema_decay None, not 0\.5"):
        Grid(tmp_path / "grid", other)


def test_what_a_killed_process_left_is_deleted(tmp_path):
    left = ("conv4.png.0a1b2c3d", "table1.md.partial", "report.html.partial")
    others = ("mine.png.0a1b2c3d", "conv4.png")
    for name in (*left, *others):
        (tmp_path / name).touch()
    sweep.clear(plan(tmp_path))
    assert {path.name for path in tmp_path.iterdir()} == {*others}


def test_without_a_page_an_earlier_one_is_deleted(tmp_path):
    grid = Grid(tmp_path / "grid", {})
    write_run(grid, ASLP, 0)
    sweep.write_reports(plan(grid.path), grid)
    assert (grid.path / "report.html").exists()
    write_run(grid, ASLP, 1)
    sweep.write_reports(plan(grid.path, page_wanted=False), grid)
    assert not (grid.path / "report.html").exists()
    assert (grid.path / "runs.csv").read_text().count("\n") == 3
