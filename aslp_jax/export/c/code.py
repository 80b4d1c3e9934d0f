"""C99 source and header of a network, without heap; all sizes are constants.

The functions that compute are C files in `runtime/`. This module selects the ones that
a network needs, and writes the constants and the calls.
"""

import importlib.resources
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

import numpy as np

from aslp_jax._version import __version__
from aslp_jax.artefact import LayerWeights
from aslp_jax.export.c.functions import apply, needs_library
from aslp_jax.export.c.layers import Layer
from aslp_jax.export.c.memory import Memory, plan
from aslp_jax.export.c.program import Map, Pool, Run, Step, make_program
from aslp_jax.export.c.text import Constants, array, calls
from aslp_jax.export.c.weights import STORAGES, PackedWeights, Storage, pack
from aslp_jax.export.operations import Graph, Shape

__all__ = ["Code", "Inputs", "Pixels", "encode_graph"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

Inputs = Literal["uint8", "float32"]
"""Dtype of the numbers that the C functions take."""


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


class Code(NamedTuple):
    """Source and header of a network, and facts about them.

    Attributes:
      files: contents by suffix, `".h"` and `".c"`.
      operations: multiply-adds (or additions) of the layers for one input.
      constant_bytes: bytes of all weights and other constants.
      memory_bytes: bytes of the array that holds all values between layers.
    """

    files: Mapping[str, bytes]
    operations: int
    constant_bytes: int
    memory_bytes: int


def encode_graph(
    graph: Graph,
    name: str,
    *,
    storage: Storage = "sparse",
    pixels: Pixels | None = None,
    classes: bool = True,
    layers: Mapping[str, LayerWeights] | None = None,
    about: Sequence[str] = (),
) -> Code:
    """Returns the source and the header of a graph.

    Args:
      graph: a simplified graph; for `"seed"` not a compacted one.
      name: prefix of all public names; an identifier of C.
      storage: way to store the weights.
      pixels: preparation of the inputs; None if the network takes float32 numbers as
        they are.
      classes: True if the output is a vector of logits. The functions are then
        `NAME_logits` and `NAME_class`, otherwise `NAME_run`.
      layers: parts of the weights by name, for `"seed"`. None for none.
      about: first lines of the header.

    Raises:
      UnsupportedError: the C code cannot compute an operation.
      ValueError: the name is not an identifier, or the storage is unknown or cannot
        hold the weights.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"c: {name!r} cannot begin the names of C functions; letters, digits and _ "
            "can, a letter first"
        )
    if storage not in STORAGES:
        raise ValueError(f"c: storage must be one of {STORAGES}, got {storage!r}")
    program = make_program(graph, channels_first=pixels is not None)
    packed = {
        step.layer: pack(step.layer, (layers or {}).get(step.layer.name), storage)
        for step in program.steps
        if isinstance(step, Run)
    }
    interface = _Interface(name, graph.input_shape, graph.shapes[-1], pixels, classes)
    outside = {0: interface.input} if pixels is None else {}
    memory, constants = plan(program, outside=outside), Constants()
    body = calls(
        program, memory, packed, constants, outside=outside, output=interface.output
    )
    steps = [
        step for index, step in enumerate(program.steps) if index not in memory.idle
    ]
    if pixels is not None:
        start = memory.buffers[0]
        body.insert(0, f"prepare({interface.input}, memory + {start});")
    operations = sum(
        layer.height * layer.width * each.summands for layer, each in packed.items()
    )
    facts = _facts(interface, steps, packed, storage, constants, memory, operations)
    parts = [
        *_runtime_parts(interface, steps, packed, storage),
        *constants.definitions,
        *_public_functions(interface, memory, body),
    ]
    files = {
        ".h": _header(interface, [*about, *facts]).encode(),
        ".c": "\n".join(parts).encode(),
    }
    return Code(files, operations, constants.size, 4 * memory.size)


class _Interface(NamedTuple):
    """The functions of a network, as a caller sees them."""

    name: str
    input_shape: Shape
    output_shape: Shape
    pixels: Pixels | None
    classes: bool

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
            return f"const float {self.input}[{upper}_INPUTS]"
        count = f"{upper}_IMAGE_BYTES" if self.is_image else f"{upper}_INPUTS"
        return f"const uint8_t {self.input}[{count}]"

    @property
    def function(self) -> str:
        """Name of the function that computes the output."""
        return f"{self.name}_{'logits' if self.classes else 'run'}"

    @property
    def declaration(self) -> str:
        """The function that computes the output."""
        count = f"{self.name.upper()}_{'CLASSES' if self.classes else 'OUTPUTS'}"
        opening = f"void {self.function}("
        result = f"float {self.output}[{count}])"
        return f"{opening}{self.parameter},\n{' ' * len(opening)}{result}"


def _facts(
    interface: _Interface,
    steps: Sequence[Step],
    packed: Mapping[Layer, PackedWeights],
    storage: Storage,
    constants: Constants,
    memory: Memory,
    operations: int,
) -> list[str]:
    """Returns the last lines of the header's first comment."""
    normal = any(each.normal for each in packed.values())
    signed = storage == "signs" or (storage == "seed" and not normal)
    kind = "additions or subtractions" if signed else "multiply-adds"
    what = "an image" if interface.is_image else "an input"
    facts = [
        f"weights ({storage}): {constants.size:,} bytes of constants",
        f"memory between layers: {4 * memory.size:,} bytes",
        f"{what} takes {operations:,} {kind}",
    ]
    if normal or needs_library(_functions(steps)):
        facts.append("link with -lm")
    return facts


def _header(interface: _Interface, facts: Sequence[str]) -> str:
    """Returns the header."""
    name, upper = interface.name, interface.name.upper()
    comment = "\n   ".join([f"Written by aslp-jax {__version__}.", *facts])
    macros = _macros(interface)
    lines = "\n".join(f"#define {upper}_{key} {value}" for key, value in macros.items())
    order = "row by row, channels last"
    if interface.pixels is None:
        kind = f"floats as the network takes them, {order}"
    else:
        dtype = "bytes" if interface.pixels.dtype == "uint8" else "floats"
        kind = f"{order}, {dtype} from 0 to 255"
    takes = f"The {interface.input} is\n   {kind}. Not reentrant."
    if not interface.classes:
        shape = " x ".join(map(str, interface.output_shape))
        return _HEADER.format(
            comment=comment,
            upper=upper,
            macros=lines,
            functions=f"""/* Computes the output, {shape}, row by row. {takes} */
{interface.declaration};
""",
        )
    functions = f"""/* Computes a logit for each class; the largest is that of the likeliest one. {takes} */
{interface.declaration};

/* Returns the likeliest class, from 0 up. Not reentrant. */
int {name}_class({interface.parameter});
"""
    return _HEADER.format(
        comment=comment, upper=upper, macros=lines, functions=functions
    )


_HEADER = """/* {comment} */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

{macros}

#ifdef __cplusplus
extern "C" {{
#endif

{functions}
#ifdef __cplusplus
}}
#endif

#endif
"""


def _macros(interface: _Interface) -> dict[str, str]:
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
    return macros


def _functions(steps: Sequence[Step]) -> list[str]:
    """Returns the functions of numbers that some steps apply."""
    return sorted({step.function for step in steps if isinstance(step, Map)})


def _runtime_parts(
    interface: _Interface,
    steps: Sequence[Step],
    packed: Mapping[Layer, PackedWeights],
    storage: Storage,
) -> Iterator[str]:
    """Yields what lies before the constants of a source."""
    normal = any(each.normal for each in packed.values())
    functions = _functions(steps)
    windows = any(isinstance(step, Pool) for step in steps)
    infinite = any(
        not np.isfinite(each).all()
        for step in steps
        for each in step.operands
        if isinstance(each, np.ndarray)
    )
    mathematical = normal or windows or infinite or needs_library(functions)
    yield f'#include "{interface.name}.h"\n' + "\n#include <math.h>\n" * mathematical
    if packed:
        if storage == "seed":
            yield f"#define NORMAL_WEIGHTS {int(normal)}\n"
        files = {
            "bits": storage in ("signs", "seed"),
            f"weights_{storage}": True,
            "layer": True,
            "add_weighted": storage in ("dense", "sparse") or normal,
            "add_signed": storage in ("signs", "seed"),
            "normal": normal,
            f"sum_{storage}": True,
            "sum": storage != "sparse",
            "run": True,
        }
        yield from (_runtime(file) for file, needed in files.items() if needed)
    if functions:
        loops = max(len(step.sizes) for step in steps if isinstance(step, Map))
        yield f"enum {{ LOOPS = {loops} }};\n"
        yield apply(functions)
        yield _runtime("map")
    if windows:
        yield _runtime("window")
    if interface.pixels is not None:
        yield from _preparation(interface.pixels, interface.input_shape)


def _preparation(pixels: Pixels, shape: Shape) -> Iterator[str]:
    """Yields the function that prepares pixels, and its constants."""
    channels = shape[-1] if shape else 1
    standardised = pixels.mean is not None and pixels.std is not None
    kind = "uint8_t" if pixels.dtype == "uint8" else "float"
    yield (
        f"enum {{ PIXELS = {math.prod(shape[:-1])}, CHANNELS = {channels} }};\n"
        f"#define PIXEL {kind}\n"
        f"#define STANDARDISED {int(standardised)}\n"
    )
    if standardised:
        yield array("pixel_mean", np.asarray(pixels.mean, np.float32))
        yield array("pixel_std", np.asarray(pixels.std, np.float32))
    yield _runtime("prepare")


def _runtime(file: str) -> str:
    """Returns one file of the runtime."""
    folder = importlib.resources.files("aslp_jax.export.c") / "runtime"
    return (folder / f"{file}.c").read_text()


def _public_functions(
    interface: _Interface, memory: Memory, body: Sequence[str]
) -> Iterator[str]:
    """Yields the array between layers and the public functions."""
    if memory.size:
        yield (
            f"/* What lies between layers. */\nstatic float memory[{memory.size}];\n"
        )
    calls = "\n    ".join(body)
    yield f"""{interface.declaration}
{{
    {calls}
}}
"""
    if interface.classes:
        name, upper = interface.name, interface.name.upper()
        yield f"""int {name}_class({interface.parameter})
{{
    float logits[{upper}_CLASSES];
    int best = 0;
    {name}_logits({interface.input}, logits);
    for (int index = 1; index < {upper}_CLASSES; index++) {{
        if (logits[index] > logits[best]) {{
            best = index;
        }}
    }}
    return best;
}}
"""
