"""Encoder of ONNX models, by the helpers of the `onnx` package."""

import dataclasses
import json
from typing import Any, Literal

import numpy as np
import onnx
import onnx.checker
import onnx.helper
import onnx.numpy_helper

from aslp_jax._version import __version__
from aslp_jax.artefact import Description, Subnetwork
from aslp_jax.export import graph as graphs
from aslp_jax.export import passes
from aslp_jax.export.graph import Add, Conv, Graph, Mean, Node
from aslp_jax.export.lower import layers_of
from aslp_jax.export.result import MULTIPLIED_AS_ZEROS, ExportResult

__all__ = ["IR_VERSION", "OPSET", "Inputs", "Storage", "encode"]

OPSET = 17
"""Version of the operator set, from 2022, which all current runtimes support."""

IR_VERSION = 8
"""Version of the ONNX file format that belongs to `OPSET`."""

Storage = Literal["float", "int8"]
Inputs = Literal["uint8", "float32"]


def encode(
    subnetwork: Subnetwork,
    *,
    storage: Storage = "float",
    inputs: Inputs = "uint8",
    compact: bool = True,
) -> ExportResult:
    """Returns an ONNX model from images to logits.

    The input `images` is `[batch, channels, height, width]`, ONNX's layout of images,
    and holds pixels from 0 to 255. The preparation of the pixels is part of the model.
    The output `logits` is `[batch, classes]`, for any batch. The model computes in
    float32, whatever the dtype of the network.

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

    Returns:
      One file, valid by `onnx.checker`.

    Raises:
      ImportError: the package `onnx` is not installed.
      ValueError: an option is unknown, the network's module or a layer is not
        supported, or a layer has several magnitudes and the storage is `"int8"`.
    """
    for option, value, known in (
        ("storage", storage, ("float", "int8")),
        ("inputs", inputs, ("uint8", "float32")),
    ):
        if value not in known:
            raise ValueError(f"onnx: {option} must be one of {known}, got {value!r}")
    description = subnetwork.description
    network = layers_of(subnetwork.net, subnetwork.variables, description.image_shape)
    before = after = graphs.cost(network)
    if compact:
        network = passes.compact(
            network, merge=storage == "float", multiple=passes.CHANNEL_MULTIPLE
        )
        after = graphs.cost(network)
    builder = _ModelBuilder(storage, [], [])
    source = _add_preparation(builder, description, inputs)
    names = [source, *(f"value_{n}" for n in range(1, len(network.nodes))), "logits"]
    for node, name in zip(network.nodes, names[1:], strict=True):
        sources = [names[index] for index in node.inputs]
        _add_node(builder, node, sources, name)
    model = _model(builder, description, network, inputs)
    return ExportResult(
        {"": model.SerializeToString()},
        before,
        after,
        operations=after.multiply_adds,
        dropped=MULTIPLIED_AS_ZEROS,
    )


@dataclasses.dataclass(frozen=True, eq=False)
class _ModelBuilder:
    """Model under construction.

    Attributes:
      storage: way to store the kernels.
      nodes: operators so far.
      weights: arrays so far.
    """

    storage: Storage
    nodes: list[Any]
    weights: list[Any]

    def add_array(self, name: str, array: Any, dtype: Any = np.float32) -> str:
        """Adds an array and returns its name."""
        array = np.ascontiguousarray(array, dtype)
        self.weights.append(onnx.numpy_helper.from_array(array, name))
        return name

    def chain(self, source: str, result: str, operators: list[Any]) -> None:
        """Appends operators, each of which takes the result of the one before.

        Args:
          source: name of the first operator's input.
          result: name of the last operator's output.
          operators: `(kind, further inputs, attributes)` of each operator.
        """
        for index, (kind, more, attributes) in enumerate(operators, start=1):
            last = index == len(operators)
            output = result if last else f"{result}/{kind}"
            self.nodes.append(
                onnx.helper.make_node(
                    kind, [source, *more], [output], name=output, **attributes
                )
            )
            source = output


