"""The folder of a run: options, metrics, checkpoints, picture and result."""

import importlib.metadata
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aslp_jax._atomic import write_text
from aslp_jax._errors import BadInput
from aslp_jax.trainer.options import FIELDS, Config

_VERSIONED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


class RunFolder:
    """The folder of one run, and what may be read from and written to it.

    Attributes:
      path: the folder.
      checkpoints: the folder of its checkpoints.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints = path / "checkpoints"

    @classmethod
    def create(cls, path: Path | None, config: Config, device: str) -> "RunFolder":
        """Makes a run folder and writes its config.json.

        Args:
          path: the folder, which must be missing or empty; None makes a new one under
            `runs/`, named after the run and the time.
          config: the options of the run.
          device: what it runs on, in words.

        Returns:
          The new folder.

        Raises:
          BadInput: the folder holds something, or cannot be written.
        """
        if path is None:
            stamp = time.strftime("%Y%m%d-%H%M%S")
            name = f"{config.dataset}-{config.arch}-{config.method}-seed{config.seed}"
            path = Path("runs") / f"{name}-{stamp}"
        cls.check_new(path)
        folder = cls(path)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
            folder._write("config.json", _describe(config, device))
        return folder

    @staticmethod
    def check_new(path: Path) -> None:
        """Checks that a folder is free to hold a new run.

        Raises:
          BadInput: it is a file, holds a run, or holds something else.
        """
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

    def saved_options(self) -> dict[str, Any]:
        """Returns the options of the run in this folder.

        Raises:
          BadInput: there is no run, or one of other options than this version knows.
        """
        file = self.path / "config.json"
        try:
            options = dict(json.loads(file.read_text())["options"])
        except (OSError, ValueError, KeyError, TypeError):
            raise BadInput(
                f"{self.path} holds no run to resume: no readable config.json"
            ) from None
        if set(options) != set(FIELDS):
            odd = sorted(set(options) ^ set(FIELDS))
            raise BadInput(
                f"{file} is of another version: only one side knows {', '.join(odd)}"
            )
        return options

    def record_resume(self, config: Config, device: str, epoch: int) -> None:
        """Records in config.json that the run goes on, with what and from where.

        Args:
          config: the options from here on; free ones may have changed.
          device: what it runs on, in words.
          epoch: epochs finished before.
        """
        with writing(self.path):
            saved = json.loads((self.path / "config.json").read_text())
            now = _describe(config, device)
            saved["options"] = now.pop("options")
            saved.setdefault("resumed", []).append({"after_epoch": epoch, **now})
            self._write("config.json", saved)

    def rows(self, epochs: int) -> list[dict[str, Any]]:
        """Returns the metrics of the first epochs and drops any that came later.

        Args:
          epochs: how many epochs the restored checkpoint has finished.

        Raises:
          BadInput: the file lacks one of those epochs, or cannot be rewritten.
        """
        file = self.path / "metrics.jsonl"
        try:
            lines = file.read_text().splitlines() if file.exists() else []
            rows = [json.loads(line) for line in lines[:epochs]]
            found = [row["epoch"] for row in rows]
        except (OSError, ValueError, KeyError, TypeError):
            found = None
        if found != list(range(1, epochs + 1)):
            raise BadInput(
                f"{file} is damaged: the checkpoint is of epoch {epochs}, and the "
                f"first {epochs} lines are not those epochs"
            )
        with writing(self.path):
            write_text(file, "".join(line + "\n" for line in lines[:epochs]))
        return rows

    def append_row(self, row: Mapping[str, Any]) -> None:
        """Adds one epoch to metrics.jsonl, on disk when this returns."""
        with writing(self.path), (self.path / "metrics.jsonl").open("a") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            os.fsync(file.fileno())

    def write_result(self, result: Mapping[str, Any]) -> None:
        """Writes result.json."""
        with writing(self.path):
            self._write("result.json", result)

    def _write(self, name: str, value: Mapping[str, Any]) -> None:
        write_text(self.path / name, json.dumps(value, indent=2) + "\n")


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turns a full or read-only disk into one line that says what was kept."""
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"cannot write to {path}: {error.strerror or error}; when that is mended, "
            "a run that had begun continues with --resume"
        ) from error


def _describe(config: Config, device: str) -> dict[str, Any]:
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
    """The commit of this code, with a plus if changed since; None outside git."""
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
