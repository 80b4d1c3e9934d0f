"""Trains table 1 of the ASLP paper: every method, rescale, kind of weights and network.

Give the same command again to continue after an interruption, or to add cells and seeds
to those that are finished. Exit codes: 0 done, or the time is up; 2 bad input, one line
says what; 129, 130 or 143 interrupted by SIGHUP, Ctrl-C or SIGTERM, all is saved.
"""

import argparse
import fnmatch
from collections.abc import Mapping, Sequence
from typing import Any

from aslp_jax._errors import BadInput
from aslp_jax.cli._sweeps import sweep_parser, train_table
from aslp_jax.sweeps.sweep import Table
from aslp_jax.sweeps.table1 import cells, page, report
from aslp_jax.trainer.options import FIELDS, RESCALES

_PAGE = "docs/table1.md"
"""Page of the site on the command."""

_CHOICES = ("archs", "methods", "rescales", "cells")
"""Names of the flags that choose cells."""


def main(arguments: Sequence[str]) -> int:
    """Runs `aslp-jax table1`.

    Args:
      arguments: the command line without the command's name.

    Returns:
      The exit code.

    Raises:
      BadInput: a flag, data or a folder that cannot be used.
    """
    options = vars(parser().parse_args(arguments))
    chosen = choose_cells({name: options.pop(name) for name in _CHOICES})
    table = Table(
        report.NAME, chosen, cells.configure, cells.settings, report.write, page.write
    )
    return train_table(table, options, arguments)[1]


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    found = sweep_parser(__doc__, report.NAME, cells.AXES, seeds=5, page=_PAGE)
    rescales = FIELDS["rescale"].metadata["choices"]
    paper = tuple(cells.LABELS)
    for name, choices, default, words in (
        ("archs", cells.ARCHS, cells.ARCHS, "networks (default: all)"),
        ("methods", tuple(RESCALES), paper, f"methods (default: {', '.join(paper)})"),
        ("rescales", rescales, rescales, "those that a method knows (default: all)"),
    ):
        found.add_argument(
            f"--{name}", nargs="+", choices=choices, default=default, help=words
        )
    found.add_argument(
        "--cells",
        nargs="+",
        metavar="PATTERN",
        default=["*"],
        help="of these, the cells whose names match, such as 'conv4-*-sc'",
    )
    return found


def choose_cells(choices: Mapping[str, Any]) -> list[cells.Cell]:
    """Returns the cells that were asked for, those of the paper first.

    Args:
      choices: values of the flags `archs`, `methods`, `rescales` and `cells`.

    Raises:
      BadInput: a method or a pattern has no cell.
    """
    rescales = choices["rescales"]
    for method in choices["methods"]:
        if not set(rescales) & set(RESCALES[method]):
            raise BadInput(
                f"--rescales {' '.join(rescales)} means nothing to {method}; valid: "
                f"{', '.join(RESCALES[method])}",
                page=_PAGE,
            )
    found = [
        cell
        for cell in cells.all_cells()
        if cell.arch in choices["archs"]
        and cell.method in choices["methods"]
        and cell.rescale in rescales
    ]
    names = [cell.name for cell in found]
    for pattern in choices["cells"]:
        if not fnmatch.filter(names, pattern):
            raise BadInput(
                f"--cells {pattern} matches none of the {len(names)} cells, which are "
                f"named like {', '.join(names[:3])}",
                page=_PAGE,
            )
    chosen = [
        cell
        for cell in found
        if any(fnmatch.fnmatch(cell.name, pattern) for pattern in choices["cells"])
    ]
    # Cells to compare with the paper come first, in case the time is up.
    return sorted(chosen, key=lambda cell: not cells.in_paper(cell))
