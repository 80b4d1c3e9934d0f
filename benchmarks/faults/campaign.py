"""Campaign: which try comes next, the workers that make them, and the workshop."""

import dataclasses
import itertools
import json
import os
import selectors
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from aslp_jax.data import datasets
from benchmarks.faults.processes import DISK, unmount
from benchmarks.faults.programs import (
    REFERENCE,
    aslp,
    beginning,
    check_end,
    check_same_run,
    environment,
    quote,
)
from benchmarks.faults.tries import WRONG, Kind, Outcome, Workshop
from benchmarks.faults.writers import BUDGET, GRID, check_same_grid

LEAST_MINUTES = 10.0
"""Shortest campaign that makes the kinds that are made once."""


def schedule(
    kinds: Sequence[Kind], minutes: float, *, named: bool
) -> Iterator[tuple[Kind, int]]:
    """Yields the tries of a campaign without end: kinds in turn, numbers from 0.

    Args:
      kinds: kinds to try.
      minutes: length of the campaign.
      named: True if the kinds were named one by one.
    """
    once = [kind for kind in kinds if kind.once]
    others = [kind for kind in kinds if not kind.once]
    if named or minutes >= LEAST_MINUTES:
        yield from ((kind, 0) for kind in once)
    for turn in itertools.count() if others else ():
        for kind in others:
            start = turn * kind.turn
            yield from ((kind, start + index) for index in range(kind.turn))


def prepare(path: Path, kinds: Sequence[Kind]) -> float:
    """Makes the workshop: images, and undisturbed runs if a kind needs them.

    Two runs are made, the second with the programs that the first has compiled; they
    must be equal, or no comparison means anything.

    Args:
      path: folder of the workshop, which is made.
      kinds: kinds to try.

    Returns:
      Wall time of the second run in seconds; 0 without runs.

    Raises:
      Failure: a run fails, or the two differ.
    """
    path.mkdir(parents=True)
    shutil.copy(Path(__file__).with_name("network.py"), path)
    digits = datasets.load("digits")
    np.savez(
        path / "digits.npz",
        x_train=digits.train_images[:144, ::2, ::2],
        y_train=digits.train_labels[:144],
        x_test=digits.test_images[:60, ::2, ::2],
        y_test=digits.test_labels[:60],
    )
    if not any(kind.processes for kind in kinds):
        return 0.0
    shop, seconds = Workshop(path, path, 0.0), 0.0
    for name in (REFERENCE, "again"):
        began = time.monotonic()
        with aslp(shop, path, beginning(path / name)) as program:
            check_end(program.end(), (0,))
        seconds = time.monotonic() - began
    check_same_run(path / REFERENCE, path / "again")
    if any(kind.name == "writers" for kind in kinds):
        with aslp(shop, path, f"{BUDGET} --out {quote(path / GRID)}") as program:
            check_end(program.end(), (0,))
        check_same_grid(path / GRID, path / GRID)
    return seconds


@dataclasses.dataclass
class Campaign:
    """A campaign.

    Attributes:
      out: folder of the workshop, of the tries at work, and of those that failed.
      seed: seed of all tries.
      seconds: wall time of the undisturbed run.
      note: function that shows an outcome.
      outcomes: outcomes so far.
    """

    out: Path
    seed: int
    seconds: float
    note: Callable[[Outcome], None]
    outcomes: list[Outcome] = dataclasses.field(default_factory=list)

    @property
    def work(self) -> Path:
        """Folder of the tries at work."""
        return self.out / "work"

    def run(
        self, tries: Iterator[tuple[Kind, int]], deadline: float, jobs: int
    ) -> None:
        """Makes tries until they or the time are over.

        Args:
          tries: tries in order.
          deadline: time by `time.monotonic()` after which none begins, in seconds.
          jobs: number of workers.
        """
        lock = threading.Lock()

        def work() -> None:
            worker = _Worker(self)
            try:
                while time.monotonic() < deadline:
                    with lock:
                        asked = next(tries, None)
                    if asked is None:
                        return
                    outcome = worker.make(*asked)
                    with lock:
                        self.outcomes.append(outcome)
                        self.note(outcome)
            finally:
                worker.end()

        threads = [threading.Thread(target=work) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def keep(self, outcome: Outcome) -> None:
        """Moves the folder of a failed try to `failures`."""
        name = f"{outcome.kind}-{outcome.number}"
        target = self.out / "failures" / name
        target.parent.mkdir(exist_ok=True)
        unmount(self.work / name / DISK)  # of a worker that died
        if (self.work / name).exists():
            shutil.move(self.work / name, target)


class _Worker:
    """A worker process; started again after its death."""

    def __init__(self, campaign: Campaign) -> None:
        self._campaign = campaign
        self._process: subprocess.Popen[str] | None = None

    def make(self, kind: Kind, number: int) -> Outcome:
        """Lets the worker make a try; one that hangs is killed."""
        process = self._process or self._start()
        began = time.monotonic()
        assert process.stdin is not None and process.stdout is not None
        asked = json.dumps({"kind": kind.name, "number": number})
        process.stdin.write(asked + "\n")
        process.stdin.flush()
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            answered = selector.select(kind.limit)
        line = process.stdout.readline() if answered else ""
        if line:
            outcome = Outcome(**json.loads(line))
        else:
            self.end(kill=True)
            code = process.returncode
            about = f"the process died with {code}" if answered else "the try hung"
            seconds = round(time.monotonic() - began, 3)
            outcome = Outcome(kind.name, number, seconds, about, WRONG)
        if outcome.found is not None:
            self._campaign.keep(outcome)
        return outcome

    def _start(self) -> subprocess.Popen[str]:
        campaign = self._campaign
        shop = campaign.out / "workshop"
        arguments = [shop, campaign.work, campaign.seconds, campaign.seed]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.faults.worker", *map(str, arguments)],
            cwd=shop,
            env=environment(shop),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return self._process

    def end(self, *, kill: bool = False) -> None:
        """Ends the worker, or kills it with all that it started."""
        process, self._process = self._process, None
        if process is None:
            return
        if kill:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.stdin is not None and process.stdout is not None
        process.stdin.close()
        process.wait()
        process.stdout.close()
