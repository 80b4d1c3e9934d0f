"""Runs of a grid: one cell after another, each with all its seeds at once."""

import contextlib
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from aslp_jax._errors import BadInput
from aslp_jax.sweeps.grid import Cell, Grid
from aslp_jax.trainer import summary
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.progress import Progress
from aslp_jax.trainer.run_folder import RunFolder
from aslp_jax.trainer.signals import Signals

if TYPE_CHECKING:
    import jax

    from aslp_jax.data import datasets
    from aslp_jax.trainer.session import Session

Configure = Callable[[Cell, int], Config]
"""Function from cell and seed to the options of a run."""


def train_grid(
    grid: Grid,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    configure: Configure,
    data: "datasets.Dataset",
    *,
    per_device: int = 1,
    deadline: float = math.inf,
    report: bool = True,
    progress_file: TextIO | None = None,
) -> None:
    """Trains every run of some cells that is not finished yet.

    The seeds of a cell go through one program, spread over the devices.

    Args:
      grid: folder of the grid.
      cells: cells to train, in this order.
      seeds: seeds of each cell.
      configure: function from cell and seed to the options of a run.
      data: images and labels.
      per_device: number of runs that a device trains at once.
      deadline: time to save and stop, as of `time.monotonic()`, in seconds.
      report: True to write a report.html on each run.
      progress_file: file that shows the progress; None is the present `sys.stderr`.

    Raises:
      BadInput: data, a folder or an option that cannot be used.
      signals.Interrupted: a signal or the deadline came; all is saved.
    """
    # Only now: a mistyped flag should not wait for JAX.
    import jax

    from aslp_jax.trainer.loop import train_sessions
    from aslp_jax.trainer.run_state import check

    todo = {
        cell: [seed for seed in seeds if grid.record(cell, seed) is None]
        for cell in cells
    }
    runs = sum(map(len, todo.values()))
    progress = Progress(progress_file, runs=runs)
    finished = len(cells) * len(seeds) - runs
    progress.note(f"{grid.path}: {runs} runs to make, {finished} finished before")
    if not runs:
        return
    devices = jax.local_devices()
    for config in _tightest(configure(cell, seeds[0]) for cell in todo):
        check(config, data)
    with Signals(deadline) as signals, contextlib.ExitStack() as claims:
        try:
            for cell, left in todo.items():
                for batch, share in _batches(left, len(devices), per_device):
                    sessions = []
                    for index, seed in enumerate(batch):
                        signals.check()
                        config, out = configure(cell, seed), grid.folder(cell, seed)
                        device = devices[index // share]
                        session = _begin(config, data, out, device, progress)
                        claims.callback(session.close)
                        sessions.append(session)
                    progress.start(
                        _name_batch(cell, batch),
                        runs=len(batch),
                        epochs=sessions[0].run.config.total_epochs,
                    )
                    train_sessions(sessions, progress, signals)
                    outcomes = []
                    for session in sessions:
                        signals.check()
                        outcomes.append(_finish(session, progress, report=report))
                    progress.finish(", ".join(outcomes))
                    claims.close()
        finally:
            progress.close()


def _tightest(configs: Iterable[Config]) -> Iterable[Config]:
    """Returns the smallest budget of runs that are alike in all else.

    A budget that is too small for a network then shows at once, not after hours.
    """
    found: dict[tuple[str, ...], Config] = {}
    for config in configs:
        if config.keep_fraction is not None:
            key = (config.arch, config.method, config.scope)
            found[key] = min(
                found.get(key, config), config, key=lambda each: each.keep_fraction or 1
            )
    return found.values()


def _batches(
    seeds: Sequence[int], devices: int, per_device: int
) -> Iterator[tuple[Sequence[int], int]]:
    """Yields seeds to train side by side, and how many of them go on each device."""
    while seeds:
        share = max(1, min(per_device, len(seeds) // devices))
        size = min(share * devices, len(seeds))
        yield seeds[:size], share
        seeds = seeds[size:]


def _name_batch(cell: Cell, seeds: Sequence[int]) -> str:
    plural = "s" if seeds[1:] else ""
    return f"{cell.name} seed{plural} {', '.join(map(str, seeds))}"


def _begin(
    config: Config,
    data: "datasets.Dataset",
    out: Path,
    device: "jax.Device",
    progress: Progress,
) -> "Session":
    """Begins a run, or continues the run that its folder holds."""
    from aslp_jax.trainer.session import begin

    begun = (out / "config.json").exists()
    try:
        return begin(
            config,
            data,
            RunFolder(out) if begun else RunFolder.new(out, config),
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


def _finish(session: "Session", progress: Progress, *, report: bool) -> str:
    """Writes the closing files of a run, notes warnings, and returns its accuracy."""
    if session.problem is not None:
        stochastic = session.run.programs.method.stochastic
        session.folder.write_result(
            {"stochastic": stochastic, "diverged": session.problem}
        )
        return "diverged"
    result = session.finish(plot=False, report=report)
    # Hundreds of runs of millions of weights: a finished run needs none of them.
    shutil.rmtree(session.folder.checkpoints, ignore_errors=True)
    for warning in summary.warnings(result):
        progress.note(f"{session.folder.path}: WARNING: {warning}")
    remarks = [summary.others(result)]
    if result.budget_miss > 0:
        remarks.append(f"budget missed by {result.budget_miss:.2%}")
    remark = ", ".join(filter(None, remarks))
    return f"{result.thresholding:.1%}" + (f" ({remark})" if remark else "")
