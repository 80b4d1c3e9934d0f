"""Signals that end a program: at once, or in training after the state is saved."""

import _thread
import atexit
import contextlib
import math
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any

__all__ = ["STOPPING", "Interrupted", "Signals", "interruptible"]

STOPPING = tuple(
    getattr(signal, name)
    for name in ("SIGINT", "SIGTERM", "SIGHUP")
    if hasattr(signal, name)
)
"""Signals that end a program: Ctrl-C, a job manager, a terminal that was closed."""


class Interrupted(KeyboardInterrupt):
    """A signal or the clock ended the program; what was begun is saved.

    A `KeyboardInterrupt`, because libraries let that one through wherever it comes.

    Attributes:
      number: number of the signal; 0 for the clock.
    """

    def __init__(self, number: int) -> None:
        """Names the signal or the time limit.

        Args:
          number: number of the signal; 0 for the clock.
        """
        super().__init__(signal.Signals(number).name if number else "the time limit")
        self.number = number


class Signals:
    """Watch for signals and the clock, for training: the second signal kills.

    Attributes:
      received: number of the first signal; 0 before any.
    """

    def __init__(self, deadline: float = math.inf) -> None:
        """Sets the time limit.

        Args:
          deadline: time by `time.monotonic()` from which a stop is requested, in
            seconds; default: never.
        """
        self.received = 0
        self._deadline = deadline

    @property
    def stop_requested(self) -> bool:
        """True after a signal or past the deadline."""
        return self.received != 0 or time.monotonic() >= self._deadline

    def check(self) -> None:
        """Raises `Interrupted` if a stop is requested."""
        if self.stop_requested:
            raise Interrupted(self.received)

    def __enter__(self) -> "Signals":
        """Replaces the handlers of the signals."""
        self._old = _replace_handlers(self._note)
        if _seen:
            self.received = _seen[-1]
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        """Puts the earlier handlers back, and raises a signal that came too late."""
        _restore_handlers(self._old)
        if kind is None and self.received:
            raise Interrupted(self.received)

    def _note(self, number: int, frame: Any) -> None:
        self.received = number
        _let_next_kill(self._old)


_seen: list[int] = []
"""Signals that were raised and have not reached `interruptible`; of the process.

An extension module that is interrupted while it loads raises an ImportError.
"""

_RETRY_SECONDS = 0.05
"""Time until a signal that nobody could raise is raised once more."""


@contextlib.contextmanager
def interruptible(*, ends_process: bool = False) -> Iterator[None]:
    """Raises `Interrupted` wherever the program is when a signal comes.

    For all that a program does before and after training. The second signal kills.
    Extension modules are better imported within `Signals`: some print a traceback if
    they are interrupted while they load.

    Args:
      ends_process: True to ignore signals afterwards, because the process is about to
        end with its exit code; default: the earlier handlers are put back.

    Raises:
      Interrupted: a signal came.
    """

    def stop(number: int, frame: Any) -> None:
        _let_next_kill(old)
        _seen.append(number)
        raise Interrupted(number)

    def stop_again(number: int, frame: Any) -> None:
        signal.signal(number, signal.SIG_DFL)
        raise Interrupted(number)

    def retry(unraisable: Any) -> None:
        """Raises a signal again that came in a destructor, or while JAX tidies up."""
        if not isinstance(unraisable.exc_value, Interrupted):
            return report(unraisable)
        number = unraisable.exc_value.number
        signal.signal(number, stop_again)
        again.append(threading.Timer(_RETRY_SECONDS, _thread.interrupt_main, [number]))
        again[-1].daemon = True
        again[-1].start()

    again: list[threading.Timer] = []
    old = _replace_handlers(stop)
    report, sys.unraisablehook = sys.unraisablehook, retry
    try:
        yield
    except Interrupted:
        _seen.clear()
        raise
    except BaseException as error:
        if _seen:
            raise Interrupted(_seen.pop()) from error
        raise
    finally:
        for timer in again:
            timer.cancel()
        sys.unraisablehook = report
        _restore_handlers(dict.fromkeys(old, _do_nothing) if ends_process else old)
        if ends_process:
            # Python puts the handlers of the system back shortly before its end.
            atexit.register(_restore_handlers, dict.fromkeys(old, signal.SIG_IGN))
    if _seen:
        raise Interrupted(_seen.pop())


def _do_nothing(number: int, frame: Any) -> None:
    """Handles a signal that comes too late."""


def _let_next_kill(numbers: Iterable[int]) -> None:
    # A job manager may send one stop twice; only a later signal is the second.
    time.sleep(0.3)
    for number in numbers:
        signal.signal(number, signal.SIG_DFL)


def _replace_handlers(handler: Callable[[int, Any], None]) -> dict[int, Any]:
    """Sets a handler for the signals that are not ignored; returns the earlier ones."""
    old: dict[int, Any] = {}
    for number in STOPPING:
        # `nohup`, or a shell that started this in the background, ignores on purpose.
        if signal.getsignal(number) is signal.SIG_IGN:
            continue
        try:
            old[number] = signal.signal(number, handler)
        except ValueError:  # not the main thread, which alone gets signals
            break
    return old


def _restore_handlers(old: dict[int, Any]) -> None:
    for number, handler in old.items():
        signal.signal(number, handler)
