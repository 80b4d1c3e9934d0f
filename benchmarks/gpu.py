"""Everything worth measuring on a GPU, within a time, in one folder.

    python -m benchmarks.gpu --minutes 25 --data-dir FOLDER --out results/gpu
    python -m benchmarks.gpu --comparisons --minutes 10 --data-dir FOLDER --out OUT
    python -m benchmarks.gpu --platform cpu --tiny --out build/gpu-rehearsal

First each measurement of speed, alone on the device. Then, until the time is up and
several processes at once, CIFAR-10: Conv4 and Conv2 by the paper's recipe to its end,
and cells of table 1 by the same recipe and `--epochs`, those that decide most first.
With `--comparisons` it trains what takes hours on a CPU and minutes on a GPU in place
of these: methods side by side for ten epochs, few weights, dense networks, and a search
for a recipe. The same command goes on where an earlier one stopped: it repeats nothing
that is finished. `OUT` holds what is worth keeping, `OUT/work` the runs themselves.
The last command rehearses all of it on a CPU, in minutes. Exit code: 0; 1 if a
measurement or a run failed, whose output is in `OUT`; 2 for bad input. The file is long
because it lists what is measured.
"""

import argparse
import dataclasses
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from aslp_jax._errors import BUDGET_MISSED, LOSS_NOT_FINITE

ROOT = Path(__file__).parent.parent

CLOSING = 50.0
"""Seconds kept for the test accuracy of runs that the time cuts, and for the table."""

CELLS = (
    "conv4-augmented-aslp-smart-sc",
    "conv4-augmented-edge_popup-none-sc",
    "conv2-augmented-aslp-smart-sc",
    "conv2-augmented-edge_popup-none-sc",
    "conv4-augmented-aslp-none-normal",
    "conv4-plain-supermask-dynamic-sc",
    "conv4-plain-aslp-smart-sc",
    "conv4-augmented-aslp-none-sc",
    "conv4-augmented-aslp-smart-normal",
    "conv6-augmented-aslp-smart-sc",
    "conv6-augmented-edge_popup-none-sc",
    "conv2-augmented-aslp-none-normal",
    "conv2-plain-supermask-dynamic-sc",
    "conv2-plain-aslp-smart-sc",
    "conv2-augmented-aslp-none-sc",
    "conv2-augmented-aslp-smart-normal",
)
"""Cells of table 1, in the order in which they are trained."""

TINY = CELLS[2:4]
"""Cells of a rehearsal."""

METHODS = ("aslp-smart-sc", "supermask-dynamic-sc", "edge_popup-fan-sc")
"""Cells of the three methods, each with its own rescale and signed constants."""

WAYS = ("aslp-none-normal", "aslp-smart-normal", "aslp-none-sc")
"""Cells of ASLP with less than both."""


@dataclasses.dataclass(frozen=True)
class Job:
    """A process to run.

    Attributes:
      name: name of its output in the folder, and of its mark when it is finished.
      command: arguments of Python.
      least: seconds that it needs; it is not begun with less time left.
    """

    name: str
    command: tuple[str, ...]
    least: float = 0.0


@dataclasses.dataclass(frozen=True)
class Plan:
    """Folder, time and kind of device of a call.

    Attributes:
      out: folder of what is worth keeping.
      deadline: end of the call, as of `time.monotonic()`, in seconds.
      platform: "gpu" or "cpu".
      tiny: True for a rehearsal.
      closing: seconds kept for the test of runs that the time cuts.
      workers: processes that train at once.
      seeds: seeds of each cell.
      epochs: epochs of a cell of table 1.
      images: options that say where the images come from.
      changes: options that a rehearsal changes in every new run.
      fashion: options that say where Fashion-MNIST comes from; empty to leave it out.
    """

    out: Path
    deadline: float
    platform: str
    tiny: bool
    closing: float
    workers: int
    seeds: int
    epochs: int
    images: tuple[str, ...]
    changes: tuple[str, ...]
    fashion: tuple[str, ...] = ()

    @property
    def work(self) -> Path:
        """Folder of the runs, with checkpoints."""
        return self.out / "work"

    @property
    def left(self) -> float:
        """Seconds until the time is up."""
        return self.deadline - time.monotonic()

    def mark(self, name: str) -> Path:
        """Returns the file that says that a job is finished."""
        return self.work / f"{name}.done"

    def is_done(self, job: Job) -> bool:
        """Returns True if a job is finished, in this call or in an earlier one."""
        return self.mark(job.name).exists()

    def begin(self, job: Job, workers: int = 1) -> subprocess.Popen[bytes]:
        """Begins a job, one of `workers` that share the device."""
        environment = dict(os.environ)
        if self.platform == "cpu":
            environment["JAX_PLATFORMS"] = "cpu"
        elif workers > 1:
            environment["XLA_PYTHON_CLIENT_MEM_FRACTION"] = f"{0.9 / workers:.3f}"
        with open(self.out / f"{job.name}.txt", "ab") as output:
            return subprocess.Popen(
                [sys.executable, *job.command],
                cwd=ROOT,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
            )


