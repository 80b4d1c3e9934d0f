"""Finished runs that tests of grids make up."""

import contextlib
import dataclasses
import json

import jax

from aslp_jax.data import datasets
from aslp_jax.sweeps.grid import RESULT, Cell, Grid, Record
from aslp_jax.sweeps.table1 import cells

ASLP = cells.Cell("conv4", True, "aslp", "smart", True)


def write_run(grid: Grid, cell: Cell, seed: int, rows=None, **result) -> None:
    """Writes the files of a finished run that the reports read."""
    path = grid.folder(cell, seed)
    path.mkdir(parents=True)
    counts = dict.fromkeys(("outputs", "outputs_reached", "best_epoch", "epochs"), 1)
    others = {"stochastic": True, "connectivity": {}}
    whole = {**dict.fromkeys(RESULT, 0.5), **counts, **others, **result}
    (path / "result.json").write_text(json.dumps(whole))
    rows = [{"epoch": 1, "validation_accuracy": 0.5}] if rows is None else rows
    lines = "".join(json.dumps(row) + "\n" for row in rows)
    (path / "metrics.jsonl").write_text(lines)


def diverged(cell: Cell, seed: int, *, stochastic: bool = True) -> Record:
    """Returns a run whose loss was not finite."""
    return Record(cell, seed, {"stochastic": stochastic, "diverged": "in epoch 2"}, [])


@contextlib.contextmanager
def promotion_as_for_users():
    """Lets optax's Adam multiply floats by whole numbers, which tests forbid."""
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        yield


def few_digits(count: int, validation: int) -> datasets.Dataset:
    """Returns the first training images of the digits, some of them held out."""
    digits = datasets.load("digits")
    return dataclasses.replace(
        digits,
        train_images=digits.train_images[:count],
        train_labels=digits.train_labels[:count],
        validation=validation,
    )
