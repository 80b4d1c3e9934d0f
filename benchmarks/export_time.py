"""Time and memory to trace and export VGG19, the largest network of the library.

    python -m benchmarks.export_time

Each format is written in a process of its own. The time is that of `export.write`,
which traces the network. The memory is the peak of the process, which also makes the
network, with random masks. Exit code: 0; 1 if a bound is not met.
"""

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from aslp_jax import export
from benchmarks.export_networks import random_network
from benchmarks.timing import Claim

FORMATS = ("onnx", "c", "stablehlo")
"""Formats that compute."""

SECONDS = 20.0
"""Upper bound of a trace and an export, in seconds."""

GIGABYTES = 2.0
"""Upper bound of the peak memory of a process, in GB."""


def measure(arch: str, kind: str) -> tuple[float, float]:
    """Exports a network in this process.

    Args:
      arch: name of the network, for images of 32x32x3.
      kind: name of the format.

    Returns:
      Seconds of the export, and the peak memory of the process in GB.
    """
    subnetwork = random_network(arch, (32, 32, 3), 0.1)
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        export.write(subnetwork, kind, Path(folder) / f"network.{kind}")
        seconds = time.perf_counter() - began
    return seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


def measure_alone(arch: str, kind: str) -> tuple[float, float]:
    """Returns `measure` of a process of its own."""
    command = [sys.executable, "-m", "benchmarks.export_time", "--arch", arch, kind]
    found = subprocess.run(command, check=True, capture_output=True, text=True)
    seconds, gigabytes = map(float, found.stdout.split())
    return seconds, gigabytes


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures each format, or one format in this process."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--arch", default="vgg19", help="network (default: vgg19)")
    parser.add_argument("kind", nargs="?", choices=FORMATS, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.kind is not None:
        print(*measure(options.arch, options.kind))
        return 0
    claims = []
    for kind in FORMATS:
        seconds, gigabytes = measure_alone(options.arch, kind)
        name = f"{options.arch} to {kind}"
        claims.append(Claim(f"{name}, time", seconds, SECONDS, unit="s"))
        claims.append(Claim(f"{name}, peak memory", gigabytes, GIGABYTES, unit="GB"))
        print(*claims[-2:], sep="\n")
    return 0 if all(claim.met for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main())