def measurements(plan: Plan) -> Iterator[Job]:
    """Yields the measurements of speed; each runs alone."""
    platform = ("--platform", plan.platform)
    draw: tuple[str, ...] = ("--calls", "100", "--repeats", "7")
    step: tuple[str, ...] = ("--steps", "100", "--repeats", "3")
    seeds: tuple[str, ...] = ("--batch-size", "256", "--steps", "100", "--repeats", "2")
    seeds, archs = (*seeds, "--runs", "5"), ["conv4", "conv2", "conv6"]
    if plan.tiny:
        draw = ("--logits", "100000", "--repeats", "2")
        step = ("--batch-size", "8", "--steps", "2", "--repeats", "1")
        seeds, archs = (*step, "--runs", "2"), ["conv2"]
    out = os.fspath(plan.out)
    gpu = plan.platform == "gpu"

    def training_step(arch: str) -> Job:
        name = f"training_step-{arch}"
        command = ("-m", "benchmarks.training_step", *platform, "--arch", arch)
        dtypes = ("--augment", "--dtype", "float32", "bfloat16")
        return Job(name, (*command, *dtypes, *step, "--csv", f"{out}/{name}.csv"), 60)

    if gpu:
        yield Job("draw", ("-m", "benchmarks.draw", *draw), 20)
    for arch in archs[:2]:
        yield training_step(arch)
    command = ("-m", "benchmarks.seeds", *platform, "--arch", archs[0])
    yield Job("seeds", (*command, *seeds), 60)
    if gpu:
        steps = ("--steps", "50", "--repeats", "5", "--out", out)
        yield Job("rescale", ("-m", "benchmarks.rescale", *steps), 40)
        for arch in archs[2:]:
            yield training_step(arch)
        yield Job("samplers", ("-m", "benchmarks.samplers", "--out", out), 60)


def cell_jobs(plan: Plan) -> Iterator[Job]:
    """Yields the cells of table 1, every seed 0 before any seed 1."""
    for seed in range(plan.seeds):
        for cell in TINY if plan.tiny else CELLS:
            command = (
                *("experiments/table1.py", "--cells", cell, "--seeds", str(seed + 1)),
                *_table_options(plan),
                *("--out", os.fspath(plan.work / "cells" / cell)),
            )
            yield Job(f"{cell}-seed{seed}", command, 30)


def _table_options(plan: Plan) -> tuple[str, ...]:
    recipe = ("--preset", "paper", "--epochs", str(plan.epochs))
    return (*recipe, *plan.images, *plan.changes)


