"""What an extracted network is: its arrays one by one, and a function of images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax import evaluate
from aslp_jax.artefact.description import Description
from aslp_jax.artefact.weight_recipe import WeightRecipe, magnitude_of
from aslp_jax.data import augment

Origin = Literal["recipe", "signs", "values", "dense"]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerWeights:
    """One array of weights, whole and in the parts that a file is made of.

    `weights` is scale * (factors * frozen), a scale of None being 1, and 0 (not -0)
    where the factor is 0; of an array that is not masked it is `frozen` itself.

    Attributes:
      name: path of the array in the network's parameters, joined by `/`.
      weights: float32, the effective ones, that the network runs on.
      frozen: float32 in the shape of `weights`, before factors and scale. Without a
        recipe those that are dropped are 0.
      mask: bool in that shape, which weights are kept; None where none can be dropped.
      factors: int8 in that shape, each -1 (inverted), 0 (dropped) or 1; None without a
        mask.
      scale: of the whole array; None where it has none.
      recipe: how `frozen` is drawn again; None where it is kept itself.
      magnitude: where the frozen weights, without a recipe those that are kept, are all
        this number or its negative; None where they are not.
    """

    name: str
    weights: np.ndarray
    frozen: np.ndarray
    mask: np.ndarray | None
    factors: np.ndarray | None
    scale: np.float32 | None
    recipe: WeightRecipe | None
    magnitude: np.float32 | None

    @property
    def kept(self) -> int:
        """How many of the weights are kept."""
        return self.weights.size if self.mask is None else int(self.mask.sum())

    @property
    def origin(self) -> Origin:
        """Where a file has the frozen weights from.

        `"recipe"`: they are drawn again. `"signs"`: one bit for each that is kept, and
        the magnitude. `"values"`: those that are kept. `"dense"`: all.
        """
        if self.recipe is not None:
            return "recipe"
        if self.magnitude is not None:
            return "signs"
        return "dense" if self.mask is None else "values"


def make_layer_weights(
    name: str,
    frozen: np.ndarray,
    *,
    factors: np.ndarray | None = None,
    scale: np.float32 | None = None,
    recipe: WeightRecipe | None = None,
) -> LayerWeights:
    """Puts an entry together from what decides it.

    Args:
      name: of the array.
      frozen: float32; without a recipe those that are dropped count as 0.
      factors: int8 in its shape, each -1, 0 or 1; None where none can be dropped.
      scale: of the whole array, None for 1.
      recipe: how `frozen` is drawn again.
    """
    if factors is None:
        return LayerWeights(
            name, frozen, frozen, None, None, None, recipe, magnitude_of(frozen)
        )
    mask = factors != 0
    if recipe is None:
        frozen = np.where(mask, frozen, np.float32(0))
    magnitude = magnitude_of(frozen if recipe else frozen[mask])
    weights = np.multiply(factors, frozen, dtype=np.float32)
    if scale is not None:
        weights *= scale
    # What is dropped is 0 and never -0, which a product may be or not, as compiled.
    weights[~mask] = 0
    return LayerWeights(name, weights, frozen, mask, factors, scale, recipe, magnitude)


def embed(subnetwork: "Subnetwork") -> "Subnetwork":
    """Returns the same network with its frozen weights in the place of recipes.

    A file of it is larger and needs nothing to be drawn again: for signed constants one
    more bit for each weight that is kept, for others 32.

    Args:
      subnetwork: the network.
    """
    entries = {
        name: make_layer_weights(
            name, each.frozen, factors=each.factors, scale=each.scale
        )
        for name, each in subnetwork.entries.items()
    }
    return dataclasses.replace(subnetwork, entries=entries)


@dataclasses.dataclass(frozen=True, eq=False)
class Subnetwork:
    """A network of selected weights, ready to run.

    Attributes:
      net: the plain Flax module.
      variables: `{"params": effective weights, **other collections}`, float32 arrays.
      entries: every array of `params` by name, in the order of the tree.
      description: what it is about.
    """

    net: nn.Module
    variables: Mapping[str, Any]
    entries: Mapping[str, LayerWeights]
    description: Description

    def __call__(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Returns class logits.

        Args:
          images: `[batch, height, width, channels]`, at least one image: uint8, which
            are prepared as those that the network was selected on; or float32 inputs
            that are.

        Returns:
          float32 `[batch, classes]`. On the same device they are the same bits as
          `evaluate.outputs` gives for the thresholded network that was extracted,
          where that convolves with `convolution.of_platform` of the device, as those of
          runs do; where it convolves otherwise, the same up to rounding.

        Raises:
          TypeError: `images` are neither uint8 nor float32.
          ValueError: they have another shape, or there are none.
        """
        images = jnp.asarray(images)
        if images.shape[1:] != self.description.image_shape or images.shape[:1] == (0,):
            height, width, channels = self.description.image_shape
            raise ValueError(
                f"Subnetwork: images must be [batch, {height}, {width}, {channels}] "
                f"with at least one of them, got shape {images.shape}"
            )
        if images.dtype not in (jnp.uint8, jnp.float32):
            raise TypeError(
                f"Subnetwork: images must be uint8 or float32, got {images.dtype}"
            )
        prepare = _as_they_are if images.dtype == jnp.float32 else self.prepare
        return evaluate.run(self.variables, images, net=self.net, prepare=prepare)

    @property
    def prepare(self) -> Callable[[jax.Array], jax.Array]:
        """What turns uint8 images into the network's inputs."""
        return _preparation(self.description.mean, self.description.std)


# The same object for the same, so that what runs it is compiled once.
@functools.lru_cache(maxsize=8)
def _preparation(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Callable[[jax.Array], jax.Array]:
    return functools.partial(augment.to_float, mean=mean, std=std)


def _as_they_are(images: jax.Array) -> jax.Array:
    return images
