"""Page of a comparison under a budget: cells to be sorted, claims and plots."""

from collections.abc import Sequence
from typing import Any

from aslp_jax.sweeps.budget.cells import cells_in
from aslp_jax.sweeps.budget.claims import claims
from aslp_jax.sweeps.budget.report import (
    WAYS,
    CellSummary,
    budget_run_line,
    summarise,
    summary_line,
)
from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.page import (
    claims_table,
    lines_table,
    network_plots,
    runs_table,
    with_interval,
    write_grid_page,
)
from aslp_jax.webpage.html import Text


def write(grid: Grid, dataset: str) -> None:
    """Writes `report.html` into the grid's folder, after the report.

    Args:
      grid: folder of the grid, with its plots.
      dataset: name of the data set, to find the papers' numbers.

    Raises:
      BadInput: the folder cannot be written, or a run in it is damaged.
    """
    records = grid.records(cells_in(grid.path))
    write_grid_page(
        grid,
        f"Pruning under a budget on {dataset}",
        f"Test accuracy in % of the network that is left, over seeds. {WAYS}.",
        _sections(grid, records, dataset) if records else [],
    )


def _sections(
    grid: Grid, records: Sequence[Record], dataset: str
) -> list[tuple[str, Text]]:
    summaries = summarise(records, dataset)
    caption = (
        "Test accuracy in % and dead units, means over seeds, as in budget.csv, with "
        "the interval of the mean accuracy"
    )
    finite = [each.cell.arch for each in summaries if each.results]
    content = (
        "test accuracy against the weights kept, mean and standard deviation over "
    )
    content += "seeds"
    lines = map(budget_run_line, records)
    return [
        ("Accuracy", lines_table(caption, map(_line, summaries))),
        ("Claims", claims_table(claims(records))),
        ("Accuracy against weights", network_plots(grid, finite, dataset, content)),
        ("Runs", runs_table(grid.path, records, lines)),
    ]


def _line(summary: CellSummary) -> dict[str, Any]:
    score = summary.score
    count = len(score.accuracies)
    line = summary_line(summary)
    return with_interval(summary.cell.name, line, score.mean, score.std, count)
