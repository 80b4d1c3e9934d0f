"""A whole training step on a CPU, in images a second, against plain PyTorch.

    python benchmarks/training_step.py --arch conv2 conv4 conv6

Both sides train the same network on the same random images: frozen signed-constant
weights, a mask drawn for each step, one scale a layer, SGD with momentum, no
augmentation, float32. They take turns in one process, on all its cores. PyTorch is
`pytorch.py`; `pip install torch` brings it. Exit code: 0; 1 if a ratio is below its
bound.
"""

import argparse
import functools
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax import ASLP, Masked, augment, initialisers, networks, optim, train
from aslp_jax.convolution import conv_in_loop

BOUNDS = {"conv2": 1.3, "conv4": 1.0, "conv6": 1.0}
"""Images a second over those of PyTorch, at the least."""

_MICRO_BATCH = 64

Turn = Callable[[], None]


def random_images(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns uint8 `[count, 32, 32, 3]` and int32 `[count]`, the same each time."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, 32, 32, 3), dtype=np.uint8)
    return images, rng.integers(0, 10, count, dtype=np.int32)


def ours(
    arch: str, images: np.ndarray, labels: np.ndarray, *, batch_size: int, steps: int
) -> Turn:
    """Returns what takes `steps` steps with this library.

    Args:
      arch: name of the network.
      images: uint8 `[count, 32, 32, 3]`.
      labels: int32 `[count]`.
      batch_size: images a step.
      steps: of a turn.
    """
    constant = initialisers.signed_constant(initialisers.kaiming_normal())
    net = networks.NETWORKS[arch](
        classes=10,
        conv_init=constant,
        dense_init=constant,
        conv_general_dilated=conv_in_loop,
    )
    model = Masked(net, ASLP())
    optimiser = optim.sgd_by_group({"logits": 50.0, "scale": 1e-3}, momentum=0.9)
    program = train.compile_steps(
        batch_size=batch_size,
        prepare=lambda key, images: augment.to_float(images),
        model=model,
        optimiser=optimiser,
        micro_batch=min(batch_size, _MICRO_BATCH),
    )
    key = jax.random.key(0)
    create = functools.partial(train.create, model, optimiser)
    state: Any = jax.jit(create)(key, jnp.zeros((1, 32, 32, 3)))
    totals = train.Totals.zeros()
    data = jax.device_put((images, labels))
    bounds = [jnp.asarray(number, jnp.int32) for number in (0, 0, steps)]

    def turn() -> None:
        nonlocal state, totals
        state, totals = program(state, totals, *data, key, *bounds)
        jax.block_until_ready(totals)

    return turn


def theirs(
    arch: str, images: np.ndarray, labels: np.ndarray, *, batch_size: int, steps: int
) -> Turn:
    """Returns what takes `steps` steps with PyTorch; arguments as those of `ours`."""
    import torch
    from pytorch import Step

    step = Step(arch)
    every = torch.from_numpy(images)
    truth = torch.from_numpy(labels).long()

    def turn() -> None:
        order = torch.randperm(len(truth))
        for index in range(steps):
            rows = order[index * batch_size : (index + 1) * batch_size]
            batch = every[rows].permute(0, 3, 1, 2).float() / 255
            step(batch, truth[rows])

    return turn


def take_turns(sides: dict[str, Turn], repeats: int) -> dict[str, list[float]]:
    """Returns seconds of each turn; the first of each side, which compiles, is not."""
    seconds: dict[str, list[float]] = {name: [] for name in sides}
    for repeat in range(repeats + 1):
        for name, turn in sides.items():
            began = time.perf_counter()
            turn()
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", nargs="+", choices=tuple(BOUNDS), default=[*BOUNDS])
    parser.add_argument("--batch-size", type=int, default=256)
    parser.add_argument("--steps", type=int, default=4, help="of a turn")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args(arguments)
    try:
        import torch
    except ImportError:
        parser.error("PyTorch is not installed; pip install torch")
    jax.config.update("jax_platforms", "cpu")
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    print(
        f"{cores} cores, Python {platform.python_version()}, jax {jax.__version__}, "
        f"PyTorch {torch.__version__}, batches of {options.batch_size}"
    )
    images, labels = random_images(options.batch_size * options.steps)
    size = {"batch_size": options.batch_size, "steps": options.steps}
    code = 0
    for arch in options.arch:
        seconds = take_turns(
            {
                "ours": ours(arch, images, labels, **size),
                "theirs": theirs(arch, images, labels, **size),
            },
            options.repeats,
        )
        speed = {
            name: len(images) / statistics.median(each)
            for name, each in seconds.items()
        }
        ratio = speed["ours"] / speed["theirs"]
        code |= ratio < BOUNDS[arch]
        print(
            f"{arch}: {speed['ours']:.0f} images/s, PyTorch {speed['theirs']:.0f}: "
            f"{ratio:.2f} times (at least {BOUNDS[arch]})"
        )
    return int(code)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
