"""A grid's folder, whatever its cells are.

A grid is a folder: `grid.json` says what recipe its cells share, `cells/` holds a run
folder for each cell and seed. What is finished is kept, what was cut off goes on.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from aslp_jax._atomic import write_text
from aslp_jax._errors import BadInput
from aslp_jax.trainer.run_folder import writing

FORMAT = 1
"""Of a grid's folder; raised when what is in it changes its meaning."""

RESULT = (
    "stochastic",
    "thresholding",
    "averaging_mean",
    "pruning_change",
    "keep_fraction",
    "budget_miss",
    "connectivity",
    "outputs",
    "outputs_reached",
    "best_epoch",
    "best_validation_accuracy",
    "epochs",
    "seconds",
)
"""What the reports read of a finished run's result.json."""


class Cell(Protocol):
    """A cell of a table: what its runs, which differ in their seed, have in common.

    Attributes:
      name: of its own, fit for the name of a folder.
    """

    @property
    def name(self) -> str: ...

    def options(self, seed: int) -> dict[str, Any]:
        """The options that this cell and a seed stand for."""


class Record(NamedTuple):
    """A finished run.

    Attributes:
      cell: a `Cell` of the grid.
      seed: of the run.
      result: what its result.json holds, `RESULT` at least; of a run whose loss was not
        finite `stochastic` and `diverged`, which says where.
      rows: of its metrics.jsonl, an epoch each.
    """

    cell: Any
    seed: int
    result: dict[str, Any]
    rows: list[dict[str, Any]]


class Grid:
    """A grid's folder.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: Path, recipe: Mapping[str, Any]) -> None:
        """Opens or begins a grid.

        Args:
          path: the folder: missing, empty, or of the same recipe.
          recipe: what its cells share, JSON values.

        Raises:
          BadInput: the folder holds something else, or cannot be written.
        """
        self.path = path
        about = {"format": FORMAT, **recipe}
        file = path / "grid.json"
        with writing(path):
            if path.exists() and not path.is_dir():
                raise BadInput(f"--out {path} is a file; name a folder")
            if not file.exists():
                # What was cut off while it was begun may be begun again.
                held = set(path.iterdir()) if path.is_dir() else set()
                if held - {file.with_name("grid.json.partial")}:
                    raise BadInput(
                        f"--out {path} holds something else; name a new folder"
                    )
                path.mkdir(parents=True, exist_ok=True)
                write_text(file, json.dumps(about, indent=2) + "\n")
                return
            try:
                found = _flat(dict(json.loads(file.read_text())))
            except (ValueError, TypeError):
                raise BadInput(f"{file} is damaged; name another --out") from None
        wanted = _flat(about)
        for name in sorted({*wanted, *found}):
            if wanted.get(name) != found.get(name):
                raise BadInput(
                    f"--out {path} holds a grid with {name} {found.get(name)!r}, not "
                    f"{wanted.get(name)!r}; name another --out for this one"
                )

    def folder(self, cell: Cell, seed: int) -> Path:
        """The run folder of a cell and seed."""
        return self.path / "cells" / f"{cell.name}-seed{seed}"

    def record(self, cell: Cell, seed: int) -> Record | None:
        """Returns what is known of a finished run, None of another.

        Raises:
          BadInput: its files are damaged.
        """
        return _read_record(self.folder(cell, seed), cell, seed)

    def records(self, cells: Iterable[Cell]) -> list[Record]:
        """Returns what is known of all finished runs; see `read_records`."""
        return read_records(self.path, cells)


def _flat(about: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Nested JSON values by their path, such as "aslp mask_lr"."""
    flat: dict[str, Any] = {}
    for name, value in about.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{start}{name} ")
        else:
            flat[start + name] = value
    return flat


def read_records(path: Path, cells: Iterable[Cell]) -> list[Record]:
    """Returns what is known of all finished runs of a grid, in the order of its cells.

    Args:
      path: the grid's folder.
      cells: that it may hold.

    Raises:
      BadInput: the files of a run are damaged.
    """
    found = {folder.name: folder for folder in (path / "cells").glob("*-seed*")}
    records = []
    for cell in cells:
        start = f"{cell.name}-seed"
        numbers = [name[len(start) :] for name in found if name.startswith(start)]
        # Only names that a grid gives: not 007, which is another folder than 7.
        for seed in sorted(
            int(number)
            for number in numbers
            if number.isdecimal() and str(int(number)) == number
        ):
            record = _read_record(found[f"{start}{seed}"], cell, seed)
            if record is not None:
                records.append(record)
    return records


def results_of(records: Iterable[Record]) -> dict[tuple[Any, int], dict[str, Any]]:
    """Returns results by cell and seed, of the runs whose loss stayed finite."""
    return {
        (record.cell, record.seed): record.result
        for record in records
        if "diverged" not in record.result
    }


def _read_record(folder: Path, cell: Cell, seed: int) -> Record | None:
    """What is known of a finished run, None of another."""
    if not (folder / "result.json").exists():
        return None
    try:
        result = dict(json.loads((folder / "result.json").read_text()))
        needed = ("stochastic",) if "diverged" in result else RESULT
        if missing := [name for name in needed if name not in result]:
            raise ValueError(f"no {missing}")
        metrics = folder / "metrics.jsonl"
        # A run that diverged in its first epoch has none.
        lines = metrics.read_text().splitlines() if metrics.exists() else []
        return Record(cell, seed, result, [json.loads(line) for line in lines])
    except (OSError, ValueError, TypeError):
        raise BadInput(
            f"{folder} is damaged; delete it, and the run is made anew"
        ) from None
