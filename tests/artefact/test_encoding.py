"""Files hold a bit a weight, are consistent and appear whole or not at all."""

import dataclasses
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import aslp_jax
from aslp_jax import ASLP, models
from aslp_jax.artefact import (
    ArtefactError,
    Description,
    Subnetwork,
    WeightRecipe,
    architecture,
    load,
    save,
)
from aslp_jax.artefact.encoding import encode
from aslp_jax.artefact.subnetwork import make_layer_weights
from aslp_jax.artefact.weight_recipe import initialise
from tests.artefact.networks import (
    ABOUT,
    SIGNED,
    assert_same,
    assert_same_bits,
    made_of,
    tiny,
)


@pytest.mark.slow
def test_conv4_takes_a_bit_a_weight(tmp_path):
    """Its weights are signed constants; half of them are kept."""
    shape, rng = (32, 32, 3), np.random.default_rng(0)
    net = models.Conv4(classes=10, conv_init=SIGNED, dense_init=SIGNED)
    layers = {}
    for name, sizes in architecture.array_shapes(net, shape)["params"].items():
        words = rng.integers(0, 2**32, 2)
        recipe = WeightRecipe("signed_constant", (int(words[0]), int(words[1])))
        (frozen,) = initialise(recipe, sizes, np.float32(0.1))
        mask = rng.integers(0, 2, sizes, np.int8)
        layers[name] = make_layer_weights(
            name, frozen, ternary_mask=mask, scale=np.float32(1.1), recipe=recipe
        )
    arrays = {name: layer.weights for name, layer in layers.items()}
    params = flax.traverse_util.unflatten_dict(arrays, sep="/")
    about = Description("conv4", 10, shape, dataset="cifar10", method="aslp")
    path = tmp_path / "conv4.aslp"
    save(Subnetwork(net, {"params": params}, layers, about), path)
    weights = sum(array.size for array in arrays.values())
    assert weights == 2_425_024
    assert 8 * path.stat().st_size <= 1.03 * weights
    assert_same_bits(load(path).variables["params"], params)


@pytest.mark.parametrize(
    ("kind", "limit", "words"),
    [
        (
            "container",
            "LARGEST_FILE",
            r"takes \d+ bytes, more than an artefact can have",
        ),
        ("container", "LARGEST_HEADER", r"has a header of \d+ bytes, more than it can"),
        ("validation", "MOST_WEIGHTS", "holds 671 weights, more than 600"),
    ],
)
def test_nothing_is_written_beyond_the_limits(
    kind, limit, words, tmp_path, monkeypatch
):
    _, subnetwork = made_of(ASLP(logit_std=1.0), SIGNED)
    monkeypatch.setattr(f"aslp_jax.artefact.{kind}.{limit}", 600)
    with pytest.raises(
        ArtefactError, match=f"encode: the file could not be read, it {words}"
    ):
        save(subnetwork, tmp_path / "a.aslp")
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_written_whose_parts_do_not_fit_one_another():
    _, subnetwork = made_of(ASLP(logit_std=1.0), SIGNED)

    def refused(words: str, **changes: Any) -> None:
        with pytest.raises(ArtefactError, match=words):
            encode(dataclasses.replace(subnetwork, **changes))

    changed = jax.tree.map(lambda leaf: leaf, subnetwork.variables)
    changed["params"]["Conv_0"]["bias"] += jnp.float32(1)
    refused("variables and the layers differ in 'Conv_0/bias'", variables=changed)
    del changed["params"]["Conv_0"]["bias"]
    refused("variables and the layers differ in 'Conv_0/bias'", variables=changed)
    more = {**subnetwork.variables, "batch_stats": {"x": jnp.zeros(1)}}
    refused("it lists 9 arrays where its network has 8", variables=more)
    refused("it has the array", net=tiny(hidden=(7,)))
    about = dataclasses.replace(ABOUT, image_shape=(16, 16, 3))
    refused("it has the array", description=about)


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    _, subnetwork = made_of(ASLP(logit_std=1.0), SIGNED)
    path = tmp_path / "taken"
    path.mkdir()
    with pytest.raises(OSError):
        save(subnetwork, path)
    assert list(tmp_path.iterdir()) == [path] and list(path.iterdir()) == []
    file = tmp_path / "a.aslp"
    file.write_bytes(b"old")
    save(subnetwork, file)
    assert sorted(tmp_path.iterdir()) == [file, path]
    assert_same(load(file), subnetwork)
    assert aslp_jax.load is load
