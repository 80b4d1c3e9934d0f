"""Rescale: the timed part updates logits and scales."""

import jax
import numpy as np
import pytest

from benchmarks import rescale


@pytest.mark.slow
def test_masking_learns_logits_and_scales():
    params, _ = jax.device_get(rescale.masking("conv2", "smart", 1, side=8)())
    assert set(params) == {"logits", "scale"}
    moved = [np.abs(leaf).max() for leaf in params["logits"].values()]
    assert np.isfinite(moved).all() and min(moved) > 0
    assert all(scale != 1 for scale in params["scale"].values())
