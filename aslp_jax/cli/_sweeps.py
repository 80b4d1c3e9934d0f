"""Helpers of the commands that train a grid: their flags, and the closing lines."""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

from aslp_jax.cli.arguments import add_report_flag, option_parser, path_argument
from aslp_jax.cli.errors import command_name, program_name
from aslp_jax.sweeps.sweep import Schedule, SweepOutcome, Table, run_sweep
from aslp_jax.trainer.options import FIELDS
from aslp_jax.trainer.signals import Interrupted, interruptible

_MOST = 10_000
"""Most seeds of a cell, or runs of a device; more is a slip of the hand."""


def sweep_parser(
    description: str, name: str, axes: Sequence[str], *, seeds: int, page: str
) -> argparse.ArgumentParser:
    """Returns a parser of the options that all cells share, and of a sweep's limits.

    Args:
      description: first lines of `--help`.
      name: name of the table, which is that of the command.
      axes: names of the options that tell cells and seeds apart; they get no flag here.
      seeds: default number of seeds of each cell.
      page: page of the site on the command.
    """
    own = {*axes, "devices"}
    parser = option_parser(
        description,
        [field for field in FIELDS if field not in own],
        preset="fast",
        page=page,
    )
    parser.prog = command_name(name)
    parser.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        default=seeds,
        help=f"runs of each cell, seeds 0 to N-1 (default: {seeds})",
    )
    parser.add_argument(
        "--per-device",
        type=_positive,
        metavar="N",
        default=1,
        help="seeds that one device trains at once, vectorised (default: 1)",
    )
    parser.add_argument(
        "--minutes",
        type=_minutes,
        metavar="X",
        default=math.inf,
        help="save and stop after so many minutes (default: when all is done)",
    )
    add_report_flag(parser)
    parser.add_argument(
        "--out",
        type=path_argument,
        metavar="FOLDER",
        help=f"folder of the grid (default: runs/{name}-DATASET)",
    )
    return parser


def train_table(
    table: Table, options: dict[str, Any]
) -> tuple[SweepOutcome | None, int]:
    """Trains a table, and prints its report or why it is not finished.

    Args:
      table: cells to train, and their report.
      options: values of the flags of `sweep_parser`.

    Returns:
      The outcome, None if a signal came outside of training; and the exit code: 0 if
      all runs are finished or the time was up.

    Raises:
      BadInput: an option, data or a folder that cannot be used.
    """
    shared = dict(options)
    schedule = Schedule(
        **{name: shared.pop(name) for name in ("seeds", "per_device", "minutes")},
        report=shared.pop("report", True),
    )
    preset, out = shared.pop("preset", "fast"), shared.pop("out", None)
    outcome: SweepOutcome | None = None
    try:
        with interruptible():
            outcome = run_sweep(table, preset, shared, schedule, out)
        stop = outcome.interrupted
    except Interrupted as interruption:
        stop = interruption
    if outcome is not None and stop is None:
        print(outcome.page.read_text(encoding="utf-8"), end="")
        return outcome, 0
    print(
        f"{program_name()}: stopped by {stop}, all is saved; the same command goes on",
        file=sys.stderr,
    )
    return outcome, 128 + stop.number if stop and stop.number else 0


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
