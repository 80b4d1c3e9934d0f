"""Files of a run: rows up to a checkpoint, damaged files, a folder that is free."""

import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest

from aslp_jax._errors import BadInput
from aslp_jax.trainer.options import FIELDS, Config, without_added
from aslp_jax.trainer.run_folder import RunFolder
from tests.helpers import epoch_row

EPOCHS = 4
LINES = [
    json.dumps(epoch_row(epoch).to_json()).encode() + b"\n"
    for epoch in range(1, EPOCHS + 1)
]


@pytest.mark.parametrize(
    "lines",
    [
        LINES[: EPOCHS - 1],
        [LINES[0], *LINES[2:]],
        [b"{", *LINES[1:]],
        [b"[]\n", *LINES[1:]],
        [b"{}\n", *LINES[1:]],
        [b'{"epoch": 1}\n', *LINES[1:]],
        [b"\xff\xfe\n", *LINES[1:]],
        [],
        None,
    ],
)
def test_damaged_metrics_are_refused(tmp_path: Path, lines: Any) -> None:
    file = tmp_path / "metrics.jsonl"
    if lines is None:
        file.mkdir()
    else:
        file.write_bytes(b"".join(lines))
    with pytest.raises(BadInput) as caught:
        RunFolder(tmp_path).rows(EPOCHS)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == [file]
    assert lines is None or file.read_bytes() == b"".join(lines)


