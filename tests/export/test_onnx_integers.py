"""ONNX models of integers compute what the reference computes, on integer kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from aslp_jax import export
from aslp_jax.data import datasets
from aslp_jax.export import onnx as onnx_export
from aslp_jax.export import trace
from aslp_jax.export.integer import reference
from aslp_jax.export.integer.build import integer_graph
from aslp_jax.export.integer.calibration import CalibrationError, calibrate
from aslp_jax.export.integer.convert import to_integers
from aslp_jax.export.integer.operations import limits
from aslp_jax.export.network import graph_of
from aslp_jax.export.operations import Dense, Graph, Node
from aslp_jax.export.simplify import simplify
from tests.export import modules
from tests.export.networks import random_images, run_onnx, small

IMAGE = (5, 6, 4)
KERNEL = np.random.default_rng(0).choice([-1, 0, 1], (3, 3, 4, 4)).astype(np.float32)
WEIGHTS = np.random.default_rng(0).normal(size=(4, 4)).astype(np.float32)
SHIFT = np.linspace(-1, 1, 4, dtype=np.float32)


def conv(x, kernel=KERNEL, groups=1, **options):
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        options.pop("strides", (1, 1)),
        "SAME",
        feature_group_count=groups,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        **options,
    )


def pool(x, start, function, **options):
    return jax.lax.reduce_window(
        x, start, function, (1, 3, 2, 1), (1, 2, 2, 1), **options
    )


def concatenate(x):
    parts = [conv(x), jnp.ones_like(x), -2 * jnp.maximum(conv(x), 0)]
    return jnp.concatenate(parts, -1)[..., ::2]


def moves(x):
    x = jnp.pad(x.transpose(0, 2, 1, 3), ((0, 0), (1, 0), (0, 2), (0, 0)))
    return jnp.broadcast_to(x[:, ::2, 1:2], (len(x), 4, 3, 4)).reshape(len(x), -1)


OPERATIONS = {
    # A slice at the end makes bytes of what comes before.
    "convolution": (lambda x: jnp.maximum(conv(x) + SHIFT, 0)[:, 1:], "QLinearConv"),
    "strided": (
        lambda x: conv(x, strides=(2, 1), rhs_dilation=(1, 2))[:, 1:],
        "QLinearConv",
    ),
    "depthwise": (
        lambda x: conv(x, KERNEL[:, :, :1] * WEIGHTS[:1] + SHIFT, 4)[:, 1:],
        "QLinearConv",
    ),
    "dense": (
        lambda x: (x.reshape(len(x), -1) @ np.tile(WEIGHTS, (30, 3)))[:, 1:],
        "QGemm",
    ),
    "rows": (
        lambda x: (x[:, 0] @ WEIGHTS + SHIFT)[:, 1:],
        "MatMulIntegerToFloat",
    ),
    "sum": (lambda x: (conv(x) + x)[:, 1:], "QLinearAdd"),
    "difference": (lambda x: (1.5 - (conv(x) - x))[:, 1:], "Add"),
    "product": (lambda x: (conv(x) * x)[:, 1:], "QLinearMul"),
    "negative product": (lambda x: (1 - conv(x) * x)[:, 1:], "Mul"),
    "concatenation": (concatenate, "Concat"),
    "maximum": (
        lambda x: pool(
            x, -jnp.inf, jax.lax.max, padding=((0, 0), (1, 1), (0, 1), (0, 0))
        ),
        "MaxPool",
    ),
    "mean": (
        lambda x: pool(x, 0.0, jax.lax.add, padding=((0, 0), (1, 1), (0, 1), (0, 0)))[
            :, 1:
        ],
        "QLinearAveragePool",
    ),
    "global mean": (lambda x: x.mean((1, 2))[:, 1:], "QLinearGlobalAveragePool"),
    "mean of one pixel": (
        lambda x: x[:, :1, :1].mean((1, 2))[:, 1:] @ WEIGHTS[1:],
        "QGemm",
    ),
    "mean over a row": (lambda x: x.mean(2)[:, 1:], "ReduceMean"),
    "mean over channels": (lambda x: x.mean((1, 3))[:, 1:], "ReduceMean"),
    "function": (lambda x: (conv(x) * jax.nn.sigmoid(conv(x)))[:, 1:], "QLinearMul"),
    "sigmoid": (lambda x: jax.nn.sigmoid(conv(x))[:, 1:], "QLinearSigmoid"),
    "step": (lambda x: (x > 0.25).astype(jnp.float32), "Greater"),
    "limits": (lambda x: jnp.clip(conv(x), -0.5, 1)[:, 1:], "Clip"),
    "limits of floats": (lambda x: jnp.clip(x[:, 0, 0] @ WEIGHTS, -0.5, 1), "Clip"),
    "moves": (moves, "Transpose"),
    "nothing": (lambda x: x, "DequantizeLinear"),
}
"""A network for each operation, and the operator that a runtime makes of it."""


def kinds_of(content, tmp_path):
    """Returns the operators that onnxruntime computes."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    # It warns that the optimised model is for this machine only.
    options.log_severity_level = 3
    onnxruntime.InferenceSession(content, options)
    model = onnx.load(options.optimized_model_filepath)
    return [node.op_type for node in model.graph.node]


