"""What the programs that fill a grid share: their flags, the outcome, the end."""

import dataclasses
import functools
import importlib.metadata
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from aslp_jax._errors import BadInput
from aslp_jax._extras import require
from aslp_jax.sweeps import runner
from aslp_jax.sweeps.grid import Grid
from aslp_jax.trainer.options import FIELDS, RESCALES, Config, knows
from aslp_jax.trainer.presets import resolve


@dataclasses.dataclass(frozen=True)
class Table:
    """What a program fills and how it is shown.

    Attributes:
      name: of the table, of its files and of the folder it is made in.
      cells: to be filled, those that matter most first.
      configure: from preset, shared options, cell and seed to the options of a run.
      recipe: from preset and shared options to what the cells share, JSON values.
      report: writes what is known so far into the grid's folder, by data set;
        `{name}.md` is the part that is printed.
    """

    name: str
    cells: Sequence[Any]
    configure: Callable[[str, dict[str, Any], Any, int], Config]
    recipe: Callable[[str, dict[str, Any]], dict[str, Any]]
    report: Callable[[Grid, str], None]


@dataclasses.dataclass(frozen=True)
class SweepOutcome:
    """What became of a call.

    Attributes:
      grid: the folder.
      seeds: of each cell.
      code: exit code, 0 where all is done or the time was up.
      finished: whether all runs are made.
    """

    grid: Grid
    seeds: range
    code: int
    finished: bool


def run_sweep(table: Table, options: dict[str, Any]) -> SweepOutcome:
    """Makes the runs that are missing, and writes the report.

    Args:
      table: what to fill.
      options: of the command line, those of the cells taken out.

    Raises:
      BadInput: an option, data or a folder that cannot be used.
    """
    began = time.monotonic()
    seeds = range(options.pop("seeds"))
    minutes, out = options.pop("minutes"), options.pop("out", None)
    per_device = options.pop("per_device")
    preset = options.pop("preset", "fast")
    methods = dict.fromkeys(cell.options(0)["method"] for cell in table.cells)
    for name in options.keys() & FIELDS.keys():
        if not any(knows(method, name) for method in methods):
            raise BadInput(
                f"--{name.replace('_', '-')} means nothing to {', '.join(methods)}"
            )
    require("matplotlib", by=table.name)
    configure = functools.partial(table.configure, preset, options)
    # Of every cell, so that no bad option shows hours later.
    first, *_ = [configure(cell, 0) for cell in table.cells]

    # Only now: `--help` and mistyped flags should not wait for JAX.
    import jax

    # A CPU takes part as one device a core; before the first use of JAX.
    jax.config.update("jax_num_cpu_devices", max(1, min(len(seeds), _cores())))
    from aslp_jax.data.datasets import hash_images
    from aslp_jax.trainer.compilation_cache import enable_compilation_cache
    from aslp_jax.trainer.loop import Interrupted
    from aslp_jax.trainer.session import load_dataset

    enable_compilation_cache()
    data = load_dataset(first)
    recipe = {
        "version": importlib.metadata.version("aslp-jax"),
        "dataset": first.dataset,
        "images_sha256": hash_images(data),
        "per_device": per_device,
        "options": table.recipe(preset, options),
    }
    folder = Grid(Path(out or f"runs/{table.name}-{first.dataset}"), recipe)
    stopped = None
    try:
        runner.train_grid(
            folder,
            table.cells,
            seeds,
            configure,
            data,
            per_device=per_device,
            deadline=began + 60 * minutes,
        )
    except Interrupted as stop:
        stopped = stop
    table.report(folder, first.dataset)
    if stopped is not None:
        print(
            f"{Path(sys.argv[0]).name}: stopped by {stopped}, all is saved; the same "
            "command goes on",
            file=sys.stderr,
        )
        code = 128 + stopped.number if stopped.number else 0
        return SweepOutcome(folder, seeds, code, False)
    print((folder.path / f"{table.name}.md").read_text(), end="")
    return SweepOutcome(folder, seeds, 0, True)


def cell_config(
    preset: str | None, chosen: Mapping[str, Any], own: Mapping[str, Any]
) -> Config:
    """Returns the options of one run, without those that its method does not know.

    Args:
      preset: its name, or None.
      chosen: the options that all cells share.
      own: what the cell and the seed stand for, its method among them.

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
      config: of any cell.
      axes: options in which the cells differ.
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
      options: of most cells.
      name: of the variant.
      others: its options.
    """
    differing = {key: value for key, value in others.items() if value != options[key]}
    return {**options, **({name: differing} if differing else {})}


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1
