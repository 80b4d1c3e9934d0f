"""Extracted networks run as the network of their run, and can store their weights."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP, Masked, evaluate
from aslp_jax.artefact import embed, extract
from aslp_jax.methods import kernels
from aslp_jax.ops import convolution
from tests.artefact.networks import (
    ABOUT,
    IMAGE,
    KAIMING,
    SELECTING,
    SIGNED,
    TRAINING,
    again,
    assert_same,
    made_of,
    name_of,
    tiny,
    variables_of,
)

# One for each form of weights: signs and values, with a scale and without, ternary
# masks, and no frozen weights.
FORMS = [*SELECTING[:3], *SELECTING[4:6], TRAINING[1]]


@pytest.mark.slow
@pytest.mark.parametrize(("method", "init"), FORMS, ids=name_of)
def test_embedded_weights_are_equal_and_need_no_recipe(method, init):
    _, subnetwork = made_of(method, init)
    read = again(embed(subnetwork))
    for name, layer in read.layers.items():
        whole = subnetwork.layers[name]
        assert layer.recipe is None
        np.testing.assert_array_equal(layer.weights, whole.weights)
        if not kernels(name):
            assert layer.origin == "dense"
            continue
        assert layer.origin == ("values" if init is KAIMING else "signs")
        np.testing.assert_array_equal(layer.ternary_mask, whole.ternary_mask)
        assert layer.scale == whole.scale
        np.testing.assert_array_equal(layer.frozen, whole.frozen * whole.mask)
    assert_same(again(read), read)


@pytest.mark.slow
def test_bits_are_promised_where_the_convolution_is_that_of_the_platform(key):
    """The network is the user's own, wide enough for the platform's to differ."""
    images = np.random.default_rng(0).integers(0, 256, (64, *IMAGE), np.uint8)
    net = tiny(stages=(32,), hidden=(), bias_init=None)
    variables = variables_of(Masked(net, ASLP(logit_std=1.0)), key)
    platforms = convolution.of_platform(jax.default_backend())
    for conv, same in ((platforms, True), (None, False)):
        own = net.clone(conv_general_dilated=conv)
        model = Masked(own, ASLP(logit_std=1.0))
        read = again(extract(model, variables, ABOUT))
        wanted = evaluate.outputs(
            variables, jnp.asarray(images), model=model, prepare=read.prepare
        )
        assert jnp.ptp(wanted) > 0.1
        np.testing.assert_allclose(read(images), wanted, atol=1e-5)
        assert np.array_equal(read(images), wanted) == same


def test_images_are_prepared_as_they_were():
    _, subnetwork = made_of(ASLP(logit_std=1.0), KAIMING)
    images = np.random.default_rng(0).integers(0, 256, (4, *IMAGE), np.uint8)
    inputs = (images / np.float32(255) - np.float32(ABOUT.mean)) / np.float32(ABOUT.std)
    np.testing.assert_allclose(
        subnetwork(images), subnetwork(np.float32(inputs)), rtol=1e-4, atol=1e-5
    )
    plain = dataclasses.replace(
        subnetwork,
        description=dataclasses.replace(ABOUT, mean=None, std=None),
    )
    inputs = images / np.float32(255)
    np.testing.assert_allclose(
        plain(images), plain(np.float32(inputs)), rtol=1e-4, atol=1e-5
    )
    assert np.abs(plain(images) - subnetwork(images)).max() > 1e-3


@pytest.mark.parametrize(
    ("images", "error", "words"),
    [
        (np.zeros((1, 8, 8, 1), np.uint8), ValueError, r"\[batch, 8, 8, 3\]"),
        (np.zeros((8, 8, 3), np.uint8), ValueError, r"got shape \(8, 8, 3\)"),
        (np.zeros((0, *IMAGE), np.uint8), ValueError, "at least one"),
        (np.zeros((1, *IMAGE), np.int32), TypeError, "got int32"),
    ],
)
def test_other_images_are_refused(images, error, words):
    _, subnetwork = made_of(ASLP(logit_std=1.0), SIGNED)
    with pytest.raises(error, match=words):
        subnetwork(images)
