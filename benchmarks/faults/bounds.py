"""Bounds of a try in this process: time, memory, and one line for an error."""

import contextlib
import io
import signal
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from benchmarks.faults.tries import TRACEBACK, WRONG, Failure

SECONDS = 20.0
"""Most processor time that reading one file may take; other work does not count."""

MEGABYTES = 64.0
"""Most memory that reading one file of less than 1 MB may take."""

_LONGEST_LINE = 2000
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


class _Late(BaseException):
    """Alarm; no handler of errors takes it for one."""


@contextlib.contextmanager
def bounded(about: str, megabytes: float = MEGABYTES) -> Iterator[None]:
    """Bounds time and memory of the block.

    Where the system does not tell the peak of a process, memory is not bounded.

    Args:
      about: words on the try, for the failure.
      megabytes: most growth of the peak of resident memory.

    Raises:
      Failure: the block took too long, or too much memory, or raised it.
    """

    def ring(*_: object) -> None:
        raise _Late

    before, old = _peak(reset=True), signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, SECONDS)
    try:
        yield
    except _Late:
        text = f"{about}: not done after {SECONDS:.0f} s"
        raise Failure(WRONG, text) from None
    except Failure as failure:
        raise Failure(failure.found, f"{about}: {failure}") from None
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, old)
    grown = _peak() - before
    if grown > megabytes:
        raise Failure(WRONG, f"{about}: took {grown:.0f} MB")


def _peak(*, reset: bool = False) -> float:
    """Returns the peak of resident memory in MB since the last reset."""
    try:
        if reset:
            _CLEAR.write_text("5")
        [line] = [x for x in _STATUS.read_text().splitlines() if x.startswith("VmHWM")]
        return int(line.split()[1]) * 1024 / 1e6
    except (OSError, ValueError):
        return 0.0


def attempt(
    read: Callable[[], Any], errors: tuple[type[Exception], ...], *, start: str = ""
) -> Any:
    """Reads something; an error must be one line of an expected type.

    Args:
      read: function that reads.
      errors: types that the caller of `read` turns into one line.
      start: beginning of the line.

    Returns:
      What was read; None after such an error.

    Raises:
      Failure: another error came, or an error that is not one line.
    """
    try:
        return read()
    except errors as error:
        text = str(error)
        if len(text) > _LONGEST_LINE or not text.startswith(start):
            raise Failure(WRONG, f"{type(error).__name__}: {text[:500]}") from None
        if not text or len(text.splitlines()) != 1:
            raise Failure(WRONG, f"not one line: {text[:500]!r}") from None
        return None
    except Failure:
        raise
    except Exception:
        raise Failure(TRACEBACK, traceback.format_exc(limit=-6)) from None


def command(arguments: list[str]) -> tuple[int, str, str]:
    """Runs a command of the library in this process.

    Returns:
      Its exit code, and the texts that it printed.

    Raises:
      Failure: it raised an error.
    """
    from aslp_jax.cli.main import main

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(arguments)
        except SystemExit as stop:
            code = int(stop.code or 0)
        except Exception:
            raise Failure(TRACEBACK, traceback.format_exc(limit=-6)) from None
    return code, out.getvalue(), err.getvalue()
