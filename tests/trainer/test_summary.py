"""What a person sees: progress on a terminal and in a log, curves, the table."""

import functools
import io
import re
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from os import terminal_size
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from aslp_jax.trainer import plots, summary
from aslp_jax.trainer.progress import Progress, humanise_seconds

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")
SIX = {
    **{f"Conv_{i}/kernel": 1728 * 2**i for i in range(6)},
    **{f"Dense_{i}/kernel": 2560 * 2**i for i in range(3)},
}


table = functools.partial(summary.table, compile_seconds=12.3)


class Terminal(io.StringIO):
    """A file that says it is a terminal, and can tell what a screen would show."""

    def isatty(self) -> bool:
        return True

    def draws(self) -> list[str]:
        """Returns what was written after each carriage return, escapes removed."""
        parts = re.split(r"[\r\n]+", self.getvalue())
        return [part.replace("\x1b[K", "") for part in parts if part]

    def screen(self) -> list[str]:
        """Returns the lines as they stand at the end, the cursor's line last."""
        lines = self.getvalue().split("\n")
        return [line.rpartition("\r")[2].replace("\x1b[K", "") for line in lines]


class Clock:
    """A clock that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def columns(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    def resize(width: int) -> None:
        size = terminal_size((width, 24))
        monkeypatch.setattr(shutil, "get_terminal_size", lambda *_: size)

    resize(200)
    return resize


def row(epoch: int, names: Any = SIX, **changes: Any) -> dict[str, Any]:
    return {
        "epoch": epoch,
        "step": 100 * epoch,
        "train_loss": 1.25,
        "train_accuracy": 0.75,
        "validation_loss": 1.5,
        "validation_accuracy": 0.625,
        "best_validation_accuracy": 0.6875,
        "best_epoch": 1,
        "keep_fraction": 0.4375,
        "keep_fractions": {name: 0.4 + i / 50 for i, name in enumerate(names)},
        "flip_rate": 0.01,
        "scalars": {"scale": dict.fromkeys(names, 1.5)},
        "images_per_second": 12345.6,
        "seconds": 3.0 * epoch,
        **changes,
    }


LAYER = {
    "weights": 100,
    "kept": 50,
    "on_path": 49,
    "units": 10,
    "without_input": 1,
    "without_output": 0,
}


def result(**changes: Any) -> dict[str, Any]:
    return {
        "arch": "conv6",
        "dataset": "cifar10",
        "method": "aslp",
        "thresholding": 0.8512,
        "averaging_mean": 0.8423,
        "averaging_std": 0.0031,
        "eval_samples": 10,
        "keep_fraction": 0.4821,
        "keep_fractions": {name: 0.4 + i / 50 for i, name in enumerate(SIX)},
        "weights": SIX,
        "scalars": {"scale": {name: 1 + i / 8 for i, name in enumerate(SIX)}},
        "best_epoch": 120,
        "best_validation_accuracy": 0.8634,
        "epochs": 150,
        "stopped": "patience",
        "seconds": 3725.0,
        "dense_bytes": 4_000_000,
        "mask_bytes": 125_000,
        "kept_bits": 0,
        "connectivity": {name: LAYER for name in SIX},
        "outputs": 10,
        "outputs_reached": 10,
        "relaxed": False,
        "stochastic": True,
        "finetuned": False,
        **changes,
    }


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0s"),
        (0.4, "0s"),
        (59.4, "59s"),
        (59.7, "1m00s"),
        (125, "2m05s"),
        (3599.6, "1h00m"),
        (11520, "3h12m"),
        (100_800, "1d04h"),
        (float("nan"), "?"),
        (float("inf"), "?"),
    ],
)
def test_durations_read_as_a_person_says_them(seconds: float, text: str) -> None:
    assert humanise_seconds(seconds) == text


def test_a_log_gets_one_plain_line_an_epoch() -> None:
    class Log(io.StringIO):
        flushed = 0

        def flush(self) -> None:
            self.flushed = len(self.getvalue())

    log = Log()
    progress = Progress(log, epochs=20)
    for epoch in (1, 2, 3):
        progress.step(epoch, 50, 100, 4000.0)
        progress.epoch(row(epoch, train_loss=float("nan")))
        assert log.flushed == len(log.getvalue())
    progress.note("stopping after this step...")
    progress.close()
    lines = log.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[3] == "stopping after this step..."
    assert not CONTROL.search(log.getvalue())
    assert re.fullmatch(
        r"epoch  2/20  train nan 75\.0%  val 62\.5% \(best 68\.8% at 1\)  kept 43\.8%"
        r"  12,346 images/s  after 6s  at most \w+ left",
        lines[1],
    )


def test_whether_it_is_live_is_asked_of_the_file_unless_told(columns: Any) -> None:
    for file, live, expected in (
        (Terminal(), None, True),
        (Terminal(), False, False),
        (io.StringIO(), None, False),
        (io.StringIO(), True, True),
    ):
        progress = Progress(file, epochs=2, live=live)
        progress.epoch(row(1))
        progress.close()
        assert ("\r" in file.getvalue()) == expected


def test_standard_error_is_the_default(capsys: pytest.CaptureFixture[str]) -> None:
    Progress(epochs=1).epoch(row(1))
    assert capsys.readouterr().err.startswith("epoch 1/1")


@pytest.mark.parametrize("width", [2, 10, 30, 80, 120, 200])
def test_the_live_line_never_fills_the_terminal(columns: Any, width: int) -> None:
    columns(width)
    file, clock = Terminal(), Clock()
    progress = Progress(file, epochs=250, clock=clock)
    for epoch in range(1, 20):
        for step in (10, 60):
            clock.now += 4
            progress.step(epoch, step, 100, 4321.0)
        progress.epoch(row(epoch))
    progress.close()
    assert len(file.draws()) > 40
    assert max(map(len, file.draws())) <= width - 1
    if width >= 80:  # what matters is there on an ordinary terminal
        for part in ("60%", "val 62.5% (best 68.8% at 1)", "at most", "18/250"):
            assert any(part in draw for draw in file.draws())


def test_the_width_is_that_of_the_terminal_it_writes_to(columns: Any) -> None:
    termios = pytest.importorskip("termios")
    fcntl, pty = pytest.importorskip("fcntl"), pytest.importorskip("pty")
    theirs, ours = pty.openpty()
    fcntl.ioctl(ours, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 50, 0, 0))
    with open(theirs, "rb", buffering=0) as screen, open(ours, "w") as file:
        progress = Progress(file, epochs=250)
        progress.epoch(row(1))
        progress.close()
        shown = screen.read(4096).decode()
    assert shown.startswith("\repoch   1/250  100%  val 62.5%")
    assert max(map(len, re.split(r"[\r\n]+|\x1b\[K", shown))) <= 49


def test_the_live_line_shows_all_there_is_on_a_wide_terminal(columns: Any) -> None:
    file, clock = Terminal(), Clock()
    progress = Progress(file, epochs=4, clock=clock)
    progress.epoch(row(1))
    clock.now += 1
    progress.step(2, 50, 100, 4321.0)
    assert file.screen()[-1] == (
        "epoch 2/4  [#####-----]   50%  train 1.250 75.0%  val 62.5% (best 68.8% at 1)"
        "  kept 43.8%  4,321 images/s  after 3s  at most 5s left"
    )


def test_the_live_line_is_rewritten_at_most_ten_times_a_second(columns: Any) -> None:
    file, clock = Terminal(), Clock()
    progress = Progress(file, epochs=1, clock=clock)
    for step in range(1000):
        clock.now += 0.002
        progress.step(1, step + 1, 1000, 4321.0)
    assert 15 <= len(file.draws()) <= 21
    progress.close()
    # The last state may have come too soon after the one before it; not for `close`.
    assert "100%" in file.screen()[-2]


def test_close_ends_the_live_line_once(columns: Any) -> None:
    file = Terminal()
    progress = Progress(file, epochs=2)
    progress.epoch(row(1))
    progress.epoch(row(2))
    assert len(file.screen()) == 1
    progress.close()
    progress.close()
    assert file.screen()[0].startswith("epoch 2/2")
    assert file.screen()[1:] == [""]

    unused = Terminal()
    Progress(unused, epochs=2).close()
    assert unused.getvalue() == ""


def test_a_note_stands_above_the_live_line(columns: Any) -> None:
    file = Terminal()
    progress = Progress(file, epochs=2)
    progress.note("before")
    progress.step(1, 10, 100, 4321.0)
    progress.note("stopping after this step...")
    above, note, live = file.screen()
    assert (above, note) == ("before", "stopping after this step...")
    assert live.startswith("epoch 1/2")
    # The rest of a longer live line must not stick out behind the note.
    assert "\rstopping after this step...\x1b[K\n" in file.getvalue()


@pytest.mark.parametrize(
    ("epochs", "seconds", "fewest", "most"), [(1000, 0.3, 15, 40), (12, 240.0, 12, 12)]
)
def test_epochs_leave_a_trace_but_no_flood(
    columns: Any, epochs: int, seconds: float, fewest: int, most: int
) -> None:
    file, clock = Terminal(), Clock()
    progress = Progress(file, epochs=epochs, clock=clock)
    for epoch in range(1, epochs + 1):
        clock.now += seconds
        progress.epoch(row(epoch))
    lines = file.screen()[:-1]
    assert fewest <= len(lines) <= most
    assert all(line.startswith("epoch ") for line in lines)


def time_left(file: Terminal) -> str | None:
    found = re.search(r"at most (\S+) left", file.screen()[-1])
    return found and found[1]


def test_time_left_follows_the_pace_of_the_latest_epochs(columns: Any) -> None:
    file, clock = Terminal(), Clock()
    progress = Progress(file, epochs=50, clock=clock)
    clock.now += 100  # compilation, and the one epoch there is to judge by
    progress.epoch(row(1))
    assert time_left(file) == humanise_seconds(49 * 100)
    clock.now += 10
    progress.epoch(row(2))
    assert time_left(file) == "8m00s"  # 48 epochs at 10 s: compilation is forgotten
    clock.now += 5
    progress.step(3, 50, 100, 4321.0)
    assert time_left(file) == humanise_seconds(47.5 * 10)
    for epoch in range(3, 21):
        clock.now += 20
        progress.epoch(row(epoch))
    assert time_left(file) == "10m00s"  # 30 epochs at 20 s: the quick ones are, too
    clock.now += 20
    progress.epoch(row(50))
    assert time_left(file) is None


def test_time_left_is_known_within_the_first_epoch(columns: Any) -> None:
    file, clock = Terminal(), Clock()
    progress = Progress(file, epochs=2, clock=clock)
    clock.now += 60  # compilation
    progress.step(1, 10, 100, 4321.0)
    assert time_left(file) is None
    clock.now += 4
    progress.step(1, 20, 100, 4321.0)
    assert time_left(file) == "1m12s"  # 180 of 200 steps at 10 steps in 4 s


def test_time_left_of_a_resumed_run_counts_what_remains(columns: Any) -> None:
    file, clock = Terminal(), Clock()
    progress = Progress(file, epochs=50, clock=clock)
    for epoch in (41, 42):
        clock.now += 10
        progress.epoch(row(epoch))
    assert time_left(file) == "1m20s"


@pytest.mark.parametrize(
    ("epochs", "names"),
    [
        (1, ["Conv_0/kernel"]),
        (40, list(SIX)),
        (3, [f"Block_{i}/Conv_0/kernel" for i in range(20)]),
    ],
)
def test_curves_are_a_picture(tmp_path: Path, epochs: int, names: list[str]) -> None:
    rows = [row(epoch + 1, names, train_loss=float("nan")) for epoch in range(epochs)]
    rng = np.random.default_rng(0)
    probabilities = {name: rng.random((5, 7)) for name in names}
    path = tmp_path / "curves.png"
    path.write_bytes(b"an earlier one")
    plots.plot_curves(rows, probabilities, path, title="aslp on conv6, seed 1")
    with Image.open(path) as image:
        image.load()
        assert image.format == "PNG"
        assert 1100 <= image.width <= 1500
        assert 350 <= image.height <= 600
        assert len(image.convert("RGB").getcolors(1 << 24) or []) > 50
    assert list(tmp_path.iterdir()) == [path]


def test_curves_show_the_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []

    def keep(self: Figure, file: BinaryIO, **_: Any) -> None:
        drawn.append(self)

    monkeypatch.setattr(Figure, "savefig", keep)
    # 3 weights of 4 lie in the bin that begins at one half, 1 in the last.
    plots.plot_curves(
        [row(1), row(2, validation_accuracy=0.5)],
        {"a": np.array([[0.5, 0.51]], np.float16), "b": np.array([1.0, 0.5])},
        tmp_path / "curves.png",
    )
    accuracy, kept, histogram = drawn[0].axes
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
    plots.plot_curves(rows, {}, path)
    assert path.stat().st_size > 0


def test_curves_that_fail_leave_the_earlier_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def half_written(self: Figure, file: BinaryIO, **_: Any) -> None:
        file.write(b"\x89PNG")
        raise OSError("disk full")

    monkeypatch.setattr(Figure, "savefig", half_written)
    path = tmp_path / "curves.png"
    path.write_bytes(b"an earlier one")
    with pytest.raises(OSError, match="disk full"):
        plots.plot_curves([row(1)], {}, path)
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == b"an earlier one"


def test_curves_ask_for_an_epoch(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="curves: rows must hold at least one epoch"):
        plots.plot_curves([], {}, tmp_path / "curves.png")


@pytest.mark.parametrize("count", [1, 9, 21])
def test_labels_are_spread_in_order(count: int) -> None:
    rng = np.random.default_rng(count)
    gap = 1 / count / 1.05
    for heights in (rng.random(count), np.ones(count), np.zeros(count)):
        placed = plots._spread(heights, gap=gap)
        assert placed.min() >= -1e-9 and placed.max() <= 1 + 1e-9
        ordered = placed[np.argsort(heights, kind="stable")]
        assert np.all(np.diff(ordered) >= gap - 1e-9)
    apart = np.linspace(1, 0, count)
    np.testing.assert_allclose(plots._spread(apart, gap=0.01), apart, atol=1e-12)


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
        "               9 units get no input, 0 reach no output",
        "size           4.00 MB dense, as float32",
        # 125,000 bytes of masks, 8 of the seed, 9 scales of 4 bytes.
        "               125.04 kB as one bit a weight, seed and scales (32.0x less)",
    ]


def test_a_trained_network_is_told_before_pruning_and_keeps_its_weights() -> None:
    trained = result(relaxed=True, kept_bits=32, weights={"kernel": 1_000_000})
    trained |= {"keep_fractions": {"kernel": 0.1}, "keep_fraction": 0.1}
    text = table(trained | {"scalars": {}, "pruning_change": 0.0123})
    assert "84.23% before pruning, which changes outputs by 1.23%" in text
    assert "averaging" not in text
    # 125,000 bytes of masks and 100,000 weights of 4 bytes.
    assert "525.00 kB as one bit a weight, 32 each kept (7.6x less)" in text


def test_what_was_tuned_or_never_drawn_is_not_said_to_be_an_average() -> None:
    tuned = result(stochastic=False, relaxed=True, finetuned=True)
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
    signed = result(kept_bits=1, keep_fraction=0.1, weights={"kernel": 1_000_000})
    text = table(signed | {"keep_fractions": {"kernel": 0.1}, "scalars": {}})
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
    missed = {"budget_miss": 0.0234, "keep_fraction_asked": 0.1}
    for method, advice in (("aslp", "--logit-std"), ("budget", "--sharpness-lr")):
        text = summary.describe_budget_miss(
            missed | {"method": method, "scope": "global"}
        )
        assert "is 2.34% of all weights away from the 10.00%" in text
        text = summary.describe_budget_miss(
            missed | {"method": method, "scope": "layer"}
        )
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
    for text in (table(long), table(result())):
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
