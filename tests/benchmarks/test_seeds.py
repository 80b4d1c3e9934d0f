"""Seeds: one program for several gives the same bits as one for each."""

import jax
import pytest

from aslp_jax.models import ConvNet
from aslp_jax.models.initialisers import kaiming_constant
from benchmarks import seeds


def test_a_gpu_has_two_ways():
    net = seeds.network("conv2", "gpu")
    ways = seeds.make_ways(
        net, *seeds.digits(), batch_size=4, steps=2, runs=3, devices=False
    )
    assert set(ways) == {seeds.ALONE, seeds.VECTORISED}
    assert len(ways[seeds.ALONE].start()) == 3


@pytest.mark.slow
def test_a_program_on_two_devices_gives_the_same_bits():
    constant = kaiming_constant()
    net = ConvNet(
        stages=(), hidden=(5,), classes=10, conv_init=constant, dense_init=constant
    )
    with jax.numpy_dtype_promotion("standard"):  # for optax.adam
        ways = seeds.make_ways(net, *seeds.digits(), batch_size=4, steps=2)
        seconds, results = seeds.measure(ways, 1)
    assert set(results) == {seeds.ALONE, seeds.DEVICES, seeds.VECTORISED}
    assert all(len(each) == 1 and each[0] > 0 for each in seconds.values())
    alone, stacked = results[seeds.ALONE], results[seeds.DEVICES]
    assert seeds.same_bits(alone, stacked)
    assert not seeds.same_bits(alone[::-1], stacked)
    states = jax.tree.leaves(results[seeds.VECTORISED])
    assert {leaf.shape[0] for leaf in states} == {seeds.RUNS}
