"""The command `aslp-jax`: its commands, how it starts, and its errors."""

import configparser
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from aslp_jax._errors import EXIT_CODES, BadInput, page_on
from aslp_jax.cli.errors import shell_name
from aslp_jax.cli.main import main
from aslp_jax.export import UnsupportedError

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


def test_a_next_command_starts_the_program_that_runs(tmp_path, monkeypatch):
    own, other = (tmp_path / name / "aslp-jax" for name in ("of venv", "other"))
    for path in (own, other):
        path.parent.mkdir()
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)
    for started, on_path, said in (
        (own, own, "aslp-jax"),
        (own, other, f"'{own}'"),
        (own, tmp_path / "nothing", f"'{own}'"),
        (tmp_path / "cifar.py", own, "aslp-jax"),
        (tmp_path / "__main__.py", own, "aslp-jax"),
    ):
        monkeypatch.setattr(sys, "argv", [str(started)])
        monkeypatch.setenv("PATH", str(on_path.parent))
        assert shell_name() == said


def test_a_refusal_ends_with_the_page_on_its_cause(monkeypatch, capsys):
    def refuse(arguments):
        message, page = arguments
        try:
            try:
                raise UnsupportedError("sort is not supported")
            except UnsupportedError as error:
                if not page:
                    raise BadInput(message) from error
                raise BadInput(message, page=page) from None
        except BadInput as error:
            raise BadInput(f"again: {error}", page="docs/of_the_outer.md") from error

    monkeypatch.setattr("aslp_jax.cli.inspect.main", refuse)
    for page, said in (
        ("docs/resuming.md", "docs/resuming.md"),
        ("", "docs/export.md#what-a-network-may-compute"),
    ):
        assert main(["inspect", "no", page]) == 2
        assert capsys.readouterr().err == f"aslp-jax: again: no; see {said}\n"
    assert page_on(ValueError("x")) == page_on(BadInput("x")) == ""


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


def test_handlers_are_in_place_before_anything_else_is_imported():
    for module in ("aslp_jax.cli.main", "aslp_jax.cli.errors"):
        code = (
            "import sys\n"
            f"import {module}\n"
            "print(*(name for name in sys.modules if name.startswith('aslp_jax')))\n"
            "assert not {'argparse', 'json', 'dataclasses'} & set(sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-S", "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert set(done.stdout.split()) <= {
            "aslp_jax",
            "aslp_jax._errors",
            "aslp_jax._extras",
            "aslp_jax._version",
            "aslp_jax.cli",
            "aslp_jax.cli._display",
            "aslp_jax.cli.errors",
            "aslp_jax.cli.main",
            "aslp_jax.trainer",
            "aslp_jax.trainer.signals",
        }


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_a_signal_in_any_command_is_one_line(name, monkeypatch, capsys):
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    number = getattr(signal, name)

    def read(arguments):
        assert os.environ["MPLBACKEND"] == "agg"
        signal.raise_signal(number)

    monkeypatch.setattr("aslp_jax.cli.inspect.main", read)
    monkeypatch.setenv("MPLBACKEND", "nonsense")
    # A shell that starts the tests in the background has SIGINT ignored.
    before = signal.signal(number, signal.default_int_handler)
    assert main(["inspect"]) == 128 + number and 128 + number in EXIT_CODES
    assert capsys.readouterr() == ("", f"aslp-jax: stopped by {name}\n")
    assert signal.signal(number, before) is signal.default_int_handler


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (FileNotFoundError(2, "No such file", "a/b"), "cannot use a/b: No such file"),
        (OSError("no disk"), "OSError: no disk"),
    ],
)
def test_an_error_of_the_outside_is_one_line(error, words, monkeypatch, capsys):
    def read(arguments):
        raise error

    monkeypatch.setattr("aslp_jax.cli.inspect.main", read)
    assert main(["inspect"]) == 2
    page = "docs/what_can_go_wrong.md#output-disk-or-device-fails"
    assert capsys.readouterr() == ("", f"aslp-jax: {words}; see {page}\n")


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
