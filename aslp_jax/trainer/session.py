"""Sessions: a run together with its files, from its beginning to its closing files."""

import dataclasses
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from aslp_jax import checkpoint
from aslp_jax._errors import BadInput
from aslp_jax.data import datasets
from aslp_jax.data.streamed import Streamed
from aslp_jax.trainer.options import Config, fixed_options, without_added
from aslp_jax.trainer.position import Position
from aslp_jax.trainer.processes import every_process, is_first, to_first
from aslp_jax.trainer.results import Divergence, EpochRow, RunResult
from aslp_jax.trainer.run_folder import REPORT, RunFolder, writing
from aslp_jax.trainer.run_state import Run
from aslp_jax.trainer.tensorboard import EVENTS, EventLog

__all__ = ["Session", "begin"]


@dataclasses.dataclass
class Session:
    """One run and its files.

    Attributes:
      run: run in memory.
      folder: files of the run.
      rows: rows of metrics.jsonl, one an epoch.
      divergence: loss or parameter that is not finite; None while the run is sound.
      logs_events: True if the first process writes event files of TensorBoard.
      events: event files of TensorBoard; None for none, or in another process.
      saved: function that is called with the run folder after each checkpoint; None
        for none.
    """

    run: Run
    folder: RunFolder
    rows: list[EpochRow]
    divergence: Divergence | None = None
    logs_events: bool = False
    events: EventLog | None = None
    saved: Callable[[Path], None] | None = None

    @property
    def active(self) -> bool:
        """True if there is more to train."""
        return self.divergence is None and self.run.stopped is None

    @property
    def place(self) -> tuple[int, int]:
        """Epochs finished, and steps taken of the next epoch."""
        return self.run.position.epoch, self.run.position.step

    @property
    def problem(self) -> str | None:
        """Message on a divergence, with advice; None while the run is sound."""
        if self.divergence is None:
            return None
        text = (
            f"{self.divergence}; {self.folder.path} keeps the state before that epoch; "
            "try smaller learning rates in a new run"
        )
        config, position = self.run.config, self.run.position
        epochs = max(1, position.epoch - position.pruned_epoch)
        fixed = "epochs" in fixed_options(config.as_dict())
        if fixed or epochs <= config.warmup_epochs:
            return text
        flags = f"--out {self.folder.quoted} --resume --epochs {epochs}"
        return f"{text}, or evaluate what there is with {flags}"

    def record(self, row: EpochRow) -> None:
        """Adds the row of an epoch, on disk when this returns; all must call this.

        Args:
          row: row of the epoch.

        Raises:
          BadInput: the folder cannot be written.
        """
        if is_first():
            self.folder.append_row(row)
        if self.logs_events:
            from aslp_jax.trainer.closing import keep_probabilities

            probabilities = keep_probabilities(self.run, best=False)
            if self.events is not None:
                with writing(self.folder.path):
                    self.events.write(row, self.rows, probabilities)
        self.rows.append(row)

    def save(self, snapshot: Mapping[str, Any]) -> None:
        """Saves a snapshot of the run as a checkpoint; all processes must call this.

        Args:
          snapshot: snapshot from `Run.snapshot`.

        Raises:
          BadInput: the folder cannot be written.
        """
        snapshot = to_first(snapshot)
        if not is_first():
            return
        self.folder.check()
        with writing(self.folder.path):
            checkpoint.save(
                self.folder.checkpoints,
                int(snapshot["state"].step),
                snapshot,
                _identity(self.run),
            )
        if self.saved is not None:
            self.saved(self.folder.file("."))

    def finish(
        self,
        *,
        plot: bool,
        report: bool = True,
        check: Callable[[], None] | None = None,
    ) -> RunResult:
        """Evaluates the best state on the test set and writes the closing files.

        All processes must call this.

        Args:
          plot: True to plot curves.png.
          report: True (default) to write report.html.
          check: function called before each batch of streamed images is scored; if it
            raises, no file is written. Default: none.

        Returns:
          The result that result.json holds.

        Raises:
          BadInput: the folder cannot be written.
        """
        # Only now: a run that begins should not wait for what ends it.
        from aslp_jax import artefact
        from aslp_jax.trainer import closing

        result = closing.evaluate_best(self.run, check)
        subnetwork = closing.extract_best(self.run, result)
        probabilities = {}
        if plot or report:
            probabilities = closing.keep_probabilities(self.run, best=True)
        if not is_first():
            return result
        # Before the result, which says that the run is finished.
        self.folder.check()
        with writing(self.folder.path):
            artefact.save(subnetwork, self.folder.file(artefact.NETWORK))
            closing.write_pictures(
                self.run.config,
                self.folder,
                self.rows,
                result,
                subnetwork,
                probabilities,
                plot=plot,
                report=report,
            )
        self.folder.write_result(result.to_json())
        return result

    def close(self) -> None:
        """Lets other processes write into the folder; a second call does nothing.

        Raises:
          BadInput: the folder cannot be written.
        """
        try:
            if self.events is not None:
                with writing(self.folder.path):
                    self.events.close()
        finally:
            self.folder.release()


