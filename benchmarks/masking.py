"""Time that selecting a subnetwork adds to training the same network without masks.

    python -m benchmarks.masking --arch conv2 conv4

Three sides run alternately on the same random images: training steps with masks,
scales, optimiser, cropping and flipping; the same network with its weights trained by
the same optimiser, on the same images; and its forward and backward passes alone, on
prepared images. Exit code: 0; 1 if the bound is not met against both.
"""

import argparse
import sys
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from aslp_jax import Magnitude
from benchmarks import workload
from benchmarks.timing import Claim, Side, interleave, where

AT_MOST = 1.12
"""Largest time, as a multiple of the time without masks."""


def masked(arch: str, data: tuple[np.ndarray, np.ndarray], **size: int) -> Side:
    """Returns a side that takes steps which select weights.

    Args:
      arch: name of the network.
      data: images and labels.
      **size: `batch_size`, and the `steps` of one call.
    """
    return _training(arch, data, None, **size)


def trained(arch: str, data: tuple[np.ndarray, np.ndarray], **size: int) -> Side:
    """Returns a side that trains all weights; arguments as in `masked`."""
    return _training(arch, data, Magnitude(keep_fraction=1.0), **size)


def _training(arch, data, method, *, batch_size: int, steps: int) -> Side:
    program, create = workload.training(
        workload.network(arch),
        method=method,
        prepare=workload.augmented,
        batch_size=batch_size,
        side=data[0].shape[1],
    )
    return workload.side(program, create(), *data, steps=steps)


def passes(
    arch: str, data: tuple[np.ndarray, np.ndarray], *, batch_size: int, steps: int
) -> Side:
    """Returns a side that sums gradients of all weights; arguments as in `masked`."""
    net = workload.network(arch)
    images, labels = (jnp.asarray(each[: batch_size * steps]) for each in data)
    on_cpu = jax.default_backend() == "cpu"
    at_once = min(batch_size, workload.MICRO_BATCH) if on_cpu else batch_size
    inputs = workload.plain(jax.random.key(0), images)
    inputs = inputs.reshape(-1, at_once, *images.shape[1:])
    params = jax.jit(net.init)(jax.random.key(0), inputs[0, :1])

    def loss(params: Any, inputs: jax.Array, labels: jax.Array) -> jax.Array:
        outputs = net.apply(params, inputs, train=True)
        each = optax.softmax_cross_entropy_with_integer_labels(outputs, labels)
        return each.mean()

    @jax.jit
    def run(params: Any, inputs: jax.Array, labels: jax.Array) -> Any:
        def add(total: Any, part: Any) -> Any:
            value, gradient = jax.value_and_grad(loss)(params, *part)
            return jax.tree.map(jnp.add, total, gradient), value

        return jax.lax.scan(add, jax.tree.map(jnp.zeros_like, params), (inputs, labels))

    return lambda: run(params, inputs, labels.reshape(-1, at_once))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    archs = ("conv2", "conv4", "conv6")
    parser.add_argument("--arch", nargs="+", choices=archs, default=[*archs])
    parser.add_argument("--batch-size", type=int, default=workload.BATCH_SIZE)
    parser.add_argument("--steps", type=int, default=4, help="steps of one measurement")
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args(arguments)
    size = {"batch_size": options.batch_size, "steps": options.steps}
    data = workload.random_images(options.batch_size * options.steps)
    print(f"{where()}, batches of {options.batch_size}")
    met = True
    for arch in options.arch:
        sides = {
            "masked": masked(arch, data, **size),
            "trained": trained(arch, data, **size),
            "passes": passes(arch, data, **size),
        }
        seconds = interleave(sides, options.repeats)
        epoch = {
            name: each / len(data[1]) * workload.EPOCH for name, each in seconds.items()
        }
        for other, text in (
            ("trained", "the same training without masks"),
            ("passes", "forward and backward passes alone"),
        ):
            both = f"{epoch['masked']:.1f} s an epoch over {epoch[other]:.1f} s"
            claim = Claim(
                f"{arch}: {both} of {text}",
                seconds["masked"] / seconds[other],
                AT_MOST,
            )
            print(claim)
            met &= claim.met
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
