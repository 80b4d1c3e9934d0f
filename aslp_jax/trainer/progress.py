"""Progress of a run or a grid: a live line on a terminal, plain lines in a log.

tqdm keeps the live line in its place, below the lines that stay and beside the bars of
other libraries (TFDS shows one while it prepares a data set). tqdm is one package
without dependencies; rich, the other choice, brings three. The text of the line is made
here: tqdm would cut a long line anywhere, and count compilation into the time left.
"""

import collections
import dataclasses
import math
import os
import shutil
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

from aslp_jax.trainer.results import EpochRow

REDRAW_SECONDS = 0.1
"""Shortest time between two draws of the live line; a faster line flickers."""


def humanise_seconds(seconds: float) -> str:
    """Returns a duration in its two leading units, such as 42s, 2m05s, 3h12m or 1d04h.

    Args:
      seconds: duration; a negative one counts as 0, one that is not finite gives "?".
    """
    if not math.isfinite(seconds):
        return "?"
    # Rounded before it is split, so that 59.7 reads 1m00s and not 60s.
    rounded = max(0, round(seconds))
    minutes, hours, days = rounded // 60, rounded // 3600, rounded // 86400
    if days:
        return f"{days}d{hours % 24:02d}h"
    if hours:
        return f"{hours}h{minutes % 60:02d}m"
    if minutes:
        return f"{minutes}m{rounded % 60:02d}s"
    return f"{rounded}s"


