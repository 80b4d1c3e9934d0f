"""Integer graph of a graph of floats, from the ranges of its values.

Each operation with exact sums takes the factors, shifts and limits that follow it into
its own rounding. What is left of functions of one number becomes a table. The file is
long because it holds a rule for each operation.
"""

import dataclasses
import math
from collections.abc import Sequence
from typing import Literal, NoReturn, TypeAlias

import jax.numpy as jnp
import numpy as np

from aslp_jax.export.integer.calibration import CalibrationError, Range
from aslp_jax.export.integer.operations import (
    IntegerGraph,
    IntegerLayer,
    IntegerNode,
    IntegerOperation,
    IntegerProduct,
    IntegerSum,
    IntegerWindow,
    Lookup,
    Number,
    Rescale,
    limits,
)
from aslp_jax.export.integer.rounding import RealStep, requantization, round_to
from aslp_jax.export.operations import (
    Binary,
    Broadcast,
    Concatenate,
    Conv,
    Dense,
    Graph,
    Node,
    Operation,
    Pad,
    Reduce,
    Reshape,
    Select,
    Shape,
    Slice,
    Transpose,
    Unary,
    Window,
    compute,
)
from aslp_jax.export.refusal import UnsupportedError

__all__ = ["ACTIVATIONS", "Activations", "Standardisation", "to_integers"]

Activations: TypeAlias = Literal["int8", "int16"]
"""Size of the integers between layers."""

ACTIVATIONS: tuple[Activations, ...] = ("int8", "int16")
"""Sizes of the integers between layers."""

Standardisation: TypeAlias = tuple[Sequence[float] | None, Sequence[float] | None]
"""Mean and standard deviation of each channel, for pixels in [0, 1]; None for none."""

_OUTPUT_MARGIN = 2.0
"""Largest output that int16 holds, over the largest one on the calibration images."""

_HEADROOM = 2.0
"""Largest number of int16 between layers, over the largest one that was seen."""

_SUMS = 2**31 - 1
"""Largest sum."""

_MOVES = (Reshape, Transpose, Broadcast)
"""Operations that only move numbers, of one operand."""


def to_integers(
    graph: Graph,
    ranges: Sequence[Range],
    *,
    activations: Activations = "int8",
    image: Standardisation | None = None,
) -> IntegerGraph:
    """Returns a network that computes with integers alone.

    Weights of one magnitude in each unit become -1, 0 and 1; all others become int8,
    with a scale for each unit.

    Args:
      graph: a simplified graph.
      ranges: range of each value, as `calibrate` measures them.
      activations: size of the integers between layers.
      image: standardisation of inputs that are bytes from 0 to 255; None if the inputs
        are no images, and integers of `numbers[0]`.

    Returns:
      The integer graph. Its output is int16 where a layer, a function or a mean
      computes it, also where a reshape, a transpose or a maximum follows.

    Raises:
      CalibrationError: a value has the range 0.
      UnsupportedError: an operation has no integer form.
      ValueError: the size of the integers is unknown.
    """
    if activations not in ACTIVATIONS:
        raise ValueError(
            f"to_integers: activations must be one of {ACTIVATIONS}, got "
            f"{activations!r}"
        )
    conversion = _Conversion(graph, ranges, activations)
    conversion.read(image)
    for value in range(1, len(graph.nodes) + 1):
        conversion.convert(value)
    return conversion.finish()


