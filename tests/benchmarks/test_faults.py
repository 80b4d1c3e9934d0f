"""The fault campaign: it finds what it looks for, and a short share of it finds none.

The share of two minutes, `python -m benchmarks.faults --minutes 2`, is a step of the
workflow.
"""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from benchmarks.faults import (
    archives,
    artefacts,
    damage,
    endurance,
    files,
    report,
    tries,
)
from benchmarks.faults.__main__ import main
from benchmarks.faults.bounds import attempt, bounded
from benchmarks.faults.campaign import LEAST_MINUTES, schedule
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.programs import (
    FILES,
    Ended,
    check_begun,
    check_end,
    check_same_run,
)
from benchmarks.faults.tries import LOST, TRACEBACK, WRONG, Failure, Outcome, Workshop
from benchmarks.faults.writers import check_same_grid

LINE = "aslp-jax: cannot write to out: No space left on device\n"
EPOCH = "epoch 1/6  train 2.331 9.4%\n"


def failing(check: Callable[[], object]) -> str:
    """What a check finds."""
    with pytest.raises(Failure) as failure:
        check()
    return failure.value.found


# --- The checks fail where they should. -----------------------------------------------


@pytest.mark.parametrize(
    ("code", "err", "found"),
    [
        (0, EPOCH, None),
        (2, EPOCH + LINE, None),
        (-9, "", None),
        (1, "Traceback (most recent call last):\n", TRACEBACK),
        (2, f"Traceback (most recent call last):\n{LINE}", TRACEBACK),
        (3, LINE, WRONG),  # not the code that was expected
        (2, EPOCH, WRONG),  # not a word
        (2, LINE + LINE, WRONG),
        (0, LINE, WRONG),
        (2, "Exception ignored in: x\n" + LINE, WRONG),
        (2, LINE.replace("aslp-jax", "python"), WRONG),
    ],
)
def test_the_end_of_a_program(code: int, err: str, found: str | None) -> None:
    def check() -> str:
        return check_end(Ended(code, "", err), (0, 2, -9))

    if found is None:
        assert check() == (LINE.strip() if code == 2 else "")
    else:
        assert failing(check) == found


@pytest.fixture
def runs(tmp_path: Path) -> tuple[Workshop, Path]:
    """A workshop with an undisturbed run, and a run that is equal but for times."""
    reference, run = tmp_path / "reference", tmp_path / "run"
    for number, folder in enumerate((reference, run)):
        (folder / "checkpoints" / "8").mkdir(parents=True)
        for name in FILES - {"checkpoints"}:
            (folder / name).write_text(name)
        rows = [{"epoch": e, "loss": 1 / e, "seconds": number} for e in (1, 2)]
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        (folder / "metrics.jsonl").write_text(lines)
        result = {"thresholding": 0.5, "seconds": number}
        (folder / "result.json").write_text(json.dumps(result))
    return Workshop(tmp_path, tmp_path, 1.0), run


@pytest.mark.parametrize(
    ("edit", "found"),
    [
        (lambda run: None, None),
        (lambda run: (run / "lock.json").touch(), WRONG),
        (lambda run: (run / "checkpoints" / "a.partial").touch(), WRONG),
        (lambda run: (run / "curves.png").unlink(), WRONG),
        (lambda run: (run / "network.aslp").write_text("other"), LOST),
        (lambda run: (run / "result.json").write_text('{"thresholding": 1}'), LOST),
        (lambda run: (run / "metrics.jsonl").write_text(""), LOST),
    ],
)
def test_runs_that_differ(
    runs: tuple[Workshop, Path], edit: Callable[[Path], object], found: str | None
) -> None:
    shop, run = runs
    edit(run)
    if found is None:
        check_same_run(shop.path / "reference", run)
        assert check_begun(shop, run) == 2
    else:
        assert failing(lambda: check_same_run(shop.path / "reference", run)) == found


def test_a_row_that_is_wrong_is_lost_data(runs: tuple[Workshop, Path]) -> None:
    shop, run = runs
    file = run / "metrics.jsonl"
    file.write_text(file.read_text().splitlines()[0] + '\n{"epoch": 2')
    assert check_begun(shop, run) == 2  # a torn row is no row
    file.write_text('{"epoch": 1, "loss": 2.0}\n')
    assert failing(lambda: check_begun(shop, run)) == LOST


def test_grids_that_differ(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "result.json").write_text('{"epochs": 1}')
    one, other = tmp_path / "one", tmp_path / "other"
    check_same_grid(one, other)
    (other / "result.json").write_text('{"epochs": 2}')
    assert failing(lambda: check_same_grid(one, other)) == LOST
    (other / "result.json").unlink()
    assert failing(lambda: check_same_grid(one, other)) == LOST
    (other / "lock.json").touch()
    assert failing(lambda: check_same_grid(one, other)) == WRONG


def test_time_and_memory_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.faults.bounds.SECONDS", 0.05)

    def spend() -> None:
        with bounded("sums"):
            while True:
                sum(range(1000))

    def take() -> None:
        with bounded("zeros", megabytes=20):
            np.ones(40 << 20, np.uint8)

    with bounded("little"):
        pass
    assert failing(spend) == WRONG
    if Path("/proc/self/clear_refs").exists():
        monkeypatch.setattr("benchmarks.faults.bounds.SECONDS", 10)
        assert failing(take) == WRONG


def test_growth_over_epochs_is_found() -> None:
    epochs = range(endurance.EPOCHS_LONG)
    level = {epoch: [100.0, 101.0] for epoch in epochs}
    growing = {epoch: [100 + epoch / 4] for epoch in epochs}
    assert endurance.judge(level, level).startswith("300 epochs: 100 MB, +0.0 MB later")
    for one, other in ((growing, level), (level, growing)):
        assert failing(lambda m=one, f=other: endurance.judge(m, f)) == WRONG


