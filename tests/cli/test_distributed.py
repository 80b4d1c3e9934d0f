"""Runs of several processes, each with CPU devices of its own, joined by gloo."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import PIL.Image
import pytest

from aslp_jax import artefact
from aslp_jax._errors import BadInput
from aslp_jax.cli import _distributed
from aslp_jax.cli.arguments import Command
from aslp_jax.cli.main import main
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.run_folder import RunFolder
from aslp_jax.trainer.tensorboard import EVENTS

ROOT = Path(__file__).parents[2]

PROGRAM = (sys.executable, "-m", "aslp_jax", "train")

pytestmark = [pytest.mark.program, pytest.mark.slow]


class Group:
    """Processes of one run."""

    def __init__(self, processes: list[subprocess.Popen]) -> None:
        self.processes = processes

    def end(self) -> list[tuple[int, str, str]]:
        """Exit code, standard output and standard error of each process."""
        return [
            (process.wait(), out, err)
            for process in self.processes
            for out, err in [process.communicate(timeout=120)]
        ]


@pytest.fixture(scope="module")
def options(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    cache = tmp_path_factory.mktemp("cache")
    line = "--arch conv2 --batch-size 8 --eval-samples 2 --logit-std 1 --no-augment "
    return [*line.split(), "--data", str(images), "--cache-dir", str(cache)]


@pytest.fixture(scope="module")
def start(program_flags: str) -> Iterator[Callable[..., Group]]:
    """Starts `aslp-jax train` in several processes."""
    begun: list[subprocess.Popen] = []

    def start(
        arguments: list[str], *, processes: int, devices: int, host: str = "localhost"
    ) -> Group:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            address = f"{host}:{free.getsockname()[1]}"
        count = f"--xla_force_host_platform_device_count={devices}"
        environment = {
            **os.environ,
            "XLA_FLAGS": f"{program_flags} {count}",
            "PYTHONPATH": str(ROOT),
        }
        shared = ["--distributed", "--coordinator", address, "--join-seconds", "120"]
        shared += ["--processes", str(processes)]
        group = [
            subprocess.Popen(
                [*PROGRAM, *arguments, *shared, "--process-index", str(index)],
                env=environment,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for index in range(processes)
        ]
        begun.extend(group)
        return Group(group)

    yield start
    for process in begun:
        if process.poll() is None:
            process.kill()
        process.wait()


@pytest.fixture(scope="module")
def two_by_two(start, options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Run of two processes with two devices each, which spread the weights."""
    folder = tmp_path_factory.mktemp("runs") / "two"
    arguments = [*options, "--epochs", "2", "--shard", "params", "--tensorboard"]
    arguments += ["--out", str(folder)]
    first, second = start(arguments, processes=2, devices=2).end()
    assert (first[0], second[0]) == (0, 0), first[2] + second[2]
    assert "test accuracy" in first[1] and "[Gloo]" not in first[1] + first[2]
    assert re.search(
        "4.4 MB a device, 1.1 MB for the state; without .* 4.4 MB", first[2]
    )
    assert (folder / EVENTS).is_dir()
    assert second[1:] == ("", ""), "the first process alone prints"
    return folder


