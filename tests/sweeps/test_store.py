"""Object stores: a server of each kind, and what a client does with its answers."""

import contextlib
import http.server
import json
import os
import signal
import sys
import threading
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from aslp_jax._errors import BadInput
from aslp_jax._extras import MissingExtra
from aslp_jax.sweeps.store import Store, StoreError, Uploads, check_uri, is_uri
from tests.sweeps.stores import BUCKET, SECRET, Server, serving

NAMES = ("config.json", "metrics.jsonl", "result.json")

# gcsfs sends bytes where aiohttp would rather have a file.
pytestmark = pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")


@pytest.fixture(scope="module", params=["s3", "gs"])
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with serving(request.param) as found:
        yield found


@pytest.fixture(scope="module")
def store(server: Server) -> Store:
    return Store(f"{server.uri}/some/where/")


def run_folder(path: Path, text: str = "text", size: int = 10) -> Path:
    """A run in training, with two checkpoints and what other files there may be."""
    for name in ("config.json", "metrics.jsonl", "lock.json", "metrics.jsonl.partial"):
        path.mkdir(exist_ok=True, parents=True)
        (path / name).write_text(text)
    for step in ("9", "10", "11.partial"):
        arrays = path / "checkpoints" / step / "arrays" / "ocdbt.process_0"
        arrays.mkdir(parents=True)
        (arrays / "_METADATA").write_bytes(b"x" * size)
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def upload(store: Store, folder: Path, waiting: Path) -> list[str]:
    with Uploads(store, NAMES, waiting) as uploads:
        uploads.upload(folder)
    return uploads.notes()


# Above 5 MB a client sends an object in parts.
@pytest.mark.parametrize("size", [10, 6_000_000])
def test_another_machine_finds_the_files_and_the_newest_checkpoint(
    store, tmp_path, size
):
    store.check()
    folder = run_folder(tmp_path / "cell-seed0", size=size)
    waiting = tmp_path / "waiting"
    waiting.mkdir()
    assert upload(store, folder, waiting) == []
    assert not list(waiting.iterdir())
    store.fetch(tmp_path / "there" / "cell-seed0", NAMES)
    assert contents(tmp_path / "there" / "cell-seed0") == {
        "config.json": b"text",
        "metrics.jsonl": b"text",
        "checkpoints/10/arrays/ocdbt.process_0/_METADATA": b"x" * size,
    }
    store.fetch(tmp_path / "there" / "cell-seed1", NAMES)
    assert not (tmp_path / "there" / "cell-seed1").exists()


def test_the_newest_of_several_that_wait_is_uploaded(store, server, tmp_path):
    folder, waiting = run_folder(tmp_path / "cell-seed2"), tmp_path / "waiting"
    waiting.mkdir()
    with Uploads(store, NAMES, waiting) as uploads:
        os.kill(server.process.pid, signal.SIGSTOP)
        try:
            for number in range(5):
                (folder / "config.json").write_text(str(number))
                began = time.monotonic()
                uploads.upload(folder)
                assert time.monotonic() - began < 5  # training goes on
                time.sleep(0.1)
            assert len(list(waiting.iterdir())) == 2
        finally:
            os.kill(server.process.pid, signal.SIGCONT)
    assert uploads.notes() == []
    assert not list(waiting.iterdir())
    store.fetch(tmp_path / "there" / "cell-seed2", NAMES)
    assert (tmp_path / "there" / "cell-seed2" / "config.json").read_text() == "4"


def test_two_writers_of_one_run_leave_it_whole(store, tmp_path):
    stop = threading.Event()

    def write(number: int) -> None:
        folder = run_folder(tmp_path / str(number) / "cell-seed3", str(number))
        waiting = tmp_path / f"waiting{number}"
        waiting.mkdir()
        while not stop.is_set():
            assert upload(store, folder, waiting) == []

    writers = [threading.Thread(target=write, args=(each,)) for each in (0, 1)]
    for writer in writers:
        writer.start()
    seen = set()
    try:
        deadline = time.monotonic() + 20
        while len(seen) < 2 and time.monotonic() < deadline:
            there = tmp_path / f"there{time.monotonic_ns()}" / "cell-seed3"
            store.fetch(there, NAMES)
            if there.exists():
                found = contents(there)
                assert found["config.json"] == found["metrics.jsonl"]
                seen.add(found["config.json"])
    finally:
        stop.set()
        for writer in writers:
            writer.join()
    assert seen == {b"0", b"1"}


