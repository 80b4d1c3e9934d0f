"""Initialisers of the weights that are drawn once and never trained."""

import math

import jax
import jax.numpy as jnp
from flax.typing import Initializer


def kaiming_normal() -> Initializer:
    """Draws from a normal distribution of variance 2 / fan_in, not truncated.

    Flax's own `he_normal` truncates at two standard deviations; the paper's networks
    and the code published with it do not.

    Returns:
      `(key, shape, dtype) -> array`, fan_in being the product of all axes but the last.

    Source: He et al. 2015, arXiv:1502.01852.
    """
    return jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def signed_constant(initialiser: Initializer) -> Initializer:
    """Keeps the signs of what an initialiser draws and gives all one magnitude.

    The magnitude is the (unbiased) standard deviation of the very weights drawn for
    that layer, so that a layer is one bit a weight and a single float.

    Args:
      initialiser: draws the weights whose signs are kept; at least two a layer.

    Returns:
      `(key, shape, dtype) -> array` of values +std or -std. It raises ValueError for a
      shape of fewer than two weights, which have no standard deviation.

    Source: Dupont et al. 2022, section 3.1, after Ramanujan et al. 2020.
    """

    def init(key: jax.Array, shape, dtype=jnp.float32, **kwargs) -> jax.Array:
        if math.prod(shape) < 2:
            raise ValueError(
                f"signed_constant: needs at least two weights, got shape {shape}"
            )
        weights = initialiser(key, shape, dtype, **kwargs)
        return jnp.sign(weights) * jnp.std(weights, ddof=1)

    return init


def kaiming_constant() -> Initializer:
    """Gives every weight the magnitude sqrt(2 / fan_in) and a random sign.

    The magnitude is the standard deviation of the law that `kaiming_normal` draws from,
    where `signed_constant` takes that of the weights it drew.

    Returns:
      `(key, shape, dtype) -> array`, fan_in being the product of all axes but the last.

    Source: Ramanujan et al. 2020, arXiv:1911.13299, section 4.1.
    """

    def init(key: jax.Array, shape, dtype=jnp.float32, **kwargs) -> jax.Array:
        magnitude = math.sqrt(2 / math.prod(shape[:-1]))
        return magnitude * jax.random.rademacher(key, shape, dtype, **kwargs)

    return init


def fan_in_uniform(fan_in: int) -> Initializer:
    """Draws biases from U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
      fan_in: inputs that reach one unit, at least 1.

    Returns:
      `(key, shape, dtype) -> array`.

    Raises:
      ValueError: `fan_in` is below 1.

    Source: the code published with Dupont et al. 2022 (its framework's default).
    """
    if fan_in < 1:
        raise ValueError(f"fan_in_uniform: fan_in must be at least 1, got {fan_in}")
    bound = 1 / math.sqrt(fan_in)

    def init(key: jax.Array, shape, dtype=jnp.float32, **kwargs) -> jax.Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound, **kwargs)

    return init
