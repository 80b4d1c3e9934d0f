"""Training loop: epochs until the runs end, by themselves, a signal or the clock."""

import collections
import functools
import time
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from aslp_jax.trainer.feeding import Resident
from aslp_jax.trainer.multi_seed import step_function
from aslp_jax.trainer.processes import every_process
from aslp_jax.trainer.results import Divergence, EpochRow
from aslp_jax.trainer.session import Session
from aslp_jax.trainer.signals import Interrupted, Signals

__all__ = ["Watcher", "train_sessions"]

_CHUNK_SECONDS = 1.0
"""Length of the programs that an epoch is split into, in seconds, if it is longer.

Between two programs progress is shown and Ctrl-C is noticed. Changes no result.
"""


class Watcher(Protocol):
    """Display of training's progress; see `progress.Progress`."""

    def step(self, epoch: int, step: int, steps: int, images_per_second: float) -> None:
        """Reports progress within an epoch.

        Args:
          epoch: present epoch, from 1.
          step: steps of this epoch that are done.
          steps: steps an epoch.
          images_per_second: training speed over the epoch so far.
        """

    def epoch(self, row: EpochRow) -> None:
        """Reports a finished epoch.

        Args:
          row: row of the epoch.
        """


def train_sessions(
    sessions: Sequence[Session], progress: Watcher, signals: Signals
) -> None:
    """Trains until no session is active, and saves checkpoints on the way.

    A session that diverges keeps the state before that epoch, gets its `divergence`
    set, and leaves the others to go on.

    Args:
      sessions: one session; or several that differ in their seed, each on one device,
        which are trained side by side as one program.
      progress: display of the progress.
      signals: watch for signals and the clock, already entered.

    Raises:
      Interrupted: a signal or the clock asked to stop; all states are saved.
    """
    saved = time.monotonic()
    while active := [session for session in sessions if session.active]:
        # Sessions that are behind come first, until all are side by side.
        behind = min(session.place for session in active)
        group = _one_program([session for session in active if session.place == behind])
        going, stop = _train_epoch(group, progress, signals)
        for session in going:
            if session.run.stopped:
                session.save(session.run.snapshot())
        seconds = group[0].run.config.checkpoint_seconds
        due = time.monotonic() - saved >= seconds
        stop = stop or _stop_requested(signals)
        if stop or every_process([due])[0, 0]:
            for session in sessions:
                if session.divergence is None:
                    session.save(session.run.snapshot())
            saved = time.monotonic()
        if stop:
            raise stop


def _one_program(group: list[Session]) -> list[Session]:
    """Returns the sessions that can be one program: equally many on every device.

    Those of streamed images cannot: each reads batches of its own.
    """
    if not isinstance(group[0].run.images, Resident):
        return group[:1]
    counts = collections.Counter(session.run.devices[0] for session in group)
    return group if len(set(counts.values())) == 1 else group[:1]


def _train_epoch(
    group: Sequence[Session], progress: Watcher, signals: Signals
) -> tuple[list[Session], Interrupted | None]:
    """Takes the remaining steps of an epoch and validates, unless a stop is requested.

    A stop while streamed images are validated leaves the epoch at its last step.

    Returns:
      The sessions that have not diverged; and the stop, if one was requested.
    """
    before = {id(session): session.run.snapshot() for session in group}
    going, taken, spent = list(group), 0, 0.0
    first = group[0].run
    take_steps = step_function([session.run for session in going])
    while going[0].run.position.step < first.steps:
        if stop := _stop_requested(signals):
            return going, stop
        position = going[0].run.position
        chunk = max(1, int(_CHUNK_SECONDS / going[0].run.seconds_per_step))
        # The first process decides, as the others measure other times.
        count = int(every_process([min(chunk, first.steps - position.step)])[0, 0])
        seconds = take_steps(count)
        spent, taken = spent + seconds, taken + count * len(going)
        speed = taken * first.config.batch_size / spent
        found = [s.run.account(count, seconds, runs=len(going)) for s in going]
        if any(found):
            for session, divergence in zip(going, found, strict=True):
                if divergence is not None:
                    _give_up(session, divergence, before[id(session)])
            going = [session for session in going if session.divergence is None]
            if not going:
                return [], None
            take_steps = step_function([session.run for session in going])
        progress.step(position.epoch + 1, position.step, first.steps, speed)
    if not taken:  # a stop came in the validation of this epoch
        speed = len(group) * _speed_before(group[0])
    return _validate(going, speed / len(group), before, progress, signals)


def _validate(
    going: Sequence[Session],
    images_per_second: float,
    before: Mapping[int, Mapping[str, Any]],
    progress: Watcher,
    signals: Signals,
) -> tuple[list[Session], Interrupted | None]:
    """Ends an epoch of all sessions; returns the same as `_train_epoch`."""
    check = functools.partial(_check, signals)
    for session in going:
        try:
            row = session.run.finish_epoch(images_per_second, check)
        except Interrupted as stop:
            return [each for each in going if each.divergence is None], stop
        if isinstance(row, Divergence):
            _give_up(session, row, before[id(session)])
            continue
        session.record(row)
        progress.epoch(row)
    return [session for session in going if session.divergence is None], None


def _stop_requested(signals: Signals) -> Interrupted | None:
    """Returns the stop that is requested in any process; None if there is none."""
    asked = every_process([signals.stop_requested, signals.received])
    stop, number = (int(column.max()) for column in asked.T)
    return Interrupted(number) if stop else None


def _check(signals: Signals) -> None:
    """Raises `Interrupted` in all processes if a stop is requested in any."""
    if stop := _stop_requested(signals):
        raise stop


def _speed_before(session: Session) -> float:
    """Returns the speed of an epoch whose steps are all taken, in images a second."""
    run, rows = session.run, session.rows
    seconds = run.position.seconds - (rows[-1].seconds if rows else 0.0)
    return run.steps * run.config.batch_size / seconds


def _give_up(
    session: Session, divergence: Divergence, before: Mapping[str, Any]
) -> None:
    """Notes a divergence and saves the state before that epoch."""
    session.divergence = divergence
    session.save(before)
