"""Claims of the papers, judged from all runs that are part of the repository.

    python -m benchmarks.claims --out results/claims

Reads the `runs.csv` of grids in `results`, and writes `claims.csv` and `claims.md`: a
line for each claim, data set and network, and one for all networks of a data set. Each
names the epochs, the seeds and the pairs of runs. The rule is that of the grids' own
reports: the pairs of a seed count as one, and intervals are those of Student's t over
seeds.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from aslp_jax._atomic import write_text
from aslp_jax.sweeps.budget import cells as budget_cells
from aslp_jax.sweeps.budget.claims import accuracy_claims
from aslp_jax.sweeps.grid import Record
from aslp_jax.sweeps.report import Claim, markdown_table
from aslp_jax.sweeps.table1 import cells as table1_cells
from aslp_jax.sweeps.table1.claims import claims
from benchmarks.tables import read_csv, write_csv

RESULTS = Path(__file__).parents[1] / "results"


class Source(NamedTuple):
    """Folder of runs.

    Attributes:
      name: name of the folder in `results`.
      images: data set, as a reader should see it.
      judge: function from records to claims with their evidence.
      cell: function from a line of `runs.csv` to the cell of the run.
    """

    name: str
    images: str
    judge: Callable[[Sequence[Record]], list[Claim]]
    cell: Callable[[Mapping[str, str]], Any]


def table1_cell(line: Mapping[str, str]) -> table1_cells.Cell:
    """Returns the cell of a run of table 1.

    Args:
      line: line of `runs.csv`.
    """
    return table1_cells.Cell(
        line["arch"],
        line["augment"] == "yes",
        line["method"],
        line["rescale"],
        line["signed_constant"] == "yes",
    )


def budget_cell(line: Mapping[str, str]) -> budget_cells.Cell:
    """Returns the cell of a run under a budget.

    Args:
      line: line of `runs.csv`.
    """
    return budget_cells.Cell(
        line["arch"], line["method"], float(line["keep"]), line["scope"]
    )


SOURCES = (
    Source("gpu-h200", "CIFAR-10 (JPEG)", claims, table1_cell),
    Source("comparison-cifar10-jpeg", "CIFAR-10 (JPEG)", claims, table1_cell),
    Source("table1-cifar10-jpeg-3-epochs", "CIFAR-10 (JPEG)", claims, table1_cell),
    Source("table1-cifar10-jpeg", "CIFAR-10 (JPEG)", claims, table1_cell),
    Source("comparison-fashion-mnist", "Fashion-MNIST", claims, table1_cell),
    Source("table1-digits", "digits", claims, table1_cell),
    Source("budget-cifar10-jpeg", "CIFAR-10 (JPEG)", accuracy_claims, budget_cell),
    Source("budget-digits", "digits", accuracy_claims, budget_cell),
)


def read_records(source: Source, results: Path) -> list[Record]:
    """Returns the runs of a folder whose loss stayed finite.

    Args:
      source: the folder.
      results: folder of all results.
    """
    records = []
    for line in read_csv(results / source.name / "runs.csv"):
        if line["diverged"]:
            continue
        result = {
            **{name: float(line[name]) for name in ("thresholding", "averaging_mean")},
            "keep_fraction": float(line["keep_fraction"]),
            "best_epoch": int(line["best_epoch"]),
            "epochs": int(line["epochs"]),
            "stochastic": False,
        }
        records.append(Record(source.cell(line), int(line["seed"]), result, []))
    return records


def judge(source: Source, records: Sequence[Record]) -> Iterator[dict[str, str]]:
    """Yields the lines of a folder, those of each claim side by side.

    Args:
      source: the folder.
      records: its runs.
    """
    archs = sorted({record.cell.arch for record in records})
    groups = [(arch,) for arch in archs] + [tuple(archs)] * (len(archs) > 1)
    judged = [
        (group, source.judge([each for each in records if each.cell.arch in group]))
        for group in groups
    ]
    epochs = sorted({record.result["epochs"] for record in records})
    for place in range(len(judged[0][1])):
        for group, found in judged:
            text, evidence, verdict = found[place]
            if verdict == "not measured" and evidence.startswith("no "):
                continue
            if verdict == "not measured by accuracies":
                continue
            yield {
                "claim": text,
                "images": source.images,
                "networks": ", ".join(arch.capitalize() for arch in group),
                "epochs": " or ".join(map(str, epochs)),
                "evidence": evidence,
                "verdict": verdict,
                "runs": source.name,
            }


def markdown(lines: Iterable[Mapping[str, str]]) -> str:
    """Returns the page, with a table for each claim.

    Args:
      lines: lines of all folders.
    """
    page = [
        "# Claims of the papers, by data set and network",
        "",
        "Written by `python -m benchmarks.claims --out results/claims`, from the",
        "`runs.csv` of the folders in the last column. Differences are between runs of",
        "the same network, images, weights and seed. The pairs of a seed count as one,",
        "their mean. ± is half of the 95 % interval of Student's t over seeds. A claim",
        "is *not decided* where 0 lies within the interval, or for a claim of no",
        "difference its bound.",
    ]
    ordered = sorted(lines, key=lambda line: line["claim"])
    for claim, group in itertools.groupby(ordered, lambda line: line["claim"]):
        rows = [list(line.values())[1:] for line in group]
        head = ("images", "networks", "epochs", "evidence", "verdict", "runs")
        page += [
            "",
            f"## {claim[0].upper()}{claim[1:]}",
            "",
            *markdown_table(head, rows),
        ]
    return "\n".join([*page, ""])


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    options = parser.parse_args(arguments)
    lines = [
        line
        for source in SOURCES
        for line in judge(source, read_records(source, RESULTS))
    ]
    write_csv(options.out / "claims.csv", lines)
    write_text(options.out / "claims.md", markdown(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
