"""The runs of a grid: one cell after another, each with all its seeds at once."""

import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO

from aslp_jax._errors import BadInput
from aslp_jax.sweeps.grid import Cell, Grid
from aslp_jax.trainer import summary
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.progress import humanise_seconds

if TYPE_CHECKING:
    from aslp_jax.data import datasets
    from aslp_jax.trainer.session import Session


class GridProgress:
    """Tells a person how far a grid is: a live line, or a line a group in a log.

    Args:
      file: where to write.
      runs: to be made in all.
      clock: monotonic time in seconds.
    """

    def __init__(
        self,
        file: TextIO,
        *,
        runs: int,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file, self._clock = file, clock
        self._live = file.isatty()
        self._runs, self._done = runs, 0
        self._began = self._drawn = clock()
        self._open = False  # whether a live line waits for its end
        self._what, self._epochs, self._share = "", 1, 0

    def group(self, what: str, share: int, epochs: int) -> None:
        """Begins a group of `share` runs of at most `epochs` epochs."""
        self._what, self._share, self._epochs = what, share, epochs

    def step(self, epoch: int, step: int, steps: int, images_per_second: float) -> None:
        """Reports progress within an epoch; does nothing in a log."""
        now = self._clock()
        if not self._live or now - self._drawn < 0.2:
            return
        self._drawn = now
        within = (epoch - 1 + step / steps) / self._epochs
        text = (
            f"run {self._done + 1}/{self._runs}  {self._what}  "
            f"epoch {epoch}/{self._epochs}  {images_per_second:,.0f} images/s  "
            f"{self._left(self._done + self._share * within)}"
        )
        columns = shutil.get_terminal_size().columns - 1
        self._file.write(f"\r{text[:columns]}\x1b[K")
        self._file.flush()
        self._open = True

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Taken as every watcher takes it; the steps tell enough."""

    def finished(self, outcome: str) -> None:
        """Ends a group with a line that stays."""
        self._done += self._share
        self.note(
            f"run {self._done}/{self._runs}  {self._what}  {outcome}  "
            f"{self._left(self._done)}"
        )

    def close(self) -> None:
        """Ends the live line, so that what comes next starts afresh."""
        if self._open:
            print(file=self._file, flush=True)

    def note(self, text: str) -> None:
        """Writes a line that stays, in the place of the live one."""
        print(f"\r{text}\x1b[K" if self._live else text, file=self._file, flush=True)
        self._open = False

    def _left(self, done: float) -> str:
        spent = self._clock() - self._began
        if done >= self._runs:
            return f"all done in {humanise_seconds(spent)}"
        left = spent * (self._runs - done) / done if done > 0 else math.inf
        return f"about {humanise_seconds(left)} left"


def train_grid(
    grid: Grid,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    configure: Callable[[Cell, int], Config],
    data: "datasets.Dataset",
    *,
    per_device: int = 1,
    deadline: float = math.inf,
    progress_file: TextIO = sys.stderr,
) -> None:
    """Makes every run of some cells that is not finished yet.

    The seeds of a cell go through one program, spread over the devices.

    Args:
      grid: its folder.
      cells: to fill.
      seeds: of each cell.
      configure: from cell and seed to the options of the run.
      data: the images.
      per_device: runs that a device trains at once.
      deadline: of `time.monotonic()`, when to save and stop.
      progress_file: where progress is shown.

    Raises:
      BadInput: data, a folder or an option that cannot be used.
      loop.Stopped: a signal or the deadline; all is saved.
    """
    # Only now: a mistyped flag should not wait for JAX.
    import jax

    from aslp_jax.trainer.loop import Signals, train_sessions
    from aslp_jax.trainer.run_state import check
    from aslp_jax.trainer.session import Session, begin

    todo = {
        cell: [seed for seed in seeds if grid.record(cell, seed) is None]
        for cell in cells
    }
    runs = sum(map(len, todo.values()))
    progress = GridProgress(progress_file, runs=runs)
    finished = len(cells) * len(seeds) - runs
    progress.note(f"{grid.path}: {runs} runs to make, {finished} finished before")
    if not runs:
        return
    devices = jax.local_devices()
    for config in _tightest(configure(cell, seeds[0]) for cell in todo):
        check(config, data)

    def begin_run(cell: Cell, seed: int, device: jax.Device) -> Session:
        signals.check()
        out = grid.folder(cell, seed)
        begun = (out / "config.json").exists()
        if not begun and not (out / "checkpoints").exists():
            shutil.rmtree(out, ignore_errors=True)  # killed while it was made
        try:
            return begin(
                configure(cell, seed),
                data,
                out,
                resume=begun,
                note=progress.note,
                devices=[device],
            )
        except BadInput as error:
            if not begun:
                raise
            raise BadInput(
                f"{error} (or delete {out}, and the run is made anew)"
            ) from error

    def finish_run(session: Session) -> str:
        signals.check()
        outcome, warnings = _finish(session)
        for warning in warnings:
            progress.note(f"{session.folder.path}: WARNING: {warning}")
        return outcome

    with Signals(deadline) as signals:
        try:
            for cell, left in todo.items():
                for group, share in _groups(left, len(devices), per_device):
                    sessions = [
                        begin_run(cell, seed, devices[index // share])
                        for index, seed in enumerate(group)
                    ]
                    what = f"{cell.name} seed{'s' * (len(group) > 1)} {_listed(group)}"
                    progress.group(
                        what, len(group), sessions[0].run.config.total_epochs
                    )
                    train_sessions(sessions, progress, signals)
                    progress.finished(", ".join(map(finish_run, sessions)))
        finally:
            progress.close()


def _tightest(configs: Iterable[Config]) -> Iterable[Config]:
    """Of runs alike but for their budget those with the smallest.

    So that a budget that is too small for a network shows at once, not after hours.
    """
    found: dict[tuple[str, ...], Config] = {}
    for config in configs:
        if config.keep_fraction is not None:
            key = (config.arch, config.method, config.scope)
            found[key] = min(
                found.get(key, config), config, key=lambda each: each.keep_fraction or 1
            )
    return found.values()


def _groups(
    seeds: Sequence[int], devices: int, per_device: int
) -> Iterator[tuple[Sequence[int], int]]:
    """Parts of the seeds to train side by side, and how many of each on a device."""
    while seeds:
        share = max(1, min(per_device, len(seeds) // devices))
        size = min(share * devices, len(seeds))
        yield seeds[:size], share
        seeds = seeds[size:]


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds))


def _finish(session: "Session") -> tuple[str, list[str]]:
    """Writes the closing files of a run; returns its accuracy in words and warnings."""
    if session.problem is not None:
        stochastic = session.run.programs.method.stochastic
        session.folder.write_result(
            {"stochastic": stochastic, "diverged": session.problem}
        )
        return "diverged", []
    result = session.finish(picture=False)
    # Hundreds of runs of millions of weights: what is finished needs none of them.
    shutil.rmtree(session.folder.checkpoints, ignore_errors=True)
    found = [summary.others(result)]
    if result["budget_miss"] > 0:
        found.append(f"budget missed by {result['budget_miss']:.2%}")
    return (
        f"{result['thresholding']:.1%} ({', '.join(filter(None, found))})",
        summary.warnings(result),
    )
