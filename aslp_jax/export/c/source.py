"""Source of a network: files of the runtime, constants, and functions.

The functions that compute are C files in `runtime/`. A network has the ones that it
needs. Files of integers that depend on the kind of their input are there once for each
kind that layers take, with `NUMBER` and `NUMBERS` in the place of its names. The file
is long because it says of each file of the runtime who needs it.
"""

import importlib.resources
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aslp_jax.export.c.functions import apply, enumerator, needs_library
from aslp_jax.export.c.interface import Interface, Pixels
from aslp_jax.export.c.layers import Layer
from aslp_jax.export.c.memory import Memory
from aslp_jax.export.c.program import DType, Map, Place, Pool, Program, Run, Step
from aslp_jax.export.c.text import TYPES, array, memory_dtype
from aslp_jax.export.c.weights import PackedWeights, Storage
from aslp_jax.export.operations import Shape

__all__ = ["Source"]

_EITHER = re.compile(r"#if INTEGERS\n(.*?)(?:#else\n(.*?))?#endif\n", re.DOTALL)


class Source(NamedTuple):
    """Network whose source is written.

    Attributes:
      interface: its functions, as a caller sees them.
      program: its steps.
      memory: places of the buffers.
      packed: weights of each layer.
      storage: way to store the weights.
      outside: names of the buffers that lie in no array of the network.
    """

    interface: Interface
    program: Program
    memory: Memory
    packed: Mapping[Layer, PackedWeights]
    storage: Storage
    outside: Mapping[int, str]

    @property
    def steps(self) -> list[Step]:
        """Steps that are taken."""
        steps = enumerate(self.program.steps)
        return [step for index, step in steps if index not in self.memory.idle]

    @property
    def integers(self) -> bool:
        """True for a network of integers."""
        return self.interface.number != "float"

    @property
    def operations(self) -> int:
        """Number of multiply-adds, or of additions, of the layers for one input."""
        return sum(
            layer.height * layer.width * each.summands
            for layer, each in self.packed.items()
        )

    @property
    def sums(self) -> int:
        """Number of int32 sums of one unit."""
        if not self.integers:
            return 0
        return max((layer.height * layer.width for layer in self.packed), default=0)

    @property
    def has_partial_sums(self) -> bool:
        """True if signed bytes are summed in 16 bits, as far as they fit."""
        signed = self.storage in ("signs", "seed")
        return signed and self.sums > 1 and "int16" not in self._kinds()

    @property
    def memory_bytes(self) -> int:
        """Bytes of what lies between layers, and of sums."""
        return self.memory.size + self.sums * (6 if self.has_partial_sums else 4)

    @property
    def normal(self) -> bool:
        """True if the C code computes normally distributed weights."""
        return any(each.normal for each in self.packed.values())

    @property
    def functions(self) -> list[str]:
        """Functions of numbers that some steps apply."""
        return sorted({step.function for step in self.steps if isinstance(step, Map)})

    def text(self, constants: Sequence[str], calls: Sequence[str]) -> str:
        """Returns the source.

        Args:
          constants: definitions of the constants.
          calls: calls that compute the network.
        """
        return "\n".join(
            [*self._runtime_parts(), *constants, *self._public_functions(calls)]
        )

    def _runtime_parts(self) -> Iterator[str]:
        """Yields what lies before the constants of a source."""
        windows = any(isinstance(step, Pool) for step in self.steps)
        yield f'#include "{self.interface.name}.h"\n'
        floats = not self.integers
        if floats and (windows or self._has_infinity() or self.needs_library):
            yield "#include <math.h>\n"
        copies = self.storage == "signs" or (floats and self.storage == "seed")
        if self.packed and copies:
            yield "#include <string.h>\n"
        if windows or self.functions or self.packed:
            yield from self._number_parts()
        if self.packed:
            yield from self._layer_parts()
        if self.functions:
            maps = [step for step in self.steps if isinstance(step, Map)]
            names = ", ".join(map(enumerator, self.functions))
            yield f"enum {{ LOOPS = {max(len(step.sizes) for step in maps)} }};\n"
            yield f"enum function {{ {names} }};\n"
            yield self._file("map")
            yield apply(self.functions, integers=self.integers)
        if windows:
            yield self._file("window")
        if self.interface.pixels is not None and not self.integers:
            yield from _preparation(self.interface.pixels, self.interface.input_shape)

    @property
    def needs_library(self) -> bool:
        """True if the source calls functions of `math.h`."""
        return not self.integers and (self.normal or needs_library(self.functions))

    def _file(self, name: str) -> str:
        """Returns a file of the runtime for these numbers."""
        return _runtime(name, integers=self.integers)

    def _has_infinity(self) -> bool:
        """Returns True if a constant is no finite number."""
        return any(
            not np.isfinite(each).all()
            for step in self.steps
            for each in step.operands
            if isinstance(each, np.ndarray)
        )

    def _number_parts(self) -> Iterator[str]:
        """Yields what the numbers between layers are."""
        if not self.integers:
            yield "#define NUMBERS float\n#define SUM float\n"
            yield "#define LEAST (-INFINITY)\n"
            return
        dtypes = self._dtypes()
        yield (
            f"#define HAS_INT8 {int('int8' in dtypes)}\n"
            f"#define HAS_INT16 {int('int16' in dtypes)}\n"
            f"#define NUMBERS void\n"
            f"#define SUM int32_t\n"
            f"#define LEAST INT32_MIN\n"
        )
        yield self._file("integers")
        if any(isinstance(step, Map | Pool) for step in self.steps):
            yield self._file("get")
        if any(
            isinstance(step, Pool) or step.requantization is not None
            for step in self.steps
        ):
            yield self._file("requantize")

    def _dtypes(self) -> set[DType]:
        """Returns the dtypes of all numbers that are taken or made one by one."""
        places = [
            each
            for step in self.steps
            for each in (*step.operands, step.out)
            if isinstance(each, Place)
        ]
        return {self.program.dtypes[each.buffer] for each in places}

    def _layer_parts(self) -> Iterator[str]:
        """Yields the functions of layers."""
        storage = self.storage
        yield f"#define GROUPED {int(any(layer.groups > 1 for layer in self.packed))}\n"
        if storage == "seed":
            yield f"#define NORMAL_WEIGHTS {int(self.normal)}\n"
        if storage in ("dense", "sparse"):
            yield f"#define WEIGHT {'int8_t' if self.integers else 'float'}\n"
        if storage in ("signs", "seed"):
            yield self._file("bits")
        yield self._file(f"weights_{storage}")
        yield self._file("layer")
        if self.integers:
            yield from self._integer_layer_parts()
            return
        files = {
            "find_bits": storage in ("signs", "seed"),
            "random_words": storage == "seed",
            "add_weighted": storage in ("dense", "sparse") or self.normal,
            "add_signed": storage in ("signs", "seed"),
            "normal": self.normal,
            f"sum_{storage}": True,
            "sum": storage in ("dense", "signs"),
            "run": True,
        }
        yield from (self._file(file) for file, needed in files.items() if needed)

    def _kinds(self) -> set[DType]:
        """Returns the dtypes of all inputs of layers."""
        runs = [step for step in self.steps if isinstance(step, Run)]
        return {self.program.dtypes[step.operands[0].buffer] for step in runs}

    def _integer_layer_parts(self) -> Iterator[str]:
        """Yields what follows the structure of a layer of integers."""
        signed = self.storage in ("signs", "seed")
        yield (
            f"#define SIGNS_ALONE {int(signed)}\n"
            f"#define PARTIAL_SUMS {int(self.has_partial_sums)}\n"
            f"#define POOLED {int(any(layer.pool for layer in self.packed))}\n"
            f"enum {{ SUMS = {self.sums} }};\n"
        )
        yield self._file("integer_sums")
        if signed:
            yield self._file("next_bit")
        if self.storage == "signs":
            yield "/* Four weights, by the bits of kept and of negative ones. */"
            yield array("four_weights", _four_weights())
            yield self._file("decode")
        if self.storage == "seed":
            yield self._file("random_words")
        yield self._file("integer_finish")
        for kind in sorted(self._kinds()):
            for file in ("add", self.storage, "run"):
                text = self._file(f"integer_{file}").replace("_NUMBERS", f"_{kind}")
                yield text.replace("NUMBER", TYPES[kind])

    def _public_functions(self, calls: Sequence[str]) -> Iterator[str]:
        """Yields the array between layers and the public functions."""
        interface = self.interface
        if self.memory.size:
            dtype = memory_dtype(self.program, self.memory, self.outside)
            size = -(-self.memory.size // np.dtype(dtype).itemsize)
            yield (
                "/* What lies between layers. */\n"
                f"static {TYPES[dtype]} memory[{size}];\n"
            )
        body = "\n    ".join(calls)
        yield f"""{interface.declaration}
{{
    {body}
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


def _four_weights() -> np.ndarray:
    """Returns four weights by four bits of kept ones, then four of negative ones.

    Returns:
      int8 `[1024]`, each -1, 0 or 1. A kept weight takes the next bit of negative ones.
    """
    bits = np.arange(16)[:, None] >> np.arange(4) & 1
    ranks = np.cumsum(bits, 1) - bits
    negative = np.arange(16)[None, :, None] >> ranks[:, None] & 1
    return (bits[:, None] * (1 - 2 * negative)).astype(np.int8).ravel()


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


def _runtime(file: str, *, integers: bool = False) -> str:
    """Returns one file of the runtime, without what only floats or only integers need.

    So a source of integers has no floating point even where no compiler looks.
    """
    folder = importlib.resources.files("aslp_jax.export.c") / "runtime"
    text = (folder / f"{file}.c").read_text(encoding="utf-8")
    kept = r"\1" if integers else r"\2"
    return _EITHER.sub(kept, text)
