"""Strict rules for every test, and four CPU devices for those of several devices."""

import atexit
import functools
import os
import shutil
import tempfile

# What was compiled once is not compiled again, neither here nor in programs.
os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="aslp-jax-")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"

import jax
import jax.numpy as jnp
import jaxlib.version
import optax
import pytest

from aslp_jax import ASLP, Masked, models, optim, train
from aslp_jax.artefact import Description, Subnetwork, extract
from aslp_jax.data import augment, datasets
from aslp_jax.models import initialisers
from aslp_jax.ops.convolution import conv_in_loop

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


@pytest.fixture(scope="session")
def digits_network() -> Subnetwork:
    """A Conv2 of signed constants, trained on digits for an epoch, extracted."""
    data, key = datasets.load("digits"), jax.random.key(0)
    constant = initialisers.signed_constant(initialisers.kaiming_normal())
    net = models.Conv2(
        classes=data.classes,
        conv_init=constant,
        dense_init=constant,
        conv_general_dilated=conv_in_loop,
    )
    model = Masked(net, ASLP(logit_std=10.0, scale_init=1.2))
    rules = {"logits": optax.sign_sgd(0.5), "scale": optax.sgd(1e-3)}
    optimiser = optim.by_group(rules)
    state = train.create(model, optimiser, key, jnp.zeros((1, 8, 8, 1)))
    step = jax.jit(functools.partial(train.step, model=model, optimiser=optimiser))
    for begin in range(0, len(data.train_images) - 31, 32):
        images = augment.to_float(jnp.asarray(data.train_images[begin : begin + 32]))
        labels = jnp.asarray(data.train_labels[begin : begin + 32])
        state, _, _ = step(state, images, labels, key)
    description = Description("conv2", data.classes, (8, 8, 1), dataset="digits")
    return extract(model, state.variables, description, key=key)
