"""Tables of numbers as CSV files, alike on every system."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_csv(
    path: Path, lines: Sequence[Mapping[str, Any]], names: Sequence[str] | None = None
) -> None:
    """Writes lines as a CSV file with a head.

    Args:
      path: file to write; its folder is created if it is missing.
      lines: lines, each with the same names.
      names: names in the order of the columns; None takes those of the first line,
        which must then be there.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w", newline="", encoding="utf-8") as file:
        columns = list(lines[0]) if names is None else names
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(lines)


def read_csv(path: Path) -> list[dict[str, str]]:
    """Returns the lines of a CSV file with a head, each by name.

    Args:
      path: file to read.
    """
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))
