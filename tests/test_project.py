"""Rules of the project that a program can check, and the examples of its pages."""

import ast
import configparser
import functools
import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax._extras import OPTIONAL, MissingExtra, require

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "aslp_jax").rglob("*.py"))
PROGRAMS = sorted(
    path
    for folder in ("benchmarks", "examples", "experiments", "tests")
    for path in (ROOT / folder).rglob("*.py")
)
FIRST_PARTY = {"aslp_jax", "benchmarks", "tests"}
SETUP = configparser.ConfigParser(interpolation=None)
SETUP.read(ROOT / "setup.cfg")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments",
    [
        pytest.param(("ruff", "check", "."), id="ruff check"),
        pytest.param(("ruff", "format", "--check", "."), id="ruff format"),
        pytest.param(("mypy",), id="mypy", marks=pytest.mark.slow),
    ],
)
def test_style_and_types(arguments):
    done = run("-m", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


@functools.cache
def imports(path: Path) -> frozenset[str]:
    """Returns the top-level names of the modules that a file imports, anywhere."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return frozenset(names)


packages_of_modules = functools.cache(importlib.metadata.packages_distributions)


def third_party(paths: list[Path]) -> set[str]:
    """Returns the top-level names of the modules that files import from others."""
    found = set().union(*map(imports, paths))
    return found - FIRST_PARTY - set(sys.stdlib_module_names)


def requirements(section: str, option: str) -> dict[str, str]:
    """Returns the requirements that setup.cfg lists, by normalised name of package."""
    return parse_requirements(SETUP[section][option])


def parse_requirements(text: str) -> dict[str, str]:
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {normalise(re.split(r"[<>=]", line)[0]): line for line in lines}


def normalise(package: str) -> str:
    return re.sub(r"[-_.]+", "-", package).lower()


def test_what_the_library_imports_is_declared():
    packages = packages_of_modules()
    imported = third_party(LIBRARY)
    always = imported - OPTIONAL.keys()
    found = {normalise(packages[name][0]) for name in always}
    # jaxlib is not imported: it is what jax runs on.
    assert {*found, "jaxlib"} == set(requirements("options", "install_requires"))
    for module, (package, extra) in OPTIONAL.items():
        assert normalise(package) in {normalise(name) for name in packages[module]}
        assert normalise(package) in requirements("options.extras_require", extra)


def test_every_package_of_an_extra_has_its_message():
    for extra in ("data", "train", "export"):
        listed = set(requirements("options.extras_require", extra)) - {"aslp-jax[data]"}
        named = {normalise(package) for package, of in OPTIONAL.values() if of == extra}
        assert listed == named


def test_requirements_txt_is_the_whole_set_in_the_same_versions():
    whole = parse_requirements((ROOT / "requirements.txt").read_text())
    core = requirements("options", "install_requires")
    data = requirements("options.extras_require", "data")
    chex = requirements("options.extras_require", "test")["chex"]
    assert whole == {**core, **data, "chex": chex}


def test_what_the_tests_import_is_declared():
    packages = packages_of_modules()
    extras = SETUP["options.extras_require"]
    listed = parse_requirements(
        "\n".join([SETUP["options"]["install_requires"], *extras.values()])
    )
    others = {"torch"}  # Benchmarks compare with it where it is installed.
    for name in third_party(PROGRAMS) - others:
        assert {normalise(package) for package in packages[name]} & {*listed}, name


def test_a_missing_package_is_one_line_that_names_its_extra(monkeypatch):
    require("PIL", "matplotlib", by="test")
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtra) as missing:
        require("matplotlib", "PIL", by="load: cifar10")
    assert str(missing.value) == (
        'load: cifar10 needs the package pillow; pip install "aslp-jax[data]"'
    )


def test_first_party_modules_are_imported_by_their_full_names():
    packages = packages_of_modules()
    for path in [*LIBRARY, *PROGRAMS]:
        names = third_party([path]) - {"torch"}
        assert names <= packages.keys(), path
        assert "sys.path" not in path.read_text() or path == Path(__file__), path
    for name in ("setup.cfg", "pyproject.toml"):
        assert "pythonpath" not in (ROOT / name).read_text().lower(), name


def test_only_the_checkpoint_knows_orbax():
    assert [path.name for path in LIBRARY if "orbax" in imports(path)] == [
        "checkpoint.py"
    ]


def test_only_plots_know_matplotlib():
    plots = {path.name for path in LIBRARY if "matplotlib" in imports(path)}
    assert plots <= {"compare.py", "plot.py", "plots.py"}


def test_the_library_prints_nothing_and_reads_no_flags():
    fronts = ("cli", "sweeps", "trainer")
    for path in LIBRARY:
        if path.relative_to(ROOT / "aslp_jax").parts[0] in fronts:
            continue
        assert "argparse" not in imports(path), path
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Name) and node.id == "print"), path


def test_nothing_is_unpickled():
    for path in [*LIBRARY, *PROGRAMS]:
        if "tests" in path.relative_to(ROOT).parts:
            continue
        assert not imports(path) & {"pickle", "dill", "cloudpickle"}, path
        assert "allow_pickle=True" not in path.read_text(), path


def test_importing_starts_no_device_and_loads_nothing_heavy():
    done = run(
        "-c",
        "import sys, aslp_jax\n"
        "assert 'jax' not in sys.modules\n"
        "for name in aslp_jax.__all__:\n"
        "    assert getattr(aslp_jax, name) is not None and name in dir(aslp_jax)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends\n"
        "heavy = {'orbax', 'tensorflow_datasets', 'matplotlib', 'onnx'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)",
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_readme_runs_as_written(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it writes a file
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
    assert len(blocks) >= 4
    names: dict[str, Any] = {}
    for block in blocks:
        exec(block, names)
    assert names["mask"].shape == (3, 4) and names["slope"].shape == (3, 4)
    assert names["y"].shape == (8, 10)
    assert names["effective"]["layer"]["kernel"].shape == (784, 10)
    assert int(names["state"].step) == 1
    assert 0 <= names["scores"].thresholding <= 1
    assert names["digits"].shape == names["data"].test_labels.shape
    assert (tmp_path / "conv4.aslp").stat().st_size < 70_000


def test_the_example_of_a_new_method_runs_as_written():
    text = (ROOT / "docs/adding_a_method.md").read_text()
    names: dict[str, Any] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.S):
        exec(block, names)
    assert names["outputs"].shape == (8, 10)
    # It answers what every method is asked, and the gradient reaches its scores.
    model, variables = names["model"], names["variables"]
    method, frozen = model.method, variables["frozen"]
    masks = method.masks(frozen, variables["params"])
    assert masks["kernel"].all() and not method.stochastic
    assert method.keep_probabilities(frozen, variables["params"])["kernel"].all()
    assert method.scaled_masks(frozen, variables["params"]) == {}
    factored = names["Factoring"]().scaled_masks(frozen, variables["params"])["kernel"]
    assert factored.mask.dtype == jnp.int8 and factored.mask.all()
    assert method.penalty(frozen, variables["params"]) == 0
    slope = jax.grad(
        lambda params: model.apply(
            {"frozen": frozen, "params": params}, jnp.ones((8, 784))
        ).sum()
    )(variables["params"])
    np.testing.assert_allclose(
        slope["scores"]["kernel"], 8 * frozen["kernel"], rtol=1e-5
    )


def test_the_two_commands_of_the_readme_are_there():
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"```sh\n(python3 -m venv .*?)\n```", readme)
    assert len(commands) == 2
    assert "--dataset digits" in commands[0]
    assert f"<!-- test command -->\n```sh\n{commands[1]}\n```" in readme
