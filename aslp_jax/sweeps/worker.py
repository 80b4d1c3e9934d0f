"""Task of a cluster: a worker trains one job of a grid, and returns its files.

Everything that a task is given and returns is plain data. Versions are compared before
anything else is done with it.
"""

import contextlib
import dataclasses
import functools
import io
import os
import socket
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aslp_jax._claim import STALE_SECONDS, Held, token
from aslp_jax._errors import BadInput, page_on
from aslp_jax._extras import MissingExtra
from aslp_jax.artefact import NETWORK
from aslp_jax.sweeps.grid import open_shared
from aslp_jax.sweeps.store import Store, StoreError, Uploads, is_uri
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.run_folder import REPORT
from aslp_jax.trainer.signals import Interrupted

if TYPE_CHECKING:
    from aslp_jax.data import datasets
    from aslp_jax.data.streamed import Streamed

PAGE = "docs/scaling.md#a-grid-on-a-cluster-with-ray"
"""Page on grids on a cluster."""

FILES = ("config.json", "metrics.jsonl", NETWORK, REPORT, "result.json")
"""Files of a finished run; the last says that the run is finished."""

_PATIENCE_SECONDS = STALE_SECONDS + 60
"""Longest time to wait for a run folder that a lost worker may still hold, or a store.
"""


@dataclasses.dataclass(frozen=True)
class Task:
    """Job as the driver sends it.

    Attributes:
      versions: versions of packages that must be the same here.
      command: command line of the driver, for the files of the runs.
      cell: name of the cell.
      options: options of each run, one a seed.
      settings: content of the grid's grid.json.
      per_device: number of runs that a device trains at once.
      report: True to write report.html for each run.
      images_sha256: hash of the images.
      labels_sha256: hash of the labels of images of files; None for other images.
      out: folder of the grid on the driver's machine.
      out_token: name of the claim on that folder. A worker that reads the same name
        there has the folder on shared storage.
      checkpoints: folder for runs that all workers reach, or URI of an object store;
        None if there is none.
      cpus: CPUs of the task.
      gpus: GPUs of the task.
    """

    versions: dict[str, str]
    command: list[str]
    cell: str
    options: tuple[dict[str, Any], ...]
    settings: dict[str, Any]
    per_device: int
    report: bool
    images_sha256: str
    labels_sha256: str | None
    out: str
    out_token: str | None
    checkpoints: str | None
    cpus: int
    gpus: int


@dataclasses.dataclass(frozen=True)
class _Cell:
    """Cell of which a worker knows the name alone."""

    name: str

    def options(self, seed: int) -> dict[str, Any]:
        """Returns nothing: the driver sent all options."""
        return {}


def versions() -> dict[str, str]:
    """Returns the versions of packages that results depend on, by name."""
    import importlib.metadata

    return {name: importlib.metadata.version(name) for name in ("aslp-jax", "jax")}


def work(values: dict[str, Any]) -> dict[str, Any]:
    """Trains one job.

    Args:
      values: fields of a `Task`.

    Returns:
      `runs`, the content of `FILES` by seed and name; or `refused`, one line on bad
      input, with its `page`; or neither, if a signal stopped the run. And `notes`,
      lines on what failed and did not end the runs.
    """
    notes: list[str] = []
    host = socket.gethostname()
    try:
        for name, version in versions().items():
            if values["versions"].get(name) != version:
                raise BadInput(
                    f"{name} {version} is not the driver's "
                    f"{values['versions'].get(name)}; install the same everywhere",
                    page=PAGE,
                )
        answer: dict[str, Any] = {"runs": _train(Task(**values), notes)}
    except (BadInput, MissingExtra, OSError) as error:
        page = page_on(error) or PAGE
        answer = {"refused": f"worker {host}: {error}", "page": page}
    except Interrupted:
        answer = {}
    return {**answer, "notes": [f"worker {host}: {note}" for note in notes]}


