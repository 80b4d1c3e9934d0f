"""Size of each export of a network, and time for one image.

    python -m benchmarks.exports runs/NAME/network.aslp --out results/exports/NAME.csv
    python -m benchmarks.exports --archs conv2 conv4 --shape 32x32x3 --keep 0.5 0.02

Each network, from a file or with random masks, is written in every format and storage.
The export is run over images, compared with the network, and timed: one image at a
time, on one core, alternately with the dense network (without dropped weights) in the
same format. Sizes of C are those of the object file. Exit code: 0; 1 if an export and
the network differ in a prediction, or if Conv2 on digits, from its seed or its signs,
needs more than 256 kB of flash.
"""

import argparse
import csv
import math
import os
import platform
import shlex
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from aslp_jax import artefact, export
from aslp_jax.artefact import Subnetwork
from aslp_jax.artefact.encoding import encode
from aslp_jax.artefact.packing import mask_entropy
from aslp_jax.export import Written
from aslp_jax.export.cost import cost
from aslp_jax.export.network import graph_of
from benchmarks.export_networks import (
    add_networks,
    images_like,
    networks_of,
    without_masks,
)
from benchmarks.export_runs import Run, object_size, run_c, run_onnx, run_stablehlo

FLASH = 256_000
"""Bytes of a small microcontroller's flash, the bound for Conv2 on digits."""

LONGEST_SOURCE = 5_000_000
"""Largest number of floats in a C source; for more a compiler needs gigabytes."""

ROUNDS = 5
"""Rounds of timing, of which the shortest counts."""

EXPORTS = {
    "npz": ("dense", "sparse"),
    "stablehlo": ("",),
    "onnx": ("float", "int8"),
    "c": ("dense", "sparse", "signs", "seed"),
}


class Row(NamedTuple):
    """Line of the table; None where a column does not apply."""

    network: str
    weights: int
    kept: float
    entropy_bytes: int
    export: str
    storage: str
    file_bytes: int
    dense_multiply_adds: int
    operations: int | None = None
    flash_bytes: int | None = None
    ram_bytes: int | None = None
    ms_per_image: float | None = None
    dense_ms_per_image: float | None = None
    speed_over_dense: float | None = None
    same_predictions: str | None = None
    largest_difference: float | None = None


def exported(
    subnetwork: Subnetwork, kind: str, storage: str, folder: Path, **options: Any
) -> tuple[Written, Run | None]:
    """Writes one export; returns it with its runner, None for npz.

    Raises:
      ValueError: the storage cannot hold the network.
    """
    if storage:
        options["storage"] = storage
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / ("net.c" if kind == "c" else f"net.{kind}")
    written = export.write(subnetwork, kind, path, **options)
    match kind:
        case "c":
            return written, run_c(folder)
        case "onnx":
            return written, run_onnx(path.read_bytes())
        case "stablehlo":
            return written, run_stablehlo(path.read_bytes())
        case _:
            return written, None


def rows_of(
    label: str,
    subnetwork: Subnetwork,
    images: np.ndarray,
    compiler: Sequence[str],
    folder: Path,
) -> Iterator[Row]:
    """Yields a row for every export of a network.

    Args:
      label: name of the network in the table.
      subnetwork: the network.
      images: uint8 images to compare predictions on.
      compiler: command that compiles C to tell its size.
      folder: empty folder for the exports.
    """
    shape = subnetwork.description.image_shape
    graph = graph_of(subnetwork.net, subnetwork.variables, shape)
    masks = [
        each.ternary_mask
        for each in subnetwork.layers.values()
        if each.ternary_mask is not None
    ]
    weights = sum(each.size for each in masks)
    kept = sum(int(np.count_nonzero(each)) for each in masks)
    first = Row(
        network=label,
        weights=weights,
        kept=round(kept / weights, 4),
        entropy_bytes=math.ceil(sum(map(mask_entropy, masks)) / 8),
        export="aslp",
        storage="seed",
        file_bytes=len(encode(subnetwork)),
        dense_multiply_adds=cost(graph).multiply_adds,
    )
    yield first
    embedded = len(encode(artefact.embed(subnetwork)))
    yield first._replace(storage="embedded", file_bytes=embedded)

    dense = without_masks(subnetwork)
    parts = [images[begin : begin + 250] for begin in range(0, len(images), 250)]
    expected = np.concatenate([np.asarray(subnetwork(part)) for part in parts])
    for kind, storages in EXPORTS.items():
        reference: Run | None = None
        if kind != "npz" and (kind != "c" or weights <= LONGEST_SOURCE):
            target = folder / f"{kind}-reference"
            _, reference = exported(dense, kind, storages[0], target, compact=False)
        for storage in storages:
            if kind == "c" and _floats(storage, weights, kept) > LONGEST_SOURCE:
                print(f"{label}: no C with {storage} weights, too many to compile")
                continue
            target = folder / f"{kind}-{storage}"
            try:
                written, run = exported(subnetwork, kind, storage, target)
            except ValueError as error:
                print(f"{label}: {kind} {storage}: {error}")
                continue
            size = sum(each.stat().st_size for each in written.files)
            row = first._replace(export=kind, storage=storage, file_bytes=size)
            if kind == "c":
                flash, ram = object_size(target, compiler)
                row = row._replace(flash_bytes=flash, ram_bytes=ram)
            if run is not None:
                row = row._replace(operations=written.result.operations)
                row = timed(row, run, reference, images)
                found = np.concatenate([run(part, 0)[0] for part in parts])
                same = found.argmax(1) == expected.argmax(1)
                row = row._replace(
                    same_predictions=f"{same.sum()} of {same.size}",
                    largest_difference=float(np.abs(found - expected).max()),
                )
            yield row


