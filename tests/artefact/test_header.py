"""Headers that cannot be true are refused before anything is made of them."""

import functools
import math
from collections.abc import Callable
from typing import Any

import pytest

from aslp_jax.artefact import ArtefactError
from aslp_jax.artefact.decoding import assemble, decode
from tests.artefact.networks import edited, file_of


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
    ("recipe", put("description", "mean")([10**400] * 3), "a number that float32 can"),
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
    ("signs", put("collections", 0, "name")("params/x"), "has the array 'params/x'"),
    (
        "signs",
        put("collections", 0, "data", "deflated")(False),
        r"has a segment of \d+ bytes where 16 are needed",
    ),
]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "change", "words"), HOSTILE)
def test_a_header_that_cannot_be_true_is_refused(kind, change, words):
    data = edited(file_of(kind), change)
    with pytest.raises(ArtefactError, match=words) as error:
        assemble(decode(data))
    assert str(error.value).isprintable() and len(str(error.value)) < 500
