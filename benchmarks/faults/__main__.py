"""Tries what goes wrong around a program: kills, full disks, damaged files.

    python -m benchmarks.faults --minutes 60 --seed 1 --out results/faults

Kinds of fault are tried in turn until the time is over. A try is repeated by
`--repeat KIND:NUMBER` and the same `--seed`; what it does is then the same, but moments
within a program are only nearly so. Prints tries, failures, lost data and tracebacks of
each kind, and writes them as `faults.csv` and `faults.json`; folder and printed lines
of each failed try are kept in `failures`. Exit code: 0; 1 if a try failed.
"""

import argparse
import shutil
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults import report
from benchmarks.faults.campaign import Campaign, prepare, schedule
from benchmarks.faults.kinds import KINDS
from benchmarks.faults.tries import Kind, Outcome

_WRITE_SECONDS = 60.0


def main(arguments: Sequence[str]) -> int:
    options = _parser().parse_args(arguments)
    out = options.out or Path(tempfile.mkdtemp(prefix="aslp-jax-faults-"))
    out = out.absolute()
    for name in ("workshop", "work", "failures"):
        if (out / name).exists():
            print(f"{out} holds another campaign; name another --out", file=sys.stderr)
            return 2
    repeated = options.repeat
    chosen = [repeated[0]] if repeated else options.kinds or [*KINDS]
    skipped = {kind.name: why for kind in chosen if (why := kind.missing())}
    kinds = [kind for kind in chosen if kind.name not in skipped]
    for name, why in skipped.items():
        print(f"{name} is skipped: {why}")
    seconds = prepare(out / "workshop", kinds)
    began = written = time.monotonic()

    def write() -> None:
        about = {"seed": options.seed, "minutes": options.minutes, "jobs": options.jobs}
        report.write(out, chosen, campaign.outcomes, skipped, **about)

    def note(outcome: Outcome) -> None:
        nonlocal written
        if outcome.found is not None or repeated:
            words = outcome.found or "as it should be"
            name = f"{outcome.kind}:{outcome.number}"
            print(f"{name}: {words}: {outcome.about}", flush=True)
        if time.monotonic() - written > _WRITE_SECONDS:
            written = time.monotonic()
            write()

    campaign = Campaign(out, options.seed, seconds, note)
    tries = schedule(kinds, options.minutes, named=options.kinds is not None)
    if repeated:
        tries = iter([repeated] if kinds else [])
    try:
        campaign.run(tries, began + 60 * options.minutes, options.jobs)
    finally:
        write()
        for name in ("workshop", "work"):
            shutil.rmtree(out / name, ignore_errors=True)
    print(report.table(report.count(chosen, campaign.outcomes), chosen))
    failed = any(outcome.found is not None for outcome in campaign.outcomes)
    if failed:
        print(f"failed tries are in {out / 'failures'}")
    elif options.out is None:
        shutil.rmtree(out)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.faults", description=__doc__.splitlines()[0]
    )
    names = ", ".join(kind.name for kind in KINDS)
    parser.add_argument("--minutes", type=float, default=2.0, help="default: 2")
    parser.add_argument("--seed", type=int, default=0, help="default: 0")
    parser.add_argument(
        "--kinds", type=_kinds, metavar="A,B", help=f"some of {names} (default: all)"
    )
    parser.add_argument(
        "--repeat", type=_try, metavar="KIND:NUMBER", help="make this try alone"
    )
    parser.add_argument(
        "--out", type=Path, help="folder of the results (default: one in /tmp)"
    )
    parser.add_argument(
        "--jobs", type=int, default=1, metavar="N", help="workers (default: 1)"
    )
    return parser


def _kind(name: str) -> Kind:
    for kind in KINDS:
        if kind.name == name:
            return kind
    raise argparse.ArgumentTypeError(f"no kind {name!r}")


def _kinds(text: str) -> list[Kind]:
    return [_kind(name) for name in text.split(",")]


def _try(text: str) -> tuple[Kind, int]:
    name, _, number = text.partition(":")
    if not number.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not KIND:NUMBER")
    return _kind(name), int(number)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
