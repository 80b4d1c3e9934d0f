"""Files are read as they were written, with little memory, or refused."""

import os
import struct
import tracemalloc
from typing import Any

import flax.traverse_util
import jax
import numpy as np
import pytest

import aslp_jax
from aslp_jax.artefact import (
    ArtefactError,
    Description,
    Subnetwork,
    architecture,
    container,
    header,
    load,
)
from aslp_jax.artefact.decoding import assemble, decode
from aslp_jax.artefact.encoding import encode
from aslp_jax.artefact.subnetwork import make_layer_weights
from tests.artefact.networks import (
    assert_same,
    edited,
    file_of,
    header_of,
    sealed,
    tiny,
)


@pytest.mark.slow
def test_the_files_hold_every_kind_of_segment():
    found = [header_of(file_of(kind)) for kind in ("recipe", "values", "signs")]
    arrays = [array for header in found for array in header["arrays"]]
    origins = {array["origin"] for array in arrays}
    assert origins == {"recipe", "signs", "values", "dense"}
    for part in ("mask", "inverted", "data", "scale", "recipe", "magnitude"):
        assert any(array[part] for array in arrays)
        assert any(array[part] is None for array in arrays)
    assert found[2]["collections"]
    deflated = {array["data"]["deflated"] for array in arrays if array["data"]}
    assert deflated == {True, False}


def other_key(header: dict[str, Any]) -> None:
    header["arrays"][1]["recipe"]["key"][0] ^= 1


def test_weights_that_do_not_regenerate_are_refused_with_a_remedy(tmp_path):
    path = tmp_path / "a.aslp"
    path.write_bytes(edited(file_of("normal"), other_key))
    with pytest.raises(ArtefactError) as error:
        load(path)
    words = str(error.value)
    assert words.startswith(f"{path} cannot be used here: jax {jax.__version__} on cpu")
    assert "'Conv_0/kernel'" in words and "--embed-weights" in words
    assert f"made with aslp_jax {aslp_jax.__version__}" in words and "\n" not in words


@pytest.mark.parametrize(
    "change",
    [
        other_key,
        lambda header: header["arrays"][1].update(scale=0.1),
        lambda header: header["arrays"][1].update(magnitude=0.1),
    ],
)
def test_signs_that_do_not_regenerate_mean_a_changed_file(change):
    """Signs are drawn with integers, so JAX is not the cause."""
    with pytest.raises(
        ArtefactError, match="its mask, scale, magnitude or key was changed"
    ) as error:
        assemble(decode(edited(file_of("recipe"), change)))
    assert str(error.value).startswith(
        "has 'Conv_0/kernel' with weights of another sha"
    )
    assert "jax" not in str(error.value)


def test_a_float32_may_be_written_in_few_digits():
    data = file_of("recipe")

    def shorten(header: dict[str, Any]) -> None:
        for array in header["arrays"]:
            for name in ("scale", "magnitude"):
                if array[name] is not None:
                    short = float(str(np.float32(array[name])))
                    assert len(str(short)) <= len(str(array[name]))
                    array[name] = short

    changed = edited(data, shorten)
    assert header_of(changed) != header_of(data)
    assert_same(assemble(decode(changed)), assemble(decode(data)))


def test_other_files_are_refused_by_name(tmp_path):
    data = file_of("recipe")
    path = tmp_path / "a.aslp"
    for content, words in (
        (b"", "is no artefact"),
        (b"PK\x03\x04 something else", "is no artefact"),
        (data.replace(b"\r\n", b"\n"), "is no artefact"),
        (data[:20], "is truncated: 20 bytes"),
        (data[:-1], "is damaged or truncated: its checksum"),
        (data + b"\0", "is damaged or truncated"),
        (
            sealed(data[:8] + struct.pack("<I", 3) + data[12:-32]),
            "is of format 3; this version of aslp_jax reads formats 1 and 2",
        ),
        (
            sealed(data[:8] + struct.pack("<I", 0) + data[12:-32]),
            "is of format 0; this",
        ),
        (
            sealed(data[:8] + struct.pack("<I", 2) + data[12:-32]),
            "has a header whose network holds",
        ),
        (sealed(data[:12] + b"\xff\xff\xff\xff" + data[16:-32]), "a header of 429496"),
    ):
        path.write_bytes(content)
        with pytest.raises(ArtefactError, match=words) as error:
            load(path)
        assert str(error.value).startswith(f"{path} ")
    with pytest.raises(ArtefactError, match="is no regular file"):
        load(os.devnull)
    os.mkfifo(tmp_path / "pipe")  # without a writer
    with pytest.raises(ArtefactError, match="is no regular file"):
        load(tmp_path / "pipe")
    with open(path, "wb") as file:
        file.truncate(container.LARGEST_FILE + 1)
    with pytest.raises(ArtefactError, match="is too large"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")


@pytest.fixture(scope="module")
def wide() -> Subnetwork:
    """A million weights in one array: all kept, one inverted, all but one the same."""
    units = 1 << 10
    net = tiny(stages=(1,), hidden=(units,), classes=units, bias_init=None)
    shape = (2, 2, 1)
    layers = {}
    for name, sizes in architecture.array_shapes(net, shape)["params"].items():
        ternary_mask, frozen = np.ones(sizes, np.int8), np.ones(sizes, np.float32)
        ternary_mask.flat[0], frozen.flat[1] = -1, 2
        scale = np.float32(0.5)
        layers[name] = make_layer_weights(
            name, frozen, ternary_mask=ternary_mask, scale=scale
        )
    arrays = {name: layer.weights for name, layer in layers.items()}
    params = flax.traverse_util.unflatten_dict(arrays, sep="/")
    return Subnetwork(
        net=architecture.from_config(architecture.to_config(net)),
        variables={"params": params},
        layers=layers,
        description=Description("wide", units, shape),
    )


def test_a_small_file_takes_little_memory(wide):
    data = encode(wide)
    assert len(data) < 10_000
    decode(data)  # traces the network
    tracemalloc.start()
    found = assemble(decode(data))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_same(found, wide)
    weights = sum(layer.weights.size for layer in wide.layers.values())
    assert most < 20 * weights
    assert header.MOST_WEIGHTS * 24 < 2 << 30, "bytes, of any file"


def test_more_weights_than_any_network_here_are_refused_before_one_is_made(wide):
    """A header that fits its network, and a body of the length that it declares."""
    units = 1 << 16

    def grow(found: dict[str, Any]) -> None:
        found["network"] |= {"classes": units, "hidden": [1 << 10]}
        found["arrays"][-1]["shape"] = [1 << 10, units]

    tracemalloc.start()
    with pytest.raises(ArtefactError, match="holds 67109906 weights, more than 671088"):
        decode(edited(encode(wide), grow))
    assert tracemalloc.get_traced_memory()[1] < 24 << 20
    tracemalloc.stop()
