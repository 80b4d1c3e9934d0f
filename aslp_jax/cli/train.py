"""Selects a subnetwork of an untrained network, on CIFAR and other images.

Weights are initialised once and frozen; one logit a weight and one scale a layer are
learnt. (--method budget and magnitude train the weights, for comparison.)
"""

import io
import shlex
import sys
from collections.abc import Sequence

from aslp_jax._errors import BUDGET_MISSED, LOSS_NOT_FINITE
from aslp_jax._extras import require
from aslp_jax.cli._distributed import run_shared
from aslp_jax.cli.arguments import Command, parse
from aslp_jax.cli.errors import (
    command_name,
    exit_code_lines,
    program_name,
    shell_name,
)
from aslp_jax.trainer.run_folder import REPORT
from aslp_jax.trainer.signals import Interrupted, Signals, interruptible

__all__ = ["main", "run"]


def main(arguments: Sequence[str]) -> int:
    """Runs `aslp-jax train`.

    Args:
      arguments: command line without the command's name.

    Returns:
      The exit code.

    Raises:
      BadInput: a flag, a folder, a data set or a number cannot be used.
      MissingExtra: matplotlib is not installed, or with `--tensorboard` tensorboardX.
      SystemExit: `--help` was asked for.
    """
    flags = parse(
        arguments,
        description=__doc__,
        prog=command_name("train"),
        epilog=exit_code_lines(),
    )
    require("matplotlib", by="train")
    if flags.tensorboard:
        require("tensorboardX", by="--tensorboard")
    if flags.cluster is None:
        return run(flags.command())
    return run_shared(flags.cluster, flags, run)


def run(command: Command) -> int:
    """Trains the run that a command line asks for, and prints the closing table.

    Args:
      command: run to begin or to resume.

    Returns:
      The exit code.

    Raises:
      BadInput: a folder, a data set or a number cannot be used.
    """
    folder = command.folder
    try:
        with interruptible():
            if command.resume and command.first:
                folder.claim()  # before JAX is imported, which takes a second
            return _run(command)
    except Interrupted as stop:
        state = "nothing is written"
        if folder.begun:
            state = f"all is saved; continue with --out {folder.quoted} --resume"
        _tell(command, f"stopped by {stop}, {state}")
        return 128 + stop.number
    finally:
        folder.release()


def _run(command: Command) -> int:
    # Only now: `--help` and mistyped flags should not wait for JAX.
    with Signals():
        from aslp_jax.trainer import summary
        from aslp_jax.trainer.compilation_cache import (
            compile_seconds,
            enable_compilation_cache,
        )
        from aslp_jax.trainer.loading import load_dataset
        from aslp_jax.trainer.loop import train_sessions
        from aslp_jax.trainer.progress import Progress
        from aslp_jax.trainer.session import begin

    enable_compilation_cache()
    config = command.config
    progress = Progress(
        sys.stderr if command.first else io.StringIO(), epochs=config.total_epochs
    )
    data = load_dataset(config, progress.note)
    session = begin(
        config,
        data,
        command.folder,
        resume=command.resume,
        note=progress.note,
        tensorboard=command.tensorboard,
    )
    epoch = session.run.position.epoch + 1
    origin = f"from epoch {epoch}" if command.resume else data.source
    try:
        progress.note(
            f"{session.folder.path}: {config.dataset_name} ({origin}), "
            f"{session.run.device}"
        )
        if command.preset:
            progress.note(f"preset: {command.preset}")
        if config.shard == "params" and len(session.run.devices) > 1:
            from aslp_jax.trainer.memory import describe_step_memory

            progress.note(describe_step_memory(session.run))
        with Signals() as signals:
            train_sessions([session], progress, signals)
    finally:
        progress.close()
    if session.problem is not None:
        _tell(command, session.problem)
        return LOSS_NOT_FINITE
    result = session.finish(plot=True, report=command.report)
    if command.first:
        print(summary.table(result, compile_seconds=compile_seconds()))
        print("\n".join(_closing(command)))
    for warning in summary.warnings(result):
        _tell(command, f"WARNING: {warning}")
    if result.budget_miss > 0:
        _tell(command, summary.describe_budget_miss(result))
        return BUDGET_MISSED
    return 0


def _closing(command: Command) -> list[str]:
    """Returns the last lines: preset, files, and a command to go on with."""
    from aslp_jax.artefact import NETWORK  # by now JAX is loaded

    folder = command.folder
    network = folder.path / NETWORK
    size = folder.file(NETWORK).stat().st_size
    inspect = f"{shell_name()} inspect {shlex.quote(str(network))} --plot"
    facts = [
        ("preset", command.preset),
        ("picture", folder.path / "curves.png"),
        ("report", folder.path / REPORT if command.report else None),
        ("network", f"{network}, {size:,} bytes"),
        ("next", inspect),
    ]
    return [f"{name:<15}{fact}" for name, fact in facts if fact]


def _tell(command: Command, text: str) -> None:
    """Prints a message, once for all processes of a run."""
    if command.first:
        print(f"{program_name()}: {text}", file=sys.stderr)
