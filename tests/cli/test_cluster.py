"""Grids on a Ray cluster, which here has two nodes on one machine."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import types
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from aslp_jax._errors import BadInput
from aslp_jax._extras import MissingExtra
from aslp_jax.cli import table1
from aslp_jax.cli.main import main
from aslp_jax.sweeps import cluster, worker
from aslp_jax.sweeps.store import Store
from aslp_jax.trainer import loading
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.run_folder import RunFolder
from tests.cli.runs import same_runs
from tests.sweeps.helpers import promotion_as_for_users
from tests.sweeps.stores import SECRET, Server, missing, serving

# Ray starts its processes by a fork, where JAX may be loaded by then.
pytestmark = pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")

ROOT = Path(__file__).parents[2]
CELL = "conv2-plain-aslp-none-sc"
OPTIONS = (
    "--archs conv2 --methods aslp --rescales none --cells *-plain-*-sc "
    "--batch-size 8 --eval-samples 2"
)


# Without Ray.


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("--cluster auto --job 0", "--job and --cluster exclude each other"),
        ("--checkpoints runs", "--checkpoints needs --cluster"),
        ("--gpus-per-run 1", "--gpus-per-run needs --cluster or --print-jobs"),
        ("--cluster node1", "--cluster node1 is no HOST:PORT; .* auto"),
        ("--cluster ::1:6379", "--cluster ::1:6379 is no HOST:PORT; an IPv6 address"),
        ("--cluster [fe80::1]:6379", r"interface, as in \[fe80::1%eth0\]:6379"),
        ("--cluster nowhere.invalid:6379", "no Ray cluster answers there"),
        (
            "--cluster auto --checkpoints hdfs://host/runs",
            "--checkpoints hdfs://... is no folder and no store; name a folder, gs://",
        ),
    ],
)
def test_bad_input_is_one_line(line, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadInput, match=message) as raised:
        table1.main([*line.split(), "--dataset", "digits"])
    assert "\n" not in str(raised.value)
    assert not list(tmp_path.iterdir())


def test_without_ray_a_line_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(MissingExtra) as missing:
        table1.main(["--dataset", "digits", "--cluster", "auto"])
    assert str(missing.value) == (
        '--cluster needs the package ray; pip install "aslp-jax[cluster]"'
    )


IPV6 = pytest.param(
    "::1",
    marks=pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="no IPv6 here"),
)


@pytest.mark.parametrize("host", ["localhost", IPV6])
@pytest.mark.parametrize(
    ("answer", "reason"),
    [(None, "timed out"), (b"HTTP/1.1 400 Bad Request", "another program does")],
)
def test_an_address_that_nobody_answers_is_given_up(answer, reason, host, monkeypatch):
    monkeypatch.setattr(cluster, "_ANSWER_SECONDS", 0.2)

    def serve(listener: socket.socket) -> None:
        connection, _ = listener.accept()
        with connection:
            if answer is not None:
                connection.sendall(answer)
            closed.wait(10)

    closed = threading.Event()
    six = ":" in host
    family = socket.AF_INET6 if six else socket.AF_INET
    with socket.create_server((host, 0), family=family) as listener:
        threading.Thread(target=serve, args=(listener,), daemon=True).start()
        port = listener.getsockname()[1]
        address = f"[{host}]:{port}" if six else f"{host}:{port}"
        with pytest.raises(BadInput, match=f"answers there \\({reason}\\)"):
            table1.main(["--dataset", "digits", "--cluster", address])
        closed.set()
    with pytest.raises(BadInput, match="answers there"):
        table1.main(["--dataset", "digits", "--cluster", address])


def task(**changes: Any) -> dict[str, Any]:
    """A task for digits that was never sent."""
    options = Config(dataset="digits", arch="conv2", seed=0).as_dict()
    return {
        "versions": worker.versions(),
        "command": ["aslp-jax", "table1"],
        "cell": CELL,
        "options": [options | changes.pop("options", {})],
        "settings": {},
        "per_device": 1,
        "report": True,
        "images_sha256": "",
        "labels_sha256": None,
        "out": "/nowhere",
        "out_token": None,
        "checkpoints": None,
        "cpus": 1,
        "gpus": 0,
        **changes,
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"versions": {**worker.versions(), "jax": "0.0.1"}, "later": "unknown"},
            "jax [0-9.]+ is not the driver's 0.0.1; install the same everywhere",
        ),
        (
            {"options": {"dataset": "tiny_imagenet", "manual_dir": "/no/images"}},
            "/no/images",
        ),
        ({"images_sha256": "other"}, "its images of digits are not the driver's"),
    ],
)
def test_a_worker_refuses_what_it_cannot_train(changes, message, monkeypatch):
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    answer = worker.work(task(**changes))
    assert set(answer) == {"refused", "page", "notes"} and not answer["notes"]
    assert answer["refused"].startswith(f"worker {socket.gethostname()}: ")
    assert re.search(message, answer["refused"])


def test_a_worker_refuses_other_labels(images, tmp_path, monkeypatch):
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    options = Config(dataset="own", data=str(images), cache_dir=str(tmp_path), seed=0)
    data = loading.load_dataset(options)
    values = {
        "options": options.as_dict(),
        "images_sha256": data.images_sha256(),
        "labels_sha256": "other",
    }
    answer = worker.work(task(**values))
    assert answer["refused"].endswith("its labels of noise are not the driver's")


@pytest.mark.slow
def test_no_file_names_the_worker_or_its_folder(images, tmp_path, monkeypatch):
    monkeypatch.setenv("NPROC", "1")
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(sys, "argv", ["default_worker.py", "--redis-password=secret"])
    dense = {"method": "magnitude", "rescale": "none", "keep_fraction": 0.1}
    small = {"arch": "conv2", "batch_size": 8, "epochs": 1, "eval_samples": 2}
    options = Config(
        dataset="own",
        data=str(images),
        cache_dir=str(tmp_path),
        weight_lr=1e30,  # the loss becomes NaN
        **dense,
        **small,
    )
    data = loading.load_dataset(options)
    hashes = {
        "images_sha256": data.images_sha256(),
        "labels_sha256": data.labels_sha256(),
    }
    answer = worker.work(task(options=options.as_dict(), **hashes))
    files = answer["runs"][0]
    diverged = json.loads(files["result.json"])["diverged"]
    assert re.fullmatch(r"the loss became \w+ in epoch 1, step \d of 4", diverged)
    command = json.loads(files["config.json"])["command"]
    assert command == ["aslp-jax", "table1"]
    for name, content in files.items():
        assert b"aslp-jax-" not in content and b"secret" not in content, name
    assert sys.argv[0] == "default_worker.py"


# With an object store.


@pytest.fixture(scope="module", params=["s3", "gs"])
def stored(request: pytest.FixtureRequest) -> Iterator[Server]:
    """An object store, to which the environment of workers leads."""
    with serving(request.param) as found:
        yield found


ONLY_S3 = pytest.mark.parametrize("stored", ["s3"], indirect=True)


@pytest.fixture(scope="module")
def one_run(
    images: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, Any]]:
    """A task of one run, which saves a checkpoint each epoch."""
    small = {"arch": "conv2", "batch_size": 8, "epochs": 12, "eval_samples": 2}
    cache = tmp_path_factory.mktemp("cache")
    named = {"dataset": "own", "data": str(images), "cache_dir": str(cache)}
    options = Config(**small, **named, checkpoint_seconds=0.0)
    data = loading.load_dataset(options)
    hashes = {
        "images_sha256": data.images_sha256(),
        "labels_sha256": data.labels_sha256(),
    }
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NPROC", "1")
        patch.setenv("JAX_PLATFORMS", "cpu")
        yield task(options=options.as_dict(), **hashes)


@pytest.fixture(scope="module")
def undisturbed(one_run: dict[str, Any]) -> dict[str, bytes]:
    """Files of this run, without a store."""
    with promotion_as_for_users():
        return worker.work(one_run)["runs"][0]


def stored_rows(store: Store, run: str, folder: Path) -> int:
    """Number of epochs that a store has of a run."""
    with tempfile.TemporaryDirectory(dir=folder) as found:
        store.fetch(Path(found) / run, worker.FILES)
        file = Path(found) / run / "metrics.jsonl"
        return file.read_bytes().count(b"\n") if file.exists() else 0


def numbers(files: dict[str, bytes]) -> list[Any]:
    """All that a run computed, but for times."""
    lines = [files["result.json"], *files["metrics.jsonl"].splitlines()]
    apart = {"seconds", "images_per_second"}
    found = [{k: v for k, v in json.loads(x).items() if k not in apart} for x in lines]
    return [*found, files["network.aslp"]]


def once(true: Callable[[], bool], act: Callable[[], object]) -> threading.Thread:
    """Acts as soon as something is true."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        while not true():
            if time.monotonic() > deadline:
                return
            time.sleep(0.02)
        act()

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


