"""Exports: every storage is written, weighed, run, compared and timed."""

import csv
import shutil

import numpy as np
import pytest

from aslp_jax import artefact
from aslp_jax.models import ConvNet
from benchmarks import export_networks, export_runs, exports
from tests.export import networks


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
def test_every_storage_is_weighed_and_timed(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export_runs, "SECONDS", 1e-6)
    monkeypatch.setattr(exports, "ROUNDS", 1)
    net = ConvNet(stages=(16,), hidden=(64,), classes=10)
    weights = 9 * 16 + 9 * 16 * 16 + 4 * 4 * 16 * 64 + 64 * 10
    path, written = tmp_path / "net.aslp", tmp_path / "new" / "net.csv"
    artefact.save(networks.subnetwork(net, (8, 8, 1), dataset="digits"), path)
    assert exports.main([str(path), "--out", str(written)]) == 0
    with written.open() as file:
        rows = {(row["export"], row["storage"]): row for row in csv.DictReader(file)}
    expected = {(kind, each) for kind, all in exports.EXPORTS.items() for each in all}
    assert set(rows) == expected | {("aslp", "seed"), ("aslp", "embedded")}
    assert int(rows["aslp", "seed"]["file_bytes"]) == path.stat().st_size
    # Bytes of the weights, and at most 4 kB of code: a bit each, and a sign for the
    # kept half; a float and a byte for the kept half; a float each.
    for storage, size in {
        "seed": weights / 8,
        "signs": weights / 8 + weights / 16,
        "sparse": 5 * weights / 2,
        "dense": 4 * weights,
    }.items():
        assert size < int(rows["c", storage]["flash_bytes"]) < size + 4000, storage
    assert {int(row["dense_multiply_adds"]) for row in rows.values()} == {
        64 * 9 * (16 + 16 * 16) + 4 * 4 * 16 * 64 + 64 * 10
    }
    for row in rows.values():
        if row["export"] in ("c", "onnx", "stablehlo"):
            assert row["same_predictions"] == "360 of 360"
            ratio = float(row["dense_ms_per_image"]) / float(row["ms_per_image"])
            assert float(row["speed_over_dense"]) == pytest.approx(ratio, rel=0.01)
    printed = capsys.readouterr().out
    assert "times the speed of the dense network" in printed


def test_too_much_flash_and_other_predictions_fail(capsys):
    row = exports.Row(
        *("conv2", 367_680, 0.5, 45_960, "c", "seed", 200_000, 2_731_520),
        flash_bytes=exports.FLASH,
        same_predictions="360 of 360",
    )
    assert exports.judge([row]) == 0
    assert "256,000 allowed" in capsys.readouterr().out
    assert exports.judge([row._replace(flash_bytes=exports.FLASH + 1)]) == 1
    assert exports.judge([row._replace(same_predictions="359 of 360")]) == 1
    large = row._replace(weights=400_000, flash_bytes=exports.FLASH + 1)
    assert exports.judge([large]) == 0


@pytest.mark.slow
def test_random_networks_keep_the_given_fraction():
    network = export_networks.random_network("conv2", (4, 4, 1), 0.1)
    kept = sum(each.kept for each in network.layers.values())
    weights = sum(each.weights.size for each in network.layers.values())
    assert kept / weights == pytest.approx(0.1, abs=0.005)
    dense = export_networks.without_masks(network)
    for name, each in dense.layers.items():
        assert np.count_nonzero(each.weights) == each.weights.size
        mask = network.layers[name].mask
        np.testing.assert_array_equal(
            each.weights[mask], network.layers[name].weights[mask]
        )
