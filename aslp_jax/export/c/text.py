"""Texts of a C source: constants, descriptors of steps, and calls.

The file is long because it spells every kind of constant and step.
"""

import hashlib
import re
import textwrap
from collections.abc import Collection, Hashable, Iterable, Mapping, Sequence

import numpy as np

from aslp_jax.export.c.functions import enumerator
from aslp_jax.export.c.layers import Layer
from aslp_jax.export.c.memory import Memory
from aslp_jax.export.c.program import DType, Map, Place, Pool, Program, Run
from aslp_jax.export.c.weights import PackedWeights
from aslp_jax.export.integer.operations import Requantization

__all__ = ["TYPES", "Constants", "array", "calls", "memory_dtype"]

TYPES: Mapping[str, str] = {
    "float32": "float",
    "uint8": "uint8_t",
    "int8": "int8_t",
    "int16": "int16_t",
    "int32": "int32_t",
    "int64": "int64_t",
}
"""Type in C of each dtype."""


_FIELD = re.compile(r"[^\s,{}]+")
"""A number or a name in an initialiser."""


class Constants:
    """Definitions of constants, each of them written once.

    Attributes:
      definitions: definitions in C, each after those that it refers to.
      size: bytes of all arrays of numbers, such as weights.
      table_size: bytes of all structures, such as those of layers, where a pointer has
        32 bits; a few more where fields are shorter.
    """

    def __init__(self) -> None:
        self.definitions: list[str] = []
        self.size = self.table_size = 0
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
            self.table_size += 4 * sum(map(len, map(_FIELD.findall, lines)))
            self.definitions.append(_define(declaration, lines))
        return self._known[key]

    def add_array(self, wish: str, numbers: np.ndarray) -> str:
        """Adds an array and returns its name.

        Args:
          wish: name, if nothing else has it.
          numbers: numbers `[count]`, of a dtype in `TYPES`.
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

    shared = memory_dtype(program, memory, outside)

    def pointer(place: Place) -> str:
        buffer, offset = place
        dtype = program.dtypes[buffer]
        if buffer in outside:
            name = outside[buffer]
        else:
            name = output if buffer in memory.output else "memory"
            offset += memory.buffers[buffer] // np.dtype(dtype).itemsize
            if name == "memory" and dtype != shared:
                name = f"({TYPES[dtype]} *)memory"
        return f"{name} + {offset}" if offset or name == "memory" else name

    grouped = any(layer.groups > 1 for layer in packed)
    found = []
    for index, step in enumerate(program.steps):
        if index in memory.idle:
            continue
        out = pointer(step.out)
        match step:
            case Run(layer, (source,)):
                dtype = program.dtypes[step.out.buffer]
                own = _layer(layer, packed[layer], constants, dtype, grouped=grouped)
                arguments = [pointer(source), out]
                if layer.requantization is not None:
                    name = f"run_{program.dtypes[source.buffer]}"
                else:
                    name = "run"
                    sums = out
                    if layer.pool:
                        sums = f"memory + {memory.scratch[index] // 4}"
                    arguments.insert(1, sums)
                found.append(f"{name}(&{own}, {', '.join(arguments)});")
            case Map():
                fields = _map(step, loops, program, constants)
                own = _add_struct(constants, "map", "loops", fields)
                operands = [
                    pointer(each)
                    if isinstance(each, Place)
                    else constants.add_array("constant", np.ravel(each))
                    for each in step.operands
                ]
                found.append(f"map(&{own}, {', '.join(operands)}, {out});")
            case Pool(fields, (source,)):
                dtypes = program.dtypes[source.buffer], program.dtypes[step.out.buffer]
                if dtypes[1] != "float32":
                    requantization = _requantization(
                        step.requantization, dtypes[1], constants, "windows"
                    )
                    fields = {
                        **fields,
                        "kind": _kind(dtypes[0]),
                        "requantization": requantization,
                    }
                own = _add_struct(constants, "window", "windows", fields)
                found.append(f"window(&{own}, {pointer(source)}, {out});")
    return found


def memory_dtype(
    program: Program, memory: Memory, outside: Collection[int] = ()
) -> DType:
    """Returns the dtype of the array that holds the values between layers."""
    dtypes = {
        dtype
        for buffer, dtype in enumerate(program.dtypes)
        if buffer in memory.buffers
        and buffer not in memory.output
        and buffer not in outside
    }
    if memory.scratch:
        dtypes.add("float32")
    ordered: tuple[DType, ...] = ("float32", "int16", "uint8", "int8")
    return next((dtype for dtype in ordered if dtype in dtypes), "uint8")


def _map(
    step: Map, loops: int, program: Program, constants: Constants
) -> Mapping[str, object]:
    """Returns the fields of a `struct map`."""
    rest = loops - len(step.sizes)
    steps = [*step.steps, *[(0, 0, 0, 0)] * rest]
    fields: dict[str, object] = {
        "function": enumerator(step.function),
        "loops": len(step.sizes),
        "sizes": _braces([*step.sizes, *[0] * rest]),
        "steps": _braces(map(_braces, steps)),
    }
    dtype = program.dtypes[step.out.buffer]
    if dtype != "float32":
        kinds = [
            _kind(program.dtypes[each.buffer])
            if isinstance(each, Place)
            else _kind(dtype)
            for each in (*step.operands, step.out)
        ]
        fields["kinds"] = _braces(kinds)
        fields["requantization"] = _requantization(
            step.requantization, dtype, constants, "map", pair=step.function == "sum"
        )
    return fields


def _kind(dtype: DType) -> str:
    """Returns the name in C of a kind of integers."""
    return f"KIND_{dtype.upper()}"


def _requantization(
    step: Requantization | None,
    dtype: DType,
    constants: Constants,
    wish: str,
    *,
    pair: bool = False,
) -> str:
    """Adds the arrays of a requantisation and returns its initialiser.

    Args:
      step: the requantisation; None for none.
      dtype: dtype of its result.
      constants: constants so far.
      wish: first part of the names of arrays.
      pair: True if two operands have a multiplier each.
    """
    if step is None:
        return _braces([0, 0, 0, 0, 0, 0, _kind(dtype), 0])
    multipliers = offsets = "0"
    if pair or np.ptp(step.multipliers):
        numbers = step.multipliers.astype(np.int32)
        multipliers = constants.add_array(f"{wish}_multipliers", numbers)
    if np.ptp(step.offsets):
        numbers = step.offsets.astype(np.int64)
        offsets = constants.add_array(f"{wish}_offsets", numbers)
    return _braces(
        [
            _integer(int(step.offsets[0])),
            offsets,
            multipliers,
            int(step.multipliers[0]),
            step.low,
            step.high,
            _kind(dtype),
            step.shift,
        ]
    )


def _layer(
    layer: Layer,
    packed: PackedWeights,
    constants: Constants,
    dtype: DType,
    *,
    grouped: bool,
) -> str:
    """Adds the constants of a layer and returns the name of its `struct layer`."""
    path = layer.name.removesuffix("/kernel")
    own = f"layer_{path}"
    finish: dict[str, object] = {}
    if layer.requantization is not None:
        finish["requantization"] = _requantization(
            layer.requantization, dtype, constants, own
        )
    else:
        scales = None if layer.scale is None else layer.scale * packed.scale
        finish = {"relu": int(layer.relu), "scale": _float(packed.scale)}
        for field, numbers in (("scales", scales), ("shifts", layer.shift)):
            finish[field] = "0"
            if numbers is not None:
                finish[field] = constants.add_array(f"{own}_{field}", numbers)
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
        "pool": int(layer.pool),
        **finish,
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
      numbers: numbers `[count]`, of a dtype in `TYPES`.
    """
    write, row = {
        "float32": (_float, 5),
        "int16": (_integer, 12),
        "int32": (_integer, 6),
        "int64": (_integer, 3),
    }.get(numbers.dtype.name, (_integer, 18))
    texts = [write(each) for each in numbers.tolist()] or ["0"]
    lines = [
        "    " + ", ".join(texts[begin : begin + row]) + ","
        for begin in range(0, len(texts), row)
    ]
    kind = TYPES[numbers.dtype.name]
    return _define(f"static const {kind} {name}[{len(texts)}]", lines)


def _define(declaration: str, lines: Sequence[str]) -> str:
    return "\n".join([f"{declaration} = {{", *lines, "};", ""])


def _braces(values: Iterable[object]) -> str:
    """Returns an initialiser of several values."""
    return "{" + ", ".join(map(str, values)) + "}"


def _integer(value: int) -> str:
    """Returns an integer literal; one of more than 32 bits has its type."""
    if -(2**31) < value < 2**31:
        return str(value)
    if value == -(2**63):
        return "INT64_MIN"
    return f"{'-' * (value < 0)}INT64_C({abs(value)})"


def _float(value: float | np.float32) -> str:
    """Returns a float literal, with the nine digits that identify a float32."""
    if np.isfinite(value):
        return f"{value:.8e}f"
    return "NAN" if np.isnan(value) else "INFINITY" if value > 0 else "-INFINITY"
