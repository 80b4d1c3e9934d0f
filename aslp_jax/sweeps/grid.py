"""Folder of a grid, for cells of any kind.

`grid.json` holds the settings that all cells share, and `cells/` a run folder for each
cell and seed. A finished run is kept, and an interrupted run is continued.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from aslp_jax._atomic import write_text
from aslp_jax._claim import claim_soon, is_lock
from aslp_jax._errors import BadInput
from aslp_jax._json import Unreadable, matches, parse, read_bytes
from aslp_jax._json import read as read_json
from aslp_jax.trainer.results import RunResult
from aslp_jax.trainer.run_folder import LONGEST_METRICS, writing

_CONTINUING = "docs/table1.md#stopping-and-continuing"
"""Page of the site on folders of grids."""

_DAMAGED = "docs/what_can_go_wrong.md#damaged-files"
"""Page of the site on damaged files."""

FORMAT = 1
"""Version of the folder's layout; a higher number gives its files another meaning."""

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
"""Keys of a finished run's result.json that the reports read."""


class Cell(Protocol):
    """Cell of a table: the options that runs of several seeds have in common."""

    @property
    def name(self) -> str:
        """Name that no other cell has, fit for a folder."""

    def options(self, seed: int) -> dict[str, Any]:
        """Returns the options by which a run of this cell differs from others.

        Args:
          seed: seed of the run.
        """


class Record(NamedTuple):
    """Finished run.

    Attributes:
      cell: a `Cell` of the grid.
      seed: seed of the run.
      result: content of result.json, with the keys of `RESULT` at least; for a run
        whose loss was not finite, `stochastic` and `diverged` (the reason).
      rows: content of metrics.jsonl, one row an epoch.
    """

    cell: Any
    seed: int
    result: dict[str, Any]
    rows: list[dict[str, Any]]

    @property
    def diverged(self) -> bool:
        """True if the loss of the run was not finite."""
        return "diverged" in self.result

    @property
    def stochastic(self) -> bool:
        """True if the method of the run samples masks."""
        return self.result["stochastic"]

    @property
    def validation_accuracies(self) -> list[float]:
        """Validation accuracy of each epoch, in [0, 1]."""
        return [row["validation_accuracy"] for row in self.rows]


class Grid:
    """Folder of a grid.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Opens or begins a grid.

        Args:
          path: folder that is missing, empty, or of the same settings.
          settings: everything that the cells share, as JSON values.

        Raises:
          BadInput: the folder holds something else, or cannot be written.
        """
        self.path = path
        about = {"format": FORMAT, **settings}
        file = path / "grid.json"
        with writing(path):
            if path.exists() and not path.is_dir():
                raise BadInput(
                    f"--out {path} is a file; name a folder",
                    page=_CONTINUING,
                )
            if not file.exists():
                # A beginning that was interrupted may be made again.
                present = set(path.iterdir()) if path.is_dir() else set()
                if any(
                    not each.name.startswith("grid.json.") and not is_lock(each.name)
                    for each in present
                ):
                    raise BadInput(
                        f"--out {path} holds something else; name a new folder",
                        page=_CONTINUING,
                    )
                path.mkdir(parents=True, exist_ok=True)
                write_text(file, json.dumps(about, indent=2) + "\n")
                return
            try:
                found = read_json(file)
            except Unreadable:
                raise BadInput(
                    f"{file} is damaged; name another --out",
                    page=_DAMAGED,
                ) from None
        compare_settings(found, about, flag="--out", place=str(path))

    def folder(self, cell: Cell, seed: int) -> Path:
        """Returns the run folder of a cell and seed."""
        return self.path / "cells" / f"{cell.name}-seed{seed}"

    def record(self, cell: Cell, seed: int) -> Record | None:
        """Reads a finished run.

        Args:
          cell: cell of the run.
          seed: seed of the run.

        Returns:
          The run; None if it is not finished.

        Raises:
          BadInput: the files of the run are damaged.
        """
        return _read_record(self.folder(cell, seed), cell, seed)

    def records(self, cells: Iterable[Cell]) -> list[Record]:
        """Reads all finished runs of some cells; see `read_records`."""
        return read_records(self.path, cells)


