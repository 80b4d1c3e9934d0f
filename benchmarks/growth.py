"""Growth of a training step's time and memory with width, batch and devices.

    python -m benchmarks.growth --out results/growth

Conv4, one factor at a time. The batch is split over the devices, CPU devices of one
core each. Prints the growth of each value beside that of a step's work (its floating
point operations), and writes `growth.csv` and `growth.png`. Exit code: 0; 1 if the
growth of a time is more than twice that of the work.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh
from matplotlib.figure import Figure

from aslp_jax import train
from benchmarks import workload
from benchmarks.tables import write_csv
from benchmarks.timing import where

ARCH = "conv4"
FACTORS = {"width": (1, 2, 4), "batch": (64, 128, 256, 512), "devices": (1, 2)}
START = {"width": 1, "batch": 256, "devices": 1}
"""Values of the factors that do not vary."""

MOST = 2.0
"""Upper bound of the growth of the time over that of the work."""


def measure(
    width: int,
    batch: int,
    devices: int,
    repeats: int,
    arch: str = ARCH,
    side: int = workload.SIDE,
) -> dict[str, float]:
    """Times steps of one setting, in this process, and reads their memory.

    Args:
      width: factor of every layer's width.
      batch: images a step.
      devices: number of devices that the batch is split over.
      repeats: number of counted steps.
      arch: name of the network.
      side: height and width of an image in pixels.

    Returns:
      `seconds` of a step, `floats` (operations of a step), `state_bytes` (frozen
      weights, params and the optimiser's state), `step_bytes` (further memory of a step
      on each device), `weights`.
    """
    mesh = None
    if devices > 1:
        found = np.array(jax.devices()[:devices])
        mesh = Mesh(found, (train.BATCH,), axis_types=(AxisType.Auto,))
    net = workload.network(arch, width=width)
    micro_batch = min(batch, workload.MICRO_BATCH * devices)
    program, create = workload.training(
        net, batch_size=batch, micro_batch=micro_batch, side=side, mesh=mesh
    )
    data = workload.random_images(batch, side)
    state: Any = create()
    state_bytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    weights = sum(leaf.size for leaf in jax.tree.leaves(state.frozen))
    arguments = (state, train.Totals.zeros(), *data, *workload.key_and_bounds(1))
    step_bytes = (
        program.lower(*arguments).compile().memory_analysis().temp_size_in_bytes
    )
    run = workload.side(program, state, *data, steps=1)
    seconds = []
    for repeat in range(repeats + 1):
        began = time.perf_counter()
        run()
        if repeat:  # the first one compiles
            seconds.append(time.perf_counter() - began)
    return {
        "seconds": statistics.median(seconds),
        "floats": batch * workload.flops(net, side),
        "state_bytes": state_bytes,
        "step_bytes": step_bytes,
        "weights": weights,
    }


def in_a_process(setting: Mapping[str, Any], repeats: int) -> dict[str, float]:
    """Measures one setting in a process of its own.

    Args:
      setting: arguments of `measure` by name, without `repeats`.
      repeats: number of counted steps.
    """
    given = [f"--{name}={value}" for name, value in setting.items()]
    command = ["-m", "benchmarks.growth", "--one", f"--repeats={repeats}", *given]
    ended = subprocess.run(
        [sys.executable, *command],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(ended.stdout)


def measure_all(repeats: int) -> list[dict[str, Any]]:
    """Measures every setting, one factor varying at a time; returns a line for each."""
    lines = []
    for factor, values in FACTORS.items():
        for value in values:
            setting = {**START, factor: value}
            found = in_a_process(setting, repeats)
            lines.append({"factor": factor, **setting, **found})
    return lines


def growth(lines: Sequence[Mapping[str, Any]], factor: str) -> list[dict[str, float]]:
    """Divides value, time, work and bytes of a factor's lines by those of the first."""
    own = [line for line in lines if line["factor"] == factor]
    columns = (factor, "seconds", "floats", "state_bytes", "step_bytes")
    return [{name: line[name] / own[0][name] for name in columns} for line in own]


def plot(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots the growth of time, memory and work over each factor."""
    figure = Figure(figsize=(12, 4), dpi=100, layout="constrained")
    kinds = {
        "seconds": ("time", "tab:blue", "o-"),
        "floats": ("work (operations)", "black", "--"),
        "step_bytes": ("memory of a step", "tab:orange", "s-"),
        "state_bytes": ("memory of the state", "tab:green", "^-"),
    }
    for axes, factor in zip(figure.subplots(1, len(FACTORS)), FACTORS, strict=True):
        grown = growth(lines, factor)
        values = [line[factor] for line in lines if line["factor"] == factor]
        for name, (label, colour, style) in kinds.items():
            heights = [each[name] for each in grown]
            axes.plot(values, heights, style, color=colour, label=label, markersize=4)
        axes.set_ylim(0.5, max(2.0, *(each["floats"] for each in grown)) * 1.1)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log", base=2)
        axes.set_xticks(values, [str(value) for value in values])
        axes.yaxis.set_major_formatter(lambda tick, _: f"{tick:g}")
        axes.set_xlabel(factor)
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        if factor == "width":
            axes.set_ylabel("times that of the first")
            axes.legend(frameon=False, fontsize=9)
    figure.savefig(path)


def write(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Writes a CSV file with a line for each setting."""
    rounded = [
        {n: round(v, 5) if n == "seconds" else v for n, v in line.items()}
        for line in lines
    ]
    write_csv(path, rounded)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for growth.csv and growth.png")
    parser.add_argument(
        "--repeats", type=int, default=5, help="counted steps of each setting"
    )
    one = parser.add_argument_group("one setting alone, printed as JSON")
    one.add_argument("--one", action="store_true", help="measure only this setting")
    one.add_argument("--arch", default=ARCH)
    one.add_argument("--side", type=int, default=workload.SIDE, help="of the images")
    for name, value in START.items():
        one.add_argument(f"--{name}", type=int, default=value)
    options = parser.parse_args(arguments)
    jax.config.update("jax_platforms", "cpu")
    if options.one:
        jax.config.update("jax_num_cpu_devices", options.devices)
        setting = {name: getattr(options, name) for name in START}
        size = {"arch": options.arch, "side": options.side}
        print(json.dumps(measure(**setting, **size, repeats=options.repeats)))
        return 0
    print(f"{where()}, {ARCH}")
    lines = measure_all(options.repeats)
    met = True
    for factor in FACTORS:
        own = [line for line in lines if line["factor"] == factor]
        for line, grown in zip(own, growth(lines, factor), strict=True):
            within = grown["seconds"] <= MOST * grown["floats"]
            met &= within
            megabytes = {
                name: line[name] / 1e6 for name in ("step_bytes", "state_bytes")
            }
            print(
                f"{factor} {line[factor]:<4} {line['seconds']:7.3f} s a step "
                f"({grown['seconds']:5.2f} times, work {grown['floats']:5.2f}: "
                f"{'met' if within else 'NOT MET'}), {megabytes['step_bytes']:6.0f} MB "
                f"a step ({grown['step_bytes']:5.2f} times), "
                f"{megabytes['state_bytes']:6.1f} MB of state "
                f"({grown['state_bytes']:5.2f} times)"
            )
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        write(lines, options.out / "growth.csv")
        plot(lines, options.out / "growth.png")
    return 0 if met else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
