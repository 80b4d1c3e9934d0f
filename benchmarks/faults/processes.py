"""Faults of a training run: kill -9, signals, and small file systems."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.faults.programs import (
    EPOCHS,
    REFERENCE,
    Program,
    aslp,
    beginning,
    check_begun,
    check_end,
    check_same_run,
    go_on,
    quote,
    resuming,
)
from benchmarks.faults.tries import LOST, WRONG, Failure, Kind, Workshop

DISK = "disk"
"""Folder of the small file system in the folder of a try."""

_COLD = 8  # one try in so many compiles for itself
_AGAIN = 0.3  # probability of one disturbance more


def _await_moment(
    shop: Workshop, rng: np.random.Generator, program: Program, run: Path
) -> str:
    """Waits for a random moment: any, one of training, or one of the closing."""
    where = rng.integers(3)
    if where == 0:
        fraction = rng.uniform(0, 1.05)
        program.sleep(fraction * shop.seconds)
        return f"after {fraction:.2f} of the time"
    rows = EPOCHS if where == 2 else int(rng.integers(0, EPOCHS))
    seconds = rng.uniform(0, 0.3 * shop.seconds if where == 2 else 0.3)
    program.await_rows(run, rows) if rows else _await_folder(program, run)
    program.sleep(seconds)
    return f"{seconds:.3f} s after row {rows}"


def _await_folder(program: Program, run: Path) -> None:
    while program.process.poll() is None and not (run / "config.json").exists():
        program.sleep(0.002)


def _line(run: Path) -> str:
    begun = (run / "config.json").exists()
    return resuming(run) if begun else beginning(run)


def _cold(rng: np.random.Generator, folder: Path) -> dict[str, str]:
    """Returns variables for a cache of one's own, in one try of eight."""
    if rng.integers(_COLD):
        return {}
    return {"XDG_CACHE_HOME": str(folder / "cache")}


def _kill(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    """Kills a run once or more often; the last start ends it."""
    run, changes, about = folder / "run", _cold(rng, folder), []
    while True:
        with aslp(shop, folder, _line(run), **changes) as program:
            about.append(_await_moment(shop, rng, program, run))
            program.send(signal.SIGKILL)
            ended = program.end()
        check_end(ended, (0, -signal.SIGKILL))
        epochs = check_begun(shop, run)
        if ended.code == 0 or rng.uniform() > _AGAIN:
            break
    go_on(shop, folder, run, epochs, **changes)
    return f"{', '.join(about)}{', compiled anew' if changes else ''}"


def _signal(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    """Stops a run by a signal, or by two, once its handlers are in place."""
    run, changes = folder / "run", _cold(rng, folder)
    name = ("SIGTERM", "SIGINT", "SIGHUP")[rng.integers(3)]
    number = signal.Signals[name]
    second = rng.uniform() < _AGAIN / 2
    with aslp(shop, folder, _line(run), **changes) as program:
        program.await_handlers()
        about = f"{name} {_await_moment(shop, rng, program, run)}"
        program.send(number)
        if second:
            program.sleep(rng.uniform(0.5, 2))
            program.send(number)
            about += ", twice"
        ended = program.end()
    codes = (0, 128 + number, *((-number,) if second else ()))
    line = check_end(ended, codes)
    epochs = check_begun(shop, run)
    if line:
        begun = (run / "config.json").exists()
        stopped = f"aslp-jax: stopped by {name}"
        right = {f"{stopped}, all is saved; continue with --out {quote(run)} --resume"}
        if not begun:  # and the shorter one before the command line is read
            right = {f"{stopped}, nothing is written", stopped}
        if line not in right:
            raise Failure(WRONG, f"the line says something else: {line}")
        if begun and (left := sorted(run.glob("*.partial"))):
            raise Failure(WRONG, f"left over: {left}")
        if not begun and run.exists():
            raise Failure(WRONG, f"left over: {sorted(run.rglob('*'))}")
    if ended.code == 0:
        check_same_run(shop.path / REFERENCE, run)
    go_on(shop, folder, run, epochs, **changes)
    return f"{about}: {ended.code}"


def _mount(folder: Path, options: str, *, again: bool = False) -> None:
    flags = ["-o", f"{'remount,' if again else ''}{options}"]
    subprocess.run(
        ["mount", "-t", "tmpfs", *flags, "tmpfs", str(folder)],
        check=True,
        capture_output=True,
    )


def unmount(folder: Path) -> None:
    """Unmounts a file system; does nothing if there is none."""
    if folder.is_mount():
        subprocess.run(["umount", str(folder)], check=False, capture_output=True)


def _cannot_mount() -> str | None:
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        return "mounting a tmpfs needs Linux and root"
    with tempfile.TemporaryDirectory() as folder:
        try:
            _mount(Path(folder), "size=64k")
        except (OSError, subprocess.CalledProcessError) as error:
            return f"a tmpfs cannot be mounted here ({error})"
        unmount(Path(folder))
    return None


def _space(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    """Runs on a file system that is too small, or has too few inodes, mostly."""
    disk = folder / DISK
    disk.mkdir()
    if rng.uniform() < 0.25:
        options = f"size=64m,nr_inodes={rng.integers(2, 120)}"
    else:
        # A whole run needs some 300 kB: two checkpoints, and one being written.
        kilobytes = int(np.exp(rng.uniform(np.log(4), np.log(500))))
        options = f"size={kilobytes}k"
    _mount(disk, options)
    try:
        return f"{options}: {_on_small_disk(shop, folder, disk)}"
    except Failure:
        shutil.copytree(disk, folder / "left")
        raise
    finally:
        unmount(disk)


def _on_small_disk(shop: Workshop, folder: Path, disk: Path) -> str:
    run = disk / "run"
    with aslp(shop, folder, _line(run)) as program:
        ended = program.end()
    line = check_end(ended, (0, 2))
    if line and "cannot write to" not in line:
        raise Failure(WRONG, f"the line says something else: {line}")
    epochs = check_begun(shop, run)
    # Again without space: nothing may be lost by trying.
    if ended.code:
        with aslp(shop, folder, _line(run)) as program:
            check_end(program.end(), (0, 2))
        later = check_begun(shop, run)
        if later < epochs:
            raise Failure(LOST, f"{epochs} epochs were saved, now {later}")
        epochs = later
    _mount(disk, "size=64m,nr_inodes=10000", again=True)
    go_on(shop, folder, run, epochs)
    return f"{ended.code} at epoch {epochs}"


KINDS = (
    Kind("kill", "kill -9 at random moments, then --resume", _kill, processes=True),
    Kind("signal", "SIGTERM, SIGINT, SIGHUP at any moment", _signal, processes=True),
    Kind(
        "space",
        "file systems of random small sizes",
        _space,
        processes=True,
        missing=_cannot_mount,
    ),
)