def compare_settings(
    found: Mapping[str, Any], wanted: Mapping[str, Any], *, flag: str, place: str
) -> None:
    """Checks that the grid in a place has the wanted settings.

    Args:
      found: content of its grid.json.
      wanted: content that grid.json would have.
      flag: flag that names the place, for the message.
      place: folder or URI of the grid, for the message.

    Raises:
      BadInput: a setting differs.
    """
    ours, theirs = _flatten(wanted), _flatten(found)
    for name in sorted({*ours, *theirs}):
        if ours.get(name) != theirs.get(name):
            raise BadInput(
                f"{flag} {place} holds a grid with {name:.80} "
                f"{theirs.get(name)!r:.200}, not {ours.get(name)!r}; name another "
                f"{flag} for this one",
                page=_CONTINUING,
            )


def open_shared(path: Path, settings: Mapping[str, Any]) -> Grid:
    """Opens or begins a grid that other processes may begin at the same moment.

    Args:
      path: folder that is missing, empty, or of the same settings.
      settings: everything that the cells share, as JSON values.

    Raises:
      BadInput: the folder holds something else, or cannot be written.
    """
    if (path / "grid.json").exists():
        return Grid(path, settings)
    with writing(path), claim_soon(path):
        return Grid(path, settings)


def read_settings(path: Path) -> dict[str, Any]:
    """Reads the settings that the cells of a grid share.

    Args:
      path: folder of the grid.

    Raises:
      BadInput: the folder holds no grid, or grid.json is damaged.
    """
    file = path / "grid.json"
    if not file.exists():
        raise BadInput(
            f"{path} is not the folder of a grid: no grid.json",
            page=_CONTINUING,
        )
    try:
        return read_json(file)
    except (OSError, Unreadable):
        raise BadInput(f"{file} is damaged", page=_DAMAGED) from None


def read_records(path: Path, cells: Iterable[Cell]) -> list[Record]:
    """Reads all finished runs of some cells.

    Args:
      path: folder of the grid.
      cells: cells that the folder may hold.

    Returns:
      The runs in the order of the cells, then of the seeds.

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


def results_by_run(records: Iterable[Record]) -> dict[tuple[Any, int], dict[str, Any]]:
    """Returns the results of runs whose loss stayed finite, by cell and seed."""
    return {
        (record.cell, record.seed): record.result
        for record in records
        if not record.diverged
    }


def _flatten(about: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Returns nested JSON values by their path, such as "aslp mask_lr"."""
    flat: dict[str, Any] = {}
    for name, value in about.items():
        if isinstance(value, dict):
            flat |= _flatten(value, f"{start}{name} ")
        else:
            flat[start + name] = value
    return flat


def _read_record(folder: Path, cell: Cell, seed: int) -> Record | None:
    """Reads a finished run; returns None if it is not finished."""
    if not (folder / "result.json").exists():
        return None
    try:
        result = read_json(folder / "result.json")
        needed = ("stochastic",) if "diverged" in result else RESULT
        RunResult.from_json(result, needed=needed)  # each value is of its type
        metrics = folder / "metrics.jsonl"
        # A run that diverged in its first epoch has none.
        lines = read_bytes(metrics, LONGEST_METRICS) if metrics.exists() else b""
        rows = {row["epoch"]: row for row in map(parse, lines.splitlines())}
        kinds = {"epoch": int, "validation_accuracy": float}
        for row in rows.values():
            if not all(matches(row.get(key), kind) for key, kind in kinds.items()):
                raise ValueError(f"no numbers {', '.join(kinds)}")
        return Record(cell, seed, result, list(rows.values()))
    except (OSError, ValueError, LookupError, TypeError):
        raise BadInput(
            f"{folder} is damaged; delete it, and the run is made anew",
            page=_DAMAGED,
        ) from None
