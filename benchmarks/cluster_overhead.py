"""Time that Ray adds to a grid of 20 short runs on one machine.

    python -m benchmarks.cluster_overhead --out results/cluster

One side trains the runs with `--cluster auto`, which starts a cluster here. The other
side is as many processes as the cluster has workers, one for each core; each trains its
share of the same runs, one after another, by the same code and with as many threads.
The sides take turns. Start and end of the cluster are measured apart, and stated:
a longer grid has them once. Starting a worker, which loads JAX, counts on both sides.
Compiled programs are cached before. No other Ray cluster may run on this machine.
Writes `overhead.json`. Exit code: 0; 1 if a bound is not met or a network differs in a
bit.
"""

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aslp_jax.artefact import NETWORK
from aslp_jax.sweeps import runner, worker
from aslp_jax.sweeps.cluster import Cluster, connected
from aslp_jax.sweeps.grid import Grid
from aslp_jax.sweeps.table1 import cells
from aslp_jax.trainer.options import Config
from benchmarks.timing import Claim, where

CELL = cells.Cell("conv2", False, "aslp", "none", True)


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    if options.share is not None:
        train_share(options.share, options.runs, options.epochs, options.into)
        return 0
    cores = len(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory(prefix="aslp-jax-overhead-") as text:
        folder = Path(text)
        os.environ["JAX_COMPILATION_CACHE_DIR"] = str(folder / "compiled")
        processes(folder / "first", 1, cores, options.epochs)
        with_ray, without, starts = [], [], []
        for repeat in range(options.repeats):
            ours, theirs = folder / f"with{repeat}", folder / f"without{repeat}"
            began = time.monotonic()
            processes(theirs, options.runs, cores, options.epochs)
            without.append(time.monotonic() - began)
            start, seconds = on_cluster(ours, options.runs, options.epochs)
            starts.append(start)
            with_ray.append(seconds)
        differing = sum(
            _network(ours, seed) != _network(theirs, seed)
            for seed in range(options.runs)
        )
    middle = {
        "with_ray": statistics.median(with_ray),
        "without": statistics.median(without),
        "start": statistics.median(starts),
    }
    claims = [
        Claim(
            "time with Ray over without", middle["with_ray"] / middle["without"], 1.1
        ),
        Claim("networks that differ", differing, 0, unit="networks"),
    ]
    print(f"{where()}: {options.runs} runs of {options.epochs} epochs, {cores} workers")
    for name, seconds in middle.items():
        print(f"{name}: {seconds:.1f} s")
    for claim in claims:
        print(claim)
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        about = {
            "device": where(),
            "runs": options.runs,
            "epochs": options.epochs,
            "workers": cores,
            "seconds_with_ray": [round(each, 2) for each in with_ray],
            "seconds_without": [round(each, 2) for each in without],
            "seconds_of_start_and_end": [round(each, 2) for each in starts],
            "ratio": round(claims[0].value, 3),
            "networks_that_differ": differing,
            "versions": worker.versions(),
        }
        written = json.dumps(about, indent=2) + "\n"
        (options.out / "overhead.json").write_text(written, encoding="utf-8")
    return 0 if all(claim.met for claim in claims) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=20, help="runs, a seed each")
    parser.add_argument("--epochs", type=int, default=6, help="epochs of a run")
    parser.add_argument("--repeats", type=int, default=3, help="times of each side")
    parser.add_argument("--out", type=Path, help="folder of the results")
    parser.add_argument("--share", help=argparse.SUPPRESS)
    parser.add_argument("--into", type=Path, help=argparse.SUPPRESS)
    return parser


def configure(epochs: int) -> runner.Configure:
    """Returns the function from cell and seed to the options of a run."""
    shared = {"dataset": "digits", "epochs": epochs}

    def options(cell: Any, seed: int) -> Config:
        return cells.configure("fast", shared, cell, seed)

    return options


def on_cluster(out: Path, runs: int, epochs: int) -> tuple[float, float]:
    """Trains the runs on a cluster that is started for them.

    Returns:
      Time to start and end the cluster, and time that the runs took, in seconds.
    """
    from aslp_jax.data import datasets

    data = datasets.load("digits")
    grid = Grid(out, {})
    began = time.monotonic()
    with connected(Cluster("auto")) as train:
        joined = time.monotonic()
        train(
            grid,
            [CELL],
            range(runs),
            configure(epochs),
            data,
            per_device=1,
            deadline=math.inf,
            report=False,
        )
        trained = time.monotonic()
    ended = time.monotonic()
    return joined - began + ended - trained, trained - joined


def processes(out: Path, runs: int, count: int, epochs: int) -> None:
    """Trains the runs by processes of which each has its share."""
    Grid(out, {})
    command = [sys.executable, "-m", "benchmarks.cluster_overhead"]
    command += ["--epochs", str(epochs), "--runs", str(runs), "--into", str(out)]
    started = [
        subprocess.Popen(
            [*command, "--share", f"{index}/{count}"],
            env={**os.environ, "NPROC": "1", "JAX_PLATFORMS": "cpu"},
            stderr=subprocess.DEVNULL,
        )
        for index in range(count)
    ]
    if any([process.wait() for process in started]):
        raise RuntimeError("a process failed; run one with --share 0/1 --into FOLDER")


def train_share(share: str, runs: int, epochs: int, out: Path) -> None:
    """Trains one process's share of the runs."""
    import jax

    from aslp_jax.data import datasets
    from aslp_jax.trainer.compilation_cache import enable_compilation_cache

    index, count = map(int, share.split("/"))
    enable_compilation_cache()
    seeds = range(index, runs, count)
    if not seeds:
        return
    runner.train_grid(
        Grid(out, {}),
        [CELL],
        seeds,
        configure(epochs),
        datasets.load("digits"),
        devices=jax.local_devices()[:1],
        report=False,
    )


def _network(folder: Path, seed: int) -> bytes:
    return (Grid(folder, {}).folder(CELL, seed) / NETWORK).read_bytes()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
