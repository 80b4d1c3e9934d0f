"""Measures of a finished run: the numbers that reports take from its result.json."""

from collections.abc import Mapping
from typing import Any

Result = Mapping[str, Any]
"""Content of the result.json of a run whose loss stayed finite."""


def accuracy(result: Result) -> float:
    """Returns the test accuracy of the thresholded network, in %."""
    return 100 * result["thresholding"]


def other_accuracy(result: Result) -> float:
    """Returns the test accuracy of sampled networks, or before pruning, in %."""
    return 100 * result["averaging_mean"]


def best_validation_accuracy(result: Result) -> float:
    """Returns the best validation accuracy of all epochs, in %."""
    return 100 * result["best_validation_accuracy"]


def kept_percent(result: Result) -> float:
    """Returns the kept weights, in % of the masked ones."""
    return 100 * result["keep_fraction"]


def off_budget_percent(result: Result) -> float:
    """Returns the distance from the budget, in % of the masked weights."""
    return 100 * result["budget_miss"]


def is_pruned(result: Result) -> bool:
    """Returns True if pruning at the end of training changed the network."""
    return result["pruning_change"] is not None


def pruning_change_percent(result: Result) -> float:
    """Returns the change of the outputs by pruning, in % of their norm."""
    return 100 * result["pruning_change"]


def best_epoch(result: Result) -> float:
    """Returns the epoch of the best validation accuracy, from 1."""
    return result["best_epoch"]


def epochs(result: Result) -> int:
    """Returns the number of epochs of the run."""
    return result["epochs"]


def seconds(result: Result) -> float:
    """Returns the duration of the run in seconds."""
    return result["seconds"]
