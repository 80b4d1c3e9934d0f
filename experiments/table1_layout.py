"""Table 1 as the paper lays it out: its rows and columns, and its numbers."""

import csv
import functools
from pathlib import Path
from typing import Any

from grid import Cell

OWN_RESCALE = {"aslp": "smart", "supermask": "dynamic", "edge_popup": "fan"}
"""What the column WR of the table is for each method of the paper, which does not say
what it is for edge-popup; here it is the fan scaling of that method's authors."""

COLUMNS = ("none", "wr", "sc", "wr_sc")
"""Of the table: weight rescale off and on, then both with signed constants."""

LABELS = {"aslp": "ASLP", "supermask": "Supermask", "edge_popup": "Edge-popup"}
"""Of the methods of the paper; another one goes by its name."""


def in_paper(cell: Cell) -> bool:
    """Whether the paper has a number for a cell, on CIFAR-10."""
    own = cell.rescale in ("none", OWN_RESCALE.get(cell.method))
    known = {(key[0], key[1], key[2], key[4]) for key in paper_numbers("cifar10")}
    return own and (cell.augment, cell.arch, cell.method, column_of(cell)) in known


def column_of(cell: Cell) -> str:
    """Returns which of `COLUMNS` a cell is in."""
    rescaled = cell.rescale != "none"
    names = [
        name for name, on in (("wr", rescaled), ("sc", cell.signed_constant)) if on
    ]
    return "_".join(names) or "none"


@functools.cache
def paper_numbers(dataset: str) -> dict[tuple[Any, ...], float]:
    """Returns (augment, arch, method, evaluation, column) -> test accuracy in %."""
    found = {}
    with (Path(__file__).parent / "paper_table1.csv").open() as file:
        for line in csv.DictReader(file):
            for column in COLUMNS:
                if line["dataset"] == dataset and line[column]:
                    key = (line["augment"] == "yes", line["arch"], line["method"])
                    found[*key, line["evaluation"], column] = float(line[column])
    return found
