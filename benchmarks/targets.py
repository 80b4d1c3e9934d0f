"""Memory and instructions of exported C on microcontrollers, from an emulator.

    python -m benchmarks.targets --out results/targets

Each network is written as C in every storage, compiled for each board, and run in QEMU
(`target_boards.py`). Where a board has too little memory, the row says what the network
needs, and the same code is run on a board with more. Exit code: 0; 1 if a board and the
network differ in a prediction.
"""

import argparse
import csv
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure

from aslp_jax import export
from benchmarks import target_boards
from benchmarks.export_networks import without_masks
from benchmarks.target_boards import BOARDS, Board, Firmware, Outcome
from benchmarks.target_networks import NETWORKS, Target
from benchmarks.target_peer import write_peer

STORAGES = ("seed", "signs", "sparse", "dense")
ACTIVATIONS = ("float32", "int8", "int16")

LARGER = {
    "microbit": (target_boards.M0_STAND_IN,),
    "cortex-m4": (target_boards.EXTERNAL,),
}
"""Boards with more memory that run the code of a board, by its name."""

LONGEST = 5_000_000
"""Largest number of weights in a source; for more a compiler needs gigabytes."""


class Row(NamedTuple):
    """Line of the table; None where nothing was run.

    Flash holds code, constants and initial values; RAM holds static data and the stack.
    """

    network: str
    weights: int
    kept: float
    board: str
    generator: str
    activations: str
    storage: str
    network_flash: int
    firmware_flash: int
    network_ram: int
    firmware_ram: int
    stack: int | None = None
    fits: str = "yes"
    ran_on: str = ""
    images: int = 0
    instructions: int | None = None
    same_predictions: str = ""
    largest_difference: float | None = None


def measured(
    row: Row, target: Target, board: Board, folder: Path, flags: str, **again: bool
) -> Row:
    """Builds the source in a folder for a board, runs it, and fills a row in."""
    firmware = target_boards.build(folder, board, flags, **again)
    row = row._replace(
        board=board.name,
        network_flash=firmware.network.flash,
        firmware_flash=firmware.whole.flash,
        network_ram=firmware.network.ram,
        firmware_ram=firmware.whole.ram,
    )
    for place in (board, *LARGER[board.name]):
        if not firmware.whole.fit(place):
            continue
        running = firmware
        if place is not board:
            running = target_boards.build(folder, place, flags, network_again=False)
        outcome = run_exactly(running, target)
        row = compared(row, outcome, target)._replace(
            ran_on=place.name,
            stack=outcome.stack,
            network_ram=row.network_ram + outcome.network_stack,
            firmware_ram=row.firmware_ram + outcome.stack,
            images=len(target.inputs),
            instructions=round(outcome.instructions.mean()),
        )
        break
    lacks = [
        f"{need:,} bytes of {name}, the board has {has:,}"
        for name, need, has in (
            ("flash", row.firmware_flash, board.flash),
            ("RAM", row.firmware_ram, board.ram),
        )
        if need > has
    ]
    return row._replace(fits="needs " + "; ".join(lacks)) if lacks else row


def run_exactly(firmware: Firmware, target: Target) -> Outcome:
    """Runs a firmware with the finest timer that does not overflow."""
    dtype, scale = target_boards.inputs_of(firmware.folder / "network.h")
    inputs = target.inputs
    if np.issubdtype(dtype, np.integer) and inputs.dtype != dtype:
        limit = np.iinfo(dtype).max
        inputs = np.clip(np.rint(inputs / scale), -limit, limit).astype(dtype)
    first = target_boards.run(firmware, inputs[:1], instruction=0)
    ticks = int(first.instructions[0]) * firmware.board.hertz / 1e9
    finest = max(each for each in range(7) if ticks * 2**each < 2**31)
    return target_boards.run(firmware, inputs, target.labels, instruction=finest)


def compared(row: Row, outcome: Outcome, target: Target) -> Row:
    """Compares the outputs of a board with those of the network."""
    expected = np.asarray(target.network(target.inputs))
    if target.network.description.classes is not None:
        same = outcome.logits.argmax(1) == expected.argmax(1)
        row = row._replace(same_predictions=f"{same.sum()} of {same.size}")
    if outcome.logits.dtype != np.float32:
        return row
    difference = np.abs(outcome.logits - expected).max() / np.ptp(expected)
    return row._replace(largest_difference=float(f"{difference:.1e}"))


def rows_of(
    name: str, target: Target, activations: Sequence[str], flags: str
) -> Iterator[Row]:
    """Yields a row for each storage and board."""
    layers = target.network.layers.values()
    masks = [each.ternary_mask for each in layers if each.ternary_mask is not None]
    weights = sum(each.size for each in masks)
    kept = sum(int(np.count_nonzero(each)) for each in masks) / weights
    for kind in activations:
        for storage in STORAGES:
            row = Row(
                *(name, weights, round(kept, 4), "", "aslp-jax", kind, storage),
                *(0, 0, 0, 0),
            )
            if {"dense": 1, "sparse": kept}.get(storage, 0) * weights > LONGEST:
                print(f"{name}: no C with {storage} weights, too many to compile")
                continue
            options: dict[str, Any] = {"storage": storage}
            if kind != "float32":
                options |= {"activations": kind, "calibration": target.calibration}
            with tempfile.TemporaryDirectory() as text:
                folder = Path(text)
                try:
                    export.write(target.network, "c", folder / "network.c", **options)
                except ValueError as error:
                    print(f"{name}: {kind} {storage}: {error}")
                    continue
                for board in BOARDS.values():
                    yield measured(row, target, board, folder, flags)


