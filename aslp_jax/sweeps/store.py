"""Object stores that hold the runs of a grid on a cluster: `gs://` and `s3://`.

A run is one object, a zip file of its files and its newest checkpoint. It is replaced
as a whole: a store shows an object only when all of it is there, and a reader gets the
old or the new one. So nothing is renamed, listed or deleted, and no claim is needed.
Where two tasks train one run, each replaces the object by a state of this same run,
and any of them continues to the same bits.

gcsfs and s3fs speak to the stores, and take credentials from the environment as they
document it. Their errors are of many types; all become `StoreError`.

The file is long because uploads that wait, objects that are damaged and each error of a
store are answered in one place.
"""

import collections
import contextlib
import json
import logging
import re
import secrets
import tempfile
import threading
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Any

from aslp_jax._errors import BadInput
from aslp_jax._extras import require
from aslp_jax._json import Unreadable, parse
from aslp_jax.sweeps.grid import compare_settings

PAGE = "docs/scaling.md#checkpoints-in-an-object-store"
"""Page on object stores."""

_MODULES = {"gs": "gcsfs", "s3": "s3fs"}
"""Module that speaks to a store, by scheme."""

_LOGGERS = {"gs": ("gcsfs", "google.auth"), "s3": ("s3fs", "aiobotocore")}
"""Loggers that would print lines of their own, by scheme."""

_URI = re.compile(r"(?P<scheme>[^:/]*)://(?P<bucket>[\w.-]+)(?P<path>(/[^?#]*)?)", re.A)
# A `?` or `#` would ask for a version of an object; an `@` may follow a password.

_MEMBER = re.compile(r"checkpoints/[0-9]+(/(?!\.\.?(/|$))[\w.-]+)+", re.A)
"""Names that the files of a checkpoint may have in an object."""


class StoreError(BadInput):
    """Error of a store.

    Attributes:
      passing: True if the same may succeed a little later.
    """

    def __init__(self, message: str, *, passing: bool = False) -> None:
        """Takes the message.

        Args:
          message: line for a person.
          passing: True if the same may succeed a little later; default: False.
        """
        super().__init__(message, page=PAGE)
        self.passing = passing


def is_uri(text: str) -> bool:
    """Returns True for a URI, and False for the path of a folder.

    Args:
      text: value of --checkpoints.
    """
    return "://" in text


def check_uri(uri: str) -> None:
    """Checks that a URI is that of a store; asks no store.

    Args:
      uri: value of --checkpoints.

    Raises:
      BadInput: the scheme is not known, or there is no bucket.
    """
    found = _URI.fullmatch(uri)
    if found is None or found["scheme"] not in _MODULES:
        # Not the URI itself, which may hold a password.
        raise StoreError(
            f"--checkpoints {uri.partition('://')[0]}://... is no folder and no store; "
            "name a folder, gs://BUCKET/PATH or s3://BUCKET/PATH"
        )


class Store:
    """Place in an object store for the runs of one grid.

    Attributes:
      uri: address, without a slash at the end.
    """

    def __init__(self, uri: str) -> None:
        """Prepares the client; asks the store nothing.

        Args:
          uri: address; see `check_uri`.

        Raises:
          BadInput: the address is none of a store.
          MissingExtra: the client is not installed.
        """
        check_uri(uri)
        self.uri = uri.rstrip("/")
        scheme, _, self._root = self.uri.partition("://")
        require(_MODULES[scheme], by=f"--checkpoints {scheme}://")
        # What they log comes as an exception, too.
        for name in _LOGGERS[scheme]:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        # One of its own: the errors of another are no longer ours.
        options: dict[str, Any] = {
            "skip_instance_cache": True,
            "use_listings_cache": False,
        }
        with self._explained("cannot be used"):
            if scheme == "s3":
                import s3fs

                self._files = s3fs.S3FileSystem(**options)
            else:
                # The class that asks for no kind of bucket, over gRPC.
                from gcsfs.core import GCSFileSystem

                self._files = GCSFileSystem(**options)

    def check(self) -> None:
        """Checks that objects can be written, read, replaced and deleted here.

        Raises:
          StoreError: they cannot; there is no such bucket, for example.
        """
        name, content = f"{self._root}/check-{secrets.token_hex(8)}", b"aslp-jax"
        with self._explained("cannot be used"):
            for _ in range(2):  # to replace needs a right of its own with gs://
                self._files.pipe_file(name, content)
            found = self._files.cat_file(name)
            self._files.rm_file(name)
        if found != content:
            raise StoreError(f"--checkpoints {self.uri} returned other bytes")

    def settle(self, settings: Mapping[str, Any]) -> None:
        """Makes this the place of a grid, or checks that it is.

        Args:
          settings: content of the grid's grid.json.

        Raises:
          BadInput: the place is that of another grid.
          StoreError: the store cannot be used.
        """
        name = "grid.json"
        with self._explained("cannot be used"):
            try:
                content = self._files.cat_file(f"{self._root}/{name}")
            except FileNotFoundError:
                text = json.dumps(settings, indent=2) + "\n"
                return self._files.pipe_file(f"{self._root}/{name}", text.encode())
        try:
            found = parse(content, dict[str, Any])
        except Unreadable as error:
            raise StoreError(
                f"{self.uri}/{name} is damaged; name another --checkpoints"
            ) from error
        compare_settings(found, settings, flag="--checkpoints", place=self.uri)

    def fetch(self, folder: Path, names: Sequence[str]) -> None:
        """Fetches the files of a run, if the store has any.

        Args:
          folder: run folder, which is missing; its name tells runs apart.
          names: names that files besides the checkpoint may have.

        Raises:
          StoreError: the store cannot be used, or the object is damaged.
        """
        with tempfile.TemporaryDirectory(prefix="aslp-jax-") as temporary:
            file = Path(temporary) / "run.zip"
            with self._explained("cannot be read"):
                try:
                    self._files.get_file(self._object(folder.name), str(file))
                except FileNotFoundError:
                    return
            try:
                _unpack(file, folder, names)
            except (ValueError, OSError, zipfile.BadZipFile) as error:
                raise StoreError(
                    f"{self._shown(folder.name)} cannot be used ({error}); if it is "
                    "damaged, delete it, and the run is made anew"
                ) from error

    def replace(self, name: str, file: Path) -> None:
        """Replaces the object of a run; it appears whole or not at all.

        Args:
          name: name of the run folder.
          file: zip file of the run's files.

        Raises:
          StoreError: the store cannot be written.
        """
        with self._explained("cannot be written"):
            self._files.put_file(str(file), self._object(name))

    def _object(self, name: str) -> str:
        return f"{self._root}/cells/{name}.zip"

    def _shown(self, name: str) -> str:
        return f"{self.uri}/cells/{name}.zip"

    @contextlib.contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        """Turns every error of a client into a StoreError of one line."""
        try:
            yield
        except Exception as error:  # clients raise many types
            reason, passing = _explain(error)
            raise StoreError(
                f"--checkpoints {self.uri} {what}: {reason}", passing=passing
            ) from error


