"""The installed package: a wheel, in an environment of its own, in an empty folder."""

import os
import re
import resource
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = [pytest.mark.slow, pytest.mark.program]

ROOT = Path(__file__).parents[1]
SOURCES = ("aslp_jax", "benchmarks", "experiments", "tests")
FILES = ("LICENSE", "README.md", "pyproject.toml", "requirements.txt", "setup.cfg")
ENVIRONMENT = {
    name: value
    for name, value in os.environ.items()
    if not name.startswith(("PYTHON", "VIRTUAL_ENV"))
}


def call(*command: str | Path, cwd: Path, **environment: str) -> str:
    """Runs a command that must succeed; returns what it prints on both streams."""
    done = subprocess.run(
        command,
        cwd=cwd,
        env={**ENVIRONMENT, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    # From a copy: a build leaves folders beside setup.cfg, and takes up old ones.
    source = tmp_path_factory.mktemp("source")
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, source)
    build = ("-m", "build", "--wheel", "--no-isolation", "--outdir", source / "dist")
    call(sys.executable, *build, cwd=source)
    (wheel,) = (source / "dist").glob("*.whl")
    return wheel


@pytest.fixture(scope="module")
def scripts(wheel, tmp_path_factory) -> Path:
    """Folder of the programs of a new environment in which the wheel is installed."""
    folder = tmp_path_factory.mktemp("environment")
    call(sys.executable, "-m", "venv", "--without-pip", folder, cwd=folder)
    python = folder / "bin" / "python"
    install = ("install", "--quiet", "--no-deps", "--no-index", wheel)
    call(sys.executable, "-m", "pip", "--python", python, *install, cwd=folder)
    # All else comes from the environment of the tests: nothing is downloaded. A folder
    # that a .pth file adds has its own .pth files ignored, those of the checkout too.
    query = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = call(python, "-c", query, cwd=folder).strip()
    others = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    Path(own, "others.pth").write_text("\n".join(sorted(others)) + "\n")
    return python.parent


def test_the_wheel_holds_the_package_and_nothing_else(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    tracked = {
        path.relative_to(ROOT).as_posix()
        for path in (ROOT / "aslp_jax").rglob("*")
        if path.suffix in (".py", ".npz", ".md", ".c", ".csv", ".css", ".js", ".typed")
    }
    assert "aslp_jax/py.typed" in tracked
    assert {name for name in names if ".dist-info/" not in name} == tracked
    (metadata,) = [name for name in names if name.endswith("METADATA")]
    text = zipfile.ZipFile(wheel).read(metadata).decode()
    assert "License-Expression: Apache-2.0" in text


def test_what_is_imported_is_what_was_installed(scripts, tmp_path):
    say = "import aslp_jax, aslp_jax.cli.main as main; print(aslp_jax.__file__)"
    file = Path(call(scripts / "python", "-c", say, cwd=tmp_path).strip())
    assert file.is_relative_to(scripts.parent) and not file.is_relative_to(ROOT)


@pytest.mark.parametrize(
    "command",
    ["", "train", "table1", "budget", "compare", "extract", "inspect", "export"],
)
def test_help_is_there_at_once_and_imports_no_jax(command, scripts, tmp_path):
    # CPU time, since the machine may be busy with other tests.
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    program = (scripts / "aslp-jax", *command.split(), "--help")
    text = call(*program, cwd=tmp_path, PYTHONPROFILEIMPORTTIME="1")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime < 1
    assert "usage: aslp-jax" in text
    imported = re.findall(r"^import time:.*\|\s*([\w.]+)$", text, re.M)
    assert "aslp_jax.cli.main" in imported
    assert not {name.partition(".")[0] for name in imported} & {"jax", "numpy", "flax"}


def test_a_network_is_trained_and_written_in_an_empty_folder(scripts, tmp_path):
    train = "train --arch conv2 --dataset digits --epochs 1 --batch-size 320 --out run"
    # Emitted as for a user, but not optimised: other tests use the simpler emitters.
    flags = "--xla_backend_optimization_level=0"
    text = call(scripts / "aslp-jax", *train.split(), cwd=tmp_path, XLA_FLAGS=flags)
    assert "conv2" in text.lower()
    written = {path.name for path in (tmp_path / "run").iterdir()}
    assert {"result.json", "metrics.jsonl", "network.aslp", "curves.png"} <= written
    assert "report.html" in written
    # The other commands in one process, which imports JAX once.
    commands = (
        "extract run -o again.aslp",
        "inspect again.aslp",
        "export again.aslp --to c -o net.c",
    )
    code = (
        "from aslp_jax.cli.main import main\n"
        f"for line in {commands!r}:\n"
        "    assert main(line.split()) == 0, line\n"
    )
    text = call(scripts / "python", "-c", code, cwd=tmp_path, XLA_FLAGS="")
    extracted = (tmp_path / "again.aslp").read_bytes()
    assert extracted == (tmp_path / "run" / "network.aslp").read_bytes()
    assert "by aslp on digits" in text
    assert (tmp_path / "net.c").stat().st_size and (tmp_path / "net.h").exists()
    files = {"run", "again.aslp", "net.c", "net.h"}
    assert {path.name for path in tmp_path.iterdir()} == files
