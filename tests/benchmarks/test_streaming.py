"""Streaming: a small data set is read, trained on and watched."""

import pytest

from aslp_jax.data import pipeline
from benchmarks import streaming


@pytest.mark.slow
def test_every_number_is_measured(capsys):
    line = (
        "--arch conv2 --step-side 8 --step-batch 8 --step-images 70 --steps 2 "
        "--repeats 1 --read-images 40 --side 8 --batch 7 --epochs 2"
    )
    streaming.main(line.split())
    shown = capsys.readouterr().out
    assert shown.count("MB") == 1 and " met)" in shown.lower()
    assert "from epoch 1 to 2, 70 images of 8 pixels with" in shown
    assert f"a buffer of {7 * pipeline.AHEAD}: " in shown


def test_the_memory_of_the_process_is_watched():
    before = streaming.resident_megabytes()
    kept = bytearray(200_000_000)
    kept[::4096] = b"x" * len(kept[::4096])
    assert 190 < streaming.resident_megabytes() - before < 260
