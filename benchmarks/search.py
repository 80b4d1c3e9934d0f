"""Search for a recipe, by successive halving on validation images alone.

    python -m benchmarks.search --data-dir FOLDER --minutes 60 --out runs/search

Conv2 on CIFAR-10 without augmentation, by the preset `fast` with some options changed.
Every setting of a method is trained for three epochs with one seed; the best third of
each method for ten, and of these the best two with two seeds more. A cosine schedule
ends with the last epoch of a run. The same command goes on where an earlier one
stopped. Writes `search.csv` into the folder, a line a run, and a plot of it; `cells/`
holds the runs. Exit code: 0, also if the time was up; 128 and the number of a signal
that stopped it.
"""

import argparse
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.recipes import Runs, Setting, add_arguments, best

_NOISY: dict[str, Any] = {"logit_std": 10.0, "temperature": 1.0}
_SGD: dict[str, Any] = {"optimiser": "sgd", "momentum": 0.9, "temperature": 1.0}

SETTINGS: dict[str, list[dict[str, Any]]] = {
    "aslp": [
        # Larger logits and the temperature that goes with them: fewer are random.
        *(
            {"mask_lr": 0.02 * size, "logit_std": size, "temperature": size}
            for size in (50.0, 20.0, 100.0, 10.0)
        ),
        *({"mask_lr": rate} for rate in (0.3, 0.5, 2.0, 4.0)),
        *(
            {**_NOISY, "batch_size": size, "mask_lr": rate}
            for size, rate in ((32, 0.1), (32, 0.3), (64, 0.2), (64, 0.5), (128, 0.5))
        ),
        {"batch_size": 32, "mask_lr": 0.5},
        {"batch_size": 128, "mask_lr": 2.0},
        {"temperature": 20.0},
        {"temperature": 100.0},
        *({"temperature_end": value} for value in (10.0, 200.0)),
        *({"momentum": beta} for beta in (0.0, 0.8, 0.9)),
        *({"scale_init": scale} for scale in (1.0, 1.4)),
        *({"scale_lr": rate} for rate in (0.0001, 0.01)),
        {"warmup_epochs": 1},
        {"label_smoothing": 0.1},
        *({"ema_decay": decay} for decay in (0.99, 0.998)),
        {"schedule": "constant"},
        {"schedule": "constant", "ema_decay": 0.998},
        *({**_SGD, "logit_std": 0.0, "mask_lr": rate} for rate in (1000.0, 5000.0)),
        {**_SGD, "logit_std": 2.0, "mask_lr": 1000.0},
    ],
    "supermask": [
        *(
            {"rescale": rescale, "mask_lr": rate}
            for rescale in ("dynamic", "smart")
            for rate in (0.2, 0.5, 1.0, 2.0)
        ),
        *(
            {"rescale": "dynamic", "logit_std": std, "mask_lr": 0.05 * std}
            for std in (3.0, 1.0)
        ),
    ],
    "edge_popup": [
        {"batch_size": size, "rescale": "fan", "mask_lr": rate}
        for size in (64, 32)
        for rate in (0.0001, 0.0003, 0.001, 0.003)
    ],
}
"""Options that are changed, by method."""


def settings(
    arch: str, epochs: int, changes: Mapping[str, Sequence[Mapping[str, Any]]]
) -> list[Setting]:
    """Returns settings, those of the methods in turn.

    A setting is left out if no epoch comes after its warm-up.

    Args:
      arch: name of the network.
      epochs: epochs of a run.
      changes: options that are changed, by method.
    """
    found = [
        (place, Setting(arch, method, tuple(change.items()), epochs))
        for method, all_changes in changes.items()
        for place, change in enumerate(all_changes)
        if change.get("warmup_epochs", 0) < epochs
    ]
    return [setting for _, setting in sorted(found, key=lambda each: each[0])]


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_arguments(parser)
    parser.add_argument(
        "--epochs", type=int, nargs=2, default=(3, 10), help="of both rounds"
    )
    parser.add_argument(
        "--methods", nargs="+", choices=SETTINGS, default=list(SETTINGS)
    )
    options = parser.parse_args(arguments)
    runs = Runs(options, eval_samples=1)

    def plan() -> None:
        changes = {method: SETTINGS[method] for method in options.methods}
        first, second = options.epochs
        every = settings(options.arch, first, changes)
        runs.train(every, [0])
        longer = [
            dataclasses.replace(setting, epochs=second)
            for setting in best(runs.grid, every, 1 / 3)
        ]
        runs.train(longer, [0])
        runs.train(best(runs.grid, longer, 2), [1, 2])

    return runs.run(plan)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
