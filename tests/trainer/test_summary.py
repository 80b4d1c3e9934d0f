"""Curves of a run, and its closing table."""

import dataclasses
import functools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from aslp_jax.trainer import plots, summary
from aslp_jax.webpage.charts import spread
from tests.helpers import LAYER, SIX
from tests.helpers import epoch_row as row
from tests.helpers import run_result as result

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


table = functools.partial(summary.table, compile_seconds=12.3)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("epochs", "names"),
    [
        (1, ["Conv_0/kernel"]),
        (30, [f"Block_{i}/Conv_0/kernel" for i in range(20)]),
    ],
)
def test_curves_are_a_picture(tmp_path: Path, epochs: int, names: list[str]) -> None:
    rows = [row(epoch + 1, names, train_loss=float("nan")) for epoch in range(epochs)]
    rng = np.random.default_rng(0)
    probabilities = {name: rng.random((5, 7)) for name in names}
    path = tmp_path / "curves.png"
    path.write_bytes(b"an earlier one")
    plots.plot_curves(
        rows, plots.histogram(probabilities), path, title="aslp on conv6, seed 1"
    )
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert 1100 <= image.width <= 1500
        assert 350 <= image.height <= 600
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50
    assert list(tmp_path.iterdir()) == [path]


def test_curves_show_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    figures: list[Any] = []

    def keep(self: Figure, file: Any, **_: Any) -> None:
        figures.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    # 3 weights of 4 lie in the bin that begins at one half, 1 in the last.
    plots.plot_curves(
        [row(1), row(2, validation_accuracy=0.5)],
        plots.histogram(
            {"a": np.array([[0.5, 0.51]], np.float16), "b": np.array([1.0, 0.5])}
        ),
        tmp_path / "curves.png",
    )
    accuracy, kept, histogram = figures[0].axes
    training, validation, best = (line.get_xydata() for line in accuracy.lines)
    np.testing.assert_array_equal(training, [[1, 0.75], [2, 0.75]])
    np.testing.assert_array_equal(validation, [[1, 0.625], [2, 0.5]])
    np.testing.assert_array_equal(best, [[1, 0.6875]])
    np.testing.assert_allclose(accuracy.get_ylim(), [0.4875, 0.7625])
    assert len(kept.lines) == len(SIX) + 1
    np.testing.assert_array_equal(kept.lines[-1].get_ydata(), [0.4375] * 2)
    assert kept.lines[-1].get_color() == "black"
    labels = {text.get_text() for text in kept.texts}
    assert labels == {name.removesuffix("/kernel") for name in SIX} | {"total"}
    (stairs,) = histogram.patches
    expected = np.zeros(50)
    expected[[25, 49]] = 0.75, 0.25
    np.testing.assert_array_equal(stairs.get_data().values, expected)


def test_curves_bear_a_method_without_probabilities_and_one_that_keeps_all(
    tmp_path: Path,
) -> None:
    path = tmp_path / "curves.png"
    everything = dict.fromkeys(SIX, 1.0)
    rows = [row(1, keep_fraction=1.0, keep_fractions=everything)]
    plots.plot_curves(rows, plots.histogram({}), path)
    assert path.stat().st_size > 0


