"""What a grid has shown so far: tables beside the paper's numbers, pictures, claims.

`runs.csv` has a line a run, `table1.csv` a line a number of the table, `table1.md` the
table as a person reads it with a verdict on each claim of the paper, and each network
gets a picture of accuracy against epoch.
"""

import csv
import dataclasses
import functools
import io
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from folder import replace_text, writing
from grid import Cell, Grid, Record

OWN_RESCALE = {"aslp": "smart", "supermask": "dynamic", "edge_popup": "fan"}
"""What the column WR of the table is for each method of the paper, which does not say
what it is for edge-popup; here it is the fan scaling of that method's authors."""

COLUMNS = ("none", "wr", "sc", "wr_sc")
"""Of the table: weight rescale off and on, then both with signed constants."""

_DRAWN = ("averaging", "thresholding")
_MEASURES = {
    "averaging": "averaging_mean",
    "thresholding": "thresholding",
    "deterministic": "thresholding",
}
"""From an evaluation of the paper to an entry of result.json."""

_LABELS = {"aslp": "ASLP", "supermask": "Supermask", "edge_popup": "Edge-popup"}
"""Of the methods of the paper; another one goes by its name."""


class Entry(NamedTuple):
    """One number of the table.

    Attributes:
      augment: whether training images were cropped and flipped.
      arch: name of the network.
      method: how weights were selected.
      evaluation: `"averaging"`, `"thresholding"` or `"deterministic"`.
      rescale: of the method.
      column: one of `COLUMNS`.
      accuracies: test accuracies in %, one a seed.
      diverged: seeds whose loss was not finite.
      paper: the paper's number in %, None where it has none.
    """

    augment: bool
    arch: str
    method: str
    evaluation: str
    rescale: str
    column: str
    accuracies: list[float]
    diverged: int
    paper: float | None


def write(grid: Grid, dataset: str) -> None:
    """Writes all files of the report into the grid's folder.

    Args:
      grid: the folder.
      dataset: its name, to find the paper's numbers.

    Raises:
      BadInput: the folder cannot be written, or a run in it is damaged.
    """
    records = grid.records()
    entries = make_entries(records, dataset)
    with writing(grid.path):
        replace_text(grid.path / "runs.csv", csv_text(map(_run_line, records)))
        replace_text(grid.path / "table1.csv", csv_text(map(_entry_line, entries)))
        replace_text(grid.path / "table1.md", markdown(entries, records, dataset))
        for arch in dict.fromkeys(record.cell.arch for record in records):
            own = [
                record
                for record in records
                if record.cell.arch == arch and "diverged" not in record.result
            ]
            if own:
                picture(own, grid.path / f"{arch}.png", f"{arch} on {dataset}")


def make_entries(records: Sequence[Record], dataset: str) -> list[Entry]:
    """Returns the numbers of the table, from the finished runs."""
    paper = _paper(dataset)
    entries = []
    for cell, group in itertools.groupby(records, lambda record: record.cell):
        runs = list(group)
        good = [record.result for record in runs if "diverged" not in record.result]
        column = _column(cell)
        # A method that draws nothing has one network to evaluate.
        stochastic = runs[0].result["stochastic"]
        for evaluation in _DRAWN if stochastic else ("deterministic",):
            key = (cell.augment, cell.arch, cell.method, evaluation, column)
            own = cell.rescale in ("none", OWN_RESCALE.get(cell.method))
            entries.append(
                Entry(
                    *key[:4],
                    cell.rescale,
                    column,
                    [100 * result[_MEASURES[evaluation]] for result in good],
                    len(runs) - len(good),
                    paper.get(key) if own else None,
                )
            )
    return entries


def in_paper(cell: Cell) -> bool:
    """Whether the paper has a number for a cell, on CIFAR-10."""
    own = cell.rescale in ("none", OWN_RESCALE.get(cell.method))
    known = {(key[0], key[1], key[2], key[4]) for key in _paper("cifar10")}
    return own and (cell.augment, cell.arch, cell.method, _column(cell)) in known


def _column(cell: Cell) -> str:
    rescaled = cell.rescale != "none"
    names = [
        name for name, on in (("wr", rescaled), ("sc", cell.signed_constant)) if on
    ]
    return "_".join(names) or "none"


