"""Rules of the project that a program can check, and the examples of its pages."""

import ast
import configparser
import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

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
    for extra in (
        "data",
        "train",
        "export",
        "tensorboard",
        "cluster",
        "cloud",
        "stream",
    ):
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


def test_only_the_cluster_knows_ray():
    assert [path.name for path in LIBRARY if "ray" in imports(path)] == ["cluster.py"]


def test_only_plots_know_matplotlib():
    plots = {path.name for path in LIBRARY if "matplotlib" in imports(path)}
    assert plots == {"comparison.py", "plot.py", "plots.py"}


def test_only_the_command_line_prints_and_reads_flags():
    for path in LIBRARY:
        if path.relative_to(ROOT / "aslp_jax").parts[0] == "cli":
            continue
        assert "argparse" not in imports(path), path
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Name) and node.id == "print"), path


def first_words(text: str) -> Iterator[str]:
    """Yields the beginnings of a docstring and of the entries of its sections."""
    text = inspect.cleandoc(text)
    yield text
    for body in re.findall(r"^(?:Args|Attributes):\n((?:  .*\n?|\n)+)", text, re.M):
        yield from re.findall(r"^  (?! )[^:]*:\s+(.*)", body, re.M)
    yield from re.findall(r"^(?:Returns|Yields):\n +(.*)", text, re.M)


def test_docstrings_begin_with_a_verb_or_a_noun():
    refused = re.compile("(of|what|whether|which|those|where|that|how|who)\\b", re.I)
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {words[:60]!r}"
        for path in LIBRARY
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        for words in first_words(str(node.value.value))
        if refused.match(words)
    ]
    assert not found, "\n".join(found)


def module_name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


def is_public(name: str) -> bool:
    """Returns whether a module is one that users may import from."""
    parts = name.split(".")
    if any(part.startswith("_") for part in parts):
        return False
    packages = [".".join(parts[:end]) for end in range(1, len(parts) + 1)]
    docs = (importlib.import_module(package).__doc__ or "" for package in packages)
    return not any("Internal" in text for text in docs)


def test_every_public_module_lists_its_names():
    missing = []
    for path in LIBRARY:
        name = module_name(path)
        if not is_public(name):
            continue
        module = importlib.import_module(name)
        listed = getattr(module, "__all__", None)
        if listed is None:
            missing.append(f"{name}: no __all__")
            continue
        missing += [f"{name}.{found}" for found in listed if not hasattr(module, found)]
        for node in ast.parse(path.read_text()).body:
            own = set()
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                own = {node.name}
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = (
                    node.targets if isinstance(node, ast.Assign) else [node.target]
                )
                own = {target.id for target in targets if isinstance(target, ast.Name)}
            hidden = [n for n in own if not n.startswith("_") and n not in listed]
            missing += [f"{name}.{found}: not in __all__" for found in hidden]
    assert not missing, "\n".join(missing)


def test_the_names_on_pages_are_public_ones():
    pages = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
    for page in pages:
        for full in re.findall(r"\baslp_jax(?:\.\w+)+", page.read_text()):
            module, _, name = full.partition(".")
            while name:
                head, _, rest = name.partition(".")
                package = hasattr(importlib.import_module(module), "__path__")
                if not package or not importlib.util.find_spec(f"{module}.{head}"):
                    break
                module, name = f"{module}.{head}", rest
            names = importlib.import_module(module).__all__ if name else []
            assert not name or name.split(".")[0] in names, (page.name, full)


def test_nothing_is_unpickled():
    for path in [*LIBRARY, *PROGRAMS]:
        if "tests" in path.relative_to(ROOT).parts:
            continue
        assert not imports(path) & {"pickle", "dill", "cloudpickle"}, path
        assert "allow_pickle=True" not in path.read_text(), path


def opens_text(call: ast.Call) -> bool:
    """Returns whether a call opens a text file: `read_text`, or `open` without a b."""
    match call.func:
        case ast.Attribute(attr="read_text"):
            return True
        case ast.Name("open"):
            mode = call.args[1] if call.args[1:] else ast.Constant("r")
            return isinstance(mode, ast.Constant) and "b" not in mode.value
        case ast.Attribute(value=ast.Call(), attr="open"):  # of a path made on the spot
            return True
    return False


def test_text_files_are_utf_8_whatever_the_locale():
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path in LIBRARY
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and opens_text(node)
        if not any(keyword.arg == "encoding" for keyword in node.keywords)
    ]
    assert not found, found


@pytest.mark.slow
def test_importing_starts_no_device_and_loads_nothing_heavy():
    done = run(
        "-c",
        "import sys, aslp_jax\n"
        "assert 'jax' not in sys.modules\n"
        "for name in aslp_jax.__all__:\n"
        "    assert getattr(aslp_jax, name) is not None and name in dir(aslp_jax)\n"
        "from jax._src import xla_bridge\n"
        "assert not xla_bridge._backends\n"
        "heavy = {'orbax', 'tensorflow_datasets', 'matplotlib', 'onnx', 'ray'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)",
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


def test_the_two_commands_of_the_readme_are_there():
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"```sh\n(python3 -m venv .*?)\n```", readme)
    assert len(commands) == 2
    assert "--dataset digits" in commands[0]
    assert f"<!-- test command -->\n```sh\n{commands[1]}\n```" in readme
