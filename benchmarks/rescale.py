"""Time that smart and dynamic rescale add to an epoch (section 3.3).

    python -m benchmarks.rescale --arch conv4 --out results/rescale

Two measurements: the part of a training step that depends on the rescale (sample the
masks, compute effective weights and a gradient, update the params), which is precise,
and whole training steps, which users wait for. The three kinds run alternately. Exit
code: 0; 1 if smart rescale adds more than dynamic.
"""

import argparse
import functools
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aslp_jax import ASLP, Masked, models, train
from aslp_jax.methods.sampled import Rescale
from benchmarks import workload
from benchmarks.tables import write_csv
from benchmarks.timing import Side, interleave_all, where

KINDS: tuple[Rescale, ...] = ("none", "smart", "dynamic")


def masking(arch: str, kind: Rescale, calls: int, side: int = workload.SIDE) -> Side:
    """Returns a side: masks, effective weights, gradient and update, `calls` times.

    Args:
      arch: name of the network.
      kind: the rescale.
      calls: repetitions within one program.
      side: height and width of an image in pixels.
    """
    method, optimiser = ASLP(rescale=kind), workload.sgd()
    net, inputs = workload.network(arch), jnp.zeros((1, side, side, 3))
    create = functools.partial(train.create, Masked(net, method), optimiser)
    state = jax.jit(create)(jax.random.key(0), inputs)
    frozen = state.frozen
    given = jax.tree.map(lambda leaf: 1e-6 * jnp.sign(leaf), frozen)

    @jax.jit
    def run(key: jax.Array) -> Any:
        def once(index: jax.Array, carry: Any) -> Any:
            params, opt_state = carry
            sample = functools.partial(
                method.effective_weights, frozen, key=jax.random.fold_in(key, index)
            )
            weights, pull = jax.vjp(sample, params)
            # Depends on the weights too, so that XLA removes none of them.
            gradient = pull(jax.tree.map(lambda g, w: g + 1e-9 * w, given, weights))[0]
            updates, opt_state = optimiser.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return jax.lax.fori_loop(0, calls, once, (state.params, state.opt_state))

    return lambda: run(jax.random.key(1))


def training(arch: str, kind: Rescale, calls: int) -> Side:
    """Returns a side: `calls` training steps on random images, with augmentation."""
    net, method = workload.network(arch), ASLP(rescale=kind)
    program, create = workload.training(net, method=method, prepare=workload.augmented)
    images, labels = workload.random_images(calls * workload.BATCH_SIZE)
    return workload.side(program, create(), images, labels, steps=calls)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=tuple(models.NETWORKS), default="conv4")
    parser.add_argument("--out", type=Path, help="folder for rescale.csv")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument(
        "--steps", type=int, default=2, help="whole steps of one measurement"
    )
    options = parser.parse_args(arguments)

    measures = {
        "masking": (masking, 10, options.repeats),
        "whole step": (training, options.steps, options.repeats),
    }
    print(
        f"{options.arch}, {where()}; an epoch is {workload.STEPS} steps of "
        f"{workload.BATCH_SIZE} images"
    )
    lines: list[dict[str, Any]] = []
    for name, (make, calls, repeats) in measures.items():
        seconds = interleave_all(
            {kind: make(options.arch, kind, calls) for kind in KINDS}, repeats
        )
        epoch = {
            kind: [second * workload.STEPS / calls for second in seconds[kind]]
            for kind in KINDS
        }
        for kind in KINDS:
            # Differences of neighbours in time: a slow phase of the machine affects
            # both sides.
            added = [a - b for a, b in zip(epoch[kind], epoch["none"], strict=True)]
            middle = statistics.median(added)
            deviation = statistics.median(abs(value - middle) for value in added)
            lines.append(
                {
                    "arch": options.arch,
                    "measure": name,
                    "rescale": kind,
                    "seconds_per_epoch": round(statistics.median(epoch[kind]), 3),
                    "added_seconds_per_epoch": round(middle, 3),
                    "median_deviation": round(deviation, 3),
                }
            )
            print(
                f"{name:<12}{kind:<9}{lines[-1]['seconds_per_epoch']:10.2f} s an epoch"
                f"{middle:+9.2f} ± {deviation:.2f} s over none"
            )
    if options.out is not None:
        write_csv(options.out / "rescale.csv", lines)
    cost = {
        line["rescale"]: line["added_seconds_per_epoch"]
        for line in lines
        if line["measure"] == "masking"
    }
    if cost["dynamic"] > 0:
        saved = 1 - cost["smart"] / cost["dynamic"]
        print(f"smart adds {100 * saved:.0f} % less than dynamic (in the paper 35 %)")
    return 0 if cost["smart"] <= cost["dynamic"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