def _add_preparation(
    builder: _ModelBuilder, description: Description, inputs: Inputs
) -> str:
    """Adds the preparation of pixels and returns the name of its result.

    The operators are in the order of `augment.to_float`, for the same rounding.
    """
    operators: list[Any] = []
    if inputs == "uint8":
        operators.append(("Cast", [], {"to": onnx.TensorProto.FLOAT}))
    operators.append(("Div", [builder.add_array("pixel_range", 255.0)], {}))
    if description.mean is not None and description.std is not None:
        mean = builder.add_array("mean", np.reshape(description.mean, (-1, 1, 1)))
        std = builder.add_array("std", np.reshape(description.std, (-1, 1, 1)))
        operators += [("Sub", [mean], {}), ("Div", [std], {})]
    builder.chain("images", "pixels", operators)
    return "pixels"


def _add_node(
    builder: _ModelBuilder, node: Node, sources: list[str], result: str
) -> None:
    """Adds the operators of one node."""
    operators: list[Any] = []
    match node.layer:
        case Conv() as layer:
            weights = [_add_kernel(builder, layer)]
            if layer.shift is not None:
                weights.append(builder.add_array(f"{layer.name}/bias", layer.shift))
            if layer.dense:
                operators += [("Flatten", [], {}), ("Gemm", weights, {})]
            else:
                attributes = {
                    "kernel_shape": layer.kernel.shape[:2],
                    "pads": [layer.padding] * 4,
                    "strides": [layer.stride] * 2,
                }
                operators.append(("Conv", weights, attributes))
        case Add():
            operators.append(("Add", sources[1:], {}))
        case Mean():
            operators.append(("GlobalAveragePool", [], {}))
        case _:
            raise ValueError(
                f"onnx: {type(node.layer).__name__} is not supported; supported are "
                "Conv, Add, Mean"
            )
    if not isinstance(node.layer, Mean) and node.layer.relu:
        operators.append(("Relu", [], {}))
    if isinstance(node.layer, Conv) and node.layer.pool:
        pool = {"kernel_shape": [2, 2], "strides": [2, 2]}
        operators.append(("MaxPool", [], pool))
    builder.chain(sources[0], result, operators)


def _add_kernel(builder: _ModelBuilder, layer: Conv) -> str:
    """Adds a kernel, multiplied by the scales of its units, and returns its name."""
    name, kernel, magnitude = f"{layer.name}/kernel", layer.kernel, None
    if builder.storage == "int8":
        kernel, magnitude = graphs.signs(layer)
    elif layer.scale is not None:
        kernel = kernel * layer.scale
    # Channels first, also in the flattened input of a dense layer.
    if layer.dense:
        kernel = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[3])
    else:
        kernel = kernel.transpose(3, 2, 0, 1)
    if magnitude is None:
        return builder.add_array(name, kernel)
    scales = magnitude if layer.scale is None else magnitude * layer.scale
    if not layer.dense:
        scales = np.reshape(scales, (-1, 1, 1, 1))
    operators: list[Any] = [
        ("Cast", [], {"to": onnx.TensorProto.FLOAT}),
        ("Mul", [builder.add_array(f"{name}/scale", scales)], {}),
    ]
    builder.chain(builder.add_array(f"{name}/signs", kernel, np.int8), name, operators)
    return name


def _model(
    builder: _ModelBuilder, description: Description, network: Graph, inputs: Inputs
) -> onnx.ModelProto:
    """Returns the checked model of a builder's operators and arrays."""
    height, width, channels = description.image_shape
    kinds = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}
    value_info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        builder.nodes,
        description.arch or "network",
        [
            value_info(
                "images",
                kinds[inputs],
                ["batch", channels, height, width],
                doc_string="Pixels from 0 to 255, channels first.",
            )
        ],
        [
            value_info(
                "logits",
                onnx.TensorProto.FLOAT,
                ["batch", network.classes],
                doc_string="One for each class; the largest is the likeliest one's.",
            )
        ],
        builder.weights,
    )
    model = onnx.helper.make_model(
        graph,
        producer_name="aslp-jax",
        producer_version=__version__,
        doc_string="Images, as bytes give their pixels, to class logits; what is done "
        "to the pixels is part of the model.",
        opset_imports=[onnx.helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    facts = {"description": json.dumps(description.facts())}
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    return model
