"""C99 source and header of a network, without heap; all sizes are constants."""

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple, cast

from aslp_jax.artefact import LayerWeights
from aslp_jax.export.c.interface import Interface, Number, Pixels, header
from aslp_jax.export.c.memory import plan
from aslp_jax.export.c.program import Run, make_program
from aslp_jax.export.c.source import Source
from aslp_jax.export.c.text import TYPES, Constants, calls
from aslp_jax.export.c.weights import STORAGES, Storage, pack
from aslp_jax.export.integer.operations import IntegerGraph
from aslp_jax.export.operations import Graph

__all__ = ["Code", "encode_graph", "encode_integer_graph"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


class Code(NamedTuple):
    """Source and header of a network, and facts about them.

    Attributes:
      files: contents by suffix, `".h"` and `".c"`.
      operations: multiply-adds (or additions) of the layers for one input.
      constant_bytes: bytes of all weights and other constants.
      memory_bytes: bytes of the array that holds all values between layers, and of the
        sums of integers.
      table_bytes: bytes of the tables of layers, on a processor of 32 bits.
    """

    files: Mapping[str, bytes]
    operations: int
    constant_bytes: int
    memory_bytes: int
    table_bytes: int


def encode_graph(
    graph: Graph,
    name: str,
    *,
    storage: Storage = "sparse",
    pixels: Pixels | None = None,
    classes: bool = True,
    layers: Mapping[str, LayerWeights] | None = None,
    about: Sequence[str] = (),
    class_names: Sequence[str] = (),
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
      class_names: name of each class, for the header; empty if unknown.

    Raises:
      UnsupportedError: the C code cannot compute an operation.
      ValueError: the name is not an identifier, or the storage is unknown or cannot
        hold the weights.
    """
    interface = Interface(
        name,
        graph.input_shape,
        graph.shapes[-1],
        pixels,
        classes,
        class_names=class_names,
    )
    return _encode(graph, interface, storage, layers or {}, about)


def encode_integer_graph(
    graph: IntegerGraph,
    name: str,
    *,
    storage: Storage = "sparse",
    classes: bool = True,
    layers: Mapping[str, LayerWeights] | None = None,
    about: Sequence[str] = (),
    class_names: Sequence[str] = (),
) -> Code:
    """Returns the source and the header of a graph of integers.

    The source has no floating point. Its results are those of `reference.run`, on every
    processor. Inputs lie row by row, channels last. The header names the scale of the
    output.

    Args:
      graph: the network; for `"seed"` not a compacted one.
      name: prefix of all public names; an identifier of C.
      storage: way to store the weights; `"signs"` and `"seed"` for weights of -1, 0 and
        1 alone.
      classes: True if the output is a vector of logits, as in `encode_graph`.
      layers: parts of the weights by name, for `"seed"`. None for none.
      about: first lines of the header.
      class_names: name of each class, for the header; empty if unknown.

    Raises:
      UnsupportedError: the C code cannot compute an operation.
      ValueError: the name is not an identifier, or the storage is unknown or cannot
        hold the weights.
    """
    first, last = graph.numbers[0], graph.numbers[-1]
    shape = graph.input_shape
    interface = Interface(
        name,
        shape,
        graph.shapes[-1],
        Pixels() if len(shape) == 3 and first.kind == "uint8" else None,
        classes,
        number=cast(Number, TYPES[last.kind]),
        taken=cast(Number, TYPES[first.kind]),
        scale=last.scale,
        taken_scale=first.scale,
        class_names=class_names,
    )
    return _encode(graph, interface, storage, layers or {}, about)


def _encode(
    graph: Graph | IntegerGraph,
    interface: Interface,
    storage: Storage,
    layers: Mapping[str, LayerWeights],
    about: Sequence[str],
) -> Code:
    """Returns the source and the header of either kind of graph."""
    if not _NAME.fullmatch(interface.name):
        raise ValueError(
            f"c: {interface.name!r} cannot begin the names of C functions; letters, "
            "digits and _ can, a letter first"
        )
    if storage not in STORAGES:
        raise ValueError(f"c: storage must be one of {STORAGES}, got {storage!r}")
    # Pixels become floats channel by channel before the first step.
    prepared = interface.scale is None and interface.pixels is not None
    program = make_program(graph, channels_first=prepared)
    packed = {
        step.layer: pack(step.layer, layers.get(step.layer.name), storage)
        for step in program.steps
        if isinstance(step, Run)
    }
    outside = {} if prepared else {0: interface.input}
    memory, constants = plan(program, outside=outside), Constants()
    body = calls(
        program, memory, packed, constants, outside=outside, output=interface.output
    )
    if prepared:
        start = memory.buffers[0] // 4
        body.insert(0, f"prepare({interface.input}, memory + {start});")
    source = Source(interface, program, memory, packed, storage, outside)
    files = {
        ".h": header(interface, [*about, *_facts(source, constants)]).encode(),
        ".c": source.text(constants.definitions, body).encode(),
    }
    return Code(
        files,
        source.operations,
        constants.size,
        source.memory_bytes,
        constants.table_size,
    )


def _facts(source: Source, constants: Constants) -> list[str]:
    """Returns the last lines of the header's first comment."""
    signed = source.storage == "signs" or (
        source.storage == "seed" and not source.normal
    )
    kind = "additions or subtractions" if signed else "multiply-adds"
    what = "an image" if source.interface.is_image else "an input"
    sums = " and for sums" if source.sums else ""
    facts = [
        f"weights ({source.storage}): {constants.size:,} bytes of constants",
        f"memory between layers{sums}: {source.memory_bytes:,} bytes",
        f"{what} takes {source.operations:,} {kind}",
    ]
    if source.needs_library:
        facts.append("link with -lm")
    return facts
