"""Extracted networks have the weights of their method, to the bit."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP, Masked, Signed, evaluate
from aslp_jax.artefact import ArtefactError, architecture, embed, extract
from aslp_jax.methods import ScaledMask, kernels
from aslp_jax.models import initialisers
from aslp_jax.models.bottleneck import BottleneckResNet
from aslp_jax.models.resnet import ResNet
from tests.artefact.networks import (
    ABOUT,
    BARE,
    IMAGE,
    KAIMING,
    SELECTING,
    SIGNED,
    SIGNED_VGG,
    TRAINING,
    again,
    assert_same,
    assert_same_bits,
    effective_of,
    made_of,
    name_of,
    named,
    tiny,
    variables_of,
)


@pytest.mark.slow
@pytest.mark.parametrize(("method", "init"), SELECTING + TRAINING, ids=name_of)
def test_weights_read_back_are_those_of_the_method(method, init):
    variables, subnetwork = made_of(method, init)
    read = again(subnetwork)
    effective = effective_of(method, variables)
    assert_same_bits(read.variables["params"], effective)
    assert_same(read, subnetwork)
    assert read.description == subnetwork.description
    for name, layer in read.layers.items():
        if not kernels(name):
            assert layer.mask is None and layer.ternary_mask is None
            continue
        np.testing.assert_array_equal(layer.mask, effective[name] != 0)
        np.testing.assert_array_equal(layer.ternary_mask != 0, layer.mask)
        assert 0 < layer.kept == layer.mask.sum() < layer.mask.size


@pytest.mark.slow
@pytest.mark.parametrize(("method", "init"), SELECTING, ids=name_of)
def test_weights_with_a_recipe_are_not_in_the_file(method, init):
    variables, subnetwork = made_of(method, init)
    frozen = named(variables["frozen"])
    known = {KAIMING: "kaiming_normal", SIGNED: "signed_constant"}
    for name, layer in again(subnetwork).layers.items():
        assert layer.origin == "recipe"
        assert layer.frozen.tobytes() == frozen[name].tobytes()
        wanted = known.get(init, "kaiming_constant")
        wanted = wanted if kernels(name) else "fan_in_uniform"
        assert layer.recipe.initialiser == wanted
        assert layer.recipe.draws_signs == (layer.magnitude is not None)
    assert list(subnetwork.layers) == list(frozen)


DEEP = [
    SIGNED_VGG,
    ResNet(
        stages=(4, 5),
        classes=3,
        conv_init=KAIMING,
        bias_init=initialisers.fan_in_uniform,
    ),
    BottleneckResNet(stages=(2, 3), blocks=(2, 1), classes=3, conv_init=SIGNED),
    BARE,
]


@pytest.mark.slow
@pytest.mark.parametrize("net", DEEP, ids=["vgg", "resnet", "bottleneck", "bfloat16"])
def test_networks_of_every_family_run_as_they_did(net, key):
    model = Masked(net, Signed(logit_std=1.0))
    variables = variables_of(model, key)
    subnetwork = extract(model, variables, ABOUT, key=key)
    read = again(subnetwork)
    assert_same(read, subnetwork)
    rest = {name: variables[name] for name in variables if name == "batch_stats"}
    assert set(read.variables) == {"params", *rest}
    assert architecture.count_arrays(architecture.to_config(net)) == len(
        named(read.variables)
    )
    assert_same_bits({**read.variables, "params": {}}, {**rest, "params": {}})
    images = np.random.default_rng(0).integers(0, 256, (5, *IMAGE), np.uint8)
    model = Masked(read.net, model.method)
    own = evaluate.outputs(
        variables, jnp.asarray(images), model=model, prepare=read.prepare
    )
    assert own.dtype == jnp.float32 and jnp.ptp(own) > 0
    np.testing.assert_array_equal(read(images), own)
    # The network's own module gives the same, without `Masked`.
    weights = evaluate.effective_weights(
        variables["frozen"], variables["params"], None, method=model.method
    )
    inputs = read.prepare(jnp.asarray(images))
    apply = jax.jit(functools.partial(net.apply, train=False))
    plain = apply({"params": weights, **rest}, inputs)
    tolerance = 2e-2 * float(jnp.abs(plain).max())
    np.testing.assert_allclose(read(images), plain, atol=tolerance)


@pytest.mark.parametrize(
    "given",
    [None, jax.random.key(1), jax.random.key(20221016, impl="rbg")],
    ids=["none", "wrong", "rbg"],
)
def test_without_the_right_key_the_weights_are_in_the_file(given):
    method = ASLP(logit_std=1.0)
    variables, _ = made_of(method, KAIMING)
    model = Masked(tiny(KAIMING), method)
    read = again(extract(model, variables, ABOUT, key=given))
    effective = effective_of(method, variables)
    for name, layer in read.layers.items():
        assert layer.origin == ("values" if kernels(name) else "dense")
    for name, weights in named(read.variables["params"]).items():
        np.testing.assert_array_equal(weights, effective[name])


def test_a_layer_that_keeps_nothing_goes_the_same_way(key):
    model = Masked(tiny(), ASLP(logit_std=1.0))
    variables = variables_of(model, key)
    logits = variables["params"]["logits"]
    logits["Dense_0/kernel"] = jnp.full_like(logits["Dense_0/kernel"], -1.0)
    whole = extract(model, variables, ABOUT, key=key)
    for subnetwork in (whole, embed(whole)):
        assert_same(again(subnetwork), subnetwork)
        assert not again(subnetwork).layers["Dense_0/kernel"].weights.any()


@dataclasses.dataclass(frozen=True)
class Halved(ASLP):
    """A method whose scaled masks give twice its effective weights."""

    def effective_weights(self, frozen: Any, params: Any, *, key: Any = None) -> Any:
        whole = super().effective_weights(frozen, params, key=key)
        return jax.tree.map(lambda leaf: leaf * jnp.float32(0.5), whole)


@dataclasses.dataclass(frozen=True)
class Silent(ASLP):
    """A method without scaled masks."""

    def scaled_masks(self, frozen: Any, params: Any) -> dict[str, ScaledMask]:
        return {}


@pytest.mark.parametrize("kind", [Halved, Silent])
def test_weights_are_stored_where_scaled_masks_do_not_give_them(kind, key):
    method = kind(logit_std=1.0)
    model = Masked(tiny(KAIMING), method)
    variables = variables_of(model, key)
    effective = effective_of(method, variables)
    read = again(extract(model, variables, ABOUT, key=key))
    for name, weights in named(read.variables["params"]).items():
        np.testing.assert_array_equal(weights, effective[name])
        if kernels(name):
            assert read.layers[name].origin == "values"


@dataclasses.dataclass(frozen=True)
class Contradicting(ASLP):
    """A method whose effective weights are not 0 where its mask drops them."""

    def effective_weights(self, frozen: Any, params: Any, *, key: Any = None) -> Any:
        return frozen


def test_a_network_that_no_file_can_hold_is_refused(key):
    model = Masked(tiny(), Contradicting(logit_std=1.0))
    with pytest.raises(ArtefactError, match="'Conv_0/kernel' has weights other than 0"):
        extract(model, variables_of(model, key), ABOUT)

    model = Masked(tiny(), ASLP(logit_std=1.0))
    variables = variables_of(model, key)
    variables["params"]["scale"]["Conv_0/kernel"] = jnp.float32(jnp.inf)
    with pytest.raises(ArtefactError, match="Conv_0/kernel' must hold finite float32"):
        extract(model, variables, ABOUT)

    halves = jax.tree.map(
        lambda leaf: leaf.astype(jnp.float16), variables_of(model, key)
    )
    with pytest.raises(
        ArtefactError,
        match=r"has float16\[4\] at 'params/Conv_0/bias', where the network has fl",
    ):
        extract(model, halves, ABOUT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            {"classes": 4},
            r"described with outputs of \(4,\), where the network has outputs of \(3,",
        ),
        (
            {"image_shape": (16, 16, 3)},
            r"has float32\[64, 6\] at 'params/Dense_0/kernel', where the network has "
            r"float32\[256, 6\]",
        ),
        (
            {"image_shape": (1, 1, 3)},
            r"network takes no inputs of \(1, 1, 3\): ValueError: ConvNet: ",
        ),
    ],
)
def test_a_description_of_another_network_is_refused(change, words, key):
    model = Masked(tiny(), ASLP(logit_std=1.0))
    with pytest.raises(ArtefactError, match=words):
        extract(model, variables_of(model, key), dataclasses.replace(ABOUT, **change))


def test_arrays_that_the_network_does_not_have_are_refused(key):
    model = Masked(tiny(), ASLP(logit_std=1.0))
    variables = {**variables_of(model, key), "intermediates": {"x": (jnp.ones(2),)}}
    with pytest.raises(
        ArtefactError, match=r"at 'intermediates/x/0', where the network has nothing"
    ):
        extract(model, variables, ABOUT)
