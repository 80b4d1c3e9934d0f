"""What a network is about, in fields that a file can say."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from aslp_jax.artefact import schema

_MOST_FACTS = 16
_NARROWEST = 2.0**-126
"""Of what is divided by: some devices take lesser float32 numbers for 0."""


@dataclasses.dataclass(frozen=True)
class Description:
    """What a network is about, and where it comes from.

    Numbers of NumPy and lists are taken too, and become Python's own and tuples.

    Attributes:
      arch: its name, such as `conv4`.
      classes: number of outputs.
      image_shape: of one image, (height, width, channels).
      mean: of each channel, pixels being in [0, 1]; None where they are not shifted.
      std: likewise the standard deviation; given together with `mean`.
      dataset: name of the images that it was selected on.
      method: how the weights were selected.
      seed: of the run; None where there was none.
      accuracies: in [0, 1] on the test set, by name, such as `thresholding`.
      versions: of what made it, by name: jax, jaxlib, flax, aslp_jax; and `platform`.

    Raises:
      ArtefactError: naming a field that is not what a file can say.
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
        found = {
            field.name: schema.plain(getattr(self, field.name))
            for field in dataclasses.fields(self)
        }
        for name, value in _checked(found).items():
            object.__setattr__(self, name, value)


def _checked(found: dict[str, Any]) -> dict[str, Any]:
    def check(name: str, by: Callable[..., Any], *limits: Any) -> None:
        found[name] = by(found[name], f"description.{name}", *limits)

    for name in ("arch", "dataset", "method"):
        check(name, schema.text)
    check("classes", schema.integer, 1, schema.WIDEST)
    check("image_shape", schema.sizes, 3, 3)
    if found["seed"] is not None:
        check("seed", schema.integer, 0, (1 << 64) - 1)
    if found["mean"] is not None or found["std"] is not None:
        channels = found["image_shape"][2]
        check("mean", _by_channel, channels, "numbers")
        check("std", _by_channel, channels, "numbers of at least 2^-126", _NARROWEST)
    check("accuracies", _facts, schema.share)
    check("versions", _facts, schema.text)
    return found


def _by_channel(
    value: Any, what: str, channels: int, expected: str, least: float | None = None
) -> tuple[float, ...]:
    wrong = schema.wrong(what, value, f"{channels} {expected}, one for each channel")
    if type(value) is not tuple or len(value) != channels:
        raise wrong
    numbers = tuple(schema.number(each, what) for each in value)
    if least is not None and min(numbers) < least:
        raise wrong
    return numbers


def _facts(value: Any, what: str, check: Callable[[Any, str], Any]) -> dict[str, Any]:
    if type(value) is not dict or len(value) > _MOST_FACTS:
        raise schema.wrong(what, value, f"an object of at most {_MOST_FACTS} entries")
    return {
        schema.text(name, f"{what} key"): check(each, f"{what} {schema.shown(name)}")
        for name, each in value.items()
    }
