"""Texts of a C source: constants, descriptors of steps, and calls."""

import hashlib
import re
import textwrap
from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

from aslp_jax.export.c.functions import enumerator
from aslp_jax.export.c.layers import Layer
from aslp_jax.export.c.memory import Memory
from aslp_jax.export.c.program import Map, Place, Pool, Program, Run
from aslp_jax.export.c.weights import PackedWeights

__all__ = ["Constants", "array", "calls"]


class Constants:
    """Definitions of constants, each of them written once.

    Attributes:
      definitions: definitions in C, each after those that it refers to.
      size: bytes of all floats and of all weights.
    """

    def __init__(self) -> None:
        self.definitions: list[str] = []
        self.size = 0
        self._known: dict[Hashable, str] = {}
        self._taken: set[str] = set()

    def name(self, wish: str) -> str:
        """Returns an identifier that nothing else has."""
        wish = re.sub(r"\W", "_", wish, flags=re.ASCII).lower()
        name, number = wish, 1
        while name in self._taken:
            number += 1
            name = f"{wish}_{number}"
        self._taken.add(name)
        return name

    def add(self, wish: str, declaration: str, lines: Sequence[str]) -> str:
        """Adds a definition and returns the name that it has.

        Args:
          wish: name, if nothing else has it.
          declaration: declaration with `@` in the place of the name.
          lines: lines of the initialiser.
        """
        key = (declaration, *lines)
        if key not in self._known:
            self._known[key] = self.name(wish)
            declaration = declaration.replace("@", self._known[key])
            self.definitions.append(_define(declaration, lines))
        return self._known[key]

    def add_array(self, wish: str, numbers: np.ndarray) -> str:
        """Adds an array and returns its name.

        Args:
          wish: name, if nothing else has it.
          numbers: float32 or uint8 `[count]`.
        """
        key = (
            numbers.dtype.str,
            numbers.size,
            hashlib.sha256(numbers.tobytes()).digest(),
        )
        if key not in self._known:
            self._known[key] = self.name(wish)
            self.size += numbers.nbytes
            self.definitions.append(array(self._known[key], numbers))
        return self._known[key]


def calls(
    program: Program,
    memory: Memory,
    packed: Mapping[Layer, PackedWeights],
    constants: Constants,
    *,
    outside: Mapping[int, str],
    output: str,
) -> list[str]:
    """Returns the calls that compute a network, and adds the constants that they need.

    Args:
      program: steps of the network.
      memory: places of the buffers.
      packed: weights of each layer.
      constants: constants so far.
      outside: names of the buffers that lie in no array of the network.
      output: name of the output.
    """
    loops = max(
        (
            len(step.sizes)
            for index, step in enumerate(program.steps)
            if isinstance(step, Map) and index not in memory.idle
        ),
        default=0,
    )

    def pointer(place: Place) -> str:
        buffer, offset = place
        if buffer in outside:
            name = outside[buffer]
        else:
            name = output if buffer in memory.output else "memory"
            offset += memory.buffers[buffer]
        return f"{name} + {offset}" if offset or name == "memory" else name

    grouped = any(layer.groups > 1 for layer in packed)
    found = []
    for index, step in enumerate(program.steps):
        if index in memory.idle:
            continue
        out = pointer(step.out)
        match step:
            case Run(layer, (source,)):
                own = _layer(layer, packed[layer], constants, grouped=grouped)
                sums = f"memory + {memory.scratch[index]}" if layer.pool else out
                found.append(f"run(&{own}, {pointer(source)}, {sums}, {out});")
            case Map():
                own = _add_struct(constants, "map", "loops", _map(step, loops))
                operands = [
                    pointer(each)
                    if isinstance(each, Place)
                    else constants.add_array(
                        "constant", np.ravel(each).astype(np.float32)
                    )
                    for each in step.operands
                ]
                found.append(f"map(&{own}, {', '.join(operands)}, {out});")
            case Pool(fields, (source,)):
                own = _add_struct(constants, "window", "windows", fields)
                found.append(f"window(&{own}, {pointer(source)}, {out});")
    return found


