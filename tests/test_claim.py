"""Claims: one writer at a time in a folder, whoever ends how."""

import dataclasses
import errno
import json
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from aslp_jax import _claim
from aslp_jax._claim import (
    LOCK,
    STALE_SECONDS,
    Held,
    await_sign_of_life,
    claim,
    claim_soon,
    is_lock,
    token,
    writer_here,
)

HOLDER = """
import sys, time
from aslp_jax._claim import claim
held = claim(sys.argv[1])
print("held", flush=True)
time.sleep(60)
"""


def leave(folder: Path, *, age: float = 0.0, **changes: object) -> None:
    """Leaves a lock file of this process, with some values changed."""
    owner = dataclasses.replace(_claim._this_process(), **changes)
    (folder / LOCK).write_text(json.dumps(dataclasses.asdict(owner)))
    then = time.time() - age
    os.utime(folder / LOCK, (then, then))


def a_dead_process() -> int:
    child = subprocess.Popen([sys.executable, "-c", ""])
    child.wait()
    return child.pid


def test_a_claim_is_made_named_and_ended(tmp_path):
    with claim(tmp_path) as held:
        found = json.loads((tmp_path / LOCK).read_text())
        assert (found["pid"], found["token"]) == (os.getpid(), held.owner.token)
        assert os.listdir(tmp_path) == [LOCK] and is_lock(LOCK)
        with pytest.raises(Held) as refused:
            claim(tmp_path)
        who = f"process {os.getpid()} on {found['host']} since {found['since']}"
        assert str(refused.value).startswith(f"{tmp_path} is being written by {who}")
        assert os.listdir(tmp_path) == [LOCK]
        assert str(writer_here(tmp_path)).startswith(f"process {os.getpid()} on ")
        held.check()
    held.release()
    assert os.listdir(tmp_path) == [] and writer_here(tmp_path) is None


def test_folders_that_were_made_for_a_claim_and_stay_empty_go(tmp_path):
    with claim(tmp_path / "a" / "b") as held:
        assert held.folder == tmp_path / "a" / "b"
    assert os.listdir(tmp_path) == []
    with claim(tmp_path / "a" / "b"):
        (tmp_path / "a" / "mine").touch()
    assert os.listdir(tmp_path / "a") == ["mine"]


def test_a_claim_that_is_forgotten_ends(tmp_path):
    claim(tmp_path)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize(
    ("changes", "age", "alive"),
    [
        ({}, 10 * STALE_SECONDS, True),  # a machine that slept
        ({"started": "1"}, 0.0, False),  # another process of the same number
        ({"pid": 2**22 + 1}, 0.0, False),
        ({"pid": 10**19}, 0.0, False),
        ({"started": ""}, 0.0, True),
        ({"started": ""}, STALE_SECONDS + 9, False),
        ({"machine": "other", "pid": 2**22 + 1}, STALE_SECONDS - 9, True),
        ({"machine": "other"}, STALE_SECONDS + 9, False),
    ],
)
def test_the_claim_of_a_dead_process_is_taken_over(tmp_path, changes, age, alive):
    leave(tmp_path, age=age, host="elsewhere", **changes)
    before = (tmp_path / LOCK).read_bytes()
    if alive:
        with pytest.raises(Held, match=r"process .* on elsewhere since") as refused:
            claim(tmp_path)
        told = f"free {STALE_SECONDS:.0f} s after its last sign" in str(refused.value)
        assert told == ("machine" in changes)
        assert (tmp_path / LOCK).read_bytes() == before
    else:
        with claim(tmp_path):
            assert os.listdir(tmp_path) == [LOCK]
            assert (tmp_path / LOCK).read_bytes() != before
    assert (writer_here(tmp_path) is not None) == (alive and "machine" not in changes)


def test_a_process_that_nobody_has_waited_for_is_dead(tmp_path):
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert Path(f"/proc/{child.pid}").exists()  # a zombie
    leave(tmp_path, pid=child.pid, started="")
    with claim(tmp_path):
        pass
    child.wait()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[]", b"\xff", b"[" * 4096, b'{"pid": 1}', b'{"x": 1}']
    + [
        json.dumps(dataclasses.asdict(_claim._this_process()) | changes).encode()
        for changes in ({"pid": "1"}, {"token": "../x"}, {"host": None})
    ],
)
def test_a_damaged_lock_is_nobodys_after_a_while(tmp_path, content):
    (tmp_path / LOCK).write_bytes(content)
    with pytest.raises(Held, match=f"a process that {LOCK} does not name"):
        claim(tmp_path)
    then = time.time() - STALE_SECONDS - 9
    os.utime(tmp_path / LOCK, (then, then))
    with claim(tmp_path):
        assert os.listdir(tmp_path) == [LOCK]


