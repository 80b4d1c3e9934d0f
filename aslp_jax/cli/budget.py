"""Compares ways to a network of few weights, each held to the same budgets.

Each of --arch, --keep, --method and --scope takes one value or several. Give the same
command again to continue after an interruption, or to add cells and seeds to those that
are finished. Exit codes: 0 done, or the time is up; 2 bad input, one line says what; 3
the loss of a run became NaN; 4 a network does not keep as many weights as --keep asked
for; 129, 130 or 143 interrupted by SIGHUP, Ctrl-C or SIGTERM, all is saved.
"""

import argparse
import itertools
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from aslp_jax._errors import BUDGET_MISSED, LOSS_NOT_FINITE, BadInput
from aslp_jax.cli._sweeps import sweep_parser, train_table
from aslp_jax.cli.errors import program_name
from aslp_jax.sweeps.budget import page, report
from aslp_jax.sweeps.budget.cells import (
    AXES,
    KEEPS,
    METHODS,
    Cell,
    configure,
    settings,
)
from aslp_jax.sweeps.grid import Grid
from aslp_jax.sweeps.measures import off_budget_percent
from aslp_jax.sweeps.sweep import Table
from aslp_jax.trainer.options import FIELDS, knows

_PAGE = "docs/budgets.md"
"""Page of the site on the command."""

_CHOICES = ("arch", "keep", "method", "scope")
"""Names of the flags that choose cells."""


def main(arguments: Sequence[str]) -> int:
    """Runs `aslp-jax budget`.

    Args:
      arguments: the command line without the command's name.

    Returns:
      The exit code.

    Raises:
      BadInput: a flag, data or a folder that cannot be used.
    """
    options = vars(parser().parse_args(arguments))
    cells = choose_cells({name: options.pop(name) for name in _CHOICES})
    table = Table(report.NAME, cells, configure, settings, report.write, page.write)
    outcome, code = train_table(table, options, arguments)
    if outcome is None or outcome.interrupted is not None:
        return code
    return report_failures(outcome.grid, cells, range(options["seeds"]))


def report_failures(grid: Grid, cells: Iterable[Cell], seeds: Sequence[int]) -> int:
    """Names the runs that diverged or missed their budget, and returns the exit code.

    Args:
      grid: folder of the grid.
      cells: cells that were asked for.
      seeds: seeds of each cell.
    """
    from aslp_jax.trainer.results import RunResult
    from aslp_jax.trainer.summary import describe_budget_miss

    code = 0
    for cell, seed in itertools.product(cells, seeds):
        record = grid.record(cell, seed)
        if record is None:
            continue
        result = record.result
        if record.diverged:
            problem, code = result["diverged"], code or LOSS_NOT_FINITE
        elif off_budget_percent(result) > 0:
            options = cell.options(seed)
            asked = {"keep_fraction_asked": cell.keep, **options, **result}
            missed = RunResult.from_json(asked)
            problem, code = describe_budget_miss(missed), code or BUDGET_MISSED
        else:
            continue
        name = f"{cell.name}, seed {seed}"
        print(f"{program_name()}: {name}: {problem}", file=sys.stderr)
    return code


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    found = sweep_parser(__doc__, report.NAME, AXES, seeds=1, page=_PAGE)
    for name, default, words in (
        ("arch", ["conv4"], "networks (default: conv4)"),
        ("scope", ["global"], FIELDS["scope"].metadata["help"] + " (default: global)"),
    ):
        found.add_argument(
            f"--{name}",
            nargs="+",
            choices=FIELDS[name].metadata["choices"],
            default=default,
            help=words,
        )
    found.add_argument(
        "--method",
        nargs="+",
        choices=tuple(METHODS),
        default=list(METHODS),
        help="ways to a small network (default: all)",
    )
    found.add_argument(
        "--keep",
        "--keep-fraction",
        nargs="+",
        type=float,
        metavar="X",
        default=list(KEEPS),
        help="fractions of the weights to keep, in (0, 1] (default: "
        f"{' '.join(map(str, KEEPS))}, those of the paper's table)",
    )
    return found


def choose_cells(choices: Mapping[str, Any]) -> list[Cell]:
    """Returns the cells that were asked for.

    Args:
      choices: values of the flags `arch`, `keep`, `method` and `scope`.

    Raises:
      BadInput: no method that was asked for knows the scope.
    """
    axes = [dict.fromkeys(choices[name]) for name in _CHOICES]
    cells = [
        Cell(arch, method, keep, scope)
        for arch, keep, method, scope in itertools.product(*axes)
        # `budget` has no budgets of single layers.
        if scope == "global" or knows(METHODS[method]["method"], "scope")
    ]
    if not cells:
        raise BadInput(
            f"--scope layer means nothing to {', '.join(choices['method'])}",
            page=_PAGE,
        )
    return cells
