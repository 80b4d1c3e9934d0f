"""A sweep as a whole; its commands are tested in tests/cli/test_sweeps.py."""

import os
import subprocess
import sys

import pytest

from aslp_jax.sweeps import sweep


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_getaffinity"), reason="counts all cores")
def test_a_cpu_takes_part_as_one_device_a_core_and_seed():
    code = (
        "import jax; from aslp_jax.sweeps.sweep import use_cores; use_cores(2); "
        "print(jax.local_device_count()); use_cores(1); print(jax.local_device_count())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=True,
    )
    # Devices that have been started stay.
    expected = str(min(2, len(os.sched_getaffinity(0))))
    assert done.stdout.split() == [expected, expected]


def test_a_cell_gets_the_options_that_its_method_knows():
    shared = {"mask_lr": 0.25, "weight_lr": 0.125, "rescale": "smart"}
    own = {"arch": "conv2", "dataset": "digits", "seed": 3}
    found = sweep.cell_config("fast", shared, {**own, "method": "aslp"})
    assert (found.mask_lr, found.rescale) == (0.25, "smart")
    found = sweep.cell_config("fast", shared, {**own, "method": "magnitude"})
    assert (found.weight_lr, found.rescale) == (0.125, "none")