@pytest.fixture
def after_three_epochs(monkeypatch) -> Callable[[Callable[[], object]], None]:
    """Function that lets a run of this process act after its third epoch.

    So the run waits for what is to happen in its middle, however fast it is.
    """

    def arrange(act: Callable[[], object]) -> None:
        append_row, rows = RunFolder.append_row, []

        def append(folder: RunFolder, row: Any) -> None:
            append_row(folder, row)
            rows.append(row)
            if len(rows) == 3:
                act()

        monkeypatch.setattr(RunFolder, "append_row", append)

    return arrange


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 120
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
def test_another_worker_goes_on_from_the_store(
    stored, one_run, undisturbed, tmp_path, after_three_epochs
) -> None:
    uri, run = f"{stored.uri}/grid", f"{CELL}-seed0"
    store, values = Store(uri), {**one_run, "checkpoints": uri}

    def interrupt() -> None:
        wait_until(lambda: stored_rows(store, run, tmp_path) >= 2)
        os.kill(os.getpid(), signal.SIGTERM)

    after_three_epochs(interrupt)
    assert worker.work(values) == {"notes": []}
    begun = stored_rows(store, run, tmp_path)
    assert begun == 3
    answer = worker.work(values)
    assert answer["notes"] == []
    files = answer["runs"][0]
    assert numbers(files) == numbers(undisturbed)
    about = json.loads(files["config.json"])
    assert [each["after_epoch"] for each in about["resumed"]] == [begun]

    # What is finished is not trained again, and nothing names a secret.
    assert worker.work(values)["runs"][0] == files
    store.fetch(tmp_path / run, worker.FILES)
    assert {path.name for path in (tmp_path / run).iterdir()} == {*worker.FILES}
    for content in files.values():
        assert SECRET.encode() not in content