class _Conversion:
    """The integer graph so far.

    Attributes:
      graph: graph of floats.
      ranges: range of each of its values.
      activations: size of the integers between layers.
      nodes: integer operations so far.
      numbers: integers of each integer value so far.
      places: integer value of each value of the graph that has one.
      roots: for a value that is a function of one other, number by number, that one.
    """

    def __init__(
        self, graph: Graph, ranges: Sequence[Range], activations: Activations
    ) -> None:
        self.graph, self.ranges, self.activations = graph, ranges, activations
        self.nodes, self.numbers = list[IntegerNode](), list[Number]()
        self.places, self.roots = dict[int, int](), dict[int, int]()
        self._shapes, self._uses = graph.shapes, graph.uses
        self._users: dict[int, int] = {
            index: value
            for value, node in enumerate(graph.nodes, start=1)
            for index in node.inputs
        }
        self._absorbed = set[int]()
        self._like = self._find_like()
        self._outputs = self._find_outputs()

    def read(self, image: Standardisation | None) -> None:
        """Adds the input, and what makes numbers of its pixels."""
        if image is None:
            self.numbers.append(self._number(0))
            self.places[0] = 0
            return
        self.numbers.append(Number("uint8", 1 / 255))
        mean, std = image
        if mean is None or std is None:
            if self.activations == "int8":
                self.places[0] = 0
                return
            mean, std = [0.0], [1.0]
        factor = 1 / np.asarray(std, np.float64)
        real = RealStep(factor / 255, -np.asarray(mean, np.float64) * factor)
        number = self._number(0)
        step = requantization(real, number, 255)
        self.places[0] = self._emit(Rescale(step), (0,), self._shapes[0], number)

    def finish(self) -> IntegerGraph:
        """Returns the whole graph."""
        last = len(self.graph.nodes)
        place = self._place(last)
        if place != len(self.nodes):
            self._emit(Reshape(), (place,), self._shapes[last], self.numbers[place])
        return IntegerGraph(
            self.graph.input_shape, tuple(self.nodes), tuple(self.numbers), self.graph
        )

    def convert(self, value: int) -> None:
        """Adds the integer form of an operation, unless a table will compute it."""
        if value in self._absorbed:
            return
        node = self.graph.nodes[value - 1]
        root = self._root(node)
        if root is not None:
            self.roots[value] = root
            return
        match node.operation:
            case Conv() | Dense() as layer:
                self._layer(value, node, layer)
            case Binary("add" | "sub" | "mul", None) as binary:
                self._pair(value, node, binary.function)
            case Binary(constant=constant) if constant is not None:
                self._rescale(value, node)
            case Window("sum") as window:
                self._sum_windows(value, node, window, node.shape, 1)
            case Window("max"):
                self._keep(value, node, node.operation)
            case Reduce("sum" | "mean" | "max", axes) as reduce:
                self._reduce(value, node, reduce, axes)
            case Reshape() | Transpose() | Broadcast() | Slice():
                self._keep(value, node, node.operation)
            case Pad(padding, filler):
                number = self.numbers[self._place(node.inputs[0])]
                integer = float(round_to(filler, number))
                self._keep(value, node, Pad(padding, integer))
            case Concatenate() as concatenate:
                self._concatenate(value, node, concatenate)
            case _:
                self._refuse(node)

    def _find_like(self) -> dict[int, int]:
        """Returns the value whose range each value should have, where not its own."""
        like: dict[int, int] = {}
        for value in range(len(self.graph.nodes), 0, -1):
            node = self.graph.nodes[value - 1]
            if isinstance(node.operation, (*_MOVES, Concatenate)) or (
                isinstance(node.operation, Window) and node.operation.function == "max"
            ):
                for index in node.inputs:
                    if self._uses[index] == 1:
                        like[index] = like.get(value, value)
        return like

    def _find_outputs(self) -> set[int]:
        """Returns the values whose numbers are those of the output, or some of them."""
        value = len(self.graph.nodes)
        found = {value}
        while value and _keeps_numbers(self.graph.nodes[value - 1].operation):
            (value,) = self.graph.nodes[value - 1].inputs
            if self._uses[value] != 1:
                break
            found.add(value)
        return found

    def _number(self, value: int) -> Number:
        """Returns the integers of a value, by its range.

        Raises:
          CalibrationError: all of its numbers are 0.
        """
        found = self.ranges[self._like.get(value, value)]
        if not (found.size > 0 and math.isfinite(found.size)):
            what = "input" if value == 0 else f"result of {self._name(value)}"
            raise CalibrationError(
                f"to_integers: the {what} has the range [{found.low:g}, "
                f"{found.high:g}] on the calibration images; it must not be 0"
            )
        if value in self._outputs and value:
            return _int16(self.ranges[value], _OUTPUT_MARGIN)
        return self._between_layers(found)

    def _between_layers(self, found: Range) -> Number:
        """Returns the integers of a value between layers."""
        if self.activations == "int16":
            return _int16(found, _HEADROOM)
        kind: Literal["uint8", "int8"] = "uint8" if found.low >= 0 else "int8"
        return Number(kind, found.kept / limits(kind)[1])

    def _name(self, value: int) -> str:
        node = self.graph.nodes[value - 1]
        kind = type(node.operation).__name__
        name = getattr(node.operation, "name", "")
        return f"{kind} {name!r}" if name else f"{kind} to {list(node.shape)}"

    def _emit(
        self,
        operation: IntegerOperation,
        inputs: tuple[int, ...],
        shape: Shape,
        number: Number,
    ) -> int:
        self.nodes.append(IntegerNode(operation, inputs, shape))
        self.numbers.append(number)
        return len(self.nodes)

    def _place(self, value: int) -> int:
        """Returns the integer value of a value, which a table may still compute."""
        if value not in self.places:
            root = self.roots[value]
            source, number = self._place(root), self._number(value)
            held = self.numbers[source]
            reals = _integers(held) * held.scale
            results = self._evaluate(value, root, reals)
            lookup = _lookup(results, held, number, (root, value))
            shape = self._shapes[value]
            self.places[value] = self._emit(lookup, (source,), shape, number)
        return self.places[value]

    def _evaluate(self, value: int, root: int, reals: np.ndarray) -> np.ndarray:
        """Returns a function of one value for some real numbers."""
        if value == root:
            return reals
        node = self.graph.nodes[value - 1]
        operands = [self._evaluate(index, root, reals) for index in node.inputs]
        operation = node.operation
        match operation:
            case Binary(constant=constant) if constant is not None:
                operation = dataclasses.replace(
                    operation, constant=np.reshape(constant, ())
                )
            case Select(constants):
                operation = Select(
                    tuple(
                        None if each is None else np.reshape(each, ())
                        for each in constants
                    )
                )
        flat = Node(operation, node.inputs, ())
        return np.asarray(compute(flat, [jnp.float32(each) for each in operands]))

    def _root(self, node: Node) -> int | None:
        """Returns the one value of 8 bits that an operation is a function of."""
        match node.operation:
            case Unary():
                constants: Sequence[np.ndarray | None] = ()
            case Binary(constant=constant):
                constants = (constant,)
            case Select(constants):
                pass
            case _:
                return None
        if any(np.size(each) != 1 for each in constants if each is not None):
            return None
        roots = {self.roots.get(index, index) for index in node.inputs}
        shapes = {self._shapes[index] for index in (*node.inputs, *roots)}
        if len(roots) != 1 or shapes != {node.shape}:
            return None
        (root,) = roots
        kind = self.numbers[self._place(root)].kind
        return None if kind == "int16" else root

    def _absorb(
        self, value: int, real: RealStep, *, by_channel: bool = True
    ) -> tuple[int, RealStep]:
        """Takes the functions that follow a value, as far as one rounding can.

        Args:
          value: number of the value.
          real: step to the value.
          by_channel: True if the step may have a factor for each channel.

        Returns:
          The value that takes its place, and the step to it.
        """
        while self._uses[value] == 1 and value in self._users:
            follower = self._users[value]
            node = self.graph.nodes[follower - 1]
            if not isinstance(node.operation, Binary) or len(node.inputs) != 1:
                break
            if node.shape != self._shapes[value]:
                break
            found = real.then(node.operation, node.shape[-1] if node.shape else 1)
            if found is None or not (by_channel or found.is_single):
                break
            self._absorbed.add(follower)
            value, real = follower, found
        return value, real

    def _layer(self, value: int, node: Node, layer: Conv | Dense) -> None:
        source = self._place(node.inputs[0])
        held = self.numbers[source]
        kernel, sizes = _integer_kernel(layer.kernel)
        bound = int(np.abs(kernel).reshape(-1, kernel.shape[-1]).sum(0).max())
        bound *= limits(held.kind)[1]
        if bound > _SUMS:
            raise UnsupportedError(
                f"integers: the sums of {self._name(value)} may be {bound:,}, more "
                "than 32 bits hold; use int8 activations"
            )
        scale = sizes * (1.0 if layer.scale is None else np.float64(layer.scale))
        shift = 0.0 if layer.shift is None else np.float64(layer.shift)
        real = RealStep(scale * held.scale, np.asarray(shift))
        plain = dataclasses.replace(layer, kernel=kernel, scale=None, shift=None)
        value, real = self._absorb(value, real)
        number = self._number(value)
        step = requantization(real, number, bound)
        operation = IntegerLayer(plain, step)
        self.places[value] = self._emit(operation, (source,), node.shape, number)

    def _pair(self, value: int, node: Node, function: str) -> None:
        sources = tuple(self._place(index) for index in node.inputs)
        held = [self.numbers[source] for source in sources]
        bounds = [limits(each.kind)[1] for each in held]
        scales = np.array([each.scale for each in held])
        one = RealStep(np.array(1.0), np.array(0.0))
        value, real = self._absorb(value, one, by_channel=False)
        number = self._number(value)
        operation: IntegerOperation
        if function == "mul":
            factor = real.factor * scales.prod()
            real = dataclasses.replace(real, factor=factor)
            step = requantization(real, number, math.prod(bounds))
            operation = IntegerProduct(step)
        else:
            signs = np.array([1, -1 if function == "sub" else 1])
            real = dataclasses.replace(real, factor=real.factor * scales * signs)
            step = requantization(real, number, sum(bounds), joined=False)
            operation = IntegerSum(step)
        self.places[value] = self._emit(operation, sources, node.shape, number)

    def _rescale(self, value: int, node: Node) -> None:
        """Adds a factor, a shift or a limit that no operation took."""
        source = self._place(node.inputs[0])
        held = self.numbers[source]
        real, binary = None, node.operation
        if isinstance(binary, Binary) and node.shape == self._shapes[node.inputs[0]]:
            plain = RealStep(np.array(held.scale), np.array(0.0))
            real = plain.then(binary, node.shape[-1] if node.shape else 1)
        if real is None:
            self._refuse(node)
        value, real = self._absorb(value, real)
        number = self._number(value)
        step = requantization(real, number, limits(held.kind)[1])
        self.places[value] = self._emit(Rescale(step), (source,), node.shape, number)

    def _sum_windows(
        self, value: int, node: Node, window: Window, shape: Shape, count: int
    ) -> None:
        """Adds windows of sums, divided by a count."""
        source = self._place(node.inputs[0])
        held = self.numbers[source]
        bound = math.prod(window.window) * limits(held.kind)[1]
        if bound > _SUMS:
            self._refuse(node)
        real = RealStep(np.array(held.scale / count), np.array(0.0))
        value, real = self._absorb(value, real, by_channel=False)
        number = self._number(value)
        step = requantization(real, number, bound)
        place = self._emit(IntegerWindow(window, step), (source,), shape, number)
        if shape != node.shape:
            place = self._emit(Reshape(), (place,), node.shape, number)
        self.places[value] = place

    def _reduce(
        self, value: int, node: Node, reduce: Reduce, axes: Sequence[int]
    ) -> None:
        """Adds a statistic over axes as one window."""
        before = self._shapes[node.inputs[0]]
        sizes = tuple(size if axis in axes else 1 for axis, size in enumerate(before))
        shape = tuple(1 if axis in axes else size for axis, size in enumerate(before))
        padding = ((0, 0),) * len(before)
        strides = (1,) * len(before)
        if reduce.function == "max":
            source = self._place(node.inputs[0])
            number = self.numbers[source]
            window = Window("max", sizes, strides, padding)
            place = self._emit(window, (source,), shape, number)
            self.places[value] = self._emit(Reshape(), (place,), node.shape, number)
            return
        count = math.prod(sizes) if reduce.function == "mean" else 1
        window = Window("sum", sizes, strides, padding)
        self._sum_windows(value, node, window, shape, count)

    def _keep(self, value: int, node: Node, operation: IntegerOperation) -> None:
        """Adds an operation that only moves or compares numbers."""
        source = self._place(node.inputs[0])
        number = self.numbers[source]
        self.places[value] = self._emit(operation, (source,), node.shape, number)

    def _concatenate(self, value: int, node: Node, operation: Concatenate) -> None:
        self._number(value)  # refuses a range of 0
        number = self._between_layers(self.ranges[self._like.get(value, value)])
        places = tuple(self._as(self._place(index), number) for index in node.inputs)
        constants = tuple(
            None if each is None else round_to(np.asarray(each), number)
            for each in operation.constants
        )
        joined = Concatenate(operation.axis, constants)
        self.places[value] = self._emit(joined, places, node.shape, number)

    def _as(self, place: int, number: Number) -> int:
        """Returns an integer value with other integers for the same real numbers."""
        held = self.numbers[place]
        if held == number:
            return place
        shape = self.nodes[place - 1].shape if place else self.graph.input_shape
        operation: IntegerOperation
        if held.kind == "int16":
            real = RealStep(np.array(held.scale), np.array(0.0))
            operation = Rescale(requantization(real, number, limits("int16")[1]))
        else:
            operation = _lookup(_integers(held) * held.scale, held, number)
        return self._emit(operation, (place,), shape, number)

    def _refuse(self, node: Node) -> NoReturn:
        operation = node.operation
        words = [type(operation).__name__, getattr(operation, "function", "")]
        about = " ".join(filter(None, words))
        raise UnsupportedError(
            f"integers: {about} to {list(node.shape)} has no integer form with "
            f"{self.activations} activations; export with --activations float32"
        )


