"""What a comparison under a budget has shown so far: table, paths, claims, picture.

`runs.csv` has a line a run, `budget.csv` a line a cell, `budget.md` the table as a
person reads it, and each network gets a picture of accuracy against kept weights.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from aslp_jax._atomic import write_text
from aslp_jax.sweeps.budget.cells import LABELS, METHODS, Cell, cells_in, paper_numbers
from aslp_jax.sweeps.budget.claims import claims
from aslp_jax.sweeps.budget.plot import Point, plot
from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.statistics import csv_text, mean_and_std
from aslp_jax.trainer.dead_units import DeadUnits, dead_units
from aslp_jax.trainer.run_folder import writing


class Entry(NamedTuple):
    """A cell of the comparison, over its seeds.

    Attributes:
      cell: which.
      results: of the runs whose loss stayed finite.
      diverged: how many others there are.
      paper: the paper's test accuracy in %, None where it has none.
    """

    cell: Cell
    results: list[dict[str, Any]]
    diverged: int
    paper: float | None

    def mean_and_std(
        self, value: Callable[[Mapping[str, Any]], float]
    ) -> tuple[float, float]:
        return mean_and_std([value(result) for result in self.results])


def write(grid: Grid, dataset: str) -> None:
    """Writes all files of the report into the grid's folder.

    Args:
      grid: the folder.
      dataset: its name, to find the papers' numbers.

    Raises:
      BadInput: the folder cannot be written, or a run in it is damaged.
    """
    records = grid.records(cells_in(grid.path))
    entries = make_entries(records, dataset)
    with writing(grid.path):
        write_text(grid.path / "runs.csv", csv_text(map(_run_line, records)))
        write_text(grid.path / "budget.csv", csv_text(map(_entry_line, entries)))
        write_text(grid.path / "budget.md", markdown(entries, records, dataset))
        for arch in dict.fromkeys(entry.cell.arch for entry in entries):
            points = {
                entry.cell: Point(
                    entry.mean_and_std(_kept)[0], *entry.mean_and_std(_accuracy)
                )
                for entry in entries
                if entry.cell.arch == arch and entry.results
            }
            if points:
                plot(points, dataset, grid.path / f"{arch}.png")


def make_entries(records: Sequence[Record], dataset: str) -> list[Entry]:
    """Returns the cells of the finished runs, in their order."""
    paper = paper_numbers(dataset)
    entries = []
    for cell, group in itertools.groupby(records, lambda record: record.cell):
        results = [record.result for record in group]
        good = [result for result in results if "diverged" not in result]
        number = paper.get((cell.arch, cell.method, round(cell.keep, 4)))
        entries.append(
            Entry(
                cell,
                good,
                len(results) - len(good),
                number if cell.scope == "global" else None,
            )
        )
    return entries


def _accuracy(result: Mapping[str, Any]) -> float:
    return 100 * result["thresholding"]


def _kept(result: Mapping[str, Any]) -> float:
    return 100 * result["keep_fraction"]


def _before(result: Mapping[str, Any]) -> float:
    return 100 * result["averaging_mean"]


def _change(result: Mapping[str, Any]) -> float:
    return 100 * result["pruning_change"]


def _missed(entry: Entry) -> list[float]:
    """By how much runs missed their budget, those that did, in % of all weights."""
    misses = [100 * result["budget_miss"] for result in entry.results]
    return [miss for miss in misses if miss > 0]


def _run_line(record: Record) -> dict[str, Any]:
    result, cell = record.result, record.cell
    names = (
        "thresholding averaging_mean averaging_std pruning_change test_loss "
        "keep_fraction budget_miss best_epoch best_validation_accuracy epochs seconds "
        "diverged"
    )
    lost = "diverged" in result
    paths = (
        dict.fromkeys(DeadUnits._fields, "") if lost else dead_units(result)._asdict()
    )
    numbers = {name: result.get(name, "") for name in names.split()}
    return {**dataclasses.asdict(cell), "seed": record.seed, **numbers, **paths}


def _entry_line(entry: Entry) -> dict[str, Any]:
    mean, std = entry.mean_and_std(_accuracy)
    line: dict[str, Any] = {
        **dataclasses.asdict(entry.cell),
        "kept_percent": f"{entry.mean_and_std(_kept)[0]:.2f}" if entry.results else "",
        "mean": f"{mean:.2f}" if entry.results else "",
        "std": f"{std:.2f}" if entry.results[1:] else "",
        "seeds": len(entry.results),
        "diverged": entry.diverged,
        "missed": len(_missed(entry)),
        "paper": "" if entry.paper is None else entry.paper,
    }
    for name, mean in _mean_paths(entry).items():
        line[name] = f"{mean:.2f}" if entry.results else ""
    return line


def _mean_paths(entry: Entry) -> dict[str, float]:
    every = [dead_units(result) for result in entry.results]
    return {
        name: mean_and_std([float(getattr(paths, name)) for paths in every])[0]
        for name in DeadUnits._fields
    }


def markdown(entries: Sequence[Entry], records: Sequence[Record], dataset: str) -> str:
    """Returns the comparison as Markdown.

    Args:
      entries: the cells.
      records: the finished runs.
      dataset: its name.
    """
    lines = [
        f"# Pruning under a budget on {dataset}",
        "",
        "Test accuracy in % of the network that is left, mean ± standard deviation "
        "over seeds; in brackets the number of Dupont et al. 2021 and the difference "
        "from it, where it has one. Magnitude and budget-aware train the weights and "
        "are cut to the exact number in the end; ASLP and signed choose among weights "
        "that were drawn once (signed also inverts some), and what they keep is said "
        "where it is not what was asked for.",
    ]
    if not entries:
        return "\n".join([*lines, "", "No run is finished yet.", ""])
    for (arch, scope), group in itertools.groupby(
        sorted(entries, key=lambda entry: (entry.cell.arch, entry.cell.scope)),
        lambda entry: (entry.cell.arch, entry.cell.scope),
    ):
        own = list(group)
        title = arch.capitalize()
        if scope == "layer":
            title += ", each layer with a budget of its own"
        lines += ["", f"## {title}", "", *_table(own, _cell_text)]
        if cut := [entry for entry in own if _is_cut(entry)]:
            lines += ["", "### What the last cut changes", ""]
            lines += [
                "Test accuracy in % before -> after what is not kept is cut off, and "
                "the norm of the change of the outputs relative to their norm.",
                "",
                *_table(cut, _cut_text),
            ]
        lines += ["", "### Paths", ""]
        lines += [
            "Units that no input reaches, and units that reach no class; of the kept "
            "weights, those on no path from input to class; then empty layers and "
            "classes that no input reaches, where there are any. Means over seeds.",
            "",
            *_table(own, _paths_text),
        ]
    lines += ["", "## The paper's claims", ""]
    lines += [
        "Each seed counts once, as the mean over all networks and budgets of which it "
        "has finished runs of both methods.",
        "",
    ]
    lines += ["| claim | evidence | verdict |", "|---|---|---|"]
    lines += [f"| {' | '.join(line)} |" for line in claims(records)]
    return "\n".join([*lines, ""])


def _is_cut(entry: Entry) -> bool:
    """Whether a network is cut when its training is over.

    One that draws masks never is, one that is fine-tuned was before it was tuned.
    """
    if METHODS[entry.cell.method].get("finetune"):
        return False
    return any(result["pruning_change"] is not None for result in entry.results)


def _table(entries: Sequence[Entry], text: Callable[[Entry], str]) -> list[str]:
    """Lines of a table with a row a budget and a column a method."""
    methods = [
        method
        for method in METHODS
        if any(entry.cell.method == method for entry in entries)
    ]
    found = {(entry.cell.keep, entry.cell.method): text(entry) for entry in entries}
    lines = [
        f"| pruned | {' | '.join(LABELS[method] for method in methods)} |",
        "|---" * (1 + len(methods)) + "|",
    ]
    for keep in sorted({keep for keep, _ in found}, reverse=True):
        row = [found.get((keep, method), "") for method in methods]
        lines.append(f"| {100 * (1 - keep):g} % | {' | '.join(row)} |")
    return lines


def _cell_text(entry: Entry) -> str:
    if not entry.results:
        return f"diverged ({entry.diverged})"
    mean, std = entry.mean_and_std(_accuracy)
    text = f"{mean:.1f} ± {std:.1f}" if entry.results[1:] else f"{mean:.1f}"
    if entry.paper is not None:
        text += f" ({entry.paper:.1f}, {mean - entry.paper:+.1f})"
    kept = entry.mean_and_std(_kept)[0]
    if abs(kept - 100 * entry.cell.keep) >= 0.005:
        text += f", kept {kept:.2f} %"
    if missed := _missed(entry):
        what = "before the cut " if _is_cut(entry) else ""
        text += (
            f", {what}off the budget by up to {max(missed):.2f} % in {len(missed)} of "
            f"{len(entry.results)} runs"
        )
    if entry.diverged:
        text += f", {entry.diverged} diverged"
    return text


def _cut_text(entry: Entry) -> str:
    if not entry.results:
        return ""
    before, after, change = (
        entry.mean_and_std(value)[0] for value in (_before, _accuracy, _change)
    )
    return f"{before:.1f} -> {after:.1f}, {change:.2f} %"


def _paths_text(entry: Entry) -> str:
    if not entry.results:
        return ""
    found = _mean_paths(entry)
    text = (
        f"{found['without_input']:.1f} and {found['without_output']:.1f} of "
        f"{found['units']:.0f}, {found['off_path']:.1f} %"
    )
    if found["empty_layers"]:
        text += f", {found['empty_layers']:.1f} layers empty"
    if found["unreached_classes"]:
        text += f", {found['unreached_classes']:.1f} classes not reached"
    return text
