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


@pytest.mark.slow
def test_training_a_network_of_linen_imports_no_nnx():
    program = "import aslp_jax.cli.train, aslp_jax.trainer.session, aslp_jax.artefact"
    modules = startup.imported("-c", program)
    assert "aslp_jax.functional" in modules and "flax.linen" in modules
    assert not {"flax.nnx", "treescope"} & modules


def test_no_command_imports_jax_for_its_help():
    assert "aslp-jax train" in startup.HELP
    assert {"json", "json.decoder"} <= startup.imported("-c", "import json")
    modules = startup.imported(*startup.HELP["aslp-jax train"], "--help")
    assert "aslp_jax.cli.arguments" in modules and "jax" not in modules