def _map(step: Map, loops: int) -> Mapping[str, object]:
    """Returns the fields of a `struct map`."""
    rest = loops - len(step.sizes)
    steps = [*step.steps, *[(0, 0, 0, 0)] * rest]
    return {
        "function": enumerator(step.function),
        "loops": len(step.sizes),
        "sizes": _braces([*step.sizes, *[0] * rest]),
        "steps": _braces(map(_braces, steps)),
    }


def _layer(
    layer: Layer, packed: PackedWeights, constants: Constants, *, grouped: bool
) -> str:
    """Adds the constants of a layer and returns the name of its `struct layer`."""
    path = layer.name.removesuffix("/kernel")
    own = f"layer_{path}"
    scales = None if layer.scale is None else layer.scale * packed.scale
    extra = [
        "0" if numbers is None else constants.add_array(f"{own}_{field}", numbers)
        for field, numbers in (("scales", scales), ("shifts", layer.shift))
    ]
    taps = "0"
    if layer.taps is not None:
        lines = [f"    {_braces(tap)}," for tap in layer.taps.tolist()]
        taps = constants.add("taps", f"static const struct tap @[{len(lines)}]", lines)
    weights = [
        constants.add_array(f"{own}_{field}", value)
        if isinstance(value, np.ndarray)
        else value
        for field, value in packed.fields.items()
    ]
    _, channels, units = layer.kernel.shape
    fields = {
        "channels": channels,
        "in_size": layer.in_size,
        "units": units,
        **({"group_units": units // layer.groups} if grouped else {}),
        "height": layer.height,
        "width": layer.width,
        "kernel_size": layer.kernel.shape[0],
        "row_step": layer.row_step,
        "step": layer.step,
        "dense": int(layer.taps is None),
        "relu": int(layer.relu),
        "pool": int(layer.pool),
        "scale": _float(packed.scale),
        "scales": extra[0],
        "shifts": extra[1],
        "taps": taps,
        "weights": _braces(weights),
    }
    return _add_struct(constants, "layer", own, fields)


def _add_struct(
    constants: Constants, kind: str, wish: str, fields: Mapping[str, object]
) -> str:
    """Adds a structure and returns its name.

    C++ before C++20 has no names of fields in initialisers, so their order counts.

    Args:
      constants: constants so far.
      kind: name of the structure.
      wish: name of the constant, if nothing else has it.
      fields: each field of the structure, in the order of its declaration.
    """
    text = ", ".join(map(str, fields.values()))
    lines = textwrap.wrap(text, 88, initial_indent="    ", subsequent_indent="    ")
    return constants.add(wish, f"static const struct {kind} @", lines)


def array(name: str, numbers: np.ndarray) -> str:
    """Returns the definition of a constant array.

    An empty array is written with one 0, because C has no arrays of no elements.

    Args:
      name: name of the array.
      numbers: float32 or uint8 `[count]`.
    """
    kind, row, texts = "uint8_t", 18, list(map(str, numbers.tolist()))
    if numbers.dtype == np.float32:
        kind, row, texts = "float", 5, list(map(_float, numbers.tolist()))
    texts = texts or ["0"]
    lines = [
        "    " + ", ".join(texts[begin : begin + row]) + ","
        for begin in range(0, len(texts), row)
    ]
    return _define(f"static const {kind} {name}[{len(texts)}]", lines)


def _define(declaration: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{declaration} = {{", *lines, "};", ""])


def _braces(values: Iterable[object]) -> str:
    """Returns an initialiser of several values."""
    return "{" + ", ".join(map(str, values)) + "}"


def _float(value: float | np.float32) -> str:
    """Returns a float literal, with the nine digits that identify a float32."""
    if np.isfinite(value):
        return f"{value:.8e}f"
    return "NAN" if np.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
