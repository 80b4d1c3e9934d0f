"""Start-up time: import, `--help` of every command, and a second run.

    python -m benchmarks.startup

Times processes from start to end: importing `Masked` of `aslp_jax` against `import
flax.linen`, alternately; `--help` of `aslp-jax`, of each of its commands and of each
program in experiments/, which must not import JAX; and a short run with an empty
compilation cache against the same run again. Exit code: 0; 1 if a bound is not met.
"""

import argparse
import os
import platform
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from aslp_jax.cli.main import COMMANDS
from benchmarks.timing import Claim

EXPERIMENTS = Path(__file__).parents[1] / "experiments"
PROGRAMS = ("cifar.py", "table1.py", "budget.py", "compare.py")

HELP = {
    "aslp-jax": ("-m", "aslp_jax"),
    **{f"aslp-jax {name}": ("-m", "aslp_jax", name) for name in COMMANDS},
    **{name: (str(EXPERIMENTS / name),) for name in PROGRAMS},
}
"""Arguments of the interpreter by command, to which `--help` is added."""

IMPORT_RATIO = 1.5
"""Upper bound of importing the library, as a multiple of `import flax.linen`."""

HELP_SECONDS = 0.3
"""Upper bound of `--help` in seconds."""

SECOND_RUN = 1 / 3
"""Upper bound of a second run, as a fraction of the first."""


def process(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a Python process on the CPU.

    Args:
      *command: arguments of the interpreter.
      **environment: variables besides those of this process.

    Raises:
      CalledProcessError: the process failed.
    """
    return subprocess.run(
        [sys.executable, *command],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu", **environment},
    )


def seconds(*command: str, **environment: str) -> float:
    """Returns the duration of a Python process; arguments as in `process`."""
    began = time.perf_counter()
    process(*command, **environment)
    return time.perf_counter() - began


def imported(*command: str) -> set[str]:
    """Returns the modules that a Python process imports; arguments as in `process`.

    Python does not list a module that `importlib` imports, but its imports.
    """
    log = process("-X", "importtime", *command).stderr
    return set(re.findall(r"^import time:.*\| +(\S+)$", log, re.MULTILINE))


def imports(repeats: int) -> tuple[float, float]:
    """Returns median seconds of importing the library, and of importing Flax alone."""
    # `import aslp_jax` alone imports nothing.
    ours_line, flax_line = "from aslp_jax import Masked", "import flax.linen"
    found: dict[str, list[float]] = {ours_line: [], flax_line: []}
    for _ in range(repeats):
        for line, each in found.items():
            each.append(seconds("-c", line))
    ours, flax = map(statistics.median, found.values())
    return ours, flax


def runs(arch: str, epochs: int) -> tuple[float, float]:
    """Returns the seconds of a short run on digits, and of the same run again."""
    with tempfile.TemporaryDirectory() as folder:
        line = f"--dataset digits --preset paper --arch {arch} --epochs {epochs}"
        first, second = (
            seconds(
                *("-m", "aslp_jax", "train", *f"{line} --out {folder}/{name}".split()),
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
    text = f"import of Masked {ours:.2f} s, of flax.linen {flax:.2f} s"
    claims = [Claim(text, ours / flax, IMPORT_RATIO)]
    print(claims[-1])
    for name, command in HELP.items():
        assert "jax" not in imported(*command, "--help"), f"{name} --help imports JAX"
        taken = statistics.median(
            seconds(*command, "--help") for _ in range(options.repeats)
        )
        claims.append(Claim(f"{name} --help", taken, HELP_SECONDS, unit="s"))
        print(claims[-1])
    first, second = runs(options.arch, options.epochs)
    text = (
        f"{options.arch} on digits, {options.epochs} epochs: {first:.1f} s, again "
        f"{second:.1f} s"
    )
    claims.append(Claim(text, second / first, SECOND_RUN))
    print(claims[-1])
    return 0 if all(claim.met for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
