"""Claims of the budget paper, and the evidence that the runs of a grid give."""

import dataclasses
from collections.abc import Callable, Sequence

from aslp_jax.sweeps.grid import Record, results_by_run
from aslp_jax.sweeps.measures import Result, accuracy, other_accuracy
from aslp_jax.sweeps.report import Claim
from aslp_jax.sweeps.statistics import equivalence, verdict
from aslp_jax.trainer.dead_units import dead_units
from aslp_jax.trainer.results import RunResult


def claims(records: Sequence[Record]) -> list[Claim]:
    """Returns claims of the paper with our evidence and a verdict.

    Args:
      records: finished runs.
    """
    fewer = _differences_by_seed(
        records,
        "magnitude",
        lambda own, other: _disconnected(other) - _disconnected(own),
    )
    above, unchanged = accuracy_claims(records)
    connected = (
        "budget-aware prevents disconnections: fewer units without input or output "
        "than magnitude",
        *verdict(fewer, unit="units"),
    )
    return [above, connected, unchanged]


def accuracy_claims(records: Sequence[Record]) -> list[Claim]:
    """Returns the claims of the paper that accuracies alone decide.

    Runs are paired with those of the same network, budget and seed. The pairs of a seed
    count as one, their mean; see `statistics.verdict`.

    Args:
      records: finished runs.
    """
    higher = _differences_by_seed(
        records, "magnitude", lambda own, other: accuracy(own) - accuracy(other)
    )
    pruned = _differences_by_seed(
        records, "budget", lambda own, _: accuracy(own) - other_accuracy(own)
    )
    return [
        (
            "budget-aware is above magnitude pruning without fine-tuning",
            *verdict(higher),
        ),
        (
            "the last cut changes no accuracy (budget-aware; within half a point)",
            *equivalence(pruned, 0.5),
        ),
    ]


def _differences_by_seed(
    records: Sequence[Record],
    other: str,
    difference: Callable[[Result, Result], float],
) -> dict[int, list[float]]:
    """Returns the differences of budget-aware runs from others, by seed.

    Args:
      records: finished runs.
      other: method to compare with.
      difference: function from the results of a pair to their difference.
    """
    runs = results_by_run(records)
    found: dict[int, list[float]] = {}
    for (cell, seed), result in runs.items():
        partner = (dataclasses.replace(cell, method=other), seed)
        if cell.method == "budget" and partner in runs:
            found.setdefault(seed, []).append(difference(result, runs[partner]))
    return found


def _disconnected(result: Result) -> float:
    found = dead_units(RunResult.from_json(result))
    return found.without_input + found.without_output
