"""ASLP's sampler compared with naive Gumbel-Softmax and Bernoulli straight-through.

    python -m benchmarks.samplers --out results/samplers

Prints and writes: time and memory of sample and gradient (`cost.csv`); how often each
sampler keeps a weight, and how often its gradient is not finite, by dtype and logit
(`stability.csv`, `stability.png`); the expected gradient by logit, sampled and in
closed form (`gradients.csv`, `gradients.png`). The file is long because each of the
three has a table and a plot. Exit code: 0; 1 if ASLP's sampler does not cost less, or
gives a gradient that is not finite.
"""

import argparse
import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from matplotlib.figure import Figure

from aslp_jax.sampling import bernoulli_st, naive_gumbel_softmax, stgs
from benchmarks.tables import write_csv
from benchmarks.timing import interleave, where

Sampler = Callable[[jax.Array, jax.Array], jax.Array]

SAMPLERS: dict[str, Sampler] = {
    "aslp": stgs,
    "naive": naive_gumbel_softmax,
    "bernoulli": bernoulli_st,
}
LABELS = {
    "aslp": "ASLP (stgs)",
    "naive": "naive Gumbel-Softmax",
    "bernoulli": "Bernoulli straight-through",
}
COLOURS = {"aslp": "tab:blue", "naive": "tab:red", "bernoulli": "tab:orange"}
DTYPES = ("float32", "bfloat16", "float16")


def sigmoid_slope(logits: np.ndarray) -> np.ndarray:
    """Returns sigmoid'(logit), the gradient of Bernoulli straight-through."""
    decay = np.exp(-np.abs(logits))
    return decay / (1 + decay) ** 2


def expected_slope(logits: np.ndarray) -> np.ndarray:
    """Returns the mean gradient of `stgs` at temperature 1, in closed form.

    The gradient is E[sigmoid'(logit + L)] with L standard logistic.

    The integral of sigmoid'(m + l) sigmoid'(l) over l is the density of a sum of two
    logistic variables, with a = |m|: e^-a ((a - 2) + (a + 2) e^-a) / (1 - e^-a)^3.
    """
    size = np.abs(np.asarray(logits, np.float64))
    decay = np.exp(-size)
    with np.errstate(invalid="ignore", divide="ignore"):
        exact = decay * ((size - 2) + (size + 2) * decay) / (1 - decay) ** 3
    # Near 0 the difference cancels; its series is 1/6 - m^2/60.
    return np.where(size < 1e-2, 1 / 6 - size**2 / 60, exact)


@functools.cache
def program(sampler: Sampler) -> Any:
    """Returns a compiled function of a sample and its gradient."""

    @jax.jit
    def run(key: jax.Array, logits: jax.Array) -> tuple[jax.Array, jax.Array]:
        masks, pull = jax.vjp(lambda logits: sampler(key, logits), logits)
        return masks, pull(jnp.ones_like(masks))[0]

    return run


def measure_cost(size: int, repeats: int) -> list[dict[str, Any]]:
    """Times sample and gradient of `size` float32 logits, the samplers alternately."""
    logits = jax.random.normal(jax.random.key(0), (size,))
    programs = {
        name: program(sampler).lower(jax.random.key(0), logits).compile()
        for name, sampler in SAMPLERS.items()
    }
    key = jax.random.key(1)
    seconds = interleave(
        {name: functools.partial(run, key, logits) for name, run in programs.items()},
        repeats,
    )
    return [
        {
            "sampler": name,
            "logits": size,
            "milliseconds": round(1e3 * seconds[name], 2),
            "temporary_bytes_per_logit": round(
                run.memory_analysis().temp_size_in_bytes / size, 2
            ),
        }
        for name, run in programs.items()
    ]


def measure_stability(samples: int) -> list[dict[str, Any]]:
    """Counts kept weights and gradients that are not finite, by dtype and logit."""
    lines = []
    for dtype in DTYPES:
        for logit in (-30, -20, -16, -12, -8, -4, -2, 0, 2, 4, 8, 12, 16, 20, 30):
            logits = jnp.full((samples,), logit, dtype)
            # The frequency of the rarer outcome shows the effect of a rounded tail.
            rare = 1 / (1 + np.exp(abs(logit)))
            for name, sampler in SAMPLERS.items():
                masks, slopes = program(sampler)(jax.random.key(logit + 99), logits)
                masks, slopes = (np.asarray(x, np.float64) for x in (masks, slopes))
                kept = np.nanmean(masks) if np.isfinite(masks).any() else np.nan
                frequency = 1 - kept if logit > 0 else kept
                lines.append(
                    {
                        "dtype": dtype,
                        "logit": logit,
                        "sampler": name,
                        "rare_share": frequency,
                        "exact": rare,
                        "sigmas": (frequency - rare)
                        / np.sqrt(rare * (1 - rare) / samples),
                        "samples_not_finite": np.mean(~np.isfinite(masks)),
                        "gradients_not_finite": np.mean(~np.isfinite(slopes)),
                    }
                )
    return lines


def measure_gradients(samples: int) -> list[dict[str, Any]]:
    """Returns mean gradients by logit, sampled and in closed form."""
    run, lines = program(stgs), []
    for logit in np.arange(-8.0, 8.25, 0.5):
        slopes = np.asarray(
            run(jax.random.key(7), jnp.full((samples,), logit, jnp.float32))[1],
            np.float64,
        )
        stgs_slope, sigmoid = (
            float(f(np.array(logit))) for f in (expected_slope, sigmoid_slope)
        )
        lines.append(
            {
                "logit": logit,
                "stgs_closed_form": stgs_slope,
                "stgs_drawn": slopes.mean(),
                "standard_error": slopes.std() / np.sqrt(samples),
                "bernoulli": sigmoid,
                "ratio": stgs_slope / sigmoid,
            }
        )
    return lines


