"""A finished run that tests of reports make up."""

import dataclasses
from pathlib import Path

import numpy as np

import aslp_jax
from aslp_jax.trainer import plots
from aslp_jax.trainer.presets import resolve
from aslp_jax.trainer.report import Finished
from tests.helpers import SIX, epoch_row, run_result

DIGITS = Path(__file__).parents[2] / "examples" / "embedded" / "digits.aslp"
ABOUT = {
    "command": ["aslp-jax", "train", "--out", "a <b>"],
    "device": "1 x cpu",
    "commit": "0123456789abcdef",
    "versions": {"jax": "0.10.2"},
    "started": "2026-01-31T12:00:00+0000",
    "resumed": [{"after_epoch": 3, "started": "2026-02-01T12:00:00+0000"}],
}
NAMES = ("cat", "<script>alert(1)</script>", '"><img src=x>', "d & d", *"efghij")


def finished_run() -> Finished:
    """Returns a run of fifteen minutes, its classes named by a person of bad will."""
    network = aslp_jax.load(DIGITS)
    description = dataclasses.replace(network.description, class_names=NAMES)
    rng = np.random.default_rng(0)
    return Finished(
        config=resolve("fast", {"dataset": "digits", "seed": 7}),
        about=ABOUT,
        rows=[epoch_row(epoch) for epoch in range(1, 9)],
        result=run_result(outputs_reached=9),
        fractions=plots.histogram({name: rng.random(50) for name in SIX}),
        subnetwork=dataclasses.replace(network, description=description),
        network_bytes=48_123,
    )
