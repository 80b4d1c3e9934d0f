"""A picture for each network of table 1: accuracy against epoch, methods compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aslp_jax._atomic import atomic_write
from aslp_jax.sweeps.grid import Record
from aslp_jax.sweeps.statistics import plot_band
from aslp_jax.sweeps.table1.cells import COLUMNS, LABELS, OWN_RESCALE, column_of


def plot(records: Sequence[Record], path: Path, title: str) -> None:
    """Draws validation accuracy against epoch, a panel for each column of the table.

    Lines are means over seeds, bands one standard deviation; each method is drawn with
    the rescale that is its own.

    Args:
      records: the finished runs of one network.
      path: of the PNG; its folder exists.
      title: a line above the panels.
    """
    from matplotlib.figure import Figure

    rows = sorted({record.cell.augment for record in records})
    columns = [
        column
        for column in COLUMNS
        if any(column_of(record.cell) == column for record in records)
    ]
    methods = list(dict.fromkeys(record.cell.method for record in records))
    figure = Figure(
        figsize=(1 + 3.4 * len(columns), 0.9 + 3.2 * len(rows)),
        dpi=90,
        layout="constrained",
    )
    figure.suptitle(f"{title}\nvalidation accuracy, mean and std over seeds")
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharey="row")
    drawn: dict[str, Any] = {}
    for line, augment in zip(panels, rows, strict=True):
        for axes, column in zip(line, columns, strict=True):
            images = "augmented" if augment else "not augmented"
            name = "none" if column == "none" else column.upper().replace("_", " + ")
            axes.set_title(f"{name}, {images}", fontsize=10)
            for index, method in enumerate(methods):
                curves = [
                    [100 * row["validation_accuracy"] for row in record.rows]
                    for record in records
                    if record.rows
                    and (record.cell.augment, record.cell.method) == (augment, method)
                    and record.cell.rescale in ("none", OWN_RESCALE.get(method))
                    and column_of(record.cell) == column
                ]
                if curves:
                    drawn[method] = plot_band(axes, curves, f"C{index}")
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
        line[0].set_ylabel("validation accuracy (%)")
    labels = [LABELS.get(method, method) for method in drawn]
    figure.legend(
        list(drawn.values()), labels, loc="outside lower center", ncols=3, frameon=False
    )
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
