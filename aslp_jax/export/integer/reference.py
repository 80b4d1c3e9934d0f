"""Integer graphs computed by NumPy: the definition of their results."""

import itertools
from collections.abc import Sequence

import numpy as np

from aslp_jax.export.integer.operations import (
    IntegerGraph,
    IntegerLayer,
    IntegerNode,
    IntegerProduct,
    IntegerSum,
    IntegerWindow,
    Lookup,
    Requantization,
    Rescale,
)
from aslp_jax.export.operations import Conv, Window, move

__all__ = ["run", "run_all"]


def run(graph: IntegerGraph, inputs: np.ndarray) -> np.ndarray:
    """Computes an integer graph.

    Args:
      graph: the network.
      inputs: integers `[batch, *input_shape]`, of the first number of the graph.

    Returns:
      int64 `[batch, *shape]` of the last node.
    """
    return run_all(graph, inputs)[-1]


def run_all(graph: IntegerGraph, inputs: np.ndarray) -> list[np.ndarray]:
    """Computes every value of an integer graph.

    Args:
      graph: the network.
      inputs: integers `[batch, *input_shape]`, of the first number of the graph.

    Returns:
      int64 `[batch, *shape]` of the input and of each node.
    """
    values = [np.asarray(inputs).astype(np.int64)]
    for node in graph.nodes:
        values.append(_compute(node, [values[index] for index in node.inputs]))
    return values


def _compute(node: IntegerNode, operands: Sequence[np.ndarray]) -> np.ndarray:
    first = operands[0]
    match node.operation:
        case IntegerLayer(layer, step):
            sums = _conv(layer, first) if isinstance(layer, Conv) else None
            if sums is None:
                sums = _exact(first @ np.asarray(layer.kernel, np.float64))
            return _requantize(sums * step.multipliers.astype(np.int64), step)
        case Lookup(table, offset):
            return table.astype(np.int64)[first - offset]
        case Rescale(step):
            return _requantize(first * step.multipliers.astype(np.int64), step)
        case IntegerSum(step):
            factors = step.multipliers.astype(np.int64)
            pair = _aligned(operands)
            return _requantize(pair[0] * factors[0] + pair[1] * factors[1], step)
        case IntegerProduct(step):
            pair = _aligned(operands)
            factor = step.multipliers.astype(np.int64)[0]
            return _requantize(pair[0] * pair[1] * factor, step)
        case IntegerWindow(window, step):
            factor = step.multipliers.astype(np.int64)[0]
            return _requantize(_windows(window, first, node, 0) * factor, step)
        case Window() as window:
            return _windows(window, first, node, np.iinfo(np.int64).min)
        case _:
            return move(node.operation, node.shape, operands, np)


def _requantize(products: np.ndarray, step: Requantization) -> np.ndarray:
    """Returns the integers of a value; `>>` rounds towards minus infinity."""
    shifted = (products + step.offsets) >> step.shift
    return np.clip(shifted, step.low, step.high)


def _exact(sums: np.ndarray) -> np.ndarray:
    """Returns sums as integers; below 2^53, float64 is exact, and faster."""
    return sums.astype(np.int64)


def _aligned(operands: Sequence[np.ndarray]) -> list[np.ndarray]:
    """Puts axes of size 1 after the batch, where one operand has fewer axes."""
    rank = max(each.ndim for each in operands)
    return [
        each.reshape(len(each), *(1,) * (rank - each.ndim), *each.shape[1:])
        for each in operands
    ]


def _conv(conv: Conv, values: np.ndarray) -> np.ndarray:
    """Returns the sums of a convolution, tap by tap."""
    kernel = np.asarray(conv.kernel, np.float64)
    padded = np.pad(values, ((0, 0), *conv.padding, (0, 0))).astype(np.float64)
    window, (inputs, units) = kernel.shape[:-2], kernel.shape[-2:]
    sizes = [
        (padded.shape[axis + 1] - (count - 1) * conv.dilation[axis] - 1)
        // conv.strides[axis]
        + 1
        for axis, count in enumerate(window)
    ]
    group_units = units // conv.groups
    sums = np.zeros((len(values), *sizes, conv.groups, group_units))
    for tap in itertools.product(*map(range, window)):
        spans = tuple(
            slice(at * dilation, at * dilation + (size - 1) * stride + 1, stride)
            for at, dilation, size, stride in zip(
                tap, conv.dilation, sizes, conv.strides, strict=True
            )
        )
        met = padded[(slice(None), *spans)]
        weights = kernel[tap].reshape(inputs, conv.groups, group_units)
        if conv.groups == 1:
            sums[..., 0, :] += met @ weights[:, 0]
        else:
            met = met.reshape(*met.shape[:-1], conv.groups, inputs)
            sums += np.einsum("...gi,igu->...gu", met, weights)
    return _exact(sums.reshape(len(values), *sizes, units))


def _windows(
    window: Window, values: np.ndarray, node: IntegerNode, filler: int
) -> np.ndarray:
    """Returns the sum or the maximum of each window, position by position."""
    combine = np.add if window.function == "sum" else np.maximum
    padded = np.pad(values, ((0, 0), *window.padding), constant_values=filler)
    found = np.full((len(values), *node.shape), filler, np.int64)
    for at in itertools.product(*map(range, window.window)):
        spans = tuple(
            slice(start, start + (size - 1) * stride + 1, stride)
            for start, size, stride in zip(at, node.shape, window.strides, strict=True)
        )
        found = combine(found, padded[(slice(None), *spans)])
    return found
