"""Helpers of the commands that train a grid: their flags, and the closing lines."""

import argparse
import math
import sys
from collections.abc import Sequence
from typing import Any

from aslp_jax._errors import BadInput
from aslp_jax.cli import _jobs
from aslp_jax.cli.arguments import add_report_flag, option_parser, path_argument
from aslp_jax.cli.errors import command_name, program_name
from aslp_jax.sweeps.jobs import run_job
from aslp_jax.sweeps.store import check_uri, is_uri
from aslp_jax.sweeps.sweep import Plan, Schedule, SweepOutcome, Table, plan, run_sweep
from aslp_jax.trainer.options import FIELDS, flag
from aslp_jax.trainer.signals import Interrupted, interruptible

_MOST = 10_000
"""Most seeds of a cell, or runs of a device; more is a slip of the hand."""


_RAY_PAGE = "docs/scaling.md#a-grid-on-a-cluster-with-ray"
"""Page on grids on a cluster."""

_MACHINES = (
    "print_jobs",
    "job",
    "cluster",
    "checkpoints",
    "cpus_per_run",
    "gpus_per_run",
)
"""Names of the flags that say where runs are trained."""


def sweep_parser(
    description: str, name: str, axes: Sequence[str], *, seeds: int, page: str
) -> argparse.ArgumentParser:
    """Returns a parser of the options that all cells share, and of a sweep's limits.

    Args:
      description: first lines of `--help`.
      name: name of the table, which is that of the command.
      axes: names of the options that tell cells and seeds apart; they get no flag here.
      seeds: default number of seeds of each cell.
      page: page of the site on the command.
    """
    own = {*axes, "devices"}
    parser = option_parser(
        description,
        [field for field in FIELDS if field not in own],
        preset="fast",
        page=page,
    )
    parser.prog = command_name(name)
    parser.add_argument(
        "--seeds",
        type=_positive,
        metavar="N",
        default=seeds,
        help=f"runs of each cell, seeds 0 to N-1 (default: {seeds})",
    )
    parser.add_argument(
        "--per-device",
        type=_positive,
        metavar="N",
        default=1,
        help="seeds that one device trains at once, vectorised (default: 1)",
    )
    parser.add_argument(
        "--minutes",
        type=_minutes,
        metavar="X",
        default=math.inf,
        help="save and stop after so many minutes (default: when all is done)",
    )
    add_report_flag(parser)
    parser.add_argument(
        "--out",
        type=path_argument,
        metavar="FOLDER",
        help=f"folder of the grid (default: runs/{name}-DATASET)",
    )
    _add_machine_flags(parser)
    return parser


def _add_machine_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("several machines", "see docs/scaling.md")
    group.add_argument(
        "--print-jobs",
        choices=tuple(_jobs.FORMS),
        help="train nothing; write the runs of the grid as commands that can run "
        "anywhere and fill one folder: one a line, a Slurm array script, or a "
        "Kubernetes Indexed Job",
    )
    group.add_argument(
        "--job",
        type=_index,
        metavar="N",
        help="train one of these jobs, from 0; the last to finish writes the report",
    )
    group.add_argument(
        "--cluster",
        metavar="ADDRESS",
        help="train on a Ray cluster: HOST:PORT, or auto for the one that runs here; a "
        "local one is started if there is none",
    )
    group.add_argument(
        "--checkpoints",
        type=_checkpoints,
        metavar="PLACE",
        help="folder that all workers of --cluster reach, or gs://BUCKET/PATH or "
        "s3://BUCKET/PATH, from which a run that lost its worker continues (default: "
        "--out if they reach it; else such a run begins anew)",
    )
    group.add_argument(
        "--cpus-per-run",
        type=_positive,
        metavar="N",
        help="CPUs of a run, or of seeds trained as one program (default: 1)",
    )
    group.add_argument(
        "--gpus-per-run",
        type=int,
        choices=(0, 1),
        help="GPUs of a run (default: 1 on a cluster that has any, else 0)",
    )