@functools.cache
def _paper(dataset: str) -> dict[tuple[Any, ...], float]:
    """From (augment, arch, method, evaluation, column) to the number of the paper."""
    found = {}
    with (Path(__file__).parent / "paper_table1.csv").open() as file:
        for line in csv.DictReader(file):
            for column in COLUMNS:
                if line["dataset"] == dataset and line[column]:
                    key = (line["augment"] == "yes", line["arch"], line["method"])
                    found[*key, line["evaluation"], column] = float(line[column])
    return found


def _run_line(record: Record) -> dict[str, Any]:
    result = record.result
    names = (
        "thresholding averaging_mean averaging_std single test_loss keep_fraction "
        "best_epoch best_validation_accuracy epochs seconds diverged"
    )
    numbers = {name: result.get(name, "") for name in names.split()}
    axes = {
        name: _yes(value) if isinstance(value, bool) else value
        for name, value in dataclasses.asdict(record.cell).items()
    }
    return {**axes, "seed": record.seed, **numbers}


def _entry_line(entry: Entry) -> dict[str, Any]:
    mean, std = mean_and_std(entry.accuracies)
    return {
        "augment": _yes(entry.augment),
        "arch": entry.arch,
        "method": entry.method,
        "evaluation": entry.evaluation,
        "rescale": entry.rescale,
        "column": entry.column,
        "mean": _number(mean),
        "std": _number(std),
        "seeds": len(entry.accuracies),
        "diverged": entry.diverged,
        "paper": "" if entry.paper is None else entry.paper,
        "difference": "" if entry.paper is None else _number(mean - entry.paper),
    }


def mean_and_std(values: Sequence[float]) -> tuple[float, float]:
    """Returns mean and standard deviation (n - 1), 0 for one value, NaN for none."""
    if not values:
        return math.nan, math.nan
    return statistics.fmean(values), statistics.stdev(values) if values[1:] else 0.0


def _number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.2f}"


def csv_text(lines: Iterable[Mapping[str, Any]]) -> str:
    """Returns lines of the same names as CSV with a header; nothing for no lines."""
    text = io.StringIO()
    rows = list(lines)
    if rows:
        writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return text.getvalue()


def markdown(entries: Sequence[Entry], records: Sequence[Record], dataset: str) -> str:
    """Returns the table as Markdown, with the verdict on each claim below.

    Args:
      entries: the numbers.
      records: the finished runs.
      dataset: its name.
    """
    lines = [
        f"# Table 1 on {dataset}",
        "",
        "Test accuracy in %, mean ± standard deviation over seeds; in brackets the "
        "paper's number and the difference from it, where it has one. WR is smart "
        "rescale for ASLP, dynamic weight rescale for supermasks, fan scaling for "
        "edge-popup; another rescale has a line of its own.",
    ]
    if not entries:
        return "\n".join([*lines, "", "No run is finished yet.", ""])
    most = max(len(entry.accuracies) + entry.diverged for entry in entries)
    for (augment, arch), group in itertools.groupby(
        sorted(entries, key=lambda entry: (entry.arch, entry.augment)),
        lambda entry: (entry.augment, entry.arch),
    ):
        images = "with" if augment else "without"
        lines += ["", f"## {arch.capitalize()}, {images} augmentation", ""]
        lines += ["| method | none | WR | SC | WR + SC |", "|---|---|---|---|---|"]
        rows: dict[str, dict[str, str]] = {}
        for entry in group:
            row = rows.setdefault(_row_name(entry), {})
            row[entry.column] = _cell_text(entry, most)
        for name in sorted(rows):
            cells = [rows[name].get(column, "") for column in COLUMNS]
            lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "## Epochs to the best validation accuracy, ASLP", ""]
    lines += _epochs_table(records)
    lines += ["", "## The paper's claims", ""]
    lines += ["| claim | evidence | verdict |", "|---|---|---|"]
    lines += [f"| {' | '.join(line)} |" for line in claims(records)]
    return "\n".join([*lines, ""])


