"""Progress of a run: a live line on a terminal, a plain line an epoch in a log.

A row describes one epoch, as one line of `metrics.jsonl` does: `epoch` (from 1), `step`
(in total), `train_loss`, `train_accuracy`, `validation_loss`, `validation_accuracy`,
`best_validation_accuracy`, `best_epoch`, `keep_fraction`, `keep_fractions` (by layer),
`flip_rate`, `scalars` (by group and layer), `statistics` (of the method, likewise),
`images_per_second` and `seconds` since the run began. Accuracies, fractions and rates
lie in [0, 1].
"""

import collections
import math
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO

REDRAW_SECONDS = 0.1  # faster than this is flicker


def humanise_seconds(seconds: float) -> str:
    """Returns a duration in its two leading units, such as 42s, 2m05s, 3h12m or 1d04h.

    Args:
      seconds: of the duration; below 0 counts as 0, and what is not finite is "?".
    """
    if not math.isfinite(seconds):
        return "?"
    # Rounded before it is split, so that 59.7 reads 1m00s and not 60s.
    whole = max(0, round(seconds))
    minutes, hours, days = whole // 60, whole // 3600, whole // 86400
    if days:
        return f"{days}d{hours % 24:02d}h"
    if hours:
        return f"{hours}h{minutes % 60:02d}m"
    if minutes:
        return f"{minutes}m{whole % 60:02d}s"
    return f"{whole}s"


class Progress:
    """Tells a person how far training is.

    A terminal gets one line that is rewritten in place, and now and then a line that
    stays: every epoch if epochs are long, ever fewer if they are short, so that a
    thousand quick epochs leave about a screenful. A log gets one plain line an epoch.

    Not for use inside a signal handler: a write that interrupts a write is an error.
    Note what the handler found from the training loop instead.

    Args:
      file: where to write; None is the present `sys.stderr`.
      epochs: how many epochs the run has at most, counted from its very first.
      live: whether `file` is a terminal; None asks it.
      clock: monotonic time in seconds.
    """

    def __init__(
        self,
        file: TextIO | None = None,
        *,
        epochs: int,
        live: bool | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._file = sys.stderr if file is None else file
        self._live = self._file.isatty() if live is None else live
        self._epochs = epochs
        self._clock = clock
        self._began = self._kept_line = clock()
        self._drawn = -math.inf  # when the live line was last drawn
        self._open = False  # whether a live line waits for its end
        self._epoch = 0  # under way, or just finished
        self._within = 0.0  # fraction of that epoch
        self._row: Mapping[str, Any] | None = None
        self._images_per_second: float | None = None
        self._left: float | None = None
        self._first_pace: float | None = None
        # Times and positions (in epochs) from which the pace is taken: about ten epochs
        # back, so that it is steady and yet follows a machine that slows down.
        self._marks: collections.deque[tuple[float, float]] = collections.deque(
            maxlen=10
        )

    def step(self, epoch: int, step: int, steps: int, images_per_second: float) -> None:
        """Reports progress within an epoch; does nothing in a log.

        Args:
          epoch: the one under way, from 1.
          step: steps of this epoch that are done.
          steps: steps of an epoch.
          images_per_second: at present.
        """
        if not self._live:
            return
        self._epoch, self._within = epoch, step / steps
        self._images_per_second = images_per_second
        now = self._clock()
        position = epoch - 1 + self._within
        if not self._marks:
            # The first steps to be reported come after compilation; so does the pace.
            self._marks.append((now, position))
        self._left = self._seconds_left(now, position)
        self._draw(now)

    def epoch(self, row: Mapping[str, Any]) -> None:
        """Reports a finished epoch."""
        now = self._clock()
        self._row = row
        self._epoch, self._within = row["epoch"], 1.0
        self._images_per_second = row["images_per_second"]
        if not self._marks:
            self._first_pace = now - self._began
        # First looked up, then marked: a full deque would forget its oldest mark.
        self._left = self._seconds_left(now, row["epoch"])
        self._marks.append((now, row["epoch"]))
        if not self._live:
            print(_SEPARATOR.join(self._fields()), file=self._file, flush=True)
            return
        # The wait grows with the run, so that quick epochs leave lines ever more
        # rarely, but never beyond a minute: an epoch that long always leaves one.
        wait = min(60.0, max(5.0, (now - self._began) / 10))
        if now - self._kept_line >= wait:
            self._kept_line = now
            self._write_above(_fit(self._fields(), self._columns()))
            self._draw(now, force=True)
        else:
            self._draw(now)

    def note(self, text: str) -> None:
        """Writes a line that stays, above the live line if there is one."""
        if not self._live:
            print(text, file=self._file, flush=True)
            return
        was_open = self._open
        self._write_above(text)
        if was_open:
            self._draw(self._clock(), force=True)

    def close(self) -> None:
        """Draws the last state and ends the live line, so that a prompt starts afresh.

        A second call does nothing.
        """
        if self._open:
            self._draw(self._clock(), force=True)
            self._file.write("\n")
            self._file.flush()
            self._open = False

    def _seconds_left(self, now: float, position: float) -> float | None:
        """Returns the time of the remaining epochs at the present pace, if known."""
        if position >= self._epochs:
            return None
        pace = self._first_pace
        if self._marks and position > self._marks[0][1]:
            then, earlier = self._marks[0]
            pace = (now - then) / (position - earlier)
        return None if pace is None else pace * (self._epochs - position)

    def _fields(self) -> dict[str, int]:
        """Returns the parts of a line in their order, each with its rank (0 stays)."""
        digits = len(str(self._epochs))
        fields = {f"epoch {self._epoch:>{digits}}/{self._epochs}": 0}
        if self._live:
            done = round(10 * self._within)
            fields["[" + "#" * done + "-" * (10 - done) + "]"] = 8
            fields[f"{math.floor(100 * self._within):3d}%"] = 3
        if (row := self._row) is not None:
            train = f"train {row['train_loss']:.3f} {row['train_accuracy']:.1%}"
            best = f"best {row['best_validation_accuracy']:.1%} at {row['best_epoch']}"
            fields[train] = 5
            fields[f"val {row['validation_accuracy']:.1%} ({best})"] = 1
            fields[f"kept {row['keep_fraction']:.1%}"] = 4
        if self._images_per_second is not None:
            fields[f"{self._images_per_second:,.0f} images/s"] = 6
        if row is not None:
            fields[f"after {humanise_seconds(row['seconds'])}"] = 7
        if self._left is not None:
            # Early stopping may end the run sooner.
            fields[f"at most {humanise_seconds(self._left)} left"] = 2
        return fields

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
            # What was not drawn must still be there for `close` to draw.
            self._open = True
            return
        self._drawn = now
        self._open = True
        self._file.write("\r" + _fit(self._fields(), self._columns()) + _ERASE)
        self._file.flush()

    def _write_above(self, text: str) -> None:
        """Puts a line in the place of the live one, which moves a line down."""
        self._file.write(f"\r{text}{_ERASE}\n")
        self._file.flush()


_SEPARATOR = "  "
_ERASE = "\x1b[K"  # from the cursor to the end of the line


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