def integers_of(function, inputs):
    """Returns the integer graph of a function without weights."""
    shape = jax.ShapeDtypeStruct(inputs.shape[1:], jnp.float32)
    with modules.promotion():
        graph = simplify(trace(lambda _, x: function(x), {}, shape))
    return to_integers(graph, calibrate(graph, inputs))


def expected_of(graph, inputs):
    """Returns outputs of the reference as real numbers, and what 1 stands for."""
    kind, scale = graph.numbers[0]
    integers = np.clip(np.rint(inputs / np.float32(scale)), *limits(kind))
    return reference.run(graph, integers) * graph.numbers[-1].scale


def random_inputs(shape=IMAGE, count=16):
    return np.random.default_rng(2).normal(size=(count, *shape)).astype(np.float32)


@pytest.mark.parametrize("name", OPERATIONS)
def test_every_operation(name, tmp_path):
    function, kind = OPERATIONS[name]
    inputs = random_inputs()
    graph = integers_of(function, inputs)
    content = onnx_export.integer_model_of(graph).SerializeToString()
    number = graph.numbers[-1]
    found, expected = run_onnx(content, inputs), expected_of(graph, inputs)
    assert found.dtype == np.float32 and found.shape == expected.shape
    differences = np.abs(found - expected) / number.scale
    # Ties are rounded in other directions, and floats are not rounded.
    assert differences.max() < 1.01
    assert (differences < 0.51).mean() > 0.99
    assert len(np.unique(expected)) > (1 if name == "step" else 20)
    kinds = kinds_of(content, tmp_path)
    assert kind in kinds or f"Nhwc{kind}" in kinds
    if kind.startswith("QLinear") and number.kind != "int16":
        assert not {"Conv", "Add", "Mul", "AveragePool"} & set(kinds)


@functools.cache
def digits_content(digits_network, inputs="uint8"):
    images = datasets.load("digits").train_images[:256]
    return onnx_export.encode(
        digits_network, activations="int8", calibration=images, inputs=inputs
    ).content


def test_a_network_of_integer_kernels_only(digits_network, tmp_path):
    content = digits_content(digits_network)
    assert kinds_of(content, tmp_path) == [
        *("Transpose", "QLinearConv", "QLinearConv", "NhwcMaxPool", "Transpose"),
        *("Flatten", "QGemm", "QGemm", "QGemm"),
    ]
    model = onnx.load_from_string(content)
    onnx.checker.check_model(model, full_check=True)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert 367_680 < len(content) < 367_680 + 5_000
    (images,), (outputs,) = model.graph.input, model.graph.output
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert outputs.type.tensor_type.elem_type == onnx.TensorProto.FLOAT


@pytest.mark.slow
def test_digits(digits_network, digits_images, digits_logits):
    found = run_onnx(digits_content(digits_network), digits_images)
    assert (found.argmax(1) == digits_logits.argmax(1)).sum() >= 358
    images = digits_images[:60]
    graph = graph_of(digits_network.net, digits_network.variables, (8, 8, 1))
    integers = integer_graph(
        graph,
        digits_network.description,
        datasets.load("digits").train_images[:256],
        activations="int8",
    )
    scale = integers.numbers[-1].scale
    expected = reference.run(integers, images) * scale
    np.testing.assert_allclose(found[:60], expected, rtol=0, atol=scale)
    # Floats that hold pixels are rounded to bytes.
    pixels = images.astype(np.float32) + 0.3
    content = digits_content(digits_network, "float32")
    np.testing.assert_array_equal(run_onnx(content, pixels), found[:60])