def _keeps_numbers(operation: Operation) -> bool:
    """Returns True if all results are numbers of the operand, the largest ones too."""
    match operation:
        case Reshape() | Transpose() | Window("max") | Reduce("max"):
            return True
    return False


def _int16(found: Range, margin: float) -> Number:
    """Returns 16-bit integers of a range and a margin."""
    return Number("int16", found.size * margin / limits("int16")[1])


def _integers(number: Number) -> np.ndarray:
    """Returns all 256 integers of a kind of 8 bits in their order."""
    first = 0 if number.kind == "uint8" else -128
    return np.maximum(np.arange(first, first + 256), limits(number.kind)[0])


def _lookup(
    results: np.ndarray,
    held: Number,
    number: Number,
    values: tuple[int, int] | None = None,
) -> Lookup:
    """Returns the table of a function.

    Args:
      results: real results for all integers of the operand.
      held: integers of the operand.
      number: integers of the result.
      values: as in `Lookup`.
    """
    first = 0 if held.kind == "uint8" else -128
    return Lookup(round_to(np.asarray(results, np.float64), number), first, values)


def _integer_kernel(kernel: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Returns integers for the weights of a layer, and what 1 stands for.

    Args:
      kernel: float32 `[..., units]`.

    Returns:
      Integers as float32 `[..., units]`: signs where each unit has one magnitude, and
      from -127 to 127 otherwise; and a float64 `[units]`, 0 for a unit without
      weights, whose factor must not cost the others precision.
    """
    rows = np.asarray(kernel, np.float64).reshape(-1, kernel.shape[-1])
    sizes = np.abs(rows).max(0, initial=0)
    divisors = np.where(sizes == 0, 1, sizes)
    if not np.isin(np.abs(rows) / divisors, (0, 1)).all():
        sizes, divisors = sizes / 127, divisors / 127
    integers = np.rint(rows / divisors).astype(np.float32)
    return integers.reshape(kernel.shape), sizes
