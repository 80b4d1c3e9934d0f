"""Pages: their Python runs as written, their commands and links exist."""

import ast
import collections
import contextlib
import functools
import importlib
import importlib.util
import io
import re
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aslp_jax
from aslp_jax import functional
from aslp_jax.cli.main import COMMANDS, main
from tests.helpers import quick_only

ROOT = Path(__file__).parents[1]
PAGES = [
    ROOT / name
    for name in (
        "README.md",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "benchmarks/README.md",
        "examples/embedded/README.md",
        "results/README.md",
    )
    if (ROOT / name).exists()
] + sorted((ROOT / "docs").rglob("*.md"))

Names = dict[str, Any]


def title(page: Path) -> str:
    return page.relative_to(ROOT).as_posix()


def blocks(page: Path, language: str) -> list[str]:
    """Returns the fenced blocks of one language, in order."""
    fenced = re.compile(rf"^```{language}\n(.*?)^```$", re.S | re.M)
    return fenced.findall(page.read_text())


def without_fences(page: Path) -> str:
    return re.sub(r"^```.*?^```$", "", page.read_text(), flags=re.S | re.M)


def check_readme(names: Names) -> None:
    mask = np.asarray(names["mask"])
    assert mask.shape == names["slope"].shape == (3, 4)
    assert np.isin(mask, (0, 1)).all() and jnp.any(names["slope"] != 0)
    assert set(names["variables"]) == {"frozen", "params"}
    assert set(names["variables"]["params"]) == {"logits", "scale"}
    assert names["y"].shape == (8, 10) and jnp.any(names["y"] != 0)


def check_library(names: Names) -> None:
    assert np.isin(names["mask"], (0, 1)).all() and names["y"].shape == (8, 10)
    layer = names["found"].layers["kernel"]
    kept = np.asarray(names["masks"]["kernel"])
    assert (layer.kept, layer.units, names["found"].reached) == (kept.sum(), 10, 10)
    assert 0 < kept.mean() < 1
    # Logits start at 0, which the threshold drops.
    assert names["effective"]["layer"]["kernel"].shape == (784, 10)
    assert not names["effective"]["layer"]["kernel"].any()
    assert int(names["state"].step) == 1 and 0 <= int(names["correct"]) <= 32
    scores = names["scores"]
    assert 0 < scores.averaging_mean < 1
    predicted = np.asarray(names["digits"])
    labels = names["data"].test_labels
    assert np.mean(predicted == labels) == pytest.approx(scores.thresholding, abs=1e-6)
    layers = names["subnetwork"].layers
    assert layers["Conv_1/kernel"].mask.any()
    for attribute in ("weights", "frozen", "ternary_mask", "scale"):
        assert getattr(layers["Conv_1/kernel"], attribute) is not None
    assert Path("conv2.aslp").stat().st_size < 70_000


def check_artefact(names: Names) -> None:
    path = ROOT / "examples" / "embedded" / "digits.aslp"
    weights, collections = names["read_arrays"](path)
    params = aslp_jax.load(path).variables["params"]
    assert collections == {}
    assert names["network"].source.label == "nets.py:TinyNet"
    kernel = names["network"].layers["Conv_0/kernel"]
    assert kernel.recipe.initialiser == "signed_constant"
    assert names["logits"].shape == (1, 3)
    assert names["effective"]["layer"]["kernel"].shape == (784, 10)
    for layer, arrays in params.items():
        np.testing.assert_array_equal(
            weights[f"{layer}/kernel"], arrays["kernel"], strict=True
        )


def check_method(names: Names) -> None:
    assert names["outputs"].shape == (8, 10)
    model, variables = names["model"], names["variables"]
    method, frozen = model.method, variables["frozen"]
    # It answers all questions of a method, and the gradient reaches its scores.
    masks = method.masks(frozen, variables["params"])
    assert masks["kernel"].all() and not method.stochastic
    assert method.keep_probabilities(frozen, variables["params"])["kernel"].all()
    assert method.scaled_masks(frozen, variables["params"]) == {}
    scaled = names["OneBitPiggyback"]().scaled_masks(frozen, variables["params"])
    mask, scale = scaled["kernel"]
    assert mask.dtype == jnp.int8 and mask.all() and scale is None
    assert method.penalty(frozen, variables["params"]) == 0
    slope = jax.grad(
        lambda params: model.apply(
            {"frozen": frozen, "params": params}, jnp.ones((8, 784))
        ).sum()
    )(variables["params"])
    np.testing.assert_allclose(
        slope["scores"]["kernel"], 8 * frozen["kernel"], rtol=1e-5
    )


def check_network(names: Names) -> None:
    state = names["state"]
    assert int(state.step) == 1 and np.isfinite(names["loss"])
    assert set(state.frozen) == {"Dense_0", "Dense_1"}
    logits = state.params["logits"]["Dense_1/kernel"]
    assert logits.shape == (64, 10) and jnp.any(logits != 0)