def _epochs_table(records: Sequence[Record]) -> list[str]:
    """Best epochs with and without smart rescale, where both were run."""
    best: dict[tuple[Any, ...], dict[str, list[float]]] = {}
    for record in records:
        cell = record.cell
        if cell.method == "aslp" and "diverged" not in record.result:
            kinds = best.setdefault((cell.arch, cell.augment, cell.signed_constant), {})
            kinds.setdefault(cell.rescale, []).append(record.result["best_epoch"])
    lines = [
        "| network | augmentation | SC | no rescale | smart rescale | saved |",
        "|---|---|---|---|---|---|",
    ]
    for (arch, augment, constant), kinds in sorted(best.items()):
        if "none" in kinds and "smart" in kinds:
            none, smart = (mean_and_std(kinds[kind]) for kind in ("none", "smart"))
            lines.append(
                f"| {arch.capitalize()} | {_yes(augment)} | {_yes(constant)} "
                f"| {none[0]:.1f} ± {none[1]:.1f} | {smart[0]:.1f} ± {smart[1]:.1f} "
                f"| {100 * (1 - smart[0] / none[0]):.1f} % |"
            )
    return lines


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _row_name(entry: Entry) -> str:
    name = _LABELS.get(entry.method, entry.method)
    if entry.rescale not in ("none", OWN_RESCALE.get(entry.method)):
        name += f", {entry.rescale}"
    if entry.evaluation != "deterministic":
        name += f", {entry.evaluation}"
    return name


def _cell_text(entry: Entry, most: int) -> str:
    # `most` is the number of seeds of the fullest cell.
    if not entry.accuracies:
        return f"diverged ({entry.diverged})"
    mean, std = mean_and_std(entry.accuracies)
    text = f"{mean:.1f} ± {std:.1f}" if entry.accuracies[1:] else f"{mean:.1f}"
    if entry.paper is not None:
        text += f" ({entry.paper:.1f}, {mean - entry.paper:+.1f})"
    if len(entry.accuracies) + entry.diverged < most:
        text += f", n={len(entry.accuracies)}"
    if entry.diverged:
        text += f", {entry.diverged} diverged"
    return text


