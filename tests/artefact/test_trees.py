"""Bare pytrees of arrays, with and without masks."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP
from aslp_jax.artefact import ArtefactError, load, save
from aslp_jax.artefact.packing import DTYPES
from tests.artefact.networks import header_of, tiny
from tests.artefact.own import own


@pytest.fixture
def path(tmp_path):
    return tmp_path / "a.aslp"


@jax.tree_util.register_dataclass
@dataclasses.dataclass
class Layer:
    """A node as Equinox has them."""

    kernel: Any
    bias: Any


def assert_equal(one: Any, other: Any) -> None:
    assert jax.tree.structure(one) == jax.tree.structure(other)
    pairs = zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True)
    for found, wanted in pairs:
        assert found.dtype == wanted.dtype and found.shape == wanted.shape
        assert np.asarray(found).tobytes() == np.asarray(wanted).tobytes()


def test_arrays_of_every_dtype_and_of_no_axes_come_back(path):
    rng = np.random.default_rng(0)
    tree = {
        "by/dtype": {
            name: jnp.asarray(rng.integers(0, 2, (2, 3))).astype(name)
            for name in DTYPES
        },
        "scalar": jnp.float32(0.25),
        "same": jnp.full(5, -0.5, jnp.bfloat16),
    }
    save(tree, path)
    assert_equal(load(path), tree)
    arrays = {
        array["path"][-1]: array for array in header_of(path.read_bytes())["arrays"]
    }
    assert arrays["same"]["origin"] == "signs" and arrays["same"]["magnitude"] == 0.5


def test_masks_take_a_bit_a_weight(path):
    """The subnetwork of a method, without any network."""
    method, key = ASLP(logit_std=1.0), jax.random.key(0)
    weights = {
        "layer": {"kernel": jax.random.normal(key, (64, 64)), "bias": jnp.ones(64)}
    }
    frozen, params = method.init(key, weights)
    effective = method.effective_weights(frozen, params)
    masks = method.masks(frozen, params)
    save(effective, path, masks=masks)
    plain = jax.tree.map(lambda leaf: leaf + jnp.zeros(()), effective)  # 0 for -0
    assert_equal(load(path), plain)
    (kernel,) = (e for e in header_of(path.read_bytes())["arrays"] if e["mask"])
    kept = int(masks["layer/kernel"].sum())
    assert kernel["origin"] == "values" and kernel["mask"]["bytes"] == 64 * 64 // 8
    assert kernel["data"]["bytes"] <= 4 * kept


def test_a_tree_of_any_structure_comes_back_like_one(path):
    tree = [Layer(jnp.ones((2, 3)), None), (jnp.zeros(3), {"x": jnp.arange(3)})]
    save(tree, path)
    assert_equal(load(path, like=jax.eval_shape(lambda: tree)), tree)
    nested = load(path)
    assert set(nested) == {"0", "1"} and nested["0"]["kernel"].shape == (2, 3)
    with pytest.raises(
        ArtefactError,
        match=r"a.aslp has nothing at '0/0', where the tree given has float32\[3\]",
    ):
        load(path, like=tree[1:])
    tree[0].kernel = jnp.ones((2, 4))
    with pytest.raises(
        ArtefactError, match=r"'0/kernel', where .* has float32\[2, 4\]"
    ):
        load(path, like=tree)
    with pytest.raises(ArtefactError, match="holds a bare pytree, not a network"):
        load(path, net=tiny())


@pytest.mark.parametrize(
    ("tree", "masks", "words"),
    [
        ({"x": np.ones(3)}, {}, r"'x' must hold finite numbers of .*float64\[3\]"),
        ({"x": jnp.full(3, jnp.inf)}, {}, "'x' must hold finite numbers"),
        ({"x": jnp.ones(3)}, {"y": np.ones(3)}, "the mask 'y' has shape .* is missing"),
        ({"x": jnp.ones(3)}, {"x": np.ones(2)}, r"'x' has shape \(2,\), .* \(3,\)"),
        (
            {"x": jnp.ones(3)},
            {"x": np.array([True, False, True])},
            "'x' has weights other than 0 where its mask drops them; give the effe",
        ),
        (
            {"x": jnp.ones(3, jnp.int32)},
            {"x": np.ones(3)},
            "int32 .*cannot have a mask",
        ),
        ({"a/b": jnp.ones(3), "a": {"b": jnp.ones(2)}}, {}, "two arrays .* 'a/b'"),
        ({"x": jnp.ones((3, 0))}, {}, "shape is 0; expected an integer from 1"),
        ({"": jnp.ones(3)}, {}, "path is .*; expected texts that are not empty"),
        (jnp.ones(3), {}, "path is .*; expected texts that are not empty"),
    ],
)
def test_trees_that_no_file_can_hold_are_refused(tree, masks, words, path):
    with pytest.raises(ArtefactError, match=words):
        save(tree, path, masks=masks)
    assert not path.exists()


def test_a_network_has_its_own_masks(path):
    with pytest.raises(TypeError, match="a Subnetwork has its own masks"):
        save(own("half")[1], path, masks={})
