"""Files of a run: rows up to a checkpoint, damaged files, a folder that is free."""

import json
from pathlib import Path
from typing import Any

import pytest

from aslp_jax._errors import BadInput
from aslp_jax.trainer.options import Config
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
    assert RunFolder(folder.path).saved_options() == config.as_dict()
    with pytest.raises(BadInput, match="holds a run already"):
        RunFolder.new(folder.path, config)


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
