"""Exit codes of the commands, and the error that ends a command with one line."""

import signal

__all__ = [
    "BAD_INPUT",
    "BUDGET_MISSED",
    "EXIT_CODES",
    "INTERRUPTED",
    "LOSS_NOT_FINITE",
    "PROCESS_LOST",
    "BadInput",
    "page_on",
]

BAD_INPUT = 2
"""Exit code of an error that the user can mend."""

LOSS_NOT_FINITE = 3
"""Exit code of a run whose loss became NaN or infinite."""

BUDGET_MISSED = 4
"""Exit code of a run that kept more or fewer weights than its budget."""

PROCESS_LOST = 5
"""Exit code of a process whose run lost another process."""

INTERRUPTED = 128 + signal.SIGINT
"""Exit code after Ctrl-C."""

EXIT_CODES: dict[int, str] = {
    0: "done",
    BAD_INPUT: "bad input, or something that this machine cannot do; one line says "
    "what",
    LOSS_NOT_FINITE: "the loss became NaN or infinite; the last good state is saved",
    BUDGET_MISSED: "the network keeps more or fewer weights than --keep asked for",
    PROCESS_LOST: "another process of a run of several ended; continue with --resume",
    128 + 1: "the terminal was closed (SIGHUP); a training run is saved",
    INTERRUPTED: "stopped by Ctrl-C; a training run is saved",
    128 + signal.SIGTERM: "stopped by SIGTERM; a training run is saved",
}
"""Exit codes of all commands, each with its meaning."""


class BadInput(Exception):
    """Error of one line: what is wrong, and what would be right.

    Attributes:
      page: page of the site that says more, such as `"docs/resuming.md"`, with an
        anchor or without; "" for none.
    """

    def __init__(self, message: str, *, page: str = "") -> None:
        """Takes the message and the page on it.

        Args:
          message: line for a person: the mistake, and a way to mend it.
          page: page of the site that says more; default: none.
        """
        super().__init__(message)
        self.page = page


def page_on(error: BaseException) -> str:
    """Returns the page on an error; "" if there is none.

    An error that was raised again as another has the page of the first, which knows
    more of the cause. Every exception may have a page, as a string `page`.

    Args:
      error: error to print.
    """
    cause = error.__cause__
    found = page_on(cause) if cause is not None else ""
    return found or getattr(error, "page", "")
