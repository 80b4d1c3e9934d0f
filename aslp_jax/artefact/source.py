"""The name that a person gives to a network of their own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from aslp_jax import functional
from aslp_jax.artefact import schema

_MOST_ARGUMENTS = 64
_LARGEST_INTEGER = 1 << 53


@dataclasses.dataclass(frozen=True)
class Source:
    """Name of a network that is not of this library, for people.

    A file that names a network so holds its arrays and nothing that could run: the
    names here are shown, and never imported or executed.

    Attributes:
      label: name of the network, such as `nets.py:TinyNet`.
      sha256: sha256 of the source file, 64 hexadecimal digits; None if there is none.
      arguments: name to value of the arguments that made the network: texts, numbers
        and bools, at most 64.

    Raises:
      ArtefactError: a file cannot hold the value of a field; the message names it.
    """

    label: str
    sha256: str | None = None
    arguments: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not schema.check_text(self.label, "network.label"):
            raise schema.invalid("network.label", self.label, "a text, not empty")
        if self.sha256 is not None:
            schema.check_sha256(self.sha256, "network.sha256")
        arguments = schema.check_entries(
            schema.to_python(self.arguments),
            "network.arguments",
            _MOST_ARGUMENTS,
            _check_argument,
        )
        object.__setattr__(self, "arguments", arguments)

    def __str__(self) -> str:
        arguments = ",".join(f"{name}={each}" for name, each in self.arguments.items())
        return f"{self.label} ({arguments})" if arguments else self.label


def default_source(net: Any) -> Source:
    """Returns the name of the class or function that makes a network.

    Args:
      net: network, in any form that `functional.network` takes.
    """
    made_by = net.make if isinstance(net, functional.NNX) else net
    return Source(getattr(made_by, "__name__", type(made_by).__name__))


def _check_argument(value: Any, label: str) -> Any:
    if type(value) is bool:
        return value
    if type(value) is int:
        return schema.check_integer(value, label, -_LARGEST_INTEGER, _LARGEST_INTEGER)
    if type(value) is float:
        return schema.check_number(value, label)
    return schema.check_text(value, label)
