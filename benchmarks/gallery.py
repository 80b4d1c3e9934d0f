"""Pictures of docs/gallery.md, from results that are part of the repository.

    python -m benchmarks.gallery --out docs/gallery

The same results give the same bytes (with the same versions of matplotlib and Pillow).
Each picture names the sha256 of its results, so that a test sees one that is out of
date. Backgrounds are white, which can be read on a dark page too. The file is long
because each picture has a function of its own.
"""

import argparse
import hashlib
import io
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from benchmarks.samplers import COLOURS, DTYPES
from benchmarks.tables import read_csv

RESULTS = Path(__file__).parents[1] / "results"

INPUTS = "Inputs"
"""Name of the text in a PNG that holds the sha256 of its results."""

WAYS = {
    "magnitude": "magnitude",
    "magnitude-finetune": "magnitude, fine-tuned (twice the epochs)",
    "budget": "budget-aware, trained weights",
    "signed": "signed: random weights, 2 bits each kept",
    "aslp": "ASLP: random weights, 1 bit each",
}
"""Label of each method of `results/budget-digits`."""

TRAINED = {
    "Conv2, digits, 50 %": "conv2-digits",
    "Conv2, CIFAR-10, 50 %": "conv2-cifar10-keep50",
    "Conv4, CIFAR-10, 10 %": "conv4-cifar10-keep10",
}
"""Networks of `results/targets` by name, to the name in `results/integers`."""

MARKS = {"seed": "o", "signs": "s", "sparse": "D", "dense": "^"}
MICROBIT_FLASH = 256 * 1024