def timed(row: Row, run: Run, reference: Run | None, images: np.ndarray) -> Row:
    """Times an export and then the dense network, so that a slow phase affects both."""
    _, seconds = run(images[:1], ROUNDS)
    row = row._replace(ms_per_image=round(1e3 * seconds, 4))
    if reference is None:
        return row
    _, longer = reference(images[:1], ROUNDS)
    return row._replace(
        dense_ms_per_image=round(1e3 * longer, 4),
        speed_over_dense=round(longer / seconds, 3),
    )


def _floats(storage: str, weights: int, kept: int) -> int:
    """Returns the number of floats in a C source."""
    return {"dense": weights, "sparse": kept}.get(storage, 0)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_networks(parser)
    parser.add_argument("--out", type=Path, help="CSV file to write")
    parser.add_argument(
        "--size-with",
        default="gcc -Os -fno-pie -fno-asynchronous-unwind-tables",
        help="compiler that tells the size of C, such as one for a Cortex-M",
    )
    options = parser.parse_args(arguments)
    print(
        f"one core of {platform.processor() or platform.machine()}, "
        f"Python {platform.python_version()}, jax {jax.__version__}; C timed at -O3"
    )
    print(f"sizes of C: {options.size_with}")
    rows: list[Row] = []
    for label, subnetwork in networks_of(options):
        with tempfile.TemporaryDirectory() as folder:
            compiler = shlex.split(options.size_with)
            images = images_like(subnetwork, options.images, options.data_dir)
            for row in rows_of(label, subnetwork, images, compiler, Path(folder)):
                rows.append(row)
                print(line(row), flush=True)
    if options.out is not None:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        with options.out.open("w", newline="") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(Row._fields)
            writer.writerows(rows)
    return judge(rows)


def line(row: Row) -> str:
    """Returns a row as text."""
    text = f"{row.network:<22} kept {row.kept:6.1%}  {row.export:<9} {row.storage:<8}"
    text += f" {row.file_bytes:>11,} bytes"
    if row.flash_bytes is not None:
        text += f"  flash {row.flash_bytes:>10,} RAM {row.ram_bytes:>9,}"
    if row.ms_per_image is not None:
        text += f"  {row.operations:>11,} operations {row.ms_per_image:9.3f} ms"
    if row.speed_over_dense is not None:
        text += f" ({row.speed_over_dense:.2f} times the speed of dense)"
    if row.same_predictions is not None:
        text += f"  same {row.same_predictions} (to {row.largest_difference:.1e})"
    return text


def judge(rows: Sequence[Row]) -> int:
    """Prints where sparsity saves time and returns the exit code."""
    for kind in ("onnx", "stablehlo", "c"):
        for storage in EXPORTS[kind]:
            ratios = [
                row.speed_over_dense
                for row in rows
                if (row.export, row.storage) == (kind, storage)
                and row.speed_over_dense is not None
            ]
            if ratios:
                print(
                    f"{kind} {storage}: {min(ratios):.2f} to {max(ratios):.2f} times "
                    "the speed of the dense network"
                )
    print(
        "ONNX and StableHLO multiply zeros too, so only compaction saves time; C skips "
        "dropped weights, and seed "
        "computes its weights again"
    )
    flash = [
        row.flash_bytes
        for row in rows
        if row.flash_bytes is not None
        and row.weights == 367_680
        and row.storage in ("signs", "seed")
    ]
    if flash:
        print(f"Conv2 on 8x8 images: {max(flash):,} bytes of flash, {FLASH:,} allowed")
    other = [
        row
        for row in rows
        if row.same_predictions is not None
        and len(set(row.same_predictions.split(" of "))) > 1
    ]
    for row in other:
        print(f"predictions differ from the network's: {row}")
    return int(bool(other) or any(each > FLASH for each in flash))


if __name__ == "__main__":
    if hasattr(os, "sched_setaffinity"):
        # One core for all, before XLA counts them.
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    sys.exit(main(sys.argv[1:]))
