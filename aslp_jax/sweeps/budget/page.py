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
from aslp_jax.sweeps.grid import Grid, Record, read_settings
from aslp_jax.sweeps.page import (
    claims_table,
    lines_table,
    plots,
    runs_table,
    settings_table,
    unfinished,
    with_interval,
    write_page,
)
from aslp_jax.trainer.run_folder import writing
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
    sections = _sections(grid, records, dataset) if records else [unfinished()]
    with writing(grid.path):
        write_page(
            grid.path,
            f"Pruning under a budget on {dataset}",
            f"Test accuracy in % of the network that is left, over seeds. {WAYS}.",
            [*sections, ("Settings", settings_table(read_settings(grid.path)))],
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
    paths = {
        f"{arch.capitalize()} on {dataset}: test accuracy against the weights kept, "
        "mean and standard deviation over seeds": grid.path / f"{arch}.png"
        for arch in dict.fromkeys(finite)
    }
    lines = map(budget_run_line, records)
    return [
        ("Accuracy", lines_table(caption, map(_line, summaries))),
        ("Claims", claims_table(claims(records))),
        ("Accuracy against weights", plots(paths)),
        ("Runs", runs_table(grid.path, records, lines)),
    ]


def _line(summary: CellSummary) -> dict[str, Any]:
    score = summary.score
    count = len(score.accuracies)
    line = summary_line(summary)
    return with_interval(summary.cell.name, line, score.mean, score.std, count)
