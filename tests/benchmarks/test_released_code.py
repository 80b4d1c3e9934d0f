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


def test_a_stopped_command_goes_on(tmp_path, monkeypatch):
    setting = ["--out", str(tmp_path), "--epochs", "1", "--seeds", "2"]
    trained = []

    def train_once(arch, column, seed, *, epochs, batch_size):
        trained.append((arch, seed))
        if len(trained) == 4:
            raise KeyboardInterrupt
        return {"thresholding": 90.0 + seed, "keep_fraction": 0.5}

    monkeypatch.setattr(released_code, "train_once", train_once)
    with pytest.raises(KeyboardInterrupt):
        released_code.main(setting)
    released_code.main(setting)
    # The fourth run was lost, and trained again.
    assert len(trained) == 9 and trained[3] == trained[4] == ("conv2", 1)
    lines = (tmp_path / "runs.csv").read_text().splitlines()
    assert len(lines) == 9 and lines[1:] == list(dict.fromkeys(lines[1:]))
