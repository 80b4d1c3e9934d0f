"""The functions of a network as a caller sees them, and their header."""

import math
from collections.abc import Iterator, Sequence
from typing import Literal, NamedTuple

from aslp_jax._version import __version__
from aslp_jax.export.operations import Shape

__all__ = ["Inputs", "Interface", "Number", "Pixels", "header"]

Inputs = Literal["uint8", "float32"]
"""Dtype of the numbers that the C functions take."""

Number = Literal["float", "uint8_t", "int8_t", "int16_t"]
"""Type of the numbers that the C functions take, or compute."""


class Pixels(NamedTuple):
    """Preparation of inputs that are pixels from 0 to 255.

    Attributes:
      dtype: dtype of the pixels.
      mean: mean of each channel, for pixels in [0, 1]; None if they are not
        standardised.
      std: standard deviation of each channel; None if they are not standardised.
    """

    dtype: Inputs = "uint8"
    mean: Sequence[float] | None = None
    std: Sequence[float] | None = None


class Interface(NamedTuple):
    """The functions of a network, as a caller sees them.

    Attributes:
      name: prefix of all public names.
      input_shape: shape of one input.
      output_shape: shape of one output.
      pixels: preparation of the inputs; None if they are no pixels.
      classes: True if the output is a vector of logits.
      number: type of a number of the output.
      taken: type of a number of the input, if it is no pixel.
      scale: real number that an output of 1 stands for; None for floats.
      taken_scale: real number that an input of 1 stands for; None for floats.
      class_names: name of each class; empty if unknown.
    """

    name: str
    input_shape: Shape
    output_shape: Shape
    pixels: Pixels | None
    classes: bool
    number: Number = "float"
    taken: Number = "float"
    scale: float | None = None
    taken_scale: float | None = None
    class_names: Sequence[str] = ()

    @property
    def is_image(self) -> bool:
        """True if the input has height, width and channels."""
        return len(self.input_shape) == 3

    @property
    def input(self) -> str:
        """Name of the first parameter."""
        return "image" if self.is_image else "input"

    @property
    def output(self) -> str:
        """Name of the second parameter, and the last part of the function's name."""
        return "logits" if self.classes else "output"

    @property
    def parameter(self) -> str:
        """The first parameter."""
        upper = self.name.upper()
        if self.pixels is None or self.pixels.dtype == "float32":
            return f"const {self.name}_input {self.input}[{upper}_INPUTS]"
        count = f"{upper}_IMAGE_BYTES" if self.is_image else f"{upper}_INPUTS"
        return f"const uint8_t {self.input}[{count}]"

    @property
    def result(self) -> str:
        """Name that the header gives to the type of a number of the output."""
        return f"{self.name}_{'logit' if self.classes else 'output'}"

    @property
    def function(self) -> str:
        """Name of the function that computes the output."""
        return f"{self.name}_{'logits' if self.classes else 'run'}"

    @property
    def declaration(self) -> str:
        """The function that computes the output."""
        count = f"{self.name.upper()}_{'CLASSES' if self.classes else 'OUTPUTS'}"
        opening = f"void {self.function}("
        result = f"{self.result} {self.output}[{count}])"
        return f"{opening}{self.parameter},\n{' ' * len(opening)}{result}"


def header(interface: Interface, facts: Sequence[str]) -> str:
    """Returns the header.

    Args:
      interface: the functions.
      facts: lines of the first comment, after the one that names this library.
    """
    kind = "floats" if interface.taken == "float" else "integers"
    numbers = f"{kind} as the network takes them"
    if interface.pixels is not None:
        dtype = "bytes" if interface.pixels.dtype == "uint8" else "floats"
        numbers = f"{dtype} from 0 to 255"
    takes = f"""The {interface.input} is
   row by row, channels last, {numbers}. Not reentrant. */"""
    shape = " x ".join(map(str, interface.output_shape)) or "one number"
    says, more = f"Computes the output, {shape}, row by row.", ""
    if interface.classes:
        says = (
            "Computes a logit for each class; the largest is that of the likeliest one."
        )
        more = f"""
/* Returns the likeliest class, from 0 up. Not reentrant. */
int {interface.name}_class({interface.parameter});
"""
    upper = interface.name.upper()
    return _HEADER.format(
        comment="\n   ".join([f"Written by aslp-jax {__version__}.", *facts]),
        upper=upper,
        macros="\n".join(
            f"#define {upper}_{key} {value}"
            for key, value in _macros(interface).items()
        ),
        names=_class_names(interface),
        types="\n\n".join(_types(interface)),
        functions=f"/* {says} {takes}\n{interface.declaration};\n{more}",
    )


_HEADER = """/* {comment} */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

{macros}
{names}
{types}

#ifdef __cplusplus
extern "C" {{
#endif

{functions}
#ifdef __cplusplus
}}
#endif

#endif
"""


def _types(interface: Interface) -> Iterator[str]:
    """Yields the types that the header defines."""
    pixels, name = interface.pixels, interface.name
    if pixels is None or pixels.dtype == "float32":
        yield _type("input", interface.taken, f"{name}_input", interface.taken_scale)
    yield _type("output", interface.number, interface.result, interface.scale)


def _type(what: str, number: Number, name: str, scale: float | None) -> str:
    """Returns the type of the numbers of an input or an output."""
    meaning = "" if scale is None else f", of which 1 stands for {scale:.6g}"
    return f"/* A number of the {what}{meaning}. */\ntypedef {number} {name};"


def _macros(interface: Interface) -> dict[str, str]:
    """Returns the sizes that the header defines."""
    upper, macros = interface.name.upper(), {}
    if interface.is_image:
        sizes = zip(("HEIGHT", "WIDTH", "CHANNELS"), interface.input_shape, strict=True)
        macros = {key: str(size) for key, size in sizes}
    count = math.prod(interface.output_shape)
    macros["CLASSES" if interface.classes else "OUTPUTS"] = str(count)
    if interface.parameter.endswith("_IMAGE_BYTES]"):
        macros["IMAGE_BYTES"] = f"({upper}_HEIGHT * {upper}_WIDTH * {upper}_CHANNELS)"
    else:
        macros["INPUTS"] = str(math.prod(interface.input_shape))
    macros["INTEGERS"] = str(int(interface.number != "float"))
    return macros


def _class_names(interface: Interface) -> str:
    """Returns the macro that lists the classes; "" if their names are unknown.

    A program pays for a list that it uses. An array would also lie in each that does
    not, where a compiler keeps unused constants, as gcc does at `-O0`.
    """
    if not (interface.classes and interface.class_names):
        return ""
    macro = f"{interface.name.upper()}_CLASS_NAMES"
    lines = [
        "",
        "/* Names of the classes, from 0 up, in UTF-8:",
        f"   static const char *const names[] = {macro}; */",
        f"#define {macro} {{ \\",
        *(f"    {_string(name)}, \\" for name in interface.class_names),
        "}",
        "",
    ]
    return "\n".join(lines)


def _string(text: str) -> str:
    """Returns a string literal of ASCII, whatever the compiler takes a source for."""
    # Three octal digits end an escape, and ?? could begin a trigraph.
    escaped = (
        chr(byte) if 32 <= byte < 127 and byte not in b'"\\?' else f"\\{byte:03o}"
        for byte in text.encode()
    )
    return f'"{"".join(escaped)}"'