def plot_gradients(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots the expected gradients by logit, and their ratio."""
    figure = Figure(figsize=(11, 4), dpi=100, layout="constrained")
    left, right = figure.subplots(1, 2)
    logits = np.linspace(-8, 8, 400)
    sampled = [line["logit"] for line in lines]
    left.plot(
        logits, expected_slope(logits), color=COLOURS["aslp"], label=LABELS["aslp"]
    )
    left.plot(
        sampled,
        [line["stgs_drawn"] for line in lines],
        ".",
        color="black",
        label="ASLP, sampled",
    )
    left.plot(
        logits,
        sigmoid_slope(logits),
        color=COLOURS["bernoulli"],
        label=LABELS["bernoulli"],
    )
    left.set_yscale("log")
    left.set_ylabel("expected gradient of the mask")
    left.legend(frameon=False, fontsize=9)
    right.plot(logits, expected_slope(logits) / sigmoid_slope(logits), color="black")
    for logit in (0, 4, 6):
        ratio = float(expected_slope(np.array(logit)) / sigmoid_slope(np.array(logit)))
        right.plot(logit, ratio, "o", color="black")
        right.annotate(
            f"{ratio:.2f} times",
            (logit, ratio),
            xytext=(-8, 6),
            textcoords="offset points",
            ha="right",
        )
    right.axhline(1, color="grey", linewidth=0.8)
    right.set_ylabel("ASLP's over the Bernoulli's")
    _finish(figure, (left, right), path)


def plot_stability(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Plots frequencies of the rarer outcome, and gradients that are not finite."""
    figure = Figure(figsize=(13, 6.5), dpi=100, layout="constrained")
    panels = figure.subplots(2, len(DTYPES), sharex=True, sharey="row")
    for column, dtype in enumerate(DTYPES):
        for name in ("naive", "bernoulli", "aslp"):
            own = [
                line
                for line in lines
                if (line["dtype"], line["sampler"]) == (dtype, name)
            ]
            # Beyond, fewer than a hundred rare samples are expected.
            seen = [line for line in own if abs(line["logit"]) <= 8]
            style = {"color": COLOURS[name], "label": LABELS[name], "marker": "."}
            panels[0, column].plot(
                [line["logit"] for line in seen],
                [line["rare_share"] / line["exact"] for line in seen],
                **style,
            )
            panels[1, column].plot(
                [line["logit"] for line in own],
                [100 * line["gradients_not_finite"] for line in own],
                **style,
            )
        panels[0, column].set_title(dtype)
    panels[0, 0].set_ylabel("frequency of the rarer outcome,\nsampled over exact")
    panels[1, 0].set_ylabel("gradients not finite (%)")
    panels[1, 0].legend(frameon=False, fontsize=9)
    _finish(figure, panels.ravel(), path)


def _finish(figure: Figure, panels: Any, path: Path) -> None:
    for axes in panels:
        axes.set_xlabel("logit")
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path)


def _write(lines: Sequence[Mapping[str, Any]], path: Path) -> None:
    shown = [
        {
            name: f"{value:.6g}" if isinstance(value, float) else value
            for name, value in line.items()
        }
        for line in lines
    ]
    write_csv(path, shown)


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, help="folder for CSV and PNG files")
    parser.add_argument(
        "--logits", type=int, default=4_300_992, help="logits to time (of Conv2)"
    )
    parser.add_argument(
        "--draws", type=int, default=2**20, help="samples for each frequency"
    )
    parser.add_argument("--repeats", type=int, default=15)
    options = parser.parse_args(arguments)

    cost = measure_cost(options.logits, options.repeats)
    stability = measure_stability(options.draws)
    gradients = measure_gradients(options.draws)
    print(where())
    by_name = {line["sampler"]: line for line in cost}
    for line in cost:
        print(
            f"{LABELS[line['sampler']]:<28}{line['milliseconds']:8.1f} ms"
            f"{line['temporary_bytes_per_logit']:8.1f} temporary bytes a logit"
        )
    ratio = by_name["naive"]["milliseconds"] / by_name["aslp"]["milliseconds"]
    print(f"naive over ASLP: {ratio:.2f} times the time")
    for dtype in DTYPES:
        for name in SAMPLERS:
            broken = [
                line["logit"]
                for line in stability
                if (line["dtype"], line["sampler"]) == (dtype, name)
                and line["gradients_not_finite"] > 0
            ]
            state = f"not finite at logits {broken}" if broken else "finite everywhere"
            print(f"{dtype:<10}{LABELS[name]:<28}gradients {state}")
    worst = max(
        abs(line["stgs_drawn"] - line["stgs_closed_form"]) / line["standard_error"]
        for line in gradients
    )
    print(f"expected gradient, sampled against closed form: {worst:.1f} sigmas at most")
    if options.out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        _write(cost, options.out / "cost.csv")
        _write(stability, options.out / "stability.csv")
        _write(gradients, options.out / "gradients.csv")
        plot_gradients(gradients, options.out / "gradients.png")
        plot_stability(stability, options.out / "stability.png")
    finite = all(
        line["gradients_not_finite"] == 0
        for line in stability
        if line["sampler"] == "aslp"
    )
    return 0 if ratio > 1 and finite else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
