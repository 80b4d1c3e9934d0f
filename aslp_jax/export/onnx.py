"""ONNX, written with the helpers of the `onnx` package."""

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
from aslp_jax.export.describe import describe
from aslp_jax.export.graph import Add, Conv, Graph, Mean, Node
from aslp_jax.export.passes import ROUND
from aslp_jax.export.passes import compact as compacted
from aslp_jax.export.result import ExportResult

OPSET = 17
"""Of 2022: what runs ONNX today knows it."""

IR_VERSION = 8
"""The file format of that opset."""

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

    Its input `images` is `[batch, channels, height, width]`, as ONNX knows images, and
    holds pixels from 0 to 255; the preparation is part of the model. Its output is
    `logits`, `[batch, classes]`. The batch is free. It computes in float32, whatever
    the dtype of the network.

    Args:
      subnetwork: the network.
      storage: of the kernels: `"float"`, 4 bytes a weight, or `"int8"`, one byte a
        weight (-1, 0 or 1) and a scale a layer or unit, of which a runtime makes the
        same floats when it loads them; for layers of one magnitude, such as signed
        constants. (`DequantizeLinear` would say the same, and onnxruntime carries it
        out again for every image.)
      inputs: type of the pixels.
      compact: whether units on no path are left out (`compaction.compact`), but for
        those that make the number of channels a round one.

    Returns:
      One file, which `onnx.checker` has checked.

    Raises:
      ImportError: the package `onnx` is not installed.
      ValueError: an option is unknown, the network's module or a layer is not
        supported, or a layer has several magnitudes and `"int8"` is asked for.
    """
    for option, value, known in (
        ("storage", storage, ("float", "int8")),
        ("inputs", inputs, ("uint8", "float32")),
    ):
        if value not in known:
            raise ValueError(f"onnx: {option} must be one of {known}, got {value!r}")
    about = subnetwork.description
    network = describe(subnetwork.net, subnetwork.variables, about.image_shape)
    before = after = graphs.cost(network)
    if compact:
        network = compacted(network, merge=storage == "float", multiple=ROUND)
        after = graphs.cost(network)
    draft = _Draft(storage, [], [])
    source = _prepare(draft, about, inputs)
    names = [source, *(f"value_{n}" for n in range(1, len(network.nodes))), "logits"]
    for node, name in zip(network.nodes, names[1:], strict=True):
        sources = [names[index] for index in node.inputs]
        _add(draft, node, sources, name)
    content = _model(draft, about, network, inputs).SerializeToString()
    return ExportResult({"": content}, before, after, after.multiply_adds, graphs.DENSE)


@dataclasses.dataclass(frozen=True, eq=False)
class _Draft:
    """A model in the making: its storage, operators and weights so far."""

    storage: Storage
    nodes: list[Any]
    weights: list[Any]

    def hold(self, name: str, array: Any, dtype: Any = np.float32) -> str:
        """Adds an array and returns its name."""
        array = np.ascontiguousarray(array, dtype)
        self.weights.append(onnx.numpy_helper.from_array(array, name))
        return name

    def chain(self, source: str, result: str, operators: list[Any]) -> None:
        """Adds operators one behind another: `(kind, further inputs, attributes)`."""
        for index, (kind, more, attributes) in enumerate(operators, start=1):
            last = index == len(operators)
            output = result if last else f"{result}/{kind}"
            self.nodes.append(
                onnx.helper.make_node(
                    kind, [source, *more], [output], name=output, **attributes
                )
            )
            source = output


def _prepare(draft: _Draft, about: Description, inputs: Inputs) -> str:
    """From pixels to what the network takes, in the order of `augment.to_float`."""
    operators: list[Any] = []
    if inputs == "uint8":
        operators.append(("Cast", [], {"to": onnx.TensorProto.FLOAT}))
    operators.append(("Div", [draft.hold("pixel_range", 255.0)], {}))
    if about.mean is not None and about.std is not None:
        mean = draft.hold("mean", np.reshape(about.mean, (-1, 1, 1)))
        std = draft.hold("std", np.reshape(about.std, (-1, 1, 1)))
        operators += [("Sub", [mean], {}), ("Div", [std], {})]
    draft.chain("images", "pixels", operators)
    return "pixels"


def _add(draft: _Draft, node: Node, sources: list[str], result: str) -> None:
    """Adds the operators of one node."""
    operators: list[Any] = []
    match node.layer:
        case Conv() as layer:
            weights = [_kernel(draft, layer)]
            if layer.shift is not None:
                weights.append(draft.hold(f"{layer.name}/bias", layer.shift))
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
    draft.chain(sources[0], result, operators)


def _kernel(draft: _Draft, layer: Conv) -> str:
    """Adds a kernel, with the scales of its units, and returns its name."""
    name, kernel, magnitude = f"{layer.name}/kernel", layer.kernel, None
    if draft.storage == "int8":
        kernel, magnitude = graphs.signs(layer)
    elif layer.scale is not None:
        kernel = kernel * layer.scale
    # Channels first, also in what a dense layer takes.
    if layer.dense:
        kernel = kernel.transpose(2, 0, 1, 3).reshape(-1, kernel.shape[3])
    else:
        kernel = kernel.transpose(3, 2, 0, 1)
    if magnitude is None:
        return draft.hold(name, kernel)
    scales = magnitude if layer.scale is None else magnitude * layer.scale
    if not layer.dense:
        scales = np.reshape(scales, (-1, 1, 1, 1))
    operators: list[Any] = [
        ("Cast", [], {"to": onnx.TensorProto.FLOAT}),
        ("Mul", [draft.hold(f"{name}/scale", scales)], {}),
    ]
    draft.chain(draft.hold(f"{name}/signs", kernel, np.int8), name, operators)
    return name


def _model(
    draft: _Draft, about: Description, network: Graph, inputs: Inputs
) -> onnx.ModelProto:
    height, width, channels = about.image_shape
    kinds = {"uint8": onnx.TensorProto.UINT8, "float32": onnx.TensorProto.FLOAT}
    described = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        draft.nodes,
        about.arch or "network",
        [
            described(
                "images",
                kinds[inputs],
                ["batch", channels, height, width],
                doc_string="Pixels from 0 to 255, channels first.",
            )
        ],
        [
            described(
                "logits",
                onnx.TensorProto.FLOAT,
                ["batch", network.classes],
                doc_string="One for each class; the largest is the likeliest one's.",
            )
        ],
        draft.weights,
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
    facts = {"description": json.dumps(dataclasses.asdict(about))}
    onnx.helper.set_model_props(model, facts)
    onnx.checker.check_model(model, full_check=True)
    return model
