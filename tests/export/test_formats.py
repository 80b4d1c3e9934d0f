"""ONNX, StableHLO and npz: read back by other programs, they compute the same."""

import dataclasses
import functools
import io
import json
import math
import os
import zipfile

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest

from aslp_jax import ASLP, EdgePopup, Masked, Signed, export
from aslp_jax.artefact import Description, extract
from aslp_jax.data import datasets
from aslp_jax.export import graph as graphs
from aslp_jax.export import npz, stablehlo
from aslp_jax.export import onnx as onnx_export
from aslp_jax.export.describe import describe
from aslp_jax.export.result import report
from aslp_jax.models import ConvNet
from aslp_jax.models.initialisers import fan_in_uniform, kaiming_constant
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG

STANDARDISED = {"mean": (0.5, 0.4, 0.3), "std": (0.2, 0.3, 0.4)}
SMALL = {
    "conv": (ConvNet, {"stages": (6, 7), "hidden": (9,)}, Signed),
    "vgg": (VGG, {"stages": ((4, 5), (6,))}, ASLP),
    "resnet": (ResNet, {"stages": (4, 6)}, ASLP),
}


@functools.cache
def small(name):
    """A small network on 9x8 images, half of its weights at random, standardised."""
    kind, options, method = SMALL[name]
    net = kind(classes=4, bias_init=fan_in_uniform, **options)
    model, key = Masked(net, method(logit_std=1.0)), jax.random.key(3)
    variables = jax.jit(model.init)(key, jnp.zeros((1, 9, 8, 3)))
    stats = jax.tree.map(lambda leaf: leaf + 0.3, variables.get("batch_stats", {}))
    if stats:
        variables = {**variables, "batch_stats": stats}
    about = Description(name, 4, (9, 8, 3), **STANDARDISED)
    return extract(model, variables, about, key=key)


def pictures(count=5):
    return np.random.default_rng(0).integers(0, 256, (count, 9, 8, 3), np.uint8)


def same(found, expected):
    assert found.dtype == np.float32 and found.shape == expected.shape
    if len(expected) > 1:
        assert np.ptp(expected, axis=0).max() > 1e-2
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    np.testing.assert_array_equal(found.argmax(1), expected.argmax(1))


def run_onnx(content, images):
    session = onnxruntime.InferenceSession(content)
    given = images.transpose(0, 3, 1, 2)
    if session.get_inputs()[0].type == "tensor(float)":
        given = given.astype(np.float32)
    (found,) = session.run(["logits"], {"images": given})
    return found


@pytest.mark.parametrize("inputs", ["uint8", "float32"])
@pytest.mark.parametrize("storage", ["float", "int8"])
def test_onnx_on_all_test_digits(digits_network, tmp_path, storage, inputs):
    images = datasets.load("digits").test_images
    path = tmp_path / "digits.onnx"
    export.write(digits_network, "onnx", path, storage=storage, inputs=inputs)
    onnx.checker.check_model(str(path), full_check=True)
    assert len(images) == 360
    same(run_onnx(path.read_bytes(), images), np.asarray(digits_network(images)))
    weights = 367_680
    expected = weights if storage == "int8" else 4 * weights
    assert expected < path.stat().st_size < expected + 3000


def test_the_digits_network_has_learnt(digits_network):
    data = datasets.load("digits")
    found = np.asarray(digits_network(data.test_images)).argmax(1)
    assert np.mean(found == data.test_labels) > 0.5


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_onnx_of_every_network(name, compact):
    subnetwork, images = small(name), pictures()
    content = onnx_export.encode(subnetwork, compact=compact).content
    same(run_onnx(content, images), np.asarray(subnetwork(images)))
    same(run_onnx(content, images[:1]), np.asarray(subnetwork(images[:1])))


def test_onnx_declares_what_it_is(digits_network):
    model = onnx.load_from_string(onnx_export.encode(digits_network).content)
    assert [(each.domain, each.version) for each in model.opset_import] == [("", 17)]
    assert model.ir_version == 8 and model.producer_name == "aslp-jax"
    (images,), (logits,) = model.graph.input, model.graph.output

    def sizes(value):
        dims = value.type.tensor_type.shape.dim
        return [dim.dim_param or dim.dim_value for dim in dims]

    assert (images.name, sizes(images)) == ("images", ["batch", 1, 8, 8])
    assert images.type.tensor_type.elem_type == onnx.TensorProto.UINT8
    assert (logits.name, sizes(logits)) == ("logits", ["batch", 10])
    assert "0 to 255, channels first" in images.doc_string and model.doc_string
    facts = {prop.key: prop.value for prop in model.metadata_props}
    assert json.loads(facts["description"])["arch"] == "conv2"


