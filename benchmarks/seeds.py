"""Several seeds as one program against one after another, in training images a second.

    python -m benchmarks.seeds --arch conv4 --batch-size 8
    python -m benchmarks.seeds --platform gpu --arch conv4 --batch-size 256 --runs 5

Three ways to train the same runs: one after the other; as one program with a run on
each of several CPU devices, as `aslp-jax table1` does; as one program vectorised on a
single device (`jax.vmap`). The ways run alternately. On a CPU the images are digits.
On a GPU they are random images of CIFAR-10's size, and the second way is left out.
Exit code: 0; 1 if the CPU devices save no time or change a bit of the result.
"""

import argparse
import functools
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aslp_jax import ASLP, Masked, models, train
from aslp_jax.data import augment, datasets
from aslp_jax.models import initialisers
from aslp_jax.ops import convolution
from aslp_jax.optim import by_group
from benchmarks import workload
from benchmarks.timing import where

RUNS = 2
"""Default number of runs, each with its own seed."""

ALONE, DEVICES, VECTORISED = "one after another", "one a device", "vectorised"


class Way(NamedTuple):
    """Way to train all runs.

    Attributes:
      run: function that trains from the state of `start`.
      start: function that returns states, totals, images, labels and keys.
    """

    run: Callable[[Any], Any]
    start: Callable[[], Any]


def network(arch: str, platform: str) -> Any:
    """Returns a network of the paper with signed constants, for ten classes."""
    constant = initialisers.signed_constant(initialisers.kaiming_normal())
    return models.NETWORKS[arch](
        classes=10,
        conv_init=constant,
        dense_init=constant,
        conv_general_dilated=convolution.of_platform(platform),
    )


def digits() -> tuple[np.ndarray, np.ndarray]:
    """Returns 1,280 training images of digits and their labels."""
    data = datasets.load("digits")
    return data.train_images[:1280], data.train_labels[:1280]


def make_ways(
    net: Any,
    images: np.ndarray,
    labels: np.ndarray,
    *,
    batch_size: int,
    steps: int,
    runs: int = RUNS,
    devices: bool = True,
) -> dict[str, Way]:
    """Returns the ways by name.

    Args:
      net: the plain network.
      images: uint8 `[count, side, side, channels]`.
      labels: int32 `[count]`.
      batch_size: images a step.
      steps: steps of each run.
      runs: number of runs.
      devices: True for the way that trains each run on a device of its own, too.
    """
    model, optimiser = (
        Masked(net, ASLP()),
        by_group({}, default=optax.adam(0.3, b1=0.5)),
    )
    settings: dict[str, Any] = {
        "batch_size": batch_size,
        "prepare": _prepare,
        "model": model,
        "optimiser": optimiser,
    }
    bounds = [jnp.asarray(number, jnp.int32) for number in (0, 0, steps)]
    inputs = jnp.zeros((1, *images.shape[1:]))
    create = jax.jit(functools.partial(train.create, model, optimiser, inputs=inputs))

    def start() -> list[Any]:
        data = jnp.asarray(images), jnp.asarray(labels)
        keys = [jax.random.key(seed) for seed in range(runs)]
        return [(create(key), train.Totals.zeros(), *data, key) for key in keys]

    def start_on(mesh: Mesh) -> Any:
        parts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *start())
        return jax.device_put(parts, NamedSharding(mesh, PartitionSpec(train.SEED)))

    alone = train.compile_steps(**settings)
    ways = {ALONE: Way(lambda parts: [alone(*part, *bounds) for part in parts], start)}
    for name, count in ((DEVICES, runs), (VECTORISED, 1)):
        if name == DEVICES and not devices:
            continue
        chosen = np.array(jax.devices()[:count])
        mesh = Mesh(chosen, (train.SEED,), axis_types=(AxisType.Auto,))
        program = train.compile_steps(seeds=mesh, **settings)
        ways[name] = Way(
            functools.partial(_call, program, bounds),
            functools.partial(start_on, mesh),
        )
    return ways


def _prepare(key: jax.Array, images: jax.Array) -> jax.Array:
    return augment.to_float(augment.crop_and_flip(key, images, pad=1, flip=False))


def _call(program: Callable[..., Any], bounds: Iterable[Any], parts: Any) -> Any:
    return program(*parts, *bounds)


def measure(
    ways: dict[str, Way], repeats: int
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Runs the ways alternately.

    Args:
      ways: ways by name. The first run of each compiles and does not count.
      repeats: counted runs of each way.

    Returns:
      Seconds of each counted run, and the result of the last one, by name.
    """
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for repeat in range(repeats + 1):
        for name, way in ways.items():
            parts = jax.block_until_ready(way.start())
            began = time.perf_counter()
            results[name] = jax.block_until_ready(way.run(parts))
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    return seconds, results


def same_bits(alone: Sequence[Any], stacked: Any) -> bool:
    """Compares results of single runs with those of one program, bit by bit.

    Args:
      alone: result of each run.
      stacked: result of the program, with the runs on the first axis.

    Returns:
      True if all arrays are equal.
    """
    return all(
        np.array_equal(one, all_runs[index])
        for index in range(len(alone))
        for one, all_runs in zip(
            jax.tree.leaves(alone[index]), jax.tree.leaves(stacked), strict=True
        )
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--platform", choices=("cpu", "gpu"), default="cpu")
    # Digits are too small for vgg19.
    archs = [name for name in models.NETWORKS if name != "vgg19"]
    parser.add_argument("--arch", choices=archs, default="conv4")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--runs", type=int, default=RUNS)
    parser.add_argument("--steps", type=int, default=80, help="of each run a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    on_cpu = options.platform == "cpu"
    if on_cpu:
        jax.config.update("jax_platforms", "cpu")
        jax.config.update("jax_num_cpu_devices", options.runs)
        data, what = digits(), "digits"
    elif jax.default_backend() != "gpu":
        parser.error("--platform gpu needs a GPU that JAX can use")
    else:
        data = workload.random_images(options.batch_size * options.steps)
        what = "random images of 32x32"
    ways = make_ways(
        network(options.arch, options.platform),
        *data,
        batch_size=options.batch_size,
        steps=options.steps,
        runs=options.runs,
        devices=on_cpu,
    )
    seconds, results = measure(ways, options.repeats)
    print(
        f"{options.arch} on {what}, batches of {options.batch_size}, {options.runs} "
        f"seeds; {where()}"
    )
    images = options.runs * options.steps * options.batch_size
    speed = {name: images / statistics.median(each) for name, each in seconds.items()}
    for name, images_per_second in speed.items():
        ratio = images_per_second / speed[ALONE]
        print(f"{name:<20}{images_per_second:9,.0f} images/s  {ratio:5.2f} times")
    if not on_cpu:
        return 0
    same = same_bits(results[ALONE], results[DEVICES])
    print(f"one a device gives the same bits as alone: {'yes' if same else 'NO'}")
    return 0 if same and speed[DEVICES] > speed[ALONE] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
