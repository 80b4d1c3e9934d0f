"""The header of an artefact as dataclasses, the same for both formats.

`header_json` reads and writes it; field names are keys of format 2. `validation`
compares the header with its network before any array is made.
"""

import dataclasses
from typing import Any

from aslp_jax.artefact.description import Description
from aslp_jax.artefact.source import Source
from aslp_jax.artefact.subnetwork import Origin
from aslp_jax.artefact.weight_recipe import WeightRecipe

MOST_WEIGHTS = 1 << 26
"""Largest number of weights in all arrays: three times the largest network here."""


@dataclasses.dataclass(frozen=True)
class Segment:
    """A range of bytes behind the header; segments follow one another.

    Attributes:
      bytes: size in the file.
      deflated: True if the bytes are compressed.
    """

    bytes: int
    deflated: bool


@dataclasses.dataclass(frozen=True)
class ArrayHeader:
    """Header of one array of weights.

    Attributes:
      path: path in the weights.
      shape: shape of the array.
      dtype: dtype of the array, one of `packing.DTYPES`; float32 in format 1.
      origin: source of the frozen weights; see `LayerWeights.origin`.
      sha256: sha256 of the effective weights, 64 hexadecimal digits.
      scale: scale of the array; None for 1.
      recipe: recipe of the frozen weights; None if `data` holds them.
      magnitude: absolute value of the frozen weights, if only signs are drawn or
        stored; None otherwise.
      mask: a bit for each weight; None if the array is not masked.
      inverted: a bit for each kept weight; None if no weight is inverted.
      data: signs, kept weights or all weights, according to `origin`; None with a
        recipe.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...]
    dtype: str
    origin: Origin
    sha256: str
    scale: float | None
    recipe: WeightRecipe | None
    magnitude: float | None
    mask: Segment | None
    inverted: Segment | None
    data: Segment | None

    @property
    def name(self) -> str:
        """Path in the weights, joined by `/`."""
        return "/".join(self.path)

    @property
    def segments(self) -> list[Segment]:
        """Segments of the array, in the order of the file."""
        return [each for each in (self.mask, self.inverted, self.data) if each]


@dataclasses.dataclass(frozen=True)
class ExtraArray:
    """Header of an array that is no parameter, such as batch statistics.

    Attributes:
      path: collection and path in it, such as `("batch_stats", "norm", "mean")`.
      shape: shape of the array; None in format 1, where the network fixes it.
      dtype: dtype of the array, one of `packing.DTYPES`; float32 in format 1.
      sha256: sha256 of the array, 64 hexadecimal digits.
      data: all numbers of the array.
    """

    path: tuple[str, ...]
    shape: tuple[int, ...] | None
    dtype: str
    sha256: str
    data: Segment

    @property
    def name(self) -> str:
        """Collection and path in it, joined by `/`."""
        return "/".join(self.path)


@dataclasses.dataclass(frozen=True)
class Header:
    """Header of a file.

    Attributes:
      network: config of a network of this library, as `architecture.from_config` takes
        it; the name of another network; None for a tree of arrays without a network.
      description: facts about the network; None without a network.
      arrays: headers of the weights; sorted by name for a network of this library.
      collections: headers of all other arrays, in the same way.
    """

    network: dict[str, Any] | Source | None
    description: Description | None
    arrays: tuple[ArrayHeader, ...]
    collections: tuple[ExtraArray, ...]

    @property
    def all_arrays(self) -> tuple[ArrayHeader | ExtraArray, ...]:
        """Headers of all arrays, in the order of the file."""
        return (*self.arrays, *self.collections)

    @property
    def segments(self) -> list[Segment]:
        """All segments, in the order of the file."""
        of_arrays = [segment for array in self.arrays for segment in array.segments]
        return of_arrays + [extra.data for extra in self.collections]