def check_own_network(names: Names) -> None:
    images = jnp.ones((2, 32, 32, 3))
    for net, outputs in (
        (names["TinyNet"](), 3),
        (functional.NNX(lambda rngs: names["TinyNNX"](rngs=rngs)), 3),
    ):
        network = functional.network(net)
        start = jax.eval_shape(network.init, jax.random.key(0), images)
        found, _ = jax.eval_shape(network.apply, *start, images)
        assert found.shape == (2, outputs)
    assert int(names["state"].step) == 1 and np.isfinite(names["loss"])
    assert names["state"].params["logits"]["w"].any()


def check_export(names: Names) -> None:
    assert names["kinds"] == ["Dense", "Unary"]
    np.testing.assert_allclose(names["outputs"], np.full((2, 4), np.tanh(3)), rtol=1e-6)


def check_reference_sampling(names: Names) -> None:
    kept = np.asarray(names["mask"])
    np.testing.assert_array_equal(kept, names["same"])
    expected = 1 / (1 + np.exp(-np.asarray(names["logits"])))
    np.testing.assert_allclose(kept.mean(0), expected, atol=5 * 0.5 / np.sqrt(1000))
    assert np.isin(names["signs"], (-1, 0, 1)).all() and names["noise"].shape == (1000,)


def check_reference_models(names: Names) -> None:
    assert names["outputs"].shape == names["nnx_outputs"].shape == (2, 10)
    assert jnp.any(names["outputs"] != 0) and jnp.any(names["nnx_outputs"] != 0)
    assert names["bare_variables"]["params"]["logits"]["kernel"].shape == (784, 10)


def check_reference_methods(names: Names) -> None:
    kept = {name: float(fraction) for name, fraction in names["kept"].items()}
    assert kept["EdgePopup"] == kept["Budget"] == kept["Magnitude"] == 0.5
    # Logits around 0: half of the weights; two logits, of which one is enough: more.
    sampled = {name: kept.pop(name) for name in ("ASLP", "Supermask", "Signed")}
    sigma = np.sqrt(0.25 / 200)
    assert abs(sampled["ASLP"] - 0.5) < 5 * sigma > abs(sampled["Supermask"] - 0.5)
    assert abs(sampled["Signed"] - 0.75) < 5 * sigma


def check_reference_training(names: Names) -> None:
    assert int(names["state"].step) == 1 and np.isfinite(names["loss"])
    assert 0 <= names["scores"].thresholding <= 1
    jax.tree.map(np.testing.assert_array_equal, names["params"], names["state"].params)
    kept = names["paths"].layers["Dense_0/kernel"].kept
    assert kept == names["masks"]["Dense_0/kernel"].sum()


def check_reference_networks_and_data(names: Names) -> None:
    assert names["images"].shape == (2, 8, 8, 1) and names["images"].max() <= 1
    kernel = np.abs(names["variables"]["params"]["Conv_0"]["kernel"])
    assert kernel.min() == kernel.max() > 0


def check_reference_artefact(names: Names) -> None:
    assert names["logits"].shape == (1, 10) and jnp.any(names["logits"] != 0)
    assert Path("dense.aslp").stat().st_size < 10_000


def check_reference_export(names: Names) -> None:
    np.testing.assert_allclose(names["outputs"], np.full((2, 4), np.tanh(3)), rtol=1e-6)
    assert set(names["files"]) == {".h", ".c"}


CHECKS: dict[str, Callable[[Names], None]] = {
    "README.md": check_readme,
    "docs/adding_a_method.md": check_method,
    "docs/adding_a_network.md": check_network,
    "docs/artefact.md": check_artefact,
    "docs/export.md": check_export,
    "docs/library.md": check_library,
    "docs/own_network.md": check_own_network,
    "docs/reference/artefact.md": check_reference_artefact,
    "docs/reference/export.md": check_reference_export,
    "docs/reference/methods.md": check_reference_methods,
    "docs/reference/models.md": check_reference_models,
    "docs/reference/networks_and_data.md": check_reference_networks_and_data,
    "docs/reference/sampling.md": check_reference_sampling,
    "docs/reference/training.md": check_reference_training,
}


def test_every_page_with_python_is_checked():
    assert {title(page) for page in PAGES if blocks(page, "python")} == set(CHECKS)


@pytest.mark.parametrize("name", quick_only(CHECKS, "docs/export.md"))
def test_the_python_of_a_page_runs_as_written(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # a page may write files
    names: Names = {}
    for block in blocks(ROOT / name, "python"):
        exec(compile(block, name, "exec"), names)
    CHECKS[name](names)


def imported(page: Path) -> Iterator[tuple[str, str]]:
    """Yields module and name of each import of this package on a page."""
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            module = getattr(node, "module", None) or ""
            if module.split(".")[0] == "aslp_jax":
                yield from ((module, alias.name) for alias in node.names)


@pytest.mark.parametrize("name", CHECKS)
def test_pages_use_public_names_only(name):
    for module, found in imported(ROOT / name):
        assert "._" not in f"{module}.{found}", (module, found)
        home, full = importlib.import_module(module), f"{module}.{found}"
        if not (hasattr(home, "__path__") and importlib.util.find_spec(full)):
            assert found in home.__all__, full


def commands(page: Path) -> Iterator[list[str]]:
    """Yields the words of each command of this project in the shell text of a page."""
    text = "\n".join(blocks(page, "sh")) + "\n"
    text += "\n".join(re.findall(r"^ {4}.*$", without_fences(page), re.M))
    for line in text.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        start = re.compile(r"(.*/)?aslp-jax|(.*/)?python3?")
        places = [place for place, word in enumerate(words) if start.fullmatch(word)]
        if places:
            yield words[places[-1] :]


@functools.cache
def help_of(command: str) -> str:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), pytest.raises(SystemExit) as done:
        main([command, "--help"])
    assert done.value.code == 0
    return said.getvalue()


