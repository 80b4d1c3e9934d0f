"""How frozen weights are drawn again: an initialiser by name, and the key it was given.

The key is that of the array itself, so that drawing it again needs neither the rules by
which Flax derives the keys of layers nor the network: any program that can compute
Threefry-2x32 can do it.
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

from aslp_jax.models import initialisers
from aslp_jax.ops import threefry

GENERATOR = "threefry2x32"
"""The only generator that keys are noted of, in its partitionable form."""

BIASES = "fan_in_uniform"
"""The initialiser that draws from a fan_in."""

_SIGNS = {"signed_constant": 0, "kaiming_constant": 1}
"""Of weights of one magnitude, by what the highest bit of a word is if its weight is
negative: the sign of a normal number is that of its quantile less one half."""

_KAIMING = initialisers.kaiming_normal()

INITIALISERS = ("kaiming_normal", *_SIGNS, BIASES)
"""Names that a recipe can have."""


@dataclasses.dataclass(frozen=True)
class WeightRecipe:
    """How the frozen weights of one array are drawn again.

    Attributes:
      initialiser: one of `INITIALISERS`.
      key: the two words of the array's own Threefry-2x32 key, in [0, 2**32).
      fan_in: inputs of a unit, which `fan_in_uniform` draws from; None for the others,
        which take the product of all axes but the last.
    """

    initialiser: str
    key: tuple[int, int]
    fan_in: int | None = None

    @property
    def draws_signs(self) -> bool:
        """Whether only signs are drawn, of weights of one known magnitude."""
        return self.initialiser in _SIGNS

    @property
    def fewest_axes(self) -> int:
        """That an array must have, the last one being left out of a fan-in."""
        return 2 if self.initialiser == "kaiming_normal" else 1


def initialise(
    recipe: WeightRecipe, shape: tuple[int, ...], magnitude: np.float32 | None
) -> Iterator[np.ndarray]:
    """Draws weights again, in each way that may give the very same bits.

    Signs are drawn in integers, so that they are the same everywhere. Other weights are
    drawn by the default device and then by the CPU, as one compiled program, since the
    last bits of normal numbers differ between kinds of devices, and between compilers.

    Args:
      recipe: how.
      shape: of the array.
      magnitude: of every weight, where only signs are drawn.

    Yields:
      float32 in that shape.
    """
    if magnitude is not None:
        highest = threefry.bits_on_host(recipe.key, math.prod(shape))
        highest >>= np.uint32(31)
        negative = highest == _SIGNS[recipe.initialiser]
        del highest  # as large as the weights
        yield with_signs(magnitude, negative.reshape(shape))
        return
    initialiser = _KAIMING if recipe.fan_in is None else _uniform(recipe.fan_in)
    for platform in _platforms():
        device = jax.local_devices(backend=platform)[0]
        with jax.default_device(device), jax.threefry_partitionable(True):
            words = jnp.asarray(np.array(recipe.key, np.uint32))
            weights = _draw(words, initialiser=initialiser, shape=shape)
        yield np.asarray(weights)


def find(
    frozen: np.ndarray, key: tuple[int, int], fan_in: int | None
) -> WeightRecipe | None:
    """Returns the recipe that gives these very weights, to the bit.

    Args:
      frozen: float32, as an initialiser drew them.
      key: the words of the key that it was given.
      fan_in: for biases, what their initialiser was told; None for kernels.

    Returns:
      The recipe; None where no known initialiser gives them.
    """
    magnitude = magnitude_of(frozen) if fan_in is None else None
    names: tuple[str, ...] = ("kaiming_normal",) if fan_in is None else (BIASES,)
    if magnitude is not None:
        names = tuple(_SIGNS)
    for name in names:
        recipe = WeightRecipe(name, key, fan_in)
        for drawn in initialise(recipe, frozen.shape, magnitude):
            if np.array_equal(drawn.view(np.uint32), frozen.view(np.uint32)):
                return recipe
    return None


def with_signs(magnitude: np.float32, negative: np.ndarray) -> np.ndarray:
    """Returns weights of one magnitude, float32, negative where `negative` is True."""
    return np.where(negative, -magnitude, magnitude)


def magnitude_of(weights: np.ndarray) -> np.float32 | None:
    """Returns the one magnitude of all weights; None where they have several, or 0."""
    if weights.size == 0:
        return None
    first = np.abs(np.float32(weights.flat[0]))
    if not 0 < first < np.inf:
        return None
    return first if ((weights == first) | (weights == -first)).all() else None


def _platforms() -> list[str]:
    """Where weights may be drawn: on the default device, and on the CPU."""
    found = [jax.default_backend()]
    if "cpu" not in found:
        with contextlib.suppress(RuntimeError):  # jax was told to use no CPU
            jax.local_devices(backend="cpu")
            found.append("cpu")
    return found


# As one program, as the weights of a run are drawn: op by op the last bits differ.
@functools.partial(jax.jit, static_argnames=("initialiser", "shape"))
def _draw(
    words: jax.Array, *, initialiser: Initializer, shape: tuple[int, ...]
) -> jax.Array:
    key = jax.random.wrap_key_data(words, impl=GENERATOR)
    return initialiser(key, shape, jnp.float32)


# The same object for the same, so that it is compiled once.
@functools.lru_cache(maxsize=64)
def _uniform(fan_in: int) -> Initializer:
    return initialisers.fan_in_uniform(fan_in)