def test_onnx_of_signs_with_batch_norm():
    # The magnitude of a layer and batch-norm's scale of each unit, in one.
    net = VGG(classes=3, stages=((4, 5),), conv_init=kaiming_constant())
    net = net.clone(dense_init=kaiming_constant())
    model, key = Masked(net, ASLP(logit_std=1.0)), jax.random.key(1)
    variables = jax.jit(model.init)(key, jnp.zeros((1, 9, 8, 3)))
    spread = jnp.arange(1.0, 6.0)
    stats = jax.tree.map(
        lambda leaf: leaf * spread[: leaf.size], variables["batch_stats"]
    )
    about = Description("vgg", 3, (9, 8, 3))
    subnetwork = extract(model, {**variables, "batch_stats": stats}, about, key=key)
    content = onnx_export.encode(subnetwork, storage="int8").content
    same(run_onnx(content, pictures()), np.asarray(subnetwork(pictures())))


def test_onnx_int8_refuses_several_magnitudes():
    with pytest.raises(ValueError, match=r"'Conv_0' has weights of \d+ magnitudes"):
        onnx_export.encode(small("conv"), storage="int8")


@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_stablehlo_read_back(tmp_path, name, compact):
    path = tmp_path / "net.stablehlo"
    export.write(small(name), "stablehlo", path, compact=compact)
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    (images,) = exported.in_avals
    assert str(images.shape[0]) == "batch" and images.shape[1:] == (9, 8, 3)
    assert images.dtype == jnp.uint8
    for count in (1, 5):
        found = exported.call(pictures(count))
        same(np.asarray(found), np.asarray(small(name)(pictures(count))))


def test_stablehlo_on_all_test_digits(digits_network):
    images = datasets.load("digits").test_images
    content = stablehlo.encode(digits_network).content
    exported = jax.export.deserialize(bytearray(content))
    same(np.asarray(exported.call(images)), np.asarray(digits_network(images)))


def restore(file, name):
    """What the docstring of `npz.encode` says."""
    if name in file:
        return file[name]
    weights = np.zeros(file[f"{name}/shape"], np.float32)
    kept = np.unpackbits(file[f"{name}/mask"], count=weights.size).astype(bool)
    weights[kept.reshape(weights.shape)] = file[f"{name}/values"]
    return weights


@pytest.mark.parametrize("storage", ["dense", "sparse"])
@pytest.mark.parametrize("name", SMALL)
def test_npz_read_back_by_numpy(tmp_path, name, storage):
    path, subnetwork = tmp_path / "net.npz", small(name)
    export.write(subnetwork, "npz", path, storage=storage)
    with np.load(path, allow_pickle=False) as file:
        leaves = jax.tree_util.tree_flatten_with_path(subnetwork.variables)[0]
        for where, leaf in leaves:
            each = jax.tree_util.keystr(where, simple=True, separator="/")
            np.testing.assert_array_equal(restore(file, each), leaf)
            sparse = storage == "sparse" and each.endswith("kernel")
            assert (each not in file) == sparse
        about = json.loads(str(file["description"]))
    assert about["image_shape"] == [9, 8, 3] and about["mean"] == [0.5, 0.4, 0.3]


def test_npz_is_smaller_sparse_and_the_same_each_time(digits_network):
    sizes = {
        storage: len(npz.encode(digits_network, storage=storage).content)
        for storage in ("dense", "sparse")
    }
    # Signed constants: a bit for a mask and one for a sign, deflated.
    assert sizes["sparse"] < sizes["dense"] < 4 * 367_680 / 7
    first = npz.encode(digits_network).content
    assert first == npz.encode(digits_network).content
    with zipfile.ZipFile(io.BytesIO(first)) as file:
        assert file.testzip() is None


