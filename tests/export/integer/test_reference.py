"""The definition of integer graphs gives what plain loops over integers give."""

import itertools

import numpy as np
import pytest

from aslp_jax.export.integer import reference
from aslp_jax.export.integer.operations import (
    IntegerLayer,
    IntegerProduct,
    IntegerSum,
    IntegerWindow,
    Lookup,
    Requantization,
    Rescale,
)
from aslp_jax.export.operations import Conv, Dense, Window
from tests.export.integer.graphs import SHAPE, every_operation


def requantised(step, product, channel):
    """Returns one integer, by integers of any size."""
    offset = int(step.offsets[channel % len(step.offsets)])
    value = (product + offset) // 2**step.shift
    return min(max(value, step.low), step.high)


def factor(step, channel):
    return int(step.multipliers[channel % len(step.multipliers)])


def at(values, index, padding):
    """Returns the number at an index of what is padded; None in the padding."""
    place = tuple(i - low for i, (low, _) in zip(index, padding, strict=True))
    inside = all(0 <= i < size for i, size in zip(place, values.shape, strict=True))
    return int(values[place]) if inside else None


def conv_sum(conv, values, index):
    """Returns the sum of a convolution at one index."""
    *space, unit = index
    *window, inputs, units = conv.kernel.shape
    group = unit // (units // conv.groups)
    total = 0
    for tap in itertools.product(*map(range, window)):
        where = [
            i * stride + t * dilation
            for i, stride, t, dilation in zip(
                space, conv.strides, tap, conv.dilation, strict=True
            )
        ]
        for channel in range(inputs):
            place = (*where, group * inputs + channel)
            number = at(values, place, (*conv.padding, (0, 0)))
            total += (number or 0) * int(conv.kernel[(*tap, channel, unit)])
    return total


def window_numbers(window, values, index):
    """Returns the numbers of a window that are no padding."""
    found = (
        at(
            values,
            tuple(
                i * stride + t
                for i, stride, t in zip(index, window.strides, tap, strict=True)
            ),
            window.padding,
        )
        for tap in itertools.product(*map(range, window.window))
    )
    return [number for number in found if number is not None]


def number(operation, values, index):
    """Returns the result of an operation at one index; None for one that moves."""
    first, channel = values[0], index[-1]
    match operation:
        case IntegerLayer(Conv() as conv, step):
            total = conv_sum(conv, first, index)
            return requantised(step, total * factor(step, channel), channel)
        case IntegerLayer(Dense() as dense, step):
            weights = dense.kernel[:, channel].astype(int).tolist()
            numbers = first[index[:-1]].tolist()
            return requantised(
                step,
                sum(x * w for x, w in zip(numbers, weights, strict=True))
                * factor(step, channel),
                channel,
            )
        case Lookup(table, start):
            return int(table[int(first[index]) - start])
        case Rescale(step):
            product = int(first[index]) * factor(step, channel)
            return requantised(step, product, channel)
        case IntegerSum(step) | IntegerProduct(step):
            pair = [int(np.broadcast_to(each, SHAPE)[index]) for each in values]
            if isinstance(operation, IntegerProduct):
                return requantised(step, pair[0] * pair[1] * factor(step, 0), 0)
            total = pair[0] * factor(step, 0) + pair[1] * factor(step, 1)
            return requantised(step, total, 0)
        case IntegerWindow(window, step):
            total = sum(window_numbers(window, first, index))
            return requantised(step, total * factor(step, 0), 0)
        case Window() as window:
            return max(window_numbers(window, first, index))
    return None


@pytest.mark.parametrize("kind", ["uint8", "int16"])
def test_results_are_those_of_plain_integers(kind):
    graph, _, _ = every_operation(kind, ternary=False)
    rng = np.random.default_rng(0)
    low, high = (0, 256) if kind == "uint8" else (-32767, 32768)
    values = reference.run_all(graph, rng.integers(low, high, (1, *SHAPE)))
    checked, saturated = set(), set()
    for value, node in enumerate(graph.nodes, start=1):
        operands = [values[index][0] for index in node.inputs]
        result = values[value][0]
        indices = list(np.ndindex(result.shape))
        for place in rng.choice(len(indices), min(12, len(indices)), replace=False):
            expected = number(node.operation, operands, indices[place])
            if expected is not None:
                assert result[indices[place]] == expected, node.operation
                checked.add(type(node.operation))
                saturated.add(expected)
    assert len(checked) == 7 - (kind == "int16")  # tables are for bytes
    assert {-127, 127, 0, 255} <= saturated or {-32767, 32767} <= saturated


def test_a_half_is_rounded_up_and_the_floor_is_taken():
    step = Requantization(np.array([1]), np.array([2]), 2, -5, 5)
    found = reference._requantize(np.array([-7, -6, -5, -2, 1, 2, 5, 6, 99]), step)
    assert found.tolist() == [-2, -1, -1, 0, 0, 1, 1, 2, 5]
