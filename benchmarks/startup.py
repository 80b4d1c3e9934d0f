"""How long it takes until something happens: import, help, and a second run.

    python -m benchmarks.startup

Times processes from start to end, the two of a pair taking turns: importing `Masked`
of `aslp_jax` against `import flax.linen`; `--help` of each program; a short run that
finds nothing compiled against the same run again. Exit code: 0; 1 if a bound is not
met.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PROGRAMS = ("cifar.py", "table1.py", "budget.py", "compare.py")

IMPORT_RATIO = 1.5
"""Importing the library over `import flax.linen`, at the most."""

HELP_SECONDS = 1.0

SECOND_RUN = 1 / 3
"""A second run over the first, at the most."""


def seconds(*command: str, **environment: str) -> float:
    """Returns how long a Python process takes.

    Args:
      *command: arguments of the interpreter.
      **environment: variables besides those of this process.

    Raises:
      CalledProcessError: it failed.
    """
    began = time.perf_counter()
    subprocess.run(
        [sys.executable, *command],
        check=True,
        capture_output=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    )
    return time.perf_counter() - began


def imports(repeats: int) -> tuple[float, float]:
    """Returns median seconds of importing the library, and Flax alone."""
    # `import aslp_jax` alone imports nothing.
    ours_line, flax_line = "from aslp_jax import Masked", "import flax.linen"
    found: dict[str, list[float]] = {ours_line: [], flax_line: []}
    for _ in range(repeats):
        for line, each in found.items():
            each.append(seconds("-c", line))
    ours, flax = map(statistics.median, found.values())
    return ours, flax


def runs(arch: str, epochs: int) -> tuple[float, float]:
    """Returns seconds of a short run on digits, and of the same once more."""
    with tempfile.TemporaryDirectory() as folder:
        line = f"--dataset digits --arch {arch} --epochs {epochs} --out {folder}/"
        first, second = (
            seconds(
                str(EXPERIMENTS / "cifar.py"),
                *f"{line}{name}".split(),
                JAX_COMPILATION_CACHE_DIR=f"{folder}/compiled",
            )
            for name in ("first", "second")
        )
    return first, second


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", default="conv4", help="of the short run")
    parser.add_argument("--epochs", type=int, default=1, help="of the short run")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores")
    ours, flax = imports(options.repeats)
    met = [ours <= IMPORT_RATIO * flax]
    print(
        f"import of Masked {ours:.2f} s, of flax.linen {flax:.2f} s: {ours / flax:.2f} "
        f"times (at most {IMPORT_RATIO})"
    )
    commands = {program: (str(EXPERIMENTS / program),) for program in PROGRAMS}
    for program, command in {**commands, "aslp-jax": ("-m", "aslp_jax")}.items():
        taken = statistics.median(
            seconds(*command, "--help") for _ in range(options.repeats)
        )
        met.append(taken <= HELP_SECONDS)
        print(f"{program} --help {taken:.2f} s (at most {HELP_SECONDS})")
    first, second = runs(options.arch, options.epochs)
    met.append(second <= SECOND_RUN * first)
    print(
        f"{options.arch} on digits, {options.epochs} epochs: {first:.1f} s, again "
        f"{second:.1f} s: {second / first:.2f} times (at most {SECOND_RUN:.2f})"
    )
    return 0 if all(met) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
