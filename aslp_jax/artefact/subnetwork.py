"""Extracted networks: arrays of weights one by one, and a function of images."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax import evaluate
from aslp_jax.artefact.description import Description
from aslp_jax.artefact.source import Source
from aslp_jax.artefact.weight_recipe import WeightRecipe, common_magnitude
from aslp_jax.data import augment

Origin = Literal["recipe", "signs", "values", "dense"]


@dataclasses.dataclass(frozen=True, eq=False)
class LayerWeights:
    """Weights of one array, and the parts from which a file restores them.

    `weights` is scale * (ternary_mask * frozen), where a scale of None is 1. It is 0
    (not -0) where the ternary mask is 0. Without a mask it is `frozen` itself.

    Attributes:
      name: path of the array in the network's parameters, joined by `/`.
      weights: effective weights; float32, but for networks that have other dtypes.
      frozen: frozen weights in the shape and dtype of `weights`, without mask and
        scale. Without a recipe the dropped ones are 0.
      mask: bool in the shape of `weights`, True where a weight is kept; None if the
        array is not masked.
      ternary_mask: int8 in the shape of `weights`, each -1 (inverted), 0 (dropped) or 1
        (kept); None if the array is not masked.
      scale: scale of the array; None for 1.
      recipe: recipe that initialises `frozen` again; None if a file stores `frozen`.
      magnitude: absolute value of all frozen weights, without a recipe of the kept
        ones; None if they differ.
    """

    name: str
    weights: np.ndarray
    frozen: np.ndarray
    mask: np.ndarray | None
    ternary_mask: np.ndarray | None
    scale: np.float32 | None
    recipe: WeightRecipe | None
    magnitude: np.float32 | None

    @property
    def kept(self) -> int:
        """Number of kept weights."""
        return self.weights.size if self.mask is None else int(self.mask.sum())

    @property
    def origin(self) -> Origin:
        """Source of the frozen weights in a file.

        `"recipe"`: they are initialised again. `"signs"`: the file stores the magnitude
        and a bit for each kept weight. `"values"`: it stores the kept weights.
        `"dense"`: it stores all weights.
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
    ternary_mask: np.ndarray | None = None,
    scale: np.float32 | None = None,
    recipe: WeightRecipe | None = None,
) -> LayerWeights:
    """Computes the weights of one array from its parts.

    Args:
      name: path of the array in the network's parameters, joined by `/`.
      frozen: frozen weights; without a recipe the dropped ones count as 0.
      ternary_mask: int8 in the shape of `frozen`, each -1, 0 or 1; None if the array is
        not masked.
      scale: scale of the array; None for 1.
      recipe: recipe that initialises `frozen` again; None if a file stores `frozen`.

    Returns:
      The weights and their parts.
    """
    if ternary_mask is None:
        return LayerWeights(
            name, frozen, frozen, None, None, None, recipe, common_magnitude(frozen)
        )
    mask = ternary_mask != 0
    if recipe is None:
        frozen = np.where(mask, frozen, frozen.dtype.type(0))
    magnitude = common_magnitude(frozen if recipe else frozen[mask])
    weights = np.asarray(np.multiply(ternary_mask, frozen, dtype=np.float32))
    if scale is not None:
        weights *= scale
    weights = weights.astype(frozen.dtype, copy=False)
    # Dropped weights are 0 and never -0. A product may be either, as it is compiled.
    weights[~mask] = 0
    return LayerWeights(
        name, weights, frozen, mask, ternary_mask, scale, recipe, magnitude
    )


def embed(subnetwork: "Subnetwork") -> "Subnetwork":
    """Returns the same network with stored frozen weights in place of recipes.

    Its file is larger, and loading it initialises nothing. Signed constants take one
    more bit for each kept weight, other weights 32.

    Args:
      subnetwork: the network.

    Returns:
      The network; no layer has a recipe.
    """
    layers = {
        name: make_layer_weights(
            name, layer.frozen, ternary_mask=layer.ternary_mask, scale=layer.scale
        )
        for name, layer in subnetwork.layers.items()
    }
    return dataclasses.replace(subnetwork, layers=layers)


@dataclasses.dataclass(frozen=True, eq=False)
class Subnetwork:
    """A network of selected weights, ready to run.

    Attributes:
      net: the plain network, in any form that `functional.network` takes: a Flax Linen
        module for a network of this library. None for the arrays of another network
        that were read without it.
      variables: `{"params": effective weights, **other collections}`.
      layers: weights of every array of `params` by name.
      description: facts about the network.
      source: name of a network that is not of this library; None for one that is.
    """

    net: Any
    variables: Mapping[str, Any]
    layers: Mapping[str, LayerWeights]
    description: Description
    source: Source | None = None

    def __call__(self, images: jax.Array | np.ndarray) -> jax.Array:
        """Returns class logits, or the other outputs of the network.

        Args:
          images: `[batch, *description.image_shape]` with at least one image. uint8
            images are prepared by `prepare`; float32 images are inputs of the network.

        Returns:
          `[batch, *description.outputs]`, float32 for the networks of this library. On
          the same device they equal, bit for bit, the result of `evaluate.outputs` for
          the thresholded network that was extracted, if that network convolves with
          `convolution.of_platform` of the device, as the networks of runs do. Otherwise
          they are equal up to rounding.

        Raises:
          TypeError: `images` are neither uint8 nor float32.
          ValueError: `images` have another shape, or there are none; or `net` is None.
        """
        if self.net is None:
            raise ValueError(
                f"Subnetwork: the arrays of {self.source} were read without the "
                "network; load them with net="
            )
        images = jnp.asarray(images)
        shape = self.description.image_shape
        if images.shape[1:] != shape or images.shape[:1] == (0,):
            raise ValueError(
                f"Subnetwork: images must be [batch, {', '.join(map(str, shape))}] "
                f"with at least one of them, got shape {images.shape}"
            )
        if images.dtype not in (jnp.uint8, jnp.float32):
            raise TypeError(
                f"Subnetwork: images must be uint8 or float32, got {images.dtype}"
            )
        prepare = _identity if images.dtype == jnp.float32 else self.prepare
        return evaluate.run(self.variables, images, net=self.net, prepare=prepare)

    @property
    def prepare(self) -> Callable[[jax.Array], jax.Array]:
        """Function from uint8 images to inputs of the network."""
        return _make_prepare(self.description.mean, self.description.std)


# Cached: equal arguments give the same function, so that it is compiled once.
@functools.lru_cache(maxsize=8)
def _make_prepare(
    mean: tuple[float, ...] | None, std: tuple[float, ...] | None
) -> Callable[[jax.Array], jax.Array]:
    return functools.partial(augment.to_float, mean=mean, std=std)


def _identity(images: jax.Array) -> jax.Array:
    return images
