"""The description of a network: its origin and its images, in fields of a file."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from aslp_jax.artefact import schema

_MOST_ENTRIES = 16

_SMALLEST_STD = 2.0**-126
"""Smallest accepted `std`; devices that flush subnormals would divide by 0 below it."""


@dataclasses.dataclass(frozen=True)
class Description:
    """Facts about a network: its architecture, its images and its origin.

    Numbers of NumPy become Python's own, and lists become tuples.

    Attributes:
      arch: name of the architecture, such as `conv4`.
      classes: number of outputs.
      image_shape: height, width and channels of an image.
      mean: mean of each channel, for pixels in [0, 1]; None if images are not
        standardised.
      std: standard deviation of each channel, at least 2^-126; given with `mean`.
      dataset: name of the images on which the weights were selected.
      method: name of the method that selected the weights.
      seed: seed of the run; None if the network comes from no run.
      accuracies: test accuracies in [0, 1], by name, such as `thresholding`.
      versions: versions of jax, jaxlib, flax and aslp_jax, and the `platform`.

    Raises:
      ArtefactError: a file cannot hold the value of a field; the message names it.
    """

    arch: str
    classes: int
    image_shape: tuple[int, int, int]
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    dataset: str = ""
    method: str = ""
    seed: int | None = None
    accuracies: Mapping[str, float] = dataclasses.field(default_factory=dict)
    versions: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        values = {
            field.name: schema.to_python(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }
        for name, value in _check(values).items():
            object.__setattr__(self, name, value)


def _check(values: dict[str, Any]) -> dict[str, Any]:
    def check(name: str, by: Callable[..., Any], *limits: Any) -> None:
        values[name] = by(values[name], f"description.{name}", *limits)

    for name in ("arch", "dataset", "method"):
        check(name, schema.check_text)
    check("classes", schema.check_integer, 1, schema.LARGEST_SIZE)
    check("image_shape", schema.check_sizes, 3, 3)
    if values["seed"] is not None:
        check("seed", schema.check_integer, 0, (1 << 64) - 1)
    if values["mean"] is not None or values["std"] is not None:
        channels = values["image_shape"][2]
        check("mean", _check_channels, channels, "numbers")
        expected = "numbers of at least 2^-126"
        check("std", _check_channels, channels, expected, _SMALLEST_STD)
    check("accuracies", _check_entries, schema.check_fraction)
    check("versions", _check_entries, schema.check_text)
    return values


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


def _check_entries(
    value: Any, label: str, check: Callable[[Any, str], Any]
) -> dict[str, Any]:
    if type(value) is not dict or len(value) > _MOST_ENTRIES:
        expected = f"an object of at most {_MOST_ENTRIES} entries"
        raise schema.invalid(label, value, expected)
    return {
        schema.check_text(name, f"{label} key"): check(
            each, f"{label} {schema.shorten(name)}"
        )
        for name, each in value.items()
    }