def begin(
    config: Config,
    data: datasets.Dataset | Streamed,
    folder: RunFolder,
    *,
    resume: bool,
    note: Callable[[str], None],
    devices: Sequence[Any] | None = None,
    tensorboard: bool = False,
) -> Session:
    """Begins a run and its folder, or resumes both.

    The folder is claimed until `Session.close`: no other process writes there. In a run
    of several processes all must call this, and the first alone uses the folder.

    If a finished run goes on, its result and network are deleted: the run is no longer
    finished.

    Args:
      config: options.
      data: data set.
      folder: run folder, from `RunFolder.new`; or with `resume` that of the run.
      resume: True to continue the run in `folder`.
      note: function that shows a message about checkpoints that cannot be used.
      devices: devices to run on; None chooses those of the options.
      tensorboard: True to write event files of TensorBoard, too; a run that has some
        goes on with them in any case.

    Raises:
      MissingExtra: there are event files to write, and tensorboardX is not installed.
      BadInput: a folder or an option cannot be used, or another process writes there;
        or the processes of the run have not the same images.
    """
    if resume and is_first():
        folder.saved_options()  # a damaged config.json is met before all else
        folder.claim()
    try:
        session = Session(Run(config, data, devices=devices), folder, [])
        _check_images(session.run)
        if resume:
            _resume(session, note)
        elif is_first():
            folder.create(config, session.run.device)
        if is_first() and (tensorboard or folder.file(EVENTS).is_dir()):
            session.events = EventLog(folder.file(EVENTS))
        session.logs_events = bool(every_process([session.events is not None])[0, 0])
    except BaseException:
        folder.release()
        raise
    return session


def _resume(session: Session, note: Callable[[str], None]) -> None:
    """Restores a run, and makes its folder that of a run that goes on."""
    from aslp_jax.artefact import NETWORK

    run, folder = session.run, session.folder
    if is_first():
        folder.remove_left_behind(NETWORK)
    snapshot = _restored(session, note) if is_first() else run.blank_snapshot()
    found = every_process([snapshot is not None]).all()
    if found and snapshot is not None:
        run.restore(snapshot)
    if not is_first():
        return
    if session.active:
        # All are of fewer epochs; the result first, which says that it is finished.
        with writing(folder.path):
            for name in ("result.json", REPORT, NETWORK):
                folder.file(name).unlink(missing_ok=True)
    folder.record_resume(run.config, run.device, run.position.epoch)


def _identity(run: Run) -> dict[str, Any]:
    """Returns the values that a checkpoint must share with the run that reads it."""
    values = {
        **without_added(fixed_options(run.config.as_dict())),
        "images_sha256": run.images_sha256,
    }
    if run.config.of_files:  # labels of named data sets do not change
        values["labels_sha256"] = run.data.labels_sha256()
    return values


def _check_images(run: Run) -> None:
    """Checks that all processes have the same images."""
    digests = every_process(np.frombuffer(bytes.fromhex(run.images_sha256), np.int32))
    for process, digest in enumerate(digests):
        if not np.array_equal(digest, digests[0]):
            raise BadInput(
                f"process {process} has other images of {run.config.dataset_name} than "
                "process 0",
                page="docs/scaling.md#bad-input",
            )


def _restored(
    session: Session, note: Callable[[str], None]
) -> Mapping[str, Any] | None:
    """Returns the newest undamaged checkpoint, and restores the metrics up to it.

    A run that has saved none yet begins anew: None.
    """
    run, folder = session.run, session.folder
    found = checkpoint.steps(folder.checkpoints)
    if not found:
        session.rows = folder.rows(0)
        return None
    problems = []
    for step in reversed(found):
        try:
            snapshot = checkpoint.restore(
                folder.checkpoints, step, run.blank_snapshot(), _identity(run)
            )
        except checkpoint.CheckpointError as error:
            problems.append(str(error))
            continue
        session.rows = folder.rows(Position.from_arrays(snapshot["position"]).epoch)
        # Newer checkpoints cannot be read, and `save` does not replace a checkpoint.
        for newer in found[found.index(step) + 1 :]:
            note(f"checkpoint {newer} is damaged; going back to {step}")
            with writing(folder.path):
                shutil.rmtree(folder.checkpoints / str(newer))
        return snapshot
    raise BadInput(problems[0], page="docs/what_can_go_wrong.md#damaged-files")
