"""Three methods and dense training side by side, each at its best learning rate.

    python -m benchmarks.comparisons --dataset fashion_mnist --manual-dir FOLDER \
      --epochs 10 --out runs/comparison

Each method is trained by the preset `fast` in batches of 64, with signed constants, its
own rescale and no augmentation, ASLP with larger logits and the temperature that goes
with them. Dense training has Kaiming normal weights and no mask.
First a search: each of four learning rates for a few epochs with seed 0. The rate with
the best validation accuracy is then trained for `--epochs` with every seed, and these
runs are compared on the test images. A cosine schedule ends with the last epoch of a
run. The same command goes on where an earlier one stopped, and processes with different
`--methods` may share a folder; without `--methods` it writes the tables of all.
Writes `search.csv`, `runs.csv` and `comparison.md`; `cells/` holds the runs. Exit code:
0, also if the time was up; 128 and the number of a signal that stopped it.
"""

import argparse
import math
import os
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from aslp_jax._atomic import write_text
from aslp_jax.data import datasets
from aslp_jax.sweeps.grid import Grid, Record
from aslp_jax.sweeps.measures import accuracy, other_accuracy
from aslp_jax.sweeps.report import Claim, markdown_table
from aslp_jax.sweeps.runner import train_grid
from aslp_jax.sweeps.statistics import mean_and_std, verdict
from aslp_jax.sweeps.table1 import cells
from aslp_jax.sweeps.table1.claims import claims
from aslp_jax.trainer.options import Config, flag
from aslp_jax.trainer.presets import resolve
from aslp_jax.trainer.progress import counted
from aslp_jax.trainer.signals import Interrupted
from benchmarks.search import Setting, best, lines
from benchmarks.tables import write_csv

RATES: dict[str, tuple[float, ...]] = {
    "aslp": (0.5, 1.0, 2.0, 4.0),
    "supermask": (0.2, 0.5, 1.0, 2.0),
    "edge_popup": (0.0001, 0.0003, 0.001, 0.003),
    "magnitude": (0.01, 0.02, 0.05, 0.1),
}
"""Learning rates that are searched, by method; `magnitude` prunes nothing here."""

NAMES = {
    "aslp": "ASLP (thresholding)",
    "supermask": "supermask (averaging)",
    "edge_popup": "edge-popup",
    "magnitude": "dense training",
}
"""Methods as a reader should see them."""

_CHANGES: dict[str, dict[str, Any]] = {
    # The best of the search on CIFAR-10; see results/README.md, search-cifar10-jpeg.
    "aslp": {"batch_size": 64, "logit_std": 50.0, "temperature": 50.0},
    "supermask": {"batch_size": 64, "rescale": "dynamic"},
    "edge_popup": {"batch_size": 64, "rescale": "fan"},
    "magnitude": {"batch_size": 64, "keep_fraction": 1.0},
}

_NUMBERS = (
    "thresholding",
    "averaging_mean",
    "keep_fraction",
    "best_epoch",
    "best_validation_accuracy",
    "epochs",
    "diverged",
)


def searched(arch: str, method: str, epochs: int) -> list[Setting]:
    """Returns a setting for each learning rate of a method.

    Args:
      arch: name of the network.
      method: name of the method.
      epochs: epochs of a run.
    """
    return [
        Setting(
            arch, method, (*_CHANGES[method].items(), (_rate(method), rate)), epochs
        )
        for rate in RATES[method]
    ]


def _rate(method: str) -> str:
    """Returns the name of the option that is the learning rate of a method."""
    return "weight_lr" if method == "magnitude" else "mask_lr"


def cell(config: Config) -> cells.Cell:
    """Returns the cell of table 1 that the options of a run belong to.

    Args:
      config: options of the run.
    """
    signed = config.signed_constant != "none"
    return cells.Cell(
        config.arch, config.augment, config.method, config.rescale, signed
    )


def run_line(config: Config, record: Record) -> dict[str, Any]:
    """Returns the line of a run in `runs.csv`.

    Args:
      config: options of the run.
      record: the finished run.
    """
    return {
        "arch": config.arch,
        "augment": "yes" if config.augment else "no",
        "method": config.method,
        "rescale": config.rescale,
        "signed_constant": "yes" if config.signed_constant != "none" else "no",
        "rate": getattr(config, _rate(config.method)),
        "seed": record.seed,
        **{name: record.result.get(name, "") for name in _NUMBERS},
    }