@pytest.mark.slow
def test_a_store_that_fails_ends_no_run(
    one_run, undisturbed, tmp_path, after_three_epochs
) -> None:
    with serving("s3") as server:
        uri = f"{server.uri}/grid"
        store, run = Store(uri), f"{CELL}-seed0"

        def fail() -> None:
            wait_until(lambda: stored_rows(store, run, tmp_path) >= 2)
            server.stop()

        after_three_epochs(fail)
        answer = worker.work({**one_run, "checkpoints": uri})
        assert server.process.poll() is not None
    assert numbers(answer["runs"][0]) == numbers(undisturbed)
    (note,) = answer["notes"]
    assert re.fullmatch(
        rf"worker {socket.gethostname()}: {run}: \d+ of \d+ uploads failed, the run "
        rf"went on \(--checkpoints {uri} cannot be written: .*\)",
        note,
    )


@ONLY_S3
def test_a_worker_without_permission_refuses(stored, one_run, monkeypatch) -> None:
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    answer = worker.work({**one_run, "checkpoints": stored.uri})
    assert answer["refused"].startswith(
        f"worker {socket.gethostname()}: --checkpoints {stored.uri} cannot be used: no "
        "permission, or no credentials"
    )


@ONLY_S3
def test_a_missing_bucket_ends_the_grid_before_ray_starts(
    stored, tmp_path, monkeypatch, capsys
) -> None:
    ray = pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    command = ["table1", "--dataset", "digits", "--cluster", "auto"]
    assert main([*command, "--checkpoints", "s3://no-such-bucket/runs"]) == 2
    assert capsys.readouterr().err.startswith(
        "aslp-jax: --checkpoints s3://no-such-bucket/runs cannot be used: there is no "
        "such bucket ("
    )
    assert not ray.is_initialized() and not list(tmp_path.iterdir())


