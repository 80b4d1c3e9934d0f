"""Servers of object stores in processes of their own, for s3:// and gs://."""

import contextlib
import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator

import pytest

SECRET = "never-in-a-file-0123456789"
"""Secret key of the environment."""

BUCKET = "runs-of-tests"

_COMMANDS = {
    "s3": ("moto.server", "moto", ["--host", "localhost", "--port"]),
    "gs": (
        "gcp_storage_emulator",
        "gcp-storage-emulator",
        f"start --in-memory --default-bucket {BUCKET} --host localhost --port".split(),
    ),
}
_CLIENTS = {"s3": "s3fs", "gs": "gcsfs"}


def missing(scheme: str) -> str | None:
    """Why there can be no server of a scheme here; None if there can be."""
    module, package, _ = _COMMANDS[scheme]
    for name in (module.partition(".")[0], _CLIENTS[scheme]):
        if importlib.util.find_spec(name) is None:
            return f"needs {package} and {_CLIENTS[scheme]} (extra [test])"
    return None


class Server:
    """Object store of one scheme, with one bucket, in a process of its own.

    Attributes:
      uri: address of the bucket.
      environment: environment variables that lead the clients there.
      process: the server.
    """

    def __init__(self, scheme: str) -> None:
        if (reason := missing(scheme)) is not None:
            pytest.skip(reason)
        self._scheme = scheme
        self._module, _, self._arguments = _COMMANDS[scheme]
        self.uri = f"{scheme}://{BUCKET}"
        with socket.create_server(("localhost", 0)) as free:
            self._port = free.getsockname()[1]
        self.address = f"http://localhost:{self._port}"
        if scheme == "s3":
            self.environment = {
                "AWS_ENDPOINT_URL": self.address,
                "AWS_ACCESS_KEY_ID": "test",
                "AWS_SECRET_ACCESS_KEY": SECRET,
                "AWS_DEFAULT_REGION": "us-east-1",
                "AWS_MAX_ATTEMPTS": "1",
            }
        else:
            self.environment = {"STORAGE_EMULATOR_HOST": self.address}

    def start(self) -> None:
        """Starts the server with an empty bucket."""
        command = [sys.executable, "-m", self._module, *self._arguments]
        self.process = subprocess.Popen(
            [*command, str(self._port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env={**os.environ, "PYTHONWARNINGS": "ignore"},
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                self._make_bucket()
                return
            except OSError:
                assert self.process.poll() is None and time.monotonic() < deadline
            time.sleep(0.1)

    def _make_bucket(self) -> None:
        method, path = ("PUT", f"/{BUCKET}") if self._scheme == "s3" else ("GET", "/")
        request = urllib.request.Request(self.address + path, method=method)
        with contextlib.suppress(urllib.request.HTTPError):
            urllib.request.urlopen(request, timeout=10).close()

    def stop(self) -> None:
        """Ends the server; what it held is gone."""
        self.process.kill()
        self.process.wait()


@contextlib.contextmanager
def serving(scheme: str) -> Iterator[Server]:
    """Yields a server that runs, and to which the environment leads."""
    found = Server(scheme)
    found.start()
    with pytest.MonkeyPatch.context() as patch:
        for name, value in found.environment.items():
            patch.setenv(name, value)
        try:
            yield found
        finally:
            found.stop()
