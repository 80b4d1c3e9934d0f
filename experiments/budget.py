"""Compares ways to a network of few weights, each held to the same budgets.

Each of --arch, --keep, --method and --scope takes one value or several. Give the same
command again to go on where it was stopped, or to add cells and seeds to those that are
finished. Exit codes: 0 done, or the time is up; 2 bad input, one line says what; 4 a
network does not keep as many weights as --keep asked for; 130 or 143 stopped by Ctrl-C
or SIGTERM, all is saved.
"""

import argparse
import itertools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import budget_layout
import budget_report
import grid_program
from budget_layout import Cell
from config import BUDGET_MISSED, FIELDS, main_guard

NAME = "budget"


def main(arguments: Sequence[str]) -> int:
    options = vars(_parser().parse_args(arguments))
    table = grid_program.Table(
        NAME,
        _choose(options),
        budget_layout.configure,
        budget_layout.recipe,
        budget_report.write,
    )
    filling = grid_program.fill(table, options)
    if not filling.finished:
        return filling.code
    return _missed(filling, table.cells)


def _missed(filling: grid_program.Filling, cells: Sequence[Cell]) -> int:
    """Names the runs that missed their budget, and returns the exit code."""
    from report import missed

    code = filling.code
    for cell, seed in itertools.product(cells, filling.seeds):
        record = filling.grid.record(cell, seed)
        if record is not None and record.result.get("budget_miss", 0) > 0:
            name = f"{cell.name}, seed {seed}"
            print(
                f"{Path(__file__).name}: {name}: {missed(record.result)}",
                file=sys.stderr,
            )
            code = BUDGET_MISSED
    return code


def _parser() -> argparse.ArgumentParser:
    parser = grid_program.parser(__doc__, NAME, budget_layout.AXES, seeds=1)
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
        nargs="+",
        type=float,
        metavar="X",
        default=list(keeps),
        help="of the weights to keep, in (0, 1] (default: "
        f"{' '.join(map(str, keeps))}, those of the paper's table)",
    )
    return parser


def _choose(options: dict[str, Any]) -> list[Cell]:
    """Returns the cells that were asked for, and takes their flags out of `options`."""
    axes = (options.pop(name) for name in ("arch", "keep", "method", "scope"))
    return [
        Cell(arch, method, keep, scope)
        for arch, keep, method, scope in itertools.product(*map(dict.fromkeys, axes))
    ]


if __name__ == "__main__":
    main_guard(main)
