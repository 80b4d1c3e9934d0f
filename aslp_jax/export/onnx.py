"""Encoder of ONNX models, by the helpers of the `onnx` package."""

import json
from typing import Literal

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper

from aslp_jax._version import __version__
from aslp_jax.artefact import Description, Subnetwork
from aslp_jax.export import passes
from aslp_jax.export.cost import cost
from aslp_jax.export.integer.build import integer_graph
from aslp_jax.export.integer.operations import IntegerGraph
from aslp_jax.export.network import graph_of
from aslp_jax.export.onnx_integers import IntegerOperators
from aslp_jax.export.onnx_operators import Operators, Storage
from aslp_jax.export.operations import Graph, Shape
from aslp_jax.export.result import MULTIPLIED_AS_ZEROS, ExportResult

__all__ = [
    "IR_VERSION",
    "OPSET",
    "Activations",
    "Inputs",
    "Storage",
    "encode",
    "integer_model_of",
    "model_of",
]

OPSET = 17
"""Version of the operator set, from 2022, which all current runtimes support."""

IR_VERSION = 8
"""Version of the ONNX file format that belongs to `OPSET`."""

_INPUTS = {
    "images": "Pixels from 0 to 255, channels first.",
    "inputs": "Inputs of the network, channels last.",
}
"""Description of the input, by its name."""

_ABOUT = {
    "images": "Images, as bytes give their pixels, to class logits; what is done to "
    "the pixels is part of the model.",
    "inputs": "Inputs of a network, as it takes them, to its outputs.",
}
"""Description of the model, by the name of its input."""

Inputs = Literal["uint8", "float32"]

Activations = Literal["float32", "int8"]
"""Numbers between layers."""


def encode(
    subnetwork: Subnetwork,
    *,
    storage: Storage = "float",
    inputs: Inputs = "uint8",
    compact: bool = True,
    activations: Activations = "float32",
    calibration: np.ndarray | None = None,
) -> ExportResult:
    """Returns an ONNX model from inputs to outputs.

    The input `images` is `[batch, channels, height, width]`, ONNX's layout of images,
    and holds pixels from 0 to 255. The preparation of the pixels is part of the model.
    Any other input, such as a vector or a sequence `[length, channels]`, is `inputs`,
    float32, as the module takes it. The output `logits` has the shape of the module's
    output, for any batch. The model computes in float32, whatever the dtype of the
    network.

    With `"int8"` activations, values between layers are bytes, and weights take one
    byte each, whatever the storage. Runtimes turn each layer with the operators
    `QuantizeLinear` and `DequantizeLinear` around it into one operator of integers.
    Pixels of float32 are rounded to bytes. The outputs are float32 too.

    `"int8"` storage is for layers of one magnitude, such as signed constants. A runtime
    turns it into the same floats when it loads the model. (`DequantizeLinear` would
    express the same, but onnxruntime repeats it for every image.)

    Args:
      subnetwork: the network.
      storage: `"float"` takes 4 bytes a weight. `"int8"` takes one byte a weight (-1, 0
        or 1) and a scale for each layer or unit.
      inputs: dtype of the pixels.
      compact: True removes dead units (`passes.compact`), except for those that keep
        the number of channels a multiple of `passes.CHANNEL_MULTIPLE`.
      activations: numbers between layers.
      calibration: training images to measure ranges on, uint8 `[count, height, width,
        channels]`, or other inputs as the module takes them; for `"int8"` activations.

    Returns:
      One file, valid by `onnx.checker`.

    Raises:
      CalibrationError: there are no images to measure ranges on, or no ranges in them.
      ImportError: the package `onnx` is not installed.
      UnsupportedError: the network computes something that has no place in a graph, or
        has no integer form.
      ValueError: an option is unknown, or a layer has several magnitudes and the
        storage is `"int8"`.
    """
    for option, value, known in (
        ("storage", storage, ("float", "int8")),
        ("inputs", inputs, ("uint8", "float32")),
        ("activations", activations, ("float32", "int8")),
    ):
        if value not in known:
            raise ValueError(f"onnx: {option} must be one of {known}, got {value!r}")
    description = subnetwork.description
    network = graph_of(subnetwork.net, subnetwork.variables, description.image_shape)
    before = after = cost(network)
    if compact:
        merge = storage == "float" and activations == "float32"
        network = passes.compact(network, merge=merge, multiple=passes.CHANNEL_MULTIPLE)
        after = cost(network)
    if activations == "int8":
        integers = integer_graph(network, description, calibration, activations="int8")
        model = integer_model_of(integers, description=description, inputs=inputs)
    else:
        model = model_of(
            network, storage=storage, description=description, inputs=inputs
        )
    return ExportResult(
        {"": model.SerializeToString()},
        before,
        after,
        operations=after.multiply_adds,
        dropped=MULTIPLIED_AS_ZEROS,
        numbers=activations,
    )


