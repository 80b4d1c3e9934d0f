"""Accuracy of integers against floats, for each rule of the ranges.

    python -m benchmarks.integers NETWORK.aslp ... --dataset cifar10 --data-dir FOLDER

Each network is converted to integers of 8 bits by each rule and to 16 bits, with ranges
of training images, and computed on test images by the library's reference, which is
what C code computes bit for bit. Exit code: 0; 1 if 8 bits lose more than half a
percentage point of accuracy, or 16 bits more than a tenth.
"""

import argparse
import csv
import functools
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from aslp_jax import artefact
from aslp_jax.data import datasets
from aslp_jax.export import operations
from aslp_jax.export.integer import build, reference
from aslp_jax.export.integer.calibration import CLIPPING, Clipping
from aslp_jax.export.integer.convert import Activations
from aslp_jax.export.network import graph_of
from benchmarks.timing import Claim

LOST = {"int8": 0.5, "int16": 0.1}
"""Percentage points of accuracy that may be lost, by size of the integers."""

BATCH = 200
"""Number of images computed at once."""

RULES: tuple[tuple[Activations, Clipping], ...] = (
    *(("int8", rule) for rule in CLIPPING),
    ("int16", "max"),
)
"""Sizes of integers, and rules of their ranges, the library's own first."""


class Row(NamedTuple):
    """Line of the table; accuracies are fractions, errors fractions of the range."""

    network: str
    images: int
    activations: str
    rule: str
    float_accuracy: float
    accuracy: float
    same_predictions: int
    mean_error: float
    largest_error: float


def measure(path: Path, data: datasets.Dataset, images: int | None) -> list[Row]:
    """Compares the integers of a network with its floats.

    Args:
      path: the network.
      data: data set of the network.
      images: number of test images; None for all.
    """
    subnetwork = artefact.load(path)
    about = subnetwork.description
    graph = graph_of(subnetwork.net, subnetwork.variables, about.image_shape)
    tests, labels = data.test_images[:images], data.test_labels[:images]
    predict = jax.jit(lambda batch: operations.run(graph, batch))
    expected = _batched(
        lambda batch: predict(build.standardise(batch, about.mean, about.std)), tests
    )
    span, found = np.ptp(expected), []
    for activations, rule in RULES:
        integers = build.integer_graph(
            graph, about, data.train_images, activations=activations, clipping=rule
        )
        results = _batched(functools.partial(reference.run, integers), tests)
        errors = np.abs(results * integers.numbers[-1].scale - expected) / span
        chosen = results.argmax(1)
        row = Row(
            path.stem,
            len(tests),
            activations,
            rule,
            float((expected.argmax(1) == labels).mean()),
            float((chosen == labels).mean()),
            int((chosen == expected.argmax(1)).sum()),
            float(errors.mean()),
            float(errors.max()),
        )
        print(*row, sep=", ", flush=True)
        found.append(row)
    return found


def _batched(
    function: Callable[[np.ndarray], object], images: np.ndarray
) -> np.ndarray:
    return np.concatenate(
        [
            np.asarray(function(images[start : start + BATCH]))
            for start in range(0, len(images), BATCH)
        ]
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares integers with floats and writes a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("networks", nargs="+", type=Path)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--images", type=int, help="test images (default: all)")
    parser.add_argument("--out", type=Path, help="CSV file, which is added to")
    options = parser.parse_args(arguments)
    data = datasets.load(options.dataset, data_dir=options.data_dir)
    rows = [
        row for path in options.networks for row in measure(path, data, options.images)
    ]
    if options.out is not None:
        new = not options.out.exists()
        with options.out.open("a", newline="") as file:
            writer = csv.writer(file)
            if new:
                writer.writerow(Row._fields)
            writer.writerows(rows)
    claims = [
        Claim(
            f"{row.network}: accuracy that {row.activations} loses",
            100 * (row.float_accuracy - row.accuracy),
            LOST[row.activations],
            unit="percentage points",
        )
        for row in rows
        if (row.activations, row.rule) in (RULES[0], RULES[-1])
    ]
    print(*claims, sep="\n")
    return int(not all(claim.met for claim in claims))


if __name__ == "__main__":
    sys.exit(main())
