"""Search for a recipe, by successive halving on validation images alone.

    python -m benchmarks.search --data-dir FOLDER --minutes 60 --out runs/search

Conv2 on CIFAR-10 without augmentation, by the preset `fast` with some options changed.
Every setting of a method is trained for three epochs with one seed; the best third of
each method for ten, and of these the best two with two seeds more. A cosine schedule
ends with the last epoch of a run. The same command goes on where an earlier one
stopped. Writes `search.csv` into the folder, a line a run; `cells/` holds the runs.
Exit code: 0, also if the time was up; 128 and the number of a signal that stopped it.
"""

import argparse
import dataclasses
import math
import os
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aslp_jax.data import datasets
from aslp_jax.sweeps.grid import Grid
from aslp_jax.sweeps.runner import train_grid
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.presets import resolve
from aslp_jax.trainer.signals import Interrupted
from benchmarks.tables import write_csv

_SPREAD_OUT = [
    {"batch_size": size, "mask_lr": rate}
    for size, rates in {32: (0.1, 0.2, 0.3, 0.5), 64: (0.1, 0.2, 0.5, 1.0)}.items()
    for rate in rates
]
_BASE: dict[str, Any] = {"batch_size": 64, "mask_lr": 0.2}
_QUIET = [
    {"batch_size": 64, "mask_lr": 0.02 * size, "logit_std": size, "temperature": size}
    for size in (10.0, 20.0, 50.0, 100.0)
]
"""Larger logits and the temperature that goes with them: fewer weights are random."""

_SGD: dict[str, Any] = {"batch_size": 64, "optimiser": "sgd", "momentum": 0.9}

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "aslp": [
        *_SPREAD_OUT,
        *_QUIET,
        {"batch_size": 128, "mask_lr": 0.5},
        {"batch_size": 256, "mask_lr": 1.0},
        *({**_BASE, "logit_std": std} for std in (1.0, 3.0, 5.0, 20.0)),
        {"batch_size": 64, "mask_lr": 0.03, "logit_std": 0.0},
        {"batch_size": 64, "mask_lr": 0.1, "logit_std": 3.0},
        *({**_BASE, "momentum": beta} for beta in (0.0, 0.8, 0.9)),
        *({**_BASE, "scale_init": scale} for scale in (1.0, 1.4)),
        *({**_BASE, "scale_lr": rate} for rate in (0.0001, 0.01)),
        *({**_BASE, "temperature": value} for value in (0.5, 2.0)),
        *({**_BASE, "temperature_end": value} for value in (0.25, 4.0)),
        {**_BASE, "warmup_epochs": 1},
        {**_BASE, "label_smoothing": 0.1},
        *({**_BASE, "ema_decay": decay} for decay in (0.99, 0.998)),
        {**_BASE, "schedule": "constant"},
        {**_BASE, "schedule": "constant", "ema_decay": 0.998},
        *({**_SGD, "logit_std": 0.0, "mask_lr": rate} for rate in (1000.0, 5000.0)),
        {**_SGD, "logit_std": 2.0, "mask_lr": 1000.0},
    ],
    "supermask": [
        {"batch_size": 64, "rescale": rescale, "mask_lr": rate}
        for rescale in ("dynamic", "smart")
        for rate in (0.2, 0.5, 1.0, 2.0)
    ],
    "edge_popup": [
        {"batch_size": size, "rescale": "fan", "mask_lr": rate}
        for size in (64, 32)
        for rate in (0.0001, 0.0003, 0.001, 0.003)
    ],
}
"""Options that are changed, by method."""

COLUMNS = (
    "arch",
    "method",
    "rescale",
    "optimiser",
    "mask_lr",
    "weight_lr",
    "scale_lr",
    "scale_init",
    "logit_std",
    "batch_size",
    "schedule",
    "warmup_epochs",
    "momentum",
    "temperature",
    "temperature_end",
    "label_smoothing",
    "ema_decay",
    "augment",
    "epochs",
)
"""Options of a run in `search.csv`."""


@dataclasses.dataclass(frozen=True)
class Setting:
    """Setting of a method, for a number of epochs.

    Attributes:
      arch: name of the network.
      method: name of the method.
      changes: options that are changed, with their values.
      epochs: epochs of a run.
    """

    arch: str
    method: str
    changes: tuple[tuple[str, Any], ...]
    epochs: int

    @property
    def name(self) -> str:
        """Name that no other setting has, fit for a folder."""
        words = [f"{name}_{value}" for name, value in self.changes]
        return "-".join((self.arch, self.method, *words, f"{self.epochs}_epochs"))

    def options(self, seed: int) -> dict[str, Any]:
        """Returns the options by which a run of this setting differs from others.

        Args:
          seed: seed of the run.
        """
        return {
            "arch": self.arch,
            "method": self.method,
            **dict(self.changes),
            "epochs": self.epochs,
            "seed": seed,
        }