def judged(records: Sequence[Record]) -> list[Claim]:
    """Returns what the differences between the methods say, with evidence and verdict.

    Args:
      records: runs whose cells are those of table 1.
    """
    dense = {
        (record.cell.arch, record.seed): accuracy(record.result)
        for record in records
        if record.cell.method == "magnitude" and not record.diverged
    }
    gaps: dict[int, list[float]] = {}
    for record in records:
        place = (record.cell.arch, record.seed)
        if record.cell.method == "aslp" and not record.diverged and place in dense:
            gaps.setdefault(record.seed, []).append(
                dense[place] - accuracy(record.result)
            )
    found = [
        each
        for each in claims(records)
        if "rescale" not in each[0] and not each[1].startswith("no ")
    ]
    if gaps:
        found.append(("dense training is above ASLP (thresholding)", *verdict(gaps)))
    return found


def page(title: str, options: Mapping[str, str], records: Sequence[Record]) -> str:
    """Returns the comparison as a page.

    Args:
      title: heading.
      options: options of each method, as on a command line.
      records: runs whose cells are those of table 1.
    """
    rows = []
    for method, given in options.items():
        results = [
            record.result
            for record in records
            if record.cell.method == method and not record.diverged
        ]
        measure = other_accuracy if method == "supermask" else accuracy
        tested = [measure(each) for each in results]
        validated = [100 * each["best_validation_accuracy"] for each in results]
        shown = (
            "{:.2f} ± {:.2f}".format(*mean_and_std(each))
            for each in (validated, tested)
        )
        rows.append((NAMES[method], f"`{given}`", *shown, str(len(results))))
    head = ("method", "options", "validation, %", "test, %", "seeds")
    return "\n".join(
        [
            f"# {title}",
            "",
            "Means over seeds ± standard deviation. Evidence is the mean difference of",
            "runs of the same seed ± half of its 95 % interval. Only ASLP has options",
            "beside the learning rate that a search found (on CIFAR-10).",
            "",
            *markdown_table(head, rows),
            "",
            *markdown_table(("statement", "evidence", "verdict"), judged(records)),
            "",
        ]
    )


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--arch", default="conv2")
    parser.add_argument("--data-dir", type=Path, help="prepared TFDS folder")
    parser.add_argument("--manual-dir", type=Path, help="official files")
    parser.add_argument("--cache-dir", type=Path, help="folder of decoded images")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--search-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="of the runs compared")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument("--out", type=Path, required=True)
    return parser


def main(arguments: Sequence[str]) -> int:
    options = parser().parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    images = {
        name: os.fspath(value)
        for name in ("data_dir", "manual_dir", "cache_dir")
        if (value := getattr(options, name)) is not None
    }
    data = datasets.load(options.dataset, **images)

    def configure(setting: Any, seed: int) -> Config:
        shared = {"dataset": options.dataset, "augment": False}
        return resolve("fast", {**shared, **images, **setting.options(seed)})

    shared = {"dataset": options.dataset, "images_sha256": data.images_sha256()}
    grid = Grid(options.out, shared)
    tried: list[tuple[Setting, int]] = []
    compared: list[Setting] = []

    def train(chosen: Sequence[Setting], seeds: Sequence[int]) -> None:
        tried.extend((setting, seed) for seed in seeds for setting in chosen)
        train_grid(
            grid, chosen, seeds, configure, data, deadline=deadline, report=False
        )

    stopped = None
    try:
        for method in options.methods:
            train(searched(options.arch, method, options.search_epochs), [0])
        for method in options.methods:
            every = searched(options.arch, method, options.search_epochs)
            winner = best(grid, every, 1)[0]
            place = every.index(winner)
            compared.append(searched(options.arch, method, options.epochs)[place])
        for seed in range(options.seeds):
            train(compared, [seed])
    except Interrupted as stop:
        stopped = stop

    search = list(lines(grid, list(dict.fromkeys(tried)), configure))
    if search:
        write_csv(options.out / "search.csv", search)
    found = [(configure(each.cell, each.seed), each) for each in grid.records(compared)]
    if found:
        write_csv(options.out / "runs.csv", [run_line(*each) for each in found])
        records = [record._replace(cell=cell(config)) for config, record in found]
        title = f"{options.arch.capitalize()} on {options.dataset}"
        given = {
            each.method: " ".join(
                f"{flag(name)} {value}" for name, value in each.changes
            )
            for each in compared
        }
        text = page(f"{title}, {counted(options.epochs, 'epoch')}", given, records)
        write_text(options.out / "comparison.md", text)
    print(f"{len(search)} runs, {len(found)} of them compared, in {options.out}")
    return 128 + stopped.number if stopped is not None and stopped.number else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
