"""Kills: a grid that lost, repeated or changed a run is found out."""

import json
import shutil
from pathlib import Path

import pytest

from benchmarks import cluster_kills


def write_grid(folder: Path) -> None:
    for seed in range(2):
        run = folder / "cells" / f"cell-seed{seed}"
        run.mkdir(parents=True)
        result = {"thresholding": 0.5, "seconds": float(len(str(folder)))}
        (run / "result.json").write_text(json.dumps(result))
        (run / "metrics.jsonl").write_text('{"epoch": 1, "images_per_second": 2.0}\n')
        about = {"device": "1 x cpu", "commit": None, "versions": {}, "resumed": [{}]}
        (run / "config.json").write_text(json.dumps(about))
        (run / "network.aslp").write_bytes(bytes([seed]))
    (folder / "table1.csv").write_text("a,b\n1,2\n")
    (folder / "runs.csv").write_text("seed,seconds\n0,1.0\n1,1.5\n")


def lose(folder: Path) -> None:
    shutil.rmtree(folder / "cells" / "cell-seed1")


def repeat(folder: Path) -> None:
    (folder / "runs.csv").write_text("seed,seconds\n0,1.0\n1,1.5\n1,1.5\n")


def change(folder: Path) -> None:
    (folder / "cells" / "cell-seed0" / "network.aslp").write_bytes(b"other")


def mend(folder: Path) -> None:
    (folder / "table1.csv").write_text("a,b\n1,3\n")


@pytest.mark.parametrize(
    ("harm", "missed"),
    [
        (None, set()),
        (lose, {"runs lost", "runs that differ"}),
        (repeat, {"runs counted twice", "lines of runs.csv that differ"}),
        (change, {"runs that differ"}),
        (mend, {"tables that differ"}),
    ],
)
def test_what_kills_changed_is_found(harm, missed, tmp_path):
    for name in ("calm", "killed"):
        write_grid(tmp_path / name)
    if harm is not None:
        harm(tmp_path / "killed")
    printed = ["run 1/2  cell seed 0", "run 2/2  cell seed 1", "all else"]
    claims, facts = cluster_kills.compare(
        tmp_path / "calm", tmp_path / "killed", 10 * [{}], printed
    )
    assert {claim.text for claim in claims if not claim.met} == missed
    assert facts["runs"] == 2
    (claim, *_), _ = cluster_kills.compare(
        tmp_path / "calm", tmp_path / "killed", 9 * [{}], printed
    )
    assert not claim.met
