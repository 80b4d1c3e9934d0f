"""What the runs of a grid say about each claim of the paper."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aslp_jax.sweeps.grid import Record, results_of
from aslp_jax.sweeps.statistics import mean_and_std, verdict
from aslp_jax.sweeps.table1.cells import OWN_RESCALE, Cell


def claims(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Returns each claim of the paper with our evidence and a verdict.

    Runs are paired with those of the same network, images, kind of weights and seed. A
    claim of more holds if the mean difference of the pairs is above two of its standard
    errors, one of "at least as good" if it is not below minus two.

    Args:
      records: the finished runs.
    """
    runs = results_of(records)

    def pairs(
        change: Callable[[Cell], Cell | None],
        value: Callable[[Mapping[str, Any]], float],
        other: Callable[[Mapping[str, Any]], float],
    ) -> list[float]:
        """Differences of ASLP's runs from those of the cells they change to."""
        found = []
        for (cell, seed), result in runs.items():
            partner = change(cell) if cell.method == "aslp" else None
            if partner is not None and (partner, seed) in runs:
                found.append(value(result) - other(runs[partner, seed]))
        return found

    def to(method: str) -> Callable[[Cell], Cell | None]:
        rescales = {"none": "none", "smart": OWN_RESCALE[method]}

        def change(cell: Cell) -> Cell | None:
            if cell.rescale not in rescales:
                return None
            rescale = rescales[cell.rescale]
            return dataclasses.replace(cell, method=method, rescale=rescale)

        return change

    def unscaled(*archs: str) -> Callable[[Cell], Cell | None]:
        def change(cell: Cell) -> Cell | None:
            if cell.rescale != "smart" or cell.arch not in archs:
                return None
            return dataclasses.replace(cell, rescale="none")

        return change

    def same(cell: Cell) -> Cell:
        return cell

    return [
        (
            "ASLP (thresholding) is above supermask (averaging)",
            *verdict(pairs(to("supermask"), _thresholding, _averaging)),
        ),
        (
            "ASLP (thresholding) is above edge-popup",
            *verdict(pairs(to("edge_popup"), _thresholding, _thresholding)),
        ),
        (
            "smart rescale helps the deeper networks (Conv4, Conv6)",
            *verdict(pairs(unscaled("conv4", "conv6"), _thresholding, _thresholding)),
        ),
        (
            "thresholding is at least as good as averaging (ASLP)",
            *verdict(pairs(same, _thresholding, _averaging), at_least=True),
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
                pairs(unscaled("conv2", "conv4", "conv6"), _saved, _saved),
                unit="epochs",
            ),
        ),
        (
            "smart rescale costs less than dynamic",
            "`benchmarks/rescale.py`",
            "not measured by accuracies",
        ),
    ]


def _thresholding(result: Mapping[str, Any]) -> float:
    return 100 * result["thresholding"]


def _averaging(result: Mapping[str, Any]) -> float:
    return 100 * result["averaging_mean"]


def _saved(result: Mapping[str, Any]) -> float:
    return -result["best_epoch"]


def _kept(results: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    if not results:
        return "no runs", "not measured"
    kept = [100 * result["keep_fraction"] for result in results]
    mean, std = mean_and_std(kept)
    inside = sum(49 <= value <= 51 for value in kept)
    evidence = (
        f"{mean:.1f} ± {std:.1f} %, {min(kept):.1f} to {max(kept):.1f}; {inside} of "
        f"{len(kept)} runs within"
    )
    return evidence, "holds" if 49 <= mean <= 51 else "does not hold"