def model_of(
    graph: Graph,
    *,
    storage: Storage = "float",
    description: Description | None = None,
    inputs: Inputs = "uint8",
) -> onnx.ModelProto:
    """Returns the checked model of a graph.

    Args:
      graph: the network.
      storage: way to store the weights, as in `encode`.
      description: facts about the network, which say how images are prepared; None
        (default) for inputs of float32, as the network takes them.
      inputs: dtype of the pixels, as in `encode`.

    Raises:
      ValueError: a layer has several magnitudes and the storage is `"int8"`.
    """
    operators = Operators(storage)
    is_image = len(graph.input_shape) == 3
    source = "images" if is_image else "inputs"
    prepared = source
    if is_image and description is not None:
        prepared = _add_preparation(operators, description, inputs)
    operators.add(graph, prepared, "logits")
    kind = onnx.TensorProto.FLOAT
    if prepared != source and inputs == "uint8":
        kind = onnx.TensorProto.UINT8
    shape = graph.input_shape
    if is_image:
        shape = (shape[2], *shape[:2])
    return _model(operators, description, (source, kind, shape), graph.shapes[-1])


def integer_model_of(
    graph: IntegerGraph,
    *,
    description: Description | None = None,
    inputs: Inputs = "uint8",
) -> onnx.ModelProto:
    """Returns the checked model of an integer graph.

    Args:
      graph: the network, with int8 activations.
      description: facts about the network; None (default) for inputs of float32, which
        become integers of the graph's first number.
      inputs: dtype of the pixels, as in `encode`.
    """
    operators = IntegerOperators()
    shape, kind = graph.input_shape, onnx.TensorProto.FLOAT
    source = given = "inputs"
    number = graph.numbers[0]
    if len(shape) == 3:
        source = given = "images"
        shape = (shape[2], *shape[:2])
        if description is not None:
            # A byte is the pixel itself.
            number = number._replace(scale=1.0)
            if inputs == "uint8":
                kind = onnx.TensorProto.UINT8
    if kind == onnx.TensorProto.FLOAT:
        given = operators.quantised(source, number)
    operators.add_integers(graph, given, "logits")
    return _model(operators, description, (source, kind, shape), graph.shapes[-1])


def _add_preparation(
    operators: Operators, description: Description, inputs: Inputs
) -> str:
    """Adds the preparation of pixels and returns the name of its result.

    The operators are in the order of `augment.to_float`, for the same rounding.
    """
    name = "images"
    if inputs == "uint8":
        name = operators.emit("Cast", [name], to=onnx.TensorProto.FLOAT)
    pixel_range = operators.array("pixel_range", np.float32(255))
    name = operators.emit("Div", [name, pixel_range])
    if description.mean is not None and description.std is not None:
        mean = operators.array("mean", np.reshape(description.mean, (-1, 1, 1)))
        std = operators.array("std", np.reshape(description.std, (-1, 1, 1)))
        name = operators.emit("Sub", [name, mean])
        name = operators.emit("Div", [name, std])
    return name


def _model(
    operators: Operators,
    description: Description | None,
    source: tuple[str, int, Shape],
    outputs: Shape,
) -> onnx.ModelProto:
    """Returns the checked model of operators and arrays.

    Args:
      operators: the operators and arrays.
      description: facts about the network.
      source: name, dtype and shape of the input, without the batch.
      outputs: shape of the output, without the batch.
    """
    name, kind, shape = source
    value_info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        operators.nodes,
        (description.arch if description is not None else "") or "network",
        [value_info(name, kind, ["batch", *shape], doc_string=_INPUTS[name])],
        [
            value_info(
                "logits",
                onnx.TensorProto.FLOAT,
                ["batch", *outputs],
                doc_string="One for each class; the largest is the likeliest one's."
                if len(outputs) == 1
                else "",
            )
        ],
        [
            onnx.numpy_helper.from_array(array, each)
            for each, array in operators.arrays.items()
        ],
    )
    model = onnx.helper.make_model(
        graph,
        producer_name="aslp-jax",
        producer_version=__version__,
        doc_string=_ABOUT[name],
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    if description is not None:
        facts = {"description": json.dumps(description.facts())}
        onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    return model
