"""The cells of a grid, its recipe and its folder.

A grid is a folder: `grid.json` says what recipe its cells share, `cells/` holds a run
folder for each cell and seed. What is finished is kept, what was cut off goes on.
"""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from config import FIELDS, PRESETS, RESCALES, BadInput, Config, knows, resolve
from folder import replace_text, writing

FORMAT = 1
"""Of a grid's folder; raised when what is in it changes its meaning."""

_STOPPING = ("epochs", "patience")
"""Options that may change when one run is resumed, but not within a table."""

ARCHS = ("conv2", "conv4", "conv6")
"""The networks of the paper's table."""

AXES = ("arch", "augment", "method", "rescale", "signed_constant", "seed")
"""The options in which the cells and seeds of a grid differ."""


RESULT = (
    "stochastic",
    "thresholding",
    "averaging_mean",
    "keep_fraction",
    "best_epoch",
    "best_validation_accuracy",
    "epochs",
    "seconds",
)
"""What the reports read of a finished run's result.json."""


@dataclasses.dataclass(frozen=True)
class Cell:
    """One cell of the table.

    Attributes:
      arch: name of the network.
      augment: whether training images are cropped and flipped.
      method: how weights are selected.
      rescale: of that method.
      signed_constant: whether all weights of a layer have one magnitude.
    """

    arch: str
    augment: bool
    method: str
    rescale: str
    signed_constant: bool

    @property
    def name(self) -> str:
        """Such as `conv4-augmented-aslp-smart-sc`."""
        images = "augmented" if self.augment else "plain"
        weights = "sc" if self.signed_constant else "normal"
        return f"{self.arch}-{images}-{self.method}-{self.rescale}-{weights}"

    def options(self, seed: int) -> dict[str, Any]:
        """The options that this cell and a seed stand for."""
        return {
            **dataclasses.asdict(self),
            "signed_constant": "all" if self.signed_constant else "none",
            "seed": seed,
        }


def all_cells() -> list[Cell]:
    """Returns every cell that means something, those of a network side by side."""
    return [
        Cell(arch, augment, method, rescale, constant)
        for arch, constant, augment, (method, rescales) in itertools.product(
            ARCHS,
            (True, False),
            (True, False),
            RESCALES.items(),
        )
        for rescale in rescales
    ]


class Record(NamedTuple):
    """A finished run.

    Attributes:
      cell: of the grid.
      seed: of the run.
      result: what its result.json holds, `RESULT` at least; of a run whose loss was not
        finite `stochastic` and `diverged`, which says where.
      rows: of its metrics.jsonl, an epoch each.
    """

    cell: Cell
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
                replace_text(file, json.dumps(about, indent=2) + "\n")
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

    def records(self) -> list[Record]:
        """Returns what is known of all finished runs; see `read_records`."""
        return read_records(self.path)


def _flat(about: Mapping[str, Any], start: str = "") -> dict[str, Any]:
    """Nested JSON values by their path, such as "aslp mask_lr"."""
    flat: dict[str, Any] = {}
    for name, value in about.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{start}{name} ")
        else:
            flat[start + name] = value
    return flat


def read_records(path: Path) -> list[Record]:
    """Returns what is known of all finished runs of a grid, in the order of its cells.

    Args:
      path: the grid's folder.

    Raises:
      BadInput: the files of a run are damaged.
    """
    found = {folder.name: folder for folder in (path / "cells").glob("*-seed*")}
    records = []
    for cell in all_cells():
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


def configure(
    preset: str | None, chosen: Mapping[str, Any], cell: Cell, seed: int
) -> Config:
    """Returns the options of one run of a grid.

    Args:
      preset: its name, or None.
      chosen: the options that all cells share.
      cell: of the grid.
      seed: of the run.

    Raises:
      BadInput: a value, or a combination of values, that means nothing.
    """
    own = cell.options(seed)
    if cell.signed_constant:  # of all layers, or of those that the preset says
        constant = PRESETS.get(preset or "", {}).get("signed_constant", "none")
        own["signed_constant"] = "all" if constant == "none" else constant
    shared = {name: value for name, value in chosen.items() if knows(cell.method, name)}
    return resolve(preset, {**shared, **own})


def recipe(preset: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns all that the runs of a method share, by method, as JSON values.

    Under `plain` are the options that differ where images are not augmented.

    Args:
      preset: its name, or None.
      chosen: the options that all cells share.
    """

    def shared(method: str, augment: bool) -> dict[str, Any]:
        cell = Cell("conv2", augment, method, RESCALES[method][0], True)
        return {
            name: value
            for name, value in configure(preset, chosen, cell, 0).as_dict().items()
            # One answer for all cells with signed constants: which layers have them.
            if name not in AXES or name == "signed_constant"
            if name in _STOPPING or not FIELDS[name].metadata.get("free")
        }

    found: dict[str, Any] = {}
    for method in RESCALES:
        augmented, plain = shared(method, True), shared(method, False)
        differing = {
            name: value for name, value in plain.items() if value != augmented[name]
        }
        found[method] = augmented | ({"plain": differing} if differing else {})
    return found
