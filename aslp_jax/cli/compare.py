"""Sets grids side by side: one cell of several grids, accuracy against epochs.

    aslp-jax compare paper=GRID fast=GRID --cell CELL --out FOLDER

Writes `compare.csv` (a line a grid), `compare.md` (the same as a table), `compare.png`
and `report.html` (all of it in one file). The first grid is the reference: the table
tells after how many epochs the validation accuracy of each grid, averaged over seeds,
reaches the level of the reference in the last tenth of its epochs. (The best of an
accuracy over many epochs is higher than that of few, for the looking alone.) Exit
codes: 0 done; 2 bad input.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

from aslp_jax._errors import BadInput
from aslp_jax.cli.arguments import OneLineParser, add_report_flag, path_argument
from aslp_jax.cli.errors import command_name


def main(arguments: Sequence[str]) -> int:
    """Runs `aslp-jax compare`.

    Args:
      arguments: the command line without the command's name.

    Returns:
      The exit code.

    Raises:
      BadInput: a flag, or grids that do not compare.
    """
    parser = OneLineParser(
        prog=command_name("compare"),
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.page = "docs/table1.md#comparing-recipes"
    parser.add_argument("grids", nargs="+", metavar="NAME=GRID")
    parser.add_argument(
        "--cell", required=True, help="such as conv4-plain-aslp-none-sc"
    )
    parser.add_argument("--out", required=True, type=path_argument, metavar="FOLDER")
    add_report_flag(parser)
    options = parser.parse_args(arguments)
    grids: dict[str, Path] = {}
    for text in options.grids:
        name, _, path = text.partition("=")
        if not path or name in grids:
            raise BadInput(
                f"{text} is not NAME=GRID, or names a grid twice",
                page="docs/table1.md#comparing-recipes",
            )
        grids[name] = path_argument(path)
    # Only now: `--help` and mistyped flags should not wait for what the table needs.
    from aslp_jax.sweeps.comparison import compare

    page = compare(grids, options.cell, options.out, report=options.report)
    print(page, end="")
    return 0
