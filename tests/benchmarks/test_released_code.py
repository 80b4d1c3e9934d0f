"""Released code: a difference is decided by its interval, and a run by its seed."""

import pytest

from benchmarks import released_code


def test_a_difference_is_decided_where_its_interval_leaves_0_out():
    # The quantile of Student's t for two degrees of freedom is 4.303.
    line = released_code.compare([97.0, 98.0, 99.0], 96.0)
    assert (line["mean"], line["difference"], line["decided"]) == (98.0, 2.0, "no")
    assert line["half_interval"] == pytest.approx(4.303 / 3**0.5, abs=0.01)
    assert released_code.compare([97.9, 98.0, 98.1], 96.0)["decided"] == "yes"


@pytest.mark.slow
def test_a_run_trains_and_follows_from_its_seed():
    column = released_code.COLUMNS["wr_sc"]
    setting = {"epochs": 8, "batch_size": 64}
    first, again = (
        released_code.train_once("conv2", column, 3, **setting) for _ in range(2)
    )
    assert first == again
    assert 15 < first["thresholding"] <= 100 and 0.4 < first["keep_fraction"] < 0.6
