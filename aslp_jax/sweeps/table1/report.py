"""Report on a grid of table 1: tables beside the paper's numbers, plots, claims.

`runs.csv` has a line a run, `table1.csv` a line a number of the table, `table1.md` the
table with a verdict on each claim of the paper, and each network gets a plot of
accuracy against epoch.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.measures import accuracy, best_epoch, other_accuracy
from aslp_jax.sweeps.report import (
    Score,
    decimals,
    markdown_page,
    markdown_table,
    run_line,
    runs_by_cell,
    write_tables,
    yes_or_no,
)
from aslp_jax.sweeps.statistics import mean_and_std
from aslp_jax.sweeps.table1.cells import (
    COLUMNS,
    LABELS,
    Cell,
    all_cells,
    paper_numbers,
)
from aslp_jax.sweeps.table1.claims import claims
from aslp_jax.sweeps.table1.plot import plot
from aslp_jax.trainer.run_folder import writing

NAME = "table1"
"""Name of the table, and of its files."""

RESCALES = (
    "WR is smart rescale for ASLP, dynamic weight rescale for supermasks, fan scaling "
    "for edge-popup; another rescale has a line of its own."
)
"""Sentence on the rescales of the table."""

_STOCHASTIC = {"averaging": other_accuracy, "thresholding": accuracy}
_DETERMINISTIC = {"deterministic": accuracy}
"""Evaluations of the paper, and the measure of each."""

_RUN_NAMES = (
    "thresholding",
    "averaging_mean",
    "averaging_std",
    "single",
    "test_loss",
    "keep_fraction",
    "best_epoch",
    "best_validation_accuracy",
    "epochs",
    "seconds",
    "diverged",
)
"""Keys of result.json that `runs.csv` shows."""


class TableNumber(NamedTuple):
    """One number of the table.

    Attributes:
      cell: cell of the grid.
      evaluation: `"averaging"`, `"thresholding"` or `"deterministic"`.
      score: test accuracies beside the paper's.
    """

    cell: Cell
    evaluation: str
    score: Score


def write(grid: Grid, dataset: str) -> None:
    """Writes all files of the report into the grid's folder.

    Args:
      grid: folder of the grid.
      dataset: name of the data set, to find the paper's numbers.

    Raises:
      BadInput: the folder cannot be written, or a run in it is damaged.
    """
    records = grid.records(all_cells())
    numbers = table_numbers(records, dataset)
    with writing(grid.path):
        write_tables(
            grid.path,
            NAME,
            map(table_run_line, records),
            map(number_line, numbers),
            markdown(numbers, records, dataset),
        )
        finite = [record for record in records if not record.diverged]
        for arch in dict.fromkeys(record.cell.arch for record in finite):
            own = [record for record in finite if record.cell.arch == arch]
            plot(own, grid.path / f"{arch}.png", f"{arch} on {dataset}")


def table_numbers(records: Sequence[Record], dataset: str) -> list[TableNumber]:
    """Returns the numbers of the table.

    Args:
      records: finished runs.
      dataset: name of the data set, to find the paper's numbers.
    """
    paper = paper_numbers(dataset)
    found = []
    for cell, stochastic, results, diverged in runs_by_cell(records):
        # A method that samples nothing has one network to evaluate.
        evaluations = _STOCHASTIC if stochastic else _DETERMINISTIC
        for evaluation, measure in evaluations.items():
            key = (cell.augment, cell.arch, cell.method, evaluation, cell.column)
            score = Score(
                [measure(result) for result in results],
                diverged,
                paper.get(key) if cell.rescales_as_in_paper else None,
            )
            found.append(TableNumber(cell, evaluation, score))
    return found


def table_run_line(record: Record) -> dict[str, Any]:
    """Returns the line of a run in `runs.csv`."""
    return run_line(record, _RUN_NAMES)


def number_line(number: TableNumber) -> dict[str, Any]:
    """Returns the line of a number in `table1.csv`."""
    cell, score = number.cell, number.score
    paper = score.paper
    return {
        "augment": yes_or_no(cell.augment),
        "arch": cell.arch,
        "method": cell.method,
        "evaluation": number.evaluation,
        "rescale": cell.rescale,
        "column": cell.column,
        "mean": decimals(score.mean),
        "std": decimals(score.std),
        "seeds": len(score.accuracies),
        "diverged": score.diverged,
        "paper": "" if paper is None else paper,
        "difference": "" if paper is None else decimals(score.mean - paper),
    }


def markdown(
    numbers: Sequence[TableNumber], records: Sequence[Record], dataset: str
) -> str:
    """Returns the table as Markdown, with the verdict on each claim below.

    Args:
      numbers: numbers of the table.
      records: finished runs.
      dataset: name of the data set.
    """
    lines: list[str] = []
    most = max((_seeds(number.score) for number in numbers), default=0)
    for (arch, augment), group in itertools.groupby(
        sorted(numbers, key=_section), _section
    ):
        images = "with" if augment else "without"
        lines += ["", f"## {arch.capitalize()}, {images} augmentation", ""]
        rows: dict[str, dict[str, str]] = {}
        for number in group:
            row = rows.setdefault(row_name(number), {})
            row[number.cell.column] = cell_text(number.score, most)
        lines += markdown_table(
            ("method", "none", "WR", "SC", "WR + SC"),
            [
                (name, *(rows[name].get(column, "") for column in COLUMNS))
                for name in sorted(rows)
            ],
        )
    if lines:
        lines += ["", "## Epochs to the best validation accuracy, ASLP", ""]
        lines += epochs_table(records)
    return markdown_page(
        f"Table 1 on {dataset}",
        "Test accuracy in %, mean ± standard deviation over seeds; in brackets the "
        f"paper's number and the difference from it, where it has one. {RESCALES}",
        lines,
        claims(records),
    )


def epochs_table(records: Sequence[Record]) -> list[str]:
    """Returns the lines of a table of best epochs with and without smart rescale.

    Args:
      records: finished runs; those of ASLP count.
    """
    best: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for record in records:
        cell = record.cell
        if cell.method == "aslp" and not record.diverged:
            kinds = best.setdefault((cell.arch, cell.augment, cell.signed_constant), {})
            kinds.setdefault(cell.rescale, []).append(best_epoch(record.result))
    rows = []
    for (arch, augment, constant), kinds in sorted(best.items()):
        if "none" in kinds and "smart" in kinds:
            none, smart = (mean_and_std(kinds[kind]) for kind in ("none", "smart"))
            rows.append(
                (
                    arch.capitalize(),
                    yes_or_no(augment),
                    yes_or_no(constant),
                    f"{none[0]:.1f} ± {none[1]:.1f}",
                    f"{smart[0]:.1f} ± {smart[1]:.1f}",
                    f"{100 * (1 - smart[0] / none[0]):.1f} %",
                )
            )
    head = ("network", "augmentation", "SC", "no rescale", "smart rescale", "saved")
    return markdown_table(head, rows)


def row_name(number: TableNumber) -> str:
    """Returns the name of the row that a number stands in."""
    cell = number.cell
    name = LABELS.get(cell.method, cell.method)
    if not cell.rescales_as_in_paper:
        name += f", {cell.rescale}"
    if number.evaluation != "deterministic":
        name += f", {number.evaluation}"
    return name


def cell_text(score: Score, most: int) -> str:
    """Returns a cell of the table.

    Args:
      score: test accuracies.
      most: number of seeds of the cell that has most.
    """
    fewer = [f"n={len(score.accuracies)}"] if _seeds(score) < most else []
    return score.text(fewer)


def _seeds(score: Score) -> int:
    return len(score.accuracies) + score.diverged


def _section(number: TableNumber) -> tuple[str, bool]:
    return number.cell.arch, number.cell.augment
