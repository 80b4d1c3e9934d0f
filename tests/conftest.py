"""Strict rules for every test, and four CPU devices for those of several devices."""

import atexit
import os
import shutil
import tempfile

# Before jax starts its devices. Code that LLVM did not optimise compiles in half the
# time and computes the same up to rounding; programs that tests start run optimised.
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "")
    + " --xla_force_host_platform_device_count=4 --xla_backend_optimization_level=0"
)

# What was compiled once is not compiled again, neither here nor in programs.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="aslp-jax-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import pytest

atexit.register(
    shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True
)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture
def key() -> jax.Array:
    """A PRNG key; tests draw the ones they need from it."""
    return jax.random.key(20221016)
