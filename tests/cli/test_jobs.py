"""Grids whose runs are commands of their own: `--print-jobs` and `--job`."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from aslp_jax._claim import claim
from aslp_jax._errors import BadInput
from aslp_jax.cli import table1
from aslp_jax.cli.main import main
from tests.cli.runs import same_runs
from tests.sweeps.helpers import promotion_as_for_users

ROOT = Path(__file__).parents[2]
OPTIONS = (
    "--archs conv2 --methods aslp --rescales none --cells *-plain-*-sc "
    "--epochs 1 --seeds 2 --batch-size 8 --eval-samples 2"
)
FIRST = "conv2-plain-aslp-none-sc-seed0"


def printed(form: str, line: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert table1.main([*line.split(), "--print-jobs", form]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    return out


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--print-jobs slurm --job 1", "--print-jobs and --job exclude each other"),
        ("--cpus-per-run 2", "--cpus-per-run needs --cluster or --print-jobs"),
        ("--print-jobs kubernetes", "needs --out /VOLUME/FOLDER, the full path"),
        ("--print-jobs kubernetes --out /runs", "needs --out /VOLUME/FOLDER"),
        ("--print-jobs kubernetes --out /runs/..", "needs --out /VOLUME/FOLDER"),
        ("--print-jobs kubernetes --out /runs/../a", "needs --out /VOLUME/FOLDER"),
        (
            "--print-jobs kubernetes --out /runs/a --minutes 5",
            "--minutes and --print-jobs kubernetes exclude each other",
        ),
        ("--job x", "--job: must be a whole number from 0, got x"),
        ("--job 480", "--job 480: the jobs of this grid are 0 to 479"),
        ("--print-jobs shell --mask-lr -1", "--mask-lr must be above 0"),
        ("--print-jobs csh", "choose from .*shell.*slurm.*kubernetes"),
    ],
)
def test_bad_input_is_one_line(line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message) as raised:
        table1.main([*line.split(), "--dataset", "digits"])
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_a_job_repeats_the_command_but_for_where_it_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "--dataset digits --cells conv2-plain-aslp-* --seeds 5 --per-device 2"
    lines = printed("shell", f"{line} --out=a --cpus-per-run 3", capsys).splitlines()
    cells = len(table1.choose_cells(vars(table1.parser().parse_args(line.split()))))
    assert len(lines) == 3 * cells, "seeds 0 and 1, 2 and 3, 4 of each cell"
    start = "aslp-jax table1 --dataset digits --cells 'conv2-plain-aslp-*' --seeds 5 "
    assert lines[7] == f"{start}--per-device 2 --out {tmp_path}/a --job 7"


def test_slurm_takes_the_script(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    line = "--dataset digits --cells conv2-plain-aslp-* --cpus-per-run 3"
    script = printed("slurm", f"{line} --gpus-per-run 1", capsys)
    subprocess.run(["bash", "-n"], input=script, text=True, check=True)
    head, *_, last = script.splitlines()
    assert head == "#!/bin/bash"
    for option in ("--array=0-29", "--cpus-per-task=3", "--gpus-per-task=1"):
        assert f"#SBATCH {option}\n" in script
    # As Slurm starts it: the last line becomes the command of one job.
    shown = subprocess.run(
        ["bash", "-c", last.replace("exec ", "printf '%s|' ")],
        env={"SLURM_ARRAY_TASK_ID": "4"},
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    words = ["aslp-jax", "table1", "--dataset", "digits", "--cells"]
    words += ["conv2-plain-aslp-*", "--out", f"{tmp_path}/runs/table1-digits"]
    assert shown.split("|") == [*words, "--job", "4", ""]


def test_kubernetes_takes_the_job(capsys):
    line = "--dataset digits --cells conv2-plain-aslp-* --out /data/My_grid"
    job = yaml.safe_load(printed("kubernetes", line, capsys))
    assert (job["apiVersion"], job["kind"]) == ("batch/v1", "Job")
    assert job["metadata"]["name"] == "my-grid"
    spec = job["spec"]
    assert spec["completionMode"] == "Indexed" and spec["completions"] == 30
    assert spec["backoffLimitPerIndex"] > 0, "needs completionMode: Indexed"
    pod = spec["template"]["spec"]
    # podFailurePolicy and backoffLimitPerIndex are refused with any other policy.
    assert pod["restartPolicy"] == "Never"
    (container,) = pod["containers"]
    rule, _ = spec["podFailurePolicy"]["rules"]
    assert rule["onExitCodes"]["containerName"] == container["name"]
    assert rule["onExitCodes"]["values"] == [2]
    assert all(isinstance(word, str) for word in container["command"])
    assert container["command"][-2:] == ["--job", "$(JOB_COMPLETION_INDEX)"]
    assert container["resources"]["limits"] == {"cpu": "1"}
    (mount,), (volume,) = container["volumeMounts"], pod["volumes"]
    assert mount == {"name": volume["name"], "mountPath": "/data"}


def test_a_folder_of_any_name_reaches_the_jobs(capsys):
    folder = '/data/it\'s "$HOME" $$(A) $(B)\t${C} `d` \N{SNAKE}\N{DEGREE SIGN}'
    options = ["--dataset", "digits", "--cells", "conv2-plain-aslp-*", "--out", folder]

    assert table1.main([*options, "--print-jobs", "shell"]) == 0
    line, *_ = capsys.readouterr().out.splitlines()
    script = line.replace("aslp-jax", "printf '%s|'", 1)
    shown = subprocess.run(["bash", "-c", script], capture_output=True, check=True)
    assert shown.stdout.decode().split("|")[-4] == folder

    assert table1.main([*options, "--print-jobs", "kubernetes"]) == 0
    job = yaml.safe_load(capsys.readouterr().out)
    (container,) = job["spec"]["template"]["spec"]["containers"]
    variables = {"A": "a", "B": "b", "JOB_COMPLETION_INDEX": "7"}
    words = [expanded(word, variables) for word in container["command"]]
    assert words[-3:] == [folder, "--job", "7"]


def expanded(word: str, variables: dict[str, str]) -> str:
    """A word of a command as a pod gets it: $$ is a $, $(NAME) a variable."""
    return re.sub(
        r"\$\$|\$\((\w+)\)",
        lambda found: "$" if found[1] is None else variables[found[1]],
        word,
    )


# Training.


@pytest.fixture(scope="module")
def line(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    cache = tmp_path_factory.mktemp("cache")
    return [*OPTIONS.split(), "--data", str(images), "--cache-dir", str(cache)]


@pytest.fixture(scope="module")
def whole(line, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The grid, trained by one program."""
    folder = tmp_path_factory.mktemp("grids") / "whole"
    with promotion_as_for_users():
        assert main(["table1", *line, "--out", str(folder)]) == 0
    return folder


