"""The header of an artefact as JSON values, checked value by value.

Nothing here allocates more than the header itself.
"""

import dataclasses
import itertools
from collections.abc import Callable, Mapping
from typing import Any

from aslp_jax.artefact import architecture, packing, schema
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.description import Description
from aslp_jax.artefact.header import (
    MOST_WEIGHTS,
    ArrayHeader,
    ExtraArray,
    Header,
    Segment,
)
from aslp_jax.artefact.source import Source
from aslp_jax.artefact.weight_recipe import (
    BIASES,
    GENERATOR,
    INITIALISERS,
    WeightRecipe,
)

FLOAT32 = "float32"
"""Dtype of every array in format 1."""

_LONGEST_PATH = 32
_MOST_ARRAYS = 1 << 12

_NEW_FACTS = ("classes", "output_shape", "class_names")
"""Fields of a description that format 1 has elsewhere or not at all."""


def to_json(header: Header, version: int) -> dict[str, Any]:
    """Returns the header as JSON values.

    Args:
      header: header of a file.
      version: version of the format. Version 1 holds only what `fits_format_1` accepts.
    """
    values = dataclasses.asdict(header)
    if version == 1:
        # The file holds the image shape and the number of classes once, in `network`.
        values["network"]["image_shape"] = values["description"].pop("image_shape")
        for name in _NEW_FACTS:
            del values["description"][name]
        for array in [*values["arrays"], *values["collections"]]:
            array["name"] = "/".join(array.pop("path"))
            del array["dtype"]
        for extra in values["collections"]:
            del extra["shape"]
    return {**values, "generator": GENERATOR}


def fits_format_1(header: Header) -> bool:
    """Returns True if format 1 can hold a header.

    Args:
      header: header of a file of any format.
    """
    about = header.description
    return (
        isinstance(header.network, dict)
        and about is not None
        and about.classes == header.network["classes"]
        and not about.class_names
        and {each.dtype for each in header.all_arrays} == {FLOAT32}
    )


def from_json(values: dict[str, Any], version: int) -> Header:
    """Returns the header of JSON values, each of which is checked.

    Args:
      values: JSON values of any kind.
      version: version of the format.

    Returns:
      The header.

    Raises:
      ArtefactError: a value is not as the format has it; the message names the value.
    """
    try:
        keys = ("arrays", "collections", "description", "generator", "network")
        top = schema.check_object(values, "top level", keys)
        schema.check_choice(top["generator"], "generator", (GENERATOR,))
        network, description = (_parse_facts_1 if version == 1 else _parse_facts)(top)
        header = Header(
            network=network,
            description=description,
            arrays=_parse_each(top, "arrays", _parse_array, version),
            collections=_parse_each(top, "collections", _parse_extra_array, version),
        )
        _check_paths(header)
    except ArtefactError as error:
        raise ArtefactError(f"has a header whose {error}") from None
    return header


def _parse_facts_1(top: Mapping[str, Any]) -> tuple[dict[str, Any], Description]:
    """Returns the config and the description of a file of format 1."""
    values = top["network"]
    image_shape: Any = None
    if type(values) is dict:
        values = dict(values)
        image_shape = values.pop("image_shape", None)
    config = architecture.parse_config(values)
    image_shape = schema.check_sizes(image_shape, "network.image_shape", 3, 3)
    fields = {field.name for field in dataclasses.fields(Description)}
    about = schema.check_object(
        top["description"], "description", fields - {"image_shape", *_NEW_FACTS}
    )
    return config, Description(
        classes=config["classes"], image_shape=image_shape, **about
    )


def _parse_facts(
    top: Mapping[str, Any],
) -> tuple[dict[str, Any] | Source | None, Description | None]:
    """Returns the network and the description of a file of format 2."""
    network: Any = top["network"]
    if network is None:
        for name, empty in (("description", None), ("collections", [])):
            if top[name] != empty:
                raise schema.invalid(name, top[name], f"{empty} without a network")
        return None, None
    if type(network) is dict and "family" not in network:
        names = [field.name for field in dataclasses.fields(Source)]
        network = Source(**schema.check_object(network, "network", names))
    else:
        network = architecture.parse_config(network)
    names = [field.name for field in dataclasses.fields(Description)]
    about = schema.check_object(top["description"], "description", names)
    description = Description(**about)
    if isinstance(network, dict):
        if description.classes != network["classes"]:
            expected = f"those of the network, {network['classes']}"
            raise schema.invalid("description.classes", description.classes, expected)
        schema.check_sizes(description.image_shape, "description.image_shape", 3, 3)
    return network, description


