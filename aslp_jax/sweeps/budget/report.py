"""Report on a comparison under a budget: tables, dead units, claims, plots.

`runs.csv` has a line a run, `budget.csv` a line a cell, `budget.md` the tables with a
verdict on each claim of the paper, and each network gets a plot of accuracy against
kept weights.
"""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import Any

from aslp_jax.sweeps.budget.cells import LABELS, METHODS, Cell, cells_in, paper_numbers
from aslp_jax.sweeps.budget.claims import claims
from aslp_jax.sweeps.budget.plot import Point, plot
from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.measures import (
    Result,
    accuracy,
    is_pruned,
    kept_percent,
    off_budget_percent,
    other_accuracy,
    pruning_change_percent,
)
from aslp_jax.sweeps.report import (
    Score,
    decimals,
    markdown_page,
    markdown_table,
    run_line,
    runs_by_cell,
    write_tables,
)
from aslp_jax.sweeps.statistics import mean_and_std
from aslp_jax.trainer.dead_units import DeadUnits, dead_units
from aslp_jax.trainer.results import RunResult
from aslp_jax.trainer.run_folder import writing

NAME = "budget"
"""Name of the comparison, and of its files."""

WAYS = (
    "Magnitude and budget-aware train the weights and are cut to the exact number in "
    "the end; ASLP and signed choose among weights that were drawn once (signed also "
    "inverts some)"
)
"""Clauses on the ways of the table."""

_RUN_NAMES = (
    "thresholding",
    "averaging_mean",
    "averaging_std",
    "pruning_change",
    "test_loss",
    "keep_fraction",
    "budget_miss",
    "best_epoch",
    "best_validation_accuracy",
    "epochs",
    "seconds",
    "diverged",
)
"""Keys of result.json that `runs.csv` shows."""


@dataclasses.dataclass(frozen=True)
class CellSummary:
    """A cell of the comparison, over its seeds.

    Attributes:
      cell: cell of the grid.
      results: results of the runs whose loss stayed finite.
      score: test accuracies beside the paper's.
    """

    cell: Cell
    results: list[dict[str, Any]]
    score: Score

    @property
    def pruned_last(self) -> bool:
        """True if pruning ends the training.

        A network that samples masks is never pruned, and one that is fine-tuned was
        pruned before.
        """
        if METHODS[self.cell.method].get("finetune"):
            return False
        return any(map(is_pruned, self.results))

    @property
    def off_budget(self) -> list[float]:
        """Distances from the budget of the runs that missed it, in % of all weights."""
        found = map(off_budget_percent, self.results)
        return [percent for percent in found if percent > 0]

    def mean(self, measure: Callable[[Result], float]) -> float:
        """Returns the mean of a measure over seeds; NaN if there are none."""
        return mean_and_std([measure(result) for result in self.results])[0]

    def mean_dead_units(self) -> dict[str, float]:
        """Returns the means over seeds of the fields of `DeadUnits`."""
        found = [dead_units(RunResult.from_json(result)) for result in self.results]
        return {
            name: mean_and_std([float(getattr(each, name)) for each in found])[0]
            for name in DeadUnits._fields
        }


def write(grid: Grid, dataset: str) -> None:
    """Writes all files of the report into the grid's folder.

    Args:
      grid: folder of the grid.
      dataset: name of the data set, to find the papers' numbers.

    Raises:
      BadInput: the folder cannot be written, or a run in it is damaged.
    """
    records = grid.records(cells_in(grid.path))
    summaries = summarise(records, dataset)
    with writing(grid.path):
        write_tables(
            grid.path,
            NAME,
            map(budget_run_line, records),
            map(summary_line, summaries),
            markdown(summaries, records, dataset),
        )
        finite = [each for each in summaries if each.results]
        for arch in dict.fromkeys(each.cell.arch for each in finite):
            points = {
                each.cell: Point(
                    each.mean(kept_percent), each.score.mean, each.score.std
                )
                for each in finite
                if each.cell.arch == arch
            }
            plot(points, dataset, grid.path / f"{arch}.png")


def summarise(records: Sequence[Record], dataset: str) -> list[CellSummary]:
    """Returns the cells of the finished runs, in their order.

    Args:
      records: finished runs.
      dataset: name of the data set, to find the paper's numbers.
    """
    paper = paper_numbers(dataset)
    summaries = []
    for cell, _, results, diverged in runs_by_cell(records):
        number = paper.get((cell.arch, cell.method, round(cell.keep, 4)))
        score = Score(
            [accuracy(result) for result in results],
            diverged,
            number if cell.scope == "global" else None,
        )
        summaries.append(CellSummary(cell, results, score))
    return summaries


