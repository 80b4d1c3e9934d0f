"""Progress on a terminal and in a log."""

import io
import re
import shutil
import struct
import sys
from collections.abc import Callable
from os import terminal_size
from typing import Any

import pytest

from aslp_jax.trainer.progress import Progress, counted, humanise_seconds
from tests.helpers import epoch_row as row

CONTROL = re.compile(r"[\x00-\x09\x0b-\x1f\x7f]")


class Terminal(io.StringIO):
    """A file that says it is a terminal, and can tell what a screen would show."""

    def isatty(self) -> bool:
        return True

    def draws(self) -> list[str]:
        """Returns what was written after each carriage return."""
        parts = re.split(r"[\r\n]+", self.getvalue())
        return [part for part in parts if part.strip()]

    def screen(self) -> list[str]:
        """Returns the lines as they stand at the end, the cursor's line last."""
        lines = []
        for line in self.getvalue().split("\n"):
            shown = ""
            for part in line.split("\r"):
                shown = part + shown[len(part) :]
            lines.append(shown.rstrip())
        return lines


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
        monkeypatch.setattr(shutil, "get_terminal_size", lambda *_, **__: size)

    resize(200)
    return resize


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


def test_one_is_no_plural() -> None:
    found = [counted(count, "run") for count in (0, 1, 2, 2000)]
    assert found == ["0 runs", "1 run", "2 runs", "2,000 runs"]


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
    assert max(map(len, re.split(r"[\r\n]+", shown))) <= 49


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


# Grids.


def test_a_grid_writes_a_line_an_epoch_to_a_log() -> None:
    log, clock = io.StringIO(), Clock()
    progress = Progress(log, runs=3, clock=clock)
    progress.note("3 runs to make")
    progress.start("conv4 seeds 0, 1", runs=2, epochs=10)
    for epoch in (1, 2):
        clock.now += 15
        progress.step(epoch, 4, 4, 4000.0)
        assert len(log.getvalue().splitlines()) == epoch
        progress.epoch(row(epoch, train_loss=1.0, validation_accuracy=0.5))
        assert len(log.getvalue().splitlines()) == epoch
        progress.epoch(row(epoch, train_loss=2.0, validation_accuracy=0.75))
    progress.finish("98.0%, 97.0%")
    progress.start("conv4 seed 2", runs=1, epochs=10)
    clock.now += 30
    progress.epoch(row(1))
    progress.finish("96.0%")
    progress.close()
    means = "train 1.500 75.0%  val 62.5% (best 68.8%)  kept 43.8%  4,000 images/s"
    alone = (
        "train 1.250 75.0%  val 62.5% (best 68.8% at 1)  kept 43.8%  12,346 images/s"
    )
    first, second = "run 1/3  conv4 seeds 0, 1", "run 3/3  conv4 seed 2"
    assert log.getvalue().splitlines() == [
        "3 runs to make",
        # Two runs of ten epochs are under way: 2 * 1 / 10 of 3 runs took 15 s.
        f"{first}  epoch  1/10  {means}  after 3s  about 3m30s left",
        f"{first}  epoch  2/10  {means}  after 6s  about 3m15s left",
        "run 2/3  conv4 seeds 0, 1  98.0%, 97.0%  about 15s left",
        f"{second}  epoch  1/10  {alone}  after 3s  about 26s left",
        f"{second}  96.0%  all done in 1m00s",
    ]


def test_seeds_that_are_fewer_or_apart_get_lines_too() -> None:
    log = io.StringIO()
    progress = Progress(log, runs=2)

    def shown() -> list[str]:
        parts = [line.split("  ", 2)[2] for line in log.getvalue().splitlines()]
        log.seek(0)
        log.truncate()
        return [re.sub("  kept.*", "", part) for part in parts]

    progress.start("a", runs=2, epochs=3)
    # One is behind, and catches up alone; then the other epochs are shared.
    progress.epoch(row(1, train_loss=1.0))
    progress.step(2, 1, 2, 10.0)
    assert shown() == ["epoch 1/3  train 1.000 75.0%  val 62.5% (best 68.8% at 1)"]
    progress.step(2, 2, 2, 10.0)
    progress.epoch(row(2, train_loss=1.0))
    progress.step(2, 1, 2, 10.0)  # the other run, in the same epoch
    assert shown() == []
    progress.epoch(row(2, train_loss=3.0))
    assert shown() == ["epoch 2/3  train 2.000 75.0%  val 62.5% (best 68.8%)"]
    # The other has stopped: the end, a note or the next epoch shows the line.
    progress.epoch(row(3, train_loss=4.0))
    assert shown() == []
    progress.close()
    assert shown() == ["epoch 3/3  train 4.000 75.0%  val 62.5% (best 68.8% at 1)"]


def test_a_grid_rewrites_one_line_on_a_terminal(columns: Any) -> None:
    file, clock = Terminal(), Clock()
    progress = Progress(file, runs=4, clock=clock)
    progress.close()
    assert file.getvalue() == ""  # there is no line to end
    progress.note("4 runs to make")
    progress.start("conv4 seed 0", runs=1, epochs=10)
    clock.now += 10
    progress.step(5, 1, 2, 4321.0)
    progress.finish("98.0%")
    first = ["4 runs to make", "run 1/4  conv4 seed 0  98.0%  about 30s left"]
    assert file.screen() == [*first, ""]
    progress.start("conv4 seeds 1, 2", runs=2, epochs=10)
    clock.now += 11
    progress.step(6, 1, 2, 4321.0)
    live = (
        "run 2/4  conv4 seeds 1, 2  epoch  6/10  [#####-----]   50%  4,321 images/s  "
        "about 19s left"
    )
    assert file.screen() == [*first, live]
    progress.note("WARNING")
    assert file.screen() == [*first, "WARNING", live]
    clock.now += 1
    columns(20)
    progress.step(6, 2, 2, 4321.0)
    assert file.screen()[-1] == "run 2/4  100%"
    progress.finish("97.0%, 96.0%")
    progress.close()
    last = "run 3/4  conv4 seeds 1, 2  97.0%, 96.0%  about 7s left"
    assert file.screen() == [*first, "WARNING", last, ""]


def test_without_tqdm_a_terminal_gets_plain_lines(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    file = Terminal()
    progress = Progress(file, epochs=2)
    progress.step(1, 1, 2, 10.0)
    progress.epoch(row(1))
    progress.close()
    assert "\r" not in file.getvalue()
    assert file.getvalue().startswith("epoch 1/2")
