"""The distance between the weights kept and the weights asked for."""

import numpy as np
import pytest

from aslp_jax.trainer.budget_miss import budget_miss

SIZES = {"a": 10_000, "b": 90_000}


@pytest.mark.parametrize(
    ("keep_fraction", "kept", "miss"),
    [
        (0.1, 0.105, 0.0),
        (0.1, 0.12, 0.02),
        (0.01, 0.0, 0.01),
        (0.01, 0.014, 0.0),
        (0.01, 0.016, 0.006),
        (None, 0.5, 0.0),
    ],
)
@pytest.mark.parametrize("scope", ["global", "layer"])
def test_a_budget_is_missed_beyond_the_tolerance_or_half_of_itself(
    keep_fraction, kept, miss, scope
):
    counts = {name: np.float32(kept * size) for name, size in SIZES.items()}
    found = budget_miss(counts, SIZES, keep_fraction, scope=scope, tolerance=0.01)
    assert found == pytest.approx(miss, abs=1e-6)


def test_the_worst_layer_counts_where_each_has_a_budget():
    counts = {"a": np.float32(3_000), "b": np.float32(7_000)}
    options = {"tolerance": 0.01}
    assert budget_miss(counts, SIZES, 0.1, scope="global", **options) == 0
    found = budget_miss(counts, SIZES, 0.1, scope="layer", **options)
    assert found == pytest.approx(0.2)