def _train(task: Task, notes: list[str]) -> dict[int, dict[str, bytes]]:
    # Before JAX starts its devices. XLA takes its number of threads from NPROC.
    os.environ["NPROC"] = str(task.cpus)
    if not task.gpus:
        os.environ.setdefault("JAX_PLATFORMS", "cpu")
    import jax

    from aslp_jax.sweeps import runner
    from aslp_jax.trainer.compilation_cache import enable_compilation_cache

    enable_compilation_cache()
    configs = {each["seed"]: Config(**each) for each in task.options}
    first, *_ = configs.values()
    data, *found = _load(dataclasses.replace(first, seed=0))
    expected = (task.images_sha256, task.labels_sha256)
    for name, ours, theirs in zip(("images", "labels"), found, expected, strict=True):
        if ours != theirs:
            raise BadInput(
                f"its {name} of {first.dataset_name} are not the driver's", page=PAGE
            )
    cell = _Cell(task.cell)
    with contextlib.ExitStack() as stack:
        stack.enter_context(_command(task.command))
        path, lasting = stack.enter_context(_folder(task))
        grid = open_shared(path, task.settings)
        folders = {seed: grid.folder(cell, seed) for seed in configs}
        upload = stack.enter_context(_uploads(task, [*folders.values()], notes))
        began = time.monotonic()
        while True:
            try:
                runner.train_grid(
                    grid,
                    [cell],
                    list(configs),
                    lambda _, seed: configs[seed],
                    data,
                    per_device=task.per_device,
                    report=task.report,
                    lasting=lasting,
                    devices=jax.local_devices()[:1],
                    progress_file=io.StringIO(),
                    saved=upload,
                )
                break
            except Held:
                # A worker that its node lost ends a little later.
                if time.monotonic() - began > _PATIENCE_SECONDS:
                    raise
                time.sleep(1.0)
        return {seed: read_run(folder) for seed, folder in folders.items()}


def read_run(folder: Path) -> dict[str, bytes]:
    """Returns the content of a finished run's files, by name.

    Args:
      folder: run folder. A run whose loss was not finite has no network and no report.
    """
    files = {name: folder / name for name in FILES}
    return {name: file.read_bytes() for name, file in files.items() if file.exists()}


@functools.lru_cache(maxsize=1)
def _load(
    config: Config,
) -> tuple["datasets.Dataset | Streamed", str, str | None]:
    """Returns the images of a cell's runs, and the hashes of a `Task`.

    They are kept for the next task.
    """
    from aslp_jax.trainer.loading import load_dataset

    data = load_dataset(config)
    labels = data.labels_sha256() if config.of_files else None
    return data, data.images_sha256(), labels


@contextlib.contextmanager
def _command(words: Sequence[str]) -> Iterator[None]:
    """Lets files name the driver's command line.

    That of a worker is Ray's own, with addresses and a password.
    """
    own, sys.argv = sys.argv, [*words]
    try:
        yield
    finally:
        sys.argv = own


@contextlib.contextmanager
def _folder(task: Task) -> Iterator[tuple[Path, bool]]:
    """Yields the folder of the grid that this worker fills, and True if it lasts."""
    out, stored = Path(task.out), is_uri(task.checkpoints or "")
    if task.checkpoints is not None and not stored:
        yield Path(task.checkpoints), True
    elif not stored and task.out_token is not None and token(out) == task.out_token:
        yield out, True
    else:
        with tempfile.TemporaryDirectory(prefix="aslp-jax-") as folder:
            yield Path(folder) / "grid", False


@contextlib.contextmanager
def _uploads(
    task: Task, folders: Sequence[Path], notes: list[str]
) -> Iterator[Callable[[Path], None] | None]:
    """Yields the function that uploads a run to the object store; None without one.

    First the files of the runs are fetched, and at the end those of finished runs are
    uploaded.
    """
    if task.checkpoints is None or not is_uri(task.checkpoints):
        yield None
        return
    store = Store(task.checkpoints)
    _patiently(store.check)
    for folder in folders:
        _patiently(functools.partial(store.fetch, folder, FILES))
    left = [folder for folder in folders if not (folder / "result.json").exists()]
    with tempfile.TemporaryDirectory(prefix="aslp-jax-") as waiting:
        uploads = Uploads(store, FILES, Path(waiting))
        try:
            with uploads:
                yield uploads.upload
                for folder in left:
                    uploads.upload(folder)
        finally:
            notes += uploads.notes()


def _patiently(ask: Callable[[], None]) -> None:
    """Asks a store again while it is away for a while."""
    began = time.monotonic()
    while True:
        try:
            return ask()
        except StoreError as error:
            if not error.passing or time.monotonic() - began > _PATIENCE_SECONDS:
                raise
        time.sleep(1.0)
