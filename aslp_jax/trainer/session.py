"""A run together with its files: begun, saved, taken up again, finished."""

import dataclasses
import shlex
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aslp_jax import artefact, checkpoint
from aslp_jax._errors import BadInput
from aslp_jax.data import datasets
from aslp_jax.trainer import plots
from aslp_jax.trainer.options import Config, fixed_options
from aslp_jax.trainer.run_folder import RunFolder, writing
from aslp_jax.trainer.run_state import Run

_ACCURACIES = ("thresholding", "averaging_mean", "averaging_std", "single")


@dataclasses.dataclass
class Session:
    """One run and its files.

    Attributes:
      run: in memory.
      folder: its files.
      rows: of metrics.jsonl, one an epoch.
      problem: why it cannot go on, where its loss was not finite.
    """

    run: Run
    folder: RunFolder
    rows: list[dict[str, Any]]
    problem: str | None = None

    @property
    def active(self) -> bool:
        """Whether there is more to train."""
        return self.problem is None and self.run.stopped is None

    @property
    def place(self) -> tuple[int, int]:
        """Epochs finished, and steps taken of the next."""
        return self.run.position.epoch, self.run.position.step

    @property
    def quoted(self) -> str:
        """The folder as a shell takes it."""
        return shlex.quote(str(self.folder.path))

    def save(self, snapshot: Mapping[str, Any]) -> None:
        """Saves a snapshot of the run as a checkpoint.

        Raises:
          BadInput: the folder cannot be written.
        """
        with writing(self.folder.path):
            checkpoint.save(
                self.folder.checkpoints,
                int(snapshot["state"].step),
                snapshot,
                _identity(self.run),
            )

    def finish(self, *, picture: bool) -> dict[str, Any]:
        """Evaluates the best state on the test set and writes the closing files.

        Args:
          picture: whether to draw curves.png.

        Returns:
          What result.json holds.

        Raises:
          BadInput: the folder cannot be written.
        """
        result = self.run.result()
        accuracies = {name: result[name] for name in _ACCURACIES}
        subnetwork = self.run.subnetwork(accuracies)
        # Before the result, which says that the run is finished.
        with writing(self.folder.path):
            artefact.save(subnetwork, self.folder.path / artefact.NETWORK)
        self.folder.write_result(result)
        if picture:
            config = self.run.config
            title = f"{config.arch} on {config.dataset}, {config.method}, "
            with writing(self.folder.path):
                plots.plot_curves(
                    self.rows,
                    self.run.keep_probabilities(),
                    self.folder.path / "curves.png",
                    title=f"{title}seed {config.seed}",
                )
        return result


def begin(
    config: Config,
    data: datasets.Dataset,
    out: Path | None,
    *,
    resume: bool,
    note: Callable[[str], None],
    devices: Sequence[Any] | None = None,
) -> Session:
    """Makes a run and its folder, or takes both up where they were left.

    Where a finished run goes on, its result and network are deleted: it is no longer
    finished.

    Args:
      config: the options.
      data: the images.
      out: the run folder; None makes a new one.
      resume: whether to continue the run in `out`.
      note: is told of checkpoints that cannot be used.
      devices: to run on; None chooses what the options ask for.

    Raises:
      BadInput: a folder or an option that cannot be used.
    """
    run = Run(config, data, devices=devices)
    if not resume or out is None:
        return Session(run, RunFolder.create(out, config, run.device), [])
    session = Session(run, RunFolder(out), [])
    session.folder.saved_options()  # a damaged config.json is met before all else
    _restore(session, note)
    if session.active:
        # They are of fewer epochs; the result first, which says that it is finished.
        with writing(out):
            for name in ("result.json", artefact.NETWORK):
                (out / name).unlink(missing_ok=True)
    session.folder.record_resume(config, run.device, run.position.epoch)
    return session


def load_dataset(config: Config) -> datasets.Dataset:
    """Loads the data set of a run.

    Raises:
      BadInput: it cannot be had, or is not what the options say.
    """
    try:
        return datasets.load(
            config.dataset,
            data_dir=config.data_dir,
            manual_dir=config.manual_dir,
            cache_dir=config.cache_dir,
        )
    except (OSError, ValueError) as error:
        raise BadInput(str(error)) from error


def _identity(run: Run) -> dict[str, Any]:
    """What a checkpoint must share with the run that reads it."""
    return {**fixed_options(run.config.as_dict()), "images_sha256": run.images_sha256}


def _restore(session: Session, note: Callable[[str], None]) -> None:
    """Restores the newest whole checkpoint and the metrics up to it."""
    run, folder = session.run, session.folder
    found = checkpoint.steps(folder.checkpoints)
    if not found:
        session.rows = folder.rows(0)
        return
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
        session.rows = folder.rows(run.position.epoch)
        # Newer ones cannot be read, and `save` leaves alone what exists.
        for newer in found[found.index(step) + 1 :]:
            note(f"checkpoint {newer} is damaged; going back to {step}")
            with writing(folder.path):
                shutil.rmtree(folder.checkpoints / str(newer))
        return
    raise BadInput(problems[0])
