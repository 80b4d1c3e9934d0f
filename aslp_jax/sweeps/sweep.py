"""A sweep: training of all cells of a grid, and its report.

The file is long because it states what a table, a schedule, a plan and an outcome hold.
"""

import contextlib
import dataclasses
import functools
import importlib.metadata
import math
import os
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aslp_jax._atomic import remove_left_behind
from aslp_jax._claim import Claim, claim
from aslp_jax._errors import BadInput
from aslp_jax._extras import require
from aslp_jax.sweeps import runner
from aslp_jax.sweeps.grid import Grid
from aslp_jax.trainer.options import FIELDS, RESCALES, Config, knows, without_added
from aslp_jax.trainer.presets import resolve
from aslp_jax.trainer.progress import Progress
from aslp_jax.trainer.run_folder import REPORT, check_encoding, writing
from aslp_jax.trainer.signals import Interrupted, Signals

if TYPE_CHECKING:
    from aslp_jax.data import datasets
    from aslp_jax.data.streamed import Streamed


@dataclasses.dataclass(frozen=True)
class Table:
    """Kind of grid, with the cells to train and the report on them.

    Attributes:
      name: name of the table, of its files and of its folder.
      cells: cells to train, in this order.
      configure: function from preset, shared options, cell and seed to the options of a
        run.
      settings: function from preset and shared options to everything that the cells
        share, as JSON values.
      report: function that writes the report on all finished runs into the folder, from
        grid and name of the data set.
      page: function that writes report.html into the folder, from the same.
    """

    name: str
    cells: Sequence[Any]
    configure: Callable[[str, Mapping[str, Any], Any, int], Config]
    settings: Callable[[str, Mapping[str, Any]], dict[str, Any]]
    report: Callable[[Grid, str], None]
    page: Callable[[Grid, str], None]


@dataclasses.dataclass(frozen=True)
class Schedule:
    """Runs of each cell, and limits of a call.

    Attributes:
      seeds: number of runs of each cell, which have the seeds from 0.
      per_device: number of runs that a device trains at once.
      minutes: time after which to save and stop; infinite for no limit.
      report: True to write report.html for the grid and for each run.
    """

    seeds: int
    per_device: int = 1
    minutes: float = math.inf
    report: bool = True


@dataclasses.dataclass(frozen=True)
class SweepOutcome:
    """Outcome of a sweep.

    Attributes:
      grid: folder of the grid.
      page: report on all finished runs, a Markdown file in that folder.
      interrupted: signal or time limit that ended the sweep; None if all runs are
        finished.
    """

    grid: Grid
    page: Path
    interrupted: Interrupted | None = None


