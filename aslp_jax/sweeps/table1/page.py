"""Page of a grid of table 1: the numbers to be sorted, the claims and the plots."""

from collections.abc import Sequence
from typing import Any

from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.page import (
    claims_table,
    lines_table,
    network_plots,
    runs_table,
    with_interval,
    write_grid_page,
)
from aslp_jax.sweeps.table1.cells import all_cells
from aslp_jax.sweeps.table1.claims import claims
from aslp_jax.sweeps.table1.report import (
    RESCALES,
    TableNumber,
    number_line,
    table_numbers,
    table_run_line,
)
from aslp_jax.webpage.html import Text


def write(grid: Grid, dataset: str) -> None:
    """Writes `report.html` into the grid's folder, after the report.

    Args:
      grid: folder of the grid, with its plots.
      dataset: name of the data set, to find the paper's numbers.

    Raises:
      BadInput: the folder cannot be written, or a run in it is damaged.
    """
    records = grid.records(all_cells())
    write_grid_page(
        grid,
        f"Table 1 on {dataset}",
        "Test accuracy in % of each network, method and evaluation, over its seeds. "
        f"{RESCALES}",
        _sections(grid, records, dataset) if records else [],
    )


def _sections(
    grid: Grid, records: Sequence[Record], dataset: str
) -> list[tuple[str, Text]]:
    numbers = table_numbers(records, dataset)
    caption = "Test accuracy in %, as in table1.csv, with the interval of the mean"
    finite = [record.cell.arch for record in records if not record.diverged]
    content = (
        "validation accuracy against epochs, mean and standard deviation over seeds"
    )
    lines = map(table_run_line, records)
    return [
        ("Accuracy", lines_table(caption, map(_line, numbers))),
        ("Claims", claims_table(claims(records))),
        ("Curves", network_plots(grid, finite, dataset, content)),
        ("Runs", runs_table(grid.path, records, lines)),
    ]


def _line(number: TableNumber) -> dict[str, Any]:
    score = number.score
    name = f"{number.cell.name}, {number.evaluation}"
    count = len(score.accuracies)
    return with_interval(name, number_line(number), score.mean, score.std, count)