def test_one_place_is_of_one_grid(server):
    store = Store(f"{server.uri}/one")
    settings = {"format": 1, "options": {"epochs": 1}}
    store.settle(settings)
    store.settle(settings)
    with pytest.raises(BadInput) as raised:
        store.settle({**settings, "options": {"epochs": 2}})
    assert str(raised.value) == (
        f"--checkpoints {server.uri}/one holds a grid with options epochs 1, not 2; "
        "name another --checkpoints for this one"
    )


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({"../outside": "x"}, "holds '../outside'"),
        ({"/tmp/outside": "x"}, "holds '/tmp/outside'"),
        ({"checkpoints/1/../../../outside": "x"}, "holds 'checkpoints/1/../"),
        ({"checkpoints/1/..": "x"}, "holds 'checkpoints/1/..'"),
        ({"other.json": "x"}, "holds 'other.json'"),
        ({"config.json": "x" * 100_000}, "config.json is compressed"),
        (None, "is not a zip file"),
    ],
)
def test_an_object_with_other_files_is_refused(store, tmp_path, members, message):
    file, folder = tmp_path / "object.zip", tmp_path / "there" / "cell-seed4"
    if members is None:
        file.write_bytes(b"no zip")
    else:
        kind = zipfile.ZIP_DEFLATED if "config.json" in members else zipfile.ZIP_STORED
        with zipfile.ZipFile(file, "w", kind) as archive:
            for name, text in members.items():
                archive.writestr(name, text)
    store.replace("cell-seed4", file)
    with pytest.raises(StoreError) as raised:
        store.fetch(folder, NAMES)
    assert message in str(raised.value) and "\n" not in str(raised.value)
    assert f"{store.uri}/cells/cell-seed4.zip" in str(raised.value)
    assert not raised.value.passing
    assert {path.name for path in tmp_path.rglob("*")} <= {"object.zip"}


def test_a_damaged_object_is_refused(store, tmp_path):
    file = tmp_path / "object.zip"
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("config.json", "original")
    file.write_bytes(file.read_bytes().replace(b"original", b"0riginal"))
    store.replace("cell-seed5", file)
    with pytest.raises(StoreError, match=r"Bad CRC-32.*delete it"):
        store.fetch(tmp_path / "there" / "cell-seed5", NAMES)


def test_a_bucket_that_does_not_exist_is_one_line(server):
    store = Store(server.uri.replace(BUCKET, "no-such-bucket"))
    with pytest.raises(StoreError, match="cannot be used: there is no such bucket"):
        store.check()


def test_a_store_without_its_package_names_the_extra(server, monkeypatch):
    package = {"s3": "s3fs", "gs": "gcsfs"}[server.uri[:2]]
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingExtra) as missing:
        Store(server.uri)
    assert str(missing.value) == (
        f"--checkpoints {server.uri[:5]} needs the package {package}; "
        'pip install "aslp-jax[cloud]"'
    )


@pytest.mark.parametrize(
    ("uri", "shown"),
    [
        ("http://host/runs", "http://..."),
        ("hdfs://host/runs", "hdfs://..."),
        ("://", "://..."),
        ("s3://", "s3://..."),
        ("s3:///runs", "s3://..."),
        ("s3://key:password@bucket/runs", "s3://..."),
        ("s3://bucket/runs?versionId=1", "s3://..."),
        ("gs://bucket/runs#1", "gs://..."),
    ],
)
def test_what_is_no_store_is_one_line(uri, shown):
    assert is_uri(uri)
    with pytest.raises(StoreError) as raised:
        check_uri(uri)
    assert str(raised.value) == (
        f"--checkpoints {shown} is no folder and no store; name a folder, "
        "gs://BUCKET/PATH or s3://BUCKET/PATH"
    )