def train_table(
    table: Table, options: dict[str, Any], arguments: Sequence[str]
) -> tuple[SweepOutcome | None, int]:
    """Trains a table, and prints its report or why it is not finished.

    Args:
      table: cells to train, and their report.
      options: values of the flags of `sweep_parser`.
      arguments: command line that they were read from.

    Returns:
      The outcome, None if a signal came outside of training, for one job and where
      nothing was trained; and the exit code: 0 if all runs that were asked for are
      finished or the time was up.

    Raises:
      BadInput: an option, data or a folder that cannot be used.
    """
    shared = dict(options)
    schedule = Schedule(
        **{name: shared.pop(name) for name in ("seeds", "per_device", "minutes")},
        report=shared.pop("report", True),
    )
    preset, out = shared.pop("preset", "fast"), shared.pop("out", None)
    machines = {name: shared.pop(name, None) for name in _MACHINES}
    _check_machines(machines)
    asked = plan(table, preset, shared, schedule, out)
    if machines["print_jobs"]:
        cpus, gpus = machines["cpus_per_run"] or 1, machines["gpus_per_run"] or 0
        form = machines["print_jobs"]
        print(_jobs.written(form, asked, arguments, cpus=cpus, gpus=gpus), end="")
        return None, 0
    outcome: SweepOutcome | None = None
    try:
        with interruptible():
            if machines["job"] is not None:
                stop = run_job(asked, machines["job"])
                if stop is None:
                    return None, 0
            else:
                outcome = _run(asked, machines)
                stop = outcome.interrupted
    except Interrupted as interruption:
        stop = interruption
    if outcome is not None and stop is None:
        print(outcome.page.read_text(encoding="utf-8"), end="")
        return outcome, 0
    # Of a run on a cluster only what lies on shared storage is saved before its end.
    saved = "all is" if machines["cluster"] is None else "finished runs are"
    print(
        f"{program_name()}: stopped by {stop}, {saved} saved; the same command goes on",
        file=sys.stderr,
    )
    return outcome, 128 + stop.number if stop and stop.number else 0


def _run(asked: Plan, machines: dict[str, Any]) -> SweepOutcome:
    """Trains a grid on this machine, or on a cluster."""
    if machines["cluster"] is None:
        return run_sweep(asked)
    # Only now: the module is of no use without Ray.
    from aslp_jax.sweeps.cluster import Cluster, connected

    cluster = Cluster(
        machines["cluster"],
        machines["checkpoints"],
        machines["cpus_per_run"] or 1,
        machines["gpus_per_run"],
    )
    with connected(cluster) as train:
        return run_sweep(asked, train)


def _check_machines(given: dict[str, Any]) -> None:
    """Checks that flags of several machines mean something together."""
    names = ("print_jobs", "job", "cluster")
    places = [name for name in names if given[name] is not None]
    if places[1:]:
        raise BadInput(
            f"{' and '.join(map(flag, places))} exclude each other", page=_jobs.PAGE
        )
    for name in ("checkpoints", "cpus_per_run", "gpus_per_run"):
        if given[name] is None or given["cluster"] is not None:
            continue
        if name == "checkpoints":
            raise BadInput("--checkpoints needs --cluster", page=_RAY_PAGE)
        if given["print_jobs"] is None:
            raise BadInput(
                f"{flag(name)} needs --cluster or --print-jobs", page=_jobs.PAGE
            )


def _checkpoints(text: str) -> str:
    if not is_uri(text):
        return str(path_argument(text))
    check_uri(text)
    return text


def _positive(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= _MOST:
        raise argparse.ArgumentTypeError(
            f"must be a whole number from 1 to {_MOST}, got {text}"
        )
    return int(text)


def _index(text: str) -> int:
    if not text.isdecimal() or len(text) > 9:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0, got {text}")
    return int(text)


def _minutes(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not number > 0:
        raise argparse.ArgumentTypeError(f"must be a number above 0, got {text}")
    return number