def test_one_of_many_takes_a_dead_claim_over(tmp_path):
    pid, rounds, many = a_dead_process(), 20, 8
    for number in range(rounds):
        folder = tmp_path / str(number)
        folder.mkdir()
        leave(folder, pid=pid)
        at_once = threading.Barrier(many)

        def attempt(_, folder=folder, at_once=at_once):
            at_once.wait()
            try:
                return claim(folder)
            except Held:
                return None

        with ThreadPoolExecutor(many) as threads:
            held = [each for each in threads.map(attempt, range(many)) if each]
        assert len(held) == 1 and os.listdir(folder) == [LOCK]
        held[0].check()


def test_a_takeover_that_was_cut_off_is_taken_over_too(tmp_path):
    pid = a_dead_process()
    leave(tmp_path, pid=pid, token="first")
    (tmp_path / LOCK).rename(tmp_path / "kept")
    leave(tmp_path, pid=pid, token="second")
    (tmp_path / LOCK).rename(tmp_path / f"{LOCK}.first")
    (tmp_path / "kept").rename(tmp_path / LOCK)
    (tmp_path / f"{LOCK}.third.partial").write_bytes(
        (tmp_path / f"{LOCK}.first").read_bytes()
    )
    assert all(map(is_lock, os.listdir(tmp_path)))
    with claim(tmp_path):
        assert os.listdir(tmp_path) == [LOCK]


def test_without_hard_links_a_claim_is_made_all_the_same(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    with claim(tmp_path), pytest.raises(Held, match=str(os.getpid())):
        claim(tmp_path)
    assert os.listdir(tmp_path) == []


def test_an_owner_shows_that_it_lives(tmp_path, monkeypatch):
    monkeypatch.setattr(_claim, "BEAT_SECONDS", 0.01)
    with claim(tmp_path):
        os.utime(tmp_path / LOCK, (0, 0))
        for _ in range(500):
            if (tmp_path / LOCK).stat().st_mtime > 0:
                break
            time.sleep(0.01)
        assert (tmp_path / LOCK).stat().st_mtime > time.time() - 60


def test_a_claim_is_known_by_its_token(tmp_path):
    assert token(tmp_path / "missing") is None
    with claim(tmp_path) as held:
        assert token(tmp_path) == held.owner.token
    assert token(tmp_path) is None


def test_who_may_be_dead_is_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(_claim, "_LOOK_SECONDS", 0.02)
    await_sign_of_life(tmp_path / "missing")
    assert not (tmp_path / "missing").exists()
    leave(tmp_path)  # of this machine: a claim is refused at once
    await_sign_of_life(tmp_path)
    leave(tmp_path, machine="other", age=STALE_SECONDS + 9)
    await_sign_of_life(tmp_path)
    claim(tmp_path).release()

    # It lives: the claim is refused as soon as that is seen.
    leave(tmp_path, machine="other", age=60)
    beat = threading.Timer(0.2, os.utime, [tmp_path / LOCK])
    beat.start()
    await_sign_of_life(tmp_path)
    assert not beat.is_alive()
    with pytest.raises(Held):
        claim(tmp_path)

    # It is dead: the folder is free as soon as that is sure.
    leave(tmp_path, machine="other", age=STALE_SECONDS - 1.2)
    await_sign_of_life(tmp_path)
    claim(tmp_path).release()


def test_who_died_in_a_moment_is_outlived(tmp_path):
    leave(tmp_path, machine="other", age=STALE_SECONDS - 0.5)
    began = time.monotonic()
    claim_soon(tmp_path).release()
    assert 0.3 < time.monotonic() - began < 10
    # Its last sign of life may have come just before.
    assert _claim._PATIENCE_SECONDS > STALE_SECONDS


def test_an_owner_notices_that_it_was_taken_over(tmp_path):
    held = claim(tmp_path)
    (tmp_path / LOCK).unlink()
    held.check()  # somebody tidied up: claimed again
    assert json.loads((tmp_path / LOCK).read_text())["token"] == held.owner.token
    leave(tmp_path, host="elsewhere")
    with pytest.raises(Held, match=r"was taken over by process .* on elsewhere"):
        held.check()
    held.release()
    assert os.listdir(tmp_path) == [LOCK]


def test_a_folder_that_cannot_be_written_is_said(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(OSError):
        claim(tmp_path / "file" / "below")
    with pytest.raises(FileExistsError):
        claim(tmp_path / "file")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.program
def test_a_killed_process_is_replaced_at_once(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, tmp_path], stdout=subprocess.PIPE
    ) as holder:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(Held, match=f"process {holder.pid} on "):
            claim(tmp_path)
        holder.send_signal(signal.SIGKILL)
        holder.wait()
    assert os.listdir(tmp_path) == [LOCK]
    with claim(tmp_path) as held:
        held.check()
    assert os.listdir(tmp_path) == []
