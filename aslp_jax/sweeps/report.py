"""Parts that the reports of table 1 and of the comparison under a budget share.

Both write `runs.csv` with a line a run, a CSV with a line a number or cell, and a
Markdown page with tables and a verdict on each claim of a paper.
"""

import csv
import dataclasses
import io
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aslp_jax._atomic import write_text
from aslp_jax.sweeps.grid import Record
from aslp_jax.sweeps.statistics import mean_and_std

Claim = tuple[str, str, str]
"""Claim of a paper, evidence and verdict."""

NONE_FINISHED = "No run is finished yet."
"""Line of a report on a grid without a finished run."""


class CellRuns(NamedTuple):
    """Finished runs of one cell.

    Attributes:
      cell: cell of the grid.
      stochastic: True if the method of the cell samples masks.
      results: results of the runs whose loss stayed finite.
      diverged: number of the other runs.
    """

    cell: Any
    stochastic: bool
    results: list[dict[str, Any]]
    diverged: int


@dataclasses.dataclass(frozen=True)
class Score:
    """Test accuracies of one cell, beside the paper's number.

    Attributes:
      accuracies: accuracies in %, one a seed whose loss stayed finite.
      diverged: number of the other seeds.
      paper: the paper's accuracy in %; None if it has none.
    """

    accuracies: list[float]
    diverged: int
    paper: float | None

    @property
    def mean(self) -> float:
        """Mean over seeds in %; NaN if there are none."""
        return mean_and_std(self.accuracies)[0]

    @property
    def std(self) -> float:
        """Standard deviation over seeds in %; NaN if there are none."""
        return mean_and_std(self.accuracies)[1]

    def text(self, notes: Iterable[str] = ()) -> str:
        """Returns the score as a cell of a table.

        Args:
          notes: remarks to add, if a seed has an accuracy.
        """
        if not self.accuracies:
            return f"diverged ({self.diverged})"
        text = f"{self.mean:.1f}"
        if self.accuracies[1:]:
            text += f" ± {self.std:.1f}"
        if self.paper is not None:
            text += f" ({self.paper:.1f}, {self.mean - self.paper:+.1f})"
        lost = [f"{self.diverged} diverged"] if self.diverged else []
        return ", ".join([text, *notes, *lost])


def runs_by_cell(records: Iterable[Record]) -> list[CellRuns]:
    """Returns the finished runs of each cell.

    Args:
      records: runs in the order of their cells.
    """
    found = []
    for cell, group in itertools.groupby(records, lambda record: record.cell):
        runs = list(group)
        good = [record.result for record in runs if not record.diverged]
        found.append(CellRuns(cell, runs[0].stochastic, good, len(runs) - len(good)))
    return found


def run_line(record: Record, names: Iterable[str]) -> dict[str, Any]:
    """Returns the line of a run in `runs.csv`.

    Args:
      record: finished run.
      names: keys of result.json; a key that a run lacks leaves its field empty.
    """
    axes = {
        name: yes_or_no(value) if isinstance(value, bool) else value
        for name, value in dataclasses.asdict(record.cell).items()
    }
    numbers = {name: record.result.get(name, "") for name in names}
    return {**axes, "seed": record.seed, **numbers}


def yes_or_no(value: bool) -> str:
    """Returns a truth value as the tables show it."""
    return "yes" if value else "no"


def decimals(value: float) -> str:
    """Returns a number with two decimals, nothing for NaN."""
    return "" if math.isnan(value) else f"{value:.2f}"


def csv_text(lines: Iterable[Mapping[str, Any]]) -> str:
    """Returns lines of the same names as CSV with a header; nothing for no lines."""
    text = io.StringIO()
    rows = list(lines)
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def markdown_table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Returns the lines of a table in Markdown."""
    lines = [f"| {' | '.join(row)} |" for row in (head, *rows)]
    lines.insert(1, "|---" * len(head) + "|")
    return lines


def markdown_page(
    title: str,
    introduction: str,
    sections: Sequence[str],
    claims: Iterable[Claim],
    about_claims: str = "",
) -> str:
    """Returns a report as a Markdown page.

    Args:
      title: heading of the page.
      introduction: paragraph below the title.
      sections: lines of the tables; none if no run is finished.
      claims: claims, each with evidence and verdict.
      about_claims: paragraph above the claims.
    """
    lines = [f"# {title}", "", introduction]
    if not sections:
        return "\n".join([*lines, "", NONE_FINISHED, ""])
    lines += [*sections, "", "## The paper's claims", ""]
    if about_claims:
        lines += [about_claims, ""]
    lines += markdown_table(("claim", "evidence", "verdict"), claims)
    return "\n".join([*lines, ""])


def write_tables(
    folder: Path,
    name: str,
    runs: Iterable[Mapping[str, Any]],
    numbers: Iterable[Mapping[str, Any]],
    page: str,
) -> None:
    """Writes the files of a report that are text.

    Args:
      folder: folder of the grid.
      name: name of the table, and of its files.
      runs: lines of `runs.csv`.
      numbers: lines of the CSV of the table.
      page: Markdown page.
    """
    write_text(folder / "runs.csv", csv_text(runs))
    write_text(folder / f"{name}.csv", csv_text(numbers))
    write_text(folder / f"{name}.md", page)
