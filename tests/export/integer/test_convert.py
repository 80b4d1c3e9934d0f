"""An integer graph computes what the graph of floats computes, nearly."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.export import UnsupportedError, operations, trace
from aslp_jax.export.integer import reference
from aslp_jax.export.integer.calibration import CalibrationError, calibrate
from aslp_jax.export.integer.convert import to_integers
from aslp_jax.export.integer.operations import (
    IntegerLayer,
    IntegerSum,
    IntegerWindow,
    Lookup,
    Rescale,
    limits,
)
from aslp_jax.export.simplify import simplify
from tests.export import modules

SHIFT = np.linspace(-1, 1, 4, dtype=np.float32)


def graph_of(name):
    """Returns the simplified graph of a module."""
    function, weights, shape = modules.module(name)
    with modules.promotion():
        inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
        return simplify(trace(function, weights, inputs))


def of_function(function, shape):
    """Returns the simplified graph of a function without weights."""
    inputs = jax.ShapeDtypeStruct(shape, jnp.float32)
    with modules.promotion():
        return simplify(trace(lambda _, x: function(x), {}, inputs))


def compare(graph, inputs, activations="int8", clipping="max"):
    """Returns the integer graph, and its errors relative to the range of outputs."""
    expected = np.asarray(operations.run(graph, jnp.asarray(inputs)))
    ranges = calibrate(graph, inputs, clipping=clipping)
    found = to_integers(graph, ranges, activations=activations)
    kind, scale = found.numbers[0]
    low, high = limits(kind)
    integers = np.clip(np.floor(inputs / scale + 0.5), low, high)
    results = reference.run(found, integers) * found.numbers[-1].scale
    return found, np.abs(results - expected) / np.ptp(expected)


def kinds(graph):
    return [type(node.operation) for node in graph.nodes]


def inputs_of(shape, count=64):
    return np.random.default_rng(3).normal(size=(count, *shape)).astype(np.float32)


@pytest.mark.parametrize(
    "name, bound",
    [
        pytest.param("perceptron", 0.01, marks=pytest.mark.slow),
        pytest.param("convolutions", 0.03, marks=pytest.mark.slow),
        ("signals", 0.03),
        pytest.param("transposed", 0.01, marks=pytest.mark.slow),
        pytest.param("shapes", 0.03, marks=pytest.mark.slow),
        pytest.param("dense", 0.03, marks=pytest.mark.slow),
        pytest.param("squeeze_and_excite", 0.02, marks=pytest.mark.slow),
        pytest.param("nnx_images", 0.03, marks=pytest.mark.slow),
    ],
)
def test_int8_is_close(name, bound):
    _, errors = compare(graph_of(name), inputs_of(modules.module(name)[2]))
    assert errors.max() < bound
    assert errors.mean() < bound / 4


@pytest.mark.parametrize(
    "name", ["signals", pytest.param("shapes", marks=pytest.mark.slow)]
)
def test_int16_is_as_close_as_weights_of_8_bits(name):
    found, errors = compare(graph_of(name), inputs_of(modules.module(name)[2]), "int16")
    assert {each.kind for each in found.numbers} == {"int16"}
    assert errors.max() < 0.01


def test_sixteen_bits_round_less():
    kernel = np.random.default_rng(0).choice([-1, 0, 1], (6, 6)).astype(np.float32)

    def network(x):
        return jnp.maximum(jnp.maximum(x @ kernel, 0) @ kernel, 0) @ kernel

    graph = of_function(network, (6,))
    assert compare(graph, inputs_of((6,)), "int16")[1].max() < 2e-4
    assert 2e-4 < compare(graph, inputs_of((6,)), "int8")[1].max() < 0.02


def test_signs_stay_signs_and_all_else_becomes_int8():
    signs = np.random.default_rng(0).choice([-0.3, 0, 0.3], (6, 5)).astype(np.float32)
    by_unit = signs * np.array([1, 2, 3, 4, 5], np.float32)
    other = np.random.default_rng(0).normal(size=(6, 5)).astype(np.float32)
    for kernel, expected in ((signs, {-1, 0, 1}), (by_unit, {-1, 0, 1}), (other, None)):
        graph = of_function(lambda x, kernel=kernel: x @ kernel, (6,))
        found, _ = compare(graph, inputs_of((6,)))
        integers = found.nodes[0].operation.layer.kernel
        if expected is None:
            assert np.array_equal(np.abs(integers).max(0), [127] * 5)
        else:
            assert set(integers.ravel()) == expected


def test_what_follows_a_layer_goes_into_its_rounding():
    def network(x):
        x = 3 - jnp.clip(2 * (x @ jnp.ones((6, 5)) - 1), 0, 6) / 2
        return x @ jnp.ones((5, 3))

    found, errors = compare(of_function(network, (6,)), inputs_of((6,)))
    assert kinds(found) == [IntegerLayer, IntegerLayer]
    step = found.nodes[0].operation.requantization
    assert step.low == 0
    assert (step.multipliers < 0).all()
    assert errors.max() < 0.02


def test_a_limit_below_the_largest_number_holds():
    def network(x):
        return jnp.minimum(x @ jnp.eye(6), 0.5)

    graph = of_function(network, (6,))
    found, errors = compare(graph, inputs_of((6,)))
    step = found.nodes[0].operation.requantization
    assert step.high == round(0.5 / found.numbers[-1].scale)
    assert errors.max() < 0.01


def test_functions_of_one_number_become_one_table():
    def network(x):
        x = x @ jnp.eye(6)
        return (x * jax.nn.sigmoid(x) + jnp.where(x > 0, x, 0.5 * x)) @ jnp.eye(6)

    found, errors = compare(of_function(network, (6,)), inputs_of((6,)))
    assert kinds(found) == [IntegerLayer, Lookup, IntegerLayer]
    assert errors.max() < 0.02


def test_parts_of_a_concatenation_have_its_scale():
    def network(x):
        first = x @ jnp.eye(6)
        second = 20 * jnp.maximum(x @ jnp.eye(6)[::-1], 0)
        return jnp.concatenate([first, second, jnp.ones_like(x)], -1) @ jnp.ones(
            (18, 2)
        )

    found, errors = compare(of_function(network, (6,)), inputs_of((6,)))
    assert Lookup not in kinds(found)
    (place,) = (i for i, node in enumerate(found.nodes, 1) if len(node.inputs) == 2)
    parts = {found.numbers[each] for each in found.nodes[place - 1].inputs}
    assert parts == {found.numbers[place]}
    assert errors.max() < 0.02


def test_a_part_that_others_take_is_converted():
    def network(x):
        first = x @ jnp.eye(6)
        second = 20 * (x @ jnp.eye(6)[::-1])
        joined = jnp.concatenate([first, second], -1) @ jnp.ones((12, 6))
        return joined + first @ jnp.eye(6)

    found, errors = compare(of_function(network, (6,)), inputs_of((6,)))
    assert Lookup in kinds(found)
    assert errors.max() < 0.02
    found, errors = compare(of_function(network, (6,)), inputs_of((6,)), "int16")
    assert Rescale in kinds(found)
    assert errors.max() < 0.01


def test_differences_and_broadcast_sums():
    def network(x):
        first = x @ jnp.ones((6, 6))
        return first.mean((1, 2)) - 0.5 * first[:, 0, 0]

    found, errors = compare(of_function(network, (3, 4, 6)), inputs_of((3, 4, 6)))
    assert IntegerSum in kinds(found)
    assert IntegerWindow in kinds(found)
    assert errors.max() < 0.02


def test_pixels_are_standardised_in_integers():
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (40, 4, 4, 3), dtype=np.uint8)
    mean, std = (0.4, 0.5, 0.6), (0.2, 0.25, 0.1)
    real = ((pixels / 255 - mean) / std).astype(np.float32)
    graph = of_function(lambda x: x.sum((1, 2)) @ jnp.eye(3), (4, 4, 3))
    expected = np.asarray(operations.run(graph, jnp.asarray(real)))
    for activations, bound in (("int8", 0.02), ("int16", 2e-4)):
        found = to_integers(
            graph, calibrate(graph, real), activations=activations, image=(mean, std)
        )
        assert found.numbers[0] == ("uint8", 1 / 255)
        assert kinds(found)[0] is Rescale
        results = reference.run(found, pixels) * found.numbers[-1].scale
        assert np.abs(results - expected).max() / np.ptp(expected) < bound


def test_plain_pixels_are_used_as_they_are():
    graph = of_function(lambda x: x.reshape(-1, 16) @ jnp.ones((16, 2)), (4, 4, 1))
    pixels = np.random.default_rng(0).random((9, 4, 4, 1)).astype(np.float32)
    found = to_integers(graph, calibrate(graph, pixels), image=(None, None))
    assert IntegerLayer is kinds(found)[1]
    assert found.numbers[0].kind == "uint8"


def test_extreme_factors_keep_their_precision():
    """Rounding is that of real numbers, as far as 31 bits of a factor go."""
    kernel = np.ones((3, 4), np.float32)
    scale = np.array([1e-9, -2e-3, 1, -40], np.float32)
    shift = np.array([0.3, -4, 1e-6, 1e5], np.float32)
    layer = operations.Dense("d", kernel, scale, shift)
    graph = operations.Graph((3,), (operations.Node(layer, (0,), (4,)),))
    inputs = inputs_of((3,), 500)
    found = to_integers(graph, calibrate(graph, inputs), activations="int16")
    step = found.nodes[0].operation.requantization
    number, held = found.numbers[-1], found.numbers[0]
    integers = np.random.default_rng(0).integers(-32767, 32768, (500, 3))
    exact = integers.sum(1)[:, None] * (scale.astype(float) * held.scale)
    exact = np.floor((exact + shift.astype(float)) / number.scale + 0.5)
    results = reference.run(found, integers)
    assert np.array_equal(results, np.clip(exact, step.low, step.high))


def test_a_unit_without_weights_costs_the_others_no_precision():
    kernel = np.full((3, 4), 1e-4, np.float32)
    kernel[:, 0] = 0
    layer = operations.Dense("d", kernel, np.array([1e6, 1, 1, 1], np.float32), SHIFT)
    graph = operations.Graph((3,), (operations.Node(layer, (0,), (4,)),))
    found, errors = compare(graph, inputs_of((3,)))
    step = found.nodes[0].operation.requantization
    assert step.multipliers[0] == 0
    assert step.multipliers[1:].min() > 2**29
    assert errors.max() < 0.01


@pytest.mark.parametrize("activations", ["int8", "int16"])
def test_a_factor_may_drop_a_channel(activations):
    factors = np.array([0, 2, -3, 1], np.float32)
    graph = of_function(lambda x: (factors * x + 1) @ jnp.eye(4), (4,))
    found, errors = compare(graph, inputs_of((4,)), activations)
    assert kinds(found) == [Rescale, IntegerLayer]
    assert errors.max() < 0.01


@pytest.mark.parametrize("name", ["maximum", "windows", "transpose"])
def test_logits_that_are_maxima_are_not_cut_off(name):
    end = {
        "maximum": lambda x: x.max((1, 2)),
        "windows": lambda x: jax.lax.reduce_window(
            x, -jnp.inf, jax.lax.max, (1, 2, 2, 1), (1, 2, 2, 1), "VALID"
        ),
        "transpose": lambda x: x.transpose(0, 3, 1, 2).reshape(-1, 4, 16),
    }[name]
    graph = of_function(lambda x: end(x @ jnp.eye(4)), (4, 4, 4))
    inputs = inputs_of((4, 4, 4))
    found, errors = compare(graph, inputs, clipping="max")
    assert errors.max() < 0.01
    found, _ = compare(graph, inputs, clipping="mse")
    kind, scale = found.numbers[-1]
    assert kind == "int16"
    assert scale * 32767 == pytest.approx(2 * np.abs(inputs).max())


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, match",
    [("attention", "Binary add to .* has no integer form"), ("einsum", "MatMul to")],
)
def test_an_operation_without_integer_form_is_named(name, match):
    graph = graph_of(name)
    ranges = calibrate(graph, inputs_of(modules.module(name)[2], 8))
    with pytest.raises(UnsupportedError, match=match):
        to_integers(graph, ranges)


def test_a_table_needs_eight_bits():
    graph = of_function(lambda x: jnp.tanh(x @ jnp.eye(6)), (6,))
    ranges = calibrate(graph, inputs_of((6,)))
    with pytest.raises(UnsupportedError, match=r"Unary tanh .* int16 activations"):
        to_integers(graph, ranges, activations="int16")


def test_bad_ranges_and_names_are_refused():
    graph = of_function(lambda x: jnp.minimum(x @ jnp.eye(6), 0), (6,))
    ranges = calibrate(graph, np.abs(inputs_of((6,))))
    with pytest.raises(CalibrationError, match=r"result of Binary.* range \[0, 0\]"):
        to_integers(graph, ranges)
    with pytest.raises(CalibrationError, match=r"the input has the range \[0, 0\]"):
        to_integers(graph, calibrate(graph, np.zeros((2, 6), np.float32)))
    with pytest.raises(ValueError, match="activations must be one of"):
        to_integers(graph, ranges, activations="int4")


def test_sums_beyond_32_bits_are_refused():
    kernel = np.random.default_rng(0).normal(size=(70_000, 1)).astype(np.float32)
    graph = of_function(lambda x: x @ kernel, (70_000,))
    ranges = calibrate(graph, inputs_of((70_000,), 2))
    to_integers(graph, ranges)
    with pytest.raises(UnsupportedError, match="32 bits hold; use int8"):
        to_integers(graph, ranges, activations="int16")
