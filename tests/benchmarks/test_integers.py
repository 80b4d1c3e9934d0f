"""The benchmark of integers finds what they lose."""

import csv

from benchmarks import integers
from tests.export.networks import EXAMPLE


def test_the_table_has_a_row_for_each_rule(tmp_path, capsys):
    out = tmp_path / "accuracy.csv"
    arguments = [str(EXAMPLE / "digits.aslp"), "--images", "40", "--out", str(out)]
    assert integers.main(arguments) == 0
    rows = list(csv.DictReader(out.open()))
    assert [(row["activations"], row["rule"]) for row in rows] == list(integers.RULES)
    # 16 bits are far closer than 8.
    errors = [float(row["mean_error"]) for row in rows]
    assert errors[-1] < min(errors[:-1]) / 10
    assert max(errors) < 0.002
    assert (
        "int8 loses: 0.00 percentage points (at most 0.5: met)"
        in capsys.readouterr().out
    )


def test_too_large_a_loss_is_a_failure(monkeypatch, tmp_path):
    monkeypatch.setattr(integers, "LOST", {"int8": -1, "int16": 0.1})
    arguments = [str(EXAMPLE / "digits.aslp"), "--images", "10"]
    assert integers.main(arguments) == 1
