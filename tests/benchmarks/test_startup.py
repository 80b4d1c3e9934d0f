"""Start-up: whole processes are timed, and their imports known."""

import subprocess

import pytest

from benchmarks import start_of_run, startup


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


@pytest.mark.slow
def test_a_start_is_timed_until_the_folder_and_the_first_epoch(tmp_path):
    spent = start_of_run.start(start_of_run.ROOT, str(tmp_path))
    assert set(spent) == {"folder", "first epoch", "--help"}
    assert 0 < spent["--help"][1] < spent["folder"][1] < spent["first epoch"][1]
    with pytest.raises(RuntimeError, match="ended before its folder, first epoch"):
        start_of_run.start(tmp_path, str(tmp_path))


def test_no_command_imports_jax_for_its_help():
    assert "aslp-jax train" in startup.HELP
    assert {"json", "json.decoder"} <= startup.imported("-c", "import json")
    modules = startup.imported(*startup.HELP["aslp-jax train"], "--help")
    assert "aslp_jax.cli.arguments" in modules and "jax" not in modules
