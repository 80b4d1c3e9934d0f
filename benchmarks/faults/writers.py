"""Two writers into one run folder, grid folder or cache entry."""

import json
from pathlib import Path

import numpy as np

from benchmarks.faults.programs import (
    REFERENCE,
    Program,
    aslp,
    beginning,
    check_end,
    check_same_run,
    quote,
    resuming,
    timeless,
)
from benchmarks.faults.tries import LOST, WRONG, Failure, Kind, Workshop

BUDGET = (
    "budget --data digits.npz --arch conv2 --method magnitude --keep 0.5 --seeds 1 "
    "--epochs 2 --batch-size 32 --eval-samples 2"
)
GRID = "grid"
"""Folder of the undisturbed grid in the workshop."""

_LOADS = 4
_LOAD = """
import sys
from aslp_jax.data import own
data = own.load(sys.argv[1], image_size=(8, 8), cache_dir=sys.argv[2])
print(data.images_sha256(), data.labels_sha256())
"""


def _run(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    """Starts a run twice, or resumes a run that goes on."""
    run = folder / "run"
    resume = rng.uniform() < 0.5
    second_line = resuming(run) if resume else beginning(run)
    wait = rng.uniform(0, shop.seconds if resume else 0.5)
    with aslp(shop, folder, beginning(run)) as first:
        first.sleep(wait)
        with aslp(shop, folder, second_line) as second:
            ends = [each.end() for each in (first, second)]
    lines = [check_end(ended, (0, 2)) for ended in ends]
    _check_refusals(lines)
    if resume and lines[0]:
        # The second began when the first had not made its folder yet.
        raise Failure(WRONG, f"the first one ended so: {lines[0]}")
    check_same_run(shop.path / REFERENCE, run)
    return f"{'resumed' if resume else 'started'} {wait:.2f} s later: {lines}"


def _check_refusals(lines: list[str]) -> None:
    if all(lines):
        raise Failure(WRONG, f"both were refused: {lines}")
    allowed = ("is being written by", "holds a run already", "holds no run to resume")
    for line in filter(None, lines):
        if not any(words in line for words in allowed):
            raise Failure(WRONG, f"the line says something else: {line}")


def _grid(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    grid, wait = folder / "grid", rng.uniform(0, shop.seconds)
    line = f"{BUDGET} --out {quote(grid)}"
    with aslp(shop, folder, line) as first:
        first.sleep(wait)
        with aslp(shop, folder, line) as second:
            ends = [each.end() for each in (first, second)]
    # 4: the network, hardly trained, misses its budget.
    lines = [
        check_end(e._replace(code=0 if e.code == 4 else e.code), (0, 2)) for e in ends
    ]
    _check_refusals(lines)
    check_same_grid(shop.path / GRID, grid)
    return f"grid, {wait:.2f} s later: {lines}"


def check_same_grid(wanted: Path, grid: Path) -> None:
    """Checks that two finished grids hold the same runs, times left out.

    Raises:
      Failure: a run differs, or a file is left over.
    """
    if left := [*grid.rglob("*.partial"), *grid.rglob("lock.json*")]:
        raise Failure(WRONG, f"left over: {left}")
    for file in wanted.rglob("*.json*"):
        other = grid / file.relative_to(wanted)
        if file.name == "config.json":
            continue
        if not other.exists():
            raise Failure(LOST, f"there is no {other}")
        found = [
            [timeless(json.loads(line)) for line in _objects(each)]
            for each in (file, other)
        ]
        if found[0] != found[1]:
            raise Failure(LOST, f"{other} differs from the undisturbed grid")


def _objects(file: Path) -> list[str]:
    text = file.read_text()
    return text.splitlines() if file.suffix == ".jsonl" else [text]


def _cache(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    """Loads the same images in several processes at once; half of them later."""
    line = ["-c", _LOAD, str(shop.path / "digits.npz"), str(folder / "cache")]
    programs, killed = [], rng.uniform() < 0.5
    waits = [float(rng.uniform(0, 0.3)) for _ in range(_LOADS)]
    try:
        for wait in waits:
            programs.append(Program(shop.path, folder, line))
            programs[-1].sleep(wait)
        if killed:
            programs[0].process.kill()
        found = set()
        for number, program in enumerate(programs):
            ended = program.end()
            if killed and number == 0:
                continue
            check_end(ended, (0,))
            found.add(ended.out)
    finally:
        for program in programs:
            program.__exit__()
    with Program(shop.path, folder, line) as again:
        ended = again.end()
    check_end(ended, (0,))
    found.add(ended.out)
    if len(found) != 1:
        raise Failure(LOST, f"processes read different images: {found}")
    names = {path.name for path in (folder / "cache").rglob("*") if path.is_file()}
    wanted = {
        f"{part}_{of}.npy" for part in ("train", "test") for of in ("images", "labels")
    } | {"sha256.json"}
    if names != wanted:
        raise Failure(WRONG, f"the cache entry holds {sorted(names)}")
    return f"cache entry, {_LOADS} readers, {'one killed' if killed else 'none killed'}"


def _attempt(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    choices = (_run, _run, _grid, _cache, _cache)
    return choices[rng.integers(len(choices))](shop, rng, folder)


KINDS = (Kind("writers", "two writers into one folder", _attempt, processes=True),)
