"""Initialisers of frozen weights."""

import math

import jax
import jax.numpy as jnp
from flax.typing import Initializer

__all__ = ["fan_in_uniform", "kaiming_constant", "kaiming_normal", "signed_constant"]


def kaiming_normal() -> Initializer:
    """Returns an initialiser: normal of variance 2 / fan_in, not truncated.

    Flax's `he_normal` truncates at two standard deviations; the paper and its published
    code do not.

    Returns:
      Function `(key, shape, dtype) -> array`; fan_in is the product of all axes but the
      last.

    Source: He et al. 2015, arXiv:1502.01852.
    """
    return jax.nn.initializers.variance_scaling(2.0, "fan_in", "normal")


def signed_constant(initialiser: Initializer) -> Initializer:
    """Returns an initialiser that keeps the signs of another, with one magnitude.

    The magnitude is the (unbiased) standard deviation of the layer's own weights, so
    that a layer is one bit a weight and one float.

    Args:
      initialiser: initialiser of the weights whose signs are kept.

    Returns:
      Function `(key, shape, dtype) -> array` of values +std or -std. It raises
      ValueError for a shape of fewer than two weights, which have no standard
      deviation.

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
    """Returns an initialiser: magnitude sqrt(2 / fan_in), random signs.

    The magnitude is the standard deviation of the law of `kaiming_normal`, while
    `signed_constant` takes the standard deviation of the layer's own weights.

    Returns:
      Function `(key, shape, dtype) -> array`; fan_in is the product of all axes but the
      last.

    Source: Ramanujan et al. 2020, arXiv:1911.13299, section 4.1.
    """

    def init(key: jax.Array, shape, dtype=jnp.float32, **kwargs) -> jax.Array:
        magnitude = math.sqrt(2 / math.prod(shape[:-1]))
        return magnitude * jax.random.rademacher(key, shape, dtype, **kwargs)

    return init


def fan_in_uniform(fan_in: int) -> Initializer:
    """Returns an initialiser of biases: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
      fan_in: number of inputs of one unit, at least 1.

    Returns:
      Function `(key, shape, dtype) -> array`.

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
