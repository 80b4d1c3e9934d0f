"""Memory and file descriptors of a run of many epochs."""

import os
import statistics
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from benchmarks.faults.programs import TRAIN, aslp, check_end, quote, rows
from benchmarks.faults.tries import WRONG, Failure, Kind, Workshop

EPOCHS_LONG = 300
MEGABYTES = 24.0
"""Most growth of resident memory from the epochs 51-100 to the last 50."""

DESCRIPTORS = 2
"""Most growth of the number of open files, likewise."""

_PAGE = os.sysconf("SC_PAGE_SIZE")


def _endure(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    run = folder / "run"
    line = TRAIN.rpartition("--epochs")[0]
    line += f"--epochs {EPOCHS_LONG} --patience {EPOCHS_LONG} --checkpoint-seconds 0"
    memory: dict[int, list[float]] = {}
    files: dict[int, list[float]] = {}
    with aslp(shop, folder, f"{line} --out {quote(run)}") as program:
        home = Path(f"/proc/{program.process.pid}")
        while program.process.poll() is None:
            try:
                epoch = (run / "metrics.jsonl").read_bytes().count(b"\n")
                pages = int((home / "statm").read_text().split()[1])
                descriptors = len(os.listdir(home / "fd"))
            except OSError:
                time.sleep(0.02)
                continue
            memory.setdefault(epoch, []).append(pages * _PAGE / 1e6)
            files.setdefault(epoch, []).append(descriptors)
            time.sleep(0.02)
        check_end(program.end(), (0,))
    if len(rows(run)) != EPOCHS_LONG:
        raise Failure(WRONG, f"{len(rows(run))} rows")
    return judge(memory, files)


def judge(
    memory: Mapping[int, Sequence[float]], files: Mapping[int, Sequence[float]]
) -> str:
    """Compares the last 50 epochs with the epochs 51 to 100.

    Args:
      memory: resident memory in MB, several values an epoch.
      files: numbers of open files, likewise.

    Returns:
      A line with memory, files and their growth.

    Raises:
      Failure: the growth is above `MEGABYTES` or `DESCRIPTORS`.
    """
    early, late = range(50, 100), range(EPOCHS_LONG - 50, EPOCHS_LONG)
    growth = _median(memory, late) - _median(memory, early)
    more = _median(files, late) - _median(files, early)
    about = (
        f"{EPOCHS_LONG} epochs: {_median(memory, early):.0f} MB, "
        f"{growth:+.1f} MB later; {_median(files, early):.0f} open files, {more:+.0f}"
    )
    if growth > MEGABYTES or more > DESCRIPTORS:
        bound = f"expected at most {MEGABYTES:+} MB and {DESCRIPTORS:+} files"
        raise Failure(WRONG, f"{about}; {bound}")
    return about


def _median(values: Mapping[int, Sequence[float]], epochs: range) -> float:
    return statistics.median(each for epoch in epochs for each in values.get(epoch, []))


def _no_proc() -> str | None:
    return None if Path("/proc/self/statm").exists() else "needs /proc"


KINDS = (
    Kind(
        "endurance",
        f"memory and open files over {EPOCHS_LONG} epochs",
        _endure,
        processes=True,
        once=True,
        missing=_no_proc,
    ),
)
