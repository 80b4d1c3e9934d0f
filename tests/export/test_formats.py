"""`write` writes each format atomically, or names the mistake and writes nothing."""

import dataclasses
import os

import flax.linen as nn
import jax.export
import jax.numpy as jnp
import numpy as np
import onnxruntime
import pytest

from aslp_jax import export, functional
from aslp_jax.artefact import Description, Subnetwork
from aslp_jax.artefact.subnetwork import make_layer_weights
from aslp_jax.export import onnx, stablehlo
from aslp_jax.models import ConvNet
from tests.export.networks import (
    assert_same,
    logits,
    random_images,
    run_onnx,
    small,
)


class Odd(ConvNet):
    @nn.compact
    def __call__(self, images, *, train=False):
        return jnp.cumsum(super().__call__(images, train=train), 1)


def odd():
    """A network that computes something no graph holds."""
    conv = small("conv")
    fields = {name: getattr(conv.net, name) for name in conv.net.__dataclass_fields__}
    del fields["parent"], fields["name"]
    return dataclasses.replace(conv, net=Odd(**fields))


@pytest.mark.parametrize("kind", ["onnx", "c"])
def test_an_operation_without_a_place_in_a_graph_is_named(tmp_path, kind):
    path = tmp_path / f"net.{kind}"
    message = r"trace: cumsum is not supported \(.*test_formats.py:\d+\); supported "
    with pytest.raises(ValueError, match=message):
        export.write(odd(), kind, path)
    assert not list(tmp_path.iterdir())


def test_other_formats_hold_any_network(tmp_path):
    written = export.write(odd(), "stablehlo", tmp_path / "a").result
    assert written.before is written.after is written.operations is None
    found = jax.export.deserialize(bytearray(written.content)).call(random_images())
    expected = np.cumsum(logits("conv"), 1)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)
    assert "computes" not in export.report(odd(), written)
    content = export.write(odd(), "npz", tmp_path / "b").result.content
    assert content == export.write(small("conv"), "npz", tmp_path / "c").result.content


def sequences():
    """A network of functions, of sequences to sequences, that an artefact may hold."""
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(5, 4)).astype(np.float32)
    net = functional.stateless(
        lambda key, inputs: {"kernel": kernel},
        lambda weights, inputs: jnp.tanh(inputs @ weights["kernel"]),
    )
    layers = {"kernel": make_layer_weights("kernel", kernel)}
    about = Description("steps", None, (3, 5), output_shape=(3, 4))
    return Subnetwork(net, {"params": {"kernel": kernel}}, layers, about)


def test_inputs_that_are_no_images_come_as_the_network_takes_them():
    network = sequences()
    inputs = np.random.default_rng(1).normal(size=(2, 3, 5)).astype(np.float32)
    expected = np.asarray(network(inputs))
    found = run_onnx(onnx.encode(network).content, inputs)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)
    for compact in (True, False):
        content = stablehlo.encode(network, compact=compact).content
        found = jax.export.deserialize(bytearray(content)).call(inputs)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)


def test_arrays_that_were_read_without_their_network(tmp_path):
    alone = dataclasses.replace(sequences(), net=None, source="nets.py:Steps")
    for kind in ("onnx", "c", "stablehlo"):
        with pytest.raises(ValueError, match=r"of nets.py:Steps were read without it;"):
            export.write(alone, kind, tmp_path / "net.c")
    assert not list(tmp_path.iterdir())
    written = export.write(alone, "npz", tmp_path / "net.npz")
    with np.load(written.files[0]) as file:
        assert file["params/kernel"].shape == (5, 4)


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
        ("c", "a.c", {"storage": "signs"}, "'Dense_0/kernel' has weights of"),
    ],
)
def test_errors_name_the_option(tmp_path, kind, name, options, message):
    with pytest.raises(ValueError, match=message):
        export.write(small("mixed"), kind, tmp_path / name, **options)
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


def test_a_bfloat16_network_is_written_in_float32():
    half = small("conv").net.clone(dtype=jnp.bfloat16)
    subnetwork = dataclasses.replace(small("conv"), net=half)
    images, expected = random_images(), logits("conv")
    assert np.abs(np.asarray(subnetwork(images)) - expected).max() > 1e-3
    session = onnxruntime.InferenceSession(onnx.encode(subnetwork).content)
    given = {"images": images.transpose(0, 3, 1, 2)}
    assert_same(session.run(["logits"], given)[0], expected)
    content = stablehlo.encode(subnetwork, compact=False).content
    found = jax.export.deserialize(bytearray(content)).call(images)
    assert_same(np.asarray(found), expected)


def test_the_files_written_are_returned(tmp_path):
    path = tmp_path / "net.c"
    assert export.write(small("conv"), "c", path).files == (tmp_path / "net.h", path)
    assert all(each.is_file() for each in (path, tmp_path / "net.h"))
