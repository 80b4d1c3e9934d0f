"""Fills table 1 of the ASLP paper: every method, rescale, kind of weights and network.

Give the same command again to go on where it was stopped, or to add cells and seeds to
those that are finished. Exit codes: 0 done, or the time is up; 2 bad input, one line
says what; 130 or 143 stopped by Ctrl-C or SIGTERM, all is saved.
"""

import argparse
import fnmatch
import functools
import importlib.metadata
import importlib.util
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import grid
import grid_training
import table1_layout
import table1_report
from config import FIELDS, RESCALES, BadInput, knows, main_guard, option_parser

_OWN = {*table1_layout.AXES, "devices"}
"""Options of a run that a grid chooses by itself."""


_MOST = 10_000
"""Seeds of a cell, or runs of a device; more is a slip of the hand."""


def main(arguments: Sequence[str]) -> int:
    began = time.monotonic()
    options = vars(_parser().parse_args(arguments))
    cells = _choose(options)
    seeds = range(options.pop("seeds"))
    minutes, out = options.pop("minutes"), options.pop("out", None)
    per_device = options.pop("per_device")
    methods = {cell.method for cell in cells}
    for name in options.keys() & FIELDS.keys():
        if not any(knows(method, name) for method in methods):
            raise BadInput(
                f"--{name.replace('_', '-')} means nothing to {', '.join(methods)}"
            )
    if importlib.util.find_spec("matplotlib") is None:
        raise BadInput(
            "matplotlib, which draws the pictures, is not installed; "
            "pip install matplotlib"
        )
    preset = options.pop("preset", "fast")
    configure = functools.partial(table1_layout.configure, preset)
    first = configure(options, cells[0], 0)
    for cell in cells:  # so that no bad option shows hours later
        configure(options, cell, 0)

    # Only now: `--help` and mistyped flags should not wait for JAX.
    import jax

    # A CPU takes part as one device a core; before the first use of JAX.
    jax.config.update("jax_num_cpu_devices", max(1, min(len(seeds), _cores())))
    from compiled import keep_compiled
    from loop import Stopped
    from run import hash_images
    from trial import load

    keep_compiled()
    data = load(first)
    recipe = {
        "version": importlib.metadata.version("aslp-jax"),
        "dataset": first.dataset,
        "images_sha256": hash_images(data),
        "per_device": per_device,
        "options": table1_layout.recipe(preset, options),
    }
    folder = grid.Grid(Path(out or f"runs/table1-{first.dataset}"), recipe)
    stopped = None
    try:
        grid_training.train_grid(
            folder,
            cells,
            seeds,
            functools.partial(configure, options),
            data,
            per_device=per_device,
            deadline=began + 60 * minutes,
        )
    except Stopped as stop:
        stopped = stop
    table1_report.write(folder, first.dataset)
    if stopped is not None:
        print(
            f"{Path(__file__).name}: stopped by {stopped}, all is saved; the same "
            "command goes on",
            file=sys.stderr,
        )
        return 128 + stopped.number if stopped.number else 0
    print((folder.path / "table1.md").read_text(), end="")
    return 0


def _cores() -> int:
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not on this system
        return os.cpu_count() or 1


def _parser() -> argparse.ArgumentParser:
    parser = option_parser(
        __doc__, [name for name in FIELDS if name not in _OWN], preset="fast"
    )
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
    parser.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        default=5,
        help="runs of each cell, seeds 0 to N-1 (default: 5)",
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
    parser.add_argument(
        "--out", metavar="FOLDER", help="of the grid (default: runs/table1-DATASET)"
    )
    return parser


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


if __name__ == "__main__":
    main_guard(main)