def budget_run_line(record: Record) -> dict[str, Any]:
    """Returns the line of a run in `runs.csv`."""
    lost = dict.fromkeys(DeadUnits._fields, "")
    dead = (
        lost
        if record.diverged
        else dead_units(RunResult.from_json(record.result))._asdict()
    )
    return {**run_line(record, _RUN_NAMES), **dead}


def summary_line(summary: CellSummary) -> dict[str, Any]:
    """Returns the line of a cell in `budget.csv`."""
    score = summary.score
    return {
        **dataclasses.asdict(summary.cell),
        "kept_percent": decimals(summary.mean(kept_percent)),
        "mean": decimals(score.mean),
        "std": decimals(score.std) if summary.results[1:] else "",
        "seeds": len(summary.results),
        "diverged": score.diverged,
        "missed": len(summary.off_budget),
        "paper": "" if score.paper is None else score.paper,
        **{name: decimals(mean) for name, mean in summary.mean_dead_units().items()},
    }


def markdown(
    summaries: Sequence[CellSummary], records: Sequence[Record], dataset: str
) -> str:
    """Returns the comparison as Markdown.

    Args:
      summaries: cells of the finished runs.
      records: finished runs.
      dataset: name of the data set.
    """
    lines: list[str] = []
    for (arch, scope), group in itertools.groupby(
        sorted(summaries, key=_section), _section
    ):
        own = list(group)
        title = arch.capitalize()
        if scope == "layer":
            title += ", each layer with a budget of its own"
        lines += ["", f"## {title}", "", *_table(own, _cell_text)]
        if pruned := [each for each in own if each.pruned_last]:
            lines += ["", "### What the last cut changes", ""]
            lines += [
                "Test accuracy in % before -> after what is not kept is cut off, and "
                "the norm of the change of the outputs relative to their norm.",
                "",
                *_table(pruned, _pruning_text),
            ]
        lines += ["", "### Paths", ""]
        lines += [
            "Units that no input reaches, and units that reach no class; of the kept "
            "weights, those on no path from input to class; then empty layers and "
            "classes that no input reaches, where there are any. Means over seeds.",
            "",
            *_table(own, _dead_units_text),
        ]
    return markdown_page(
        f"Pruning under a budget on {dataset}",
        "Test accuracy in % of the network that is left, mean ± standard deviation "
        "over seeds; in brackets the number of Dupont et al. 2021 and the difference "
        f"from it, where it has one. {WAYS}, and what they keep is said where it is "
        "not what was asked for.",
        lines,
        claims(records),
        "Each seed counts once, as the mean over all networks and budgets of which it "
        "has finished runs of both methods.",
    )


def _section(summary: CellSummary) -> tuple[str, str]:
    return summary.cell.arch, summary.cell.scope


def _table(
    summaries: Sequence[CellSummary], text: Callable[[CellSummary], str]
) -> list[str]:
    """Returns a table with a row a budget and a column a method."""
    present = {each.cell.method for each in summaries}
    methods = [method for method in METHODS if method in present]
    found = {(each.cell.keep, each.cell.method): text(each) for each in summaries}
    return markdown_table(
        ("pruned", *(LABELS[method] for method in methods)),
        [
            (
                f"{100 * (1 - keep):g} %",
                *(found.get((keep, method), "") for method in methods),
            )
            for keep in sorted({keep for keep, _ in found}, reverse=True)
        ],
    )


def _cell_text(summary: CellSummary) -> str:
    notes = []
    kept = summary.mean(kept_percent)
    if abs(kept - 100 * summary.cell.keep) >= 0.005:
        notes.append(f"kept {kept:.2f} %")
    if off := summary.off_budget:
        when = "before the cut " if summary.pruned_last else ""
        notes.append(
            f"{when}off the budget by up to {max(off):.2f} % in {len(off)} of "
            f"{len(summary.results)} runs"
        )
    return summary.score.text(notes)


def _pruning_text(summary: CellSummary) -> str:
    if not summary.results:
        return ""
    before, after = summary.mean(other_accuracy), summary.score.mean
    change = summary.mean(pruning_change_percent)
    return f"{before:.1f} -> {after:.1f}, {change:.2f} %"


def _dead_units_text(summary: CellSummary) -> str:
    if not summary.results:
        return ""
    found = summary.mean_dead_units()
    text = (
        f"{found['without_input']:.1f} and {found['without_output']:.1f} of "
        f"{found['units']:.0f}, {found['off_path']:.1f} %"
    )
    if found["empty_layers"]:
        text += f", {found['empty_layers']:.1f} layers empty"
    if found["unreached_classes"]:
        text += f", {found['unreached_classes']:.1f} classes not reached"
    return text