def counted(count: int, noun: str) -> str:
    """Returns a count and its noun, such as "1 run" or "2,000 runs".

    Args:
      count: number, from 0.
      noun: noun of one, whose plural ends in s.
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


class Progress:
    """Tells a person how far training is.

    A terminal gets one line that is rewritten in place, and now and then a line that
    stays: every epoch if epochs are long, ever fewer if they are short, so that a
    thousand quick epochs leave about a screenful. A log gets one plain line an epoch,
    and so does a terminal if tqdm is not installed.

    In a grid each line also names the cell and the seeds. Seeds that are trained side
    by side share a line, which shows means over them.

    Not for use inside a signal handler: a write that interrupts a write is an error.
    Note what the handler found from the training loop instead.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        epochs: int = 1,
        runs: int | None = None,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """Begins to measure time; writes nothing yet.

        Args:
          file: destination; None is the present `sys.stderr`.
          epochs: most epochs that a run has, counted from its very first.
          runs: number of runs that a grid has left; None for a single run.
          live: True if `file` is a terminal; None asks the file.
          clock: monotonic time in seconds.
        """
        self._file = sys.stderr if file is None else file
        live = self._file.isatty() if live is None else live
        self._tqdm: Any = _import_tqdm() if live else None
        self._bar: Any = None  # the live line, while there is one
        self._clock = clock
        self._began = self._kept_line = clock()
        self._drawn = -math.inf  # time of the last draw of the live line
        self._runs, self._runs_done = runs, 0
        self.start("", runs=1, epochs=epochs)

    def start(self, name: str, *, runs: int, epochs: int) -> None:
        """Begins the next seeds of a cell; a single run needs no call.

        Args:
          name: cell and seeds, for a person.
          runs: number of seeds, which are trained side by side.
          epochs: most epochs that one of the runs has.
        """
        self._name, self._batch, self._epochs = name, runs, epochs
        self._epoch = 0  # under way, or just finished
        self._within = 0.0  # fraction of that epoch
        self._rows: list[EpochRow] = []  # of an epoch, until it is shown
        self._shown: _EpochMeans | None = None
        self._images_per_second: float | None = None
        self._left = _TimeLeft(self._clock(), epochs)

    def step(self, epoch: int, step: int, steps: int, images_per_second: float) -> None:
        """Reports progress within an epoch; writes nothing to a log.

        Args:
          epoch: epoch under way, from 1.
          step: number of steps of this epoch that are done.
          steps: number of steps of an epoch.
          images_per_second: present speed of all runs that are trained side by side.
        """
        if self._rows and self._rows[0].epoch != epoch:
            self._end_epoch()
        self._images_per_second = images_per_second
        if self._tqdm is None:
            return
        self._epoch, self._within = epoch, step / steps
        now = self._clock()
        self._left.step(now, epoch - 1 + self._within)
        self._draw(now)

    def epoch(self, row: EpochRow) -> None:
        """Reports a finished epoch of a run.

        Args:
          row: row of the epoch.
        """
        if self._rows and self._rows[0].epoch != row.epoch:
            self._end_epoch()
        self._rows.append(row)
        # Seeds may stop before the others: then the next step ends the epoch.
        if len(self._rows) == self._batch:
            self._end_epoch()

    def finish(self, outcome: str) -> None:
        """Ends the seeds that `start` began, with a line that stays.

        Args:
          outcome: accuracy of each run, for a person.
        """
        self._end_epoch()
        self._runs_done += self._batch
        self._batch = 0
        if self._bar is not None:
            self._bar.leave = False
            self._bar.close()
            self._bar = None
        parts = [f"run {self._runs_done}/{self._runs}", self._name, outcome]
        self._write(_SEPARATOR.join([*parts, *self._time_left(self._clock())]))

    def note(self, text: str) -> None:
        """Writes a line that stays, above the live line if there is one."""
        self._end_epoch()
        self._write(text)

    def close(self) -> None:
        """Draws the last state and ends the live line, so that a prompt starts afresh.

        A second call does nothing.
        """
        self._end_epoch()
        if self._bar is not None:
            self._draw(self._clock(), force=True)
            self._bar.close()
            self._bar = None

    def _end_epoch(self) -> None:
        """Shows the means of the rows of one epoch, if there are any."""
        if not self._rows:
            return
        now = self._clock()
        rows, self._rows = self._rows, []
        self._shown = _EpochMeans.of(rows)
        self._epoch, self._within = self._shown.epoch, 1.0
        if len(rows) == 1:
            self._images_per_second = self._shown.images_per_second
        self._left.epoch(now, self._epoch)
        if self._tqdm is None:
            self._write(_SEPARATOR.join(self._fields(now)))
            return
        # The wait grows with the run, so that quick epochs leave lines ever more
        # rarely, but never beyond a minute: an epoch that long always leaves one.
        wait = min(60.0, max(5.0, (now - self._began) / 10))
        kept = now - self._kept_line >= wait
        if kept:
            self._kept_line = now
            self._write(_fit(self._fields(now), self._columns()))
        self._draw(now, force=kept)

    def _fields(self, now: float) -> dict[str, int]:
        """Returns the parts of a line in their order, each with its rank (0 stays)."""
        fields: dict[str, int] = {}
        if self._runs is not None:
            fields[f"run {self._runs_done + 1}/{self._runs}"] = 0
            fields[self._name] = 1
        digits = len(str(self._epochs))
        fields[f"epoch {self._epoch:>{digits}}/{self._epochs}"] = 0
        if self._tqdm is not None:
            done = round(10 * self._within)
            fields["[" + "#" * done + "-" * (10 - done) + "]"] = 9
            fields[f"{math.floor(100 * self._within):3d}%"] = 4
        if (shown := self._shown) is not None:
            fields[f"train {shown.train_loss:.3f} {shown.train_accuracy:.1%}"] = 6
            best = f"best {shown.best_validation_accuracy:.1%}"
            if shown.best_epoch is not None:
                best += f" at {shown.best_epoch}"
            fields[f"val {shown.validation_accuracy:.1%} ({best})"] = 2
            fields[f"kept {shown.keep_fraction:.1%}"] = 5
        if self._images_per_second is not None:
            fields[f"{self._images_per_second:,.0f} images/s"] = 7
        if shown is not None:
            fields[f"after {humanise_seconds(shown.seconds)}"] = 8
        return fields | dict.fromkeys(self._time_left(now), 3)

    def _time_left(self, now: float) -> list[str]:
        """Returns the time of what remains, as one field or none."""
        if self._runs is None:
            left = self._left.seconds
            # Early stopping may end the run sooner.
            return [] if left is None else [f"at most {humanise_seconds(left)} left"]
        position = max(0, self._epoch - 1) + self._within
        done = self._runs_done + self._batch * position / self._epochs
        spent = now - self._began
        if self._runs_done >= self._runs:
            return [f"all done in {humanise_seconds(spent)}"]
        left = spent * (self._runs - done) / done if done > 0 else math.inf
        return [f"about {humanise_seconds(left)} left"]

    def _columns(self) -> int:
        """Returns how many columns a line may fill."""
        try:
            # Of this file: standard output may be redirected while this is a terminal.
            columns = os.get_terminal_size(self._file.fileno()).columns
        except (AttributeError, OSError, ValueError):
            columns = 0
        # A filled last column makes some terminals wrap, and others erase it again.
        return max(1, (columns or shutil.get_terminal_size().columns) - 1)

    def _draw(self, now: float, *, force: bool = False) -> None:
        """Rewrites the live line, unless it was drawn a moment ago."""
        if not force and now - self._drawn < REDRAW_SECONDS:
            return
        self._drawn = now
        text = _fit(self._fields(now), self._columns())
        if self._bar is None:
            self._bar = self._tqdm(file=self._file, bar_format="{desc}", desc=text)
        else:
            self._bar.set_description_str(text)

    def _write(self, text: str) -> None:
        """Writes a line that stays."""
        if self._tqdm is not None:
            self._tqdm.write(text, file=self._file)
        else:
            self._file.write(text + "\n")
        self._file.flush()


