"""ONNX models, run by onnxruntime, compute the same as the network."""

import json

import jax
import numpy as np
import onnx
import pytest

from aslp_jax import export
from aslp_jax.export import onnx as onnx_export
from aslp_jax.export.operations import Conv, Graph, Node
from aslp_jax.export.trace import trace
from aslp_jax.models.resnet import ResNet
from tests.export import modules, networks
from tests.export.networks import (
    SMALL,
    assert_same,
    logits,
    random_images,
    run_graph,
    run_onnx,
    small,
)


@pytest.mark.slow
@pytest.mark.parametrize("inputs", ["uint8", "float32"])
@pytest.mark.parametrize("storage", ["float", "int8"])
def test_all_test_digits(
    digits_network, digits_images, digits_logits, tmp_path, storage, inputs
):
    path = tmp_path / "digits.onnx"
    export.write(digits_network, "onnx", path, storage=storage, inputs=inputs)
    onnx.checker.check_model(str(path), full_check=True)
    assert_same(run_onnx(path.read_bytes(), digits_images), digits_logits)
    weights = 367_680
    expected = weights if storage == "int8" else 4 * weights
    assert expected < path.stat().st_size < expected + 3000


@pytest.mark.slow
@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_every_network(name, compact):
    content = onnx_export.encode(small(name), compact=compact).content
    assert_same(run_onnx(content, random_images()), logits(name))
    assert_same(run_onnx(content, random_images(count=1)), logits(name)[:1])


def test_the_model_declares_inputs_outputs_and_versions(digits_network):
    model = onnx.load_from_string(onnx_export.encode(digits_network).content)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert model.ir_version == 8 and model.producer_name == "aslp-jax"
    (images,), (outputs,) = model.graph.input, model.graph.output

    def sizes(value):
        dims = value.type.tensor_type.shape.dim
        return [dim.dim_param or dim.dim_value for dim in dims]

    assert (images.name, sizes(images)) == ("images", ["batch", 1, 8, 8])
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (outputs.name, sizes(outputs)) == ("logits", ["batch", 10])
    assert "0 to 255, channels first" in images.doc_string and model.doc_string
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(facts["description"])["arch"] == "conv2"


def test_signs_with_batch_norm():
    # The magnitude of a layer and batch-norm's scale of each unit, in one.
    content = onnx_export.encode(small("vgg"), storage="int8").content
    assert_same(run_onnx(content, random_images()), logits("vgg"))


def test_images_stay_channels_first():
    model = onnx.load_from_string(onnx_export.encode(small("resnet")).content)
    kinds = [node.op_type for node in model.graph.node]
    assert set(kinds) == {
        *("Cast", "Div", "Sub", "Conv", "Relu", "Add"),
        *("GlobalAveragePool", "Flatten", "Gemm"),
    }
    model = onnx.load_from_string(onnx_export.encode(small("conv")).content)
    kinds = [node.op_type for node in model.graph.node]
    assert kinds == [
        *("Cast", "Div", "Sub", "Div"),
        *("Conv", "Relu", "Conv", "Relu", "MaxPool") * 2,
        *("Flatten", "Gemm", "Relu", "Gemm"),
    ]


def test_signs_of_a_depthwise_convolution():
    kernel = np.random.default_rng(0).choice([-2, 0, 2], (3, 3, 1, 4))
    depthwise = Conv(
        "depth/kernel",
        kernel.astype(np.float32),
        (1, 1),
        ((1, 1), (1, 1)),
        (1, 1),
        groups=4,
        scale=np.linspace(1, 2, 4, dtype=np.float32),
    )
    graph = Graph((5, 6, 4), (Node(depthwise, (0,), (5, 6, 4)),))
    images = np.random.default_rng(1).normal(size=(2, 5, 6, 4)).astype(np.float32)
    model = onnx_export.model_of(graph, storage="int8")
    (stored,) = [each for each in model.graph.initializer if "signs" in each.name]
    assert stored.data_type == onnx.TensorProto.INT8 and stored.dims == [4, 1, 3, 3]
    np.testing.assert_allclose(
        run_onnx(model.SerializeToString(), images), run_graph(graph, images), rtol=1e-6
    )


def test_inputs_that_are_no_images_are_as_the_module_takes_them():
    name = "attention"
    fn, weights, shape = modules.module(name)
    with modules.promotion():
        graph = trace(fn, weights, jax.ShapeDtypeStruct(shape, np.float32))
    model = onnx_export.model_of(graph)
    (source,) = model.graph.input
    sizes = [
        each.dim_param or each.dim_value for each in source.type.tensor_type.shape.dim
    ]
    assert (source.name, sizes) == ("inputs", ["batch", 7, 6])
    assert "channels last" in source.doc_string
    # The sequence is held as it is: all transposes are those of the heads.
    transposes = [node for node in model.graph.node if node.op_type == "Transpose"]
    assert len(transposes) <= 5


def test_int8_refuses_several_magnitudes():
    with pytest.raises(
        ValueError, match=r"'Dense_0/kernel' has weights of \d+ magnitudes"
    ):
        onnx_export.encode(small("mixed"), storage="int8")


@pytest.mark.slow
def test_one_pixel_on_the_way_is_no_dense_layer():
    # Of the shortcut of the last stage, a 1x1 convolution.
    net = ResNet(stages=(4, 5, 6), classes=4)
    subnetwork = networks.subnetwork(net, (2, 1, 3))
    images = random_images((2, 1, 3), 5)
    content = onnx_export.encode(subnetwork).content
    expected = np.asarray(subnetwork(images))
    assert_same(run_onnx(content, images), expected)
    assert_same(run_onnx(content, images[:1]), expected[:1])
