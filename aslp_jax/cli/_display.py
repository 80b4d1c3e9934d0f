"""Standard output and error that may go away: a closed pipe, no terminal, nothing."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator
from typing import Any, TextIO


class Display:
    """Text stream that swallows what nobody reads any more.

    A program's work goes on without its display: `| head` has seen enough, the terminal
    was closed, or the disk behind a log is full.
    """

    def __init__(self, stream: TextIO) -> None:
        """Wraps a stream; whatever is not said here is that stream's own.

        Args:
          stream: standard output or error.
        """
        self._stream = stream

    def write(self, text: str) -> int:
        """Writes text, if the stream can still be written.

        Args:
          text: text to write.

        Returns:
          The number of characters.
        """
        try:
            self._stream.write(text)
        except OSError:
            self._give_up()
        return len(text)

    def flush(self) -> None:
        """Writes what is held back, if the stream can still be written."""
        try:
            self._stream.flush()
        except OSError:
            self._give_up()

    def _give_up(self) -> None:
        """Sends what follows nowhere, also what other libraries write."""
        # What is held back would be tried again at the end of the process, with a
        # message of the interpreter and an exit code of its own.
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the stream."""
        return getattr(self._stream, name)


@contextlib.contextmanager
def lasting_display() -> Iterator[None]:
    """Makes standard output and error streams that never raise.

    A character that the terminal does not know becomes a question mark. A stream that
    was closed before the program began leads nowhere; otherwise the next file that the
    program opens would take its number, and libraries would write their messages there.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the smallest number that is free
    before = sys.stdout, sys.stderr
    with open(os.devnull, "w", encoding="utf-8") as nowhere:
        out, err = (stream or nowhere for stream in before)
        for stream, errors in ((out, "replace"), (err, "backslashreplace")):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors=errors)
        sys.stdout, sys.stderr = Display(out), Display(err)  # type: ignore[assignment]
        try:
            yield
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            sys.stdout, sys.stderr = before