def accuracy_and_kept(budget: Path) -> Figure:
    """Plots test accuracy against kept weights, mean and deviation of five seeds."""
    figure = Figure(figsize=(8.5, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    cells = read_csv(budget)
    kept = sorted({float(cell["keep"]) for cell in cells})
    for (method, label), mark in zip(WAYS.items(), "v^Dso", strict=True):
        own = sorted(
            (float(cell["kept_percent"]), float(cell["mean"]), float(cell["std"]))
            for cell in cells
            if (cell["method"], cell["scope"]) == (method, "global")
        )
        percent, mean, deviation = np.transpose(own)
        axes.errorbar(
            percent,
            100 - mean,
            yerr=deviation,
            marker=mark,
            markersize=5,
            capsize=2,
            label=label,
        )
    # The logarithm of the error tells 97 from 98 %.
    axes.set(xscale="log", yscale="log", ylim=(80, 0.7))
    axes.set_xticks([100 * each for each in kept], [f"{100 * each:g}" for each in kept])
    errors = (50, 20, 10, 5, 3, 2, 1)
    axes.set_yticks(errors, [f"{100 - each}" for each in errors])
    axes.minorticks_off()
    axes.invert_xaxis()
    axes.set_xlabel("kept weights (%)")
    axes.set_ylabel("test accuracy (%)")
    axes.set_title("Conv4 on digits, mean and standard deviation of 5 seeds")
    axes.legend(frameon=False, loc="lower left")
    return _finished(figure)


def accuracy_and_flash(targets: Path, integers: Path) -> Figure:
    """Plots test accuracy against flash on a Cortex-M0, a point for each export."""
    figure = Figure(figsize=(8.5, 4.5), dpi=100, layout="constrained")
    axes = figure.subplots()
    scored = {}
    for row in read_csv(integers):
        scored[row["network"], "float32"] = 100 * float(row["float_accuracy"])
        if row["rule"] in ("mse", "max"):  # the default rules
            scored.setdefault(
                (row["network"], row["activations"]), 100 * float(row["accuracy"])
            )
    measured = [row for row in read_csv(targets) if row["board"] == "microbit"]
    for index, (name, short) in enumerate(TRAINED.items()):
        for row in measured:
            if row["network"] == name and row["activations"] in ("float32", "int8"):
                axes.plot(
                    int(row["network_flash"]) / 1000,
                    scored[short, row["activations"]],
                    MARKS[row["storage"]],
                    color=f"C{index}",
                    markersize=8,
                    fillstyle="full" if row["activations"] == "int8" else "none",
                )
        axes.annotate(
            f"{name} kept:\n{scored[short, 'float32']:.1f} % right",
            (22, scored[short, "float32"]),
            xytext=(0, -38),
            textcoords="offset points",
            color=f"C{index}",
        )
    (other,) = (row for row in measured if row["generator"] != "aslp-jax")
    axes.axvline(
        int(other["network_flash"]) / 1000, color="grey", linestyle="--", linewidth=1
    )
    axes.annotate(
        f"dense Conv2 for digits\nby {other['generator']}",
        (int(other["network_flash"]) / 1000, 75),
        xytext=(5, 0),
        textcoords="offset points",
        fontsize=9,
    )
    axes.axvline(MICROBIT_FLASH / 1000, color="black", linestyle=":", linewidth=1)
    axes.annotate(
        "flash of a\nmicro:bit",
        (MICROBIT_FLASH / 1000, 75),
        xytext=(5, 0),
        textcoords="offset points",
        fontsize=9,
    )
    for storage, mark in MARKS.items():
        axes.plot([], [], mark, color="black", fillstyle="none", label=storage)
    axes.plot([], [], "o", color="black", label="filled: int8")
    axes.set_xscale("log")
    axes.set_xlim(20, 40_000)
    axes.set_ylim(25, 105)
    axes.set_xlabel("flash of the network on a Cortex-M0 (kB)")
    axes.set_ylabel("test accuracy (%)")
    axes.legend(frameon=False, loc="upper right", ncols=1)
    return _finished(figure)


def sampler(cost: Path, pytorch: Path, stability: Path) -> Figure:
    """Plots the time of masks and gradient, and gradients that are not finite."""
    figure = Figure(figsize=(10, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    jax = {row["sampler"]: float(row["milliseconds"]) for row in read_csv(cost)}
    other = {row["sampler"]: float(row["milliseconds"]) for row in read_csv(pytorch)}
    bars = [
        ("stgs", other["aslp"], COLOURS["aslp"]),
        ("F.gumbel_softmax\n(PyTorch)", other["pytorch"], "tab:purple"),
        ("stgs", jax["aslp"], COLOURS["aslp"]),
        ("the same formula\nin JAX", jax["naive"], COLOURS["naive"]),
    ]
    places = [3.2, 2.2, 1.0, 0.0]
    for place, (_, milliseconds, colour) in zip(places, bars, strict=True):
        found = left.barh(place, milliseconds, 0.7, color=colour)
        left.bar_label(found, fmt="%.0f ms", padding=3)
    left.set_yticks(places, [name for name, _, _ in bars])
    left.set_xlim(0, 430)
    left.set_xlabel("masks of 4.3 M weights and their gradient (ms)")
    lines = read_csv(stability)
    for name, label in (("naive", "the formula"), ("aslp", "stgs")):
        for dtype, style in zip(DTYPES, ("-o", "--s", ":^"), strict=True):
            own = [row for row in lines if row["dtype"] == dtype]
            chosen = [row for row in own if row["sampler"] == name]
            right.plot(
                [float(row["logit"]) for row in chosen],
                [100 * float(row["gradients_not_finite"]) for row in chosen],
                style,
                color=COLOURS[name],
                markersize=4,
                label=f"{label}, {dtype}",
            )
    right.set_xlabel("logit")
    right.set_ylabel("gradients that are not finite (%)")
    right.set_ylim(-4, 150)
    right.set_yticks(range(0, 101, 20))
    right.legend(frameon=False, fontsize=9, loc="upper center", ncols=2)
    return _finished(figure)


def first_layer(history: Path) -> list[Image.Image]:
    """Returns the frames of an animation: the first layer's masks while it learns."""
    with np.load(history, allow_pickle=False) as file:
        steps, accuracies, keep = file["step"], file["accuracy"], file["keep"]
    figure = Figure(figsize=(8, 4), dpi=80, layout="constrained")
    above, below = figure.subplots(2, 1, height_ratios=[2.2, 1])
    above.axis("off")
    picture = above.imshow(
        _tiles(keep[0]), cmap="Blues", vmin=-40, vmax=255, interpolation="nearest"
    )
    below.plot(steps, 100 * accuracies, color="tab:blue")
    (point,) = below.plot([], [], "o", color="black")
    below.set_xlabel("steps of training")
    below.set_ylabel("test\naccuracy (%)")
    below.set_ylim(0, 104)
    below.grid(alpha=0.25)
    frames: list[Image.Image] = []
    for step, accuracy, probabilities in zip(steps, accuracies, keep, strict=True):
        changed = np.mean((probabilities > 127) != (keep[0] > 127))
        picture.set_data(_tiles(probabilities))
        above.set_title(
            f"step {step}: {np.mean(probabilities > 127):.0%} kept, "
            f"{changed:.0%} changed since the start",
            fontsize=11,
        )
        point.set_data([step], [100 * accuracy])
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png")
        frame = Image.open(buffer).convert("RGB")
        frames.append(
            frame.quantize(palette=frames[0], dither=Image.Dither.NONE)
            if frames
            else frame.quantize(64, dither=Image.Dither.NONE)
        )
    return frames


def _tiles(probabilities: np.ndarray) -> np.ma.MaskedArray:
    """Returns the filters of a layer side by side, sixteen in a row."""
    height, width, inputs, units = probabilities.shape
    filters = probabilities.transpose(2, 3, 0, 1).reshape(-1, height, width)
    lines = inputs * units // 16
    tiles = np.full((lines, height + 1, 16, width + 1), -1, np.int16)
    tiles[:, :height, :, :width] = filters.reshape(lines, 16, height, width).transpose(
        0, 2, 1, 3
    )
    whole = tiles.reshape(lines * (height + 1), 16 * (width + 1))[:-1, :-1]
    return np.ma.masked_less(whole, 0)


def _finished(figure: Figure) -> Figure:
    for axes in figure.axes:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


PICTURES: Mapping[str, tuple[Callable[..., Any], tuple[str, ...]]] = {
    "accuracy_and_kept.png": (accuracy_and_kept, ("budget-digits/budget.csv",)),
    "accuracy_and_flash.png": (
        accuracy_and_flash,
        ("targets/targets.csv", "integers/accuracy.csv"),
    ),
    "sampler.png": (
        sampler,
        ("samplers/cost.csv", "samplers/pytorch.csv", "samplers/stability.csv"),
    ),
    "first_layer.gif": (first_layer, ("first-layer/first_layer.npz",)),
}
"""Function of each picture, and the results that it takes."""


def digest(names: Sequence[str]) -> str:
    """Returns the sha256 of results, one after the other."""
    contents = b"".join((RESULTS / name).read_bytes() for name in names)
    return hashlib.sha256(contents).hexdigest()


def make(name: str, folder: Path) -> None:
    """Makes a picture.

    Args:
      name: one of `PICTURES`.
      folder: folder to write the picture to.
    """
    function, names = PICTURES[name]
    made = function(*(RESULTS / each for each in names))
    folder.mkdir(parents=True, exist_ok=True)
    if isinstance(made, Figure):
        text = {INPUTS: digest(names), "Software": None}
        made.savefig(folder / name, metadata=text)
        return
    made[0].save(
        folder / name,
        save_all=True,
        append_images=made[1:],
        duration=[*(100 for _ in made[1:]), 3000],
        loop=2,  # and once before
        comment=digest(names).encode(),
    )


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the pictures"
    )
    options = parser.parse_args(arguments)
    for name in PICTURES:
        make(name, options.out)
        size = (options.out / name).stat().st_size
        print(f"{options.out / name}: {size:,} bytes")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
