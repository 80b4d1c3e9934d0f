"""Time and memory of an export, measured and compared with their bounds."""

import pytest

from benchmarks import export_time


@pytest.mark.slow
def test_one_format_is_measured_in_this_process(capsys):
    assert export_time.main(["--arch", "conv2", "stablehlo"]) == 0
    seconds, gigabytes = map(float, capsys.readouterr().out.split())
    assert 0 < seconds < 600
    assert 0.05 < gigabytes < 64


def test_a_bound_that_is_missed_ends_with_one(capsys, monkeypatch):
    found = {"onnx": (1.0, 0.5), "c": (2.0, 0.5), "stablehlo": (99.0, 0.5)}
    monkeypatch.setattr(export_time, "measure_alone", lambda arch, kind: found[kind])
    assert export_time.main([]) == 1
    out = capsys.readouterr().out
    assert out.count("NOT MET") == 1
    assert "vgg19 to stablehlo, time: 99.00 s (at most 20: NOT MET)" in out
    found["stablehlo"] = (3.0, 0.5)
    assert export_time.main([]) == 0