def test_curves_that_fail_leave_the_earlier_plot(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(self: Figure, file: Any, **_: Any) -> None:
        file.write(b"\x89PNG")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half_written)
    path = tmp_path / "curves.png"
    path.write_bytes(b"an earlier one")
    with pytest.raises(OSError, match="disk full"):
        plots.plot_curves([row(1)], np.zeros(50), path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"an earlier one"


def test_curves_ask_for_an_epoch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows must hold at least one epoch, got none"):
        plots.plot_curves([], np.zeros(50), tmp_path / "curves.png")


@pytest.mark.parametrize("count", [1, 9, 21])
def test_labels_are_spread_in_order(count: int) -> None:
    rng = np.random.default_rng(count)
    gap = 1 / count / 1.05
    for heights in (rng.random(count), np.ones(count), np.zeros(count)):
        placed = spread(heights, gap=gap)
        assert placed.min() >= -1e-9 and placed.max() <= 1 + 1e-9
        ordered = placed[np.argsort(heights, kind="stable")]
        assert np.all(np.diff(ordered) >= gap - 1e-9)
    apart = np.linspace(1, 0, count)
    np.testing.assert_allclose(spread(apart, gap=0.01), apart, atol=1e-12)


def test_the_table_has_every_layer_and_the_total() -> None:
    text = table(result())
    lines = text.splitlines()
    assert lines[0] == "aslp on conv6, cifar10"
    cells = {line.split()[0]: line.split()[1:] for line in lines if line}
    for i, (name, weights) in enumerate(SIX.items()):
        share, scale = f"{40 + 2 * i:.1f}%", f"{1 + i / 8:.4g}"
        assert cells[name] == [f"{weights:,}", share, scale]
    assert cells["total"] == [f"{sum(SIX.values()):,}", "48.2%"]
    assert not CONTROL.search(text)
    assert not text.endswith("\n")
    assert all(line == line.rstrip() for line in lines)
    assert lines[-9:] == [
        "test accuracy  85.12% thresholding",
        "               84.23% ± 0.31% averaging 10 networks",
        "validation     86.34% at its best, epoch 120",
        "training       150 epochs in 1h02m (stopped early)",
        "compiling      12s",
        "paths          98.0% of kept weights on one",
        "               9 units without input, 0 without a path to the output",
        "size           4.00 MB dense, as float32",
        # 125,000 bytes of masks, 8 of the seed, 9 scales of 4 bytes.
        "               125.04 kB as one bit a weight, seed and scales (32.0x less)",
    ]


def test_a_run_of_one_epoch_is_told_in_the_singular() -> None:
    assert "training       1 epoch in " in table(result(epochs=1))


def test_a_trained_network_is_told_before_pruning_and_keeps_its_weights() -> None:
    trained = result(
        trains_dense=True,
        bits_per_kept_weight=32,
        weights={"kernel": 1_000_000},
        keep_fractions={"kernel": 0.1},
        keep_fraction=0.1,
        scalars={},
        pruning_change=0.0123,
    )
    text = table(trained)
    assert "84.23% before pruning, which changes outputs by 1.23%" in text
    assert "averaging" not in text
    # 125,000 bytes of masks and 100,000 weights of 4 bytes.
    assert "525.00 kB as one bit a weight, 32 each kept (7.6x less)" in text


def test_what_was_tuned_or_never_drawn_is_not_said_to_be_an_average() -> None:
    tuned = result(stochastic=False, trains_dense=True, finetuned=True)
    lines = table(tuned).splitlines()
    assert "               after fine-tuning, what was pruned held at 0" in lines
    popup = table(result(stochastic=False))
    assert "averaging" not in popup and "before pruning" not in popup
    # No line of it, and none in its place.
    assert popup.splitlines()[-9:-6] == [
        "",
        "test accuracy  85.12% thresholding",
        "validation     86.34% at its best, epoch 120",
    ]


def test_a_sign_of_each_weight_kept_is_counted() -> None:
    signed = result(
        bits_per_kept_weight=1,
        keep_fraction=0.1,
        weights={"kernel": 1_000_000},
        keep_fractions={"kernel": 0.1},
        scalars={},
    )
    text = table(signed)
    assert "137.51 kB as one bit a weight, 1 each kept, seed and scales" in text


def test_an_empty_layer_and_classes_that_nothing_reaches_are_warned_of() -> None:
    assert summary.warnings(result()) == []
    empty = {**LAYER, "kept": 0, "on_path": 0}
    lost = result(connectivity={"a": LAYER, "b": empty}, outputs_reached=7)
    assert summary.warnings(lost) == [
        "b is left empty: none of its 100 weights is kept",
        "no path from the images reaches 3 of the 10 classes",
    ]


def test_a_budget_that_was_missed_is_said_with_by_how_much() -> None:
    for method, advice in (("aslp", "--logit-std"), ("budget", "--sharpness-lr")):
        missed = result(method=method, budget_miss=0.0234, keep_fraction_asked=0.1)
        text = summary.describe_budget_miss(missed)
        assert "is 2.34% of all weights away from the 10.00%" in text
        layered = dataclasses.replace(missed, scope="layer")
        text = summary.describe_budget_miss(layered)
        assert "is 2.34% of a layer's weights away" in text
        assert text.endswith(f"a larger --budget-weight or {advice}")


def test_the_table_has_a_column_a_group_of_scalars() -> None:
    heads = table(result(scalars={})).splitlines()[2]
    assert heads.split() == ["layer", "weights", "kept"]
    groups = {"scale": {"Conv_0/kernel": 1.25}, "threshold": dict.fromkeys(SIX, -2e-7)}
    lines = table(result(scalars=groups)).splitlines()
    assert lines[2].split() == ["layer", "weights", "kept", "scale", "threshold"]
    assert lines[4].split()[3:] == ["1.25", "-2e-07"]
    assert lines[5].split()[3:] == ["-", "-2e-07"]


def test_equal_scales_are_explained() -> None:
    sentence = (
        "Equal scales are expected without biases: the loss depends on their product "
        "alone."
    )

    def explained(**scales: float) -> bool:
        text = table(result(scalars={"scale": scales} if scales else {}))
        return sentence in text.replace("\n", " ")

    first, second, *_ = SIX
    assert explained(**dict.fromkeys(SIX, 1.4633))
    # Equal to the digits that are shown.
    assert explained(**{first: 1.46332, second: 1.463324})
    assert not explained(**{first: 1.463, second: 1.464})
    assert not explained(**{first: 1.0})
    assert not explained()


def test_the_table_stays_within_80_columns() -> None:
    names = [f"{'Outer_0/' * 10}Block_{i}/Conv_0/kernel" for i in range(3)]
    long = result(
        weights=dict.fromkeys(names, 123_456_789),
        keep_fractions=dict.fromkeys(names, 1.0),
        scalars={"scale": dict.fromkeys(names, -1.23456e-7)},
        dense_bytes=4 * 10**9,
        mask_bytes=10**9 // 8,
        seconds=1e6,
    )
    equal = result(scalars={"scale": dict.fromkeys(SIX, 1.0)})
    for text in (table(long), table(result()), table(equal)):
        assert max(map(len, text.splitlines())) <= 80
    for i in range(3):
        assert f"Block_{i}/Conv_0/kernel  " in table(long)


def test_the_report_starts_no_device_and_loads_no_plots() -> None:
    code = (
        "import sys; import aslp_jax.trainer.summary; "
        "print([m for m in ('jax', 'matplotlib') if m in sys.modules])"
    )
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "[]"