def peer_rows(name: str, target: Target, program: str, flags: str) -> Iterator[Row]:
    """Yields rows of a dense network, by the other generator and by this library."""
    dense = target._replace(network=without_masks(target.network))
    weights = sum(
        each.weights.size
        for each in target.network.layers.values()
        if each.mask is not None
    )
    for peer in (True, False):
        with tempfile.TemporaryDirectory() as text:
            folder, generator = Path(text), "aslp-jax"
            if peer:
                generator = write_peer(dense.network, folder, program)
            else:
                path = folder / "network.c"
                export.write(dense.network, "c", path, storage="dense")
            row = Row(
                *(f"{name}, without masks", weights, 1.0, "", generator, "float32"),
                *("dense", 0, 0, 0, 0),
            )
            for board in BOARDS.values():
                yield measured(row, dense, board, folder, flags)


def line(row: Row) -> str:
    """Returns a row as text."""
    text = f"{row.network:<24} {row.board:<10} {row.activations:<8} {row.storage:<7}"
    text += f" {row.generator:<8} network: flash {row.network_flash:>10,}"
    text += f" RAM {row.network_ram:>9,}"
    if row.instructions is not None:
        text += f"  {row.instructions:>14,} instructions"
        text += f"  same {row.same_predictions}" * bool(row.same_predictions)
    return f"{text}  {'' if row.fits == 'yes' else row.fits}".rstrip()


def plot(rows: Sequence[Row], path: Path) -> None:
    """Plots instructions an image over flash, one panel a board."""
    figure = Figure(figsize=(12, 6), dpi=100, layout="constrained")
    marks = {"seed": "o", "signs": "s", "sparse": "D", "dense": "^"}
    names = list(dict.fromkeys(row.network for row in rows))
    for axes, board in zip(
        figure.subplots(1, len(BOARDS), sharey=True), BOARDS.values(), strict=True
    ):
        for row in rows:
            if row.board != board.name or row.instructions is None:
                continue
            colour = f"C{names.index(row.network)}"
            axes.plot(
                row.network_flash / 1000,
                row.instructions / 1e6,
                "x" if row.generator != "aslp-jax" else marks[row.storage],
                color=colour,
                markersize=7,
                # Filled: integers.
                fillstyle="none" if row.activations == "float32" else "full",
            )
        axes.axvline(board.flash / 1000, color="black", linewidth=0.8, linestyle=":")
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.set_title(f"{board.name} (dotted: its flash)", fontsize=10)
        axes.set_xlabel("flash of the network (kB)")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("instructions an image (millions)")
    legend = [
        axes.plot([], [], "o", color=f"C{index}", label=name)[0]
        for index, name in enumerate(names)
    ]
    legend += [
        axes.plot([], [], mark, color="black", fillstyle="none", label=storage)[0]
        for storage, mark in marks.items()
    ]
    legend += axes.plot([], [], "o", color="black", label="filled: integers")
    if any(row.generator != "aslp-jax" for row in rows):
        legend += axes.plot([], [], "x", color="black", label="other generator, dense")
    figure.legend(handles=legend, loc="outside right center", frameon=False, fontsize=9)
    figure.savefig(path)


def write(rows: Sequence[Row], folder: Path) -> None:
    """Writes `targets.csv` and `targets.png`."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "targets.csv").open("w", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(Row._fields)
        writer.writerows(rows)
    plot(rows, folder / "targets.png")


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for the table and its picture")
    parser.add_argument("--networks", nargs="*", default=tuple(NETWORKS))
    parser.add_argument(
        "--activations", nargs="*", default=ACTIVATIONS, choices=ACTIVATIONS
    )
    parser.add_argument("--flags", default="-O2", help="of the compiler")
    parser.add_argument(
        "--peer", metavar="PROGRAM", help="emx-onnx-cgen, in an environment of its own"
    )
    options = parser.parse_args(arguments)
    tools = ("arm-none-eabi-gcc", "qemu-system-arm", "make")
    if missing := target_boards.missing_tools(*tools):
        print(f"targets: {missing}", file=sys.stderr)
        return 2
    rows: list[Row] = []

    def add(found: Iterator[Row]) -> None:
        for row in found:
            rows.append(row)
            print(line(row), flush=True)
            if options.out is not None:
                write(rows, options.out)

    for name in options.networks:
        target = NETWORKS[name]()
        add(rows_of(name, target, options.activations, options.flags))
        if options.peer and target.labels is not None:
            add(peer_rows(name, target, options.peer, options.flags))
    return judge(rows)


def judge(rows: Sequence[Row]) -> int:
    """Prints the rows whose predictions differ and returns the exit code."""
    other = [
        row
        for row in rows
        if row.activations == "float32"
        and len(set(row.same_predictions.split(" of "))) > 1
    ]
    for row in other:
        print(f"predictions differ from the network's: {line(row)}")
    return int(bool(other))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
