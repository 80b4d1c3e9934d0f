"""Strict rules for every test, and four CPU devices for those of several devices."""

import atexit
import gc
import os
import shutil
import tempfile

# What was compiled once is not compiled again, neither here nor in programs.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="aslp-jax-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
# Nobody reads where in the source an operation of a program comes from.
os.environ["JAX_TRACEBACK_IN_LOCATIONS_LIMIT"] = "0"

import jax
import jaxlib.version
import pytest

atexit.register(
    shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True
)

# Compiled by the simpler of XLA's two emitters, in one piece and not optimised by LLVM,
# code is ready in half the time and computes the same up to rounding. XLA ends the
# process on a flag that it does not know, so that a later jaxlib goes without.
FAST = "--xla_backend_optimization_level=0"
if jaxlib.version.__version_info__ < (0, 11):
    FAST += " --xla_cpu_use_fusion_emitters=false"
    FAST += " --xla_cpu_parallel_codegen_split_count=1"

# Before jax starts its devices.
os.environ["XLA_FLAGS"] = (
    f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=4 {FAST}"
)

# Traces make millions of small objects that live long. To look for cycles among them
# and the modules took 3 to 11 % of the time of a file of tests.
gc.freeze()
gc.set_threshold(50_000, 20, 20)

jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_numpy_rank_promotion", "raise")
# Started before a test of a grid asks for another number of devices.
jax.devices()


@pytest.fixture(scope="session")
def program_flags() -> str:
    """XLA flags of programs in processes of their own, with one device."""
    return FAST


@pytest.fixture(scope="session")
def key() -> jax.Array:
    """A PRNG key; tests draw the ones they need from it."""
    return jax.random.key(20221016)
