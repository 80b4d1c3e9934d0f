"""What a training step keeps in memory, and what a whole run takes.

    python -m benchmarks.memory --arch conv2 conv4 conv6

Compiles the steps that select weights and those that train the same network without
masks, and reads their memory analyses: masks or noise that are kept while the network
runs would stand in the difference, 4 bytes a weight for each. Then a process of its
own trains and scores Conv4 on as many images as CIFAR-10 has, and tells its peak. Exit
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

KEPT_BYTES = 0.5
"""A weight, at the most, beyond the network without masks."""

STATE_BYTES = 12.1
"""A weight: frozen, logit and momentum, 4 each."""

RUN_GB = 1.5

TEST_IMAGES, AT_ONCE = 10_000, 50
"""Images scored, and so many at once, as the programs do on a CPU."""


def analyse(arch: str, method: Method | None = None) -> tuple[float, float]:
    """Returns bytes a weight of the state, and of what a step needs besides.

    Args:
      arch: name of the network.
      method: how weights are selected; None is ASLP with smart rescale.
    """
    images, labels = workload.random_images(workload.BATCH_SIZE)
    net = workload.network(arch)
    program, create = workload.training(net, method=method)
    state = jax.eval_shape(create)
    arguments = (state, train.Totals.zeros(), images, labels)
    compiled = program.lower(*arguments, *workload.key_and_bounds(1)).compile()
    held = sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(state))
    weights = sum(leaf.size for leaf in jax.tree.leaves(workload.kernels(net)))
    return held / weights, compiled.memory_analysis().temp_size_in_bytes / weights


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
        "--run", choices=archs, help="only the run, of this network: prints its GB"
    )
    options = parser.parse_args(arguments)
    if options.run is not None:
        print(run(options.run, options.images, options.steps))
        return 0
    print(f"{where()}, batches of {workload.BATCH_SIZE}")
    claims = []
    for arch in options.arch:
        held, needed = analyse(arch)
        _, without = analyse(arch, Magnitude(keep_fraction=1.0))
        claims += [
            Claim(f"{arch}: state", held, STATE_BYTES, unit="bytes a weight"),
            Claim(
                f"{arch}: a step besides, {needed:.1f} bytes a weight, and without "
                f"masks {without:.1f}",
                needed - without,
                KEPT_BYTES,
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
