"""Workload: steps are whole, and work and weights are counted."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import workload

SIDE = 8
"""Side of images in tests; most weights depend on it, and no assertion does."""


@pytest.mark.slow
def test_a_call_takes_all_steps_or_raises():
    images, labels = workload.random_images(8, SIDE)
    net = workload.network("conv2")
    program, create = workload.training(net, batch_size=4, side=SIDE)
    workload.side(program, create(), images, labels, steps=2)()
    broken = create()
    lost = jax.tree.map(lambda leaf: leaf * jnp.nan, broken.params)
    broken = broken.replace(params=lost)
    with pytest.raises(RuntimeError, match="the loss was not finite after step 1"):
        workload.side(program, broken, images, labels, steps=2)()


def test_the_work_is_that_of_the_layers():
    # Two operations a multiplication and addition, a third of them forwards: two
    # convolutions of 32x32 positions, padding counted, and three dense layers.
    dense = 16 * 16 * 64 * 256 + 256 * 256 + 2560
    counted = workload.flops(workload.network("conv2")) / 6
    assert counted == 32 * 32 * 9 * (3 + 64) * 64 + dense


def test_a_wider_network_has_wider_layers():
    net = workload.network("conv4", width=2)
    weights = sum(leaf.size for leaf in jax.tree.leaves(workload.kernels(net)))
    plain = sum(
        leaf.size
        for leaf in jax.tree.leaves(workload.kernels(workload.network("conv4")))
    )
    assert 3.9 * plain < weights < 4 * plain  # the images keep their three channels
