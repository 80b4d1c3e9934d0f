"""Runs of a grid: one cell after another, each with all its seeds at once."""

import contextlib
import math
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from aslp_jax._claim import Held
from aslp_jax._errors import BadInput
from aslp_jax.sweeps.grid import Cell, Grid
from aslp_jax.trainer import summary
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.progress import Progress, counted
from aslp_jax.trainer.results import RunResult
from aslp_jax.trainer.run_folder import RunFolder
from aslp_jax.trainer.signals import Signals

if TYPE_CHECKING:
    import jax

    from aslp_jax.data import datasets
    from aslp_jax.data.streamed import Streamed
    from aslp_jax.trainer.session import Session

Configure = Callable[[Cell, int], Config]
"""Function from cell and seed to the options of a run."""


def train_grid(
    grid: Grid,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    configure: Configure,
    data: "datasets.Dataset | Streamed",
    *,
    per_device: int = 1,
    deadline: float = math.inf,
    report: bool = True,
    lasting: bool = True,
    devices: Sequence["jax.Device"] | None = None,
    progress_file: TextIO | None = None,
    saved: Callable[[Path], None] | None = None,
) -> None:
    """Trains every run of some cells that is not finished yet.

    The seeds of a cell go through one program, spread over the devices. A run that
    another process finishes meanwhile is kept.

    Args:
      grid: folder of the grid.
      cells: cells to train, in this order.
      seeds: seeds of each cell.
      configure: function from cell and seed to the options of a run.
      data: images and labels.
      per_device: number of runs that a device trains at once.
      deadline: time to save and stop, as of `time.monotonic()`, in seconds.
      report: True to write a report.html on each run.
      lasting: False if the folder of the grid is soon deleted; then no result names it.
      devices: devices to train on; None takes all of this process.
      progress_file: file that shows the progress; None is the present `sys.stderr`.
      saved: function that is called with a run folder after each checkpoint of the run;
        None for none.

    Raises:
      BadInput: data, a folder or an option that cannot be used.
      signals.Interrupted: a signal or the deadline came; all is saved.
    """
    # Only now: a mistyped flag should not wait for JAX.
    import jax

    from aslp_jax.trainer.loop import train_sessions

    todo, progress = begin_grid(grid, cells, seeds, progress_file)
    if not any(todo.values()):
        return
    devices = devices or jax.local_devices()
    check_budgets((configure(cell, seeds[0]) for cell in todo), data)
    with Signals(deadline) as signals, contextlib.ExitStack() as claims:
        try:
            for cell, left in todo.items():
                for batch, share in _batches(left, len(devices), per_device):
                    begun: dict[int, Session] = {}
                    for index, seed in enumerate(batch):
                        signals.check()
                        config, out = configure(cell, seed), grid.folder(cell, seed)
                        device = devices[index // share]
                        session = _begin(config, data, out, device, progress)
                        if session is None:
                            progress.start(name_batch(cell, [seed]), runs=1, epochs=1)
                            progress.finish("finished by another process")
                            continue
                        claims.callback(session.close)
                        session.saved = saved
                        begun[seed] = session
                    if not begun:
                        continue
                    sessions = [*begun.values()]
                    progress.start(
                        name_batch(cell, [*begun]),
                        runs=len(begun),
                        epochs=sessions[0].run.config.total_epochs,
                    )
                    train_sessions(sessions, progress, signals)
                    outcomes = []
                    for session in sessions:
                        signals.check()
                        result, path = (
                            _finish(session, signals, report, lasting),
                            session.folder.path,
                        )
                        outcomes.append(describe(result, path, progress.note))
                    progress.finish(", ".join(outcomes))
                    claims.close()
        finally:
            progress.close()


def begin_grid(
    grid: Grid,
    cells: Sequence[Cell],
    seeds: Sequence[int],
    progress_file: TextIO | None = None,
) -> tuple[dict[Cell, list[int]], Progress]:
    """Returns the seeds that each cell has to train, and the progress of the grid.

    Args:
      grid: folder of the grid.
      cells: cells to train, in this order.
      seeds: seeds of each cell.
      progress_file: file that shows the progress; None is the present `sys.stderr`.

    Raises:
      BadInput: the files of a run are damaged.
    """
    todo = {
        cell: [seed for seed in seeds if grid.record(cell, seed) is None]
        for cell in cells
    }
    runs = sum(map(len, todo.values()))
    progress = Progress(progress_file, runs=runs)
    finished = len(cells) * len(seeds) - runs
    progress.note(
        f"{grid.path}: {counted(runs, 'run')} to make, {finished} finished before"
    )
    return todo, progress


def check_budgets(
    configs: Iterable[Config], data: "datasets.Dataset | Streamed"
) -> None:
    """Checks that runs could begin, the tightest budget of each kind.

    Args:
      configs: options of the runs.
      data: images and labels.

    Raises:
      BadInput: a network cannot take the images, or a budget is too small for it.
    """
    from aslp_jax.trainer.run_state import check

    for config in _tightest(configs):
        check(config, data)


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


def name_batch(cell: Cell, seeds: Sequence[int]) -> str:
    """Returns the name of some seeds of a cell, for a person."""
    plural = "s" if seeds[1:] else ""
    return f"{cell.name} seed{plural} {', '.join(map(str, seeds))}"


def _begin(
    config: Config,
    data: "datasets.Dataset | Streamed",
    out: Path,
    device: "jax.Device",
    progress: Progress,
) -> "Session | None":
    """Begins a run, or continues that in its folder; returns None if it is finished."""
    from aslp_jax.trainer.session import begin

    begun = (out / "config.json").exists()
    folder = RunFolder(out)
    try:
        if begun:
            folder.saved_options()  # a damaged config.json is met before all else
            folder.claim()
            # Only now: the process that held it may have finished it.
            if folder.file("result.json").exists():
                folder.release()
                return None
        return begin(
            config,
            data,
            folder if begun else RunFolder.new(out, config),
            resume=begun,
            note=progress.note,
            devices=[device],
        )
    except Held:
        raise
    except BadInput as error:
        if not begun:
            raise
        raise BadInput(
            f"{error} (or delete {out}, and the run is made anew)"
        ) from error


def _finish(
    session: "Session", signals: Signals, report: bool, lasting: bool
) -> dict[str, Any]:
    """Writes the closing files of a run, and returns the content of result.json."""
    if session.divergence is not None:
        stochastic = session.run.programs.method.stochastic
        problem = session.problem if lasting else str(session.divergence)
        result = {"stochastic": stochastic, "diverged": problem}
        session.folder.write_result(result)
        return result
    result = session.finish(plot=False, report=report, check=signals.check).to_json()
    # Hundreds of runs of millions of weights: a finished run needs none of them.
    shutil.rmtree(session.folder.checkpoints, ignore_errors=True)
    return result


def describe(result: Mapping[str, Any], path: Path, note: Callable[[str], None]) -> str:
    """Returns the accuracy of a finished run for a person, and notes its warnings.

    Args:
      result: content of result.json.
      path: run folder.
      note: function that shows a line.
    """
    if "diverged" in result:
        return "diverged"
    found = RunResult.from_json(result)
    for warning in summary.warnings(found):
        note(f"{path}: WARNING: {warning}")
    remarks = [summary.others(found)]
    if found.budget_miss > 0:
        remarks.append(f"budget missed by {found.budget_miss:.2%}")
    remark = ", ".join(filter(None, remarks))
    return f"{found.thresholding:.1%}" + (f" ({remark})" if remark else "")
