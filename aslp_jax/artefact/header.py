"""What the header of an artefact says, and whether it can be true.

Nothing here allocates more than the header itself: `sizes` checks it against the
network that it names before any array is made.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from aslp_jax.artefact import architecture, schema
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.description import Description
from aslp_jax.artefact.subnetwork import Origin
from aslp_jax.artefact.weight_recipe import (
    BIASES,
    GENERATOR,
    INITIALISERS,
    WeightRecipe,
)

MOST_WEIGHTS = 1 << 26
"""Of all arrays together: three times those of the largest network here."""

_DEEPEST = 64
_MOST_ARRAYS = 1 << 12


@dataclasses.dataclass(frozen=True)
class Segment:
    """A stretch of the file behind the header; sections follow one another.

    Attributes:
      bytes: in the file.
      deflated: whether they are compressed.
    """

    bytes: int
    deflated: bool


@dataclasses.dataclass(frozen=True)
class Array:
    """How one array of weights is kept.

    Attributes:
      name: path in the network's parameters.
      shape: of the array.
      origin: where the frozen weights come from; see `Entry.origin`.
      sha256: of the effective weights, 64 hexadecimal digits.
      scale: of the whole array.
      recipe: of the frozen weights.
      magnitude: of the frozen weights, where only signs are drawn or kept.
      mask: a bit for each weight; None where none can be dropped.
      inverted: a bit for each weight that is kept; None where none is inverted.
      data: signs, values or all weights, as the origin says.
    """

    name: str
    shape: tuple[int, ...]
    origin: Origin
    sha256: str
    scale: float | None
    recipe: WeightRecipe | None
    magnitude: float | None
    mask: Segment | None
    inverted: Segment | None
    data: Segment | None

    @property
    def sections(self) -> list[Segment]:
        """Those it has, in the order of the file."""
        return [each for each in (self.mask, self.inverted, self.data) if each]


@dataclasses.dataclass(frozen=True)
class ExtraArray:
    """An array that is no parameter, such as batch statistics: all of it is kept.

    Attributes:
      name: its collection and path, such as `batch_stats/BatchNorm_0/mean`.
      sha256: of the array, 64 hexadecimal digits.
      data: all its numbers.
    """

    name: str
    sha256: str
    data: Segment


@dataclasses.dataclass(frozen=True)
class Header:
    """What a file says of itself.

    Attributes:
      network: as `network.from_words` takes it.
      description: what it is about.
      arrays: of the parameters, sorted by name.
      collections: all other arrays, sorted by name.
    """

    network: dict[str, Any]
    description: Description
    arrays: tuple[Array, ...]
    collections: tuple[ExtraArray, ...]

    @property
    def sections(self) -> list[Segment]:
        """All, in the order of the file."""
        own = [section for array in self.arrays for section in array.sections]
        return own + [held.data for held in self.collections]


def to_json(header: Header) -> dict[str, Any]:
    """Returns the header as JSON values."""
    found = dataclasses.asdict(header)
    # Said once, by the network.
    found["network"]["image_shape"] = found["description"].pop("image_shape")
    del found["description"]["classes"]
    return {**found, "generator": GENERATOR}


def from_json(found: dict[str, Any]) -> Header:
    """Returns what a header says, checked value by value.

    Args:
      found: JSON values of any kind.

    Raises:
      ArtefactError: naming what is not as it should be.
    """
    try:
        return _header(found)
    except ArtefactError as error:
        raise ArtefactError(f"has a header whose {error}") from None


def _header(found: dict[str, Any]) -> Header:
    keys = ("arrays", "collections", "description", "generator", "network")
    top = schema.members(found, "top", keys)
    schema.one_of(top["generator"], "generator", (GENERATOR,))
    words, image_shape = _network(top["network"])
    said = {field.name for field in dataclasses.fields(Description)}
    about = schema.members(
        top["description"], "description", said - {"classes", "image_shape"}
    )
    return Header(
        network=words,
        description=Description(
            classes=words["classes"], image_shape=image_shape, **about
        ),
        arrays=_each(top, "arrays", _array),
        collections=_each(top, "collections", _held),
    )


def _each(
    top: Mapping[str, Any], what: str, parse: Callable[[Any, str], Any]
) -> tuple[Any, ...]:
    found = schema.items(top[what], what, _MOST_ARRAYS)
    return tuple(parse(each, f"{what}[{i}]") for i, each in enumerate(found))


def _network(value: Any) -> tuple[dict[str, Any], tuple[int, int, int]]:
    told = value.get("family") if type(value) is dict else None
    family = schema.one_of(told, "network.family", tuple(architecture.FAMILIES))
    keys = ("biases", "classes", "dtype", "family", "image_shape", "stages")
    hidden = ("hidden",) if family == "ConvNet" else ()
    words = dict(schema.members(value, "network", (*keys, *hidden)))
    schema.one_of(words["dtype"], "network.dtype", architecture.DTYPES)
    schema.boolean(words["biases"], "network.biases")
    schema.integer(words["classes"], "network.classes", 1, schema.WIDEST)
    height, width, channels = schema.sizes(
        words.pop("image_shape"), "network.image_shape", 3, 3
    )
    stages = words["stages"]
    if family == "VGG":
        lists = schema.items(stages, "network.stages", _DEEPEST)
        if not lists:
            raise schema.wrong("network.stages", stages, "a list of at least 1")
        words["stages"] = tuple(map(_stages, lists))
    else:
        words["stages"] = _stages(stages)
    if hidden:
        words["hidden"] = schema.sizes(words["hidden"], "network.hidden", 0, _DEEPEST)
    return words, (height, width, channels)


def _stages(value: Any) -> tuple[int, ...]:
    return schema.sizes(value, "network.stages", 1, _DEEPEST)


def _array(value: Any, what: str) -> Array:
    names = [field.name for field in dataclasses.fields(Array)]
    found = schema.members(value, what, names)
    origin = schema.one_of(
        found["origin"], f"{what}.origin", ("recipe", "signs", "values", "dense")
    )
    sections = {
        name: None if found[name] is None else _section(found[name], f"{what}.{name}")
        for name in ("mask", "inverted", "data")
    }
    scale, magnitude, recipe = (
        found[name] for name in ("scale", "magnitude", "recipe")
    )
    if scale is not None:
        scale = schema.single(scale, f"{what}.scale")
    if magnitude is not None:
        magnitude = schema.single(magnitude, f"{what}.magnitude")
        if magnitude <= 0:
            raise schema.wrong(f"{what}.magnitude", magnitude, "a number above 0")
    if recipe is not None:
        recipe = _recipe(recipe, f"{what}.recipe")
    array = Array(
        name=schema.text(found["name"], f"{what}.name"),
        shape=schema.sizes(found["shape"], f"{what}.shape", 1, 8, MOST_WEIGHTS),
        origin=origin,
        sha256=schema.digest(found["sha256"], f"{what}.sha256"),
        scale=scale,
        recipe=recipe,
        magnitude=magnitude,
        **sections,
    )
    _check_parts(array, what)
    return array


def _check_parts(array: Array, what: str) -> None:
    """Checks that an array has what its origin needs, and nothing else."""
    signs = array.recipe is not None and array.recipe.draws_signs
    wanted = {
        "recipe": array.origin == "recipe",
        "magnitude": signs or array.origin == "signs",
        "data": array.origin != "recipe",
    }
    if array.origin in ("values", "dense"):
        wanted["mask"] = array.origin == "values"
    if array.mask is None:
        wanted |= {"inverted": False, "scale": False}
    for name, needed in wanted.items():
        if (getattr(array, name) is not None) != needed:
            kind = f"origin {array.origin}" + ("" if array.mask else " and no mask")
            raise ArtefactError(
                f"{what} of {kind} {'lacks' if needed else 'cannot have'} a {name}"
            )
    if array.recipe is not None and len(array.shape) < array.recipe.fewest_axes:
        raise schema.wrong(
            f"{what}.shape",
            array.shape,
            f"the two axes that {array.recipe.initialiser} needs at least",
        )


def _recipe(value: Any, what: str) -> WeightRecipe:
    names = [field.name for field in dataclasses.fields(WeightRecipe)]
    found = schema.members(value, what, names)
    name = schema.one_of(found["initialiser"], f"{what}.initialiser", INITIALISERS)
    words = schema.items(found["key"], f"{what}.key", 2)
    if len(words) != 2:
        raise schema.wrong(f"{what}.key", words, "two words")
    first, second = (
        schema.integer(word, f"{what}.key", 0, (1 << 32) - 1) for word in words
    )
    fan_in = found["fan_in"]
    if fan_in is not None:
        schema.integer(fan_in, f"{what}.fan_in", 1, 1 << 53)
    recipe = WeightRecipe(name, (first, second), fan_in)
    if (name == BIASES) != (fan_in is not None):
        raise schema.wrong(f"{what}.fan_in", fan_in, f"what {name} draws from")
    return recipe


def _held(value: Any, what: str) -> ExtraArray:
    found = schema.members(value, what, ("name", "sha256", "data"))
    return ExtraArray(
        name=schema.text(found["name"], f"{what}.name"),
        sha256=schema.digest(found["sha256"], f"{what}.sha256"),
        data=_section(found["data"], f"{what}.data"),
    )


def _section(value: Any, what: str) -> Segment:
    found = schema.members(value, what, ("bytes", "deflated"))
    return Segment(
        schema.integer(found["bytes"], f"{what}.bytes", 0, 1 << 40),
        schema.boolean(found["deflated"], f"{what}.deflated"),
    )
