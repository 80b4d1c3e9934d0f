"""Exit codes, and the error that ends a program with one line."""

BAD_INPUT = 2
"""Exit code of anything the person who started the program can mend."""


LOSS_NOT_FINITE = 3
"""Exit code of a run whose loss became NaN or infinite."""


BUDGET_MISSED = 4
"""Exit code of a run that keeps more or fewer weights than it was asked to."""


class BadInput(Exception):
    """Says in one line what was wrong and what would be right."""
