"""Reports of an export state its size and work, as counted here."""

import functools
import math

import pytest

from aslp_jax import export
from aslp_jax.export import report
from aslp_jax.export.cost import cost
from aslp_jax.export.network import graph_of
from aslp_jax.models import ConvNet
from tests.export import networks
from tests.export.networks import SHAPE


@functools.cache
def dead_units():
    """Returns a network that keeps so few weights that units are dead."""
    net = ConvNet(stages=(32,), hidden=(40,), classes=4)
    return networks.subnetwork(net, keep=0.02)


@pytest.mark.parametrize(
    "kind, storage, operations",
    [
        ("onnx", "float", "after"),
        ("onnx", "int8", "after"),
        ("stablehlo", None, "after"),
        ("c", "dense", "after"),
        ("c", "sparse", "nonzero"),
        ("c", "signs", "nonzero"),
        ("c", "seed", "kept"),
        ("npz", "sparse", None),
    ],
)
def test_the_report_states_size_and_work(tmp_path, kind, storage, operations):
    options = {} if storage is None else {"storage": storage}
    written = export.write(dead_units(), kind, tmp_path / "net.c", **options).result
    before = cost(graph_of(dead_units().net, dead_units().variables, SHAPE))
    text = report(dead_units(), written)
    layers = dead_units().layers.values()
    weights = sum(each.mask.size for each in layers)
    kept = sum(each.kept for each in layers)
    assert f"kept        {kept:,} of {weights:,} weights" in text
    bits = sum(
        -n * math.log2(n / each.mask.size)
        for each in layers
        for n in (each.kept, each.mask.size - each.kept)
    )
    assert f"masks       {math.ceil(bits / 8):,} bytes by their entropy" in text
    assert text.splitlines()[-1] == f"dropped     {written.dropped}"
    if operations is None:
        assert written.before is written.after is None and "computes  " not in text
        return
    after = written.after
    assert written.before == before
    assert (after.parameters < before.parameters) == (storage != "seed")
    expected = {
        "after": after.multiply_adds,
        "nonzero": after.nonzero_multiply_adds,
        "kept": before.nonzero_multiply_adds,
    }
    assert written.operations == expected[operations]
    for each in (before.parameters, after.parameters, after.multiply_adds):
        assert f" {each:,} " in text
    assert f"computes    {written.operations:,} of these" in text
