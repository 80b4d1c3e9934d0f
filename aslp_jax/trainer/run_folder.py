"""Folder of a run: options, metrics, checkpoints, plot and result."""

import functools
import json
import os
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aslp_jax._atomic import write_text
from aslp_jax._errors import BadInput
from aslp_jax.trainer.options import FIELDS, Config
from aslp_jax.trainer.results import EpochRow

__all__ = ["RunFolder", "writing"]

_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunFolder:
    """Folder of one run, with the files that are read from it and written to it.

    Attributes:
      path: path of the folder.
      checkpoints: path of the folder's checkpoints.
    """

    def __init__(self, path: Path) -> None:
        """Names a folder; reads and writes nothing.

        Args:
          path: path of the folder.
        """
        self.path = path
        self.checkpoints = path / "checkpoints"

    @classmethod
    def new(cls, path: Path | None, config: Config) -> "RunFolder":
        """Returns a folder that is free for a new run; writes nothing.

        Args:
          path: path of the folder, which must be missing or empty; None names a folder
            under `runs/` after the run and the time.
          config: options of the run.

        Raises:
          BadInput: the path is a file, holds a run, or holds something else.
        """
        if path is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            images, seed = config.dataset_name, config.seed
            name = f"{images}-{config.network_name}-{config.method}-seed{seed}"
            path = Path("runs") / f"{name}-{stamp}"
        with writing(path):  # a name too long, a folder that may not be searched
            if path.exists() and not path.is_dir():
                raise BadInput(f"--out {path} is a file; name a folder")
            if (path / "config.json").exists():
                raise BadInput(
                    f"--out {path} holds a run already; continue it with --resume, or "
                    "name another folder"
                )
            if path.is_dir() and any(path.iterdir()):
                raise BadInput(f"--out {path} is not empty; name a new folder")
        return cls(path)

    def create(self, config: Config, device: str) -> None:
        """Makes the folder and writes its config.json.

        Args:
          config: options of the run.
          device: number and kind of the devices, such as `"1 x cpu"`.

        Raises:
          BadInput: the folder cannot be written.
        """
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)
            self._write("config.json", _describe(config, device))

    def saved_options(self) -> dict[str, Any]:
        """Returns the options of the run in this folder.

        Raises:
          BadInput: the folder holds no run, or a run with other options than this
            version has.
        """
        return dict(self._saved["options"])

    @functools.cached_property
    def _saved(self) -> dict[str, Any]:
        """Content of config.json, read once and checked."""
        file = self.path / "config.json"
        try:
            saved = json.loads(file.read_text())
            options = dict(saved["options"])
        except (OSError, ValueError, KeyError, TypeError):
            raise BadInput(
                f"{self.path} holds no run to resume: no readable config.json"
            ) from None
        if set(options) != set(FIELDS):
            odd = sorted(set(options) ^ set(FIELDS))
            raise BadInput(
                f"{file} is of another version: only one side knows {', '.join(odd)}"
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
            self._write("config.json", self._saved)

    def rows(self, epochs: int) -> list[EpochRow]:
        """Returns the rows of the first epochs and drops later ones from the file.

        Args:
          epochs: epochs that the restored checkpoint has finished.

        Raises:
          BadInput: metrics.jsonl lacks one of these epochs, or cannot be rewritten.
        """
        file = self.path / "metrics.jsonl"
        try:
            lines = file.read_text().splitlines() if file.exists() else []
            rows = [EpochRow.from_json(json.loads(line)) for line in lines[:epochs]]
            found = [row.epoch for row in rows]
        except (OSError, ValueError, TypeError):
            found = None
        if found != list(range(1, epochs + 1)):
            raise BadInput(
                f"{file} is damaged: the checkpoint is of epoch {epochs}, and the "
                f"first {epochs} lines are not those epochs"
            )
        with writing(self.path):
            write_text(file, "".join(line + "\n" for line in lines[:epochs]))
        return rows

    def append_row(self, row: EpochRow) -> None:
        """Adds one epoch to metrics.jsonl, on disk when this returns.

        Args:
          row: row of the epoch.

        Raises:
          BadInput: the folder cannot be written.
        """
        with writing(self.path), (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row.to_json()) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json.

        Args:
          result: JSON object.

        Raises:
          BadInput: the folder cannot be written.
        """
        with writing(self.path):
            self._write("result.json", result)

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        write_text(self.path / name, json.dumps(value, indent=2) + "\n")


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
            "a run that had begun continues with --resume"
        ) from error


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
            [*git, "rev-parse", "HEAD"], capture_output=True, text=True, check=True
        ).stdout.strip()
        changed = subprocess.run(
            [*git, "status", "--porcelain", "--untracked-files=no"],
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
    return head + ("+" if changed else "")
