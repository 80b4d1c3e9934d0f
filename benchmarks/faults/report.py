"""Report of a campaign: a table on the screen, CSV and JSON."""

import importlib.metadata
import json
import platform
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.faults.tries import LOST, TRACEBACK, Kind, Outcome
from benchmarks.tables import write_csv

COLUMNS = ("kind", "tries", "failures", "lost_data", "tracebacks", "seconds")
_VERSIONED = ("aslp-jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "numpy")


def count(kinds: Sequence[Kind], outcomes: Sequence[Outcome]) -> list[dict[str, Any]]:
    """Returns a line for each kind, with the values of `COLUMNS`."""
    lines = []
    for kind in kinds:
        own = [each for each in outcomes if each.kind == kind.name]
        found = [each.found for each in own]
        lines.append(
            {
                "kind": kind.name,
                "tries": len(own),
                "failures": len(found) - found.count(None),
                "lost_data": found.count(LOST),
                "tracebacks": found.count(TRACEBACK),
                "seconds": round(sum(each.seconds for each in own), 1),
            }
        )
    return lines


def table(lines: Sequence[Mapping[str, Any]], kinds: Sequence[Kind]) -> str:
    """Returns the lines as a table for people."""
    about = {kind.name: kind.about for kind in kinds}
    total = {name: sum(line[name] for line in lines) for name in COLUMNS[1:]}
    shown = [*lines, {"kind": "all", **total}]
    head = f"{'kind':<10} {'tries':>7} {'failures':>9} {'lost data':>10}"
    text = [f"{head} {'tracebacks':>11} {'seconds':>8}"]
    text += [
        f"{line['kind']:<10} {line['tries']:>7,} {line['failures']:>9} "
        f"{line['lost_data']:>10} {line['tracebacks']:>11} {line['seconds']:>8,.0f}  "
        f"{about.get(line['kind'], '')}".rstrip()
        for line in shown
    ]
    return "\n".join(text)


def write(
    out: Path,
    kinds: Sequence[Kind],
    outcomes: Sequence[Outcome],
    skipped: Mapping[str, str],
    **about: Any,
) -> None:
    """Writes `faults.csv` and `faults.json`.

    Args:
      out: folder of both.
      kinds: kinds of the campaign.
      outcomes: outcomes of all tries so far.
      skipped: reason for each kind that was not tried.
      **about: further values of the JSON file, such as the seed.
    """
    lines = count(kinds, outcomes)
    write_csv(out / "faults.csv", lines, COLUMNS)
    failed = [each.as_dict() for each in outcomes if each.found is not None]
    once = {kind.name for kind in kinds if kind.once}
    values = {
        **about,
        "commit": _commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: importlib.metadata.version(name) for name in _VERSIONED},
        },
        "system": f"{platform.system()} {platform.machine()}",
        "kinds": lines,
        "skipped": dict(skipped),
        "measured": [each.about for each in outcomes if each.kind in once],
        "failures": failed,
    }
    text = json.dumps(values, indent=2) + "\n"
    (out / "faults.json").write_text(text, encoding="utf-8", errors="replace")


def _commit() -> str | None:
    """Returns the commit of this code, "+" if changed since; None without git."""
    git = ["git", "-C", str(Path(__file__).parent)]
    try:
        head, changed = (
            subprocess.run([*git, *line], capture_output=True, check=True).stdout
            for line in (
                ["rev-parse", "HEAD"],
                ["status", "--porcelain", "--untracked-files=no"],
            )
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return head.decode().strip() + ("+" if changed.strip() else "")
