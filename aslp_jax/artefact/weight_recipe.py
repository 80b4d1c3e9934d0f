"""Recipes of frozen weights: the name of an initialiser, and its PRNG key.

The key is the one that the array's own initialiser received. Initialising an array
again therefore needs neither the network nor Flax's rules for the keys of layers: any
program that computes Threefry-2x32 can do it.
"""

import contextlib
import dataclasses
import functools
import math
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer

from aslp_jax.artefact.packing import FLOATS
from aslp_jax.models import initialisers
from aslp_jax.ops import threefry

GENERATOR = "threefry2x32"
"""Generator of all keys in recipes, in its partitionable form."""

BIASES = "fan_in_uniform"
"""Name of the initialiser that takes a `fan_in`."""

_SIGNS = {"signed_constant": 0, "kaiming_constant": 1}
"""Sign-only initialisers, mapped to the top bit of a word that means "negative".

The top bit is that of a normal number's quantile: 1 for a positive number.
"""

_KAIMING = initialisers.kaiming_normal()

INITIALISERS = ("kaiming_normal", *_SIGNS, BIASES)
"""Names of initialisers that a recipe can have."""


@dataclasses.dataclass(frozen=True)
class WeightRecipe:
    """Recipe that initialises the frozen weights of one array again.

    Attributes:
      initialiser: one of `INITIALISERS`.
      key: two words of the array's own Threefry-2x32 key, in [0, 2**32).
      fan_in: inputs of a unit, for `fan_in_uniform`; None for other initialisers, whose
        fan-in is the product of all axes but the last.
    """

    initialiser: str
    key: tuple[int, int]
    fan_in: int | None = None

    @property
    def draws_signs(self) -> bool:
        """True if all weights have one magnitude and only signs are drawn."""
        return self.initialiser in _SIGNS

    @property
    def fewest_axes(self) -> int:
        """Least number of axes of an array with this recipe."""
        return 2 if self.initialiser == "kaiming_normal" else 1


def initialise(
    recipe: WeightRecipe, shape: tuple[int, ...], magnitude: np.float32 | None
) -> Iterator[np.ndarray]:
    """Initialises weights again, in each way that may give the same bits.

    Signs are drawn with integers and are the same everywhere. Other weights are drawn
    by the default device and then by the CPU, each time as one compiled program: the
    last bits of normal numbers differ between kinds of devices and between compilers.

    Args:
      recipe: recipe of the array.
      shape: shape of the array.
      magnitude: absolute value of every weight for a recipe that draws signs; None for
        other recipes.

    Yields:
      float32 in that shape.
    """
    if magnitude is not None:
        top_bits = threefry.bits_on_host(recipe.key, math.prod(shape))
        top_bits >>= np.uint32(31)
        negative = top_bits == _SIGNS[recipe.initialiser]
        del top_bits  # as large as the weights
        yield apply_signs(magnitude, negative.reshape(shape))
        return
    initialiser = _KAIMING if recipe.fan_in is None else _uniform(recipe.fan_in)
    for platform in _platforms():
        device = jax.local_devices(backend=platform)[0]
        with jax.default_device(device), jax.threefry_partitionable(True):
            words = jnp.asarray(np.array(recipe.key, np.uint32))
            weights = _initialise(words, initialiser=initialiser, shape=shape)
        yield np.asarray(weights)


def find(
    frozen: np.ndarray, key: tuple[int, int], fan_in: int | None
) -> WeightRecipe | None:
    """Returns the recipe that gives some weights to the last bit.

    Args:
      frozen: result of an initialiser; only float32 weights have a recipe.
      key: words of the key that the initialiser received.
      fan_in: for biases, the fan-in that their initialiser received; None for kernels.

    Returns:
      The recipe; None if no known initialiser gives these weights.
    """
    if frozen.dtype != np.float32:
        return None
    magnitude = common_magnitude(frozen) if fan_in is None else None
    names: tuple[str, ...] = ("kaiming_normal",) if fan_in is None else (BIASES,)
    if magnitude is not None:
        names = tuple(_SIGNS)
    for name in names:
        recipe = WeightRecipe(name, key, fan_in)
        if frozen.ndim < recipe.fewest_axes:
            continue
        for weights in initialise(recipe, frozen.shape, magnitude):
            if np.array_equal(weights.view(np.uint32), frozen.view(np.uint32)):
                return recipe
    return None


def apply_signs(magnitude: np.float32, negative: np.ndarray) -> np.ndarray:
    """Returns float32 weights of one magnitude, negative where `negative` is True."""
    return np.where(negative, -magnitude, magnitude)


def common_magnitude(weights: np.ndarray) -> np.float32 | None:
    """Returns the absolute value of all floats; None if they differ or are 0."""
    if weights.size == 0 or weights.dtype.name not in FLOATS:
        return None
    first = np.abs(np.float32(weights.flat[0]))
    if not 0 < first < np.inf:
        return None
    return first if ((weights == first) | (weights == -first)).all() else None


def _platforms() -> list[str]:
    """Returns the platforms to initialise weights on: the default one, then the CPU."""
    platforms = [jax.default_backend()]
    if "cpu" not in platforms:
        with contextlib.suppress(RuntimeError):  # JAX is configured without a CPU
            jax.local_devices(backend="cpu")
            platforms.append("cpu")
    return platforms


# One program, as in a run: op by op the last bits differ.
@functools.partial(jax.jit, static_argnames=("initialiser", "shape"))
def _initialise(
    words: jax.Array, *, initialiser: Initializer, shape: tuple[int, ...]
) -> jax.Array:
    key = jax.random.wrap_key_data(words, impl=GENERATOR)
    return initialiser(key, shape, jnp.float32)


# Cached: equal arguments give the same function, so that it is compiled once.
@functools.lru_cache(maxsize=64)
def _uniform(fan_in: int) -> Initializer:
    return initialisers.fan_in_uniform(fan_in)
