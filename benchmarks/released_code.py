"""Digits by the options of the paper's code, to compare with what that code reaches.

    python -m benchmarks.released_code --out results/released-code

Conv2 and Conv4, with neither rescale nor signed constants and with both, five seeds:
the preset `released_code` without augmentation, 150 epochs in batches of 64, all 1,437
training images, no validation images, the network after the last epoch, thresholded.
The authors' code reached the accuracies of `THEIRS` on the same images, division and
number of epochs (means of three seeds). Writes `runs.csv` and `differences.csv`. Runs
that `runs.csv` holds are kept, so a stopped command goes on if it is given again with
the same options. Exit code: 0; 1 if a difference is decided and larger than one point.
"""

import argparse
import math
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax import train
from aslp_jax.data import datasets
from aslp_jax.sweeps.statistics import mean_and_std, t_quantile
from aslp_jax.trainer.presets import resolve
from aslp_jax.trainer.programs import compile_programs
from aslp_jax.trainer.spec import Images, program_spec
from benchmarks.tables import read_csv, write_csv
from benchmarks.timing import where

THEIRS = {
    ("conv2", "none"): 98.8,
    ("conv2", "wr_sc"): 99.1,
    ("conv4", "none"): 98.1,
    ("conv4", "wr_sc"): 98.6,
}
"""Test accuracy in % of the authors' code, by network and column of table 1."""

COLUMNS = {
    "none": {"rescale": "none", "signed_constant": "none"},
    "wr_sc": {"rescale": "smart"},
}
"""Options of the columns; the preset says which layers have signed constants."""

LARGEST = 1.0
"""Difference in points that counts as one."""


def train_once(
    arch: str, column: Mapping[str, str], seed: int, *, epochs: int, batch_size: int
) -> dict[str, float]:
    """Trains one network on all training images and tests it after the last epoch.

    Args:
      arch: name of the network.
      column: options of the column.
      seed: seed of weights, order and masks.
      epochs: epochs to train.
      batch_size: images a step.

    Returns:
      Test accuracy of the thresholded network in %, and the fraction of weights kept.
    """
    chosen = {
        "arch": arch,
        "dataset": "digits",
        "augment": False,
        "batch_size": batch_size,
        "epochs": epochs,
        **column,
    }
    config = resolve("released_code", chosen)
    data = datasets.load("digits")
    steps = len(data.train_labels) // batch_size
    shape = data.train_images.shape[1:]
    programs = compile_programs(
        program_spec(
            config,
            Images(shape, data.classes, data.mean, data.std, data.flip),
            steps=steps,
            platform=jax.default_backend(),
            micro_batch=batch_size,
            mesh=None,
        )
    )
    root = jax.random.key(seed)
    key = train.stream(root, "train")
    state = programs.create(train.stream(root, "weights"))
    images, labels = jnp.asarray(data.train_images), jnp.asarray(data.train_labels)
    for epoch in range(epochs):
        bounds = (np.int32(number) for number in (epoch, 0, steps))
        totals = train.Totals.zeros()
        state, totals = programs.steps(state, totals, images, labels, key, *bounds)
        if not math.isfinite(float(totals.loss)):
            raise RuntimeError(f"the loss was not finite in epoch {epoch + 1}")
    accuracy, _ = programs.score(
        state.variables, jnp.asarray(data.test_images), jnp.asarray(data.test_labels)
    )
    masks = programs.masks(state.frozen, state.params)
    kept = sum(float(mask.sum()) for mask in jax.tree.leaves(masks))
    size = sum(mask.size for mask in jax.tree.leaves(masks))
    return {"thresholding": 100 * float(accuracy), "keep_fraction": kept / size}


def compare(values: Sequence[float], theirs: float) -> dict[str, Any]:
    """Returns the difference of a mean from a number, with its 95 % interval.

    Args:
      values: at least two values.
      theirs: number that they are compared with.
    """
    mean, std = mean_and_std(values)
    half = t_quantile(len(values) - 1) * std / math.sqrt(len(values))
    difference = mean - theirs
    decided = abs(difference) > half
    return {
        "mean": round(mean, 2),
        "std": round(std, 2),
        "theirs": theirs,
        "difference": round(difference, 2),
        "half_interval": round(half, 2),
        "seeds": len(values),
        "decided": "yes" if decided else "no",
    }


def finished(path: Path) -> list[dict[str, Any]]:
    """Returns the runs that an earlier command wrote.

    Args:
      path: CSV file of runs, which need not be there.
    """
    if not path.exists():
        return []
    return [
        {
            **line,
            "seed": int(line["seed"]),
            "thresholding": float(line["thresholding"]),
            "keep_fraction": float(line["keep_fraction"]),
        }
        for line in read_csv(path)
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of CSV files")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=150)
    parser.add_argument("--batch-size", type=int, default=64)
    options = parser.parse_args(arguments)
    print(f"{where()}, {options.epochs} epochs")
    options.out.mkdir(parents=True, exist_ok=True)
    runs = finished(options.out / "runs.csv")
    kept = {(run["arch"], run["column"], run["seed"]) for run in runs}
    differences: list[dict[str, Any]] = []
    for (arch, column), theirs in THEIRS.items():
        for seed in range(options.seeds):
            if (arch, column, seed) in kept:
                continue
            began = time.monotonic()
            result = train_once(
                arch,
                COLUMNS[column],
                seed,
                epochs=options.epochs,
                batch_size=options.batch_size,
            )
            runs.append({"arch": arch, "column": column, "seed": seed, **result})
            print(
                f"{arch} {column} seed {seed}: {result['thresholding']:.2f} %, "
                f"{time.monotonic() - began:.0f} s",
                flush=True,
            )
            write_csv(options.out / "runs.csv", runs)
        values = [
            run["thresholding"]
            for run in runs
            if (run["arch"], run["column"]) == (arch, column)
        ]
        if len(values) > 1:
            line = {"arch": arch, "column": column, **compare(values, theirs)}
            differences.append(line)
            write_csv(options.out / "differences.csv", differences)
            print(
                f"{arch} {column}: {line['mean']} %, theirs {theirs} %, difference "
                f"{line['difference']:+.2f} ± {line['half_interval']:.2f} points"
            )
    apart = [
        line
        for line in differences
        if line["decided"] == "yes" and abs(line["difference"]) > LARGEST
    ]
    return 1 if apart else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
