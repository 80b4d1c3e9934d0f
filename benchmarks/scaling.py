"""Scaling of one run over processes: a model of a step, and what two cores can show.

    python -m benchmarks.scaling --measure --out results/scaling
    python -m benchmarks.scaling --out results/scaling

The model: a step takes `compute / N`, then an all-reduce of the gradient of the masked
weights, `2 (N - 1) / N` times its bytes over the bandwidth and `2 log2(N)` latencies.
`--measure` trains Conv2 on random images with 1, 2 and 4 processes, each bound to one
core of this machine, and times an all-reduce of as many bytes between two processes
(`measured.csv`). It needs two cores. Without it, the table of GPUs is written
(`predicted.csv`). Exit code: 0.
"""

import argparse
import dataclasses
import json
import math
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import workload
from benchmarks.tables import write_csv

GPUS = (1, 8, 64, 512)
BATCH_SIZE = 256

WEIGHTS = {"conv2": 4_300_992, "conv4": 2_425_024, "conv6": 2_261_184}
"""Masked weights by network, for images of CIFAR-10."""

MEASURED_SPEED = {"conv2": 251_837.0, "conv4": 161_642.0, "conv6": 125_534.0}
"""Images a second of one H200 in batches of 256, TF32: results/gpu-h200."""

IN_HOST, GPUS_A_HOST = (450e9, 5e-6), 8
BETWEEN_HOSTS = (50e9, 10e-6)
"""Assumed bandwidth of a GPU in bytes a second, and latency of a message in seconds:
NVLink of the fourth generation, and one port of 400 Gb/s for each GPU."""


@dataclasses.dataclass(frozen=True)
class Link:
    """Connection between devices.

    Attributes:
      bandwidth: bytes a second of each device, in each direction.
      latency: seconds of one message.
    """

    bandwidth: float
    latency: float


def all_reduce_seconds(size: float, devices: int, link: Link) -> float:
    """Returns the time of a sum over devices, by the model.

    Args:
      size: bytes to sum on each device.
      devices: number of devices.
      link: connection of the devices.
    """
    if devices == 1:
        return 0.0
    moved = 2 * (devices - 1) / devices * size
    return moved / link.bandwidth + 2 * math.log2(devices) * link.latency


def predictions() -> Iterator[dict[str, Any]]:
    """Yields a line a network, number of GPUs, and way to choose the batch."""
    for arch, speed in MEASURED_SPEED.items():
        alone = BATCH_SIZE / speed
        for devices in GPUS:
            link = Link(*(IN_HOST if devices <= GPUS_A_HOST else BETWEEN_HOSTS))
            for batch in ("256 a GPU", "256 in all"):
                total = BATCH_SIZE * (devices if batch == "256 a GPU" else 1)
                if total % devices:
                    continue
                # In proportion: too kind to small batches, which do not fill a GPU.
                share = alone * total / BATCH_SIZE / devices
                summed = all_reduce_seconds(4 * WEIGHTS[arch], devices, link)
                taken = share + summed
                images = total / taken
                yield {
                    "arch": arch,
                    "gpus": devices,
                    "batch": batch,
                    "compute_ms": round(1e3 * share, 3),
                    "all_reduce_ms": round(1e3 * summed, 3),
                    "step_ms": round(1e3 * taken, 3),
                    "images_per_second": round(images),
                    "efficiency": round(images / (devices * speed), 3),
                }


_ALL_REDUCE = """
import os, sys, time, jax, jax.numpy as jnp, numpy as np
address, count, index, size = sys.argv[1], *map(int, sys.argv[2:5])
os.sched_setaffinity(0, {index % os.cpu_count()})
jax.config.update("jax_cpu_collectives_implementation", "gloo")
jax.distributed.initialize(address, count, index)
mesh = jax.make_mesh((count,), ("all",), axis_types=(jax.sharding.AxisType.Auto,))
spec = jax.sharding.PartitionSpec
rows = jax.make_array_from_process_local_data(
    jax.sharding.NamedSharding(mesh, spec("all")), np.ones((1, size // 4), np.float32))
total = jax.jit(jax.shard_map(lambda x: jax.lax.psum(x, "all"), mesh=mesh,
                              in_specs=spec("all"), out_specs=spec()))
seconds = []
for repeat in range(22):
    began = time.perf_counter()
    total(rows).block_until_ready()
    seconds.append(time.perf_counter() - began)
if index == 0:
    print(sorted(seconds[2:])[10])
"""


