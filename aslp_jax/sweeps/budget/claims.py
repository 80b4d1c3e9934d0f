"""What the runs of a comparison under a budget say about the claims of its paper."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from aslp_jax.sweeps.grid import Record, results_of
from aslp_jax.sweeps.statistics import mean_and_std, verdict, within
from aslp_jax.trainer.dead_units import dead_units


def claims(records: Sequence[Record]) -> list[tuple[str, str, str]]:
    """Returns claims of the paper with our evidence and a verdict.

    Runs are paired with those of the same network, budget and seed. The pairs of a seed
    count as one, so that the spread is that over seeds; see `seed_statistics.verdict`.

    Args:
      records: the finished runs.
    """
    runs = results_of(records)

    def by_seed(
        difference: Callable[[Mapping[str, Any], Mapping[str, Any]], float],
        other: str = "budget",
    ) -> list[float]:
        found: dict[int, list[float]] = {}
        for (cell, seed), result in runs.items():
            partner = (dataclasses.replace(cell, method=other), seed)
            if cell.method == "budget" and partner in runs:
                each = difference(result, runs[partner])
                found.setdefault(seed, []).append(each)
        return [mean_and_std(differences)[0] for differences in found.values()]

    cuts = by_seed(lambda result, _: _accuracy(result) - _before(result))
    return [
        (
            "budget-aware is above magnitude pruning without fine-tuning",
            *verdict(
                by_seed(
                    lambda own, other: _accuracy(own) - _accuracy(other), "magnitude"
                )
            ),
        ),
        (
            "budget-aware prevents disconnections: fewer units without input or output "
            "than magnitude",
            *verdict(
                by_seed(
                    lambda own, other: _disconnected(other) - _disconnected(own),
                    "magnitude",
                ),
                unit="units",
            ),
        ),
        (
            "the last cut changes no accuracy (budget-aware; within half a point)",
            *within(cuts, 0.5),
        ),
    ]


def _disconnected(result: Mapping[str, Any]) -> float:
    paths = dead_units(result)
    return paths.without_input + paths.without_output


def _accuracy(result: Mapping[str, Any]) -> float:
    return 100 * result["thresholding"]


def _before(result: Mapping[str, Any]) -> float:
    return 100 * result["averaging_mean"]
