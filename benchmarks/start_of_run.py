"""Start of a run against another commit: until its folder and its first epoch.

    git worktree add ../before 9cdf8c4
    python -m benchmarks.start_of_run --before ../before

Starts Conv2 on digits from both clones alternately, everything compiled before, and
kills each process after the first line of its metrics. `--help` is timed too. Prints
medians and the median of the differences, with quartiles, of CPU time and wall time.
Exit code: 0; 1 if a start takes over 50 ms more CPU time than before.
"""

import argparse
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.timing import Claim

ROOT = Path(__file__).parents[1]
RUN = "--arch conv2 --dataset digits --preset paper --epochs 50 --devices 1 --out"
MORE_MILLISECONDS = 50.0
"""Most CPU time of a start over that of the other commit."""

Spent = dict[str, tuple[float, float]]
"""CPU time and wall time in seconds, by point of a run."""


def start(clone: Path, cache: str) -> Spent:
    """Starts a run and `--help`, and returns what they took.

    Args:
      clone: clone of the project to start from.
      cache: folder of its caches.
    """
    environment = {**os.environ, "PYTHONPATH": os.fspath(clone), "JAX_PLATFORMS": "cpu"}
    environment |= {"XDG_CACHE_HOME": cache, "OMP_NUM_THREADS": "1"}
    program = [sys.executable, os.fspath(clone / "experiments" / "cifar.py")]

    def begin(*arguments: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            [*program, *arguments],
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    found: Spent = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        began = time.perf_counter()
        process = begin(*RUN.split(), os.fspath(out))
        points = {"folder": out / "config.json", "first epoch": out / "metrics.jsonl"}
        while process.poll() is None and points:
            for name, file in list(points.items()):
                if file.exists() and b"\n" in file.read_bytes():
                    found[name] = _cpu(process.pid), time.perf_counter() - began
                    del points[name]
            time.sleep(0.004)
        process.kill()
        process.wait()
    if points:
        raise RuntimeError(f"{clone}: a run ended before its {', '.join(points)}")
    began = time.perf_counter()
    process = begin("--help")
    _, process.returncode, usage = os.wait4(process.pid, 0)
    taken = time.perf_counter() - began
    return {**found, "--help": (usage.ru_utime + usage.ru_stime, taken)}


def _cpu(pid: int) -> float:
    """Returns the CPU time of a process in seconds."""
    fields = Path(f"/proc/{pid}/stat").read_bytes().rpartition(b")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--before", type=Path, required=True, help="the other clone")
    parser.add_argument("--pairs", type=int, default=15)
    options = parser.parse_args(arguments)
    clones = {"before": options.before.resolve(), "now": ROOT}
    caches = {side: tempfile.mkdtemp() for side in clones}
    found: dict[str, list[Spent]] = {side: [] for side in clones}
    try:
        for pair in range(options.pairs + 1):  # the first compiles and does not count
            for side in sorted(clones, reverse=bool(pair % 2)):
                spent = start(clones[side], caches[side])
                if pair:
                    found[side].append(spent)
    finally:
        for cache in caches.values():
            shutil.rmtree(cache, ignore_errors=True)
    met = True
    for point in found["now"][0]:
        for index, kind in enumerate(("CPU", "wall")):
            times = {
                side: [each[point][index] for each in found[side]] for side in clones
            }
            more = sorted(
                1e3 * (now - before)
                for before, now in zip(times["before"], times["now"], strict=True)
            )
            quarter = len(more) // 4
            before, now = (statistics.median(times[side]) for side in clones)
            text = (
                f"{point}, {kind}: {before:.3f} s before, {now:.3f} s now; "
                f"quartiles of the differences {more[quarter]:.0f} and "
                f"{more[-1 - quarter]:.0f} ms"
            )
            claim = Claim(text, statistics.median(more), MORE_MILLISECONDS, unit="ms")
            print(claim)
            met &= claim.met or kind != "CPU"
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
