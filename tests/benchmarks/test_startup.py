"""Start-up: whole processes are timed, and their imports known."""

import subprocess

import pytest

from benchmarks import startup


@pytest.mark.slow
def test_processes_are_timed_from_start_to_end():
    assert min(startup.imports(1)) > 0
    with pytest.raises(subprocess.CalledProcessError):
        startup.seconds("-c", "raise SystemExit(2)")
    assert all((startup.EXPERIMENTS / name).exists() for name in startup.PROGRAMS)


def test_no_command_imports_jax_for_its_help():
    assert "aslp-jax train" in startup.HELP
    assert {"json", "json.decoder"} <= startup.imported("-c", "import json")
    modules = startup.imported(*startup.HELP["aslp-jax train"], "--help")
    assert "aslp_jax.cli.arguments" in modules and "jax" not in modules