def raising(error: Exception) -> Callable[[], None]:
    def read() -> None:
        raise error

    return read


def test_an_error_is_one_line_of_its_type() -> None:
    assert attempt(lambda: 3, ()) == 3
    assert attempt(raising(ValueError("load: no")), (ValueError,), start="load") is None
    for text in ("two\nlines", "x" * 5000, ""):
        assert failing(lambda t=text: attempt(raising(ValueError(t)), (ValueError,)))
    assert failing(lambda: attempt(raising(KeyError("a")), (ValueError,))) == TRACEBACK
    other = raising(ValueError("other"))
    assert failing(lambda: attempt(other, (ValueError,), start="load: ")) == WRONG


# --- The campaign. --------------------------------------------------------------------


def test_a_try_can_be_made_again() -> None:
    one, again = (tries.generator(1, "files", 7).random(3) for _ in range(2))
    assert one.tolist() == again.tolist()
    for seed, kind, number in ((2, "files", 7), (1, "kill", 7), (1, "files", 8)):
        assert tries.generator(seed, kind, number).random() != one[0]


def test_kinds_come_in_turn() -> None:
    def first(count: int, minutes: float, *, named: bool = False) -> list[str]:
        found = schedule(KINDS, minutes, named=named)
        return [
            f"{kind.name}:{number}"
            for (kind, number), _ in zip(found, range(count), strict=False)
        ]

    turns = [kind for kind in KINDS if not kind.once]
    made = sum(kind.turn for kind in turns)
    names = first(2 * made, LEAST_MINUTES / 2)
    assert len({*names}) == 2 * made and "kill:1" in names and "kill:2" not in names
    assert names[0] == "kill:0" and names[made] == "kill:1"
    assert (
        first(2, LEAST_MINUTES) == first(2, 1, named=True) == ["endurance:0", "kill:0"]
    )


def test_damage_changes_a_file(tmp_path: Path) -> None:
    content = json.dumps({"a": [1, {"b": 0.5}], "c": "text"}).encode()
    changed = 0
    for number in range(200):
        file = tmp_path / "file.json"
        file.write_bytes(content)
        assert damage.spoil_file(tries.generator(0, "damage", number), file)
        changed += not file.is_file() or file.read_bytes() != content
        shutil.rmtree(file) if file.is_dir() else file.unlink(missing_ok=True)
    assert changed > 180


def test_the_report_counts(tmp_path: Path) -> None:
    found = [None, LOST, TRACEBACK, WRONG, None]
    outcomes = [
        Outcome("kill", i, 1.0, "é\ud800", each) for i, each in enumerate(found)
    ]
    report.write(tmp_path, KINDS, outcomes, {"space": "no root"}, seed=4, minutes=0.5)
    lines = (tmp_path / "faults.csv").read_text().splitlines()
    assert lines[0] == "kind,tries,failures,lost_data,tracebacks,seconds"
    assert "kill,5,3,1,1,5.0" in lines
    about = json.loads((tmp_path / "faults.json").read_text())
    assert (about["seed"], about["minutes"]) == (4, 0.5)
    assert [each["number"] for each in about["failures"]] == [1, 2, 3]
    assert about["skipped"] == {"space": "no root"} and "jax" in about["versions"]
    assert "kill " in report.table(report.count(KINDS, outcomes), KINDS)


# --- A share of the campaign. ---------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "count"), [(archives, 8), (files, 25), (artefacts, 40)]
)
def test_a_share_in_this_process(
    kind: object, count: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Weights that are drawn again are a program that takes seconds to compile.
    monkeypatch.setattr(artefacts, "SOUND", artefacts.SOUND[:2])
    [kind] = kind.KINDS
    shop = Workshop(tmp_path, tmp_path / "sound", 1.0)
    shop.sound.mkdir()
    about = []
    for number in range(count):
        folder = tmp_path / "tries" / str(number)
        folder.mkdir(parents=True)
        rng = tries.generator(20221016, kind.name, number)
        about.append(kind.attempt(shop, rng, folder))
    assert len({*about}) > count / 2
    assert any(line.endswith("refused") for line in about)


@pytest.mark.slow
@pytest.mark.program
def test_a_share_in_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program_flags: str
) -> None:
    """A run is killed, and goes on; the campaign says so in its files."""
    monkeypatch.setenv("XLA_FLAGS", program_flags)
    out = tmp_path / "out"
    assert main(["--repeat", "kill:0", "--out", str(out)]) == 0
    about = json.loads((out / "faults.json").read_text())
    assert about["failures"] == [] and about["kinds"][0]["tries"] == 1
    assert sorted(path.name for path in out.iterdir()) == ["faults.csv", "faults.json"]
    # The folder of another campaign is left alone.
    (out / "failures").mkdir()
    assert main(["--repeat", "kill:0", "--out", str(out)]) == 2


@pytest.mark.parametrize(
    "line", ["--kinds nothing", "--repeat kill", "--repeat nothing:1"]
)
def test_mistakes_on_the_command_line(
    line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(line.split())
    assert stop.value.code == 2 and line.split()[0] in capsys.readouterr().err


@pytest.mark.slow
def test_a_try_repeats_with_a_header_that_numpy_would_not_write(tmp_path, capsys):
    """Try 185 of seed 1 gives an array the shape None."""
    line = ["--seed", "1", "--repeat", "archives:185", "--out", str(tmp_path)]
    assert main(line) == 0
    out = capsys.readouterr().out
    assert "x_train.npy: {'shape': None}: refused" in out
