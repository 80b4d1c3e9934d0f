"""Claims of the paper, and the evidence that the runs of a grid give."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aslp_jax.sweeps.grid import Record, results_by_run
from aslp_jax.sweeps.measures import (
    Result,
    accuracy,
    best_epoch,
    kept_percent,
    other_accuracy,
)
from aslp_jax.sweeps.report import Claim
from aslp_jax.sweeps.statistics import mean_and_std, verdict
from aslp_jax.sweeps.table1.cells import OWN_RESCALE, Cell

_Runs = Mapping[tuple[Cell, int], Mapping[str, Any]]
_Partner = Callable[[Cell], Cell | None]
_Measure = Callable[[Result], float]


def claims(records: Sequence[Record]) -> list[Claim]:
    """Returns each claim of the paper with our evidence and a verdict.

    Runs are paired with those of the same network, images, kind of weights and seed.
    The pairs of a seed count as one, their mean; see `statistics.verdict`.

    Args:
      records: finished runs.
    """
    runs = results_by_run(records)
    deeper = _without_rescale("conv4", "conv6")
    every = _without_rescale("conv2", "conv4", "conv6")
    return [
        (
            "ASLP (thresholding) is above supermask (averaging)",
            *verdict(_differences(runs, _of("supermask"), accuracy, other_accuracy)),
        ),
        (
            "ASLP (thresholding) is above edge-popup",
            *verdict(_differences(runs, _of("edge_popup"), accuracy, accuracy)),
        ),
        (
            "smart rescale helps the deeper networks (Conv4, Conv6)",
            *verdict(_differences(runs, deeper, accuracy, accuracy)),
        ),
        (
            "thresholding is at least as good as averaging (ASLP)",
            *verdict(
                _differences(runs, lambda cell: cell, accuracy, other_accuracy),
                at_least=True,
            ),
        ),
        (
            "the kept fraction stays near 50 % (ASLP, mean within 49 to 51 %)",
            *_kept(
                [result for (cell, _), result in runs.items() if cell.method == "aslp"]
            ),
        ),
        (
            "smart rescale saves epochs to the best accuracy",
            *verdict(
                _differences(runs, every, _epochs_saved, _epochs_saved),
                unit="epochs",
            ),
        ),
        (
            "smart rescale costs less than dynamic",
            "`benchmarks/rescale.py`",
            "not measured by accuracies",
        ),
    ]


def _differences(
    runs: _Runs, partner: _Partner, own: _Measure, other: _Measure
) -> dict[int, list[float]]:
    """Returns by how much each run of ASLP is above its partner, by seed.

    Args:
      runs: results by cell and seed.
      partner: function from a cell of ASLP to the cell to compare with; None for none.
      own: measure of the run of ASLP.
      other: measure of the partner.
    """
    found: dict[int, list[float]] = {}
    for (cell, seed), result in runs.items():
        pair = partner(cell) if cell.method == "aslp" else None
        if pair is not None and (pair, seed) in runs:
            difference = own(result) - other(runs[pair, seed])
            found.setdefault(seed, []).append(difference)
    return found


def _of(method: str) -> _Partner:
    """Returns the function from a cell to the same cell of another method."""
    rescales = {"none": "none", "smart": OWN_RESCALE[method]}

    def partner(cell: Cell) -> Cell | None:
        if cell.rescale not in rescales:
            return None
        return dataclasses.replace(cell, method=method, rescale=rescales[cell.rescale])

    return partner


def _without_rescale(*archs: str) -> _Partner:
    """Returns the function from a cell of smart rescale to the same cell without."""

    def partner(cell: Cell) -> Cell | None:
        if cell.rescale != "smart" or cell.arch not in archs:
            return None
        return dataclasses.replace(cell, rescale="none")

    return partner


def _epochs_saved(result: Result) -> float:
    """Returns the best epoch as a number that is higher the earlier the epoch is."""
    return -best_epoch(result)


def _kept(results: Sequence[Result]) -> tuple[str, str]:
    if not results:
        return "no runs", "not measured"
    kept = [kept_percent(result) for result in results]
    mean, std = mean_and_std(kept)
    inside = sum(49 <= value <= 51 for value in kept)
    evidence = (
        f"{mean:.1f} ± {std:.1f} %, {min(kept):.1f} to {max(kept):.1f}; {inside} of "
        f"{len(kept)} runs within"
    )
    return evidence, "holds" if 49 <= mean <= 51 else "does not hold"
