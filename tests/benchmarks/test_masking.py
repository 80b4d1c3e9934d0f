"""Masking: each side does the stated work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from benchmarks import masking, workload
from tests.benchmarks.test_workload import SIDE


@pytest.mark.slow
def test_all_sides_do_the_stated_work():
    data = workload.random_images(8, SIDE)
    for side in (masking.masked, masking.trained):
        side("conv2", data, batch_size=4, steps=2)()  # raises unless all are taken
    gradient, losses = masking.passes("conv2", data, batch_size=4, steps=2)()
    assert losses.shape == (2,) and np.isfinite(losses).all()
    assert min(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(gradient)) > 0
