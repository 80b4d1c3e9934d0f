"""Programs in processes of their own, and what must hold of each one that ends.

The file is long because it holds all that kinds of fault with processes share.
"""

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple

from aslp_jax import checkpoint
from aslp_jax._errors import EXIT_CODES
from benchmarks.faults.tries import LOST, TRACEBACK, WRONG, Failure, Workshop

ROOT = Path(__file__).parents[2]
STEPS, EPOCHS = 4, 6  # 144 images, of which 14 are for validation; 32 at a time
TRAIN = (
    "train --data digits.npz --model network.py:Tiny --batch-size 32 --eval-samples 2 "
    f"--epochs {EPOCHS} --checkpoint-seconds 0"
)
"""Command line of the run that tries disturb, without its folder."""

REFERENCE = "reference"
"""Folder of the undisturbed run in the workshop."""

FILES = {
    *("checkpoints", "config.json", "curves.png", "metrics.jsonl"),
    *("network.aslp", "report.html", "result.json"),
}
"""Files of a finished run; none other may be left."""

_TIMES = {"seconds", "images_per_second"}
_PROGRESS = re.compile(
    r"(epoch +\d+/\d+ |checkpoint \d+ is damaged; going back to |"
    r"(decoding|resizing|decoded) |run +\d+/\d+ |"
    r"aslp-jax: WARNING: |[^:]+: (\S+ \(|\d+ runs ))"
)
_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
_HUP = 1 << (signal.SIGHUP - 1)
PATIENCE = 600.0
"""Seconds after which a program counts as hung."""


class Ended(NamedTuple):
    """What a program left behind."""

    code: int
    out: str
    err: str


def environment(shop: Path, **changes: str) -> dict[str, str]:
    """Returns an environment with one CPU device of one thread and an empty home."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("XLA_", "JAX_", "PYTHON"))
    }
    return {
        **kept,
        "PYTHONPATH": str(ROOT),
        "HOME": str(shop / "home"),
        # All but the first run find their programs compiled.
        "XDG_CACHE_HOME": str(shop / "cache"),
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} {_ONE_THREAD}",
        **changes,
    }


class Program:
    """A program that was started.

    Attributes:
      process: its process.
      line: its command line.
    """

    def __init__(
        self, shop: Path, folder: Path, line: list[str], **changes: str
    ) -> None:
        """Starts `python` with a command line, in the workshop.

        Args:
          shop: folder of the workshop.
          folder: folder for what the program prints, kept with a failed try.
          line: command line, without `python`.
          **changes: variables of the environment.
        """
        number = len([*folder.glob("*-err.txt")]) + 1
        self._out = folder / f"{number}-out.txt"
        self._err = folder / f"{number}-err.txt"
        self.line = line
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, *line],
                cwd=shop,
                env=environment(shop, **changes),
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
            )
        self.began = time.monotonic()

    @property
    def handles_signals(self) -> bool:
        """True once the first line of the program has set its handlers."""
        try:
            status = Path(f"/proc/{self.process.pid}/status").read_text()
        except OSError:
            return False
        found = re.search(r"SigCgt:\s+([0-9a-f]+)", status)
        return found is not None and int(found[1], 16) & _HUP != 0

    def await_handlers(self) -> None:
        """Waits until the program has set its handlers, or has ended."""
        while self.process.poll() is None and not self.handles_signals:
            time.sleep(0.002)

    def sleep(self, seconds: float) -> None:
        """Waits, or until the program ends."""
        until = time.monotonic() + seconds
        while self.process.poll() is None and time.monotonic() < until:
            time.sleep(0.002)

    def await_rows(self, run: Path, count: int) -> None:
        """Waits until a run has so many rows, or the program has ended."""
        file, until = run / "metrics.jsonl", time.monotonic() + PATIENCE
        while self.process.poll() is None and time.monotonic() < until:
            try:
                if file.read_bytes().count(b"\n") >= count:
                    return
            except OSError:
                pass
            time.sleep(0.002)

    def send(self, number: int) -> None:
        """Sends a signal; a program that has ended gets none."""
        if self.process.poll() is None:
            self.process.send_signal(number)

    def end(self) -> Ended:
        """Waits for the end of the program; one that hangs is killed.

        Raises:
          Failure: the program hung.
        """
        try:
            code = self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            text = f"{self.line[1:]} hung"
            raise Failure(WRONG, f"{text}; {self._err.read_text()[-300:]}") from None
        texts = (
            file.read_bytes().decode(errors="replace")
            for file in (self._out, self._err)
        )
        return Ended(code, *texts)

    def __enter__(self) -> "Program":
        """Returns the program."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kills the program if it is still there."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()


def aslp(shop: Workshop, folder: Path, line: str, **changes: str) -> Program:
    """Starts a command of the library."""
    return Program(shop.path, folder, ["-m", "aslp_jax", *shlex.split(line)], **changes)