def claims(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Returns each claim of the paper with our evidence and a verdict.

    Runs are paired with those of the same network, images, kind of weights and seed. A
    claim of more holds if the mean difference of the pairs is above two of its standard
    errors, one of "at least as good" if it is not below minus two.

    Args:
      records: the finished runs.
    """
    runs = {
        (record.cell, record.seed): record.result
        for record in records
        if "diverged" not in record.result
    }

    def pairs(
        change: Callable[[Cell], Cell | None],
        value: Callable[[Mapping[str, Any]], float],
        other: Callable[[Mapping[str, Any]], float],
    ) -> list[float]:
        """Differences of ASLP's runs from those of the cells they change to."""
        found = []
        for (cell, seed), result in runs.items():
            partner = change(cell) if cell.method == "aslp" else None
            if partner is not None and (partner, seed) in runs:
                found.append(value(result) - other(runs[partner, seed]))
        return found

    def to(method: str) -> Callable[[Cell], Cell | None]:
        rescales = {"none": "none", "smart": OWN_RESCALE[method]}

        def change(cell: Cell) -> Cell | None:
            if cell.rescale not in rescales:
                return None
            rescale = rescales[cell.rescale]
            return dataclasses.replace(cell, method=method, rescale=rescale)

        return change

    def unscaled(*archs: str) -> Callable[[Cell], Cell | None]:
        def change(cell: Cell) -> Cell | None:
            if cell.rescale != "smart" or cell.arch not in archs:
                return None
            return dataclasses.replace(cell, rescale="none")

        return change

    def same(cell: Cell) -> Cell:
        return cell

    return [
        (
            "ASLP (thresholding) is above supermask (averaging)",
            *_verdict(pairs(to("supermask"), _thresholding, _averaging)),
        ),
        (
            "ASLP (thresholding) is above edge-popup",
            *_verdict(pairs(to("edge_popup"), _thresholding, _thresholding)),
        ),
        (
            "smart rescale helps the deeper networks (Conv4, Conv6)",
            *_verdict(pairs(unscaled("conv4", "conv6"), _thresholding, _thresholding)),
        ),
        (
            "thresholding is at least as good as averaging (ASLP)",
            *_verdict(pairs(same, _thresholding, _averaging), at_least=True),
        ),
        (
            "the kept fraction stays near 50 % (ASLP, mean within 49 to 51 %)",
            *_kept(
                [result for (cell, _), result in runs.items() if cell.method == "aslp"]
            ),
        ),
        (
            "smart rescale saves epochs to the best accuracy",
            *_verdict(
                pairs(unscaled("conv2", "conv4", "conv6"), _saved, _saved),
                unit="epochs",
            ),
        ),
        (
            "smart rescale costs less than dynamic",
            "`benchmarks/rescale.py`",
            "not measured by accuracies",
        ),
    ]


def _thresholding(result: Mapping[str, Any]) -> float:
    return 100 * result["thresholding"]


def _averaging(result: Mapping[str, Any]) -> float:
    return 100 * result["averaging_mean"]


def _saved(result: Mapping[str, Any]) -> float:
    return -result["best_epoch"]


def _verdict(
    differences: Sequence[float], *, at_least: bool = False, unit: str = "points"
) -> tuple[str, str]:
    """Returns the evidence and the verdict on differences that should be positive."""
    if len(differences) < 2:
        return ("one pair" if differences else "no pairs") + " of runs", "not measured"
    mean, std = mean_and_std(differences)
    error = std / math.sqrt(len(differences))
    higher = sum(difference > 0 for difference in differences)
    evidence = (
        f"{mean:+.2f} ± {error:.2f} {unit} (standard error), higher in {higher} of "
        f"{len(differences)} pairs"
    )
    holds = mean > -2 * error if at_least else mean > 2 * error
    if holds:
        return evidence, "holds"
    undecided = mean >= -2 * error
    return evidence, "does not hold" + (" (no difference)" if undecided else "")


def _kept(results: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    if not results:
        return "no runs", "not measured"
    kept = [100 * result["keep_fraction"] for result in results]
    mean, std = mean_and_std(kept)
    inside = sum(49 <= value <= 51 for value in kept)
    evidence = (
        f"{mean:.1f} ± {std:.1f} %, {min(kept):.1f} to {max(kept):.1f}; {inside} of "
        f"{len(kept)} runs within"
    )
    return evidence, "holds" if 49 <= mean <= 51 else "does not hold"


def picture(records: Sequence[Record], path: Path, title: str) -> None:
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
        if any(_column(record.cell) == column for record in records)
    ]
    methods = list(dict.fromkeys(record.cell.method for record in records))
    figure = Figure(
        figsize=(1 + 3.4 * len(columns), 0.9 + 3.2 * len(rows)),
        dpi=90,
        layout="constrained",
    )
    figure.suptitle(f"{title}: validation accuracy, mean and std over seeds")
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
                    and _column(record.cell) == column
                ]
                if curves:
                    drawn[method] = draw_band(axes, curves, f"C{index}")
            axes.grid(alpha=0.25)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_xlabel("epoch")
            axes.xaxis.get_major_locator().set_params(integer=True)
        line[0].set_ylabel("validation accuracy (%)")
    labels = [_LABELS.get(method, method) for method in drawn]
    figure.legend(
        list(drawn.values()), labels, loc="outside lower center", ncols=3, frameon=False
    )
    partial = path.with_name(path.name + ".partial")
    figure.savefig(partial, format="png")
    partial.replace(path)


def draw_band(axes: Any, curves: Sequence[Sequence[float]], colour: str) -> Any:
    """Draws mean and standard deviation of curves, and returns the line.

    Args:
      axes: to draw on.
      curves: at least one; each a number an epoch.
      colour: of line and band.
    """
    # Runs that stopped early end the line where the first of them ends.
    length = min(map(len, curves))
    points = [
        mean_and_std([curve[epoch] for curve in curves]) for epoch in range(length)
    ]
    epochs = range(1, length + 1)
    means = [mean for mean, _ in points]
    style = {"marker": "o", "markersize": 3} if length <= 25 else {}
    (line,) = axes.plot(epochs, means, color=colour, **style)
    axes.fill_between(
        epochs,
        [mean - std for mean, std in points],
        [mean + std for mean, std in points],
        color=colour,
        alpha=0.2,
        linewidth=0,
    )
    return line
