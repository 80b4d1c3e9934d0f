"""Checks of arguments that several functions take: keys, numbers, methods."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

__all__ = [
    "check_method",
    "check_positive",
    "check_sizes",
    "check_temperature",
    "fix_numbers",
    "single_key",
]

_TINY = float(np.finfo(np.float32).tiny)
"""Smallest normal float32. A CPU flushes smaller numbers to 0."""

_HUGE = float(np.finfo(np.float32).max)


def single_key(function: str, key: Any) -> jax.Array:
    """Returns one PRNG key with a dtype of its own, whatever form it was given in.

    Raw uint32 keys are taken as `jax.random` takes them: as keys of the default
    generator, in JAX or NumPy, where `jax_legacy_prng_key` allows them.

    Args:
      function: name of the function that was given the key, for the message.
      key: PRNG key.

    Returns:
      Typed PRNG key, scalar.

    Raises:
      TypeError: `key` is no PRNG key.
      ValueError: `key` is an array of several keys.
    """
    if not isinstance(key, jax.Array | np.ndarray) and hasattr(key, "__jax_array__"):
        key = key.__jax_array__()  # a variable of Flax NNX
    if not isinstance(key, jax.Array | np.ndarray):
        raise TypeError(
            f"{function}: key must be a PRNG key, such as jax.random.key(0), got "
            f"{type(key).__name__}"
        )
    if not jnp.issubdtype(key.dtype, jax.dtypes.prng_key):
        config: Any = jax.config
        try:
            typed = jax.random.wrap_key_data(jnp.asarray(key))
        except TypeError:
            raise TypeError(
                f"{function}: key must be a PRNG key, such as jax.random.key(0), or "
                f"the uint32 words of one {config.jax_default_prng_impl} key, got "
                f"{key.dtype} of shape {key.shape}; jax.random.wrap_key_data takes "
                "the words of other generators"
            ) from None
        if not typed.shape:
            jax.random.key_impl(key)  # refuses or warns where JAX is set to do so
        key = typed
    if key.shape:
        raise ValueError(
            f"{function}: key must be one PRNG key, got an array of keys of shape "
            f"{key.shape}; take one of them, or use jax.vmap"
        )
    return key


def check_sizes(function: str, arrays: Mapping[str, jax.Array]) -> None:
    """Checks that the sizes of arrays are numbers, for what follows from the sizes.

    Args:
      function: name of the function that was given the arrays, for the message.
      arrays: arrays by name.

    Raises:
      ValueError: a size is symbolic, as in `jax.export.symbolic_shape`.
    """
    for name, array in arrays.items():
        if not all(isinstance(size, int) for size in array.shape):
            raise ValueError(
                f"{function}: the shape {array.shape} of {name!r} is symbolic; "
                "expected numbers, because weights are counted"
            )


def check_temperature(owner: str, temperature: Any) -> None:
    """Checks the temperature of a sampler; one that is traced has no value to check.

    Args:
      owner: name of the function or class that was given it, for the message.
      temperature: scalar.

    Raises:
      ValueError: `temperature` is no scalar, or outside the positive normal float32
        numbers.
      TypeError: `temperature` is no number.
    """
    if jnp.ndim(temperature) != 0:
        raise ValueError(
            f"{owner}: temperature must be a scalar, got shape {jnp.shape(temperature)}"
        )
    if isinstance(temperature, jax.core.Tracer):
        return
    _check_real(owner, "temperature", temperature)
    check_positive(owner, "temperature", temperature)


def fix_numbers(method: Any, *names: str) -> None:
    """Makes options of a method Python numbers, so that the method can be hashed.

    Args:
      method: frozen dataclass; options that are None stay.
      *names: names of the options, numbers of Python, NumPy or JAX.

    Raises:
      TypeError: an option is traced, or is no real number.
    """
    owner = type(method).__name__
    for name in names:
        value = getattr(method, name)
        if isinstance(value, jax.core.Tracer):
            raise TypeError(
                f"{owner}: {name} must be a Python number, got a traced value; it is "
                "fixed when a program is compiled, so make one method for each value, "
                "outside of jit"
            )
        if value is not None:
            _check_real(owner, name, value)
            number = value.item() if hasattr(value, "item") else value
            object.__setattr__(method, name, number)


def check_method(owner: str, method: Any) -> None:
    """Checks the method that a person gives.

    Args:
      owner: name of the class that takes the method, for the message.
      method: method.

    Raises:
      TypeError: `method` is a class, or has not the functions of a method.
    """
    if isinstance(method, type):
        name = method.__name__
        raise TypeError(
            f"{owner}: expected a method, got the class {name}; write {name}()"
        )
    if not hasattr(method, "effective_weights"):
        raise TypeError(f"{owner}: expected a method, got {method!r}")


def check_positive(owner: str, name: str, value: float) -> None:
    """Checks a number that float32 arrays are multiplied by or divided by.

    Args:
      owner: name of the class, for the message.
      name: name of the option, for the message.
      value: Python number.

    Raises:
      ValueError: `value` is not positive and finite, or no normal float32 number.
    """
    if not _TINY <= value <= _HUGE:
        raise ValueError(
            f"{owner}: {name} must be positive and finite, got {value}{_outside(value)}"
        )


def _outside(value: float) -> str:
    """Returns what to say of a positive number that float32 cannot hold."""
    if not 0 < value < float("inf"):
        return ""
    return f"; float32 holds {_TINY:.2g} to {_HUGE:.2g}"


def _check_real(owner: str, name: str, value: Any) -> None:
    if hasattr(value, "dtype"):
        kinds = (jnp.floating, jnp.integer)
        real = any(jnp.issubdtype(value.dtype, kind) for kind in kinds)
        real = real and jnp.ndim(value) == 0
    else:
        real = isinstance(value, int | float) and not isinstance(value, bool)
    if not real:
        raise TypeError(f"{owner}: {name} must be a number, got {value!r}")
