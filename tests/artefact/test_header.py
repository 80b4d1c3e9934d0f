"""Headers that cannot be true are refused before anything is made of them."""

import dataclasses
import functools
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from aslp_jax import Signed
from aslp_jax.artefact import ArtefactError, architecture, container
from aslp_jax.artefact.decoding import assemble, decode
from aslp_jax.artefact.encoding import encode, encode_tree
from aslp_jax.models.bottleneck import BottleneckResNet
from tests.artefact.networks import ABOUT, SIGNED, edited, file_of, made_of
from tests.artefact.own import own_file


def put(*path: Any) -> Callable[[Any], Callable[[Any], None]]:
    """A change of a header: another value at a path in it."""

    def to(value: Any) -> Callable[[Any], None]:
        def change(header: Any) -> None:
            *way, last = path
            functools.reduce(lambda found, step: found[step], way, header)[last] = value

        return change

    return to


MASK, DATA = ("arrays", 1, "mask"), ("arrays", 1, "data")


HOSTILE = [
    ("recipe", put("network", "family")("Net"), "network.family is 'Net'; expected"),
    ("recipe", put("network", "family")(["ConvNet"]), "network.family is"),
    (
        "recipe",
        put("network", "stages")([5]),
        r"has the array \('Conv_0/bias', \(4,\)\)",
    ),
    ("recipe", put("network", "stages")([2**40]), "an integer from 1 to 65536"),
    ("recipe", put("network", "stages")([1] * 65), "a list of at most 64"),
    (
        "recipe",
        put("network", "stages")([1] * 60),
        "lists 8 arrays where its network h",
    ),
    (
        "recipe",
        put("network", "image_shape")([1, 9, 3]),
        "names a network that cannot be",
    ),
    ("signs", put("network", "stages")([]), "stages is .*a list of at least 1"),
    ("recipe", put("network", "stages")([]), "a list of at least 1"),
    ("signs", put("network", "stages")([3, 4]), "stages is 3; expected a list"),
    ("recipe", put("network", "classes")(True), "network.classes is True"),
    ("recipe", put("network", "biases")(0), "network.biases is 0; expected true or fa"),
    ("recipe", put("network", "biases")(False), "where its network has"),
    ("recipe", put("network", "dtype")("float64"), "one of float32, bfloat16"),
    ("recipe", put("network", "image_shape")([8, 8]), "a list of at least 3"),
    ("recipe", put("generator")("rbg"), "generator is 'rbg'; expected one of threefry"),
    ("recipe", put("more")(1), "whose top level holds .*more"),
    ("recipe", put("description", "std")([1, 1]), "description.std"),
    ("recipe", put("description", "std")([1, 1, 0]), "description.std"),
    ("recipe", put("description", "std")([1, 1, 1e-50]), "description.std"),
    ("recipe", put("description", "mean")(None), "description.mean is None"),
    ("recipe", put("description", "mean")([10**400] * 3), "an integer of 401 digits"),
    ("recipe", put("description", "seed")(-1), "description.seed is -1"),
    ("recipe", put("description", "arch")("\x1b[2J"), "printable characters"),
    ("recipe", put("description", "arch")("\ud800"), "printable characters"),
    ("recipe", put("description", "method")("x" * 201), "at most 200"),
    (
        "recipe",
        put("description", "accuracies", "x")(1.1),
        "'x' is 1.1; expected a num",
    ),
    ("recipe", put("description", "accuracies")([]), "an object of at most 16 entries"),
    ("recipe", put("description", "versions", "x\n")("1"), "printable characters"),
    ("recipe", put("arrays")({}), "arrays is {}; expected a list"),
    (
        "recipe",
        put("arrays", 1, "name")("../../etc/passwd"),
        "has the array .'../../etc",
    ),
    ("recipe", put("arrays", 1, "name")("Conv_0/bias"), "'Conv_0', 'bias'. twice"),
    ("recipe", put("arrays", 1, "name")("Conv_0/b"), "has the array .'Conv_0/b'"),
    ("recipe", put("arrays", 1, "name")("Conv_0\x00"), "printable characters"),
    ("recipe", put("arrays", 1, "shape")([3, 3, 3, -4]), "is -4; expected an int"),
    ("recipe", put("arrays", 1, "shape")([3, 3, 3, 2**60]), "an integer from 1 to"),
    (
        "recipe",
        put("arrays", 1, "shape")([108]),
        "has the array .'Conv_0/kernel', .108,",
    ),
    ("recipe", put("arrays", 1, "shape")([3, 3, 3, 4.0]), "is 4.0; expected an int"),
    ("recipe", put("arrays", 1, "sha256")("0" * 63), "64 hexadecimal digits"),
    ("recipe", put("arrays", 1, "scale")("1"), "scale is '1'"),
    ("recipe", put("arrays", 1, "scale")(math.nan), "holds NaN, which is no number"),
    ("recipe", put("arrays", 1, "scale")(-math.inf), "holds -Infinity"),
    ("recipe", put("arrays", 1, "scale")(1e39), "a number that float32 can hold"),
    ("recipe", put("arrays", 1, "scale")(2.0**127), "weights of another sha256; sig"),
    ("recipe", put("arrays", 0, "scale")(1.0), "and no mask cannot have a scale"),
    ("recipe", put("arrays", 1, "magnitude")(-1.0), "a number above 0"),
    ("recipe", put("arrays", 1, "magnitude")(1e-50), "a number above 0"),
    ("recipe", put("arrays", 1, "magnitude")(None), "origin recipe lacks a magnitude"),
    ("recipe", put("arrays", 1, "origin")("values"), "origin values cannot have a rec"),
    ("recipe", put("arrays", 1, "origin")("seed"), "one of recipe, signs, values, den"),
    ("recipe", put("arrays", 1, "recipe")(None), "lacks a recipe"),
    ("recipe", put("arrays", 1, "recipe", "key")([1, 2, 3]), "expected a list of"),
    ("recipe", put("arrays", 1, "recipe", "key")([1, 2**32]), "an integer from 0"),
    ("recipe", put("arrays", 1, "recipe", "key")([1, -1]), "an integer from 0"),
    ("recipe", put("arrays", 1, "recipe", "initialiser")("zeros"), "one of kaiming_no"),
    (
        "recipe",
        put("arrays", 1, "recipe", "fan_in")(27),
        "expected null for signed_constant",
    ),
    ("recipe", put("arrays", 0, "recipe", "fan_in")(0), "an integer from 1"),
    (
        "recipe",
        put("arrays", 0, "recipe", "fan_in")(None),
        "expected an integer for fan_in_uniform",
    ),
    (
        "normal",
        put("arrays", 0, "recipe")(
            {"initialiser": "kaiming_normal", "key": [1, 2], "fan_in": None}
        ),
        r"arrays\[0\].shape is \(4,\); expected at least the two axes that kaiming",
    ),
    ("recipe", put(*MASK, "bytes")(-1), "an integer from 0"),
    ("recipe", put(*MASK, "bytes")(2**39), "declares segments of 549755814"),
    ("recipe", put(*MASK, "bytes")(13), "declares segments of"),
    ("recipe", put(*MASK, "deflated")(True), "cannot be inflated"),
    ("recipe", put(*MASK, "deflated")(1), "expected true or false"),
    ("recipe", put(*MASK)(None), "and no mask cannot have"),
    ("values", put(*DATA)(None), "lacks a data"),
    (
        "values",
        put("arrays", 0, "mask")({"bytes": 0, "deflated": False}),
        "cannot have",
    ),
    ("signs", put("collections")([]), "lists 10 arrays where its network has 16"),
    ("signs", put("collections", 0, "name")("params/x"), "path is .'params', 'x'"),
    (
        "signs",
        put("collections", 0, "data", "deflated")(False),
        r"has a segment of \d+ bytes where 16 are needed",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "change", "words"), HOSTILE)
