"""Memory of a training step, and peak memory of a whole run.

    python -m benchmarks.memory --arch conv2 conv4 conv6

Compiles the steps that select weights and those that train the same network without
masks, and reads their memory analyses. Masks or noise kept in memory while the network
runs would appear in the difference, at 4 bytes a weight each. Then a process of its own
trains and scores Conv4 on as many images as CIFAR-10 has, and reports its peak. Exit
code: 0; 1 if a bound is not met.
"""

import argparse
import resource
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import jax

from aslp_jax import Magnitude, evaluate, train
from aslp_jax.masked import Masked
from aslp_jax.methods import Method
from benchmarks import workload
from benchmarks.timing import Claim, where

MASK_BYTES = 0.5
"""Most bytes a weight of a step, beyond those of the network without masks."""

STATE_BYTES = 12.1
"""Most bytes a weight of the state: weight, logit and momentum, 4 each."""

RUN_GB = 1.5
"""Largest peak memory of the whole run, in GB."""

TEST_IMAGES, AT_ONCE = 10_000, 50
"""Number of scored images, and of images of one pass (a run's number on a CPU)."""


def analyse(arch: str, method: Method | None = None) -> tuple[float, float]:
    """Returns bytes a weight of the state, and of a step besides the state.

    Args:
      arch: name of the network.
      method: method that selects weights; None is ASLP with smart rescale.
    """
    images, labels = workload.random_images(workload.BATCH_SIZE)
    net = workload.network(arch)
    program, create = workload.training(net, method=method)
    state = jax.eval_shape(create)
    arguments = (state, train.Totals.zeros(), images, labels)
    compiled = program.lower(*arguments, *workload.key_and_bounds(1)).compile()
    state_bytes = sum(
        leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)
    )
    weights = sum(leaf.size for leaf in jax.tree.leaves(workload.kernels(net)))
    step_bytes = compiled.memory_analysis().temp_size_in_bytes
    return state_bytes / weights, step_bytes / weights


def run(arch: str, images: int, steps: int) -> float:
    """Trains and scores, and returns the peak memory of this process in GB."""
    net = workload.network(arch)
    program, create = workload.training(net, prepare=workload.augmented)
    data = jax.device_put(workload.random_images(images))
    state: Any = create()
    key_and_bounds = workload.key_and_bounds(steps)
    state, totals = program(state, train.Totals.zeros(), *data, *key_and_bounds)
    model = Masked(net)
    test = [each[:TEST_IMAGES] for each in data]
    scored = evaluate.score(
        state.variables,
        *test,
        model=model,
        prepare=workload.to_float,
        batch_size=AT_ONCE,
    )
    jax.block_until_ready((totals, scored))
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    archs = ("conv2", "conv4", "conv6")
    parser.add_argument("--arch", nargs="+", choices=archs, default=[*archs])
    parser.add_argument("--images", type=int, default=50_000, help="of the run")
    parser.add_argument("--steps", type=int, default=8, help="of the run")
    parser.add_argument(
        "--run",
        choices=archs,
        help="train this network only, and print the peak memory in GB",
    )
    options = parser.parse_args(arguments)
    if options.run is not None:
        print(run(options.run, options.images, options.steps))
        return 0
    print(f"{where()}, batches of {workload.BATCH_SIZE}")
    claims = []
    for arch in options.arch:
        state, step = analyse(arch)
        _, without = analyse(arch, Magnitude(keep_fraction=1.0))
        claims += [
            Claim(f"{arch}: state", state, STATE_BYTES, unit="bytes a weight"),
            Claim(
                f"{arch}: a step besides, {step:.1f} bytes a weight, and without "
                f"masks {without:.1f}",
                step - without,
                MASK_BYTES,
                unit="bytes a weight more",
            ),
        ]
    command = f"--run conv4 --images {options.images} --steps {options.steps}"
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *command.split()],
        check=True,
        capture_output=True,
        text=True,
    )
    text = f"conv4, {options.images:,} images: peak of the process"
    claims.append(Claim(text, float(ended.stdout), RUN_GB, unit="GB"))
    for claim in claims:
        print(claim)
    return 0 if all(claim.met for claim in claims) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
