"""What smart and dynamic rescale add to an epoch, over no rescale (section 3.3).

    python benchmarks/rescale.py --arch conv4 --out results/rescale

Two measures of the same: the part of a training step that depends on the rescale (draw
the masks, make the effective weights, pull a gradient back, update what is learnt),
which is precise, and whole training steps, which are what one waits for. The three
kinds take turns. Exit code: 0; 1 if smart rescale adds more than dynamic.
"""

import argparse
import csv
import functools
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax

from aslp_jax import ASLP, Masked, augment, initialisers, networks, train
from aslp_jax.convolution import conv_in_loop
from aslp_jax.methods.drawn import Rescale
from aslp_jax.optim import sgd_by_group

KINDS: tuple[Rescale, ...] = ("none", "smart", "dynamic")
IMAGES, BATCH = 45_000, 256
STEPS = IMAGES // BATCH
"""Of an epoch of CIFAR-10 less its validation images."""

Program = Callable[[int], Any]


def setup(arch: str, kind: Rescale) -> tuple[Masked, Any, train.TrainState]:
    """A masked network, its optimiser and its state, as the paper trains it."""
    constant = initialisers.signed_constant(initialisers.kaiming_normal())
    on_cpu = jax.default_backend() == "cpu"
    net = networks.NETWORKS[arch](
        classes=10,
        conv_init=constant,
        dense_init=constant,
        conv_general_dilated=conv_in_loop if on_cpu else None,
    )
    model = Masked(net, ASLP(rescale=kind))
    optimiser = sgd_by_group({"logits": 50.0, "scale": 1e-3})
    inputs = jnp.zeros((1, 32, 32, 3))
    return model, optimiser, train.create(model, optimiser, jax.random.key(0), inputs)


def masking(arch: str, kind: Rescale, calls: int) -> Program:
    """Masks, effective weights, pull-back and update, `calls` times as one program."""
    model, optimiser, state = setup(arch, kind)
    frozen = state.frozen
    given = jax.tree.map(lambda leaf: 1e-6 * jnp.sign(leaf), frozen)

    @jax.jit
    def run(key: jax.Array) -> Any:
        def once(index: jax.Array, carry: Any) -> Any:
            params, opt_state = carry
            draw = functools.partial(
                model.method.realise, frozen, key=jax.random.fold_in(key, index)
            )
            weights, pull = jax.vjp(draw, params)
            # Of the weights too, so that none of them is optimised away.
            gradient = pull(jax.tree.map(lambda g, w: g + 1e-9 * w, given, weights))[0]
            updates, opt_state = optimiser.update(gradient, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

        return jax.lax.fori_loop(0, calls, once, (state.params, state.opt_state))

    return lambda repeat: run(jax.random.key(repeat))


def training(arch: str, kind: Rescale, calls: int) -> Program:
    """`calls` whole training steps on random images, augmentation on."""
    model, optimiser, state = setup(arch, kind)
    images = jax.random.bits(jax.random.key(1), (2048, 32, 32, 3), jnp.uint8)
    labels = jax.random.randint(jax.random.key(2), (2048,), 0, 10)
    on_cpu = jax.default_backend() == "cpu"

    def prepare(key: jax.Array, images: jax.Array) -> jax.Array:
        return augment.to_float(augment.crop_and_flip(key, images))

    run = jax.jit(
        functools.partial(
            train.steps,
            batch_size=BATCH,
            prepare=prepare,
            model=model,
            optimiser=optimiser,
            micro_batch=64 if on_cpu else None,
        )
    )

    def program(repeat: int) -> Any:
        bounds = (jnp.asarray(number, jnp.int32) for number in (repeat, 0, calls))
        return run(
            state, train.Totals.zeros(), images, labels, jax.random.key(3), *bounds
        )

    return program


def measure(programs: Mapping[str, Program], repeats: int) -> dict[str, list[float]]:
    """Seconds of each call, the programs taking turns, without the first round."""
    seconds: dict[str, list[float]] = {kind: [] for kind in programs}
    for repeat in range(repeats + 1):
        for kind, program in programs.items():
            began = time.perf_counter()
            jax.block_until_ready(program(repeat))
            if repeat:
                seconds[kind].append(time.perf_counter() - began)
    return seconds


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arch", choices=tuple(networks.NETWORKS), default="conv4")
    parser.add_argument("--out", type=Path, help="folder for rescale.csv")
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--steps", type=int, default=2, help="whole steps a repeat")
    options = parser.parse_args(arguments)

    measures = {
        "masking": (masking, 10, options.repeats),
        "whole step": (training, options.steps, options.repeats),
    }
    device = jax.devices()[0].device_kind
    print(
        f"{options.arch}, {device}, Python {platform.python_version()}, "
        f"jax {jax.__version__}; an epoch is {STEPS} steps of {BATCH} images"
    )
    lines: list[dict[str, Any]] = []
    for name, (make, calls, repeats) in measures.items():
        seconds = measure(
            {kind: make(options.arch, kind, calls) for kind in KINDS}, repeats
        )
        epoch = {
            kind: [second * STEPS / calls for second in seconds[kind]] for kind in KINDS
        }
        for kind in KINDS:
            # Neighbours in time are compared, so that a machine that slows down
            # changes both sides.
            added = [a - b for a, b in zip(epoch[kind], epoch["none"], strict=True)]
            middle = statistics.median(added)
            spread = statistics.median(abs(value - middle) for value in added)
            lines.append(
                {
                    "arch": options.arch,
                    "measure": name,
                    "rescale": kind,
                    "seconds_per_epoch": round(statistics.median(epoch[kind]), 3),
                    "added_seconds_per_epoch": round(middle, 3),
                    "median_deviation": round(spread, 3),
                }
            )
            print(
                f"{name:<12}{kind:<9}{lines[-1]['seconds_per_epoch']:10.2f} s an epoch"
                f"{middle:+9.2f} ± {spread:.2f} s over none"
            )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        with (options.out / "rescale.csv").open("w", newline="") as file:
            writer = csv.DictWriter(file, list(lines[0]), lineterminator="\n")
            writer.writeheader()
            writer.writerows(lines)
    cost = {
        line["rescale"]: line["added_seconds_per_epoch"]
        for line in lines
        if line["measure"] == "masking"
    }
    if cost["dynamic"] > 0:
        share = 1 - cost["smart"] / cost["dynamic"]
        print(f"smart adds {100 * share:.0f} % less than dynamic (in the paper 35 %)")
    return 0 if cost["smart"] <= cost["dynamic"] else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
