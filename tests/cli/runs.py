"""Finished runs, for tests of the commands that read them."""

import json
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import artefact, evaluate
from aslp_jax.cli import train
from aslp_jax.data import datasets
from aslp_jax.trainer import session as session_module
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.run_folder import RunFolder


class FinishedRun(NamedTuple):
    """A finished run.

    Attributes:
      folder: its run folder.
      session: the run in memory, as after a restart.
      outputs: logits of its thresholded network for the test images.
    """

    folder: Path
    session: session_module.Session
    outputs: np.ndarray

    @property
    def data(self) -> datasets.Dataset:
        return self.session.run.data

    @property
    def variables(self) -> Any:
        """Variables of the network of the best epoch."""
        run = self.session.run
        return run.state.replace(**run.best).variables


def train_run(line: str, data: datasets.Dataset, folder: Path) -> FinishedRun:
    """Trains with `aslp-jax train`, on other images than those that it would load."""
    arguments = [*line.split(), "--devices", "1", "--out", str(folder)]
    with (
        mock.patch.object(datasets, "load", lambda *args, **options: data),
        jax.numpy_dtype_promotion("standard"),  # optax's schedules are not strict
    ):
        assert train.main(arguments) == 0
    options = json.loads((folder / "config.json").read_text())["options"]
    session = resume(Config(**options), data, folder)
    finished = FinishedRun(folder, session, np.empty(0))
    programs = session.run.programs
    outputs = evaluate.outputs(
        finished.variables,
        jnp.asarray(data.test_images),
        model=programs.model,
        prepare=programs.evaluate.keywords["prepare"],
    )
    return finished._replace(outputs=np.asarray(outputs))


def resume(
    config: Config, data: datasets.Dataset, folder: Path
) -> session_module.Session:
    """The run in a folder, as `aslp-jax train --resume` takes it up."""
    session = session_module.begin(
        config,
        data,
        RunFolder(folder),
        resume=True,
        note=pytest.fail,
        devices=jax.devices()[:1],
    )
    session.close()
    return session


def same_runs(found: Path, expected: Path) -> None:
    """Checks that two grids hold the same runs, to the last bit but for times."""
    names = sorted(path.name for path in (expected / "cells").iterdir())
    assert sorted(path.name for path in (found / "cells").iterdir()) == names
    for name in names:
        ours, theirs = found / "cells" / name, expected / "cells" / name
        assert _numbers(ours) == _numbers(theirs)
        for each in (ours, theirs):
            assert not (each / "checkpoints").exists()
        network = (ours / artefact.NETWORK).read_bytes()
        assert network == (theirs / artefact.NETWORK).read_bytes()


def _numbers(folder: Path) -> list[dict[str, Any]]:
    """Result and metrics of a run, without times and devices."""
    lines = (folder / "metrics.jsonl").read_text().splitlines()
    texts = [(folder / "result.json").read_text(), *lines]
    apart = {"seconds", "images_per_second"}
    return [
        {name: value for name, value in json.loads(text).items() if name not in apart}
        for text in texts
    ]
