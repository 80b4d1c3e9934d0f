"""Exit codes of the commands, and the error that ends a command with one line."""

BAD_INPUT = 2
"""Exit code of an error that the user can mend."""


LOSS_NOT_FINITE = 3
"""Exit code of a run whose loss became NaN or infinite."""


BUDGET_MISSED = 4
"""Exit code of a run that kept more or fewer weights than its budget."""


class BadInput(Exception):
    """Error of one line: what is wrong, and what would be right."""
