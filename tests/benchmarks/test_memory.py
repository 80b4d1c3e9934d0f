"""Memory: a step keeps no mask and no noise."""

import pytest

from aslp_jax import Magnitude
from benchmarks import memory


@pytest.mark.slow
def test_no_mask_and_no_noise_is_kept_while_the_network_runs():
    state, step = memory.analyse("conv2")
    _, without = memory.analyse("conv2", Magnitude(keep_fraction=1.0))
    assert state == pytest.approx(12, abs=0.01)
    assert step - without < memory.MASK_BYTES
