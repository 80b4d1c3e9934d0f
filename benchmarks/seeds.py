"""Several seeds as one program against one after another, in training images a second.

    python -m benchmarks.seeds --arch conv4 --batch-size 8

Three ways to train the same two runs on digits: one after the other; as one program
with a run on each of two CPU devices, as `experiments/table1.py` does; as one program
vectorised on a single device (`jax.vmap`). They take turns. Exit code: 0; 1 if the
devices gain nothing or change a bit of the result.
"""

import argparse
import functools
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from aslp_jax import ASLP, Masked, models, train
from aslp_jax.data import augment, datasets
from aslp_jax.models import initialisers
from aslp_jax.ops.convolution import conv_in_loop
from aslp_jax.optim import by_group

RUNS = 2


def _call(program: Callable[..., Any], bounds: Sequence[Any], parts: Any) -> Any:
    return program(*parts, *bounds)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    # Digits are too small for vgg19.
    archs = [name for name in models.NETWORKS if name != "vgg19"]
    parser.add_argument("--arch", choices=archs, default="conv4")
    parser.add_argument("--batch-size", type=int, default=8)
    parser.add_argument("--steps", type=int, default=80, help="of each run a repeat")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", RUNS)
    devices = jax.devices()

    constant = initialisers.signed_constant(initialisers.kaiming_normal())
    net = models.NETWORKS[options.arch](
        classes=10,
        conv_init=constant,
        dense_init=constant,
        conv_general_dilated=conv_in_loop,
    )
    model = Masked(net, ASLP())
    optimiser = by_group({}, default=optax.adam(0.3, b1=0.5))
    data = datasets.load("digits")
    images, labels = data.train_images[:1280], data.train_labels[:1280]

    def prepare(key: jax.Array, images: jax.Array) -> jax.Array:
        return augment.to_float(augment.crop_and_flip(key, images, pad=1, flip=False))

    settings: dict[str, Any] = {
        "batch_size": options.batch_size,
        "prepare": prepare,
        "model": model,
        "optimiser": optimiser,
    }
    bounds = [jnp.asarray(number, jnp.int32) for number in (0, 0, options.steps)]
    keys = [jax.random.key(seed) for seed in range(RUNS)]
    inputs = jnp.zeros((1, *images.shape[1:]))
    create = jax.jit(functools.partial(train.create, model, optimiser, inputs=inputs))

    def begin() -> list[Any]:
        """What each run starts from: state, totals, images, labels and key."""
        return [
            (
                create(key),
                train.Totals.zeros(),
                jnp.asarray(images),
                jnp.asarray(labels),
                key,
            )
            for key in keys
        ]

    def spread(mesh: Mesh) -> Any:
        """The same, side by side on the devices of a mesh."""
        parts = jax.tree.map(lambda *leaves: jnp.stack(leaves), *begin())
        return jax.device_put(parts, NamedSharding(mesh, PartitionSpec(train.SEED)))

    alone = train.compile_steps(**settings)
    ways: dict[str, tuple[Callable[..., Any], Callable[[], Any]]] = {
        "one after another": (
            lambda parts: [_call(alone, bounds, part) for part in parts],
            begin,
        )
    }
    for name, count in (("one a device", RUNS), ("vectorised", 1)):
        mesh = Mesh(
            np.array(devices[:count]), (train.SEED,), axis_types=(AxisType.Auto,)
        )
        program = train.compile_steps(seeds=mesh, **settings)
        ways[name] = (
            functools.partial(_call, program, bounds),
            functools.partial(spread, mesh),
        )

    seconds: dict[str, list[float]] = {name: [] for name in ways}
    ends: dict[str, Any] = {}
    for repeat in range(options.repeats + 1):
        for name, (run, start) in ways.items():
            parts = jax.block_until_ready(start())
            began = time.perf_counter()
            ends[name] = jax.block_until_ready(run(parts))
            if repeat:  # the first one compiles
                seconds[name].append(time.perf_counter() - began)
    images_taken = RUNS * options.steps * options.batch_size
    print(
        f"{options.arch} on digits, batches of {options.batch_size}, {RUNS} seeds; "
        f"{jax.devices()[0].device_kind}, Python {platform.python_version()}, "
        f"jax {jax.__version__}"
    )
    speed = {
        name: images_taken / statistics.median(spent) for name, spent in seconds.items()
    }
    for name, images_per_second in speed.items():
        ratio = images_per_second / speed["one after another"]
        print(f"{name:<20}{images_per_second:9,.0f} images/s  {ratio:5.2f} times")

    single = ends["one after another"]
    together = ends["one a device"]
    same = all(
        np.array_equal(one, both[index])
        for index in range(RUNS)
        for one, both in zip(
            jax.tree.leaves(single[index]), jax.tree.leaves(together), strict=True
        )
    )
    print(f"one a device gives the same bits as alone: {'yes' if same else 'NO'}")
    return 0 if same and speed["one a device"] > speed["one after another"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