def comparison_jobs(plan: Plan) -> Iterator[Job]:
    """Yields grids of short runs, and a search, those that decide most first."""

    def grid(name: str, program: str, epochs: int, *words: str) -> Job:
        length = 1 if plan.tiny else epochs
        recipe = ("--preset", "fast", "--epochs", str(length))
        # The cells of table 1 say themselves what is augmented.
        images = ("--no-augment",) if program == "budget" else ()
        out = ("--out", os.fspath(plan.work / name))
        options = (*words, *recipe, *images, *plan.changes, *out)
        return Job(name, (f"experiments/{program}.py", *options), 20)

    def compared(name: str, arch: str, *words: str) -> Job:
        length = ("--search-epochs", "1", "--epochs", "1") if plan.tiny else ()
        out = ("--out", os.fspath(plan.work / name))
        options = ("--arch", arch, *words, *length, *out)
        return Job(name, ("-m", "benchmarks.comparisons", *options), 20)

    def dense(name: str, arch: str, epochs: int, *words: str) -> Job:
        # Nothing is pruned: the network is trained, and that is all.
        method = ("--arch", arch, "--keep", "1", "--method", "magnitude")
        return grid(f"{name}-dense", "budget", epochs, *method, *words)

    def cells(arch: str, *of: str) -> tuple[str, ...]:
        return ("--cells", *(f"{arch}-plain-{each}" for each in of))

    def seeds(count: int) -> tuple[str, ...]:
        return ("--seeds", "1" if plan.tiny else str(count))

    images, archs = plan.images, ("conv2",) if plan.tiny else ("conv2", "conv4")
    all_seeds = {"conv2": 5, "conv4": 3}
    for arch in archs:
        count = seeds(all_seeds[arch])
        digits = ("--dataset", "digits") if plan.tiny else ()
        yield compared(f"{arch}-methods", arch, *count, *(digits or images))
        cell = cells(arch, METHODS[0], *WAYS)
        yield grid(f"{arch}-10", "table1", 10, *cell, *count, *images)
    if not plan.tiny:
        yield grid(
            "conv6-10", "table1", 10, *cells("conv6", *METHODS), *seeds(2), *images
        )
    search = ("-m", "benchmarks.search", "--out", os.fspath(plan.work / "search"))
    epochs = ("--dataset", "digits", "--epochs", "1", "1") if plan.tiny else images
    yield Job("search", (*search, *epochs), 20)
    few = ("--arch", archs[-1], "--keep", "0.1", "0.05", "0.02")
    ways = ("--method", "aslp", "signed", "budget", "magnitude-finetune")
    yield grid("few-weights", "budget", 10, *few, *ways, *seeds(3), *images)
    published = ("--arch", "conv2", "--keep", "0.006", "--method", "signed")
    yield grid("conv2-0.6-percent", "budget", 10, *published, *seeds(3), *images)
    for arch, length in zip(archs, (60, 40), strict=False):
        words = (*seeds(1), *images)
        cell = cells(arch, METHODS[0])
        yield grid(f"{arch}-long", "table1", length, *cell, *words)
        yield dense(arch, arch, length, *words)
    if plan.fashion:
        for arch in archs:
            words = ("--dataset", "fashion_mnist", *plan.fashion, *seeds(3))
            yield compared(f"fashion-{arch}", arch, *words)


def keep_comparisons(plan: Plan) -> None:
    """Copies the tables and plots of the comparisons to the folder worth keeping."""
    for job in comparison_jobs(plan):
        work, kept = plan.work / job.name, plan.out / job.name
        files = [
            *work.glob("*.csv"),
            *work.glob("*.md"),
            *work.glob("*.png"),
            *work.glob("grid.json"),
        ]
        if files:
            kept.mkdir(exist_ok=True)
        for file in files:
            shutil.copy(file, kept / file.name)


def paper_jobs(plan: Plan) -> Iterator[Job]:
    """Yields the runs by the paper's recipe."""
    epochs = ("--epochs", "2") if plan.tiny else ()
    recipe = ("--preset", "paper", *plan.changes)
    for arch in ("conv2",) if plan.tiny else ("conv4", "conv2"):
        out = plan.work / f"paper-{arch}"
        begun = (out / "config.json").exists()
        start = ("--resume",) if begun else ("--arch", arch, *recipe)
        command = ("experiments/cifar.py", "--out", os.fspath(out), *start)
        yield Job(f"paper-{arch}", (*command, *epochs, *plan.images), 60)


