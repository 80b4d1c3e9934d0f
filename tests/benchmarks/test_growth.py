"""Growth: a setting is measured in a process, and the growth written."""

import pytest

from benchmarks import growth


@pytest.mark.program
@pytest.mark.slow
def test_a_setting_is_measured_in_a_process(tmp_path):
    setting = {"width": 1, "batch": 4, "devices": 2, "arch": "conv2", "side": 8}
    one = growth.in_a_process(setting, 1)
    assert one["seconds"] > 0 and one["weights"] == 368_832
    assert one["state_bytes"] == pytest.approx(12 * one["weights"], rel=0.01)
    lines = [
        {"factor": factor, **growth.START, factor: value, **one, "seconds": value}
        for factor, values in growth.FACTORS.items()
        for value in values
    ]
    assert [each["seconds"] for each in growth.growth(lines, "width")] == [1, 2, 4]
    growth.write(lines, tmp_path / "growth.csv")
    growth.plot(lines, tmp_path / "growth.png")
    written = (tmp_path / "growth.csv").read_text().splitlines()
    assert len(written) == 1 + 9 and written[0].startswith("factor,width,batch,devices")
    assert (tmp_path / "growth.png").read_bytes()[:4] == b"\x89PNG"
