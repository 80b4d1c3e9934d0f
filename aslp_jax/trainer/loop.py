"""Epochs until the runs stop by themselves, by a signal or by the clock; saving."""

import collections
import math
import signal
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aslp_jax.trainer.multi_seed import SeedBatch
from aslp_jax.trainer.run_state import LossNotFinite
from aslp_jax.trainer.session import Session

_CHUNK_SECONDS = 1.0
"""Steps are handed to the device in programs of about this long, where an epoch is
longer: a person sees the progress, and Ctrl-C is heard. Changes no result."""


class Interrupted(Exception):
    """A signal or the clock asked to stop; all states are saved.

    Attributes:
      number: of the signal, 0 for the clock.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name if number else "the time limit")
        self.number = number


class Watcher(Protocol):
    """What is told how far training is; see `progress.Progress`."""

    def step(
        self, epoch: int, step: int, steps: int, images_per_second: float
    ) -> None: ...

    def epoch(self, row: Mapping[str, Any]) -> None: ...


def train_sessions(
    sessions: Sequence[Session], progress: Watcher, signals: "Signals"
) -> None:
    """Trains until no session is active, and saves as it goes.

    A session whose loss is not finite keeps the state before that epoch, gets its
    `problem` set, and leaves the others to go on.

    Args:
      sessions: one; or several that differ in their seed, each on one device, which are
        trained side by side as one program.
      progress: is told how far it is.
      signals: entered; when they ask to stop, all is saved.

    Raises:
      Stopped: they did; all states are saved.
    """
    saved = time.monotonic()
    while active := [session for session in sessions if session.active]:
        # Those behind come first, until all are side by side.
        behind = min(session.place for session in active)
        group = _as_one([session for session in active if session.place == behind])
        going = _one_epoch(group, progress, signals)
        for session in going:
            if session.run.stopped:
                session.save(session.run.snapshot())
        seconds = group[0].run.config.checkpoint_seconds
        if signals.stop_requested or time.monotonic() - saved >= seconds:
            for session in sessions:
                if session.problem is None:
                    session.save(session.run.snapshot())
            saved = time.monotonic()
        signals.check()


def _as_one(group: list[Session]) -> list[Session]:
    """Those that can be one program: as many on one device as on another."""
    shares = collections.Counter(session.run.devices[0] for session in group)
    return group if len(set(shares.values())) == 1 else group[:1]


def _one_epoch(
    group: Sequence[Session], progress: Watcher, signals: "Signals"
) -> list[Session]:
    """Takes the remaining steps of an epoch and validates, unless told to stop.

    Returns:
      The sessions without a problem.
    """
    before = {id(session): session.run.snapshot() for session in group}
    going, taken, spent = list(group), 0, 0.0
    first = group[0].run
    side_by_side = SeedBatch([session.run for session in going])
    while going[0].run.position.step < first.steps:
        if signals.stop_requested:
            return going
        where = going[0].run.position
        chunk = max(1, int(_CHUNK_SECONDS / going[0].run.seconds_per_step))
        count = min(chunk, first.steps - where.step)
        seconds, problems = side_by_side.take_steps(count)
        for session, problem in zip(going, problems, strict=True):
            if problem is not None:
                _give_up(session, problem, before[id(session)])
        spent, taken = spent + seconds, taken + count * len(going)
        speed = taken * first.config.batch_size / spent
        if any(problems):
            going = [session for session in going if session.problem is None]
            if not going:
                return []
            side_by_side = SeedBatch([session.run for session in going])
        progress.step(where.epoch + 1, where.step, first.steps, speed)
    for session in going:
        try:
            row = session.run.finish_epoch(speed / len(group))
        except LossNotFinite as error:
            _give_up(session, str(error), before[id(session)])
            continue
        session.folder.append_row(row)
        session.rows.append(row)
        progress.epoch(row)
    return [session for session in going if session.problem is None]


def _give_up(session: Session, problem: str, before: Mapping[str, Any]) -> None:
    """Saves the state before the epoch and says what can be done."""
    session.save(before)
    run = session.run
    way = f"--out {session.quoted} --resume"
    session.problem = (
        f"{problem}; {session.folder.path} keeps the state before that epoch; try "
        "smaller learning rates in a new run"
    )
    if run.config.schedule == "constant":
        epochs = max(1, run.position.epoch - run.position.pruned_epoch)
        session.problem += f", or evaluate what there is with {way} --epochs {epochs}"


class Signals:
    """While entered, the first Ctrl-C or SIGTERM is noted and the second one kills.

    Attributes:
      received: number of the signal that came, 0 before.
      asked: whether to stop, by a signal or by the clock.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        """Knows when to stop.

        Args:
          deadline: of `time.monotonic()`.
        """
        self.received = 0
        self._deadline = deadline

    @property
    def stop_requested(self) -> bool:
        return self.received != 0 or time.monotonic() >= self._deadline

    def check(self) -> None:
        """Raises `Stopped` if it is asked for."""
        if self.stop_requested:
            raise Interrupted(self.received)

    def __enter__(self) -> "Signals":
        self._old = {
            number: signal.signal(number, self._note)
            for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._old.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        # What starts programs may send one stop twice; only a later one is a second.
        time.sleep(0.3)
        for each in self._old:
            signal.signal(each, signal.SIG_DFL)
