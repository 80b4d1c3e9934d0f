"""Flags of the programs that train a grid."""

import argparse
import math
from collections.abc import Sequence

from aslp_jax.cli.arguments import option_parser
from aslp_jax.trainer.options import FIELDS

_MOST = 10_000
"""Seeds of a cell, or runs of a device; more is a slip of the hand."""


def sweep_parser(
    description: str, name: str, axes: Sequence[str], *, seeds: int
) -> argparse.ArgumentParser:
    """Returns a parser of the options that all cells share, and of how to fill them.

    Args:
      description: first lines of `--help`.
      name: of the table.
      axes: options that tell cells and seeds apart, which get no flag here.
      seeds: of each cell where none are asked for.
    """
    own = {*axes, "devices"}
    found = option_parser(
        description, [field for field in FIELDS if field not in own], preset="fast"
    )
    found.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        default=seeds,
        help=f"runs of each cell, seeds 0 to N-1 (default: {seeds})",
    )
    found.add_argument(
        "--per-device",
        type=_positive,
        metavar="N",
        default=1,
        help="seeds that one device trains at once, vectorised (default: 1)",
    )
    found.add_argument(
        "--minutes",
        type=_minutes,
        metavar="X",
        default=math.inf,
        help="save and stop after so many minutes (default: when all is done)",
    )
    found.add_argument(
        "--out", metavar="FOLDER", help=f"of the grid (default: runs/{name}-DATASET)"
    )
    return found


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {_MOST}, got {text}"
        )
    return int(text)


def _minutes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return number
