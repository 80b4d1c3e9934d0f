"""The rules of the house that a program can check."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
LIBRARY = sorted((ROOT / "aslp_jax").rglob("*.py"))


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True
    )


@pytest.mark.parametrize(
    "arguments",
    [("ruff", "check", "."), ("ruff", "format", "--check", "."), ("mypy",)],
    ids=" ".join,
)
def test_style_and_types(arguments):
    done = run("-m", *arguments)
    assert done.returncode == 0, done.stdout + done.stderr


def imports(path: Path) -> set[str]:
    """Top-level names of the modules that a file imports, anywhere in it."""
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names.add(node.module.split(".")[0])
    return names


def test_only_the_checkpoint_knows_orbax():
    assert [path.name for path in LIBRARY if "orbax" in imports(path)] == [
        "checkpoint.py"
    ]


def test_only_the_picture_of_an_artefact_knows_matplotlib():
    plots = {path.name for path in LIBRARY if "matplotlib" in imports(path)}
    assert plots == {"compare.py", "plot.py", "plots.py"}


def test_the_library_prints_nothing_and_reads_no_flags():
    fronts = ("cli", "sweeps", "trainer")
    for path in LIBRARY:
        if path.relative_to(ROOT / "aslp_jax").parts[0] in fronts:
            continue
        assert "argparse" not in imports(path), path
        for node in ast.walk(ast.parse(path.read_text())):
            assert not (isinstance(node, ast.Name) and node.id == "print"), path


def test_nothing_is_unpickled():
    programs = [*ROOT.glob("experiments/*.py"), *ROOT.glob("benchmarks/*.py")]
    for path in [*LIBRARY, *programs]:
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


def test_the_two_commands_of_the_readme_are_there():
    readme = (ROOT / "README.md").read_text()
    commands = re.findall(r"```sh\n(python3 -m venv .*?)\n```", readme)
    assert len(commands) == 2
    assert "--dataset digits" in commands[0]
    assert f"<!-- test command -->\n```sh\n{commands[1]}\n```" in readme