def quote(path: Path) -> str:
    """Returns a path as a command line has it."""
    return shlex.quote(str(path))


def beginning(run: Path) -> str:
    """Returns the command line that begins the run."""
    return f"{TRAIN} --out {quote(run)}"


def resuming(run: Path) -> str:
    """Returns the command line that continues the run."""
    return f"train --resume --out {quote(run)}"


def check_end(ended: Ended, codes: Collection[int]) -> str:
    """Checks exit code and words of a program that ended.

    Args:
      ended: the program.
      codes: exit codes that are right.

    Returns:
      The line that says why it ended; "" with code 0.

    Raises:
      Failure: there is a traceback, another code, or not one line.
    """
    shown = ended.err[-1500:]
    if "Traceback" in ended.err or "Traceback" in ended.out:
        raise Failure(TRACEBACK, f"exit code {ended.code}:\n{shown}")
    if ended.code not in codes:
        raise Failure(WRONG, f"exit code {ended.code}, not in {codes}:\n{shown}")
    if ended.code < 0:
        return ""
    if ended.code not in EXIT_CODES:
        raise Failure(WRONG, f"exit code {ended.code} is documented nowhere:\n{shown}")
    lines = [line for line in ended.err.splitlines() if not _PROGRESS.match(line)]
    right = [line for line in lines if re.match(r"aslp-jax: .", line)]
    if len(lines) != (ended.code != 0) or lines != right:
        raise Failure(WRONG, f"not one line with exit code {ended.code}:\n{shown}")
    return lines[0] if lines else ""


def rows(run: Path) -> list[dict[str, Any]]:
    """Returns the complete rows of a run, times left out; [] without any."""
    try:
        content = (run / "metrics.jsonl").read_bytes()
    except FileNotFoundError:
        return []
    whole = content[: content.rfind(b"\n") + 1].splitlines()
    return [timeless(json.loads(line)) for line in whole]


def timeless(value: dict[str, Any]) -> dict[str, Any]:
    """Returns a JSON object without its times."""
    return {name: each for name, each in value.items() if name not in _TIMES}


def check_begun(shop: Workshop, run: Path) -> int:
    """Checks that all rows of a run that was cut off are right.

    Returns:
      Number of epochs that the newest checkpoint has finished.

    Raises:
      Failure: a row differs from that of the undisturbed run.
    """
    wanted = rows(shop.path / REFERENCE)
    found = rows(run)
    if found != wanted[: len(found)]:
        raise Failure(LOST, f"rows differ: {found!r:.500}")
    steps = checkpoint.steps(run / "checkpoints")
    return steps[-1] // STEPS if steps else 0


def go_on(shop: Workshop, folder: Path, run: Path, epochs: int, **changes: str) -> None:
    """Continues a run that was cut off, and compares it with the undisturbed run.

    Args:
      shop: workshop.
      folder: folder of the try.
      run: run folder, which may be missing.
      epochs: epochs that must not be trained again.
      **changes: variables of the environment.

    Raises:
      Failure: it does not go on, goes on from too far back, or ends otherwise.
    """
    begun = (run / "config.json").exists()
    line = resuming(run) if begun else beginning(run)
    with aslp(shop, folder, line, **changes) as program:
        ended = program.end()
    check_end(ended, (0,))
    found = re.search(r"\(from epoch (\d+)\)", ended.err)
    if begun and (found is None or int(found[1]) <= epochs):
        text = f"{epochs} epochs were saved, and it goes on so:\n{ended.err:.500}"
        raise Failure(LOST, text)
    check_same_run(shop.path / REFERENCE, run)


def check_same_run(wanted: Path, run: Path) -> None:
    """Checks that a finished run is the undisturbed one, bit for bit but for times.

    Raises:
      Failure: a file is missing, left over, or differs.
    """
    names = {path.name for path in run.iterdir()}
    if names != FILES:
        raise Failure(WRONG, f"the run holds {sorted(names)}")
    left = [*run.rglob("*.partial"), *run.rglob("*.orbax-checkpoint-tmp*")]
    if left:
        raise Failure(WRONG, f"left over: {left}")
    if rows(run) != rows(wanted):
        raise Failure(LOST, "metrics.jsonl differs from the undisturbed run")
    results = [
        timeless(json.loads((each / "result.json").read_text()))
        for each in (run, wanted)
    ]
    if results[0] != results[1]:
        odd = [name for name in results[1] if results[0].get(name) != results[1][name]]
        raise Failure(LOST, f"result.json differs from the undisturbed run in {odd}")
    networks = [(each / "network.aslp").read_bytes() for each in (run, wanted)]
    if networks[0] != networks[1]:
        raise Failure(LOST, "network.aslp differs from the undisturbed run")