_SEPARATOR = "  "


def _import_tqdm() -> Any:
    """Returns the class that draws a live line; None if it is not installed."""
    try:
        from tqdm import tqdm
    except ImportError:
        return None
    return tqdm


@dataclasses.dataclass(frozen=True)
class _EpochMeans:
    """Numbers of one epoch, means over the seeds trained side by side.

    Attributes:
      epoch: number of the epoch, from 1.
      train_loss: loss on training images, masks sampled.
      train_accuracy: accuracy on training images, in [0, 1].
      validation_accuracy: accuracy on validation images, in [0, 1].
      best_validation_accuracy: best of the accuracies so far, in [0, 1].
      best_epoch: epoch of the best accuracy; None if there are several seeds.
      keep_fraction: fraction of the weights that are kept, in [0, 1].
      images_per_second: speed of one run.
      seconds: time since the run began.
    """

    epoch: int
    train_loss: float
    train_accuracy: float
    validation_accuracy: float
    best_validation_accuracy: float
    best_epoch: int | None
    keep_fraction: float
    images_per_second: float
    seconds: float

    @classmethod
    def of(cls, rows: Sequence[EpochRow]) -> "_EpochMeans":
        """Returns the means of rows of one epoch."""

        def mean(name: str) -> float:
            return statistics.fmean(getattr(row, name) for row in rows)

        return cls(
            epoch=rows[0].epoch,
            train_loss=mean("train_loss"),
            train_accuracy=mean("train_accuracy"),
            validation_accuracy=mean("validation_accuracy"),
            best_validation_accuracy=mean("best_validation_accuracy"),
            best_epoch=None if rows[1:] else rows[0].best_epoch,
            keep_fraction=mean("keep_fraction"),
            images_per_second=mean("images_per_second"),
            seconds=mean("seconds"),
        )


class _TimeLeft:
    """Time that the remaining epochs of a run take at the pace of about the latest ten.

    Ten epochs make the pace steady, and yet it follows a machine that slows down.

    Attributes:
      seconds: the time; None while it is unknown or nothing remains.
    """

    def __init__(self, began: float, epochs: int) -> None:
        """Begins to measure.

        Args:
          began: start of the first epoch, in seconds.
          epochs: most epochs that the run has.
        """
        self.seconds: float | None = None
        self._began, self._epochs = began, epochs
        self._first_pace: float | None = None
        self._marks: collections.deque[tuple[float, float]] = collections.deque(
            maxlen=10
        )

    def step(self, now: float, position: float) -> None:
        """Notes a position within an epoch, in epochs."""
        if not self._marks:
            # The first steps to be reported come after compilation; so does the pace.
            self._marks.append((now, position))
        self._update(now, position)

    def epoch(self, now: float, position: float) -> None:
        """Notes the end of an epoch, which later paces are taken from."""
        if not self._marks:
            self._first_pace = now - self._began
        # First looked up, then marked: a full deque would forget its oldest mark.
        self._update(now, position)
        self._marks.append((now, position))

    def _update(self, now: float, position: float) -> None:
        pace = self._first_pace
        if self._marks and position > self._marks[0][1]:
            then, earlier = self._marks[0]
            pace = (now - then) / (position - earlier)
        left = self._epochs - position
        self.seconds = pace * left if pace is not None and left > 0 else None


def _fit(fields: Mapping[str, int], columns: int) -> str:
    """Joins the fields that fit: chosen by rank, shown in their own order."""
    chosen: set[str] = set()
    for field in sorted(fields, key=fields.__getitem__):
        longer = chosen | {field}
        if len(_SEPARATOR.join(longer)) <= columns:
            chosen = longer
    if not chosen:
        return next(iter(fields))[:columns]
    return _SEPARATOR.join(field for field in fields if field in chosen)