@pytest.mark.parametrize("kind", ["onnx", "c", "stablehlo"])
def test_an_unknown_module_is_named(tmp_path, kind):
    odd = dataclasses.replace(small("conv"), net=nn.Dense(4))
    path = tmp_path / f"net.{kind}"
    with pytest.raises(ValueError, match=r"Dense is not supported; supported are Conv"):
        export.write(odd, kind, path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "kind, name, options, message",
    [
        ("tflite", "a", {}, "unknown format 'tflite'; expected one of onnx, c, stable"),
        ("npz", "a", {"storage": "tiny"}, "storage must be 'dense' or 'sparse'"),
        ("npz", "a", {"compact": True}, "npz has no option 'compact'; it has storage"),
        ("onnx", "a", {"storage": "int4"}, "onnx: storage must be one of"),
        ("onnx", "a", {"inputs": "int8"}, "onnx: inputs must be one of"),
        ("c", "a.c", {"storage": "int4"}, "c: storage must be one of"),
        ("c", "a", {}, "a C source is named NAME.c, got 'a'"),
        ("c", "conv-4.c", {}, "c: 'conv-4' cannot begin the names of C functions"),
        ("c", "a.c", {"storage": "signs"}, "'Conv_0' has weights of"),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, kind, name, options, message):
    with pytest.raises(ValueError, match=message):
        export.write(small("conv"), kind, tmp_path / name, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("kind", export.KINDS)
def test_a_folder_in_the_way_leaves_nothing(tmp_path, kind):
    path = tmp_path / "net.c"
    path.mkdir()
    with pytest.raises(IsADirectoryError):
        export.write(small("conv"), kind, path)
    assert os.listdir(tmp_path) == ["net.c"]


def test_no_source_is_written_without_its_header(tmp_path):
    (tmp_path / "net.h").mkdir()
    (tmp_path / "net.c").write_text("what was there")
    with pytest.raises(IsADirectoryError):
        export.write(small("conv"), "c", tmp_path / "net.c")
    assert sorted(os.listdir(tmp_path)) == ["net.c", "net.h"]
    assert (tmp_path / "net.c").read_text() == "what was there"


def test_one_pixel_on_the_way_is_no_dense_layer():
    # Of the shortcut of the last stage, a 1x1 convolution.
    net = ResNet(stages=(4, 5, 6), classes=4)
    model, key = Masked(net, ASLP(logit_std=1.0)), jax.random.key(3)
    variables = jax.jit(model.init)(key, jnp.zeros((1, 2, 1, 3)))
    subnetwork = extract(model, variables, Description("", 4, (2, 1, 3)), key=key)
    images = np.random.default_rng(0).integers(0, 256, (5, 2, 1, 3), np.uint8)
    content = onnx_export.encode(subnetwork).content
    same(run_onnx(content, images), np.asarray(subnetwork(images)))
    same(run_onnx(content, images[:1]), np.asarray(subnetwork(images[:1])))


def test_what_computes_in_bfloat16_is_written_in_float32():
    half = small("conv").net.clone(dtype=jnp.bfloat16)
    subnetwork = dataclasses.replace(small("conv"), net=half)
    expected = np.asarray(small("conv")(pictures()))
    assert np.abs(np.asarray(subnetwork(pictures())) - expected).max() > 1e-3
    same(run_onnx(onnx_export.encode(subnetwork).content, pictures()), expected)
    content = stablehlo.encode(subnetwork, compact=False).content
    found = jax.export.deserialize(bytearray(content)).call(pictures())
    same(np.asarray(found), expected)


@functools.cache
def cut_off():
    """A network of which so little is kept that units are cut off."""
    net = ConvNet(stages=(32,), hidden=(40,), classes=4)
    net = net.clone(conv_init=kaiming_constant(), dense_init=kaiming_constant())
    method = EdgePopup(keep_fraction=0.02, rescale="none")
    model, key = Masked(net, method), jax.random.key(3)
    variables = jax.jit(model.init)(key, jnp.zeros((1, 9, 8, 3)))
    return extract(model, variables, Description("odd", 4, (9, 8, 3)), key=key)


@pytest.mark.parametrize(
    "kind, storage, operations",
    [
        ("onnx", "float", "after"),
        ("onnx", "int8", "after"),
        ("stablehlo", None, "after"),
        ("c", "dense", "after"),
        ("c", "sparse", "nonzero"),
        ("c", "signs", "between"),
        ("c", "seed", "kept"),
        ("npz", "sparse", None),
    ],
)
def test_what_an_export_takes_is_said(tmp_path, kind, storage, operations):
    options = {} if storage is None else {"storage": storage}
    written = export.write(cut_off(), kind, tmp_path / "net.c", **options).encoded
    graph = describe(cut_off().net, cut_off().variables, (9, 8, 3))
    before = graphs.cost(graph)
    text = report(cut_off(), written)
    entries = cut_off().entries.values()
    weights = sum(each.mask.size for each in entries)
    kept = sum(each.kept for each in entries)
    assert f"kept        {kept:,} of {weights:,} weights" in text
    bits = sum(
        -n * math.log2(n / each.mask.size)
        for each in entries
        for n in (each.kept, each.mask.size - each.kept)
    )
    assert f"masks       {math.ceil(bits / 8):,} bytes by their entropy" in text
    assert text.splitlines()[-1] == f"dropped     {written.sparsity}"
    if operations is None:
        assert written.before is written.after is None and "computes  " not in text
        return
    after = written.after
    assert written.before == before
    assert (after.parameters < before.parameters) == (storage != "seed")
    expected = {
        "after": [after.multiply_adds],
        "nonzero": [after.nonzero_multiply_adds],
        "between": range(after.nonzero_multiply_adds + 1, after.multiply_adds),
        "kept": [before.nonzero_multiply_adds],
    }
    assert written.operations in expected[operations]
    for each in (before.parameters, after.parameters, after.multiply_adds):
        assert f" {each:,} " in text
    assert f"computes    {written.operations:,} of these" in text


def test_the_files_written_are_returned(tmp_path):
    path = tmp_path / "net.c"
    assert export.write(small("conv"), "c", path).files == (tmp_path / "net.h", path)
    assert all(each.is_file() for each in (path, tmp_path / "net.h"))
