"""Edge-popup beside ASLP on digits: which choice makes the difference between them.

    python -m benchmarks.edge_popup_gap --out results/edge-popup-gap

Conv2 and Conv4 by the preset `fast`, signed constants and each method's own rescale,
with and without augmentation, four mask learning rates for each method, five seeds.
Each run is tested at four places: after the epoch that validation chose and after the
last, with the method's own masks and with exactly half of each layer kept. `gap.csv`
changes one choice at a time. Writes `runs.csv`, `gap.csv` and `gap.md`. Runs that
`runs.csv` holds are kept, so a stopped command goes on if it is given again with the
same options.
"""

import argparse
import itertools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp

from aslp_jax import methods, train
from aslp_jax._atomic import write_text
from aslp_jax.data import datasets
from aslp_jax.sweeps.report import markdown_table
from aslp_jax.sweeps.statistics import Differences, verdict
from aslp_jax.trainer.presets import resolve
from aslp_jax.trainer.run_state import Run
from benchmarks.tables import read_csv, write_csv
from benchmarks.timing import where

RATES = {"aslp": (0.1, 0.2, 0.5, 1.0), "edge_popup": (0.0003, 0.001, 0.003, 0.01)}
"""Mask learning rates, by method."""

LESS_NOISE = "aslp_less_noise"
"""ASLP with logits and a temperature that make fewer masks random."""

PRESET = {"aslp": 0.5, "edge_popup": 0.001, LESS_NOISE: 1.0}
"""Rates of the preset, by method, and the one of `LESS_NOISE`."""

OPTIONS: dict[str, dict[str, Any]] = {
    "aslp": {"method": "aslp", "rescale": "smart"},
    "edge_popup": {"method": "edge_popup", "rescale": "fan"},
    LESS_NOISE: {
        "method": "aslp",
        "rescale": "smart",
        # Found on CIFAR-10, with its rate; see results/README.md, search-cifar10-jpeg.
        "logit_std": 50.0,
        "temperature": 50.0,
    },
}
"""Options by method: its rescale of column WR, and others."""

OTHER_SCALE = 2**0.5
"""Scale of edge-popup with half of the weights kept, as the first scale of ASLP."""

MEASURES = ("selected", "last", "selected_half", "last_half")
"""Columns of test accuracy in %: of which epoch, and whether half is kept exactly."""

Line = Mapping[str, Any]


def train_once(
    arch: str,
    method: str,
    augment: bool,
    rate: float,
    scale: float | None,
    seed: int,
    *,
    epochs: int,
) -> dict[str, float]:
    """Trains one network and tests it at the four places.

    Args:
      arch: name of the network.
      method: key of `OPTIONS`.
      augment: True to crop training images.
      rate: learning rate of logits or scores.
      scale: initial scale of ASLP; None for that of the preset.
      seed: seed of the run.
      epochs: epochs to train.

    Returns:
      Best validation accuracy and the four test accuracies, in %.
    """
    chosen: dict[str, Any] = {
        "dataset": "digits",
        "arch": arch,
        **OPTIONS[method],
        "augment": augment,
        "signed_constant": "all",
        "mask_lr": rate,
        "seed": seed,
        "epochs": epochs,
    }
    if scale is not None:
        chosen["scale_init"] = scale
    run = Run(resolve("fast", chosen), datasets.load("digits"))
    while run.stopped is None:
        seconds = run.take_steps(run.steps)
        lost = run.account(run.steps, seconds) or run.finish_epoch(0.0)
        if not hasattr(lost, "validation_accuracy"):
            raise RuntimeError(str(lost))
    result = {"validation": 100 * run.position.best_accuracy}
    states = {"selected": run.state.replace(**run.best), "last": run.state}
    for name, state in states.items():
        result[name] = _test(run, state)
        result[f"{name}_half"] = _test(run, keep_half(state))
    return result


def keep_half(state: train.TrainState) -> train.TrainState:
    """Returns a state of ASLP that keeps exactly half of each layer, if thresholded.

    Args:
      state: train state; one of edge-popup is returned as it is.
    """
    if "logits" not in state.params:
        return state
    logits = state.params["logits"]
    scores = jax.tree.map(lambda each: each - each.min(), logits)
    masks = methods.EdgePopup().masks(state.frozen, {"scores": scores})
    signs = jax.tree.unflatten(
        jax.tree.structure(logits),
        [jnp.where(mask, 1, -1).astype(jnp.float32) for mask in masks.values()],
    )
    return state.replace(params={**state.params, "logits": signs})


def _test(run: Run, state: train.TrainState) -> float:
    variables = run.place_scored(state.variables)
    scores = run.images.evaluate(run.programs, variables, run.test_key, 1)
    return 100 * scores.thresholding


def settings(seeds: int) -> Iterator[dict[str, Any]]:
    """Yields the settings of all runs, those that decide most first.

    Args:
      seeds: number of seeds.
    """
    rates = [
        (method, rate, None)
        for pair in zip(*(RATES[method] for method in RATES), strict=True)
        for method, rate in zip(RATES, pair, strict=True)
    ]
    rates.sort(key=lambda each: each[1] != PRESET[each[0]])
    for (method, rate, scale), augment, arch, seed in itertools.product(
        [
            *rates,
            ("aslp", PRESET["aslp"], OTHER_SCALE),
            (LESS_NOISE, PRESET[LESS_NOISE], None),
        ],
        (True, False),
        ("conv2", "conv4"),
        range(seeds),
    ):
        yield {
            "arch": arch,
            "method": method,
            "augment": augment,
            "rate": rate,
            "scale": scale,
            "seed": seed,
        }


