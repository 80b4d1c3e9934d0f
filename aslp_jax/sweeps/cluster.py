"""A grid on a cluster: each job is a task of Ray, whose files come back to the driver.

The driver is the process of the command. It claims the folder of the grid, as without a
cluster, and alone writes the report. Ray starts a task again on another node when its
node dies. The only file that imports Ray, and only when a cluster is asked for. It is
long because each way in which a cluster or a worker can be wrong has a line of its own.
"""

import contextlib
import dataclasses
import functools
import math
import os
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aslp_jax._address import split_address
from aslp_jax._atomic import remove_left_behind, write_all
from aslp_jax._claim import claim, token
from aslp_jax._errors import BadInput
from aslp_jax._extras import require
from aslp_jax.sweeps import runner, worker
from aslp_jax.sweeps.grid import Cell, Grid, read_settings
from aslp_jax.sweeps.jobs import Job, split
from aslp_jax.sweeps.store import Store, is_uri
from aslp_jax.sweeps.sweep import Train
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.progress import Progress
from aslp_jax.trainer.run_folder import writing
from aslp_jax.trainer.signals import STOPPING, Signals

if TYPE_CHECKING:
    from aslp_jax.data import datasets
    from aslp_jax.data.streamed import Streamed

_ANSWER_SECONDS = 10
"""Longest time that an address may take to answer."""

_SETTINGS = b"\x04"
"""Kind of the first frame of either side of an HTTP/2 connection."""

_NO_IMPORT = "failed to import on the worker"
"""Words of Ray on a worker that lacks the module of its task."""

_NO_TOKEN = "InvalidAuthToken"
"""Words of Ray when a cluster asks for a token, which Ray alone sends if it is told."""

_RETRIES = 100
"""Times that a job is started again after the loss of its worker."""

_LOOK_SECONDS = 0.25
"""Time between two looks for signals."""

_CLOSING_SECONDS = 60
"""Longest time that tasks get to save their state when the driver stops."""

_FOLDERS = ("data", "data_dir", "manual_dir", "cache_dir")
"""Names of the options that are paths; workers have another working folder."""


@dataclasses.dataclass(frozen=True)
class Cluster:
    """Cluster to train on.

    Attributes:
      address: `HOST:PORT` of a Ray cluster, or `"auto"` for the one that runs here; a
        local one is started if there is none.
      checkpoints: folder that all workers reach, or URI of an object store, from which
        a killed run resumes; None takes the grid's folder if workers reach it, and else
        begins the run anew.
      cpus: CPUs of a task.
      gpus: GPUs of a task; None takes one where the cluster has any.
    """

    address: str
    checkpoints: str | None = None
    cpus: int = 1
    gpus: int | None = None


@contextlib.contextmanager
def connected(cluster: Cluster) -> Iterator[Train]:
    """Joins a cluster, and yields the function that trains a grid there.

    Args:
      cluster: cluster to join.

    Raises:
      MissingExtra: Ray, or the client of the object store, is not installed.
      BadInput: there is no cluster, or it is of another version; or the object store
        cannot be used.
    """
    require("ray", by="--cluster")
    store = None
    if cluster.checkpoints is not None and is_uri(cluster.checkpoints):
        store = Store(cluster.checkpoints)
        store.check()
    if cluster.address != "auto":
        _check_address(cluster.address)
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    handlers = {number: signal.getsignal(number) for number in STOPPING}
    with Signals():
        import ray
    try:
        _join(ray, cluster.address)
        for number, handler in handlers.items():
            signal.signal(number, handler)  # Ray takes SIGTERM
        yield functools.partial(_train_grid, ray, cluster, store)
    finally:
        ray.shutdown()


def _check_address(address: str) -> None:
    try:
        host, port = split_address(address)
    except ValueError as error:
        raise BadInput(
            f"--cluster {address} {error}; or give --cluster auto", page=worker.PAGE
        ) from error
    reason = _silence(host, port)
    if reason is not None:
        raise BadInput(
            f"--cluster {address}: no Ray cluster answers there ({reason}); start one "
            "with `ray start --head`, or give --cluster auto",
            page=worker.PAGE,
        )


