"""Three methods and dense training side by side, each at its best learning rate.

    python -m benchmarks.comparisons --dataset fashion_mnist --manual-dir FOLDER \
      --epochs 10 --out runs/comparison

Each method is trained by the preset `fast`, with signed constants, its own rescale and
no augmentation. Dense training has Kaiming normal weights and no mask.
First a search: each of four learning rates for a few epochs with seed 0. `--rates
METHOD=RATE,RATE` tries others, and one rate alone needs no search. The rate with the
best validation accuracy is then trained for `--epochs` with every seed, and these runs
are compared on the test images. A cosine schedule ends with the last epoch of a run.
The same command goes on where an earlier one stopped. Processes with different
`--methods` may share a folder: without `--methods`, and with all of their `--rates`,
the command then writes the tables of all. Writes `search.csv` and `runs.csv`,
`comparison.md`, and plots of both; `cells/` holds the runs. Exit code: 0, also if the
time was up; 2 for bad input; 128 and the number of a signal that stopped it.
"""

import argparse
import dataclasses
import math
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aslp_jax._atomic import write_text
from aslp_jax.sweeps.comparison import plot
from aslp_jax.sweeps.grid import Record
from aslp_jax.sweeps.measures import accuracy, best_validation_accuracy, other_accuracy
from aslp_jax.sweeps.report import Claim, markdown_table, run_line
from aslp_jax.sweeps.statistics import mean_and_std, verdict
from aslp_jax.sweeps.table1 import cells
from aslp_jax.sweeps.table1.claims import claims
from aslp_jax.trainer.options import Config, flag
from aslp_jax.trainer.progress import counted
from benchmarks.recipes import Runs, Setting, add_arguments, best
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
    "aslp": {},
    "supermask": {"rescale": "dynamic"},
    "edge_popup": {"rescale": "fan"},
    "magnitude": {"keep_fraction": 1.0},
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


def searched(
    arch: str, method: str, epochs: int, rates: Iterable[float]
) -> list[Setting]:
    """Returns a setting for each learning rate of a method.

    Args:
      arch: name of the network.
      method: name of the method.
      epochs: epochs of a run.
      rates: the learning rates.
    """
    return [
        Setting(
            arch, method, (*_CHANGES[method].items(), (_rate(method), rate)), epochs
        )
        for rate in rates
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


def judged(records: Sequence[Record]) -> list[Claim]:
    """Returns what the differences between the methods say, with evidence and verdict.

    Args:
      records: runs of one network, whose cells are those of table 1.
    """
    measured = {
        (record.cell.method, record.seed): accuracy(record.result)
        for record in records
        if not record.diverged
    }
    gaps = {
        seed: [measured["magnitude", seed] - ours]
        for (method, seed), ours in measured.items()
        if method == "aslp" and ("magnitude", seed) in measured
    }
    found = [
        each
        for each in claims(records)
        if "rescale" not in each[0] and not each[1].startswith("no ")
    ]
    if gaps:
        found.append(("dense training is above ASLP (thresholding)", *verdict(gaps)))
    return found


def write_tables(
    title: str, runs: Sequence[tuple[Config, Record]], folder: Path
) -> None:
    """Writes `runs.csv`, `comparison.md` and `comparison.png`.

    Args:
      title: heading of the page.
      runs: finished runs with their options, one setting of each method.
      folder: folder to write into.
    """
    records = [record._replace(cell=cell(config)) for config, record in runs]
    rates = [getattr(config, _rate(config.method)) for config, _ in runs]
    write_csv(
        folder / "runs.csv",
        [
            {**run_line(record, _NUMBERS), "rate": rate}
            for record, rate in zip(records, rates, strict=True)
        ],
    )
    finished: dict[str, list[Record]] = {}
    rows = []
    for method, setting in {config.method: config for config, _ in runs}.items():
        own = [
            record
            for record in records
            if record.cell.method == method and not record.diverged
        ]
        if own:
            finished[NAMES[method]] = own
        results = [record.result for record in own]
        measure = other_accuracy if method == "supermask" else accuracy
        shown = (
            _mean(map(best_validation_accuracy, results)),
            _mean(map(measure, results)),
        )
        names = (*_CHANGES[method], _rate(method))
        given = " ".join(f"{flag(name)} {getattr(setting, name)}" for name in names)
        rows.append((NAMES[method], f"`{given}`", *shown, str(len(results))))
    head = ("method", "options", "validation, %", "test, %", "seeds")
    page = [
        f"# {title}",
        "",
        "Means over seeds ± standard deviation. Evidence is the mean difference of",
        "runs of the same seed ± half of its 95 % interval. Each method has the preset",
        "`fast` with these options. A search found that preset for ASLP, on CIFAR-10.",
        "For the other methods nothing but a learning rate was chosen.",
        "",
        *markdown_table(head, rows),
        "",
        *markdown_table(("statement", "evidence", "verdict"), judged(records)),
        "",
    ]
    write_text(folder / "comparison.md", "\n".join(page))
    if finished:
        plot(finished, folder / "comparison.png", title)


def _mean(values: Iterable[float]) -> str:
    """Returns mean and standard deviation, the mean alone for one value."""
    found = [*values]
    mean, std = mean_and_std(found)
    return f"{mean:.2f} ± {std:.2f}" if len(found) > 1 else f"{mean:.2f}"


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument("--search-epochs", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=10, help="of the runs compared")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--methods", nargs="+", choices=RATES, default=list(RATES))
    parser.add_argument(
        "--rates",
        nargs="+",
        type=_rates,
        default=[],
        metavar="METHOD=RATE,RATE",
        help="learning rates to try in place of four; one alone needs no search",
    )
    return parser


def _rates(text: str) -> tuple[str, tuple[float, ...]]:
    method, _, rates = text.partition("=")
    try:
        found = tuple(map(float, rates.split(",")))
    except ValueError:
        found = ()
    if (
        method not in RATES
        or not found
        or not all(0 < each < math.inf for each in found)
    ):
        known = ", ".join(RATES)
        message = f"{text!r} is not METHOD=RATE,RATE with a method of {known}"
        raise argparse.ArgumentTypeError(f"{message} and rates above 0")
    return method, found


def main(arguments: Sequence[str]) -> int:
    command = parser()
    options = command.parse_args(arguments)
    given = dict(options.rates)
    if unknown := given.keys() - set(options.methods):
        command.error(f"--rates names {min(unknown)}, which --methods leaves out")
    if len(given) < len(options.rates):
        command.error("--rates names a method twice; write METHOD=RATE,RATE")
    rates = {**RATES, **given}
    runs = Runs(options)
    compared: list[Setting] = []

    def plan() -> None:
        every = [
            searched(options.arch, method, options.search_epochs, rates[method])
            for method in options.methods
        ]
        for tried in every:
            if len(tried) > 1:
                runs.train(tried, [0])
        for tried in every:
            winner = best(runs.grid, tried, 1)[0]
            compared.append(dataclasses.replace(winner, epochs=options.epochs))
        for seed in range(options.seeds):
            runs.train(compared, [seed])

    code = runs.run(plan)
    title = f"{options.arch.capitalize()} on {options.dataset}"
    title = f"{title}, {counted(options.epochs, 'epoch')}"
    found = [
        (runs.configure(record.cell, record.seed), record)
        for record in runs.grid.records(compared)
    ]
    if found:
        write_tables(title, found, options.out)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
