"""How frozen weights are drawn again: an initialiser by name, and the key it was given.

The key is that of the array itself, so that drawing it again needs neither the rules by
which Flax derives the keys of layers nor the network: any program that can compute
Threefry-2x32 can do it.
"""

import contextlib
import dataclasses
import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax.typing import Initializer

from aslp_jax import initialisers

GENERATOR = "threefry2x32"
"""The only generator that keys are noted of, in its partitionable form."""

_KERNELS: dict[str, Initializer] = {
    "kaiming_normal": initialisers.kaiming_normal(),
    # Of one magnitude, which is noted to the bit: the signs alone are drawn again.
    "signed_constant": initialisers.kaiming_normal(),
    "kaiming_constant": initialisers.kaiming_constant(),
}
_SIGNS = ("signed_constant", "kaiming_constant")
BIASES = "fan_in_uniform"
"""The one that draws from a fan_in."""

INITIALISERS = (*_KERNELS, BIASES)
"""Names that a recipe can have."""


@dataclasses.dataclass(frozen=True)
class Recipe:
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

    def draw(self, shape: tuple[int, ...], platform: str) -> np.ndarray:
        """Draws the weights again; where only signs are drawn, any of those signs.

        Args:
          shape: of the array.
          platform: of the device to draw on, such as `"cpu"`; normal numbers differ in
            their last bits between kinds of devices.

        Returns:
          float32 in that shape.
        """
        if self.fan_in is not None:
            initialiser = _uniform(self.fan_in)
        else:
            initialiser = _KERNELS[self.initialiser]
        device = jax.local_devices(backend=platform)[0]
        with jax.default_device(device), jax.threefry_partitionable(True):
            words = jnp.asarray(np.array(self.key, np.uint32))
            return np.asarray(_draw(words, initialiser=initialiser, shape=shape))


def with_signs(magnitude: np.float32, negative: np.ndarray) -> np.ndarray:
    """Returns weights of one magnitude, float32, negative where `negative` is True."""
    return np.where(negative, -magnitude, magnitude)


def find(frozen: np.ndarray, key: tuple[int, int], fan_in: int | None) -> Recipe | None:
    """Returns the recipe that gives these very weights, to the bit.

    Args:
      frozen: float32, as an initialiser drew them.
      key: the words of the key that it was given.
      fan_in: for biases, what their initialiser was told; None for kernels.

    Returns:
      The recipe; None where no known initialiser gives them.
    """
    magnitude = magnitude_of(frozen)
    names: tuple[str, ...] = (BIASES,)
    if fan_in is None:
        names = ("kaiming_normal",) if magnitude is None else _SIGNS
    for name in names:
        recipe = Recipe(name, key, fan_in)
        for platform in platforms():
            drawn = recipe.draw(frozen.shape, platform)
            if recipe.draws_signs and magnitude is not None:
                drawn = with_signs(magnitude, np.signbit(drawn))
            if same_bits(drawn, frozen):
                return recipe
    return None


def platforms() -> list[str]:
    """Returns where weights may be drawn: on the default device, and on the CPU."""
    found = [jax.default_backend()]
    if "cpu" not in found:
        with contextlib.suppress(RuntimeError):  # jax was told to use no CPU
            jax.local_devices(backend="cpu")
            found.append("cpu")
    return found


def same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    """Returns whether two float32 arrays of one shape are the same to the last bit."""
    return np.array_equal(one.view(np.uint32), other.view(np.uint32))


def magnitude_of(weights: np.ndarray) -> np.float32 | None:
    """Returns the one magnitude of all weights; None where they have several, or 0."""
    if weights.size == 0:
        return None
    sizes = np.abs(weights)
    first = sizes.flat[0]
    one = first > 0 and math.isfinite(first) and bool((sizes == first).all())
    return np.float32(first) if one else None


# As one program, as the weights of a run are drawn: op by op the last bits differ.
@functools.partial(jax.jit, static_argnames=("initialiser", "shape"))
def _draw(words: jax.Array, *, initialiser: Initializer, shape: tuple[int, ...]):
    key = jax.random.wrap_key_data(words, impl=GENERATOR)
    return initialiser(key, shape, jnp.float32)


# The same object for the same, so that it is compiled once.
@functools.lru_cache(maxsize=64)
def _uniform(fan_in: int) -> Initializer:
    return initialisers.fan_in_uniform(fan_in)
