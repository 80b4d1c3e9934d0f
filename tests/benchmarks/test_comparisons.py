"""Comparisons: validation alone chooses the rate, and runs of a seed are paired."""

import pytest

from aslp_jax.sweeps.grid import Record
from aslp_jax.sweeps.table1.cells import Cell
from aslp_jax.trainer.presets import resolve
from benchmarks import comparisons, recipes
from benchmarks.tables import read_csv
from tests.sweeps.helpers import few_digits, promotion_as_for_users

CELLS = {
    "aslp": Cell("conv2", False, "aslp", "smart", True),
    "supermask": Cell("conv2", False, "supermask", "dynamic", True),
    "edge_popup": Cell("conv2", False, "edge_popup", "fan", True),
    "magnitude": Cell("conv2", False, "magnitude", "none", False),
}


def record(method, seed, thresholding, averaging=0.5, **others):
    result = {
        "thresholding": thresholding,
        "averaging_mean": averaging,
        "best_validation_accuracy": thresholding - 0.25,
        "keep_fraction": 0.5,
        "best_epoch": 2,
        "epochs": 2,
        "stochastic": True,
        **others,
    }
    rows = [{"validation_accuracy": accuracy} for accuracy in (0.4, thresholding)]
    return Record(CELLS[method], seed, result, rows)


def test_a_setting_is_a_cell_of_table_1_or_dense():
    for method, expected in CELLS.items():
        every = comparisons.searched("conv2", method, 3, comparisons.RATES[method])
        assert len(every) == 4
        for setting in every:
            options = {"dataset": "cifar10", "augment": False, **setting.options(0)}
            config = resolve("fast", options)
            assert comparisons.cell(config) == expected
            assert (config.epochs, config.batch_size) == (3, 64)


def options(method):
    rate = comparisons.RATES[method][1]
    (setting,) = comparisons.searched("conv2", method, 2, [rate])
    shared = {"dataset": "cifar10", "augment": False}
    return resolve("fast", {**shared, **setting.options(0)})


def test_the_page_pairs_runs_of_a_seed_each_by_its_own_measure(tmp_path):
    records = [
        record("aslp", 0, 0.62),
        record("aslp", 1, 0.63),
        record("supermask", 0, 0.3, averaging=0.60),
        record("supermask", 1, 0.3, averaging=0.61),
        record("edge_popup", 0, 0.64),
        record("edge_popup", 2, 0.9),
        record("magnitude", 0, 0.72),
        record("magnitude", 1, 0.71),
        record("aslp", 3, float("nan"), diverged="in epoch 1"),
    ]
    runs = [(options(each.cell.method), each) for each in records]
    comparisons.write_tables("A title", runs, tmp_path)
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert text.startswith("# A title\n")
    rows = [line.split(" | ") for line in text.splitlines() if " | " in line]
    found = {row[0].strip("| "): row[1:] for row in rows}
    tested = {method: found[name][2] for method, name in comparisons.NAMES.items()}
    assert tested == {
        "aslp": "62.50 ± 0.71",
        "supermask": "60.50 ± 0.71",
        "edge_popup": "77.00 ± 18.38",
        "magnitude": "71.50 ± 0.71",
    }
    given = "`--mask-lr 1.0`"
    assert found["ASLP (thresholding)"][:2] == [given, "37.50 ± 0.71"]
    assert (tmp_path / "comparison.png").read_bytes().startswith(b"\x89PNG\r\n")
    lines = read_csv(tmp_path / "runs.csv")
    assert [
        (line["method"], line["rate"], line["diverged"]) for line in lines[-2:]
    ] == [
        ("magnitude", "0.02", ""),
        ("aslp", "1.0", "in epoch 1"),
    ]
    assert [line["signed_constant"] for line in lines[-2:]] == ["no", "yes"]
    evidence = {name: row[0].partition(" points")[0] for name, row in found.items()}
    # Of two seeds t is 12.71; 10 and 8 points.
    assert evidence["dense training is above ASLP (thresholding)"] == "+9.00 ± 12.71"
    for name, text in (
        ("ASLP (thresholding) is above supermask (averaging)", "+2.00 ± 0.00"),
        ("ASLP (thresholding) is above edge-popup", "-2.00"),
    ):
        assert evidence[name] == text