@pytest.mark.slow
def test_jobs_fill_the_folder_of_a_grid(line, whole, tmp_path, capsys) -> None:
    grid = tmp_path / "grid"
    command = ["table1", *line, "--out", str(grid), "--job"]
    with promotion_as_for_users():
        assert main([*command, "1"]) == 0
        out, err = capsys.readouterr()
        assert out == "" and err.endswith(f"{grid}: 1 run left to other jobs\n")
        assert not (grid / "table1.md").exists()

        # Two started by mistake: the second stops, and does not advise to delete.
        with claim(grid / "cells" / FIRST):
            assert main([*command, "0"]) == 2
            last = capsys.readouterr().err.splitlines()[-1]
            assert "is being written by process" in last and "delete" not in last

        (grid / "conv2.png.0a1b2c3d").touch()  # of a process that was killed
        assert main([*command, "0"]) == 0
    assert {path.name for path in grid.iterdir()} == {
        path.name for path in whole.iterdir()
    }
    _, err = capsys.readouterr()
    assert err.endswith(f"all runs are finished; the report is {grid}/table1.md\n")
    same_runs(grid, whole)
    for name in ("table1.md", "table1.csv"):
        assert (grid / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.program
@pytest.mark.slow
def test_the_printed_commands_make_the_table(
    line, whole, tmp_path, capsys, program_flags
) -> None:
    grid = tmp_path / "grid"
    command = ["table1", *line, "--out", str(grid), "--print-jobs", "shell"]
    assert main(command) == 0
    commands = capsys.readouterr().out.splitlines()
    assert len(commands) == 2
    environment: dict[str, Any] = {
        **os.environ,
        "XLA_FLAGS": program_flags,
        "PYTHONPATH": str(ROOT),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }
    # Both at once: they make the folder and write the report side by side.
    processes = [
        subprocess.Popen(each, shell=True, env=environment, stderr=subprocess.PIPE)
        for each in commands
    ]
    for process in processes:
        _, err = process.communicate(timeout=300)
        assert process.returncode == 0, err.decode()
    same_runs(grid, whole)
    for name in ("table1.md", "table1.csv"):
        assert (grid / name).read_bytes() == (whole / name).read_bytes()
    assert not (grid / "lock.json").exists()
    assert f"--out {grid}</code>" in (grid / "report.html").read_text()