def _parse_each(
    top: Mapping[str, Any], key: str, parse: Callable[..., Any], version: int
) -> tuple[Any, ...]:
    entries = schema.check_list(top[key], key, _MOST_ARRAYS)
    return tuple(parse(each, f"{key}[{i}]", version) for i, each in enumerate(entries))


def _check_paths(header: Header) -> None:
    """Checks that all paths can be those of one tree."""
    for extra in header.collections:
        if extra.path[0] == "params":
            raise schema.invalid("path", extra.path, "a collection other than params")
    for key in ("arrays", "collections"):
        paths = sorted(each.path for each in getattr(header, key))
        # Sorted, a path comes directly before the first path that goes on from it.
        for path, following in itertools.pairwise(paths):
            if following[: len(path)] == path:
                raise ArtefactError(f"{key} hold {schema.shorten(path)} twice")


def _parse_array(value: Any, label: str, version: int) -> ArrayHeader:
    values = _parse_place(value, label, ArrayHeader, version)
    least = 1 if version == 1 else 0
    values["shape"] = _parse_shape(values["shape"], label, least)
    schema.check_choice(
        values["origin"], f"{label}.origin", ("recipe", "signs", "values", "dense")
    )
    for name in ("mask", "inverted", "data"):
        if values[name] is not None:
            values[name] = _parse_segment(values[name], f"{label}.{name}")
    for name in ("scale", "magnitude"):
        if values[name] is not None:
            values[name] = schema.round_to_float32(values[name], f"{label}.{name}")
    if values["magnitude"] is not None and values["magnitude"] <= 0:
        expected = "a number above 0"
        raise schema.invalid(f"{label}.magnitude", values["magnitude"], expected)
    if values["recipe"] is not None:
        values["recipe"] = _parse_recipe(values["recipe"], f"{label}.recipe")
    array = ArrayHeader(**values)
    _check_parts(array, label)
    return array


def _parse_place(value: Any, label: str, kind: type, version: int) -> dict[str, Any]:
    """Returns the values of an array, with its path and dtype as format 2 has them.

    Args:
      value: JSON values of any kind.
      label: path of the value in messages.
      kind: `ArrayHeader` or `ExtraArray`.
      version: version of the format.
    """
    names = {field.name for field in dataclasses.fields(kind)}
    if version == 1:
        names -= (
            {"path", "dtype"} if kind is ArrayHeader else {"path", "dtype", "shape"}
        )
        values = dict(schema.check_object(value, label, {"name", *names}))
        name = schema.check_text(values.pop("name"), f"{label}.name")
        values |= {"path": tuple(name.split("/")), "dtype": FLOAT32}
    else:
        values = dict(schema.check_object(value, label, names))
        path = schema.check_list(values["path"], f"{label}.path", _LONGEST_PATH)
        values["path"] = tuple(schema.check_text(e, f"{label}.path") for e in path)
        if not path or "" in path:
            raise schema.invalid(f"{label}.path", path, "texts that are not empty")
        schema.check_choice(values["dtype"], f"{label}.dtype", packing.DTYPES)
    schema.check_sha256(values["sha256"], f"{label}.sha256")
    return values


def _parse_shape(value: Any, label: str, least: int) -> tuple[int, ...]:
    return schema.check_sizes(value, f"{label}.shape", least, 8, MOST_WEIGHTS)


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
    if array.dtype not in packing.FLOATS:
        wanted |= {"mask": False, "magnitude": False}
    if array.dtype != FLOAT32:
        wanted |= {"recipe": False}
    for name, needed in wanted.items():
        if (getattr(array, name) is not None) != needed:
            kind = "" if array.dtype == FLOAT32 else f"{array.dtype} and "
            kind += f"origin {array.origin}" + ("" if array.mask else " and no mask")
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


def _parse_extra_array(value: Any, label: str, version: int) -> ExtraArray:
    values = _parse_place(value, label, ExtraArray, version)
    # In format 1 the network fixes the shape.
    shape = None if version == 1 else _parse_shape(values["shape"], label, 0)
    data = _parse_segment(values["data"], f"{label}.data")
    return ExtraArray(**values | {"shape": shape, "data": data})


def _parse_segment(value: Any, label: str) -> Segment:
    values = schema.check_object(value, label, ("bytes", "deflated"))
    return Segment(
        schema.check_integer(values["bytes"], f"{label}.bytes", 0, 1 << 40),
        schema.check_boolean(values["deflated"], f"{label}.deflated"),
    )
