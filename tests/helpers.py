"""Helpers that several test files share."""

import dataclasses
import functools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import pytest

from aslp_jax.methods import Method
from aslp_jax.trainer.results import EpochRow, RunResult

SIX = {
    **{f"Conv_{i}/kernel": 1728 * 2**i for i in range(6)},
    **{f"Dense_{i}/kernel": 2560 * 2**i for i in range(3)},
}
"""Masked weights of a network like Conv6, by layer."""

LAYER = {
    "weights": 100,
    "kept": 50,
    "on_path": 49,
    "units": 10,
    "without_input": 1,
    "without_output": 0,
}
"""Connectivity of a layer."""


def quick_only(values: Iterable[Any], *quick: Any) -> list[Any]:
    """Returns values of a parameter, of which the quick run takes some.

    Args:
      values: all values; a tuple is a value of several parameters.
      quick: values that the quick run takes.
    """
    return [
        value
        if value in quick
        else pytest.param(
            *(value if isinstance(value, tuple) else [value]), marks=pytest.mark.slow
        )
        for value in values
    ]


def epoch_row(epoch: int, names: Iterable[str] = SIX, **changes: Any) -> EpochRow:
    """Returns the row of an epoch, with some values changed."""
    row = EpochRow(
        epoch=epoch,
        step=100 * epoch,
        train_loss=1.25,
        train_accuracy=0.75,
        validation_loss=1.5,
        validation_accuracy=0.625,
        best_validation_accuracy=0.6875,
        best_epoch=1,
        keep_fraction=0.4375,
        keep_fractions={name: 0.4 + i / 50 for i, name in enumerate(names)},
        flip_rate=0.01,
        scalars={"scale": dict.fromkeys(names, 1.5)},
        metrics={},
        images_per_second=12345.6,
        seconds=3.0 * epoch,
    )
    return dataclasses.replace(row, **changes)


def run_result(**changes: Any) -> RunResult:
    """Returns the result of a run, with some values changed."""
    result = RunResult(
        arch="conv6",
        stochastic=True,
        trains_dense=False,
        dataset="cifar10",
        method="aslp",
        seed=0,
        thresholding=0.8512,
        averaging_mean=0.8423,
        averaging_std=0.0031,
        single=0.8401,
        eval_samples=10,
        test_loss=0.5,
        pruning_change=None,
        keep_fraction=0.4821,
        keep_fractions={name: 0.4 + i / 50 for i, name in enumerate(SIX)},
        scalars={"scale": {name: 1 + i / 8 for i, name in enumerate(SIX)}},
        connectivity={name: LAYER for name in SIX},
        outputs=10,
        outputs_reached=10,
        weights=SIX,
        dense_bytes=4_000_000,
        mask_bytes=125_000,
        bits_per_kept_weight=0,
        best_epoch=120,
        best_validation_accuracy=0.8634,
        keep_fraction_asked=None,
        scope="global",
        finetuned=False,
        budget_miss=0.0,
        epochs=150,
        stopped="patience",
        seconds=3725.0,
        processes=1,
        devices=1,
    )
    return dataclasses.replace(result, **changes)


@functools.cache
def compiled(method: Method, function: str) -> Callable[..., Any]:
    """Returns a function of a method, compiled once for all tests that call it."""
    return jax.jit(getattr(method, function))
