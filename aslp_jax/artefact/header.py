"""The header of an artefact as dataclasses, checked value by value.

Nothing here allocates more than the header itself. `validation` compares the header
with its network before any array is made. Field names are keys of the file format.
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
"""Largest number of weights in all arrays: three times the largest network here."""

_DEEPEST = 64
_MOST_ARRAYS = 1 << 12


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
      name: path in the network's parameters.
      shape: shape of the array.
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
    def segments(self) -> list[Segment]:
        """Segments of the array, in the order of the file."""
        return [each for each in (self.mask, self.inverted, self.data) if each]


@dataclasses.dataclass(frozen=True)
class ExtraArray:
    """Header of an array that is no parameter, such as batch statistics.

    Attributes:
      name: collection and path, such as `batch_stats/BatchNorm_0/mean`.
      sha256: sha256 of the array, 64 hexadecimal digits.
      data: all numbers of the array.
    """

    name: str
    sha256: str
    data: Segment


@dataclasses.dataclass(frozen=True)
class Header:
    """Header of a file.

    Attributes:
      network: config of the network, as `architecture.from_config` takes it.
      description: facts about the network.
      arrays: headers of the parameters, sorted by name.
      collections: headers of all other arrays, sorted by name.
    """

    network: dict[str, Any]
    description: Description
    arrays: tuple[ArrayHeader, ...]
    collections: tuple[ExtraArray, ...]

    @property
    def segments(self) -> list[Segment]:
        """All segments, in the order of the file."""
        of_arrays = [segment for array in self.arrays for segment in array.segments]
        return of_arrays + [extra.data for extra in self.collections]


def to_json(header: Header) -> dict[str, Any]:
    """Returns the header as JSON values."""
    values = dataclasses.asdict(header)
    # The file holds the image shape and the number of classes once, in `network`.
    values["network"]["image_shape"] = values["description"].pop("image_shape")
    del values["description"]["classes"]
    return {**values, "generator": GENERATOR}


def from_json(values: dict[str, Any]) -> Header:
    """Returns the header of JSON values, each of which is checked.

    Args:
      values: JSON values of any kind.

    Returns:
      The header.

    Raises:
      ArtefactError: a value is not as the format has it; the message names the value.
    """
    try:
        return _parse_header(values)
    except ArtefactError as error:
        raise ArtefactError(f"has a header whose {error}") from None


def _parse_header(values: dict[str, Any]) -> Header:
    keys = ("arrays", "collections", "description", "generator", "network")
    top = schema.check_object(values, "top level", keys)
    schema.check_choice(top["generator"], "generator", (GENERATOR,))
    config, image_shape = _parse_network(top["network"])
    fields = {field.name for field in dataclasses.fields(Description)}
    about = schema.check_object(
        top["description"], "description", fields - {"classes", "image_shape"}
    )
    return Header(
        network=config,
        description=Description(
            classes=config["classes"], image_shape=image_shape, **about
        ),
        arrays=_parse_each(top, "arrays", _parse_array),
        collections=_parse_each(top, "collections", _parse_extra_array),
    )


def _parse_each(
    top: Mapping[str, Any], key: str, parse: Callable[[Any, str], Any]
) -> tuple[Any, ...]:
    entries = schema.check_list(top[key], key, _MOST_ARRAYS)
    return tuple(parse(each, f"{key}[{i}]") for i, each in enumerate(entries))


def _parse_network(value: Any) -> tuple[dict[str, Any], tuple[int, int, int]]:
    name = value.get("family") if type(value) is dict else None
    families = tuple(architecture.FAMILIES)
    family = schema.check_choice(name, "network.family", families)
    keys = ("biases", "classes", "dtype", "family", "image_shape", "stages")
    hidden = ("hidden",) if family == "ConvNet" else ()
    config = dict(schema.check_object(value, "network", (*keys, *hidden)))
    schema.check_choice(config["dtype"], "network.dtype", architecture.DTYPES)
    schema.check_boolean(config["biases"], "network.biases")
    schema.check_integer(config["classes"], "network.classes", 1, schema.LARGEST_SIZE)
    height, width, channels = schema.check_sizes(
        config.pop("image_shape"), "network.image_shape", 3, 3
    )
    stages = config["stages"]
    if family == "VGG":
        lists = schema.check_list(stages, "network.stages", _DEEPEST)
        if not lists:
            raise schema.invalid("network.stages", stages, "a list of at least 1")
        config["stages"] = tuple(map(_parse_stages, lists))
    else:
        config["stages"] = _parse_stages(stages)
    if hidden:
        config["hidden"] = schema.check_sizes(
            config["hidden"], "network.hidden", 0, _DEEPEST
        )
    return config, (height, width, channels)


def _parse_stages(value: Any) -> tuple[int, ...]:
    return schema.check_sizes(value, "network.stages", 1, _DEEPEST)


def _parse_array(value: Any, label: str) -> ArrayHeader:
    names = [field.name for field in dataclasses.fields(ArrayHeader)]
    values = schema.check_object(value, label, names)
    origin = schema.check_choice(
        values["origin"], f"{label}.origin", ("recipe", "signs", "values", "dense")
    )
    segments = {
        name: None
        if values[name] is None
        else _parse_segment(values[name], f"{label}.{name}")
        for name in ("mask", "inverted", "data")
    }
    scale, magnitude, recipe = (
        values[name] for name in ("scale", "magnitude", "recipe")
    )
    if scale is not None:
        scale = schema.round_to_float32(scale, f"{label}.scale")
    if magnitude is not None:
        magnitude = schema.round_to_float32(magnitude, f"{label}.magnitude")
        if magnitude <= 0:
            expected = "a number above 0"
            raise schema.invalid(f"{label}.magnitude", magnitude, expected)
    if recipe is not None:
        recipe = _parse_recipe(recipe, f"{label}.recipe")
    array = ArrayHeader(
        name=schema.check_text(values["name"], f"{label}.name"),
        shape=schema.check_sizes(values["shape"], f"{label}.shape", 1, 8, MOST_WEIGHTS),
        origin=origin,
        sha256=schema.check_sha256(values["sha256"], f"{label}.sha256"),
        scale=scale,
        recipe=recipe,
        magnitude=magnitude,
        **segments,
    )
    _check_parts(array, label)
    return array


def _check_parts(array: ArrayHeader, label: str) -> None:
    """Checks that an array has the parts that its origin needs, and no others."""
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
                f"{label} of {kind} {'lacks' if needed else 'cannot have'} a {name}"
            )
    if array.recipe is not None and len(array.shape) < array.recipe.fewest_axes:
        raise schema.invalid(
            f"{label}.shape",
            array.shape,
            f"at least the two axes that {array.recipe.initialiser} needs",
        )


def _parse_recipe(value: Any, label: str) -> WeightRecipe:
    names = [field.name for field in dataclasses.fields(WeightRecipe)]
    values = schema.check_object(value, label, names)
    name = schema.check_choice(
        values["initialiser"], f"{label}.initialiser", INITIALISERS
    )
    words = schema.check_list(values["key"], f"{label}.key", 2)
    if len(words) != 2:
        raise schema.invalid(f"{label}.key", words, "two words")
    first, second = (
        schema.check_integer(word, f"{label}.key", 0, (1 << 32) - 1) for word in words
    )
    fan_in = values["fan_in"]
    if fan_in is not None:
        schema.check_integer(fan_in, f"{label}.fan_in", 1, 1 << 53)
    if (name == BIASES) != (fan_in is not None):
        expected = f"{'an integer' if name == BIASES else 'null'} for {name}"
        raise schema.invalid(f"{label}.fan_in", fan_in, expected)
    return WeightRecipe(name, (first, second), fan_in)


def _parse_extra_array(value: Any, label: str) -> ExtraArray:
    values = schema.check_object(value, label, ("name", "sha256", "data"))
    return ExtraArray(
        name=schema.check_text(values["name"], f"{label}.name"),
        sha256=schema.check_sha256(values["sha256"], f"{label}.sha256"),
        data=_parse_segment(values["data"], f"{label}.data"),
    )


def _parse_segment(value: Any, label: str) -> Segment:
    values = schema.check_object(value, label, ("bytes", "deflated"))
    return Segment(
        schema.check_integer(values["bytes"], f"{label}.bytes", 0, 1 << 40),
        schema.check_boolean(values["deflated"], f"{label}.deflated"),
    )
