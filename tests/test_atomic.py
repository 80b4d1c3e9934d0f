"""Atomic writes: a file appears complete, or not at all."""

import errno
import os

import pytest

from aslp_jax._atomic import atomic_write, write_all, write_text


def test_what_was_there_stays_until_all_is_written(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with atomic_write(path) as file:
        file.write(b"new")
        file.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["a"]


def test_an_error_leaves_what_was_there_and_nothing_else(tmp_path):
    path = tmp_path / "a"
    path.write_bytes(b"old")
    with pytest.raises(OSError, match="disk"), atomic_write(path) as file:
        file.write(b"half")
        raise OSError(errno.ENOSPC, "the disk is full")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["a"]


def test_of_several_none_appears_where_one_cannot(tmp_path):
    (tmp_path / "b").mkdir()
    with pytest.raises(IsADirectoryError):
        write_all({tmp_path / "a": b"1", tmp_path / "b": b"2"})
    assert os.listdir(tmp_path) == ["b"]


def test_a_pipe_is_not_replaced(tmp_path):
    path = tmp_path / "pipe"
    os.mkfifo(path)
    with pytest.raises(FileExistsError, match="no regular file"), atomic_write(path):
        raise AssertionError("it was opened")
    assert path.is_fifo() and os.listdir(tmp_path) == ["pipe"]


def test_a_link_leads_to_what_is_replaced(tmp_path):
    (tmp_path / "folder").mkdir()
    path, link = tmp_path / "folder" / "a", tmp_path / "link"
    link.symlink_to(path)
    with atomic_write(link) as file:
        file.write(b"new")
    assert link.is_symlink() and path.read_bytes() == b"new"


def test_text_is_on_disk_before_it_has_its_name(tmp_path, monkeypatch):
    path, partial = tmp_path / "a.json", tmp_path / "a.json.partial"
    path.write_text("old")
    partial.write_text("left by a process that was killed, and longer than the new one")
    seen = []

    def fsync(descriptor):
        seen.append((path.read_text(), partial.read_text()))

    monkeypatch.setattr("os.fsync", fsync)
    write_text(path, "new ±")
    assert seen == [("old", "new ±")]
    assert path.read_bytes() == "new ±".encode()
    assert os.listdir(tmp_path) == ["a.json"]


def test_text_that_cannot_be_written_leaves_the_old_one(tmp_path, monkeypatch):
    def fsync(descriptor):
        raise OSError(errno.ENOSPC, "the disk is full")

    path = tmp_path / "a"
    path.write_text("old")
    monkeypatch.setattr("os.fsync", fsync)
    with pytest.raises(OSError, match="disk"):
        write_text(path, "new")
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a"]


def test_a_file_that_lies_beside_is_not_written_into(tmp_path, monkeypatch):
    monkeypatch.setattr("secrets.token_hex", lambda size: "planted")
    other = tmp_path / "a.planted"
    other.write_bytes(b"mine")
    with pytest.raises(FileExistsError), atomic_write(tmp_path / "a"):
        raise AssertionError("it was opened")
    assert other.read_bytes() == b"mine" and os.listdir(tmp_path) == ["a.planted"]