def test_rows_after_the_checkpoint_are_dropped(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    # As a kill -9 in the middle of a line leaves it.
    file.write_bytes(b"".join(LINES) + LINES[0][:50])
    assert RunFolder(tmp_path).rows(2) == [epoch_row(1), epoch_row(2)]
    assert file.read_bytes() == b"".join(LINES[:2])
    assert RunFolder(tmp_path).rows(0) == []
    assert file.read_bytes() == b""


def test_what_two_processes_wrote_is_mended(tmp_path: Path) -> None:
    file = tmp_path / "metrics.jsonl"
    first = json.dumps(epoch_row(2, seconds=9.0).to_json()).encode() + b"\n"
    torn = LINES[1][:40] + LINES[2][:30] + b"\n"
    file.write_bytes(b"".join([LINES[0], first, torn, *LINES[1:3], *LINES[:2]]))
    assert RunFolder(tmp_path).rows(3) == [epoch_row(epoch) for epoch in (1, 2, 3)]
    assert file.read_bytes() == b"".join(LINES[:3])


def test_a_row_is_written_as_it_is_read(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    for epoch in (1, 2):
        folder.append_row(epoch_row(epoch))
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"".join(LINES[:2])


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b"\xff\xfe",
        b'{"options": null}',
        b'{"options": 5}',
        b'{"options": []}',
        b'{"options": {"arch": "conv2"}}',
    ],
)
def test_a_damaged_config_is_refused(tmp_path: Path, text: bytes) -> None:
    (tmp_path / "config.json").write_bytes(text)
    with pytest.raises(BadInput) as caught:
        RunFolder(tmp_path).saved_options()
    assert str(tmp_path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_folder_is_made_only_when_the_run_begins(tmp_path: Path) -> None:
    config = Config(seed=3)
    folder = RunFolder.new(tmp_path / "new", config)
    assert list(tmp_path.iterdir()) == []
    folder.create(config, "1 x cpu")
    folder.release()
    assert RunFolder(folder.path).saved_options() == config.as_dict()
    with pytest.raises(BadInput, match="holds a run already"):
        RunFolder.new(folder.path, config)


def test_an_older_run_lacks_the_options_that_were_added(tmp_path: Path) -> None:
    saved = {"options": Config(seed=3).as_dict()}
    for name in ("stream", "shard"):
        del saved["options"][name]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    assert RunFolder(tmp_path).saved_options() == Config(seed=3).as_dict()
    del saved["options"]["devices"]
    (tmp_path / "config.json").write_text(json.dumps(saved))
    with pytest.raises(BadInput, match="only one side knows devices"):
        RunFolder(tmp_path).saved_options()


def test_what_older_runs_wrote_is_the_same_as_an_added_option_left_alone() -> None:
    older = {
        name: value
        for name, value in Config(seed=3).as_dict().items()
        if not FIELDS[name].metadata.get("added")
    }
    assert older.keys() < FIELDS.keys()
    assert without_added(Config(seed=3).as_dict()) == older
    averaged = Config(seed=3, ema_decay=0.5).as_dict()
    assert without_added(averaged) == {**older, "ema_decay": 0.5}
    assert without_added({"plain": {"ema_decay": 0.0}}) == {"plain": {"ema_decay": 0.0}}


def test_a_run_that_goes_on_says_so(tmp_path: Path) -> None:
    RunFolder.new(tmp_path / "run", Config()).create(Config(), "1 x cpu")
    for epoch in (2, 5):
        folder = RunFolder(tmp_path / "run")
        folder.record_resume(Config(epochs=7), "2 x cpu", epoch)
    found = json.loads((tmp_path / "run" / "config.json").read_text())
    assert (found["options"]["epochs"], found["device"]) == (7, "1 x cpu")
    assert [each["after_epoch"] for each in found["resumed"]] == [2, 5]
    assert all(each["device"] == "2 x cpu" for each in found["resumed"])
    assert all("options" not in each for each in found["resumed"])


def test_one_process_at_a_time(tmp_path: Path) -> None:
    config, path = Config(), tmp_path / "run"
    one, other = (RunFolder.new(path, config) for _ in range(2))
    one.create(config, "1 x cpu")
    before = {each: each.read_bytes() for each in path.iterdir()}
    for attempt in (
        lambda: other.create(config, "1 x cpu"),
        lambda: RunFolder.new(path, config),
        lambda: RunFolder(path).claim(),
    ):
        with pytest.raises(
            BadInput, match=r"being written by process .* since"
        ) as told:
            attempt()
        assert "\n" not in str(told.value)
    assert before == {each: each.read_bytes() for each in path.iterdir()}
    one.release()
    with pytest.raises(BadInput, match="holds a run already"):
        other.create(config, "1 x cpu")
    assert [each.name for each in path.iterdir()] == ["config.json"]


def test_runs_of_one_second_get_different_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("time.strftime", lambda form: "now")
    folders = [RunFolder.new(None, Config()) for _ in range(3)]
    for folder in folders:
        folder.create(Config(), "1 x cpu")
    name = "cifar10-conv4-aslp-seed0-now"
    found = [str(folder.path) for folder in folders]
    assert found == [f"runs/{name}", f"runs/{name}-2", f"runs/{name}-3"]


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    path = tmp_path / "run"
    path.mkdir()
    (path / "config.json.partial").write_text("{")
    # An owner that is forgotten counts as gone.
    RunFolder.new(path, Config()).create(Config(), "1 x cpu")
    left = ("network.aslp.0123abcd", "curves.png.89abcdef", "metrics.jsonl.partial")
    kept = ("network.aslp.0123abcd.txt", "mine.partial", "network.aslp.old")
    for name in (*left, *kept):
        (path / name).write_text("x")
    (path / "checkpoints" / "7.partial" / "arrays").mkdir(parents=True)
    folder = RunFolder(path)
    folder.claim()
    folder.remove_left_behind("network.aslp")
    folder.release()
    assert {each.name for each in path.iterdir()} == {
        "config.json",
        "checkpoints",
        *kept,
    }
    assert list((path / "checkpoints").iterdir()) == []


@pytest.mark.parametrize("lost", ["run", "cwd"])
def test_a_folder_that_is_deleted_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    folder = RunFolder.new(Path("run"), Config(seed=3))
    folder.create(Config(seed=3), "1 x cpu")
    folder.append_row(epoch_row(1))
    shutil.rmtree(tmp_path / "cwd" if lost == "cwd" else "run")
    folder.append_row(epoch_row(2))
    folder.write_result({"x": 1})
    folder.release()
    path = tmp_path / "cwd" / "run"
    assert (path / "metrics.jsonl").read_bytes() == b"".join(LINES[:2])
    assert RunFolder(path).saved_options() == Config(seed=3).as_dict()
    assert {each.name for each in path.iterdir()} == {
        "config.json",
        "metrics.jsonl",
        "result.json",
    }


def test_a_run_that_was_taken_over_writes_no_more(tmp_path: Path) -> None:
    folder = RunFolder.new(tmp_path / "run", Config())
    folder.create(Config(), "1 x cpu")
    lock = tmp_path / "run" / "lock.json"
    lock.write_text(lock.read_text().replace('"token": "', '"token": "another'))
    with pytest.raises(BadInput, match="was taken over by process"):
        folder.append_row(epoch_row(1))
    assert not (tmp_path / "run" / "metrics.jsonl").exists()


def test_a_path_of_odd_bytes_is_refused_before_anything_is_trained(
    tmp_path: Path,
) -> None:
    path = tmp_path / os.fsdecode(b"run\xff")
    for attempt in (
        lambda: RunFolder.new(path, Config()),
        lambda: RunFolder(path).claim(),
    ):
        with pytest.raises(BadInput, match="is no UTF-8 here; name another folder"):
            attempt()
    assert list(tmp_path.iterdir()) == []