def measure(plan: Plan) -> bool:
    """Runs the measurements that are missing; returns True if none failed."""
    sound = True
    for job in measurements(plan):
        if plan.is_done(job) or plan.left < job.least + plan.closing:
            continue
        print(f"{job.name}: {plan.left:.0f} s left", flush=True)
        (plan.out / f"{job.name}.txt").unlink(missing_ok=True)
        try:
            code = plan.begin(job).wait(timeout=plan.left)
        except subprocess.TimeoutExpired:
            code = -1
        if code in (0, 1):  # 1: a bound is not met, which is a result
            plan.mark(job.name).touch()
        else:
            sound = False
            print(f"{job.name} ended with {code}; see {plan.out}/{job.name}.txt")
    return sound


def train(plan: Plan, kinds_of_jobs: Mapping[str, Iterable[Job]]) -> bool:
    """Trains until nothing is left or the time is up.

    Args:
      plan: folder, time and kind of device.
      kinds_of_jobs: jobs by kind; one process at a time takes those of `paper`.

    Returns:
      True if no job failed.
    """
    waiting = {
        kind: [job for job in jobs if not plan.is_done(job)]
        for kind, jobs in kinds_of_jobs.items()
    }
    going: dict[str, subprocess.Popen[bytes]] = {}
    kinds: dict[str, str] = {}
    sound = True
    try:
        while True:
            for name, process in list(going.items()):
                if process.poll() is None:
                    continue
                del going[name]
                print(f"{name} ended with {process.returncode}", flush=True)
                # A loss that diverged and a budget that was missed are results.
                if process.returncode in (0, LOSS_NOT_FINITE, BUDGET_MISSED):
                    plan.mark(name).touch()
                else:
                    sound = False
            for kind, jobs in waiting.items():
                # One process at a time takes the long runs, if there are several.
                most = 1 if kind == "paper" else max(1, plan.workers - len(waiting) + 1)
                while (
                    jobs
                    and plan.left > jobs[0].least + plan.closing
                    and sum(kinds[name] == kind for name in going) < most
                ):
                    job = jobs.pop(0)
                    print(f"{job.name}: {plan.left:.0f} s left", flush=True)
                    going[job.name] = plan.begin(job, plan.workers)
                    kinds[job.name] = kind
            if not going or plan.left < plan.closing:
                break
            time.sleep(0.2)
    finally:
        for process in going.values():
            process.terminate()  # each saves, and goes on another time
        for process in going.values():
            process.wait()
    return sound


def close(plan: Plan) -> None:
    """Tests runs of the paper's recipe that the time cut, and writes the table."""
    cut = []
    for job in paper_jobs(plan):
        out = plan.work / job.name
        metrics = out / "metrics.jsonl"
        if plan.is_done(job) or not metrics.exists():
            continue
        epochs = len(metrics.read_text(encoding="utf-8").splitlines())
        # In a copy, so that the run itself can go on to its end another time.
        copied = plan.work / f"{job.name}-tested"
        shutil.rmtree(copied, ignore_errors=True)
        shutil.copytree(out, copied)
        command = ("experiments/cifar.py", "--out", os.fspath(copied), "--resume")
        tested = Job(f"{job.name}-tested", (*command, "--epochs", str(epochs)))
        cut.append(plan.begin(tested, plan.workers))
    _merge(plan)
    for process in cut:
        process.wait()
    for folder in plan.work.glob("paper-*"):
        if (folder / "result.json").exists():
            kept = plan.out / folder.name
            kept.mkdir(exist_ok=True)
            for name in ("config.json", "metrics.jsonl", "result.json", "curves.png"):
                shutil.copy(folder / name, kept / name)


def _merge(plan: Plan) -> None:
    """Makes one table of the cells, each of which was trained in a grid of its own."""
    merged = plan.work / "table1"
    grids = sorted((plan.work / "cells").glob("*/grid.json"))
    if not grids:
        return
    shutil.rmtree(merged, ignore_errors=True)
    cells = merged / "cells"
    cells.mkdir(parents=True)
    shutil.copy(grids[0], merged / "grid.json")
    names = []
    for grid in grids:
        done = [path.parent for path in grid.parent.glob("cells/*/result.json")]
        for run in done:
            shutil.copytree(run, cells / run.name)
        names += [grid.parent.name] if done else []
    if not names:
        return
    # No time for any training: what is finished is reported.
    command = ("experiments/table1.py", "--cells", *names, *_table_options(plan))
    limits = ("--seeds", str(plan.seeds), "--minutes", "0.001")
    job = Job("table1", (*command, *limits, "--out", os.fspath(merged)))
    dataclasses.replace(plan, platform="cpu").begin(job).wait()
    for path in (*merged.glob("table1.*"), merged / "runs.csv"):
        if path.exists():
            shutil.copy(path, plan.out / path.name)


