"""The end of a program: one line for an error, and an exit code."""

import io
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NoReturn

from aslp_jax._errors import BAD_INPUT, BadInput
from aslp_jax._extras import MissingExtra

INTERRUPTED = 128 + signal.SIGINT
"""Exit code of a program that Ctrl-C ended; one that was training saved before."""


def program_name() -> str:
    """Returns the name that messages begin with: `aslp-jax`, or a script's own."""
    name = Path(sys.argv[0]).name
    return name if name.endswith(".py") and name != "__main__.py" else "aslp-jax"


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Runs a program and turns an error that a person can mend into one line.

    Args:
      main: from a command line to an exit code.
      arguments: the command line without the program's name.

    Returns:
      The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without a plus-minus sign
    try:
        return main(arguments)
    except (BadInput, MissingExtra) as error:
        print(f"{program_name()}: {' '.join(str(error).split())}", file=sys.stderr)
        return BAD_INPUT
    except KeyboardInterrupt:
        # Outside of training, which has a handler of its own.
        print(f"{program_name()}: interrupted", file=sys.stderr)
        return INTERRUPTED


def run_script(main: Callable[[Sequence[str]], int]) -> NoReturn:
    """Runs a program on the command line of this process, and ends the process."""
    sys.exit(run(main, sys.argv[1:]))