def time_all_reduce(size: int, processes: int) -> float:
    """Returns the median time of an all-reduce between CPU processes, in seconds.

    Args:
      size: bytes to sum on each process.
      processes: number of processes, one to a core.
    """
    address = f"localhost:{_free_port()}"
    begun = [
        subprocess.Popen(
            [sys.executable, "-c", _ALL_REDUCE, address, *map(str, each)],
            env=_one_device(),
            stdout=subprocess.PIPE,
            text=True,
        )
        for each in ((processes, index, size) for index in range(processes))
    ]
    outputs = [process.communicate()[0] for process in begun]
    if any(process.returncode for process in begun):
        raise RuntimeError("an all-reduce failed")
    return float(outputs[0].split()[-1])


def train_speed(processes: int, images: Path, epochs: int) -> float:
    """Returns the images a second of a run over processes, one to a core in turn.

    Args:
      processes: number of processes.
      images: `.npz` file to train on.
      epochs: epochs to train; the last one counts.
    """
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        options = (
            f"--data {images} --arch conv2 --no-augment --batch-size 64 --devices "
            f"{processes} --epochs {epochs} --eval-samples 1 --out {out}"
        ).split()
        begun = []
        address = f"localhost:{_free_port()}"
        for index in range(processes):
            join = (
                f"--distributed --coordinator {address} --processes {processes} "
                f"--process-index {index}"
            ).split()
            core = cores[index % len(cores)]
            begun.append(
                subprocess.Popen(
                    [
                        *("taskset", "--cpu-list", str(core), sys.executable),
                        *("-m", "aslp_jax", "train", *options),
                        *(join if processes > 1 else ()),
                    ],
                    env=_one_device(),
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
            )
        if any([process.wait() for process in begun]):
            raise RuntimeError(f"a run of {processes} processes failed")
        lines = (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
        return float(json.loads(lines[-1])["images_per_second"])


def measure(epochs: int, repeats: int) -> list[dict[str, Any]]:
    """Returns a line a number of processes: measured and modelled images a second."""
    size = 4 * WEIGHTS["conv2"]
    summed = {count: time_all_reduce(size, count) for count in (2, 4)}
    with tempfile.TemporaryDirectory() as folder:
        images, labels = workload.random_images(512 + 64 + 64)
        file = Path(folder) / "images.npz"
        np.savez(
            file,
            x_train=images[:576],
            y_train=labels[:576],
            x_test=images[576:],
            y_test=labels[576:],
        )
        speeds: dict[int, list[float]] = {1: [], 2: [], 4: []}
        for _ in range(repeats):
            for count, found in speeds.items():
                found.append(train_speed(count, file, epochs))
    alone = 64 / statistics.median(speeds[1])
    lines = []
    for count, found in speeds.items():
        # Two cores compute for all processes.
        modelled = alone / min(count, 2) + summed.get(count, 0.0)
        lines.append(
            {
                "processes": count,
                "images_per_second": round(statistics.median(found), 1),
                "all_reduce_ms": round(1e3 * summed.get(count, 0.0), 1),
                "modelled_images_per_second": round(64 / modelled, 1),
            }
        )
    return lines


def _one_device() -> dict[str, str]:
    return {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": "1",
        "OMP_NUM_THREADS": "1",
    }


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("localhost", 0))
        port: int = found.getsockname()[1]
        return port


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--measure", action="store_true", help="train on this machine")
    parser.add_argument("--epochs", type=int, default=3, help="of each run")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True, help="folder of CSV files")
    options = parser.parse_args(arguments)
    if options.measure:
        if len(os.sched_getaffinity(0)) != 2:
            parser.error(
                "--measure is meant for two cores; bind it to two with taskset"
            )
        name, lines = "measured.csv", measure(options.epochs, options.repeats)
    else:
        name, lines = "predicted.csv", list(predictions())
    write_csv(options.out / name, lines)
    for line in lines:
        print("  ".join(f"{key} {value}" for key, value in line.items()))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
