"""The benchmark of integers finds what they lose."""

import csv

import pytest

from benchmarks import integers
from tests.export.networks import EXAMPLE


@pytest.mark.slow
def test_the_table_has_a_row_for_each_rule(tmp_path, capsys, monkeypatch):
    out = tmp_path / "accuracy.csv"
    network = str(EXAMPLE / "digits.aslp")
    assert integers.main([network, "--images", "40", "--out", str(out)]) == 0
    rows = list(csv.DictReader(out.read_text().splitlines()))
    assert [(row["activations"], row["rule"]) for row in rows] == list(integers.RULES)
    # 16 bits are far closer than 8.
    errors = [float(row["mean_error"]) for row in rows]
    assert errors[-1] < min(errors[:-1]) / 10
    assert max(errors) < 0.002
    assert "loses: 0.00 percentage points (at most 0.5: met)" in capsys.readouterr().out
    monkeypatch.setattr(integers, "LOST", {"int8": -1, "int16": 0.1})
    assert integers.main([network, "--images", "5"]) == 1