def source_of(benchmark: str) -> str:
    """Returns the source of a benchmark and of the modules that give it flags."""
    folder = ROOT / "benchmarks"
    own = folder / benchmark / "__main__.py"  # of a package
    files = [own if own.exists() else folder / f"{benchmark}.py"]
    shared = ("timing", "workload", "recipes", "export_networks")
    files += [folder / f"{name}.py" for name in shared]
    return "".join(file.read_text() for file in files)


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_commands_on_a_page_have_the_flags_that_it_says(page):
    for program, *words in commands(page):
        flags = {word.split("=")[0] for word in words if re.match(r"--?[a-z]", word)}
        if program.endswith("aslp-jax"):
            command, known = words[0], help_of(words[0])
        elif words and words[0].startswith("experiments/"):
            command = {"cifar": "train"}.get(Path(words[0]).stem, Path(words[0]).stem)
            assert (ROOT / words[0]).is_file(), words
            known = help_of(command)
        elif words[:1] == ["-m"] and words[1].startswith("benchmarks."):
            command, known = words[1], source_of(words[1].split(".")[1])
            flags -= {"-m"}
        else:
            # A program that the page itself gives.
            given = bool(words) and f"`{words[0]}`" in page.read_text()
            assert given or not words or not words[0].endswith(".py"), words
            continue
        for flag in flags:
            assert re.search(rf"(?<![\w-]){flag}(?![\w-])", known), (command, flag)


def test_every_command_of_the_package_is_on_a_page():
    text = " ".join(page.read_text() for page in PAGES)
    for command in COMMANDS:
        assert f"aslp-jax {command}" in text, command


def slug(heading: str) -> str:
    """Returns the anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@functools.cache
def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", without_fences(page), re.M)
    return {slug(heading) for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=title)
def test_the_links_of_a_page_lead_somewhere(page):
    text = re.sub(r"`[^`\n]*`", "", without_fences(page))
    for link in re.findall(r"\]\(([^)\s]+)\)", text):
        if re.match(r"https?://", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        assert target.is_relative_to(ROOT) and target.exists(), link
        assert not anchor or anchor in anchors(target), link


LIBRARY = sorted((ROOT / "aslp_jax").rglob("*.py"))
WITHOUT_PAGE = {
    "aslp_jax/cli/main.py": 2,  # no such command: the line lists those there are
    "aslp_jax/sweeps/runner.py": 1,  # raised again: the page is that of the cause
}
"""Refusals by file that name no page."""


def test_every_refusal_names_its_page():
    without = collections.Counter(
        path.relative_to(ROOT).as_posix()
        for path in LIBRARY
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call)
        if getattr(node.exc.func, "id", "") in ("BadInput", "Held")
        if not any(keyword.arg == "page" for keyword in node.exc.keywords)
    )
    assert without == WITHOUT_PAGE


def test_the_pages_that_refusals_name_exist():
    found = [
        (path.name, node.value)
        for path in LIBRARY
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
        if re.fullmatch(r"docs/[^\s]*", node.value)
    ]
    assert len({address for _, address in found}) > 20
    for source, address in found:
        path, _, anchor = address.partition("#")
        assert ROOT / path in PAGES, (source, address)
        assert not anchor or anchor in anchors(ROOT / path), (source, address)


@pytest.mark.parametrize("name", ["choosing_a_method", "faq", "start"])
def test_numbers_on_a_short_page_are_those_of_the_measurements(name):
    sources = ("results", "export", "budgets")
    pages = [
        *(ROOT / "docs" / f"{source}.md" for source in sources),
        ROOT / "README.md",
    ]
    known = set(re.findall(r"\d[\d.,]*\d|\d", " ".join(map(Path.read_text, pages))))
    text = (ROOT / "docs" / f"{name}.md").read_text()
    units = r"(?:\s*(?:kB|GB|%|times|points|bytes)| ± )"
    for number in re.findall(rf"(\d[\d.,]*\d|\d){units}", text):
        assert number in known or number == "51", number


def test_every_page_is_listed():
    index = (ROOT / "docs" / "index.md").read_text()
    readme = (ROOT / "README.md").read_text()
    for page in (ROOT / "docs").glob("*.md"):
        if page.name != "index.md":
            assert f"({page.name})" in index and f"(docs/{page.name})" in readme, page


def test_the_readme_is_a_first_page():
    assert len((ROOT / "README.md").read_text().splitlines()) <= 150
