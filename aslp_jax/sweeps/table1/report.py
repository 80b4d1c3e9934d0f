"""What a grid has shown so far: tables beside the paper's numbers, pictures, claims.

`runs.csv` has a line a run, `table1.csv` a line a number of the table, `table1.md` the
table as a person reads it with a verdict on each claim of the paper, and each network
gets a picture of accuracy against epoch.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

from aslp_jax._atomic import write_text
from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.statistics import csv_text, mean_and_std
from aslp_jax.sweeps.table1.cells import (
    COLUMNS,
    LABELS,
    OWN_RESCALE,
    all_cells,
    column_of,
    paper_numbers,
)
from aslp_jax.sweeps.table1.claims import claims
from aslp_jax.sweeps.table1.plot import plot
from aslp_jax.trainer.run_folder import writing

_DRAWN = ("averaging", "thresholding")
_MEASURES = {
    "averaging": "averaging_mean",
    "thresholding": "thresholding",
    "deterministic": "thresholding",
}
"""From an evaluation of the paper to an entry of result.json."""


class Entry(NamedTuple):
    """One number of the table.

    Attributes:
      augment: whether training images were cropped and flipped.
      arch: name of the network.
      method: how weights were selected.
      evaluation: `"averaging"`, `"thresholding"` or `"deterministic"`.
      rescale: of the method.
      column: one of `COLUMNS`.
      accuracies: test accuracies in %, one a seed.
      diverged: seeds whose loss was not finite.
      paper: the paper's number in %, None where it has none.
    """

    augment: bool
    arch: str
    method: str
    evaluation: str
    rescale: str
    column: str
    accuracies: list[float]
    diverged: int
    paper: float | None


def write(grid: Grid, dataset: str) -> None:
    """Writes all files of the report into the grid's folder.

    Args:
      grid: the folder.
      dataset: its name, to find the paper's numbers.

    Raises:
      BadInput: the folder cannot be written, or a run in it is damaged.
    """
    records = grid.records(all_cells())
    entries = make_entries(records, dataset)
    with writing(grid.path):
        write_text(grid.path / "runs.csv", csv_text(map(_run_line, records)))
        write_text(grid.path / "table1.csv", csv_text(map(_entry_line, entries)))
        write_text(grid.path / "table1.md", markdown(entries, records, dataset))
        for arch in dict.fromkeys(record.cell.arch for record in records):
            own = [
                record
                for record in records
                if record.cell.arch == arch and "diverged" not in record.result
            ]
            if own:
                plot(own, grid.path / f"{arch}.png", f"{arch} on {dataset}")


def make_entries(records: Sequence[Record], dataset: str) -> list[Entry]:
    """Returns the numbers of the table, from the finished runs."""
    paper = paper_numbers(dataset)
    entries = []
    for cell, group in itertools.groupby(records, lambda record: record.cell):
        runs = list(group)
        good = [record.result for record in runs if "diverged" not in record.result]
        column = column_of(cell)
        # A method that draws nothing has one network to evaluate.
        stochastic = runs[0].result["stochastic"]
        for evaluation in _DRAWN if stochastic else ("deterministic",):
            key = (cell.augment, cell.arch, cell.method, evaluation, column)
            own = cell.rescale in ("none", OWN_RESCALE.get(cell.method))
            entries.append(
                Entry(
                    *key[:4],
                    cell.rescale,
                    column,
                    [100 * result[_MEASURES[evaluation]] for result in good],
                    len(runs) - len(good),
                    paper.get(key) if own else None,
                )
            )
    return entries


def _run_line(record: Record) -> dict[str, Any]:
    result = record.result
    names = (
        "thresholding averaging_mean averaging_std single test_loss keep_fraction "
        "best_epoch best_validation_accuracy epochs seconds diverged"
    )
    numbers = {name: result.get(name, "") for name in names.split()}
    axes = {
        name: _yes(value) if isinstance(value, bool) else value
        for name, value in dataclasses.asdict(record.cell).items()
    }
    return {**axes, "seed": record.seed, **numbers}


def _entry_line(entry: Entry) -> dict[str, Any]:
    mean, std = mean_and_std(entry.accuracies)
    return {
        "augment": _yes(entry.augment),
        "arch": entry.arch,
        "method": entry.method,
        "evaluation": entry.evaluation,
        "rescale": entry.rescale,
        "column": entry.column,
        "mean": _number(mean),
        "std": _number(std),
        "seeds": len(entry.accuracies),
        "diverged": entry.diverged,
        "paper": "" if entry.paper is None else entry.paper,
        "difference": "" if entry.paper is None else _number(mean - entry.paper),
    }


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def markdown(entries: Sequence[Entry], records: Sequence[Record], dataset: str) -> str:
    """Returns the table as Markdown, with the verdict on each claim below.

    Args:
      entries: the numbers.
      records: the finished runs.
      dataset: its name.
    """
    lines = [
        f"# Table 1 on {dataset}",
        "",
        "Test accuracy in %, mean ± standard deviation over seeds; in brackets the "
        "paper's number and the difference from it, where it has one. WR is smart "
        "rescale for ASLP, dynamic weight rescale for supermasks, fan scaling for "
        "edge-popup; another rescale has a line of its own.",
    ]
    if not entries:
        return "\n".join([*lines, "", "No run is finished yet.", ""])
    most = max(len(entry.accuracies) + entry.diverged for entry in entries)
    for (augment, arch), group in itertools.groupby(
        sorted(entries, key=lambda entry: (entry.arch, entry.augment)),
        lambda entry: (entry.augment, entry.arch),
    ):
        images = "with" if augment else "without"
        lines += ["", f"## {arch.capitalize()}, {images} augmentation", ""]
        lines += ["| method | none | WR | SC | WR + SC |", "|---|---|---|---|---|"]
        rows: dict[str, dict[str, str]] = {}
        for entry in group:
            row = rows.setdefault(_row_name(entry), {})
            row[entry.column] = _cell_text(entry, most)
        for name in sorted(rows):
            cells = [rows[name].get(column, "") for column in COLUMNS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Epochs to the best validation accuracy, ASLP", ""]
    lines += _epochs_table(records)
    lines += ["", "## The paper's claims", ""]
    lines += ["| claim | evidence | verdict |", "|---|---|---|"]
    lines += [f"| {' | '.join(line)} |" for line in claims(records)]
    return "\n".join([*lines, ""])


def _epochs_table(records: Sequence[Record]) -> list[str]:
    """Best epochs with and without smart rescale, where both were run."""
    best: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for record in records:
        cell = record.cell
        if cell.method == "aslp" and "diverged" not in record.result:
            kinds = best.setdefault((cell.arch, cell.augment, cell.signed_constant), {})
            kinds.setdefault(cell.rescale, []).append(record.result["best_epoch"])
    lines = [
        "| network | augmentation | SC | no rescale | smart rescale | saved |",
        "|---|---|---|---|---|---|",
    ]
    for (arch, augment, constant), kinds in sorted(best.items()):
        if "none" in kinds and "smart" in kinds:
            none, smart = (mean_and_std(kinds[kind]) for kind in ("none", "smart"))
            lines.append(
                f"| {arch.capitalize()} | {_yes(augment)} | {_yes(constant)} "
                f"| {none[0]:.1f} ± {none[1]:.1f} | {smart[0]:.1f} ± {smart[1]:.1f} "
                f"| {100 * (1 - smart[0] / none[0]):.1f} % |"
            )
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _row_name(entry: Entry) -> str:
    name = LABELS.get(entry.method, entry.method)
    if entry.rescale not in ("none", OWN_RESCALE.get(entry.method)):
        name += f", {entry.rescale}"
    if entry.evaluation != "deterministic":
        name += f", {entry.evaluation}"
    return name


def _cell_text(entry: Entry, most: int) -> str:
    # `most` is the number of seeds of the fullest cell.
    if not entry.accuracies:
        return f"diverged ({entry.diverged})"
    mean, std = mean_and_std(entry.accuracies)
    text = f"{mean:.1f} ± {std:.1f}" if entry.accuracies[1:] else f"{mean:.1f}"
    if entry.paper is not None:
        text += f" ({entry.paper:.1f}, {mean - entry.paper:+.1f})"
    if len(entry.accuracies) + entry.diverged < most:
        text += f", n={len(entry.accuracies)}"
    if entry.diverged:
        text += f", {entry.diverged} diverged"
    return text
