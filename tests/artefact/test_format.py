"""The format is that of docs/artefact.md, and files of before are read."""

import functools
import math
import re
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
import scipy.special

from aslp_jax import ASLP, Masked, Signed
from aslp_jax.artefact import extract, load, save
from aslp_jax.artefact.decoding import read
from aslp_jax.artefact.encoding import encode
from aslp_jax.ops.threefry import bits_on_host
from tests.artefact.networks import (
    ABOUT,
    BARE,
    KAIMING,
    assert_same_bits,
    file_of,
    made_of,
    named,
    variables_of,
)
from tests.artefact.own import own, own_file
from tests.helpers import quick_only

ROOT = Path(__file__).parents[2]

STORED = ("values", "signs")
"""Files of format 1 whose weights are stored; made by the first version."""


@functools.cache
def reader_of_the_document() -> dict[str, Any]:
    """The names of the last block of code; the text says how long it is."""
    text = (ROOT / "docs" / "artefact.md").read_text()
    *_, block = re.findall(r"```python\n(.*?)```", text, re.S)
    assert 85 < len(block.splitlines()) < 98 and "Some ninety lines" in text
    names: dict[str, Any] = {}
    exec(block, names)
    return names


@pytest.mark.parametrize("kind", quick_only(["linen", "nnx", "plain", "half"], "linen"))
def test_the_reader_of_the_document_reads_format_2(kind, tmp_path):
    path = tmp_path / "a.aslp"
    path.write_bytes(own_file(kind))
    weights, others = reader_of_the_document()["read_arrays"](path)
    variables = dict(own(kind)[1].variables)
    params = variables.pop("params")
    for found, wanted in ((weights, named(params)), (others, named(variables))):
        assert set(found) == set(wanted)
        for name, array in wanted.items():
            single = array.astype(np.float32) if kind == "half" else array
            assert found[name].dtype == single.dtype
            np.testing.assert_array_equal(found[name], single)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["recipe", "values", "signs"])
def test_the_reader_of_the_document_reads_what_is_written(kind, tmp_path):
    names = reader_of_the_document()
    # The reader draws signs, not uniform biases.
    bare = Masked(BARE, Signed(logit_std=1.0))
    key, path = jax.random.key(1), tmp_path / "a.aslp"
    data = encode(extract(bare, variables_of(bare, key), ABOUT, key=key))
    path.write_bytes(data if kind == "recipe" else file_of(kind))
    collections = dict(load(path).variables)
    weights, others = names["read_arrays"](path)
    assert_same_bits(weights, named(collections.pop("params")))
    assert_same_bits(others, named(collections))
    assert bool(others) == (kind == "signs")
    path.write_bytes(file_of("normal"))
    with pytest.raises(ValueError, match="a recipe of fan_in_uniform, which is left"):
        names["read_arrays"](path)
    path.write_bytes(data[:-33] + data[-32:])
    with pytest.raises(AssertionError, match="damaged"):
        names["read_arrays"](path)


def test_the_document_says_how_weights_are_drawn():
    """The formulas of the two initialisers that are drawn in floating point."""
    layers = made_of(ASLP(logit_std=1.0), KAIMING)[1].layers
    for name in ("Conv_1/kernel", "Conv_1/bias"):
        layer = layers[name]
        words = bits_on_host(layer.recipe.key, layer.weights.size)
        share = (words >> np.uint32(9)) / 2**23
        least = 2**-24 - 1
        uniform = np.maximum(least, 2 * share + least)
        fan_in = math.prod(layers["Conv_1/kernel"].weights.shape[:-1])
        wanted = math.sqrt(2 / fan_in) * math.sqrt(2) * scipy.special.erfinv(uniform)
        if name.endswith("bias"):
            assert layer.recipe.fan_in == fan_in
            bound = 1 / math.sqrt(fan_in)
            wanted = np.maximum(-bound, 2 * bound * share - bound)
        np.testing.assert_allclose(layer.frozen.ravel(), wanted, rtol=1e-5, atol=1e-7)


def test_the_document_states_random_words():
    text = (ROOT / "docs" / "artefact.md").read_text()
    rows = re.findall(r"^\| (\d+), (\d+) \| (.*) \|$", text, re.M)
    assert len(rows) == 3
    for *key, words in rows:
        found = bits_on_host(np.array(key, np.uint32), 3)
        assert words == ", ".join(f"`{word:08x}`" for word in found)


@pytest.mark.parametrize(
    "file",
    [
        "results/exports/conv4-cifar10-keep10.aslp",
        "examples/embedded/digits.aslp",
        *(f"tests/artefact/format1/{kind}.aslp" for kind in ("recipe", *STORED)),
    ],
)
def test_a_file_of_before_is_read_and_written_with_equal_bytes(file, tmp_path):
    save(load(ROOT / file), tmp_path / "again.aslp")
    assert (tmp_path / "again.aslp").read_bytes() == (ROOT / file).read_bytes()


def test_weights_drawn_in_floating_point_are_named_in_a_file_of_before():
    """Another device or compiler may not draw the same last bits."""
    contents = read(ROOT / "tests/artefact/format1/normal.aslp")
    drawn = {array.recipe.initialiser for array in contents.header.arrays}
    assert drawn == {"kaiming_normal", "fan_in_uniform"}
    assert contents.ternary_masks["Conv_0/kernel"].shape == (3, 3, 3, 4)
