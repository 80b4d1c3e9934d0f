"""Command line of a grid, without what only one job of it was given."""

import sys
from collections.abc import Collection, Iterable
from pathlib import Path

from aslp_jax.trainer.run_folder import typed

__all__ = ["given", "without"]


def given() -> str:
    """Returns the command of this process as a person types it, for the whole grid.

    A job repeats the command of its grid with `--job N`, which is left out.
    """
    return typed([Path(sys.argv[0]).name, *without(sys.argv[1:], ("--job",))])


def without(arguments: Iterable[str], flags: Collection[str]) -> list[str]:
    """Returns a command line without some flags.

    Args:
      arguments: words of the command line.
      flags: flags that take one value, in the same word or in the next.
    """
    kept, skip = [], False
    for word in arguments:
        if skip:
            skip = False
        elif word in flags:
            skip = True
        elif word.partition("=")[0] not in flags:
            kept.append(word)
    return kept
