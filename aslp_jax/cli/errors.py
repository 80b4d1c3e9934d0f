"""End of a program: one line for an error, and an exit code."""

import io
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from aslp_jax._errors import BAD_INPUT, EXIT_CODES, INTERRUPTED, BadInput
from aslp_jax._extras import MissingExtra

__all__ = ["command_name", "exit_code_lines", "program_name", "run", "run_script"]


def program_name() -> str:
    """Returns the name that messages begin with: `aslp-jax`, or a script's own."""
    name = Path(sys.argv[0]).name
    return name if name.endswith(".py") and name != "__main__.py" else "aslp-jax"


def command_name(command: str) -> str:
    """Returns the name that `--help` shows: `aslp-jax COMMAND`, or a script's own.

    Args:
      command: name of the command, such as `"train"`.
    """
    name = program_name()
    return name if name.endswith(".py") else f"{name} {command}"


def exit_code_lines(codes: Iterable[int] = tuple(EXIT_CODES)) -> str:
    """Returns the list of exit codes for `--help`, with a heading.

    Args:
      codes: exit codes of the program; default: all.
    """
    lines = [f"  {code:<4} {EXIT_CODES[code]}" for code in codes]
    return "\n".join(["exit codes:", *lines])


def run(main: Callable[[Sequence[str]], int], arguments: Sequence[str]) -> int:
    """Runs a program and turns an error that a person can mend into one line.

    Args:
      main: function from a command line to an exit code.
      arguments: command line without the program's name.

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
    """Runs a program on the command line of this process, and ends the process.

    Args:
      main: function from a command line to an exit code.
    """
    sys.exit(run(main, sys.argv[1:]))
