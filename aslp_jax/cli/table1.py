"""Fills table 1 of the ASLP paper: every method, rescale, kind of weights and network.

Give the same command again to go on where it was stopped, or to add cells and seeds to
those that are finished. Exit codes: 0 done, or the time is up; 2 bad input, one line
says what; 130 or 143 stopped by Ctrl-C or SIGTERM, all is saved.
"""

import argparse
import fnmatch
from collections.abc import Sequence
from typing import Any

from aslp_jax._errors import BadInput
from aslp_jax.cli.sweep_arguments import sweep_parser
from aslp_jax.sweeps import sweep
from aslp_jax.sweeps.table1 import cells as table1_layout
from aslp_jax.sweeps.table1 import report as table1_report
from aslp_jax.trainer.options import FIELDS, RESCALES

NAME = "table1"


def main(arguments: Sequence[str]) -> int:
    options = vars(_parser().parse_args(arguments))
    table = sweep.Table(
        NAME,
        _choose(options),
        table1_layout.configure,
        table1_layout.recipe,
        table1_report.write,
    )
    return sweep.run_sweep(table, options).code


def _parser() -> argparse.ArgumentParser:
    parser = sweep_parser(__doc__, NAME, table1_layout.AXES, seeds=5)
    rescales = FIELDS["rescale"].metadata["choices"]
    paper = tuple(table1_layout.LABELS)
    for name, choices, default, words in (
        ("archs", table1_layout.ARCHS, table1_layout.ARCHS, "networks (default: all)"),
        ("methods", tuple(RESCALES), paper, f"methods (default: {', '.join(paper)})"),
        ("rescales", rescales, rescales, "those that a method knows (default: all)"),
    ):
        parser.add_argument(
            f"--{name}", nargs="+", choices=choices, default=default, help=words
        )
    parser.add_argument(
        "--cells",
        nargs="+",
        metavar="PATTERN",
        default=["*"],
        help="of these, the cells whose names match, such as 'conv4-*-sc'",
    )
    return parser


def _choose(options: dict[str, Any]) -> list[table1_layout.Cell]:
    """Returns the cells that were asked for, and takes their flags out of `options`.

    Raises:
      BadInput: a method or a pattern has no cell.
    """
    archs, methods = options.pop("archs"), options.pop("methods")
    rescales, patterns = options.pop("rescales"), options.pop("cells")
    for method in methods:
        if not set(rescales) & set(RESCALES[method]):
            raise BadInput(
                f"--rescales {' '.join(rescales)} means nothing to {method}; valid: "
                f"{', '.join(RESCALES[method])}"
            )
    cells = [
        cell
        for cell in table1_layout.all_cells()
        if cell.arch in archs and cell.method in methods and cell.rescale in rescales
    ]
    names = [cell.name for cell in cells]
    for pattern in patterns:
        if not fnmatch.filter(names, pattern):
            raise BadInput(
                f"--cells {pattern} matches none of the {len(names)} cells, which are "
                f"named like {', '.join(names[:3])}"
            )
    chosen = [
        cell
        for cell in cells
        if any(fnmatch.fnmatch(cell.name, pattern) for pattern in patterns)
    ]
    # What can be compared comes first, in case the time is up.
    return sorted(chosen, key=lambda cell: not table1_layout.in_paper(cell))
