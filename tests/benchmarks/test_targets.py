"""Boards: storages are weighed and run, on the board or on a larger one."""

import csv

import numpy as np
import pytest

from benchmarks import target_boards, targets
from benchmarks.target_networks import NETWORKS, Target
from benchmarks.target_peer import write_peer
from tests.export.networks import CONV, random_images, small, subnetwork

TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm", "make")
ROW = targets.Row(
    *("net", 1000, 0.5, "microbit", "aslp-jax", "float32", "seed"),
    *(2000, 3000, 400, 500),
    instructions=60_000,
    same_predictions="10 of 10",
)


def test_other_predictions_fail(capsys):
    assert targets.judge([ROW]) == 0
    assert targets.judge([ROW, ROW._replace(same_predictions="9 of 10")]) == 1
    assert "predictions differ" in capsys.readouterr().out
    # Integers round; docs/integers.md has their accuracy.
    integers = ROW._replace(activations="int8", same_predictions="9 of 10")
    assert targets.judge([integers]) == 0
    # A board without enough memory has run nothing.
    assert targets.judge([ROW._replace(same_predictions="", instructions=None)]) == 0


def test_a_missing_tool_is_named(capsys, monkeypatch):
    monkeypatch.setenv("PATH", "")
    assert targets.main(["--networks"]) == 2
    said = "targets: arm-none-eabi-gcc, qemu-system-arm, make not installed\n"
    assert capsys.readouterr().err == said


def test_the_peer_takes_images_of_one_channel(tmp_path):
    with pytest.raises(ValueError, match=r"one channel, .* got 3"):
        write_peer(small("conv"), tmp_path, "emx-onnx-cgen")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(
    bool(target_boards.missing_tools(*TOOLS)),
    reason=target_boards.missing_tools(*TOOLS),
)
def test_storages_are_run_on_both_boards(tmp_path, monkeypatch):
    def target(shape):
        images = random_images(shape, 2)
        network = subnetwork(CONV, shape, scale=1.3)
        return Target(network, images, np.zeros(2, np.int32), images)

    monkeypatch.setattr(targets, "STORAGES", ("seed", "sparse"))
    monkeypatch.setitem(NETWORKS, "small", lambda: target((8, 8, 3)))
    monkeypatch.setitem(NETWORKS, "large", lambda: target((40, 40, 3)))
    arguments = ["--activations", "float32", "--networks", "small", "large"]
    assert targets.main([*arguments, "--out", str(tmp_path / "out")]) == 0
    assert (tmp_path / "out" / "targets.png").stat().st_size > 10_000
    with (tmp_path / "out" / "targets.csv").open() as file:
        rows = list(csv.DictReader(file))
    keys = [(row["network"], row["storage"], row["board"]) for row in rows]
    assert keys == [
        (network, storage, board)
        for network in ("small", "large")
        for storage in targets.STORAGES
        for board in target_boards.BOARDS
    ]
    for row in rows:
        assert row["same_predictions"] == "2 of 2"
        assert float(row["largest_difference"]) < 1e-5
        assert int(row["network_flash"]) < int(row["firmware_flash"])
        assert int(row["network_ram"]) < int(row["firmware_ram"])
        # At least an instruction for each position of the second convolution.
        assert int(row["instructions"]) > 64 * 6
    # 40 rows, 40 columns, 3 and 5 channels of 4 bytes each.
    assert int(rows[-1]["network_ram"]) > 4 * 40 * 40 * 8
    fits = {(row["network"], row["board"], row["fits"] == "yes") for row in rows}
    assert ("small", "microbit", True) in fits and ("large", "cortex-m4", True) in fits
    large = next(row for row in rows if row["network"] == "large")
    assert large["fits"].startswith(
        f"needs {int(large['firmware_ram']):,} bytes of RAM"
    )
    assert large["ran_on"] == target_boards.M0_STAND_IN.name