def _silence(host: str, port: int) -> str | None:
    """Returns why an address is not that of a Ray cluster; None if it may be.

    Ray itself waits for an answer without end (2.60). It speaks HTTP/2, in which each
    side begins with a frame of settings.
    """
    hello = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(3) + _SETTINGS + bytes(5)
    try:
        with socket.create_connection((host, port), _ANSWER_SECONDS) as connection:
            connection.settimeout(_ANSWER_SECONDS)
            connection.sendall(hello)
            answer = connection.recv(9)
    except OSError as error:
        return error.strerror or str(error)
    return None if answer[3:4] == _SETTINGS else "another program does"


def _join(ray: Any, address: str) -> None:
    """Joins a cluster, or starts one if the address says so and there is none."""
    quiet = {"log_to_driver": False, "logging_level": "ERROR"}
    try:
        try:
            ray.init(address, **quiet)
        except ConnectionError:
            if address != "auto":
                raise
            ray.init("local", include_dashboard=False, **quiet)
    except ray.exceptions.AuthenticationError as error:  # no token is to be found
        raise BadInput(_asks_for_token(address), page=worker.PAGE) from error
    except (ConnectionError, RuntimeError, ValueError) as error:
        if _NO_TOKEN in str(error.__cause__):
            raise BadInput(_asks_for_token(address), page=worker.PAGE) from error
        first, *_ = str(error).strip().splitlines() or [type(error).__name__]
        raise BadInput(
            f"--cluster {address}: Ray cannot join ({first})", page=worker.PAGE
        ) from error


def _asks_for_token(address: str) -> str:
    return (
        f"--cluster {address}: this cluster asks for its token; set RAY_AUTH_MODE to "
        "token and RAY_AUTH_TOKEN to what `ray get-auth-token` prints on its head"
    )


def _train_grid(
    ray: Any,
    cluster: Cluster,
    store: Store | None,
    grid: Grid,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    configure: runner.Configure,
    data: "datasets.Dataset | Streamed",
    *,
    per_device: int,
    deadline: float = math.inf,
    report: bool = True,
) -> None:
    """Trains a grid on a cluster; see `runner.train_grid`."""
    import jax

    # The devices are for the tasks.
    jax.config.update("jax_platforms", "cpu")
    todo, progress = runner.begin_grid(grid, cells, seeds)
    if not any(todo.values()):
        return
    runner.check_budgets((configure(cell, seeds[0]) for cell in todo), data)
    if store is not None:
        store.settle(read_settings(grid.path))
    cluster = _with_gpus(ray, cluster, progress.note)
    task = ray.remote(
        num_cpus=cluster.cpus,
        num_gpus=cluster.gpus,
        max_retries=_RETRIES,
        name="aslp-jax",
    )(worker.work)
    shared = {
        **_shared_values(cluster, grid, data),
        "per_device": per_device,
        "report": report,
    }

    def start(job: Job) -> Any:
        options = [_sent(configure(job.cell, seed)) for seed in job.seeds]
        return task.remote({**shared, "cell": job.cell.name, "options": options})

    running: dict[Any, Job] = {}
    with Signals(deadline) as signals:
        try:
            for job in split(todo, per_device):
                running[start(job)] = job
            while running:
                signals.check()
                for done in ray.wait(list(running), timeout=_LOOK_SECONDS)[0]:
                    job = running.pop(done)
                    runs = _result(ray, done, job, progress.note)
                    if runs is None:  # its worker was told to stop
                        running[start(job)] = job
                    else:
                        _finish(grid, job, runs, progress)
        finally:
            _cancel(ray, list(running))
            progress.close()


