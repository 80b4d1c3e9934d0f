"""What a comparison under a budget has shown so far: table, paths, claims, picture.

`runs.csv` has a line a run, `budget.csv` a line a cell, `budget.md` the table as a
person reads it, and each network gets a picture of accuracy against kept weights.
"""

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from budget_layout import LABELS, METHODS, Cell, cells_in, paper_numbers
from budget_picture import picture
from folder import replace_text, writing
from grid import Grid, Record
from seed_statistics import csv_text, mean_and_std, verdict


class Paths(NamedTuple):
    """How a pruned network hangs together.

    Attributes:
      empty: layers of which nothing is kept.
      cut_off: units that no input reaches or that reach no output.
      units: in all.
      astray: kept weights on no path from an input to an output, in %.
      lost: classes that no input reaches.
    """

    empty: int
    cut_off: int
    units: int
    astray: float
    lost: int


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
        replace_text(grid.path / "runs.csv", csv_text(map(_run_line, records)))
        replace_text(grid.path / "budget.csv", csv_text(map(_entry_line, entries)))
        replace_text(grid.path / "budget.md", markdown(entries, records, dataset))
        for arch in dict.fromkeys(entry.cell.arch for entry in entries):
            accuracies = {
                entry.cell: [_accuracy(each) for each in entry.results]
                for entry in entries
                if entry.cell.arch == arch and entry.results
            }
            if accuracies:
                picture(accuracies, dataset, grid.path / f"{arch}.png")


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


def paths_of(result: Mapping[str, Any]) -> Paths:
    """Sums up the connectivity of a run.

    Args:
      result: what its result.json holds.
    """
    layers = result["connectivity"].values()
    kept, on_path = (sum(each[name] for each in layers) for name in ("kept", "on_path"))
    return Paths(
        empty=sum(each["kept"] == 0 for each in layers),
        cut_off=sum(each["without_input"] + each["without_output"] for each in layers),
        units=sum(each["units"] for each in layers),
        astray=100 * (1 - on_path / kept) if kept else 100.0,
        lost=result["outputs"] - result["outputs_reached"],
    )


def _accuracy(result: Mapping[str, Any]) -> float:
    return 100 * result["thresholding"]


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
    paths = dict.fromkeys(Paths._fields, "") if lost else paths_of(result)._asdict()
    numbers = {name: result.get(name, "") for name in names.split()}
    return {**dataclasses.asdict(cell), "seed": record.seed, **numbers, **paths}


def _entry_line(entry: Entry) -> dict[str, Any]:
    mean, std = entry.mean_and_std(_accuracy)
    line: dict[str, Any] = {
        **dataclasses.asdict(entry.cell),
        "mean": f"{mean:.2f}" if entry.results else "",
        "std": f"{std:.2f}" if entry.results else "",
        "seeds": len(entry.results),
        "diverged": entry.diverged,
        "missed": len(_missed(entry)),
        "paper": "" if entry.paper is None else entry.paper,
    }
    for name, mean in _mean_paths(entry).items():
        line[name] = f"{mean:.2f}" if entry.results else ""
    return line


def _mean_paths(entry: Entry) -> dict[str, float]:
    every = [paths_of(result) for result in entry.results]
    return {
        name: mean_and_std([float(getattr(paths, name)) for paths in every])[0]
        for name in Paths._fields
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
        "from it, where it has one. Magnitude and budget-aware train the weights; ASLP "
        "and signed choose among weights that stay as they were drawn.",
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
        lines += ["", "### What the last cut changes", ""]
        lines += [
            "Test accuracy in % before -> after what is not kept is cut off, and the "
            "norm of the change of the outputs relative to their norm.",
            "",
            *_table([entry for entry in own if _relaxed(entry)], _cut_text),
        ]
        lines += ["", "### Paths", ""]
        lines += [
            "Units that no input reaches or that reach no class, and kept weights on "
            "no path from input to class; then empty layers and classes out of reach, "
            "where there are any. Means over seeds.",
            "",
            *_table(own, _paths_text),
        ]
    lines += ["", "## The paper's claims", ""]
    lines += ["| claim | evidence | verdict |", "|---|---|---|"]
    lines += [f"| {' | '.join(line)} |" for line in claims(records)]
    return "\n".join([*lines, ""])


def _relaxed(entry: Entry) -> bool:
    # Those that draw masks have no network before the cut.
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
    if missed := _missed(entry):
        text += (
            f", budget missed by {max(missed):.2g} % of the weights in {len(missed)} "
            f"of {len(entry.results)}"
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
    return f"{before:.1f} -> {after:.1f}, {change:.3g} %"


def _paths_text(entry: Entry) -> str:
    if not entry.results:
        return ""
    found = _mean_paths(entry)
    text = f"{found['cut_off']:.1f} of {found['units']:.0f}, {found['astray']:.2g} %"
    if found["empty"]:
        text += f", {found['empty']:.1f} layers empty"
    if found["lost"]:
        text += f", {found['lost']:.1f} classes lost"
    return text


def claims(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Returns claims of the paper with our evidence and a verdict.

    Runs are paired with those of the same network, budget and seed; see
    `seed_statistics.verdict`.

    Args:
      records: the finished runs.
    """
    runs = {
        (record.cell, record.seed): record.result
        for record in records
        if "diverged" not in record.result
    }

    def against(
        other: str, value: Callable[[Mapping[str, Any]], float]
    ) -> Iterable[float]:
        for (cell, seed), result in runs.items():
            partner = (dataclasses.replace(cell, method=other), seed)
            if cell.method == "budget" and partner in runs:
                yield value(result) - value(runs[partner])

    return [
        (
            "budget-aware is above magnitude pruning without fine-tuning",
            *verdict(list(against("magnitude", _accuracy))),
        ),
        (
            "budget-aware prevents disconnections: fewer units cut off than magnitude",
            *verdict(
                list(against("magnitude", lambda each: -paths_of(each).cut_off)),
                unit="units",
            ),
        ),
        (
            "the last cut changes no accuracy (budget-aware)",
            *verdict(
                [
                    _accuracy(result) - _before(result)
                    for (cell, _), result in runs.items()
                    if cell.method == "budget"
                ],
                at_least=True,
            ),
        ),
    ]