def describe(plan: Plan) -> None:
    """Writes device.json: the device, versions, and the commit."""
    code = (
        "import importlib.metadata as m, json, jax; d = jax.devices()[0]; "
        "print(json.dumps({'platform': d.platform, 'device': d.device_kind, "
        "'memory': (d.memory_stats() or {}).get('bytes_limit'), "
        "**{n: m.version(n) for n in ('jax', 'flax', 'optax', 'aslp-jax')}}))"
    )
    environment = dict(os.environ)
    if plan.platform == "cpu":
        environment["JAX_PLATFORMS"] = "cpu"
    command = [sys.executable, "-c", code]
    output = subprocess.check_output(command, cwd=ROOT, env=environment, text=True)
    about = json.loads(output.splitlines()[-1])
    if about["platform"] != plan.platform:
        raise ValueError(
            f"--platform {plan.platform}, but JAX has the platform {about['platform']}"
        )
    text = json.dumps(about, indent=2) + "\n"
    (plan.out / "device.json").write_text(text, encoding="utf-8")
    print(f"{about['device']}, jax {about['jax']}", flush=True)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", choices=("gpu", "cpu"), default="gpu")
    parser.add_argument("--tiny", action="store_true", help="rehearse in minutes")
    parser.add_argument("--minutes", type=float, default=25.0)
    parser.add_argument("--workers", type=int, default=4, help="processes that train")
    parser.add_argument("--seeds", type=int, default=3, help="of each cell")
    parser.add_argument("--epochs", type=int, default=300, help="of each cell")
    parser.add_argument(
        "--speed-only", action="store_true", help="measure speed, train nothing"
    )
    parser.add_argument(
        "--comparisons",
        action="store_true",
        help="measure no speed; train short comparisons and a search",
    )
    parser.add_argument("--data-dir", type=Path, help="prepared TFDS folder")
    parser.add_argument(
        "--fashion-dir", type=Path, help="files of Fashion-MNIST, for --comparisons"
    )
    parser.add_argument("--out", type=Path, required=True)
    parsed = parser.parse_args(arguments)
    images: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()
    fashion: tuple[str, ...] = ()
    if parsed.fashion_dir is not None:
        fashion = ("--manual-dir", os.fspath(parsed.fashion_dir.resolve()))
    if parsed.data_dir is not None:
        images = ("--data-dir", os.fspath(parsed.data_dir.resolve()))
    if parsed.tiny:  # what only a GPU takes: one pass a batch, bfloat16
        changes = ("--dataset", "digits", "--batch-size", "32", "--micro-batch", "32")
        changes = (*changes, "--dtype", "bfloat16")
    plan = Plan(
        out=parsed.out.resolve(),
        deadline=time.monotonic() + 60 * parsed.minutes,
        platform=parsed.platform,
        tiny=parsed.tiny,
        closing=0.0 if parsed.speed_only else CLOSING,
        workers=parsed.workers,
        seeds=1 if parsed.tiny else parsed.seeds,
        epochs=1 if parsed.tiny else parsed.epochs,
        images=images,
        changes=changes,
        fashion=fashion,
    )
    plan.work.mkdir(parents=True, exist_ok=True)
    try:
        describe(plan)
    except ValueError as error:
        parser.error(str(error))
    if parsed.comparisons:
        sound = train(plan, {"comparisons": comparison_jobs(plan)})
        keep_comparisons(plan)
    else:
        sound = measure(plan)
    if not (parsed.speed_only or parsed.comparisons):
        sound &= train(plan, {"paper": paper_jobs(plan), "cells": cell_jobs(plan)})
        close(plan)
    print(f"{plan.out}: what is worth keeping; the same command goes on", flush=True)
    return 0 if sound else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