def _with_gpus(ray: Any, cluster: Cluster, note: Callable[[str], None]) -> Cluster:
    """Returns the cluster with the GPUs of a task, and notes if no node has as many."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    gpus = cluster.gpus
    if gpus is None:
        gpus = int(any(each.get("GPU") for each in alive))
    asked = {"CPU": cluster.cpus, "GPU": gpus}
    if not any(all(each.get(k, 0) >= n for k, n in asked.items()) for each in alive):
        text = f"{cluster.cpus} CPU" + (f" and {gpus} GPU" if gpus else "")
        note(f"waiting: no node of the cluster has {text} yet")
    return dataclasses.replace(cluster, gpus=gpus)


def _shared_values(
    cluster: Cluster, grid: Grid, data: "datasets.Dataset | Streamed"
) -> dict[str, Any]:
    """Returns the fields of a `worker.Task` that all tasks of a grid share."""
    checkpoints, settings = cluster.checkpoints, read_settings(grid.path)
    if checkpoints is not None and not is_uri(checkpoints):
        checkpoints = os.path.abspath(checkpoints)
    return {
        "versions": worker.versions(),
        "command": [*sys.argv],
        "settings": settings,
        "images_sha256": data.images_sha256(),
        "labels_sha256": settings.get("labels_sha256"),
        "out": os.path.abspath(grid.path),
        "out_token": token(grid.path),
        "checkpoints": checkpoints,
        "cpus": cluster.cpus,
        "gpus": cluster.gpus,
    }


def _sent(config: Config) -> dict[str, Any]:
    """Returns the options of a run, with paths that do not depend on the folder."""
    options = config.as_dict()
    for name in _FOLDERS:
        if options[name] is not None:
            options[name] = os.path.abspath(options[name])
    return options


def _result(
    ray: Any, done: Any, job: Job, note: Callable[[str], None]
) -> dict[int, dict[str, bytes]] | None:
    """Returns the files of a job by seed and name; None if its worker had to stop.

    Shows what the worker notes.

    Raises:
      BadInput: a worker refused the job, or lost it too often.
    """
    name = runner.name_batch(job.cell, job.seeds)
    try:
        answer = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if _NO_IMPORT not in str(error):
            raise
        *_, last = str(error).strip().splitlines()
        raise BadInput(
            f"{name}: a worker cannot import aslp-jax ({last}); install it everywhere",
            page=worker.PAGE,
        ) from error
    except ray.exceptions.RayError as error:
        first, *_ = str(error).strip().splitlines()
        raise BadInput(
            f"{name}: lost {_RETRIES + 1} times; {first}", page=worker.PAGE
        ) from error
    for text in answer["notes"]:
        note(text)
    if "refused" in answer:
        raise BadInput(f"{name}: {answer['refused']}", page=answer["page"])
    return answer.get("runs")


def _finish(
    grid: Grid, job: Job, runs: dict[int, dict[str, bytes]], progress: Progress
) -> None:
    """Keeps the files of a job, and shows how its runs ended."""
    outcomes = []
    for seed in job.seeds:
        folder = grid.folder(job.cell, seed)
        if grid.record(job.cell, seed) is None:
            _keep(folder, runs[seed])
        record = grid.record(job.cell, seed)
        if record is None:
            raise BadInput(
                f"{folder}: a worker returned a run without its result",
                page=worker.PAGE,
            )
        outcomes.append(runner.describe(record.result, folder, progress.note))
    name = runner.name_batch(job.cell, job.seeds)
    progress.start(name, runs=len(job.seeds), epochs=1)
    progress.finish(", ".join(outcomes))


def _keep(folder: Path, files: dict[str, bytes]) -> None:
    """Writes the files of a finished run, its result last."""
    with writing(folder), claim(folder):
        # Of the same run, begun before and left.
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        remove_left_behind(folder, worker.FILES)
        write_all(
            {folder / name: files[name] for name in worker.FILES if name in files}
        )


def _cancel(ray: Any, tasks: Sequence[Any]) -> None:
    """Lets tasks save their state and end."""
    for task in tasks:
        ray.cancel(task)
    if tasks:
        ray.wait(list(tasks), num_returns=len(tasks), timeout=_CLOSING_SECONDS)