def test_standardised_images_and_residual_connections(tmp_path):
    network, images = small("resnet"), random_images(count=40)
    path = tmp_path / "resnet.onnx"
    written = export.write(
        network, "onnx", path, activations="int8", calibration=images, compact=False
    )
    content = path.read_bytes()
    graph = graph_of(network.net, network.variables, network.description.image_shape)
    integers = integer_graph(graph, network.description, images, activations="int8")
    expected = reference.run(integers, images) * integers.numbers[-1].scale
    found = run_onnx(content, images)
    assert np.abs(found - expected).max() < 0.01 * np.ptp(expected)
    np.testing.assert_array_equal(run_onnx(content, images[:1]), found[:1])
    kinds = kinds_of(content, tmp_path)
    assert kinds.count("QLinearConv") == 10 and kinds.count("QLinearAdd") == 4
    assert not {"Conv", "Gemm", "MatMul", "GlobalAveragePool"} & set(kinds)
    assert written.result.operations == written.result.after.multiply_adds
    assert written.result.numbers == "int8"


def test_large_weights_do_not_saturate():
    # Two products of 255 and 127 are beyond 16 bits.
    kernel = np.full((64, 2), 1, np.float32)
    kernel[::7] = 0.5
    inputs = np.ones((2, 64), np.float32)
    graph = integers_of(lambda x: x @ kernel, inputs)
    assert graph.nodes[0].operation.layer.kernel.max() == 127
    model = onnx_export.integer_model_of(graph)
    (stored,) = (each for each in model.graph.initializer if len(each.dims) == 2)
    assert stored.data_type == onnx.TensorProto.UINT8
    found = run_onnx(model.SerializeToString(), inputs)
    np.testing.assert_allclose(found, expected_of(graph, inputs), rtol=1e-4)
    signs = integers_of(lambda x: x @ np.sign(kernel - 0.7), inputs)
    model = onnx_export.integer_model_of(signs)
    (stored,) = (each for each in model.graph.initializer if len(each.dims) == 2)
    assert stored.data_type == onnx.TensorProto.INT8


def test_units_with_small_factors_keep_their_bias():
    # The factor 0, with a bias and without; biases of 26 and 36 bits; usual ones.
    scale = np.array([0, 2e-6, 1e-9, 1, -0.5, 0], np.float32)
    shift = np.array([0.7, 2, -3, -0.2, 0, 0], np.float32)
    kernel = np.sign(random_inputs((3,), 6)).T
    layer = Dense("d", kernel, scale, shift)
    graph = Graph((3,), (Node(layer, (0,), (6,)),))
    inputs = random_inputs((3,), 50)
    integers = to_integers(graph, calibrate(graph, inputs))
    model = onnx_export.integer_model_of(integers)
    found = run_onnx(model.SerializeToString(), inputs)
    # A rounded result, and a bias that is rounded to the unit of the sums.
    bound = 0.51 * (integers.numbers[-1].scale + integers.numbers[0].scale / 64)
    np.testing.assert_allclose(found, expected_of(integers, inputs), rtol=0, atol=bound)
    stored = {
        each.name: onnx.numpy_helper.to_array(each) for each in model.graph.initializer
    }
    assert np.abs(stored["d/bias/integers"]).max() > 2**29
    # As fine as the bias allows.
    largest = np.abs(stored["d/integers"].astype(int)).max(0)
    assert largest[0] == largest[2] == 0 and 0 < largest[1] < 64
    assert largest[3] == largest[4] == 64


def test_bad_input_is_refused(digits_network):
    images = np.zeros((3, 8, 8, 1), np.uint8)
    for calibration, message in (
        (None, "need images to calibrate on"),
        (images[:0], "no images to calibrate on"),
        (images[:, :7], r"images are \[7, 8, 1\], the network takes \[8, 8, 1\]"),
        (images.astype(np.float32), "must be uint8, got float32"),
    ):
        with pytest.raises(CalibrationError, match=message):
            onnx_export.encode(
                digits_network, activations="int8", calibration=calibration
            )
    for activations in ("int16", "int4"):
        message = rf"activations must be one of .*'int8'.*, got '{activations}'"
        with pytest.raises(ValueError, match=message):
            onnx_export.encode(
                digits_network, activations=activations, calibration=images
            )
