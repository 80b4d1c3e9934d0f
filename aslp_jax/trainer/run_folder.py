"""Folder of a run: options, metrics, checkpoints, plot and result.

The file is long because each file of the folder may be missing, damaged or of another
version, and each case has an error of its own.
"""

import functools
import json
import os
import shlex
import shutil
import sys
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aslp_jax._atomic import remove_left_behind, write_text
from aslp_jax._claim import Claim, claim, is_lock, writer_here
from aslp_jax._errors import BadInput
from aslp_jax._json import Unreadable, matches, parse, read_bytes
from aslp_jax._json import read as read_json
from aslp_jax.trainer.options import FIELDS, Config, flag
from aslp_jax.trainer.results import EpochRow

__all__ = [
    "LONGEST_METRICS",
    "REPORT",
    "RunFolder",
    "check_encoding",
    "typed",
    "writing",
]

_DAMAGED = "docs/what_can_go_wrong.md#damaged-files"
"""Page of the site on damaged files."""

_RESUMING = "docs/resuming.md"
"""Page of the site on resuming."""

_RUN_FOLDER = "docs/training.md#the-run-folder"
"""Page of the site on run folders."""

LONGEST_METRICS = 1 << 28
"""Largest size of metrics.jsonl in bytes."""

REPORT = "report.html"
"""Name of the page on a run, or on a grid, in its folder."""