def test_what_is_no_rate_is_refused(capsys):
    parser = comparisons.parser()
    words = ["--out", "OUT", "--rates"]
    found = parser.parse_args([*words, "aslp=1", "magnitude=0.1,0.2"]).rates
    assert dict(found) == {"aslp": (1.0,), "magnitude": (0.1, 0.2)}
    wrong = ("1.0", "aslp", "aslp=", "aslp=0", "aslp=1,nan", "aslp=inf", "budget=1")
    for each in wrong:
        with pytest.raises(SystemExit):
            parser.parse_args([*words, each])
        line = capsys.readouterr().err.splitlines()[-1]
        assert f"{each!r} is not METHOD=RATE,RATE with a method of aslp" in line
        assert line.endswith("and rates above 0")
    for given, reason in (
        (["aslp=1", "--methods", "magnitude"], "aslp, which --methods leaves out"),
        (["aslp=1", "aslp=2"], "--rates names a method twice"),
    ):
        with pytest.raises(SystemExit):
            comparisons.main([*words, *given])
        assert reason in capsys.readouterr().err.splitlines()[-1]


def test_one_seed_has_no_standard_deviation(tmp_path):
    comparisons.write_tables(
        "A title", [(options("aslp"), record("aslp", 0, 0.62))], tmp_path
    )
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert "| `--mask-lr 1.0` | 37.00 | 62.00 | 1 |" in text


@pytest.mark.slow
def test_a_rate_alone_needs_no_search(tmp_path, monkeypatch):
    few = few_digits(640, 128)
    monkeypatch.setattr(recipes.datasets, "load", lambda name: few)
    words = ["--dataset", "digits", "--epochs", "1", "--seeds", "1"]
    words += ["--methods", "aslp", "magnitude", "--out", str(tmp_path)]
    with promotion_as_for_users():
        rates = ["--rates", "aslp=0.5", "magnitude=0.03"]
        assert comparisons.main([*words, *rates]) == 0
    lines = read_csv(tmp_path / "runs.csv")
    found = [(line["method"], line["rate"], line["epochs"]) for line in lines]
    assert found == [("aslp", "0.5", "1"), ("magnitude", "0.03", "1")]
    assert len(read_csv(tmp_path / "search.csv")) == 2


@pytest.mark.slow
def test_a_comparison_goes_on_and_takes_the_best_rate(tmp_path, monkeypatch, capsys):
    few = few_digits(640, 128)
    monkeypatch.setattr(recipes.datasets, "load", lambda name: few)
    rates = {"aslp": (1e-6, 0.5), "edge_popup": (0.003,)}
    monkeypatch.setattr(comparisons, "RATES", rates)
    words = ["--dataset", "digits", "--search-epochs", "1", "--epochs", "1"]
    words += ["--seeds", "2", "--out", str(tmp_path)]
    with promotion_as_for_users():
        assert comparisons.main([*words, "--minutes", "0.0001"]) == 0
        assert not (tmp_path / "runs.csv").exists()
        assert comparisons.main([*words, "--methods", "aslp"]) == 0
        assert comparisons.main(words) == 0
        assert comparisons.main(words) == 0
    assert "0 runs to make" in capsys.readouterr().err
    lines = read_csv(tmp_path / "runs.csv")
    runs = {(line["method"], line["rate"], line["seed"]) for line in lines}
    assert runs == {
        *(("aslp", "0.5", seed) for seed in "01"),
        *(("edge_popup", "0.003", seed) for seed in "01"),
    }
    assert len(read_csv(tmp_path / "search.csv")) == 5
    text = (tmp_path / "comparison.md").read_text(encoding="utf-8")
    assert text.startswith("# Conv2 on digits, 1 epoch\n")
    assert "`--rescale fan --mask-lr 0.003`" in text
