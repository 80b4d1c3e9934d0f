"""The command `aslp-jax`: its commands, how it starts, and its errors."""

import configparser
import os
import subprocess
import sys
from pathlib import Path

import pytest

from aslp_jax.cli.main import main

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no command; expected one of train, table1"),
        ("bogus", "no command 'bogus'; expected one of train, table1"),
    ],
)
def test_bad_input_is_one_line(line, words, refused):
    refused(line, words)


@pytest.mark.slow
def test_a_device_that_is_not_there_is_one_line(signed):
    done = subprocess.run(
        [sys.executable, "-m", "aslp_jax", "inspect", signed],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "bogus"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aslp-jax: JAX has no device here (JAX_PLATFORMS=bog")
    assert done.stderr.count("\n") == 1


def test_help_waits_for_no_jax():
    code = (
        "import sys\n"
        "from aslp_jax.cli.main import main\n"
        "for command in ([], ['extract'], ['inspect'], ['export']):\n"
        "    try:\n"
        "        main([*command, '--help'])\n"
        "    except SystemExit as end:\n"
        "        assert end.code == 0\n"
        "    else:\n"
        "        raise AssertionError(command)\n"
        "assert not {'jax', 'numpy', 'flax', 'matplotlib'} & set(sys.modules)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
    )
    assert (done.returncode, done.stderr) == (0, "")
    usages = [line for line in done.stdout.splitlines() if line.startswith("usage: ")]
    names = [" ".join(line.split()[1:3]) for line in usages]
    assert names == [
        "aslp-jax COMMAND",
        "aslp-jax extract",
        "aslp-jax inspect",
        "aslp-jax export",
    ]


@pytest.mark.slow
def test_both_ways_to_start_it(run_folder, tmp_path):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split()
    assert scripts == ["aslp-jax", "=", f"{main.__module__}:main"]
    path = tmp_path / "a.aslp"
    done = subprocess.run(
        [sys.executable, "-m", "aslp_jax", "extract", run_folder, "-o", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: ") and path.exists()
