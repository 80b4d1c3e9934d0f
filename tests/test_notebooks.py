"""Notebooks: they run as written, and what their text says is seen in them."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import matplotlib
import numpy as np
import pytest

matplotlib.use("Agg")
import matplotlib.pyplot as plt

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "notebooks"
CELL = re.compile(
    r"^```\{code-cell\} ipython3\n(?:---\n(.*?)^---\n)?(.*?)^```$", re.S | re.M
)

Names = dict[str, Any]


def cells(notebook: Path) -> list[tuple[str, str]]:
    """Returns metadata and code of the cells of a notebook."""
    return CELL.findall(notebook.read_text())


def check_discrete_latents(names: Names) -> None:
    variance = {name: values[:, 0] for name, values in names["measured"].items()}
    bias, chance = (
        {name: values[:, column] for name, values in names["measured"].items()}
        for column in (1, 2)
    )
    assert np.all(variance["stgs"] < 3 * variance["soft"])
    ratio = variance["score function"] / variance["stgs"]
    assert ratio.min() > 30 and ratio.max() > 1000
    assert np.all(bias["stgs"][1:] > 1) and np.all(bias["soft"][1:] > 1)
    for name in ("score function", "score function, two samples"):
        assert np.all(np.abs(bias[name]) < 3 * chance[name])
    stgs = names["by_temperature"]["stgs"]
    assert np.all(np.diff(stgs[:, 0]) < 0) and np.all(np.diff(stgs[:, 1]) > 0)
    last = {name: float(curve[-1]) for name, curve in names["curves"].items()}
    slow = last.pop("score function")
    assert min(last, key=lambda name: last[name]) == "exact gradient"
    assert max(last.values()) < last["exact gradient"] + 2 < slow
    growth = names["by_bits"][-1] / names["by_bits"][0]
    assert growth[0] < 20 and growth[1] > 200


def check_nnx_subnetwork(names: Names) -> None:
    assert names["accuracies"][500] > 0.95
    for mask in names["masks"].values():
        assert 0.35 < mask.mean() < 0.65
    assert names["size"] < 4 * names["weights"] / 15
    assert abs(names["accuracy"](names["trained"]) - names["accuracies"][500]) < 0.03


def check_few_weights(names: Names) -> None:
    results = names["results"]
    for (_, budget), (kept, _) in results.items():
        assert abs(kept - budget) < budget / 20
    tenth = {name: result[1] for (name, kept), result in results.items() if kept == 0.1}
    assert min(tenth[name] for name in ("ASLP", "Signed")) > 0.94
    assert tenth["Magnitude"] < tenth["Magnitude, fine-tuned"] - 0.1
    few = {name: result[1] for (name, kept), result in results.items() if kept == 0.01}
    assert min(few["ASLP"], few["Signed"]) > 0.8 > 0.5 > few["Magnitude"]


def check_training_to_c(names: Names) -> None:
    assert names["accuracy"] > 0.95 and names["same"] == 360
    flash = {kind: size[0] for kind, size in names["sizes"].items()}
    for numbers in ("float32", "int8"):
        assert flash["seed", numbers] < flash["signs", numbers] < 20_000
        assert 35_000 < flash["dense", numbers] < 200_000
    assert flash["dense", "float32"] > 10 * flash["seed", "int8"]


CHECKS: dict[str, Callable[[Names], None]] = {
    "discrete_latents": check_discrete_latents,
    "few_weights": check_few_weights,
    "nnx_subnetwork": check_nnx_subnetwork,
    "training_to_c": check_training_to_c,
}


def test_every_notebook_is_checked_and_listed():
    assert {path.stem for path in FOLDER.iterdir()} == set(CHECKS)
    index = (ROOT / "docs" / "index.md").read_text()
    assert all(f"(notebooks/{name}.md)" in index for name in CHECKS)


@pytest.mark.parametrize("name", CHECKS)
def test_a_notebook_is_one_that_jupyter_opens(name):
    text = (FOLDER / f"{name}.md").read_text()
    header, _, rest = text.removeprefix("---\n").partition("---\n")
    assert "format_name: myst" in header and "name: python3" in header
    assert len(cells(FOLDER / f"{name}.md")) == rest.count("{code-cell}") > 3


@pytest.mark.parametrize("name", CHECKS)
def test_every_picture_of_a_notebook_says_what_it_shows(name):
    for metadata, code in cells(FOLDER / f"{name}.md"):
        assert ("plt.subplots" in code) == ("alt:" in metadata)


@pytest.mark.slow
@pytest.mark.parametrize("name", CHECKS)
def test_a_notebook_runs_as_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a notebook may write files
    names: Names = {}
    # As in a notebook, where nobody has asked JAX to be strict.
    with jax.numpy_dtype_promotion("standard"), jax.numpy_rank_promotion("allow"):
        for _, code in cells(FOLDER / f"{name}.md"):
            exec(compile(code, name, "exec"), names)
        CHECKS[name](names)
    assert plt.get_fignums()
    plt.close("all")
