"""Jobs: the parts of a grid that processes anywhere can train, each one part.

A job is a cell and the seeds that go as one program on one device. Jobs of one grid
fill one folder: each claims its run folders alone, and the folder of the grid only for
the moments in which `grid.json` and the report are written.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from aslp_jax._claim import Held, await_sign_of_life, claim_soon
from aslp_jax._errors import BadInput
from aslp_jax.sweeps import runner
from aslp_jax.sweeps.grid import Cell, Grid, open_shared
from aslp_jax.sweeps.sweep import Plan, clear, write_reports
from aslp_jax.trainer.progress import Progress, counted
from aslp_jax.trainer.run_folder import check_encoding, writing
from aslp_jax.trainer.signals import Interrupted


class Job(NamedTuple):
    """Part of a grid that one device trains as one program.

    Attributes:
      cell: cell of the grid.
      seeds: seeds of the cell, at most `per_device` of them.
    """

    cell: Cell
    seeds: Sequence[int]


def split(todo: Mapping[Any, Sequence[int]], per_device: int) -> Iterator[Job]:
    """Yields the jobs of a grid.

    Args:
      todo: seeds to train, by cell.
      per_device: number of runs that a device trains at once.
    """
    for cell, seeds in todo.items():
        for start in range(0, len(seeds), per_device):
            yield Job(cell, seeds[start : start + per_device])


def all_jobs(plan: Plan) -> list[Job]:
    """Returns all jobs of a grid, in an order that depends on its options alone."""
    seeds = range(plan.schedule.seeds)
    return list(split(dict.fromkeys(plan.table.cells, seeds), plan.schedule.per_device))


def run_job(plan: Plan, number: int) -> Interrupted | None:
    """Trains one job of a grid; the last one to finish writes the report.

    Args:
      plan: the grid.
      number: number of the job, from 0.

    Returns:
      Signal or time limit that ended the job; None if its runs are finished.

    Raises:
      BadInput: there is no such job, data or a folder cannot be used, or another
        process trains the same run.
    """
    jobs = all_jobs(plan)
    if number >= len(jobs):
        raise BadInput(
            f"--job {number}: the jobs of this grid are 0 to {len(jobs) - 1}",
            page="docs/scaling.md#a-grid-with-slurm-or-kubernetes",
        )
    job = jobs[number]
    with writing(plan.folder):
        check_encoding(plan.folder)
    data = plan.load(1)
    # Only now: a mistyped flag should not wait for JAX.
    import jax

    grid = open_shared(plan.folder, plan.settings(data))
    with writing(plan.folder):
        for seed in job.seeds:
            await_sign_of_life(grid.folder(job.cell, seed))
    try:
        runner.train_grid(
            grid,
            [job.cell],
            job.seeds,
            plan.configure,
            data,
            per_device=plan.schedule.per_device,
            report=plan.schedule.report,
            deadline=plan.deadline,
            devices=jax.local_devices()[:1],
        )
    except Interrupted as stop:
        return stop
    _report_if_last(plan, grid, jobs)
    return None


def _report_if_last(plan: Plan, grid: Grid, jobs: Sequence[Job]) -> None:
    """Writes the report if all runs of the grid are finished."""
    note = Progress().note
    left = sum(
        grid.record(job.cell, seed) is None for job in jobs for seed in job.seeds
    )
    if left:
        note(f"{grid.path}: {counted(left, 'run')} left to other jobs")
        return
    try:
        with writing(grid.path), claim_soon(grid.path):
            clear(plan)
            write_reports(plan, grid)
    except Held as error:
        note(f"{error}; the runs are finished, the report was not written")
        return
    note(f"{grid.path}: all runs are finished; the report is {plan.page}")
