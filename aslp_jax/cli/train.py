"""Selects a subnetwork of an untrained network, on CIFAR and other images.

Weights are drawn once and frozen; one logit a weight and one scale a layer are learnt
(--method budget and magnitude train the weights, to compare with). Exit codes: 0 done;
2 bad input, one line says what; 3 the loss became NaN, the last good state is kept; 4
it does not keep as many weights as --keep asked for; 130 or 143 stopped by Ctrl-C or
SIGTERM, go on with --resume.
"""

import sys
from collections.abc import Sequence

from aslp_jax._errors import BUDGET_MISSED, LOSS_NOT_FINITE
from aslp_jax._extras import require
from aslp_jax.cli.arguments import Command, parse
from aslp_jax.cli.errors import program_name
from aslp_jax.trainer.run_folder import RunFolder


def main(arguments: Sequence[str]) -> int:
    command = parse(
        arguments,
        description=__doc__,
        saved=lambda folder: RunFolder(folder).saved_options(),
    )
    require("matplotlib", by="train")
    if command.out is not None and not command.resume:
        RunFolder.check_new(command.out)
    return run(command)


def run(command: Command) -> int:
    """Runs or continues what the command asks for, and prints the closing table.

    Returns:
      The exit code.

    Raises:
      BadInput: a folder, a data set or a number that cannot be used.
    """
    # Only now: `--help` and mistyped flags should not wait for JAX.
    from aslp_jax.trainer import summary
    from aslp_jax.trainer.compilation_cache import (
        compile_seconds,
        enable_compilation_cache,
    )
    from aslp_jax.trainer.loop import Interrupted, Signals, train_sessions
    from aslp_jax.trainer.progress import Progress
    from aslp_jax.trainer.session import begin, load_dataset

    enable_compilation_cache()
    config, name = command.config, program_name()
    data = load_dataset(config)
    progress = Progress(sys.stderr, epochs=config.total_epochs)
    session = begin(
        config, data, command.out, resume=command.resume, note=progress.note
    )
    epoch = session.run.position.epoch + 1
    origin = f"from epoch {epoch}" if command.resume else data.source
    try:
        progress.note(
            f"{session.folder.path}: {config.dataset} ({origin}), {session.run.device}"
        )
        with Signals() as signals:
            train_sessions([session], progress, signals)
    except Interrupted as stop:
        progress.close()
        print(
            f"{name}: stopped by {stop}, all is saved; continue with "
            f"--out {session.quoted} --resume",
            file=sys.stderr,
        )
        return 128 + stop.number
    finally:
        progress.close()
    if session.problem is not None:
        print(f"{name}: {session.problem}", file=sys.stderr)
        return LOSS_NOT_FINITE
    result = session.finish(picture=True)
    print(summary.table(result, compile_seconds=compile_seconds()))
    for warning in summary.warnings(result):
        print(f"{name}: WARNING: {warning}", file=sys.stderr)
    if result["budget_miss"] > 0:
        print(f"{name}: {summary.describe_budget_miss(result)}", file=sys.stderr)
        return BUDGET_MISSED
    return 0
