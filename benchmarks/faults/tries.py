"""Tries: what a kind of fault is, and what a try may find."""

import dataclasses
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

LOST, TRACEBACK, WRONG = "lost", "traceback", "wrong"
"""What a failed try has found: lost data, a traceback, or anything else."""


class Failure(Exception):
    """Something that must not happen.

    Attributes:
      found: one of `LOST`, `TRACEBACK` and `WRONG`.
    """

    def __init__(self, found: str, text: str) -> None:
        """Says what was found.

        Args:
          found: one of `LOST`, `TRACEBACK` and `WRONG`.
          text: description for people.
        """
        super().__init__(text)
        self.found = found


@dataclasses.dataclass(frozen=True)
class Workshop:
    """Folder that all tries share, made once a campaign.

    Attributes:
      path: folder with `digits.npz`, the undisturbed runs and compiled programs.
      sound: folder of one worker, for the sound files that it damages copies of.
      seconds: wall time of the undisturbed run with compiled programs.
    """

    path: Path
    sound: Path
    seconds: float


Attempt = Callable[[Workshop, np.random.Generator, Path], str]
"""One try in an empty folder; returns a line about it, or raises `Failure`."""


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of fault.

    Attributes:
      name: name for `--kinds` and in the table.
      about: description in one line.
      attempt: makes one try.
      turn: tries a turn; a kind of quick tries has more.
      limit: seconds after which a try counts as hung.
      processes: True if tries compare with the undisturbed run.
      once: True for one try a campaign, if the campaign is long or names the kind.
      missing: function that returns what this machine lacks for the kind, or None.
    """

    name: str
    about: str
    attempt: Attempt
    turn: int = 1
    limit: float = 3600.0
    processes: bool = False
    once: bool = False
    missing: Callable[[], str | None] = lambda: None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """Outcome of a try.

    Attributes:
      kind: name of the kind.
      number: number of the try, from 0.
      seconds: wall time.
      about: line about the try, or about what it found.
      found: one of `LOST`, `TRACEBACK` and `WRONG`; None if all was as it should be.
    """

    kind: str
    number: int
    seconds: float
    about: str
    found: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Returns the outcome as JSON values."""
        return dataclasses.asdict(self)


def generator(seed: int, kind: str, number: int) -> np.random.Generator:
    """Returns the random generator of a try: the same whenever the try is made."""
    return np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