class Train(Protocol):
    """Function that trains the runs of a grid which are missing: `runner.train_grid`.

    Its arguments and errors are described there.
    """

    def __call__(
        self,
        grid: Grid,
        cells: Sequence[Any],
        seeds: Sequence[int],
        configure: runner.Configure,
        data: "datasets.Dataset | Streamed",
        *,
        per_device: int,
        deadline: float,
        report: bool,
    ) -> None:
        """Trains the runs."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """Grid that a command asks for, its options checked.

    Attributes:
      table: cells to train, and their report.
      schedule: runs of each cell, and limits of the call.
      folder: folder of the grid.
      configure: function from cell and seed to the options of a run.
      shared: everything that the options say of all cells, as JSON values.
      began: time of the call, as of `time.monotonic()`, in seconds.
    """

    table: Table
    schedule: Schedule
    folder: Path
    configure: runner.Configure
    shared: dict[str, Any]
    began: float

    @property
    def first(self) -> Config:
        """Options of the first run."""
        return self.configure(self.table.cells[0], 0)

    @property
    def deadline(self) -> float:
        """Time to save and stop, as of `time.monotonic()`, in seconds."""
        return self.began + 60 * self.schedule.minutes

    @property
    def page(self) -> Path:
        """Report on all finished runs, a Markdown file."""
        return self.folder / f"{self.table.name}.md"

    def load(self, seeds: int) -> "datasets.Dataset | Streamed":
        """Loads the images, and makes JAX ready.

        Args:
          seeds: number of seeds that train side by side.

        Raises:
          BadInput: the images are not available.
        """
        # Only now: `--help` and mistyped flags should not wait for JAX.
        with Signals():
            use_cores(seeds)
            from aslp_jax.trainer.compilation_cache import enable_compilation_cache
            from aslp_jax.trainer.loading import load_dataset

        enable_compilation_cache()
        note = Progress().note
        data = load_dataset(self.first, note)
        note(f"{self.table.name}: {self.first.dataset_name} ({data.source})")
        return data

    def settings(self, data: "datasets.Dataset | Streamed") -> dict[str, Any]:
        """Returns everything that the cells share, as JSON values.

        Args:
          data: images and labels.
        """
        first = self.first
        return {
            "version": importlib.metadata.version("aslp-jax"),
            "dataset": first.dataset,
            "images_sha256": data.images_sha256(),
            **({"labels_sha256": data.labels_sha256()} if first.of_files else {}),
            "per_device": self.schedule.per_device,
            "options": {
                name: without_added(shared) for name, shared in self.shared.items()
            },
        }


def plan(
    table: Table,
    preset: str,
    options: Mapping[str, Any],
    schedule: Schedule,
    out: Path | None = None,
) -> Plan:
    """Returns the grid that a command asks for; reads and writes nothing.

    Args:
      table: cells to train, and their report.
      preset: name of the preset that options start from.
      options: options that all cells share, by name.
      schedule: runs of each cell, and limits of this call.
      out: folder of the grid; None for one under `runs/`, named after table and data
        set.

    Raises:
      BadInput: an option that cannot be used.
    """
    began = time.monotonic()
    _check_options(table, options)
    configure = functools.partial(table.configure, preset, options)
    # Of every cell, so that no bad option shows hours later.
    first, *_ = [configure(cell, 0) for cell in table.cells]
    folder = out or Path(f"runs/{table.name}-{first.dataset_name}")
    shared = table.settings(preset, options)
    return Plan(table, schedule, folder, configure, shared, began)


def run_sweep(plan: Plan, train: Train = runner.train_grid) -> SweepOutcome:
    """Trains the runs that are missing, and writes the report.

    Args:
      plan: grid to train.
      train: function that trains the runs; default: on this machine.

    Raises:
      BadInput: data or a folder that cannot be used, or another process writes into
        the folder.
    """
    table, seeds = plan.table, plan.schedule.seeds
    with _claimed(plan):
        data = plan.load(seeds)
        grid, interrupted = Grid(plan.folder, plan.settings(data)), None
        try:
            train(
                grid,
                table.cells,
                range(seeds),
                plan.configure,
                data,
                per_device=plan.schedule.per_device,
                deadline=plan.deadline,
                report=plan.schedule.report,
            )
        except Interrupted as stop:
            interrupted = stop
        write_reports(plan, grid)
    return SweepOutcome(grid, plan.page, interrupted)


def write_reports(plan: Plan, grid: Grid) -> None:
    """Writes the report on all finished runs, and the page if it is asked for.

    Without one, an earlier page is deleted.

    Args:
      plan: the grid.
      grid: its folder, which this process has claimed.

    Raises:
      BadInput: the folder cannot be written, or a run is damaged.
    """
    dataset = plan.first.dataset
    if not plan.schedule.report:
        # An earlier page knows fewer runs than the tables beside it.
        with writing(grid.path):
            (grid.path / REPORT).unlink(missing_ok=True)
    plan.table.report(grid, dataset)
    if plan.schedule.report:
        plan.table.page(grid, dataset)


def _claimed(plan: Plan) -> Claim:
    """Claims the folder of a grid, and clears it of what a killed process left."""
    with writing(plan.folder):
        check_encoding(plan.folder)
        found = claim(plan.folder)
        clear(plan)
    return found


def clear(plan: Plan) -> None:
    """Deletes what killed processes left in the folder of a grid.

    Args:
      plan: the grid, whose folder this process has claimed.

    Raises:
      OSError: the folder cannot be read or written.
    """
    tables = (f"{plan.table.name}.{end}" for end in ("csv", "md"))
    plots = (f"{arch}.png" for arch in FIELDS["arch"].metadata["choices"])
    names = ("grid.json", "runs.csv", REPORT, *tables, *plots)
    remove_left_behind(plan.folder, names)


def _check_options(table: Table, options: Mapping[str, Any]) -> None:
    methods = dict.fromkeys(cell.options(0)["method"] for cell in table.cells)
    for name in options.keys() & FIELDS.keys():
        if not any(knows(method, name) for method in methods):
            raise BadInput(
                f"--{name.replace('_', '-')} means nothing to {', '.join(methods)}",
                page="docs/training.md#options",
            )
    require("matplotlib", by=table.name)


def use_cores(seeds: int) -> None:
    """Makes a CPU take part as one device a core, if no device has been started yet.

    Args:
      seeds: number of runs of each cell; more devices would stay idle.
    """
    import jax

    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        cores = os.cpu_count() or 1
    # A process that has started its devices keeps those there are.
    with contextlib.suppress(RuntimeError):
        jax.config.update("jax_num_cpu_devices", max(1, min(seeds, cores)))


def cell_config(
    preset: str | None, chosen: Mapping[str, Any], own: Mapping[str, Any]
) -> Config:
    """Returns the options of one run, without those that its method does not know.

    Args:
      preset: name of the preset, or None.
      chosen: options that all cells share, by name.
      own: options by which the run differs from others, its method among them.

    Raises:
      BadInput: a value, or a combination of values, that means nothing.
    """
    method = own["method"]
    shared = {name: value for name, value in chosen.items() if knows(method, name)}
    if len(RESCALES[method]) == 1:  # a rescale is asked of the others
        shared.pop("rescale", None)
    return resolve(preset, {**shared, **own})


def shared_options(config: Config, axes: Sequence[str]) -> dict[str, Any]:
    """Returns the options that the cells of a table share, as JSON values.

    Epochs and patience are among them: they may change when one run is resumed, but
    not within a table.

    Args:
      config: options of any cell.
      axes: names of the options in which the cells differ.
    """
    return {
        name: value
        for name, value in config.as_dict().items()
        if name not in axes
        if name in ("epochs", "patience") or not FIELDS[name].metadata.get("resumable")
    }


def with_variant(
    options: dict[str, Any], name: str, others: Mapping[str, Any]
) -> dict[str, Any]:
    """Returns shared options with those of a variant that differ from them, if any.

    Args:
      options: options of most cells.
      name: name of the variant.
      others: options of the variant.
    """
    differing = {key: value for key, value in others.items() if value != options[key]}
    return {**options, **({name: differing} if differing else {})}
