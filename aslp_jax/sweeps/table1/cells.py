"""Cells, rows and columns of table 1, and the paper's numbers."""

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
"""Names of the networks of the paper's table."""

AXES = ("arch", "augment", "method", "rescale", "signed_constant", "seed")
"""Names of the options in which the cells and seeds of a grid differ."""

OWN_RESCALE = {"aslp": "smart", "supermask": "dynamic", "edge_popup": "fan"}
"""Rescale in column WR of the table, by method of the paper.

The paper does not say what the rescale of edge-popup is; here it is the fan scaling of
that method's authors.
"""

COLUMNS = ("none", "wr", "sc", "wr_sc")
"""Columns of the table: weight rescale off and on, then both with signed constants."""

LABELS = {"aslp": "ASLP", "supermask": "Supermask", "edge_popup": "Edge-popup"}
"""Labels of the methods of the paper; another method goes by its name."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Attributes:
      arch: name of the network.
      augment: True if training images are cropped and flipped.
      method: name of the method.
      rescale: name of the method's rescale.
      signed_constant: True if all weights of a layer have one magnitude.
    """

    arch: str
    augment: bool
    method: str
    rescale: str
    signed_constant: bool

    @property
    def name(self) -> str:
        """Name such as `conv4-augmented-aslp-smart-sc`."""
        images = "augmented" if self.augment else "plain"
        weights = "sc" if self.signed_constant else "normal"
        return f"{self.arch}-{images}-{self.method}-{self.rescale}-{weights}"

    @property
    def rescales_as_in_paper(self) -> bool:
        """True if the paper's table has a column for the rescale of this method."""
        return self.rescale in ("none", OWN_RESCALE.get(self.method))

    @property
    def column(self) -> str:
        """One of `COLUMNS`."""
        names = {"wr": self.rescale != "none", "sc": self.signed_constant}
        return "_".join(name for name, on in names.items() if on) or "none"

    def options(self, seed: int) -> dict[str, Any]:
        """Returns the options by which a run of this cell differs from others.

        Args:
          seed: seed of the run.
        """
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
    """Returns True if the paper has a number for a cell, on CIFAR-10."""
    known = {(key[0], key[1], key[2], key[4]) for key in paper_numbers("cifar10")}
    place = (cell.augment, cell.arch, cell.method, cell.column)
    return cell.rescales_as_in_paper and place in known


@functools.cache
def paper_numbers(dataset: str) -> dict[tuple[Any, ...], float]:
    """Returns (augment, arch, method, evaluation, column) -> test accuracy in %.

    Source: Dupont et al. 2022, table 1, arXiv:2202.12986.
    """
    found = {}
    with open(Path(__file__).parent / "paper.csv", encoding="utf-8") as file:
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
      preset: name of the preset, or None.
      chosen: options that all cells share, by name.
      cell: cell of the grid.
      seed: seed of the run.

    Raises:
      BadInput: a value, or a combination of values, that means nothing.
    """
    own = cell.options(seed)
    if cell.signed_constant:  # of all layers, or of those that the preset says
        constant = PRESETS.get(preset or "", {}).get("signed_constant", "none")
        own["signed_constant"] = "all" if constant == "none" else constant
    return cell_config(preset, chosen, own)


def settings(preset: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that all runs of a method share, by method, as JSON values.

    `plain` holds the options that differ where images are not augmented.

    Args:
      preset: name of the preset, or None.
      chosen: options that all cells share, by name.
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