def settings(
    arch: str, epochs: int, changes: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Setting]:
    """Returns settings, those of the methods in turn.

    A setting is left out if no epoch comes after its warm-up.

    Args:
      arch: name of the network.
      epochs: epochs of a run.
      changes: options that are changed, by method.
    """
    found = [
        (place, Setting(arch, method, tuple(change.items()), epochs))
        for method, all_changes in changes.items()
        for place, change in enumerate(all_changes)
        if change.get("warmup_epochs", 0) < epochs
    ]
    return [setting for _, setting in sorted(found, key=lambda each: each[0])]


def best(grid: Grid, tried: Sequence[Setting], share: float) -> list[Setting]:
    """Returns the best settings of each method, by validation accuracy.

    Args:
      grid: folder of the runs.
      tried: settings whose runs with seed 0 are finished.
      share: fraction of the settings of a method to return, at least one; a number
        from 1 on is their count.
    """
    found = []
    for method in dict.fromkeys(setting.method for setting in tried):
        own = [setting for setting in tried if setting.method == method]
        own.sort(key=lambda setting: -_validation(grid, setting))
        count = math.ceil(share * len(own)) if share < 1 else int(share)
        found += own[:count]
    return found


def _validation(grid: Grid, setting: Setting) -> float:
    record = grid.record(setting, 0)
    if record is None or record.diverged:
        return -math.inf
    return float(record.result["best_validation_accuracy"])


def lines(grid: Grid, tried: Sequence[tuple[Setting, int]], base: Any) -> Iterator[Any]:
    """Yields the lines of `search.csv`, one a finished run.

    Args:
      grid: folder of the runs.
      tried: settings and seeds.
      base: function from setting and seed to the options of a run.
    """
    for setting, seed in tried:
        record = grid.record(setting, seed)
        if record is None:
            continue
        config = base(setting, seed)
        accuracies = [100 * each for each in record.validation_accuracies]
        yield {
            **{name: getattr(config, name) for name in COLUMNS},
            "seed": seed,
            "validation_best": f"{max(accuracies, default=math.nan):.2f}",
            "validation_last": f"{statistics.fmean(accuracies[-1:] or [math.nan]):.2f}",
            "validation": " ".join(f"{each:.2f}" for each in accuracies),
            "diverged": "yes" if record.diverged else "no",
        }


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--arch", default="conv2")
    parser.add_argument("--data-dir", type=Path, help="prepared TFDS folder")
    parser.add_argument("--cache-dir", type=Path, help="folder of decoded images")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument(
        "--epochs", type=int, nargs=2, default=(3, 10), help="of both rounds"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS)
    )
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args(arguments)
    deadline = time.monotonic() + 60 * options.minutes
    images = {
        name: os.fspath(value)
        for name in ("data_dir", "cache_dir")
        if (value := getattr(options, name)) is not None
    }
    data = datasets.load(options.dataset, **images)

    def configure(setting: Any, seed: int) -> Config:
        shared = {"dataset": options.dataset, "augment": False, "eval_samples": 1}
        return resolve("fast", {**shared, **setting.options(seed)})

    shared = {"dataset": options.dataset, "images_sha256": data.images_sha256()}
    grid = Grid(options.out, shared)
    tried: list[tuple[Setting, int]] = []

    def train(chosen: Sequence[Setting], seeds: Sequence[int]) -> None:
        tried.extend((setting, seed) for seed in seeds for setting in chosen)
        train_grid(
            grid, chosen, seeds, configure, data, deadline=deadline, report=False
        )

    changes = {method: SETTINGS[method] for method in options.methods}
    first, second = options.epochs
    stopped = None
    try:
        every = settings(options.arch, first, changes)
        train(every, [0])
        longer = [
            dataclasses.replace(setting, epochs=second)
            for setting in best(grid, every, 1 / 3)
        ]
        train(longer, [0])
        train(best(grid, longer, 2), [1, 2])
    except Interrupted as stop:
        stopped = stop
    found = list(lines(grid, tried, configure))
    if found:
        write_csv(options.out / "search.csv", found)
    print(f"{len(found)} runs in {options.out / 'search.csv'}")
    return 128 + stopped.number if stopped is not None and stopped.number else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
