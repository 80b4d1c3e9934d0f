"""Selects a subnetwork of an untrained network on CIFAR-10, CIFAR-100 or digits.

Weights are drawn once and frozen; one logit a weight and one scale a layer are learnt.
Exit codes: 0 done; 2 bad input, one line says what; 3 the loss became NaN, the last
good state is kept; 130 or 143 stopped by Ctrl-C or SIGTERM, go on with --resume.
"""

import sys
from collections.abc import Sequence
from pathlib import Path

from config import LOSS_NOT_FINITE, main_guard, parse
from folder import RunFolder


def main(arguments: Sequence[str]) -> int:
    command = parse(
        arguments,
        description=__doc__,
        saved=lambda folder: RunFolder(folder).saved_options(),
    )
    # Only now: `--help` and mistyped flags should not wait for JAX.
    import report
    from loop import Stopped, train_and_report
    from run import LossNotFinite

    try:
        result = train_and_report(
            command.config,
            command.out,
            resume=command.resume,
            progress_file=sys.stderr,
        )
    except LossNotFinite as error:
        print(f"{Path(__file__).name}: {error}", file=sys.stderr)
        return LOSS_NOT_FINITE
    except Stopped as stop:
        print(f"{Path(__file__).name}: {stop}", file=sys.stderr)
        return 128 + stop.number
    print(report.table(result))
    return 0


if __name__ == "__main__":
    main_guard(main)
