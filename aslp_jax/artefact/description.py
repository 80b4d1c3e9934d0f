"""The description of a network: its origin and its images, in fields of a file."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

from aslp_jax.artefact import schema

_MOST_ENTRIES = 16

_MOST_AXES = 4

_LARGEST_INPUT = 1 << 26
"""Largest number of numbers in an input, and in an output."""

_SMALLEST_STD = 2.0**-126
"""Smallest accepted `std`; devices that flush subnormals would divide by 0 below it."""


@dataclasses.dataclass(frozen=True)
class Description:
    """Facts about a network: its architecture, its inputs and its origin.

    Numbers of NumPy become Python's own, and lists become tuples.

    Attributes:
      arch: name of the architecture, such as `conv4`.
      classes: number of class logits; None if the outputs are something else.
      image_shape: shape of an image (height, width and channels), or of another input
        of one to four axes, of which the last are channels.
      mean: mean of each channel, for pixels in [0, 1]; None if images are not
        standardised.
      std: standard deviation of each channel, at least 2^-126; given with `mean`.
      dataset: name of the images on which the weights were selected.
      method: name of the method that selected the weights.
      seed: seed of the run; None if the network comes from no run.
      accuracies: test accuracies in [0, 1], by name, such as `thresholding`.
      versions: versions of jax, jaxlib, flax and aslp_jax, and the `platform`.
      output_shape: shape of an output without the batch, one to four axes; None for
        class logits.
      class_names: name of each class; empty if unknown.

    Raises:
      ArtefactError: a file cannot hold the value of a field; the message names it.
    """

    arch: str
    classes: int | None
    image_shape: tuple[int, ...]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dataset: str = ""
    method: str = ""
    seed: int | None = None
    accuracies: Mapping[str, float] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)
    output_shape: tuple[int, ...] | None = None
    class_names: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        values = {
            field.name: schema.to_python(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }
        for name, value in _check(values).items():
            object.__setattr__(self, name, value)

    @property
    def outputs(self) -> tuple[int, ...]:
        """Shape of an output without the batch."""
        return self.output_shape or (self.classes or 0,)

    def facts(self) -> dict[str, Any]:
        """Returns the fields as JSON values; an output shape and names if there are."""
        values = dataclasses.asdict(self)
        for name in ("output_shape", "class_names"):
            if not values[name]:
                del values[name]
        return values


def _check(values: dict[str, Any]) -> dict[str, Any]:
    def check(name: str, by: Callable[..., Any], *limits: Any) -> None:
        values[name] = by(values[name], f"description.{name}", *limits)

    for name in ("arch", "dataset", "method"):
        check(name, schema.check_text)
    if (values["classes"] is None) == (values["output_shape"] is None):
        raise schema.invalid(
            "description.classes",
            values["classes"],
            "a number where there is no output_shape, else None",
        )
    if values["classes"] is not None:
        check("classes", schema.check_integer, 1, schema.LARGEST_SIZE)
    check("image_shape", _check_shape)
    if values["output_shape"] is not None:
        check("output_shape", _check_shape)
    check("class_names", _check_names, values["classes"])
    if values["seed"] is not None:
        check("seed", schema.check_integer, 0, (1 << 64) - 1)
    if values["mean"] is not None or values["std"] is not None:
        channels = values["image_shape"][-1]
        check("mean", _check_channels, channels, "numbers")
        expected = "numbers of at least 2^-126"
        check("std", _check_channels, channels, expected, _SMALLEST_STD)
    check("accuracies", schema.check_entries, _MOST_ENTRIES, schema.check_fraction)
    check("versions", schema.check_entries, _MOST_ENTRIES, schema.check_text)
    return values


def _check_shape(value: Any, label: str) -> tuple[int, ...]:
    shape = schema.check_sizes(value, label, 1, _MOST_AXES)
    if math.prod(shape) > _LARGEST_INPUT:
        raise schema.invalid(label, value, f"a shape of at most {_LARGEST_INPUT}")
    return shape


def _check_names(value: Any, label: str, classes: int | None) -> tuple[str, ...]:
    names = schema.check_list(value, label, schema.LARGEST_SIZE)
    if names and len(names) != classes:
        raise schema.invalid(label, value, f"{classes} names, one for each class")
    return tuple(schema.check_text(name, label) for name in names)


def _check_channels(
    value: Any, label: str, channels: int, expected: str, least: float | None = None
) -> tuple[float, ...]:
    error = schema.invalid(label, value, f"{channels} {expected}, one for each channel")
    if type(value) is not tuple or len(value) != channels:
        raise error
    numbers = tuple(schema.check_number(each, label) for each in value)
    if least is not None and min(numbers) < least:
        raise error
    return numbers
