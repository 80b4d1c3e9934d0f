"""End of a program: one line for an error, and an exit code."""

import importlib
import os
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NoReturn

from aslp_jax._errors import BAD_INPUT, EXIT_CODES, INTERRUPTED, BadInput, page_on
from aslp_jax._extras import MissingExtra
from aslp_jax.cli._display import lasting_display
from aslp_jax.trainer.signals import Interrupted, interruptible

__all__ = [
    "command_name",
    "exit_code_lines",
    "program_name",
    "run",
    "run_script",
    "say",
    "shell_name",
]

_OUTSIDE = "docs/what_can_go_wrong.md#output-disk-or-device-fails"
"""Page on what the machine does not give."""


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


def shell_name() -> str:
    """Returns the word that starts `aslp-jax` in the shell of this process.

    A program that was started by its path, such as `.venv/bin/aslp-jax`, is named by
    this path where the bare name would start none, or another one.
    """
    own = sys.argv[0]
    if Path(own).name != "aslp-jax":
        return "aslp-jax"
    found = shutil.which("aslp-jax")
    if found is not None and os.path.exists(own) and os.path.samefile(found, own):
        return "aslp-jax"
    return shlex.quote(own)


def exit_code_lines(codes: Iterable[int] = tuple(EXIT_CODES)) -> str:
    """Returns the list of exit codes for `--help`, with a heading.

    Args:
      codes: exit codes of the program; default: all.
    """
    lines = [f"  {code:<4} {EXIT_CODES[code]}" for code in codes]
    return "\n".join(["exit codes:", *lines])


def run(
    main: Callable[[Sequence[str]], int] | str,
    arguments: Sequence[str],
    *,
    ends_process: bool = False,
) -> int:
    """Runs a program and turns an error that a person can mend into one line.

    From its first line on, a signal ends it with one line too; what it shows may go
    nowhere; and matplotlib, which only writes files here, opens no window.

    Args:
      main: function from a command line to an exit code; or the name of the module of
        this package that has it, which is then imported.
      arguments: command line without the program's name.
      ends_process: True if the process ends with this exit code; a signal that comes
        later then changes nothing.

    Returns:
      The exit code.
    """
    with lasting_display():
        try:
            with interruptible(ends_process=ends_process):
                os.environ["MPLBACKEND"] = "agg"
                if not isinstance(main, str):
                    return main(arguments)
                return importlib.import_module(f"aslp_jax.cli.{main}").main(arguments)
        except (BadInput, MissingExtra) as error:
            say(str(error), page=page_on(error))
        except OSError as error:
            say(_describe(error), page=_OUTSIDE)
        except (AssertionError, MemoryError, RuntimeError) as error:
            message = _missing_resource(error)
            if message is None:
                raise
            say(message, page=_OUTSIDE)
        except Interrupted as stop:
            # Training says itself what is saved.
            say(f"stopped by {stop}")
            return 128 + stop.number
        except KeyboardInterrupt:
            say("interrupted")
            return INTERRUPTED
        return BAD_INPUT


def say(text: str, *, page: str = "") -> None:
    """Prints an error in one line, after the name of the program.

    Args:
      text: message; its line breaks become spaces.
      page: page of the site that says more; default: none.
    """
    more = f"; see {page}" if page else ""
    print(f"{program_name()}: {' '.join(text.split())}{more}", file=sys.stderr)


def _describe(error: OSError) -> str:
    """Returns an error of the file system or the network that nothing foresaw."""
    if error.strerror is None or error.filename is None:
        return f"{type(error).__name__}: {error}"
    return f"cannot use {os.fsdecode(error.filename)}: {error.strerror}"


def _missing_resource(error: Exception) -> str | None:
    """Returns what this machine lacks; None for a mistake in the code."""
    if isinstance(error, MemoryError):
        return f"out of memory: {str(error) or 'an allocation failed'}"
    jax = sys.modules.get("jax")
    if jax is None:
        return None
    if isinstance(error, jax.errors.JaxRuntimeError):
        first, *_ = f"{error}\n".splitlines()
        return f"JAX cannot do this here: {first}"
    try:
        jax.default_backend()
    except (AssertionError, RuntimeError) as no_device:
        platforms = os.environ.get("JAX_PLATFORMS", "")
        return f"JAX has no device here (JAX_PLATFORMS={platforms}) {no_device}"
    return None


def run_script(main: Callable[[Sequence[str]], int] | str) -> NoReturn:
    """Runs a program on the command line of this process, and ends the process.

    Args:
      main: see `run`.
    """
    sys.exit(run(main, sys.argv[1:], ends_process=True))
