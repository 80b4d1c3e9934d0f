"""Damaged files of a finished run, and the programs that read its folder."""

import json
import shlex
import shutil
from pathlib import Path

import numpy as np

from benchmarks.faults.bounds import command
from benchmarks.faults.damage import spoil_file
from benchmarks.faults.programs import (
    EPOCHS,
    REFERENCE,
    Ended,
    aslp,
    check_end,
    check_same_run,
    quote,
    resuming,
    rows,
    timeless,
)
from benchmarks.faults.tries import LOST, Failure, Kind, Workshop

_COMPILED = 5  # one try in so many damages compiled programs


def _attempt(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    if rng.integers(_COMPILED) == 0:
        return _compiled(shop, rng, folder)
    run = folder / "run"
    shutil.copytree(shop.path / REFERENCE, run)
    files = sorted(path for path in run.rglob("*") if path.is_file())
    # Checkpoints have many files; each kind of file comes as often.
    named = [path for path in files if path.parent == run]
    inner = [path for path in files if path.parent != run]
    chosen = named if rng.uniform() < 0.6 else inner
    file = chosen[rng.integers(len(chosen))]
    words = f"{file.relative_to(run)} {spoil_file(rng, file)}"
    damaged = rows_of(run) if file.name == "metrics.jsonl" else []
    # Damaged options may ask for very many epochs.
    line = f"train --resume --epochs {EPOCHS} --patience 100 --out {quote(run)}"
    code, out, err = command(shlex.split(line))
    line = check_end(Ended(code, out, err), (0, 2))
    if code == 0:
        _check(shop, run, file.name, damaged)
    return f"{words}: {line or 'the same run'}"


def rows_of(run: Path) -> list:
    """Returns the last row of each epoch of damaged metrics, times left out."""
    found = {}
    for line in (
        (run / "metrics.jsonl").read_bytes().splitlines()
        if (run / "metrics.jsonl").is_file()
        else []
    ):
        try:
            row = json.loads(line)
            found[row["epoch"]] = timeless(row)
        except (ValueError, TypeError, LookupError, RecursionError):
            continue
    return list(found.values())


def _check(shop: Workshop, run: Path, damaged: str, found: list) -> None:
    """Checks a run that was resumed; metrics and options have no checksum."""
    wanted = shop.path / REFERENCE
    if damaged == "config.json":
        # A changed value that is valid, such as the number of epochs, is an option.
        asked = json.loads((run / "config.json").read_text())["options"]
        sound = json.loads((wanted / "config.json").read_text())["options"]
        if asked != sound:
            return
    if damaged == "metrics.jsonl":
        allowed = [*found, *rows(wanted)]
        if odd := [row for row in rows(run) if row not in allowed]:
            raise Failure(LOST, f"a row that no file held: {odd[0]!r:.300}")
        if len(rows(run)) != len(rows(wanted)):
            raise Failure(LOST, f"{len(rows(run))} rows")
        shutil.copy(wanted / "metrics.jsonl", run)
    check_same_run(wanted, run)


def _compiled(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    """Damages compiled programs; the run compiles them again."""
    cache, run = folder / "cache", folder / "run"
    shutil.copytree(shop.path / "cache", cache)
    shutil.copytree(shop.path / REFERENCE, run)
    files = sorted(cache.rglob("*-cache"))
    words = set()
    for _ in range(int(rng.integers(1, 4))):
        file = files.pop(rng.integers(len(files)))
        words.add(spoil_file(rng, file))
    line = resuming(run)
    with aslp(shop, folder, line, XDG_CACHE_HOME=str(cache)) as program:
        check_end(program.end(), (0,))
    check_same_run(shop.path / REFERENCE, run)
    return f"compiled programs: {', '.join(sorted(words))}"


KINDS = (
    Kind(
        "resumes",
        "damaged files of a run, then --resume",
        _attempt,
        turn=3,
        processes=True,
    ),
)