def test_a_header_that_cannot_be_true_is_refused(kind, change, words):
    refused(file_of(kind), change, words)


def refused(data: bytes, change: Callable[[Any], Any], words: str) -> None:
    with pytest.raises(ArtefactError, match=words) as error:
        assemble(decode(edited(data, change)))
    assert str(error.value).isprintable() and len(str(error.value)) < 500


def move_to_collections(header: Any) -> None:
    """The last weights as an extra array, which has no shape in format 1."""
    last = header["arrays"].pop()
    extra = {name: last[name] for name in ("name", "sha256", "data")}
    header["collections"].insert(0, extra)


def test_weights_among_the_collections_are_refused():
    refused(file_of("signs"), move_to_collections, "lists 9 arrays of weights where")


PATH = ("arrays", 0, "path")

HOSTILE_2 = [
    ("linen", put("arrays", 0, "name")("x"), r"arrays\[0\] holds .*name"),
    ("linen", put(*PATH)([]), r"path is \[\]; expected texts that are not empty"),
    ("linen", put(*PATH)(["a", ""]), "expected texts that are not empty"),
    ("linen", put(*PATH)(["a"] * 33), "path is .*; expected a list of at most 32"),
    ("linen", put(*PATH)("stem/kernel"), "path is 'stem/kernel'; expected a list"),
    ("linen", put(*PATH)(["a\n"]), "printable characters"),
    ("linen", put(*PATH)(["depth"]), r"arrays hold \('depth',\) twice"),
    ("linen", put(*PATH)(["depth", "bias"]), "arrays hold .'depth', 'bias'. twice"),
    ("linen", put("collections", 0, "path")(["params", "x"]), "path is .'params', 'x"),
    ("linen", put("arrays", 0, "dtype")("float64"), "dtype is 'float64'; expected one"),
    ("linen", put("arrays", 0, "dtype")("O"), "dtype is 'O'; expected one of bool"),
    ("linen", put("arrays", 0, "dtype")("int32"), "int32 .* cannot have a"),
    (
        "linen",
        put("arrays", 0, "dtype")("bfloat16"),
        "bfloat16 .* cannot have a recipe",
    ),
    ("linen", put("arrays", 0, "shape")([2**26, 2]), "holds 134217.* weights, more"),
    ("linen", put("arrays", 0, "shape")([1] * 9), "shape is .*a list of at most 8"),
    ("linen", put("collections", 0, "shape")(None), "shape is None; expected a list"),
    ("linen", put("collections", 0, "shape")([2**26]), "holds 67109.* weights, more"),
    ("linen", put("collections", 0, "shape")([7]), "(inflate to|where) 28"),
    ("linen", put("collections", 0, "dtype")("int8"), "(inflate to|where) 4"),
    ("linen", put("collections", 0, "sha256")("0" * 64), "numbers of another sha256"),
    ("linen", put("network")(None), "description is .*; expected None without a netw"),
    ("linen", put("network")("os.system"), "network.family is None; expected one of"),
    ("linen", put("network")({"family": "os"}), "network.family is 'os'; expected one"),
    ("linen", put("network", "label")(3), "network.label is 3"),
    ("linen", put("network", "more")(3), "network holds .*'more'"),
    ("linen", put("network", "sha256")("x"), "network.sha256 is 'x'"),
    ("linen", put("network", "arguments")([]), "network.arguments is"),
    (
        "linen",
        put("network", "arguments")({str(i): i for i in range(65)}),
        "an object of at most 64",
    ),
    ("linen", put("description")(None), "description is None; expected an object"),
    ("linen", put("description", "classes")(4), "class_names is .* expected 4 names"),
    ("linen", put("description", "output_shape")([3]), "classes is 3; expected .*None"),
    ("linen", put("description", "class_names")(["a"]), "class_names is"),
    ("linen", put("description", "image_shape")([2**14] * 2), "a shape of at most"),
    ("half", put("arrays", 0, "scale")(2.0), "weights of another sha256"),
    ("half", put("arrays", 0, "dtype")("float32"), "(inflate to|where) .*[0-9]"),
    ("half", put("arrays", 0, "dtype")("uint16"), "uint16 .* cannot have a mask"),
    ("half", put("arrays", 0, "sha256")("0" * 64), "weights of another sha256"),
    ("named", put("description", "classes")(4), "class_names is .* expected 4 names"),
    ("named", put("network", "classes")(4), "classes is 3; expected those of the netw"),
    ("named", put("network", "image_shape")([8, 8, 3]), "network holds"),
    ("named", put("description", "image_shape")([8, 3]), "a list of at least 3"),
    ("named", put("arrays", 0, "dtype")("bfloat16"), "cannot have a recipe"),
    ("named", put("arrays", 1, "path")(["Conv_0", "x"]), "has the array .'Conv_0/x'"),
]