def test_what_is_a_store():
    for uri in ("s3://bucket", "gs://bucket_1/", "s3://my.bucket-1/a b/c@d"):
        check_uri(uri)
    assert not is_uri("runs/s3") and not is_uri("s3:/bucket")


def check_credentials_after(server: Server, requests: str) -> None:
    """Lets the server check credentials after a number of requests."""
    urllib.request.urlopen(
        urllib.request.Request(
            f"{server.address}/moto-api/reset-auth",
            requests.encode(),
            {"Content-Type": "text/plain"},
        )
    ).close()


# That of gs:// checks none.
@pytest.mark.parametrize("server", ["s3"], indirect=True)
def test_s3_without_credentials_or_permission_is_one_line(server, monkeypatch):
    check_credentials_after(server, "0")
    try:
        with pytest.raises(StoreError, match="no permission, or no credentials") as no:
            Store(server.uri).check()
        assert "InvalidAccessKeyId" in str(no.value) or "Access" in str(no.value)
    finally:
        check_credentials_after(server, "inf")
    assert not no.value.passing and SECRET not in str(no.value)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.delenv(name)
    with pytest.raises(StoreError, match="no permission, or no credentials") as none:
        Store(server.uri).check()
    assert "Unable to locate credentials" in str(none.value)
    assert not none.value.passing


@pytest.mark.parametrize(
    ("code", "text"),
    [
        (403, "robot@x does not have storage.objects.create access"),
        (401, "Anonymous caller does not have storage.objects.create access"),
    ],
)
def test_gs_without_permission_is_one_line(code, text, monkeypatch, caplog):
    """Google's own answer, from a server that gives no other."""
    pytest.importorskip("gcsfs")
    answer = json.dumps({"error": {"code": code, "message": text}}).encode()

    class Refusal(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.send_response(code)
            self.send_header("Content-Length", str(len(answer)))
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("localhost", 0), Refusal) as refusing:
        threading.Thread(target=refusing.serve_forever, daemon=True).start()
        address = f"http://localhost:{refusing.server_address[1]}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", address)
        with pytest.raises(StoreError, match="no permission, or no cred") as raised:
            Store("gs://bucket/runs").check()
        refusing.shutdown()
    assert text in str(raised.value) and "\n" not in str(raised.value)
    assert not raised.value.passing
    assert not caplog.records  # without a handler they would be printed


@pytest.mark.slow
def test_an_upload_that_failed_is_made_good_by_the_next(tmp_path):
    with serving("s3") as server:
        store = Store(server.uri)
        folder = run_folder(tmp_path / "cell-seed0")
        server.stop()
        with Uploads(store, NAMES, tmp_path) as uploads:
            for number in range(2):
                uploads.upload(folder)
                wait_until(lambda count=number: failed(uploads) > count)
            (folder / "config.json").write_text("later")
            server.start()
            uploads.upload(folder)
        (note,) = uploads.notes()
        begin = "cell-seed0: 2 of 3 uploads failed, the run went on (--checkpoints "
        assert note.startswith(f"{begin}{server.uri} cannot be written: ")
        assert "Could not connect" in note and "\n" not in note
        store.fetch(tmp_path / "there" / "cell-seed0", NAMES)
        assert (tmp_path / "there/cell-seed0/config.json").read_text() == "later"
        server.stop()
        with pytest.raises(StoreError) as away:
            store.fetch(tmp_path / "again" / "cell-seed0", NAMES)
        assert away.value.passing


def failed(uploads: Uploads) -> int:
    """Number of uploads that failed, as the notes say."""
    with contextlib.suppress(IndexError):
        return int(uploads.notes()[0].split()[1])
    return 0


def wait_until(true) -> None:
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_files_that_cannot_be_packed_are_a_failed_upload(store, tmp_path):
    folder = run_folder(tmp_path / "cell-seed6")
    (note,) = upload(store, folder, tmp_path / "missing")
    begin = "cell-seed6: 1 of 1 uploads failed, the run went on ([Errno 2] No such file"
    assert note.startswith(begin)
