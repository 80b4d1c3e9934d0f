"""Table 1 as the paper lays it out: its cells, rows and columns, and its numbers."""

import csv
import dataclasses
import functools
import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aslp_jax.sweeps.sweep import cell_config, shared_options, with_variant
from aslp_jax.trainer.options import RESCALES, Config
from aslp_jax.trainer.presets import PRESETS

ARCHS = ("conv2", "conv4", "conv6")
"""The networks of the paper's table."""

AXES = ("arch", "augment", "method", "rescale", "signed_constant", "seed")
"""The options in which the cells and seeds of a grid differ."""

OWN_RESCALE = {"aslp": "smart", "supermask": "dynamic", "edge_popup": "fan"}
"""What the column WR of the table is for each method of the paper, which does not say
what it is for edge-popup; here it is the fan scaling of that method's authors."""

COLUMNS = ("none", "wr", "sc", "wr_sc")
"""Of the table: weight rescale off and on, then both with signed constants."""

LABELS = {"aslp": "ASLP", "supermask": "Supermask", "edge_popup": "Edge-popup"}
"""Of the methods of the paper; another one goes by its name."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Attributes:
      arch: name of the network.
      augment: whether training images are cropped and flipped.
      method: how weights are selected.
      rescale: of that method.
      signed_constant: whether all weights of a layer have one magnitude.
    """

    arch: str
    augment: bool
    method: str
    rescale: str
    signed_constant: bool

    @property
    def name(self) -> str:
        """Such as `conv4-augmented-aslp-smart-sc`."""
        images = "augmented" if self.augment else "plain"
        weights = "sc" if self.signed_constant else "normal"
        return f"{self.arch}-{images}-{self.method}-{self.rescale}-{weights}"

    def options(self, seed: int) -> dict[str, Any]:
        """The options that this cell and a seed stand for."""
        return {
            **dataclasses.asdict(self),
            "signed_constant": "all" if self.signed_constant else "none",
            "seed": seed,
        }


def all_cells() -> list[Cell]:
    """Returns every cell that means something, those of a network side by side."""
    return [
        Cell(arch, augment, method, rescale, constant)
        for arch, constant, augment, (method, rescales) in itertools.product(
            ARCHS,
            (True, False),
            (True, False),
            RESCALES.items(),
        )
        for rescale in rescales
    ]


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
    with (Path(__file__).parent / "paper.csv").open() as file:
        for line in csv.DictReader(file):
            for column in COLUMNS:
                if line["dataset"] == dataset and line[column]:
                    key = (line["augment"] == "yes", line["arch"], line["method"])
                    found[*key, line["evaluation"], column] = float(line[column])
    return found


def configure(
    preset: str | None, chosen: Mapping[str, Any], cell: Cell, seed: int
) -> Config:
    """Returns the options of one run of a grid.

    Args:
      preset: its name, or None.
      chosen: the options that all cells share.
      cell: of the grid.
      seed: of the run.

    Raises:
      BadInput: a value, or a combination of values, that means nothing.
    """
    own = cell.options(seed)
    if cell.signed_constant:  # of all layers, or of those that the preset says
        constant = PRESETS.get(preset or "", {}).get("signed_constant", "none")
        own["signed_constant"] = "all" if constant == "none" else constant
    return cell_config(preset, chosen, own)


def recipe(preset: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all that the runs of a method share, by method, as JSON values.

    Under `plain` are the options that differ where images are not augmented.

    Args:
      preset: its name, or None.
      chosen: the options that all cells share.
    """

    # One answer for all cells with signed constants: which layers have them.
    axes = [name for name in AXES if name != "signed_constant"]

    def shared(method: str, augment: bool) -> dict[str, Any]:
        cell = Cell("conv2", augment, method, RESCALES[method][0], True)
        return shared_options(configure(preset, chosen, cell, 0), axes)

    return {
        method: with_variant(shared(method, True), "plain", shared(method, False))
        for method in RESCALES
    }