@pytest.mark.parametrize(("kind", "change", "words"), HOSTILE_2)
def test_a_header_of_format_2_that_cannot_be_true_is_refused(kind, change, words):
    refused(named_classes() if kind == "named" else own_file(kind), change, words)


@functools.cache
def named_classes() -> bytes:
    """A network of this library in format 2."""
    _, subnetwork = made_of(Signed(logit_std=1.0), SIGNED)
    about = dataclasses.replace(ABOUT, class_names=("cat", "dog", "bird"))
    return encode(dataclasses.replace(subnetwork, description=about))


def test_bools_are_0_or_1():
    data = encode_tree({"x": np.array([True, False])}, {})
    version, header, body = container.unpack(data)
    forged = container.pack(version, header, [bytes(body).replace(b"\0", b"\2")])
    with pytest.raises(ArtefactError, match="bools that are neither 0 nor 1"):
        decode(forged)


@pytest.mark.parametrize(
    ("blocks", "message"),
    [
        ([3, 4], "network.blocks is .*; expected a list of 1, as stages"),
        ([], "network.blocks is .*; expected a list of 1, as stages"),
        ([65], "network.blocks is 65; expected an integer from 1 to 64"),
        (3, "network.blocks is 3; expected a list of at most 64"),
    ],
)
def test_blocks_of_a_bottleneck_network(blocks, message):
    net = BottleneckResNet(stages=(4,), blocks=(2,), classes=3)
    config = json.loads(json.dumps(architecture.to_config(net)))
    assert architecture.from_config(architecture.parse_config(config)).blocks == (2,)
    with pytest.raises(ArtefactError, match=message):
        architecture.parse_config({**config, "blocks": blocks})