_CONFIG, _METRICS, _RESULT = "config.json", "metrics.jsonl", "result.json"
_FILES = (_CONFIG, _METRICS, _RESULT, "curves.png", REPORT)
_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunFolder:
    """Folder of one run, with the files that are read from it and written to it.

    One process at a time writes there: `create` and `claim` claim the folder. If the
    folder is deleted while its run goes on, it is made again, without the checkpoints.

    Attributes:
      path: path of the folder as it was given, for messages and commands.
    """

    def __init__(self, path: Path) -> None:
        """Names a folder; reads and writes nothing.

        Args:
          path: path of the folder.
        """
        self.path = path
        self._free_name = False
        self._claim: Claim | None = None
        self._lines: list[str] = []  # of metrics.jsonl

    def file(self, name: str) -> Path:
        """Returns the path of a file in the folder, absolute once it is claimed.

        An absolute path is found even if the working folder is deleted.

        Args:
          name: name of the file.
        """
        return (self.path if self._claim is None else self._claim.folder) / name

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.file("checkpoints")

    @property
    def quoted(self) -> str:
        """Path of the folder, quoted for a shell."""
        return shlex.quote(str(self.path))

    @property
    def begun(self) -> bool:
        """True if the folder is claimed and holds a run."""
        return self._claim is not None and self.file(_CONFIG).exists()

    @classmethod
    def new(cls, path: Path | None, config: Config) -> "RunFolder":
        """Returns a folder that is free for a new run; writes nothing.

        Args:
          path: path of the folder, which must be missing or empty; None names a folder
            under `runs/` after the run and the time.
          config: options of the run.

        Raises:
          BadInput: the path is a file, holds a run, or holds something else; or another
            process writes there.
        """
        if path is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            images, seed = config.dataset_name, config.seed
            name = f"{images}-{config.network_name}-{config.method}-seed{seed}"
            folder = cls(Path("runs") / f"{name}-{stamp}")
            folder._free_name = True
            return folder
        folder = cls(path)
        folder._check_free()
        return folder

    def _check_free(self) -> None:
        """Checks that the folder may become that of a new run."""
        shown, path = f"--out {self.path}", self.file(".")
        with writing(self.path):  # a name too long, a folder that may not be searched
            check_encoding(self.path)
            if path.exists() and not path.is_dir():
                raise BadInput(
                    f"{shown} is a file; name a folder",
                    page=_RUN_FOLDER,
                )
            if self._claim is None and (owner := writer_here(path)) is not None:
                raise BadInput(
                    f"{shown} is being written by {owner}; name another",
                    page="docs/what_can_go_wrong.md#two-programs-one-folder",
                )
            if (path / _CONFIG).exists():
                raise BadInput(
                    f"{shown} holds a run already; continue it with --resume, or "
                    "name another folder",
                    page=_RESUMING,
                )
            if path.is_dir():
                for each in path.iterdir():
                    # A process that was killed at its beginning leaves these.
                    if each.name != f"{_CONFIG}.partial" and not is_lock(each.name):
                        raise BadInput(
                            f"{shown} is not empty; name a new folder",
                            page=_RUN_FOLDER,
                        )

    def claim(self) -> None:
        """Claims the folder until `release`; a second call does nothing.

        Raises:
          BadInput: another process writes there, or the folder cannot be written.
        """
        if self._claim is None:
            with writing(self.path):
                check_encoding(self.path)
                self._claim = claim(self.path)

    def release(self) -> None:
        """Ends the claim; a second call does nothing."""
        if self._claim is not None:
            self._claim.release()
            self._claim = None

    def create(self, config: Config, device: str) -> None:
        """Makes and claims the folder, and writes its config.json.

        Args:
          config: options of the run.
          device: number and kind of the devices, such as `"1 x cpu"`.

        Raises:
          BadInput: the folder cannot be written, or another process was faster.
        """
        with writing(self.path):
            if self._free_name:
                self._make_under_a_free_name()
            self.claim()
            try:
                self._check_free()
                self.remove_left_behind()
                self._saved = _describe(config, device)
                self._write(_CONFIG, self._saved)
            except BaseException:
                self.release()
                raise

    def _make_under_a_free_name(self) -> None:
        """Makes the folder; runs that begin in one second get different ones."""
        first, number = self.path, 1
        first.parent.mkdir(parents=True, exist_ok=True)
        while True:
            try:
                return self.path.mkdir()
            except FileExistsError:
                number += 1
                self.path = first.with_name(f"{first.name}-{number}")

    def remove_left_behind(self, *others: str) -> None:
        """Deletes the temporary files of processes that were killed in this run.

        Args:
          *others: names of files that others write into the folder.

        Raises:
          BadInput: the folder cannot be written.
        """
        with writing(self.path):
            remove_left_behind(self.file("."), (*_FILES, *others))
            for left in self.checkpoints.glob("*.partial"):
                shutil.rmtree(left)

    def saved_options(self) -> dict[str, Any]:
        """Returns the options of the run in this folder.

        Raises:
          BadInput: the folder holds no run, or a run with other options than this
            version has.
        """
        return dict(self._saved["options"])

    @property
    def about(self) -> Mapping[str, Any]:
        """Content of config.json.

        Raises:
          BadInput: the folder holds no run, or one of another version.
        """
        return self._saved

    @functools.cached_property
    def _saved(self) -> dict[str, Any]:
        """Content of config.json, read once and checked."""
        file = self.file(_CONFIG)
        try:
            saved = read_json(file)
            options = saved["options"]
            objects = [[options], saved.get("resumed", [])]
            if not matches(objects, list[list[dict[str, Any]]]):
                raise Unreadable("holds no options")
        except (OSError, ValueError, LookupError):
            raise BadInput(
                f"{self.path} holds no run to resume: no readable config.json",
                page=_RESUMING,
            ) from None
        added = {
            name: field.default
            for name, field in FIELDS.items()
            if field.metadata.get("added")
        }
        saved["options"] = options = {**added, **options}
        if set(options) != set(FIELDS):
            odd = sorted(set(options) ^ set(FIELDS))
            raise BadInput(
                f"{file} is of another version: only one side knows "
                f"{', '.join(odd):.200}",
                page=_RESUMING,
            )
        values = {flag(name): (options[name], FIELDS[name].type) for name in FIELDS}
        for name, (value, kind) in values.items():
            if not matches(value, kind):
                raise BadInput(
                    f"{file} is damaged: {name} cannot be {value!r:.80}",
                    page=_DAMAGED,
                )
        return saved

    def record_resume(self, config: Config, device: str, epoch: int) -> None:
        """Records in config.json that the run goes on.

        Args:
          config: options from here on; resumable options may have changed.
          device: number and kind of the devices, such as `"1 x cpu"`.
          epoch: epochs finished before.

        Raises:
          BadInput: the folder cannot be written.
        """
        now = _describe(config, device)
        self._saved["options"] = now.pop("options")
        self._saved.setdefault("resumed", []).append({"after_epoch": epoch, **now})
        with writing(self.path):
            self._write(_CONFIG, self._saved)

    def rows(self, epochs: int) -> list[EpochRow]:
        """Returns the rows of the first epochs and drops all others from the file.

        Args:
          epochs: epochs that the restored checkpoint has finished.

        Raises:
          BadInput: metrics.jsonl lacks one of these epochs, or cannot be rewritten.
        """
        file, lines, rows = self.file(_METRICS), [], []
        try:
            found = _last_lines(file) if file.exists() else {}
            for epoch in range(1, epochs + 1):
                rows.append(EpochRow.from_json(parse(found[epoch])))
                lines.append(found[epoch].decode() + "\n")
        except (OSError, ValueError, TypeError, LookupError):
            raise BadInput(
                f"{self.path / _METRICS} is damaged: the checkpoint is of epoch "
                f"{epochs}, and there is no row of epoch {len(lines) + 1}",
                page=_DAMAGED,
            ) from None
        self._lines = lines
        with writing(self.path):
            write_text(file, "".join(lines))
        return rows

    def append_row(self, row: EpochRow) -> None:
        """Adds one epoch to metrics.jsonl, on disk when this returns.

        Args:
          row: row of the epoch.

        Raises:
          BadInput: the folder cannot be written.
        """
        self.check()
        line = json.dumps(row.to_json()) + "\n"
        with (
            writing(self.path),
            open(self.file(_METRICS), "a", encoding="utf-8") as file,
        ):
            file.write(line)
            file.flush()
            os.fsync(file.fileno())
        self._lines.append(line)

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json.

        Args:
          result: JSON object.

        Raises:
          BadInput: the folder cannot be written.
        """
        self.check()
        with writing(self.path):
            self._write(_RESULT, result)

    def check(self) -> None:
        """Checks before something is written that the folder is there, and still ours.

        A folder that was deleted is made again, with options and metrics.

        Raises:
          BadInput: another process took the folder over, or it cannot be written.
        """
        if self._claim is None:
            return
        with writing(self.path):
            if not self.file(_CONFIG).exists():
                self.file(".").mkdir(parents=True, exist_ok=True)
                self._claim.check()
                write_text(self.file(_METRICS), "".join(self._lines))
                self._write(_CONFIG, self._saved)
            self._claim.check()

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        write_text(self.file(name), json.dumps(value, indent=2) + "\n")


def _last_lines(file: Path) -> dict[int, bytes]:
    """Returns the last line of each epoch in metrics.jsonl.

    Two processes that once wrote into one folder may have left an epoch twice, and a
    line that is torn; what is no row of an epoch is left out.
    """
    found = {}
    for line in read_bytes(file, LONGEST_METRICS).splitlines():
        try:
            epoch = parse(line)["epoch"]
        except (Unreadable, LookupError):
            continue
        if type(epoch) is int:
            found[epoch] = line
    return found


def check_encoding(path: Path) -> None:
    """Checks that every library that writes into a folder can name the folder.

    Args:
      path: path of the folder.

    Raises:
      BadInput: the path holds bytes that are no UTF-8, or that the locale lacks.
      OSError: there is no working folder.
    """
    try:
        os.path.abspath(path).encode()
    except UnicodeEncodeError:
        raise BadInput(
            f"--out {path} is no UTF-8 here; name another folder, or set a locale of "
            "UTF-8, such as LC_ALL=C.UTF-8",
            page="docs/what_can_go_wrong.md#your-environment",
        ) from None


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Raises BadInput for a full or read-only disk.

    Args:
      path: path for the message.
    """
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"cannot write to {path}: {error.strerror or error}; when that is mended, "
            "a run that had begun continues with --resume",
            page="docs/what_can_go_wrong.md#output-disk-or-device-fails",
        ) from error


def typed(command: Iterable[str]) -> str:
    """Returns a command as a person types it.

    Args:
      command: file name of the program, and its arguments.
    """
    program, *words = command
    started = "python -m aslp_jax" if program == "__main__.py" else shlex.quote(program)
    return " ".join([started, *map(shlex.quote, words)])


def _describe(config: Config, device: str) -> dict[str, Any]:
    # Only now: `--help` should not wait for these.
    import importlib.metadata
    import platform

    return {
        "options": config.as_dict(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "device": device,
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            "aslp-jax": importlib.metadata.version("aslp-jax"),
            **{name: importlib.metadata.version(name) for name in _VERSIONED},
        },
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _commit() -> str | None:
    """Returns the commit of this code, "+" if changed since; None without git."""
    import subprocess

    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head = subprocess.run(
            [*git, "rev-parse", "HEAD"], capture_output=True, check=True
        ).stdout
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            check=True,
        ).stdout
    except (OSError, subprocess.CalledProcessError):
        return None
    # Changed files may have names of any bytes.
    return head.decode("ascii").strip() + ("+" if changed.strip() else "")
