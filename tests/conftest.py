"""Strict rules for every test, and four CPU devices for those of several devices."""

import atexit
import os
import shutil
import tempfile

# What was compiled once is not compiled again, neither here nor in programs.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="aslp-jax-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import jaxlib.version
import pytest

atexit.register(
    shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True
)

# Compiled by the simpler of XLA's two emitters and not optimised by LLVM, code is ready
# in half the time and computes the same up to rounding. XLA ends the process on a flag
# that it does not know, so that a later jaxlib goes without.
SIMPLE = (
    "--xla_cpu_use_fusion_emitters=false"
    if jaxlib.version.__version_info__ < (0, 11)
    else ""
)

# Before jax starts its devices.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4 "
    f"{SIMPLE} --xla_backend_optimization_level=0"
)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(scope="session")
def program_flags() -> str:
    """XLA flags of programs in processes of their own, which train for whole epochs.

    Optimised a little, an epoch is as fast as optimised in full, and twice as fast as
    not at all; compiling takes half the time of the defaults.
    """
    return f"{SIMPLE} --xla_backend_optimization_level=1"


@pytest.fixture(scope="session")
def key() -> jax.Array:
    """A PRNG key; tests draw the ones they need from it."""
    return jax.random.key(20221016)
