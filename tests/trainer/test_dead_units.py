"""Sums of a run's connectivity over its layers."""

import pytest

from aslp_jax.trainer.dead_units import dead_units
from aslp_jax.trainer.results import RunResult

LAYER = {
    "weights": 100,
    "kept": 10,
    "on_path": 9,
    "units": 8,
    "without_input": 1,
    "without_output": 2,
}


def result(**changes):
    return RunResult.from_json({"outputs": 10, "outputs_reached": 10, **changes})


def test_the_paths_of_a_run_are_summed_over_its_layers():
    empty = {**LAYER, "kept": 0, "on_path": 0, "without_output": 8}
    found = dead_units(result(connectivity={"a": LAYER, "b": empty}, outputs_reached=7))
    assert found == (1, 2, 10, 16, pytest.approx(10.0), 3)
    nothing = dead_units(result(connectivity={"b": empty}))
    assert nothing.off_path == 100
