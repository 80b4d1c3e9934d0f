"""Compares ways to a network of few weights, each held to the same budgets.

Each of --arch, --keep, --method and --scope takes one value or several. Give the same
command again to go on where it was stopped, or to add cells and seeds to those that are
finished. Exit codes: 0 done, or the time is up; 2 bad input, one line says what; 3 the
loss of a run became NaN; 4 a network does not keep as many weights as --keep asked for;
130 or 143 stopped by Ctrl-C or SIGTERM, all is saved.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from typing import Any

from aslp_jax._errors import BUDGET_MISSED, LOSS_NOT_FINITE, BadInput
from aslp_jax.cli.errors import program_name
from aslp_jax.cli.sweep_arguments import sweep_parser
from aslp_jax.sweeps import sweep
from aslp_jax.sweeps.budget import cells as budget_layout
from aslp_jax.sweeps.budget import report as budget_report
from aslp_jax.sweeps.budget.cells import METHODS, Cell
from aslp_jax.trainer.options import FIELDS, knows

NAME = "budget"


def main(arguments: Sequence[str]) -> int:
    options = vars(_parser().parse_args(arguments))
    table = sweep.Table(
        NAME,
        _choose(options),
        budget_layout.configure,
        budget_layout.recipe,
        budget_report.write,
    )
    outcome = sweep.run_sweep(table, options)
    if not outcome.finished:
        return outcome.code
    return _failures(outcome, table.cells)


def _failures(outcome: sweep.SweepOutcome, cells: Sequence[Cell]) -> int:
    """Names the runs that are not what was asked for, and returns the exit code."""
    from aslp_jax.trainer.summary import describe_budget_miss

    code = outcome.code
    for cell, seed in itertools.product(cells, outcome.seeds):
        record = outcome.grid.record(cell, seed)
        result = {} if record is None else record.result
        if "diverged" in result:
            problem, code = result["diverged"], code or LOSS_NOT_FINITE
        elif result.get("budget_miss", 0) > 0:
            options = cell.options(seed)
            asked = {"keep_fraction_asked": cell.keep, **options, **result}
            problem, code = describe_budget_miss(asked), code or BUDGET_MISSED
        else:
            continue
        name = f"{cell.name}, seed {seed}"
        print(f"{program_name()}: {name}: {problem}", file=sys.stderr)
    return code


def _parser() -> argparse.ArgumentParser:
    parser = sweep_parser(__doc__, NAME, budget_layout.AXES, seeds=1)
    for name, default, words in (
        ("arch", ["conv4"], "networks (default: conv4)"),
        ("scope", ["global"], FIELDS["scope"].metadata["help"] + " (default: global)"),
    ):
        parser.add_argument(
            f"--{name}",
            nargs="+",
            choices=FIELDS[name].metadata["choices"],
            default=default,
            help=words,
        )
    parser.add_argument(
        "--method",
        nargs="+",
        choices=tuple(budget_layout.METHODS),
        default=list(budget_layout.METHODS),
        help="ways to a small network (default: all)",
    )
    keeps = budget_layout.KEEPS
    parser.add_argument(
        "--keep",
        "--keep-fraction",
        nargs="+",
        type=float,
        metavar="X",
        default=list(keeps),
        help="of the weights to keep, in (0, 1] (default: "
        f"{' '.join(map(str, keeps))}, those of the paper's table)",
    )
    return parser


def _choose(options: dict[str, Any]) -> list[Cell]:
    """Returns the cells that were asked for, and takes their flags out of `options`.

    Raises:
      BadInput: no method that was asked for knows the scope.
    """
    axes = [options.pop(name) for name in ("arch", "keep", "method", "scope")]
    cells = [
        Cell(arch, method, keep, scope)
        for arch, keep, method, scope in itertools.product(*map(dict.fromkeys, axes))
        # `budget` has no budgets of single layers.
        if scope == "global" or knows(METHODS[method]["method"], "scope")
    ]
    if not cells:
        raise BadInput(f"--scope layer means nothing to {', '.join(axes[2])}")
    return cells