class Uploads:
    """Uploads of some runs, from a thread of their own, so that training goes on.

    An upload that fails ends nothing. The next checkpoint of the run is uploaded in its
    place, as is one that comes while an older one waits.
    """

    def __init__(self, store: Store, names: Sequence[str], folder: Path) -> None:
        """Starts no upload.

        Args:
          store: store of the runs.
          names: names of the files to upload besides the newest checkpoint.
          folder: folder for files that wait to be uploaded; exists.
        """
        self._store, self._names, self._folder = store, names, folder
        self._thread = ThreadPoolExecutor(1, "aslp-jax-upload")
        self._lock = threading.Lock()
        self._waiting: dict[str, Path] = {}
        self._done: collections.Counter[str] = collections.Counter()
        self._failures: dict[str, list[str]] = collections.defaultdict(list)

    def upload(self, folder: Path) -> None:
        """Uploads the present files of a run, a little later.

        Args:
          folder: run folder; may change as soon as this returns.
        """
        file = self._folder / f"{secrets.token_hex(8)}.zip"
        try:
            _pack(folder, self._names, file)
        except OSError as error:  # a full disk
            file.unlink(missing_ok=True)
            self._failures[folder.name].append(str(error))
            return
        with self._lock:
            older = self._waiting.get(folder.name)
            self._waiting[folder.name] = file
        if older is not None:
            older.unlink()
        else:
            self._thread.submit(self._upload, folder.name)

    def _upload(self, name: str) -> None:
        with self._lock:
            file = self._waiting.pop(name)
        try:
            self._store.replace(name, file)
            self._done[name] += 1
        except StoreError as error:
            self._failures[name].append(str(error))
        finally:
            file.unlink(missing_ok=True)

    def notes(self) -> list[str]:
        """Returns a line for each run of which an upload failed."""
        return [
            f"{name}: {len(reasons)} of {len(reasons) + self._done[name]} uploads "
            f"failed, the run went on ({reasons[0]})"
            for name, reasons in self._failures.items()
        ]

    def __enter__(self) -> "Uploads":
        """Returns the uploads."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Waits for what is being uploaded."""
        self._thread.shutdown()


def _pack(folder: Path, names: Sequence[str], target: Path) -> None:
    """Writes the files of a run that another process needs to go on."""
    # Only now: the command line should not wait for JAX.
    from aslp_jax import checkpoint

    files = [folder / name for name in names]
    for step in checkpoint.steps(folder / "checkpoints")[-1:]:
        files += sorted((folder / "checkpoints" / str(step)).rglob("*"))
    with zipfile.ZipFile(target, "w", strict_timestamps=False) as archive:
        for file in files:
            if file.is_file():
                archive.write(file, file.relative_to(folder).as_posix())


def _unpack(file: Path, folder: Path, names: Sequence[str]) -> None:
    """Writes the files of an object, after a check of their names and sizes."""
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        for each in members:
            if each.filename not in names and not _MEMBER.fullmatch(each.filename):
                raise ValueError(f"it holds {each.filename!r:.80}")
            if each.compress_type != zipfile.ZIP_STORED:
                raise ValueError(f"{each.filename} is compressed")
        if sum(each.file_size for each in members) > file.stat().st_size:
            raise ValueError("its files are larger than itself")
        archive.extractall(folder)


def _explain(error: Exception) -> tuple[str, bool]:
    """Returns what is wrong, and True if the same may succeed a little later."""
    kind, text = type(error).__name__, " ".join(str(error).split())
    found = f"{kind}: {text:.300}" if text else kind
    if isinstance(error, FileNotFoundError):
        return f"there is no such bucket ({found})", False
    if (
        isinstance(error, PermissionError)
        or getattr(error, "code", None) in (401, 403)  # gcsfs
        or text.startswith("Forbidden")  # gcsfs
        or kind.endswith("CredentialsError")  # botocore, google.auth
    ):
        return f"no permission, or no credentials ({found})", False
    return found, True