def read_runs(path: Path) -> list[dict[str, Any]]:
    """Returns the runs that an earlier command wrote, none if there is no file.

    Args:
      path: CSV file.
    """
    if not path.exists():
        return []
    return [
        {
            **line,
            "augment": line["augment"] == "True",
            "rate": float(line["rate"]),
            "scale": float(line["scale"]) if line["scale"] else None,
            "seed": int(line["seed"]),
            **{name: float(line[name]) for name in ("validation", *MEASURES)},
        }
        for line in read_csv(path)
    ]


def differences(
    runs: Sequence[Line],
    *,
    keep: Callable[[Line], bool] = lambda line: True,
    ours: str = "selected",
    theirs: str = "selected",
    best_rates: bool = False,
    scale: float | None = None,
    aslp: str = "aslp",
) -> Differences:
    """Returns ASLP minus edge-popup in points, by seed.

    Args:
      runs: all runs.
      keep: function from a run to True if it is compared.
      ours: measure of ASLP.
      theirs: measure of edge-popup.
      best_rates: True to take, for each method, network and kind of images, the rate
        whose mean validation accuracy is best; False for the rates of the preset.
      scale: initial scale of ASLP; None for that of the preset.
      aslp: key of `OPTIONS` that stands for ASLP.
    """
    found: dict[int, list[float]] = {}
    places = sorted({(run["arch"], run["augment"]) for run in runs if keep(run)})
    for place in places:
        here = [run for run in runs if (run["arch"], run["augment"]) == place]
        sides = {}
        for method, measure in ((aslp, ours), ("edge_popup", theirs)):
            wanted = scale if method == aslp else None
            own = [
                run for run in here if (run["method"], run["scale"]) == (method, wanted)
            ]
            rate = _best_rate(own) if best_rates else PRESET[method]
            sides[method] = {
                run["seed"]: run[measure] for run in own if run["rate"] == rate
            }
        for seed in sides[aslp].keys() & sides["edge_popup"].keys():
            gap = sides[aslp][seed] - sides["edge_popup"][seed]
            found.setdefault(seed, []).append(gap)
    return found


def _best_rate(runs: Sequence[Line]) -> float | None:
    """Returns the rate of the best mean validation accuracy; None for no runs."""
    by_rate: dict[float, list[float]] = {}
    for run in runs:
        by_rate.setdefault(run["rate"], []).append(run["validation"])
    return max(
        by_rate, key=lambda rate: sum(by_rate[rate]) / len(by_rate[rate]), default=None
    )


def changes(runs: Sequence[Line]) -> list[tuple[str, Differences]]:
    """Returns the difference with one choice changed at a time, and its name.

    Args:
      runs: all runs.
    """

    def augmented(run: Line) -> bool:
        return bool(run["augment"])

    def plain(run: Line) -> bool:
        return not run["augment"]

    last: dict[str, Any] = {"ours": "last", "theirs": "last"}
    return [
        ("nothing", differences(runs)),
        (
            "each method's best of four learning rates, by validation",
            differences(runs, best_rates=True),
        ),
        ("the network after the last epoch", differences(runs, **last)),
        (
            "exactly half of each layer of ASLP kept",
            differences(runs, ours="selected_half"),
        ),
        (
            "the first scale of ASLP that of edge-popup, 1.41",
            differences(runs, scale=OTHER_SCALE),
        ),
        ("less noise in the masks of ASLP", differences(runs, aslp=LESS_NOISE)),
        ("augmented images alone", differences(runs, keep=augmented)),
        ("images as they are alone", differences(runs, keep=plain)),
        (
            "augmented images, best learning rates, last epoch",
            differences(runs, keep=augmented, best_rates=True, **last),
        ),
        (
            "images as they are, best learning rates, last epoch",
            differences(runs, keep=plain, best_rates=True, **last),
        ),
        (
            "less noise, augmented images, best learning rate of edge-popup, last "
            "epoch",
            differences(runs, keep=augmented, best_rates=True, aslp=LESS_NOISE, **last),
        ),
        (
            "less noise, images as they are, best learning rate of edge-popup, last "
            "epoch",
            differences(runs, keep=plain, best_rates=True, aslp=LESS_NOISE, **last),
        ),
    ]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the tables")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=12, help="of each run")
    options = parser.parse_args(arguments)
    print(where())
    file = options.out / "runs.csv"
    runs = read_runs(file)
    for setting in settings(options.seeds):
        if any(setting.items() <= run.items() for run in runs):
            continue
        result = train_once(**setting, epochs=options.epochs)
        runs.append({**setting, **result})
        write_csv(file, runs)
        print(
            *setting.values(), *(f"{each:.2f}" for each in result.values()), flush=True
        )
    lines = []
    for change, gap in changes(runs):
        evidence, _ = verdict(gap)
        lines.append({"change": change, "aslp_minus_edge_popup": evidence})
    write_csv(options.out / "gap.csv", lines)
    table = markdown_table(
        ("what is changed", "ASLP minus edge-popup"),
        [list(line.values()) for line in lines],
    )
    write_text(options.out / "gap.md", "\n".join([*table, ""]))
    print("\n".join(table))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
