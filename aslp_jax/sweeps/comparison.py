"""Comparison of grids: one cell in several, by accuracy against epochs."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aslp_jax._atomic import write_text
from aslp_jax._claim import claim
from aslp_jax._errors import BadInput
from aslp_jax.sweeps.figures import add_grid, plot_band, save_figure, validation_curve
from aslp_jax.sweeps.grid import Record, read_records, read_settings
from aslp_jax.sweeps.measures import (
    accuracy,
    best_validation_accuracy,
    epochs,
    seconds,
)
from aslp_jax.sweeps.page import INTERVAL, interval, lines_table, plots, write_page
from aslp_jax.sweeps.report import csv_text, markdown_table
from aslp_jax.sweeps.statistics import mean_and_std
from aslp_jax.sweeps.table1.cells import all_cells
from aslp_jax.trainer.progress import counted, humanise_seconds
from aslp_jax.trainer.run_folder import REPORT, writing

_LINEAR_EPOCHS = 15
"""Longest runs whose plot needs no logarithmic axis."""

_PAGE = "docs/table1.md#comparing-recipes"
"""Page of the site on these errors."""


def compare(
    grids: Mapping[str, Path], cell: str, out: Path, *, report: bool = True
) -> str:
    """Compares one cell of several grids, and writes a table and a plot.

    Args:
      grids: folders of the grids by name, the reference first.
      cell: name of a cell of table 1.
      out: folder for `compare.csv`, `compare.md` and `compare.png`; made if missing.
      report: True to write `report.html`, too.

    Returns:
      The table as Markdown, the content of `compare.md`.

    Raises:
      BadInput: the grids do not compare, lack runs, or are damaged; or the folder
        cannot be written, or has a report on something else.
    """
    if report:
        _check_report(out)
    runs = {name: _finished_runs(path, cell) for name, path in grids.items()}
    if len({_images(path) for path in grids.values()}) > 1:
        raise BadInput(
            "the grids are of different images; accuracies do not compare",
            page=_PAGE,
        )
    lines = [summary(name, runs) for name in runs]
    page = markdown(lines)
    with writing(out), claim(out):
        write_text(out / "compare.csv", csv_text(lines))
        write_text(out / "compare.md", page)
        plot(runs, out / "compare.png", cell)
        if report:
            _write_page(lines, out, cell)
    return page


def _check_report(out: Path) -> None:
    """Checks that a report would not replace that of a run or of a grid."""
    for name in ("config.json", "grid.json"):
        if (out / name).exists():
            raise BadInput(
                f"--out {out} holds a {name}, and its {REPORT} would be lost; name "
                "another folder, or give --no-report",
                page=_PAGE,
            )


def _write_page(lines: Sequence[Mapping[str, Any]], out: Path, cell: str) -> None:
    shown = [
        {
            **line,
            f"test, {INTERVAL}": interval(
                line["test_mean"], line["test_std"], line["seeds"]
            ),
        }
        for line in lines
    ]
    about = f"{cell}: validation accuracy against epochs, mean and std over seeds"
    write_page(
        out,
        f"Grids compared: {cell}",
        "Accuracies in %. The level of the reference, the first grid, is the mean "
        "validation accuracy of the last tenth of its epochs.",
        [
            ("Accuracy", lines_table("Grids, as in compare.csv", shown)),
            ("Curves", plots({about: out / "compare.png"})),
        ],
    )


def _finished_runs(path: Path, name: str) -> list[Record]:
    cells = {cell.name: cell for cell in all_cells()}
    if name not in cells:
        raise BadInput(
            f"--cell {name} is none of the cells, such as {next(iter(cells))}",
            page=_PAGE,
        )
    read_settings(path)  # a folder that is no grid is met first
    records = [
        record for record in read_records(path, [cells[name]]) if not record.diverged
    ]
    if not records:
        raise BadInput(
            f"{path} has no finished run of {name}",
            page=_PAGE,
        )
    for record in records:
        if not record.rows:
            raise BadInput(
                f"{path} has no metrics of {name}, seed {record.seed}",
                page=_PAGE,
            )
    return records


def _images(path: Path) -> tuple[Any, Any]:
    """Returns name and hash of the images that a grid was trained on."""
    settings = read_settings(path)
    return settings.get("dataset"), settings.get("images_sha256")


def summary(name: str, runs: Mapping[str, Sequence[Record]]) -> dict[str, Any]:
    """Returns one line of the comparison.

    Args:
      name: name of the grid.
      runs: runs of all grids, the reference first.
    """
    records = runs[name]
    goal = final_level(_mean_curve(next(iter(runs.values()))))
    curve = _mean_curve(records)
    reached = [epoch for epoch, value in enumerate(curve, 1) if value >= goal]
    (best_mean, best_std), (test_mean, test_std) = (
        mean_and_std([measure(record.result) for record in records])
        for measure in (best_validation_accuracy, accuracy)
    )
    return {
        "recipe": name,
        "seeds": len(records),
        "epochs": max(epochs(record.result) for record in records),
        "validation_end": round(final_level(curve), 2),
        "validation_mean": round(best_mean, 2),
        "validation_std": round(best_std, 2),
        "test_mean": round(test_mean, 2),
        "test_std": round(test_std, 2),
        "epochs_to_reference": reached[0] if reached else "",
        "seconds_a_run": round(
            statistics.fmean(seconds(record.result) for record in records), 1
        ),
    }


def _mean_curve(records: Sequence[Record]) -> list[float]:
    """Returns validation accuracy by epoch, in %, the mean over seeds."""
    curves = [record.validation_accuracies for record in records]
    return [
        100 * statistics.fmean(curve[epoch] for curve in curves)
        for epoch in range(min(map(len, curves)))
    ]


def final_level(curve: Sequence[float]) -> float:
    """Returns the mean of the last tenth of a curve, at least of one epoch."""
    return statistics.fmean(curve[-max(1, len(curve) // 10) :])


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the comparison as a table, accuracies in %.

    Args:
      lines: lines of the comparison, the reference first.
    """
    head = (
        "recipe",
        "seeds",
        "epochs",
        "validation, last tenth",
        "validation, best",
        "test, thresholding",
        f"epochs to {lines[0]['recipe']}'s last tenth",
        "time a run",
    )
    rows = [
        (
            line["recipe"],
            str(line["seeds"]),
            str(line["epochs"]),
            f"{line['validation_end']:.1f}",
            f"{line['validation_mean']:.1f} ± {line['validation_std']:.1f}",
            f"{line['test_mean']:.1f} ± {line['test_std']:.1f}",
            str(line["epochs_to_reference"] or "not reached"),
            humanise_seconds(line["seconds_a_run"]),
        )
        for line in lines
    ]
    return "\n".join([*markdown_table(head, rows), ""])


def plot(runs: Mapping[str, Sequence[Record]], path: Path, title: str) -> None:
    """Plots validation accuracy against epochs, mean and std over seeds.

    The axis of epochs is logarithmic if a run has more than 15: recipes of few epochs
    are compared with recipes of many.

    Args:
      runs: runs by name of the grid.
      path: PNG to write; its folder exists.
      title: line above the plot.
    """
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    longest = 0
    for index, (name, records) in enumerate(runs.items()):
        curves = [validation_curve(record) for record in records]
        label = f"{name} ({counted(len(curves), 'seed')})"
        plot_band(axes, curves, f"C{index}").set_label(label)
        longest = max(longest, *map(len, curves))
    if longest > _LINEAR_EPOCHS:
        axes.set_xscale("log")
        axes.set_xlabel("epoch (log scale)")
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_xlabel("epoch")
    axes.set_title(title)
    axes.set_ylabel("validation accuracy (%)")
    add_grid(axes)
    axes.legend(loc="lower right", frameon=False)
    save_figure(figure, path)
