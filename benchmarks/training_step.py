"""Whole training step, in images a second, against plain PyTorch.

    python -m benchmarks.training_step --arch conv2 conv4 conv6
    python -m benchmarks.training_step --platform gpu --arch conv4 --augment \
      --dtype float32 bfloat16

Both sides train the same network on the same random images: frozen signed-constant
weights, a mask sampled for each step, one scale a layer, SGD with momentum. They run
alternately in one process, on all cores of a CPU or on one GPU. On a GPU the images are
on the device, float32 is TF32, and bfloat16 is autocast in PyTorch, which chooses its
fastest convolutions first. PyTorch's side is `pytorch.py`; `pip install torch` installs
it, and without it this library is measured alone. `--csv FILE` writes a line a network
and dtype. Exit code: 0; 1 if a bound is not met.
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import workload
from benchmarks.tables import write_csv
from benchmarks.timing import Claim, Side, interleave, where

BOUNDS = {
    "cpu": {"conv2": 1.3, "conv4": 1.0, "conv6": 1.0},
    "gpu": {"conv2": 1.0, "conv4": 1.0, "conv6": 1.0},
}
"""Smallest ratio of images a second to those of PyTorch."""

PEAKS = {"H100": (495.0, 989.0), "H200": (495.0, 989.0), "A100": (156.0, 312.0)}
"""TFLOP/s of dense TF32 and bfloat16, from the vendor's data sheets (SXM)."""

PEAK_FRACTION = 0.3
"""Smallest fraction of the device's peak in bfloat16."""


def ours(
    arch: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    steps: int,
    dtype: str = "float32",
    augment: bool = False,
) -> Side:
    """Returns a side that takes `steps` steps with this library.

    Args:
      arch: name of the network.
      images: uint8 `[count, 32, 32, 3]`.
      labels: int32 `[count]`.
      batch_size: images a step.
      steps: steps of one call.
      dtype: dtype of the computation.
      augment: True crops and flips images at random.
    """
    program, create = workload.training(
        workload.network(arch, dtype=jnp.dtype(dtype)),
        prepare=workload.augmented if augment else workload.plain,
        batch_size=batch_size,
        side=images.shape[1],
    )
    return workload.side(program, create(), images, labels, steps=steps)


def theirs(
    arch: str,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    steps: int,
    dtype: str = "float32",
    augment: bool = False,
) -> Side:
    """Returns a side that takes `steps` steps with PyTorch; arguments as in `ours`."""
    import torch

    from benchmarks import pytorch

    device = "cpu" if jax.default_backend() == "cpu" else "cuda"
    step = pytorch.Step(arch, device=device, dtype=dtype)
    every = torch.from_numpy(images).to(device)
    truth = torch.from_numpy(labels).long().to(device)

    def run() -> None:
        order = torch.randperm(len(truth), device=device)
        for index in range(steps):
            rows = order[index * batch_size : (index + 1) * batch_size]
            batch = every[rows].permute(0, 3, 1, 2).float() / 255
            step(pytorch.crop_and_flip(batch) if augment else batch, truth[rows])
        if device == "cuda":
            torch.cuda.synchronize()

    return run


def peak(dtype: str) -> float | None:
    """Returns the device's peak in FLOP/s, or None if it is unknown."""
    kind = jax.devices()[0].device_kind
    known = [tflops for name, tflops in PEAKS.items() if name in kind]
    return 1e12 * known[0][dtype == "bfloat16"] if known else None


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", choices=tuple(BOUNDS), default="cpu")
    parser.add_argument(
        "--arch", nargs="+", choices=tuple(BOUNDS["cpu"]), default=[*BOUNDS["cpu"]]
    )
    parser.add_argument(
        "--dtype", nargs="+", choices=("float32", "bfloat16"), default=["float32"]
    )
    parser.add_argument("--augment", action="store_true", help="crop and flip")
    parser.add_argument("--batch-size", type=int, default=workload.BATCH_SIZE)
    parser.add_argument("--steps", type=int, default=4, help="steps of one measurement")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--csv", type=Path, metavar="FILE")
    options = parser.parse_args(arguments)
    if options.platform == "cpu":
        jax.config.update("jax_platforms", "cpu")
    elif jax.default_backend() != "gpu":
        parser.error("--platform gpu needs a GPU that JAX can use")
    versions = where()
    beside = importlib.util.find_spec("torch") is not None
    if beside:
        import torch

        beside = options.platform == "cpu" or torch.cuda.is_available()
        torch.set_num_threads(len(os.sched_getaffinity(0)))
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = True
        versions += f", PyTorch {torch.__version__}"
    if not beside:
        versions += ", no PyTorch for this device beside it"
    print(f"{versions}, batches of {options.batch_size}")
    images, labels = workload.random_images(options.batch_size * options.steps)
    rows, met = [], True
    for arch in options.arch:
        for dtype in options.dtype:
            setting = {
                "batch_size": options.batch_size,
                "steps": options.steps,
                "dtype": dtype,
                "augment": options.augment,
            }
            sides = {"ours": ours(arch, images, labels, **setting)}
            if beside:
                sides["theirs"] = theirs(arch, images, labels, **setting)
            seconds = interleave(sides, options.repeats)
            speed = {name: len(images) / each for name, each in seconds.items()}
            row = _row(arch, dtype, speed)
            claims = _claims(row, BOUNDS[options.platform][arch])
            print(
                f"{arch}, {dtype}: {speed['ours']:,.0f} images/s, "
                f"{row['epoch_seconds']:.2f} s an epoch of {workload.EPOCH:,} images, "
                f"{row['tflops']:.3f} TFLOP/s"
            )
            for claim in claims:
                print(claim)
                met &= claim.met
            rows.append({**setting, **row, "versions": versions})
    if options.csv is not None:
        write_csv(options.csv, rows)
    return 0 if met else 1


def _row(arch: str, dtype: str, speed: dict[str, float]) -> dict[str, Any]:
    """Returns the measured numbers of a network and a dtype."""
    rate = workload.flops(workload.network(arch)) * speed["ours"]
    at_best, theirs_speed = peak(dtype), speed.get("theirs")
    return {
        "arch": arch,
        "dtype": dtype,
        "images_per_second": round(speed["ours"], 1),
        "pytorch_images_per_second": theirs_speed and round(theirs_speed, 1),
        "ratio": theirs_speed and round(speed["ours"] / theirs_speed, 3),
        "epoch_seconds": round(workload.EPOCH / speed["ours"], 3),
        "tflops": round(rate / 1e12, 3),
        "fraction_of_peak": at_best and round(rate / at_best, 4),
    }


def _claims(row: dict[str, Any], bound: float) -> list[Claim]:
    """Returns what can be claimed of a row, with the bounds."""
    name = f"{row['arch']}, {row['dtype']}"
    claims = []
    if row["ratio"] is not None:
        text = (
            f"{name}: images/s over PyTorch's {row['pytorch_images_per_second']:,.0f}"
        )
        claims.append(Claim(text, row["ratio"], bound, least=True))
    if row["fraction_of_peak"] is not None and row["dtype"] == "bfloat16":
        text = f"{name}: fraction of the chip's peak"
        claims.append(Claim(text, row["fraction_of_peak"], PEAK_FRACTION, least=True))
    return claims


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
