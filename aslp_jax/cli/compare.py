"""Sets recipes side by side: the same cell of several grids, accuracy against epochs.

    python experiments/compare.py paper=GRID fast=GRID --cell CELL --out FOLDER

Writes `compare.csv` (a line a recipe), `compare.md` (the same as a table) and
`compare.png`. The first recipe is the reference: of each it is said after how many
epochs its validation accuracy, averaged over seeds, is that of the reference in the
last tenth of its epochs. (The best of an accuracy over many epochs is higher than that
of few, for the looking alone.) Exit codes: 0 done; 2 bad input.
"""

import argparse
import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aslp_jax._atomic import atomic_write, write_text
from aslp_jax._errors import BadInput
from aslp_jax.cli.arguments import OneLineParser
from aslp_jax.sweeps.grid import Record, read_records
from aslp_jax.sweeps.statistics import csv_text, mean_and_std, plot_band
from aslp_jax.sweeps.table1.cells import all_cells
from aslp_jax.trainer.progress import humanise_seconds
from aslp_jax.trainer.run_folder import writing


def main(arguments: Sequence[str]) -> int:
    parser = OneLineParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("recipes", nargs="+", metavar="NAME=GRID")
    parser.add_argument(
        "--cell", required=True, help="such as conv4-plain-aslp-none-sc"
    )
    parser.add_argument("--out", required=True, type=Path, metavar="FOLDER")
    options = parser.parse_args(arguments)
    runs, images = {}, set()
    for text in options.recipes:
        name, _, path = text.partition("=")
        if not path or name in runs:
            raise BadInput(f"{text} is not NAME=GRID, or names a recipe twice")
        runs[name] = _runs(Path(path), options.cell)
        images.add(_images(Path(path)))
    if len(images) > 1:
        raise BadInput("the grids are of different images; accuracies do not compare")
    lines = [summary(name, records, runs) for name, records in runs.items()]
    with writing(options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        table = markdown(lines)
        write_text(options.out / "compare.csv", csv_text(lines))
        write_text(options.out / "compare.md", table)
        plot(runs, options.out / "compare.png", options.cell)
    print(table, end="")
    return 0


def _runs(path: Path, cell: str) -> list[Record]:
    names = [each.name for each in all_cells()]
    if cell not in names:
        raise BadInput(f"--cell {cell} is none of the cells, such as {names[0]}")
    if not (path / "grid.json").exists():
        raise BadInput(f"{path} is not the folder of a grid: no grid.json")
    records = [
        record
        for record in read_records(path, all_cells())
        if record.cell.name == cell and "diverged" not in record.result
    ]
    if not records:
        raise BadInput(f"{path} has no finished run of {cell}")
    for record in records:
        if not record.rows:
            raise BadInput(f"{path} has no metrics of {cell}, seed {record.seed}")
    return records


def _images(path: Path) -> str:
    try:
        about = dict(json.loads((path / "grid.json").read_text()))
    except (ValueError, TypeError):
        raise BadInput(f"{path / 'grid.json'} is damaged") from None
    return f"{about.get('dataset')} {about.get('images_sha256')}"


def summary(
    name: str, records: Sequence[Record], runs: Mapping[str, Sequence[Record]]
) -> dict[str, Any]:
    """Returns one line of the comparison.

    Args:
      name: of the recipe.
      records: its runs.
      runs: of all recipes, the reference first.
    """
    goal = _level(_curve(next(iter(runs.values()))))
    curve = _curve(records)
    reached = [epoch for epoch, value in enumerate(curve, 1) if value >= goal]
    best = [100 * record.result["best_validation_accuracy"] for record in records]
    test = [100 * record.result["thresholding"] for record in records]
    (best_mean, best_std), (test_mean, test_std) = map(mean_and_std, (best, test))
    seconds = [record.result["seconds"] for record in records]
    epochs = [record.result["epochs"] for record in records]
    return {
        "recipe": name,
        "seeds": len(records),
        "epochs": max(epochs),
        "validation_end": round(_level(curve), 2),
        "validation_mean": round(best_mean, 2),
        "validation_std": round(best_std, 2),
        "test_mean": round(test_mean, 2),
        "test_std": round(test_std, 2),
        "epochs_to_reference": reached[0] if reached else "",
        "seconds_a_run": round(statistics.fmean(seconds), 1),
    }


def _curve(records: Sequence[Record]) -> list[float]:
    """Validation accuracy by epoch, in %, the mean over seeds."""
    length = min(len(record.rows) for record in records)
    return [
        100
        * statistics.fmean(rec.rows[epoch]["validation_accuracy"] for rec in records)
        for epoch in range(length)
    ]


def _level(curve: Sequence[float]) -> float:
    """Where a curve ends: the mean of its last tenth, at least one epoch."""
    return statistics.fmean(curve[-max(1, len(curve) // 10) :])


def markdown(lines: Sequence[Mapping[str, Any]]) -> str:
    """Returns the comparison as a table, accuracies in %."""
    goal = lines[0]["recipe"]
    text = [
        "| recipe | seeds | epochs | validation, last tenth | validation, best "
        f"| test, thresholding | epochs to {goal}'s last tenth | time a run |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for line in lines:
        reached = line["epochs_to_reference"] or "not reached"
        text.append(
            f"| {line['recipe']} | {line['seeds']} | {line['epochs']} "
            f"| {line['validation_end']:.1f} "
            f"| {line['validation_mean']:.1f} ± {line['validation_std']:.1f} "
            f"| {line['test_mean']:.1f} ± {line['test_std']:.1f} | {reached} "
            f"| {humanise_seconds(line['seconds_a_run'])} |"
        )
    return "\n".join([*text, ""])


def plot(runs: Mapping[str, Sequence[Record]], path: Path, title: str) -> None:
    """Draws validation accuracy against epochs, mean and std over seeds."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    for index, (name, records) in enumerate(runs.items()):
        curves = [
            [100 * row["validation_accuracy"] for row in record.rows]
            for record in records
        ]
        plot_band(axes, curves, f"C{index}").set_label(f"{name} ({len(curves)} seeds)")
    axes.set_xscale("log")
    axes.set_title(title)
    axes.set_xlabel("epoch (log scale)")
    axes.set_ylabel("validation accuracy (%)")
    axes.grid(alpha=0.25)
    axes.legend(loc="lower right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    with atomic_write(path) as file:
        figure.savefig(file, format="png")