# With Ray.


@pytest.fixture(scope="module")
def nodes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A head that trains nothing, and two nodes of one CPU."""
    cluster_utils = pytest.importorskip("ray.cluster_utils")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_USAGE_STATS_ENABLED", "0")
        patch.setenv("PYTHONPATH", str(ROOT))
        small = {"object_store_memory": 80 * 2**20, "include_dashboard": False}
        found = cluster_utils.Cluster(
            initialize_head=True, head_node_args={"num_cpus": 0, **small}
        )
        del small["include_dashboard"]
        found.start_node = lambda: found.add_node(num_cpus=1, **small)
        found.s3 = None
        with contextlib.ExitStack() as stack:
            stack.callback(found.shutdown)
            if missing("s3") is None:
                found.s3 = stack.enter_context(serving("s3"))
            for _ in range(2):
                found.start_node()
            yield found


@pytest.fixture(scope="module")
def line(images: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    cache = tmp_path_factory.mktemp("cache")
    data = ["--data", str(images), "--cache-dir", str(cache)]
    return ["table1", *OPTIONS.split(), *data]


@pytest.fixture(autouse=True)
def promotion() -> Iterator[None]:
    with promotion_as_for_users():
        yield


@pytest.mark.cluster
@pytest.mark.slow
def test_a_grid_on_two_nodes_is_that_on_one_machine(
    nodes, line, tmp_path, capsys, monkeypatch
) -> None:
    line = [*line, "--epochs", "1", "--seeds", "3"]
    here, there = tmp_path / "here", tmp_path / "there"
    assert main([*line, "--out", str(here)]) == 0
    table = capsys.readouterr().out

    # The workers do not find the folder of the grid: files come back through Ray.
    monkeypatch.setattr(cluster, "token", lambda _: None)
    command = [*line, "--out", str(there), "--cluster", nodes.address]
    assert main(command) == 0
    out, err = capsys.readouterr()
    assert out == table
    _, head, *runs = err.splitlines()
    assert head == f"{there}: 3 runs to make, 0 finished before"
    assert sorted(each.split("  ")[1] for each in runs) == [
        f"{CELL} seed {seed}" for seed in range(3)
    ]
    assert [each.split("  ")[0] for each in runs] == ["run 1/3", "run 2/3", "run 3/3"]
    assert "all done in" in runs[-1] and runs[0].endswith(" left")
    same_runs(there, here)
    for name in ("table1.md", "table1.csv"):
        assert (there / name).read_bytes() == (here / name).read_bytes()
    for folder in (there / "cells").iterdir():
        assert {path.name for path in folder.iterdir()} == {*worker.FILES}
        about = json.loads((folder / "config.json").read_text())
        # That of Ray's worker names addresses and a password.
        assert about["command"] == [Path(sys.argv[0]).name, *sys.argv[1:]]

    # Started again: finished runs are kept, and what was begun and left is replaced.
    lost = there / "cells" / f"{CELL}-seed1"
    for name in ("result.json", "network.aslp"):
        (lost / name).unlink()
    (lost / "checkpoints").mkdir()
    (lost / "metrics.jsonl").write_text("{")
    monkeypatch.setenv("RAY_ADDRESS", nodes.address)
    assert main([*command[:-1], "auto"]) == 0
    out, err = capsys.readouterr()
    assert out == table and "1 run to make, 2 finished before" in err
    same_runs(there, here)


def after_rows(folder: Path, count: int, act: Callable[[], object]) -> threading.Thread:
    """Acts when a run has trained a number of epochs."""

    def watch() -> None:
        deadline = time.monotonic() + 120
        file = folder / "metrics.jsonl"
        while time.monotonic() < deadline:
            if file.exists() and file.read_bytes().count(b"\n") >= count:
                act()
                return
            time.sleep(0.02)

    thread = threading.Thread(target=watch)
    thread.start()
    return thread


def node_of(nodes: Any, worker_pid: int) -> Any:
    """The node that a worker belongs to; None if it belongs to none."""
    try:
        stat = Path(f"/proc/{worker_pid}/stat").read_text()
    except FileNotFoundError:
        return None
    parent = int(stat.rpartition(")")[2].split()[1])
    raylets = {
        node.all_processes["raylet"][0].process.pid: node for node in nodes.worker_nodes
    }
    return raylets.get(parent)


def kill_node(nodes: Any, worker_pid: int) -> None:
    """Kills a worker, before it finishes its run, and the node that it belongs to."""
    busy = node_of(nodes, worker_pid)
    os.kill(worker_pid, signal.SIGKILL)
    nodes.remove_node(busy, allow_graceful=False)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Ray starts a node
def test_what_ends_in_the_middle_of_a_run_costs_nothing(
    nodes, line, tmp_path, capsys
) -> None:
    line = [*line, "--epochs", "240", "--patience", "240", "--seeds", "1"]
    here, there = tmp_path / "here", tmp_path / "there"
    assert main([*line, "--out", str(here)]) == 0
    capsys.readouterr()
    command = [*line, "--out", str(there), "--cluster", nodes.address]
    command += ["--checkpoint-seconds", "0"]
    run = there / "cells" / f"{CELL}-seed0"

    stop = after_rows(run, 3, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert main(command) == 128 + signal.SIGTERM
    stop.join()
    assert "stopped by SIGTERM, finished runs are saved" in capsys.readouterr().err
    assert not (run / "result.json").exists()

    def busy_worker() -> int:
        return json.loads((run / "lock.json").read_text())["pid"]

    begun = (run / "metrics.jsonl").read_bytes().count(b"\n")
    stop = after_rows(run, begun + 3, lambda: os.kill(busy_worker(), signal.SIGTERM))
    kill = after_rows(run, begun + 10, lambda: kill_node(nodes, busy_worker()))
    assert main(command) == 0
    stop.join()
    kill.join()
    assert len(nodes.worker_nodes) == 1
    nodes.start_node()
    resumed = json.loads((run / "config.json").read_text())["resumed"]
    first, second, third = (each["after_epoch"] for each in resumed)
    assert 3 <= first <= begun < second <= third < 240
    same_runs(there, here)


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:os.fork:RuntimeWarning")  # Ray starts a node
def test_a_run_whose_node_is_killed_goes_on_from_an_object_store(
    nodes, line, tmp_path, capsys
) -> None:
    if nodes.s3 is None:
        pytest.skip(missing("s3"))
    line = [*line, "--epochs", "60", "--patience", "60", "--seeds", "1"]
    here, there = tmp_path / "here", tmp_path / "there"
    assert main([*line, "--out", str(here)]) == 0
    capsys.readouterr()
    uri, run = f"{nodes.s3.uri}/grids/one", f"{CELL}-seed0"
    store = Store(uri)

    def kill_busy_node() -> None:
        # The folder of the run is one of its worker alone.
        found = f"aslp-jax-*/grid/cells/{run}/lock.json"
        for lock in Path(tempfile.gettempdir()).glob(found):
            pid = json.loads(lock.read_text())["pid"]
            if node_of(nodes, pid) is not None:
                kill_node(nodes, pid)
                shutil.rmtree(lock.parents[3])

    kill = once(lambda: stored_rows(store, run, tmp_path) >= 4, kill_busy_node)
    command = [*line, "--out", str(there), "--cluster", nodes.address]
    assert main([*command, "--checkpoints", uri, "--checkpoint-seconds", "0"]) == 0
    kill.join()
    assert len(nodes.worker_nodes) == 1
    nodes.start_node()
    (resumed,) = json.loads((there / "cells" / run / "config.json").read_text())[
        "resumed"
    ]
    assert 4 <= resumed["after_epoch"] < 60
    same_runs(there, here)
    for file in there.rglob("*"):
        assert file.is_dir() or SECRET.encode() not in file.read_bytes(), file

    # Another grid does not take the place of this one.
    other = [*line[:-5], "5", "--seeds", "1", "--out", str(tmp_path / "other")]
    other += ["--cluster", nodes.address, "--checkpoints", uri]
    capsys.readouterr()
    assert main(other) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert (
        f"--checkpoints {uri} holds a grid with options aslp epochs 60, not 5" in last
    )


@pytest.mark.cluster
@pytest.mark.slow
def test_another_version_ends_the_grid_with_one_line(
    nodes, line, tmp_path, capsys, monkeypatch
) -> None:
    monkeypatch.setattr(worker, "versions", lambda: {"aslp-jax": "9", "jax": "9"})
    out = tmp_path / "grid"
    line = [*line, "--out", str(out), "--cluster", nodes.address]
    assert main(line) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert "is not the driver's 9; install the same everywhere" in last
    assert last.startswith(f"aslp-jax: {CELL} seed ")
    assert not (out / "cells").exists()


@pytest.mark.cluster
@pytest.mark.slow
def test_a_worker_without_the_package_ends_the_grid_with_one_line(
    nodes, line, tmp_path, capsys, monkeypatch
) -> None:
    elsewhere = types.ModuleType("only_on_the_driver")
    exec("def work(values): ...", elsewhere.__dict__)
    monkeypatch.setitem(sys.modules, elsewhere.__name__, elsewhere)
    monkeypatch.setattr(worker, "work", elsewhere.work)
    command = [*line, "--seeds", "1", "--out", str(tmp_path / "grid")]
    assert main([*command, "--cluster", nodes.address]) == 2
    *_, last = capsys.readouterr().err.splitlines()
    assert last == (
        f"aslp-jax: {CELL} seed 0: a worker cannot import aslp-jax "
        "(ModuleNotFoundError: No module named 'only_on_the_driver'); install it "
        f"everywhere; see {worker.PAGE}"
    )


@pytest.mark.cluster
@pytest.mark.slow
def test_a_cluster_that_asks_for_a_token(tmp_path):
    pytest.importorskip("ray")
    home = tmp_path / "home"
    (home / ".ray").mkdir(parents=True)
    (home / ".ray" / "auth_token").write_text(64 * "5")
    plain = {name: value for name, value in os.environ.items() if "RAY_" not in name}
    plain |= {"PYTHONPATH": str(ROOT), "HOME": str(home)}
    with_token = {**plain, "RAY_AUTH_MODE": "token"}
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    start = [str(Path(sys.executable).parent / "ray"), "start", "--head", "--block"]
    start += ["--port", str(port), "--num-cpus", "0", "--include-dashboard", "false"]
    start += ["--temp-dir", tempfile.mkdtemp(), "--disable-usage-stats"]
    grid = [sys.executable, "-m", "aslp_jax", "table1", "--dataset", "digits"]
    grid += ["--out", str(tmp_path / "grid"), "--cluster", f"localhost:{port}"]

    with subprocess.Popen(start, env=with_token, stdout=subprocess.PIPE) as head:
        try:
            assert any(b"Ray runtime started" in line for line in head.stdout)
            told = (
                f"aslp-jax: --cluster localhost:{port}: this cluster asks for its token"
            )
            for environment in (plain, {**with_token, "HOME": str(tmp_path)}):
                ended = subprocess.run(
                    grid, env=environment, capture_output=True, text=True
                )
                *_, last = ended.stderr.splitlines()  # Ray warns before
                assert ended.returncode == 2 and last.startswith(told), ended.stderr
        finally:
            head.terminate()
    assert not (tmp_path / "grid").exists()
