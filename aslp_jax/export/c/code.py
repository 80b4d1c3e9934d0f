"""C99 source and header of a network, without heap; all sizes are constants.

The functions that compute are C files in `runtime/`. This module selects the ones that
a network needs, and writes the constants and the calls.
"""

import importlib.resources
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aslp_jax.artefact import LayerWeights
from aslp_jax.export.c.functions import apply, needs_library
from aslp_jax.export.c.interface import Interface, Pixels, header
from aslp_jax.export.c.layers import Layer
from aslp_jax.export.c.memory import Memory, plan
from aslp_jax.export.c.program import Map, Pool, Run, Step, make_program
from aslp_jax.export.c.text import Constants, array, calls
from aslp_jax.export.c.weights import STORAGES, PackedWeights, Storage, pack
from aslp_jax.export.operations import Graph, Shape

__all__ = ["Code", "encode_graph"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


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
    interface = Interface(name, graph.input_shape, graph.shapes[-1], pixels, classes)
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
        ".h": header(interface, [*about, *facts]).encode(),
        ".c": "\n".join(parts).encode(),
    }
    return Code(files, operations, constants.size, 4 * memory.size)


def _facts(
    interface: Interface,
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


def _functions(steps: Sequence[Step]) -> list[str]:
    """Returns the functions of numbers that some steps apply."""
    return sorted({step.function for step in steps if isinstance(step, Map)})


def _runtime_parts(
    interface: Interface,
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
        yield f"#define GROUPED {int(any(layer.groups > 1 for layer in packed))}\n"
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
    return (folder / f"{file}.c").read_text(encoding="utf-8")


def _public_functions(
    interface: Interface, memory: Memory, body: Sequence[str]
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
    {interface.result} logits[{upper}_CLASSES];
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
