"""A run from its options to its files: epochs until it stops, signals, saving."""

import importlib.util
import shlex
import shutil
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import report
from config import FIELDS, BadInput, Config
from folder import RunFolder, writing
from progress import Progress
from run import LossNotFinite, Run

from aslp_jax import checkpoint, datasets

_CHUNK_SECONDS = 1.0
"""Steps are handed to the device in programs of about this long, where an epoch is
longer: a person sees the progress, and Ctrl-C is heard. Changes no result."""


class Stopped(Exception):
    """A signal asked the run to stop; its state is saved.

    Attributes:
      number: of the signal.
    """

    def __init__(self, number: int, folder: RunFolder) -> None:
        super().__init__(
            f"stopped by {signal.Signals(number).name}, all is saved; continue with "
            f"--out {_quoted(folder)} --resume"
        )
        self.number = number


def train_and_report(
    config: Config, out: Path | None, *, resume: bool, progress_file: Any
) -> dict[str, Any]:
    """Runs or continues a run until it stops, and writes all its files.

    Args:
      config: the options.
      out: the run folder; None makes a new one.
      resume: whether to continue the run in `out`.
      progress_file: where progress is shown, usually standard error.

    Returns:
      What result.json holds.

    Raises:
      BadInput: a folder, a data set or a number that cannot be used.
      LossNotFinite: training diverged; the last good state is saved.
      Stopped: a signal asked for it; the state is saved.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise BadInput(
            "matplotlib, which draws curves.png, is not installed; "
            "pip install matplotlib"
        )
    if out is not None and not resume:
        RunFolder.check_new(out)
    data = _load(config)
    run = Run(config, data)
    device = f"{len(run.devices)} x {run.devices[0].device_kind}"
    progress = Progress(progress_file, epochs=config.epochs)
    if resume and out is not None:
        folder = RunFolder(out)
        rows = _restore(run, folder, progress)
        folder.record_resume(config, device, run.position.epoch)
    else:
        folder = RunFolder.create(out, config, device)
        rows = []
    try:
        begin = f"from epoch {run.position.epoch + 1}" if resume else data.source
        progress.note(f"{folder.path}: {config.dataset} ({begin}), {device}")
        _epochs(run, folder, rows, progress)
    finally:
        progress.close()
    result = run.result()
    folder.write_result(result)
    with writing(folder.path):
        title = (
            f"{config.arch} on {config.dataset}, {config.method}, seed {config.seed}"
        )
        report.curves(
            rows, run.keep_probabilities(), folder.path / "curves.png", title=title
        )
    return result


def _epochs(
    run: Run, folder: RunFolder, rows: list[dict[str, Any]], progress: Progress
) -> None:
    """Trains until the run stops by itself, and saves as it goes."""
    saved = time.monotonic()
    with _Signals() as signals:
        while run.stopped is None:
            good = run.snapshot()
            try:
                speed = _one_epoch(run, progress, signals)
                if speed is None:
                    _save(run, folder, run.snapshot())
                    raise Stopped(signals.received, folder)
                row = run.finish_epoch(speed)
            except LossNotFinite as error:
                _save(run, folder, good)
                raise LossNotFinite(
                    f"{error}; {folder.path} keeps the state before that epoch; try "
                    "smaller learning rates in a new run, or evaluate what there is "
                    f"with --out {_quoted(folder)} --resume --epochs "
                    f"{max(1, run.position.epoch)}"
                ) from None
            folder.append_row(row)
            rows.append(row)
            progress.epoch(row)
            due = time.monotonic() - saved >= run.config.checkpoint_seconds
            if due or signals.received or run.stopped:
                _save(run, folder, run.snapshot())
                saved = time.monotonic()
            if signals.received:
                raise Stopped(signals.received, folder)


def _one_epoch(run: Run, progress: Progress, signals: "_Signals") -> float | None:
    """Takes the remaining steps of an epoch; None if a signal came in between.

    Returns:
      Images a second, over the steps taken here.
    """
    taken, spent = 0, 0.0
    while run.position.step < run.steps:
        if signals.received:
            return None
        chunk = max(1, int(_CHUNK_SECONDS / run.seconds_per_step))
        count = min(chunk, run.steps - run.position.step)
        spent += run.take_steps(count)
        taken += count
        speed = taken * run.config.batch_size / spent
        progress.step(run.position.epoch + 1, run.position.step, run.steps, speed)
    return speed


class _Signals:
    """While entered, the first Ctrl-C or SIGTERM is noted and the second one kills.

    Attributes:
      received: number of the signal that came, 0 before.
    """

    def __init__(self) -> None:
        self.received = 0

    def __enter__(self) -> "_Signals":
        self._old = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        # What starts programs may send one stop twice; only a later one is a second.
        time.sleep(0.3)
        for each in self._old:
            signal.signal(each, signal.SIG_DFL)


def _quoted(folder: RunFolder) -> str:
    return shlex.quote(str(folder.path))


def _identity(run: Run) -> dict[str, Any]:
    """What a checkpoint must share with the run that reads it."""
    options = {
        name: value
        for name, value in run.config.as_dict().items()
        if not FIELDS[name].metadata.get("free")
    }
    return {**options, "images_sha256": run.images_sha256}


def _save(run: Run, folder: RunFolder, snapshot: Mapping[str, Any]) -> None:
    with writing(folder.path):
        checkpoint.save(
            folder.checkpoints,
            int(snapshot["state"].step),
            snapshot,
            _identity(run),
        )


def _restore(run: Run, folder: RunFolder, progress: Progress) -> list[dict[str, Any]]:
    """Restores the newest whole checkpoint and returns the metrics up to it."""
    found = checkpoint.steps(folder.checkpoints)
    if not found:
        return folder.rows(0)
    problems = []
    for step in reversed(found):
        try:
            snapshot = checkpoint.restore(
                folder.checkpoints, step, run.snapshot(), _identity(run)
            )
        except checkpoint.CheckpointError as error:
            problems.append(str(error))
            continue
        run.restore(snapshot)
        rows = folder.rows(run.position.epoch)
        # Newer ones cannot be read, and `save` leaves alone what exists.
        for newer in found[found.index(step) + 1 :]:
            progress.note(f"checkpoint {newer} is damaged; going back to {step}")
            with writing(folder.path):
                shutil.rmtree(folder.checkpoints / str(newer))
        return rows
    raise BadInput(problems[0])


def _load(config: Config) -> datasets.Dataset:
    try:
        return datasets.load(
            config.dataset,
            data_dir=config.data_dir,
            manual_dir=config.manual_dir,
            cache_dir=config.cache_dir,
        )
    except (OSError, ValueError) as error:
        raise BadInput(str(error)) from error
