"""Scaling: the model's numbers by hand, and a real sum over two processes."""

import os

import pytest

from benchmarks import scaling


def test_an_all_reduce_moves_nearly_twice_the_bytes():
    link = scaling.Link(bandwidth=1e9, latency=1e-3)
    assert scaling.all_reduce_seconds(8e9, 1, link) == 0
    assert scaling.all_reduce_seconds(8e9, 2, link) == pytest.approx(8 + 2e-3)
    assert scaling.all_reduce_seconds(8e9, 8, link) == pytest.approx(14 + 6e-3)


def test_predictions_start_from_what_was_measured():
    lines = list(scaling.predictions())
    alone = {line["arch"]: line for line in lines if line["gpus"] == 1}
    for arch, speed in scaling.MEASURED_SPEED.items():
        assert alone[arch]["images_per_second"] == pytest.approx(speed, abs=1)
    for line in lines:
        assert line["step_ms"] == pytest.approx(
            line["compute_ms"] + line["all_reduce_ms"], abs=2e-3
        )
        assert 0 < line["efficiency"] <= 1


@pytest.mark.slow
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="needs Linux")
def test_two_processes_sum_and_the_time_grows_with_the_bytes():
    small, large = (scaling.time_all_reduce(size, 2) for size in (400, 40_000_000))
    assert 0 < small < large
