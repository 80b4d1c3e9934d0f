"""The benchmark of ONNX with int8 activations compares both models of a network."""

import csv

from benchmarks import onnx_integers
from tests.export.networks import EXAMPLE


def test_the_table_has_a_row_for_each_batch(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(onnx_integers, "SECONDS", 1e-4)
    monkeypatch.setattr(onnx_integers, "BATCHES", (1, 2))
    monkeypatch.setattr(onnx_integers, "CALIBRATION", 64)
    out = tmp_path / "speed.csv"
    arguments = [str(EXAMPLE / "digits.aslp"), "--images", "40", "--repeats", "1"]
    monkeypatch.setattr(onnx_integers, "SPEED", 0.0)
    assert onnx_integers.main([*arguments, "--out", str(out)]) == 0
    with out.open() as file:
        rows = list(csv.DictReader(file))
    assert [row["batch"] for row in rows] == ["1", "2"]
    for row in rows:
        assert row["same_predictions"] == "40 of 40"
        assert int(row["float_bytes"]) > 3.9 * int(row["int8_bytes"])
        assert 0 < float(row["largest_difference"]) < 0.02
        ratio = float(row["float_ms"]) / float(row["int8_ms"])
        assert abs(ratio / float(row["speed"]) - 1) < 0.02
    assert "2 at a time: speed of int8" in capsys.readouterr().out


def test_int8_that_is_slower_is_a_failure(monkeypatch, capsys):
    row = onnx_integers.Row("a", 0.5, 1, 4, 1, 3.0, 2.0, 1.5, "9 of 9", 0.001)
    rows = [row, row._replace(batch=32)]
    monkeypatch.setattr(onnx_integers, "measure", lambda *_: rows)
    arguments = [str(EXAMPLE / "digits.aslp")]
    assert onnx_integers.main(arguments) == 0
    rows[1] = row._replace(batch=32, speed=0.9)
    assert onnx_integers.main(arguments) == 1
    out = capsys.readouterr().out
    assert "a, 32 at a time: speed of int8: 0.90 times (at least 1: NOT MET)" in out
