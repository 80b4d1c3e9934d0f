"""Training step: both sides take their steps."""

import pytest

from benchmarks import training_step, workload
from tests.benchmarks.test_workload import SIDE


@pytest.mark.slow
@pytest.mark.parametrize("augment", [False, True])
def test_both_sides_take_their_steps(augment):
    size = {"batch_size": 4, "steps": 2, "augment": augment}
    training_step.ours("conv2", *workload.random_images(8, SIDE), **size)()
    pytest.importorskip("torch", reason="the comparison needs PyTorch")
    training_step.theirs("conv2", *workload.random_images(8), **size)()
