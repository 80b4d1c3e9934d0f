"""Recipes: settings of a method, trained in the folder of a grid and told apart there.

Searches and comparisons share what is here: they train settings by the preset `fast`,
without augmentation, and can be stopped and given again.
"""

import argparse
import dataclasses
import itertools
import math
import os
import textwrap
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aslp_jax.data import datasets
from aslp_jax.sweeps.figures import add_grid, save_figure
from aslp_jax.sweeps.grid import Grid
from aslp_jax.sweeps.runner import train_grid
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.presets import PRESET_VARIANTS, PRESETS, resolve
from aslp_jax.trainer.signals import Interrupted
from benchmarks.tables import write_csv

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


class Runs:
    """Runs by the preset `fast`, without augmentation, in the folder of a grid.

    Attributes:
      grid: folder of the runs.
      tried: settings and seeds that were asked for, in order; finished or not.
    """

    def __init__(self, options: argparse.Namespace, **shared: Any) -> None:
        """Loads the images and opens the folder.

        Args:
          options: options of `add_arguments`.
          **shared: options that all runs share besides.
        """
        images = {
            name: os.fspath(value)
            for name in ("data_dir", "manual_dir", "cache_dir")
            if (value := getattr(options, name)) is not None
        }
        self._deadline = time.monotonic() + 60 * options.minutes
        self._data = datasets.load(options.dataset, **images)
        named = {"dataset": options.dataset}
        self._shared = {**named, "augment": False, **images, **shared}
        settings = {
            **named,
            "images_sha256": self._data.images_sha256(),
            # A setting says only what it changes in them.
            "preset": PRESETS["fast"],
            "variants": PRESET_VARIANTS["fast"],
        }
        self.grid = Grid(options.out, settings)
        self.tried: dict[tuple[Setting, int], None] = {}

    def configure(self, setting: Any, seed: int) -> Config:
        """Returns the options of a run.

        Args:
          setting: its setting.
          seed: its seed.
        """
        return resolve("fast", {**self._shared, **setting.options(seed)})

    def train(self, chosen: Sequence[Setting], seeds: Sequence[int]) -> None:
        """Trains what is not finished yet.

        Args:
          chosen: settings, in this order.
          seeds: seeds of each.

        Raises:
          Interrupted: a signal came, or the time is up; all is saved.
        """
        self.tried |= dict.fromkeys(itertools.product(chosen, seeds))
        train_grid(
            self.grid,
            chosen,
            seeds,
            self.configure,
            self._data,
            deadline=self._deadline,
            report=False,
        )

    def run(self, plan: Callable[[], None]) -> int:
        """Follows a plan until it ends or is stopped.

        Writes `search.csv` and `search.png`.

        Args:
          plan: function that calls `train`.

        Returns:
          The exit code.
        """
        code = 0
        try:
            plan()
        except Interrupted as stop:
            code = 128 + stop.number if stop.number else 0
        found = list(self.lines())
        if found:
            write_csv(self.grid.path / "search.csv", found)
            plot_search(found, self.grid.path / "search.png")
        print(f"{len(found)} runs in {self.grid.path / 'search.csv'}")
        return code

    def lines(self) -> Iterator[dict[str, Any]]:
        """Yields the lines of `search.csv`, one a finished run."""
        for setting, seed in self.tried:
            record = self.grid.record(setting, seed)
            if record is None:
                continue
            config = self.configure(setting, seed)
            accuracies = [100 * each for each in record.validation_accuracies]
            last = accuracies[-1] if accuracies else math.nan
            yield {
                **{name: getattr(config, name) for name in COLUMNS},
                "seed": seed,
                "validation_best": f"{max(accuracies, default=math.nan):.2f}",
                "validation_last": f"{last:.2f}",
                "validation": " ".join(f"{each:.2f}" for each in accuracies),
                "diverged": "yes" if record.diverged else "no",
            }


def plot_search(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots the accuracies of a search, the best at the top.

    The best run of a method is named by the options that vary within the method, the
    others by those in which they differ from it. Runs without an epoch whose loss was
    finite are left out.

    Args:
      lines: lines of `search.csv`.
      path: PNG to write; its folder exists.
    """
    from matplotlib.figure import Figure

    finished = [each for each in lines if math.isfinite(float(each["validation_last"]))]
    finished.sort(key=lambda each: float(each["validation_last"]))
    leaders = {each["method"]: each for each in finished}
    figure = Figure(figsize=(10, 1.2 + 0.26 * len(finished)), dpi=100)
    figure.set_layout_engine("constrained")
    axes = figure.subplots()
    for index, method in enumerate(leaders):
        places = [
            place for place, each in enumerate(finished) if each["method"] == method
        ]
        found = [float(finished[place]["validation_last"]) for place in places]
        name = method.replace("_", "-")
        axes.plot(found, places, "o", color=f"C{index}", label=name)
        for place, accuracy in zip(places, found, strict=True):
            text = f"{accuracy:.1f}"
            axes.annotate(
                text, (accuracy, place), (6, -3), textcoords="offset points", fontsize=8
            )
    labels = [
        _differences(each, leaders[each["method"]], finished) for each in finished
    ]
    axes.set_yticks(range(len(finished)), labels, fontsize=7)
    axes.set_xlabel("validation accuracy after the last epoch (%)")
    axes.margins(x=0.1, y=0.02)
    add_grid(axes)
    figure.legend(loc="outside upper right", ncols=len(leaders), frameon=False)
    save_figure(figure, path)


def _differences(
    line: Mapping[str, Any],
    leader: Mapping[str, Any],
    lines: Sequence[Mapping[str, Any]],
) -> str:
    """Returns what tells a run from the best of its method."""

    def value(of: Mapping[str, Any], name: str) -> str:
        return "none" if of[name] in (None, "") else str(of[name])

    own = [each for each in lines if each["method"] == line["method"]]
    names = [
        name
        for name in (*COLUMNS, "seed")
        if value(line, name) != value(leader, name)
        or (line is leader and len({value(each, name) for each in own}) > 1)
    ]
    said = ", ".join(f"{name.replace('_', ' ')} {value(line, name)}" for name in names)
    return textwrap.fill(said if line is leader else f"with {said}", 64)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of `Runs`: network, images, time and folder.

    Args:
      parser: parser of a command line.
    """
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--arch", default="conv2")
    parser.add_argument("--data-dir", type=Path, help="prepared TFDS folder")
    parser.add_argument("--manual-dir", type=Path, help="folder of official files")
    parser.add_argument("--cache-dir", type=Path, help="folder of decoded images")
    parser.add_argument("--minutes", type=float, default=math.inf)
    parser.add_argument("--out", type=Path, required=True)
