"""Integer graph of a network: operations whose results are the same on every processor.

A value holds integers of one kind, and an integer `n` stands for the real number
`scale * n`. Zero is always 0. So padding, dropped weights and the start of a sum add
nothing, and a sum of signed inputs needs no correction. A value that is never negative
takes unsigned bytes, so that it loses no bit to the sign.

Sums are exact in int32. They become integers of the next value by a fixed-point
multiplier, as in the int8 specification of TensorFlow Lite (Jacob et al. 2018,
"Quantization and training of neural networks for efficient integer-arithmetic-only
inference"), with one rounding:

    result = clip(floor((sum * multiplier + offset) / 2^shift), low, high)

`offset` holds one half of `2^shift`, which makes it rounding half up, and the bias. It
and the product are exact in int64.
"""

import dataclasses
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from aslp_jax.export.operations import (
    Broadcast,
    Concatenate,
    Conv,
    Dense,
    Graph,
    Pad,
    Reshape,
    Shape,
    Slice,
    Transpose,
    Window,
)

__all__ = [
    "IntegerGraph",
    "IntegerLayer",
    "IntegerNode",
    "IntegerOperation",
    "IntegerProduct",
    "IntegerSum",
    "IntegerWindow",
    "Kind",
    "Lookup",
    "Number",
    "Requantization",
    "Rescale",
    "limits",
]

Kind: TypeAlias = Literal["uint8", "int8", "int16"]
"""Kind of integers, by its NumPy dtype; int8 and int16 are symmetric around 0."""

_LIMITS: dict[Kind, tuple[int, int]] = {
    "uint8": (0, 255),
    "int8": (-127, 127),
    "int16": (-32767, 32767),
}


def limits(kind: Kind) -> tuple[int, int]:
    """Returns the least and the largest integer of a kind."""
    return _LIMITS[kind]


class Number(NamedTuple):
    """Integers of a value, and what they stand for.

    Attributes:
      kind: kind of the integers.
      scale: real number that 1 stands for.
    """

    kind: Kind
    scale: float


@dataclasses.dataclass(frozen=True, eq=False)
class Requantization:
    """Step from exact sums to the integers of a value.

    Attributes:
      multipliers: int32 `[channels]` or `[1]`, factor of each sum; of an `IntegerSum`
        int32 `[2]`, the factors of its operands.
      offsets: int64 `[channels]` or `[1]`, added to the product.
      shift: binary places that are cut off, 1 to 62.
      low: least result.
      high: largest result.
    """

    multipliers: np.ndarray
    offsets: np.ndarray
    shift: int
    low: int
    high: int


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerLayer:
    """Convolution or dense layer with integer weights.

    Attributes:
      layer: the layer; its kernel holds integers from -127 to 127 as float32, and has
        no scale and no shift. Sums fit into int32 whatever the input is.
      requantization: step to the result.
    """

    layer: Conv | Dense
    requantization: Requantization


@dataclasses.dataclass(frozen=True, eq=False)
class Lookup:
    """Any function of one number of 8 bits, as a table.

    Attributes:
      table: int16 `[256]`, results for the integers from `first` up. The result for
        -128, which no value has, is that for -127.
      first: integer of the first entry: 0 for uint8, -128 for int8.
      values: numbers of the operand and of the result among the values of the graph's
        `source`; None (default) if the result stands for the same real numbers.
    """

    table: np.ndarray
    first: int
    values: tuple[int, int] | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Rescale:
    """Factor and shift for each channel, the last axis; also another kind of integers.

    It is the first operation of a network whose pixels are standardised, or whose
    values are int16; only there is the kind of its input another one.

    Attributes:
      requantization: step from the input to the result.
    """

    requantization: Requantization


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerSum:
    """Sum of two values, where shapes broadcast.

    Attributes:
      requantization: step to the result; it has a multiplier for each operand, and one
        offset.
    """

    requantization: Requantization


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerProduct:
    """Product of two values, where shapes broadcast.

    Attributes:
      requantization: step to the result; it has one multiplier and one offset.
    """

    requantization: Requantization


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerWindow:
    """Sum of windows, as for a mean.

    Attributes:
      window: the windows, of the function `"sum"`.
      requantization: step to the result; it has one multiplier and one offset.
    """

    window: Window
    requantization: Requantization


IntegerOperation: TypeAlias = (
    IntegerLayer
    | Lookup
    | Rescale
    | IntegerSum
    | IntegerProduct
    | IntegerWindow
    | Window
    | Reshape
    | Broadcast
    | Transpose
    | Slice
    | Concatenate
    | Pad
)
"""Operation of an integer graph.

A `Window` is a maximum; its padding never is one. The constants of `Concatenate`, and
the value of `Pad`, are integers.
"""


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerNode:
    """An operation in its place, as `Node`."""

    operation: IntegerOperation
    inputs: tuple[int, ...]
    shape: Shape


@dataclasses.dataclass(frozen=True, eq=False)
class IntegerGraph:
    """A network of integers; the result of the last node is its output.

    Attributes:
      input_shape: shape of the input. Images are bytes from 0 to 255, of the kind
        uint8; other inputs are integers of the first number, which has the kind of the
        activations. Where the activations are int16, a `Rescale` alone takes the image.
      nodes: operations, each after those whose results it takes.
      numbers: integers of every value, the input first. Operations that only move or
        compare numbers have a result of the same number as their inputs. All values but
        the input and the output are uint8 and int8, or all are int16. The output may
        be int16 in any case, if an operation with a requantisation or a table gives it;
        reshapes, transposes and maxima may follow.
      source: graph of floats that this one was made from.
    """

    input_shape: Shape
    nodes: tuple[IntegerNode, ...]
    numbers: tuple[Number, ...]
    source: Graph

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """Shape of every value."""
        return (self.input_shape, *(node.shape for node in self.nodes))
