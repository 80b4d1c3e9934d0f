"""Cells of the comparison under a budget, and the papers' numbers."""

import csv
import dataclasses
import functools
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aslp_jax.sweeps.sweep import cell_config, shared_options, with_variant
from aslp_jax.trainer.options import FIELDS, Config, knows

AXES = ("arch", "method", "finetune", "keep_fraction", "scope", "seed")
"""Names of the options in which the cells and seeds of a grid differ."""

METHODS: dict[str, dict[str, Any]] = {
    "magnitude": {"method": "magnitude"},
    "magnitude-finetune": {"method": "magnitude", "finetune": True},
    "budget": {"method": "budget"},
    "aslp": {"method": "aslp"},
    "signed": {"method": "signed"},
}
"""Ways to a network of few weights by name, and the options that each stands for."""

LABELS = {
    "magnitude": "Magnitude",
    "magnitude-finetune": "Magnitude + fine-tuning",
    "budget": "Budget-aware",
    "aslp": "ASLP to a budget",
    "signed": "Signed to a budget",
}
"""Labels of the ways, for people."""

KEEPS = (0.1, 0.05, 0.03, 0.01)
"""Keep fractions of the paper's table."""

_COLUMNS = {
    "magnitude": "magnitude",
    "magnitude-finetune": "magnitude_fine_tuned",
    "budget": "budget_aware",
}
"""Columns of the file with the paper's numbers, by way."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the comparison.

    Attributes:
      arch: name of the network.
      method: one of `METHODS`.
      keep: fraction of the masked weights to keep, in (0, 1].
      scope: `"global"` for one budget of the network, `"layer"` for one a layer.
    """

    arch: str
    method: str
    keep: float
    scope: str = "global"

    @property
    def name(self) -> str:
        """Name such as `conv4-budget-keep0.1`."""
        scope = "" if self.scope == "global" else f"-{self.scope}"
        return f"{self.arch}-{self.method}-keep{self.keep}{scope}"

    def options(self, seed: int) -> dict[str, Any]:
        """Returns the options by which a run of this cell differs from others.

        Args:
          seed: seed of the run.
        """
        return {
            "arch": self.arch,
            **METHODS[self.method],
            "keep_fraction": self.keep,
            "scope": self.scope,
            "seed": seed,
        }


_NAME = re.compile(
    r"(?P<arch>[^-]+)-(?P<method>.+)-keep(?P<keep>[0-9.e-]+?)(?P<scope>-layer)?"
)


def cells_in(folder: Path) -> list[Cell]:
    """Returns the cells of which a grid's folder holds runs, in the order of a table.

    Args:
      folder: folder of the grid; files not named like a run are passed over.
    """
    found = set()
    for path in (folder / "cells").glob("*-seed*"):
        match = _NAME.fullmatch(path.name.rpartition("-seed")[0])
        if match is None or match["method"] not in METHODS:
            continue
        try:
            keep = float(match["keep"])
        except ValueError:
            continue
        scope = "layer" if match["scope"] else "global"
        cell = Cell(match["arch"], match["method"], keep, scope)
        if cell.name == path.name.rpartition("-seed")[0]:
            found.add(cell)
    methods = list(METHODS)
    return sorted(
        found,
        key=lambda cell: (
            cell.arch,
            cell.scope,
            methods.index(cell.method),
            -cell.keep,
        ),
    )


@functools.cache
def paper_numbers(dataset: str) -> dict[tuple[str, str, float], float]:
    """Returns (arch, method, keep) -> test accuracy in %.

    Source: Dupont et al. 2021.
    """
    found = {}
    for line in _read("paper.csv"):
        if line["dataset"] == dataset:
            keep = round(1 - float(line["pruned_percent"]) / 100, 4)
            for method, column in _COLUMNS.items():
                found[line["arch"], method, keep] = float(line[column])
    return found


@dataclasses.dataclass(frozen=True)
class Anchor:
    """Published result of a small network, to compare with.

    Attributes:
      method: name of the method in the publication.
      kept: weights kept, in %.
      accuracy: test accuracy in %.
      source: publication.
    """

    method: str
    kept: float
    accuracy: float
    source: str


@functools.cache
def anchors(dataset: str, arch: str) -> list[Anchor]:
    """Returns published results of a network, on images that are not augmented."""
    return [
        Anchor(
            line["method"].replace("_", " "),
            float(line["weights_kept_percent"]),
            float(line["test_accuracy_percent"]),
            line["source"],
        )
        for line in _read("published.csv")
        if (line["dataset"], line["arch"]) == (dataset, arch)
    ]


def _read(name: str) -> list[dict[str, str]]:
    with open(Path(__file__).parent / name, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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
    return cell_config(preset, chosen, cell.options(seed))


def settings(preset: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that all runs of a method share, by method, as JSON values.

    `layer` holds the options that differ where each layer has a budget of its own.

    Args:
      preset: name of the preset, or None.
      chosen: options that all cells share, by name.
    """
    archs: Sequence[str] = FIELDS["arch"].metadata["choices"]

    def shared(method: str, scope: str) -> dict[str, Any]:
        cell = Cell(archs[0], method, KEEPS[0], scope)
        return shared_options(configure(preset, chosen, cell, 0), AXES)

    found = {}
    for method, options in METHODS.items():
        alike = shared(method, "global")
        if knows(options["method"], "scope"):
            alike = with_variant(alike, "layer", shared(method, "layer"))
        found[method] = alike
    return found
