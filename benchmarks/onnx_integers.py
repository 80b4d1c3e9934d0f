"""Speed of ONNX models with int8 activations beside float32, on one core.

    python -m benchmarks.onnx_integers NETWORK.aslp ... --archs conv2 --out FILE.csv

Each network, from a file or with random masks, is written with both activations and run
by onnxruntime on one thread, alternately, one image and a batch at a time. Ranges of
the integers are measured on training images; predictions are compared on test images.
Without data, both are random. Exit code: 0; 1 if int8 is slower than float32.
"""

import argparse
import csv
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aslp_jax.artefact import Subnetwork
from aslp_jax.data import datasets
from aslp_jax.export import onnx
from benchmarks.export_networks import add_networks, networks_of
from benchmarks.timing import Claim, interleave, where

NETWORKS = (
    Path("examples/embedded/digits.aslp"),
    Path("results/exports/conv4-cifar10-keep10.aslp"),
)
"""Networks that are measured by default, with `ARCHS`."""

ARCHS = ("conv2",)
"""Networks with random masks that are measured by default."""

BATCHES = (1, 32)
"""Numbers of images computed at once."""

SPEED = 1.0
"""Lower bound of the speed of int8, relative to float32."""

SECONDS = 0.02
"""Duration of a turn of each side."""

CALIBRATION = 1024
"""Number of images that ranges are measured on."""


class Row(NamedTuple):
    """Line of the table."""

    network: str
    kept: float
    batch: int
    float_bytes: int
    int8_bytes: int
    float_ms: float
    int8_ms: float
    speed: float
    same_predictions: str
    largest_difference: float


def images_of(
    subnetwork: Subnetwork, count: int, folder: Path | None
) -> tuple[np.ndarray, np.ndarray]:
    """Returns training images and test images, which are random without data.

    Args:
      subnetwork: the network.
      count: largest number of test images.
      folder: prepared TFDS folder of CIFAR; None if there is none.
    """
    about = subnetwork.description
    embedded = about.dataset == "digits"
    if embedded or (folder and about.dataset in datasets.NAMES):
        data = datasets.load(about.dataset, data_dir=None if embedded else folder)
        return data.train_images[:CALIBRATION], data.test_images[:count]
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (2 * max(BATCHES), *about.image_shape), np.uint8)
    return images, images


def session_of(content: bytes) -> Callable[[np.ndarray], np.ndarray]:
    """Returns a function from images to logits, on one thread."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(content, options)
    return lambda images: session.run(None, {"images": images})[0]


def measure(
    label: str,
    subnetwork: Subnetwork,
    images: tuple[np.ndarray, np.ndarray],
    repeats: int,
) -> list[Row]:
    """Compares both models of a network.

    Args:
      label: name of the network in the table.
      subnetwork: the network.
      images: training images and test images, uint8, channels last.
      repeats: turns of each side.
    """
    training, tests = images
    contents = {
        "float32": onnx.encode(subnetwork).content,
        "int8": onnx.encode(
            subnetwork, activations="int8", calibration=training
        ).content,
    }
    runs = {name: session_of(content) for name, content in contents.items()}
    given = np.ascontiguousarray(tests.transpose(0, 3, 1, 2))
    found = {
        name: np.concatenate(
            [run(given[i : i + 100]) for i in range(0, len(given), 100)]
        )
        for name, run in runs.items()
    }
    expected, logits = found["float32"], found["int8"]
    same = (logits.argmax(1) == expected.argmax(1)).sum()
    difference = float(np.abs(logits - expected).max() / np.ptp(expected))
    masks = [
        each.ternary_mask
        for each in subnetwork.layers.values()
        if each.ternary_mask is not None
    ]
    kept = sum(map(np.count_nonzero, masks)) / sum(each.size for each in masks)
    rows = []
    for batch in BATCHES:
        part = given[:batch]
        milliseconds = time_of(runs, part, repeats)
        row = Row(
            label,
            round(kept, 4),
            len(part),
            len(contents["float32"]),
            len(contents["int8"]),
            round(milliseconds["float32"], 4),
            round(milliseconds["int8"], 4),
            round(milliseconds["float32"] / milliseconds["int8"], 3),
            f"{same} of {len(tests)}",
            round(difference, 5),
        )
        print(*row, sep=", ", flush=True)
        rows.append(row)
    return rows


def time_of(
    runs: dict[str, Callable[[np.ndarray], np.ndarray]], images: np.ndarray, turns: int
) -> dict[str, float]:
    """Returns the milliseconds of each model for some images, the median of turns."""
    run = runs["float32"]
    run(images)
    began = time.perf_counter()
    run(images)
    calls = math.ceil(SECONDS / (time.perf_counter() - began))

    def side(run: Callable[[np.ndarray], np.ndarray]) -> Callable[[], None]:
        def turn() -> None:
            for _ in range(calls):
                run(images)

        return turn

    sides = {name: side(run) for name, run in runs.items()}
    seconds = interleave(sides, turns)
    return {name: 1e3 * each / calls for name, each in seconds.items()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares both models of each network and writes a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_networks(parser)
    parser.add_argument("--repeats", type=int, default=21, help="turns of each side")
    parser.add_argument("--out", type=Path, help="CSV file to write")
    options = parser.parse_args(arguments)
    if not options.files and not options.archs:
        options.files, options.archs = list(NETWORKS), ARCHS
    print(where())
    print(*Row._fields, sep=", ")
    rows: list[Row] = []
    for label, subnetwork in networks_of(options):
        images = images_of(subnetwork, options.images, options.data_dir)
        rows += measure(label, subnetwork, images, options.repeats)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Row._fields)
            writer.writerows(rows)
    claims = [
        Claim(
            f"{row.network}, {row.batch} at a time: speed of int8",
            row.speed,
            SPEED,
            least=True,
        )
        for row in rows
    ]
    print(*claims, sep="\n")
    return int(not all(claim.met for claim in claims))


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        # One core for all, before XLA counts them.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sys.exit(main())