@pytest.fixture(scope="module")
def alone(options, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same run in one process with four devices, each with all weights."""
    folder = tmp_path_factory.mktemp("runs") / "alone"
    assert main(["train", *options, "--epochs", "2", "--out", str(folder)]) == 0
    return folder


def rows(folder: Path) -> list[dict[str, Any]]:
    text = (folder / "metrics.jsonl").read_text()
    return [json.loads(line) for line in text.split("\n")[:-1]]


def assert_alike(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    for name in ("keep_fraction", "keep_fractions", "flip_rate", "step"):
        assert ours[name] == theirs[name], name
    for name in ("train_loss", "validation_loss"):
        np.testing.assert_allclose(ours[name], theirs[name], rtol=1e-5)


def test_two_processes_are_one_run(two_by_two: Path, alone: Path) -> None:
    for ours, theirs in zip(rows(two_by_two), rows(alone), strict=True):
        assert_alike(ours, theirs)
    found, expected = (
        json.loads((folder / "result.json").read_text())
        for folder in (two_by_two, alone)
    )
    assert (found["processes"], found["devices"]) == (2, 4)
    assert (expected["processes"], expected["devices"]) == (1, 4)
    for name in ("thresholding", "averaging_mean", "connectivity"):
        assert found[name] == expected[name]
    np.testing.assert_allclose(found["test_loss"], expected["test_loss"], rtol=1e-5)
    ours, theirs = (
        artefact.load(each / artefact.NETWORK).variables["params"]
        for each in (two_by_two, alone)
    )
    assert jax.tree.all(
        jax.tree.map(lambda a, b: np.array_equal(a != 0, b != 0), ours, theirs)
    ), "the same weights are kept"


def test_two_processes_stream_their_shares(start, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for label, kind in enumerate(("dark", "light")):
        (tmp_path / "images" / kind).mkdir(parents=True)
        for index in range(30):
            pixels = rng.integers(0, 128, (8, 8), np.uint8) + np.uint8(100 * label)
            path = tmp_path / "images" / kind / f"{index}.png"
            PIL.Image.fromarray(pixels).save(path)
    line = "--arch conv2 --batch-size 8 --eval-samples 2 --logit-std 1 --epochs 2"
    options = [*line.split(), "--stream", "--image-size", "8"]
    options += ["--data", str(tmp_path / "images")]
    two, alone = ["--out", str(tmp_path / "two")], ["--out", str(tmp_path / "alone")]
    for code, _, said in start([*options, *two], processes=2, devices=2).end():
        assert code == 0, said
    assert main(["train", *options, *alone]) == 0
    found, expected = (rows(tmp_path / name) for name in ("two", "alone"))
    for ours, theirs in zip(found, expected, strict=True):
        assert_alike(ours, theirs)


def wait_for_epoch(folder: Path, group: Group) -> None:
    deadline = time.monotonic() + 120
    while not (folder / "metrics.jsonl").exists():
        assert time.monotonic() < deadline
        assert all(process.poll() is None for process in group.processes)
        time.sleep(0.1)


@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_lost_ends_the_others(
    lost: int, start, options, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    line = "--epochs 100000 --patience 100000 --checkpoint-seconds 0 --shard "
    line += ["none", "params"][lost]
    arguments = [*options, *line.split(), "--out", str(folder)]
    group = start(arguments, processes=2, devices=2)
    wait_for_epoch(folder, group)
    group.processes[lost].kill()
    began = time.monotonic()
    code, _, err = group.end()[1 - lost]
    assert time.monotonic() - began < 60
    assert code == 5
    last = err.splitlines()[-1]
    assert last.startswith("aslp-jax: another process of this run ended")
    assert "***" not in err and "absl" not in err
    if lost == 0:
        assert err.count("\n") == 1

    # Goes on with one process, and other devices.
    done = len(rows(folder))
    line = f"--resume --devices 1 --epochs {done + 1} --patience 100000 --out"
    assert main(["train", *line.split(), str(folder)]) == 0
    assert json.loads((folder / "result.json").read_text())["devices"] == 1
    assert len(rows(folder)) == done + 1


def test_two_processes_resume_and_a_signal_to_one_stops_both(
    two_by_two: Path, alone: Path, start
) -> None:
    line = "--resume --epochs 100000 --patience 100000 --out"
    group = start([*line.split(), str(two_by_two)], processes=2, devices=1)
    while len(rows(two_by_two)) < 4:
        assert all(process.poll() is None for process in group.processes)
        time.sleep(0.1)
    group.processes[1].send_signal(signal.SIGTERM)
    (first, _, err), (second, *printed) = group.end()
    assert (first, second) == (143, 143)
    assert err.splitlines()[-1].startswith("aslp-jax: stopped by SIGTERM, all is saved")
    assert printed == ["", ""]
    line = "--resume --epochs 3 --no-report --out"
    assert main(["train", *line.split(), str(alone)]) == 0
    assert_alike(rows(two_by_two)[2], rows(alone)[2])


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ("--batch-size 9", "--batch-size 9 is not divisible by the 2 processes"),
        ("--devices 1", "--devices 1 is not divisible by the 2 processes"),
        ("--out .", "is not empty"),
    ],
)
def test_what_all_processes_refuse(
    more: str, words: str, start, options, tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "run")]
    if more == "--out .":
        out, more = ["--out", str(ROOT)], ""
    # They have joined before they refuse, here by IPv6 if there is any.
    host = "[::1]" if socket.has_dualstack_ipv6() else "localhost"
    group = start([*options, *more.split(), *out], processes=2, devices=2, host=host)
    ended = group.end()
    assert [code for code, *_ in ended] == [2, 2]
    assert words in ended[0][2] and ended[0][2].count("\n") == 1
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no launcher that JAX knows"),
        ("--processes 2", "give --coordinator HOST:PORT, --process-index N (JAX"),
        (
            "--coordinator localhost:1 --processes 2 --process-index 1 "
            "--join-seconds 2",
            "did not all join at localhost:1 within 2 s",
        ),
    ],
)
def test_processes_that_find_no_others(
    line: str, words: str, options, tmp_path: Path
) -> None:
    out = ["--out", str(tmp_path / "run")]
    ended = subprocess.run(
        [*PROGRAM, *options, "--distributed", *line.split(), *out],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 2, ended.stderr
    assert words in ended.stderr and ended.stderr.count("\n") == 1
    assert not (tmp_path / "run").exists()


def test_a_port_that_is_in_use(options, tmp_path: Path) -> None:
    with socket.create_server(("localhost", 0)) as other:
        address = f"localhost:{other.getsockname()[1]}"
        line = f"--distributed --coordinator {address} --processes 2 --process-index 0"
        ended = subprocess.run(
            [*PROGRAM, *options, *line.split(), "--out", str(tmp_path / "run")],
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
        )
    assert ended.returncode == 2, ended.stderr
    assert f"--coordinator {address}: process 0 cannot open" in ended.stderr
    assert "Address already in use" in ended.stderr
    assert ended.stderr.count("\n") == 1


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here")
def test_a_port_that_is_in_use_of_ipv6_alone() -> None:
    with socket.create_server(("::1", 0), family=socket.AF_INET6) as other:
        address = f"[::1]:{other.getsockname()[1]}"
        with pytest.raises(BadInput, match="process 0 cannot open this port here"):
            _distributed._check_port(address)
    _distributed._check_port(address)


def test_a_process_that_has_loaded_jax_is_not_forked(
    options, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", *options, "--distributed"]) == 2
    assert "JAX is loaded in this process already" in capsys.readouterr().err


def test_what_the_first_process_tells_the_others() -> None:
    config, path = Config(dataset="digits", seed=3), Path("elsewhere")
    versions = {"aslp-jax": "1.0", "jax": "0.10"}
    sent = Command(config, RunFolder(Path("run")), resume=True)
    text = _distributed._described(sent, versions)
    found = _distributed._told(text, versions, path)
    assert found is not None
    assert (found.config, found.resume, found.first) == (config, True, False)
    assert found.folder.path == path
    assert _distributed._told("null", versions, path) is None
    with pytest.raises(BadInput, match=r"process 0 has jax 0.10, this one 0.9"):
        _distributed._told(text, {**versions, "jax": "0.9"}, path)
