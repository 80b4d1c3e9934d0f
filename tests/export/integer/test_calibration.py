"""Ranges are those of the values, and bad images are refused in one line."""

import weakref

import numpy as np
import pytest

from aslp_jax.export.integer.calibration import CalibrationError, _Seen, calibrate
from aslp_jax.export.operations import Binary, Dense, Graph, Node, Unary

RELU = Binary("max", np.zeros((), np.float32))


def graph_of(*operations, size=4):
    """Returns a chain of operations on a vector."""
    nodes = [Node(each, (i,), (size,)) for i, each in enumerate(operations)]
    return Graph((size,), tuple(nodes))


def dense(kernel):
    return Dense("d", np.asarray(kernel, np.float32))


def test_ranges_are_those_of_each_value_over_all_batches():
    inputs = np.zeros((150, 4), np.float32)
    inputs[149, 3], inputs[70, 0] = 5, -3
    ranges = calibrate(graph_of(dense(2 * np.eye(4)), RELU), inputs, clipping="max")
    assert [each[:2] for each in ranges] == [(-3, 5), (-6, 10), (0, 10)]
    assert [each.kept for each in ranges] == [5, 10, 10]


def test_a_percentile_cuts_off_a_lone_outlier():
    inputs = np.random.default_rng(0).normal(size=(5000, 4)).astype(np.float32)
    inputs[17, 2] = 40
    (found,) = calibrate(Graph((4,), ()), inputs, clipping="percentile")
    assert found.high == 40
    assert 3 < found.kept < 20


def test_the_mean_squared_error_decides():
    inputs = np.random.default_rng(0).standard_t(5, size=(4000, 4)).astype(np.float32)
    (found,) = calibrate(Graph((4,), ()), inputs)

    def error(kept):
        scale = kept / 127
        rounded = np.clip(np.rint(inputs / scale), -127, 127) * scale
        return np.square(rounded - inputs).mean()

    assert error(found.kept) < 0.95 * error(found.size)
    tried = np.linspace(0.05, 1, 80) * found.size
    assert error(found.kept) <= 1.01 * min(map(error, tried))


def test_large_values_are_sampled_at_every_position():
    # Only one position of an image of even size is not 0.
    inputs = np.zeros((40_000, 4), np.float32)
    inputs[:, 3] = np.random.default_rng(0).normal(size=40_000)
    (found,) = calibrate(Graph((4,), ()), inputs, clipping="percentile")
    assert 2 < found.kept < found.high


def test_no_more_numbers_stay_in_memory_than_the_rules_look_at():
    numbers = np.ones((64, 1 << 12), np.float32)
    seen = _Seen(8 * numbers.size)
    watched = weakref.ref(numbers)
    seen.add(numbers)
    del numbers
    assert watched() is None


def test_bad_images_are_refused():
    graph = graph_of(RELU)
    with pytest.raises(CalibrationError, match="no images"):
        calibrate(graph, np.zeros((0, 4), np.float32))
    with pytest.raises(CalibrationError, match=r"images are \[5\].*takes \[4\]"):
        calibrate(graph, np.zeros((2, 5), np.float32))
    with pytest.raises(CalibrationError, match="the input is not finite"):
        calibrate(graph, np.full((2, 4), np.nan, np.float32))
    with pytest.raises(
        CalibrationError, match=r"operation 1, Unary to \[4\], is not finite"
    ):
        calibrate(graph_of(Unary("log")), np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="clipping must be one of"):
        calibrate(graph, np.zeros((2, 4), np.float32), clipping="median")
