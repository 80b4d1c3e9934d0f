"""Size and work of a graph."""

import dataclasses
import math
from collections.abc import Iterator

import numpy as np

from aslp_jax.export.operations import (
    Binary,
    Concatenate,
    Conv,
    Dense,
    Graph,
    MatMul,
    Operation,
    Select,
)

__all__ = ["Cost", "cost"]


@dataclasses.dataclass(frozen=True)
class Cost:
    """Size and work of a network.

    Attributes:
      parameters: number of weights, scales, shifts and other constants in a dense file.
      nonzero: number of weights that are not 0.
      multiply_adds: multiply-adds for one input if every weight is multiplied. Products
        with the padding count, as is usual.
      nonzero_multiply_adds: multiply-adds for one input of the weights that are not 0.
    """

    parameters: int
    nonzero: int
    multiply_adds: int
    nonzero_multiply_adds: int


def cost(graph: Graph) -> Cost:
    """Counts the parameters and multiply-adds of a graph."""
    parameters = nonzero = dense = sparse = 0
    for node in graph.nodes:
        match node.operation:
            case Conv(kernel=kernel) | Dense(kernel=kernel):
                kept = int(np.count_nonzero(kernel))
                positions = math.prod(node.shape[:-1])
                parameters += kernel.size
                nonzero += kept
                dense += positions * kernel.size
                sparse += positions * kept
            case MatMul():
                work = math.prod(node.shape) * graph.shapes[node.inputs[0]][-1]
                dense += work
                sparse += work
        parameters += sum(each.size for each in _extra(node.operation))
    return Cost(parameters, nonzero, dense, sparse)


def _extra(operation: Operation) -> Iterator[np.ndarray]:
    """Yields the constants of an operation besides a kernel; no single numbers."""
    arrays: tuple[np.ndarray | None, ...] = ()
    match operation:
        case Conv() | Dense():
            arrays = operation.scale, operation.shift
        case Binary():
            arrays = (operation.constant,)
        case Select() | Concatenate():
            arrays = operation.constants
    least = 1 if isinstance(operation, Conv | Dense) else 2
    for array in arrays:
        if array is not None and np.size(array) >= least:
            yield np.asarray(array)
