"""Plot for each network of table 1: accuracy against epoch, methods compared."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aslp_jax.sweeps.figures import add_grid, plot_band, save_figure, validation_curve
from aslp_jax.sweeps.grid import Record
from aslp_jax.sweeps.table1.cells import COLUMNS, LABELS


def plot(records: Sequence[Record], path: Path, title: str) -> None:
    """Plots validation accuracy against epoch, a panel for each column of the table.

    Lines are means over seeds, bands one standard deviation; each method is shown with
    the rescale that is its own.

    Args:
      records: finished runs of one network.
      path: PNG to write; its folder exists.
      title: line above the panels.
    """
    from matplotlib.figure import Figure

    rows = sorted({record.cell.augment for record in records})
    present = {record.cell.column for record in records}
    columns = [column for column in COLUMNS if column in present]
    methods = list(dict.fromkeys(record.cell.method for record in records))
    figure = Figure(
        figsize=(1 + 3.4 * len(columns), 0.9 + 3.2 * len(rows)),
        dpi=90,
        layout="constrained",
    )
    figure.suptitle(f"{title}\nvalidation accuracy, mean and std over seeds")
    panels = figure.subplots(len(rows), len(columns), squeeze=False, sharey="row")
    lines: dict[str, Any] = {}
    for panel_row, augment in zip(panels, rows, strict=True):
        for axes, column in zip(panel_row, columns, strict=True):
            own = [
                record
                for record in records
                if (record.cell.augment, record.cell.column) == (augment, column)
            ]
            images = "augmented" if augment else "not augmented"
            name = "none" if column == "none" else column.upper().replace("_", " + ")
            axes.set_title(f"{name}, {images}", fontsize=10)
            lines |= _plot_methods(axes, own, methods)
            add_grid(axes)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
        panel_row[0].set_ylabel("validation accuracy (%)")
    labels = [LABELS.get(method, method) for method in lines]
    figure.legend(
        list(lines.values()), labels, loc="outside lower center", ncols=3, frameon=False
    )
    save_figure(figure, path)


def _plot_methods(
    axes: Any, records: Sequence[Record], methods: Sequence[str]
) -> dict[str, Any]:
    """Plots the methods of one panel, and returns a line of each."""
    lines = {}
    for index, method in enumerate(methods):
        curves = [
            validation_curve(record)
            for record in records
            if record.rows
            and record.cell.method == method
            and record.cell.rescales_as_in_paper
        ]
        if curves:
            lines[method] = plot_band(axes, curves, f"C{index}")
    return lines
