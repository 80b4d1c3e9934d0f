"""The network as a file: the same weights to the bit, and nothing else is let in.

Long, because each way in which a file can be wrong is tried, one by one and at random,
on the few files that are made here once.
"""

import copy
import dataclasses
import functools
import hashlib
import json
import math
import os
import re
import struct
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import flax.traverse_util
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special

import aslp_jax
from aslp_jax import (
    ASLP,
    Budget,
    EdgePopup,
    Magnitude,
    Masked,
    Signed,
    Supermask,
    evaluate,
    models,
)
from aslp_jax.artefact import (
    ArtefactError,
    Description,
    Subnetwork,
    architecture,
    container,
    embed,
    extract,
    header,
    load,
    save,
)
from aslp_jax.artefact.decoding import assemble, decode
from aslp_jax.artefact.encoding import encode
from aslp_jax.artefact.subnetwork import make_layer_weights
from aslp_jax.methods import ScaledMask, kernels
from aslp_jax.models import initialisers
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG
from aslp_jax.ops import convolution
from aslp_jax.ops.threefry import bits_on_host

KAIMING = initialisers.kaiming_normal()
SIGNED = initialisers.signed_constant(KAIMING)
CONSTANT = initialisers.kaiming_constant()
IMAGE = (8, 8, 3)
ABOUT = Description(
    arch="tiny",
    classes=3,
    image_shape=IMAGE,
    mean=(0.5, 0.4, 0.3),
    std=(0.2, 0.21, 0.22),
    dataset="noise",
    method="some",
    seed=7,
    accuracies={"thresholding": 0.625, "averaging_mean": 0.1},
)

SELECTING = [
    (ASLP(logit_std=1.0), SIGNED),
    (ASLP(logit_std=1.0), KAIMING),
    (ASLP(rescale="none", logit_std=1.0), CONSTANT),
    (Supermask(logit_std=1.0), KAIMING),
    (Signed(logit_std=1.0), SIGNED),
    (Signed(logit_std=1.0, rescale="none"), KAIMING),
    (EdgePopup(0.3), SIGNED),
    (EdgePopup(0.3, rescale="fan"), KAIMING),
]
TRAINING = [(Budget(0.2), KAIMING), (Magnitude(0.2), KAIMING)]


def name_of(value: Any) -> str:
    names = {KAIMING: "normal", SIGNED: "signed", CONSTANT: "constant"}
    if isinstance(value, Callable):
        return names[value]
    rescale = getattr(value, "rescale", "")
    return f"{type(value).__name__}-{rescale}".rstrip("-")


def tiny(init: Any = SIGNED, **options: Any) -> models.ConvNet:
    defaults: dict[str, Any] = {
        "stages": (4,),
        "hidden": (6,),
        "classes": 3,
        "conv_init": init,
        "dense_init": init,
        "bias_init": initialisers.fan_in_uniform,
    }
    return models.ConvNet(**{**defaults, **options})


def draw(model: Masked, key: jax.Array, image: tuple[int, ...] = IMAGE) -> Any:
    """Variables as they may be after training: scales and statistics have moved."""
    made = dict(drawn_plain(model.net, image)(key))
    frozen, params = model.method.init(key, made.pop("frozen"))
    if "scale" in params:
        values = np.random.default_rng(3).uniform(0.5, 1.5, len(params["scale"]))
        params["scale"] = {
            name: jnp.float32(value)
            for name, value in zip(params["scale"], values, strict=True)
        }
    rest = {name: each for name, each in made.items() if name == "batch_stats"}
    rest = jax.tree.map(lambda each: each + jnp.float32(0.3), rest)
    return {"frozen": frozen, "params": params, **rest}


@functools.cache
def drawn_plain(net: Any, image: tuple[int, ...]) -> Callable[[jax.Array], Any]:
    """What draws the weights of a network as any `Masked` does, compiled once."""
    init = functools.partial(Masked(net, ASLP()).init, train=False)
    return jax.jit(lambda key: init(key, jnp.zeros((1, *image))))


@functools.cache
def made_of(method: Any, init: Any = SIGNED) -> tuple[Any, Subnetwork]:
    """Variables of a tiny network, and what is extracted of them."""
    model, key = Masked(tiny(init), method), jax.random.key(20221016)
    variables = draw(model, key)
    return variables, extract(model, variables, ABOUT, key=key)


def effective_of(method: Any, variables: Any) -> dict[str, np.ndarray]:
    """What a method realises, but for the sign of a 0, which compilers choose."""
    frozen, params = variables.get("frozen", {}), variables["params"]
    weights = named(evaluate.effective_weights(frozen, params, None, method=method))
    return {name: each + np.float32(0) for name, each in weights.items()}


def again(subnetwork: Subnetwork) -> Subnetwork:
    return assemble(decode(encode(subnetwork)))


def named(tree: Any) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): np.asarray(leaf)
        for path, leaf in leaves
    }


def assert_same_bits(one: Any, other: Any) -> None:
    one, other = named(one), named(other)
    assert list(one) == list(other)
    for name in one:
        assert one[name].dtype == other[name].dtype == np.float32
        assert one[name].tobytes() == other[name].tobytes(), name


def assert_same(one: Subnetwork, other: Subnetwork) -> None:
    """All but the description: weights, parts and the network."""
    assert_same_bits(one.variables, other.variables)
    assert list(one.entries) == list(other.entries)
    for name, entry in one.entries.items():
        for field in dataclasses.fields(entry):
            found, wanted = (
                getattr(each, field.name) for each in (entry, other.entries[name])
            )
            assert type(found) is type(wanted), (name, field.name)
            np.testing.assert_array_equal(found, wanted, err_msg=name)
        assert entry.origin == other.entries[name].origin


@pytest.mark.parametrize(("method", "init"), SELECTING + TRAINING, ids=name_of)
def test_weights_read_back_are_those_of_the_method(method, init):
    variables, subnetwork = made_of(method, init)
    read = again(subnetwork)
    effective = effective_of(method, variables)
    assert_same_bits(read.variables["params"], effective)
    assert_same(read, subnetwork)
    assert read.description == subnetwork.description
    for name, entry in read.entries.items():
        if not kernels(name):
            assert entry.mask is None and entry.factors is None
            continue
        np.testing.assert_array_equal(entry.mask, effective[name] != 0)
        np.testing.assert_array_equal(entry.factors != 0, entry.mask)
        assert 0 < entry.kept == entry.mask.sum() < entry.mask.size


@pytest.mark.parametrize(("method", "init"), SELECTING, ids=name_of)
def test_what_is_drawn_from_a_key_is_not_in_the_file(method, init):
    variables, subnetwork = made_of(method, init)
    frozen = named(variables["frozen"])
    known = {KAIMING: "kaiming_normal", SIGNED: "signed_constant"}
    for name, entry in again(subnetwork).entries.items():
        assert entry.origin == "recipe"
        assert entry.frozen.tobytes() == frozen[name].tobytes()
        wanted = known.get(init, "kaiming_constant")
        wanted = wanted if kernels(name) else "fan_in_uniform"
        assert entry.recipe.initialiser == wanted
        assert entry.recipe.draws_signs == (entry.magnitude is not None)
    assert list(subnetwork.entries) == list(frozen)


@pytest.mark.parametrize(("method", "init"), SELECTING + TRAINING, ids=name_of)
def test_embedded_weights_are_equal_and_draw_nothing(method, init):
    _, subnetwork = made_of(method, init)
    read = again(embed(subnetwork))
    for name, entry in read.entries.items():
        whole = subnetwork.entries[name]
        assert entry.recipe is None
        np.testing.assert_array_equal(entry.weights, whole.weights)
        if not kernels(name):
            assert entry.origin == "dense"
            continue
        assert entry.origin == ("values" if init is KAIMING else "signs")
        np.testing.assert_array_equal(entry.factors, whole.factors)
        assert entry.scale == whole.scale
        np.testing.assert_array_equal(entry.frozen, whole.frozen * whole.mask)
    assert_same(again(read), read)


@pytest.mark.parametrize("init", [SIGNED, KAIMING], ids=name_of)
def test_conv4_takes_a_bit_a_weight(init, key, tmp_path):
    net = models.Conv4(classes=10, conv_init=init, dense_init=init)
    model = Masked(net, ASLP(logit_std=1.0))
    variables = draw(model, key, (32, 32, 3))
    about = Description("conv4", 10, (32, 32, 3), dataset="cifar10", method="aslp")
    path = tmp_path / "conv4.aslp"
    save(extract(model, variables, about, key=key), path)
    weights = sum(leaf.size for leaf in jax.tree.leaves(variables["frozen"]))
    assert weights == 2_425_024
    assert 8 * path.stat().st_size <= 1.03 * weights
    read = load(path)
    effective = effective_of(model.method, variables)
    assert_same_bits(read.variables["params"], effective)


def test_bits_are_promised_where_the_convolution_is_that_of_the_platform(key):
    """The network is the user's own, wide enough for the platform's to differ."""
    images = np.random.default_rng(0).integers(0, 256, (64, *IMAGE), np.uint8)
    net = tiny(stages=(32,), hidden=(), bias_init=None)
    variables = draw(Masked(net, ASLP(logit_std=1.0)), key)
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


DEEP = [
    VGG(stages=((4, 5), (6,)), classes=3, conv_init=SIGNED, dense_init=SIGNED),
    ResNet(
        stages=(4, 5),
        classes=3,
        conv_init=KAIMING,
        bias_init=initialisers.fan_in_uniform,
    ),
    tiny(hidden=(), bias_init=None, dtype=jnp.dtype("bfloat16")),
]


@pytest.mark.parametrize("net", DEEP, ids=["vgg", "resnet", "bfloat16"])
def test_networks_of_every_family_run_as_they_did(net, key):
    model = Masked(net, Signed(logit_std=1.0))
    variables = draw(model, key)
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
    # The network is the one that was extracted, whatever drew its weights.
    weights = evaluate.effective_weights(
        variables["frozen"], variables["params"], None, method=model.method
    )
    inputs = read.prepare(jnp.asarray(images))
    plain = net.apply({"params": weights, **rest}, inputs, train=False)
    tolerance = 2e-2 * float(jnp.abs(plain).max())
    np.testing.assert_allclose(read(images), plain, atol=tolerance)


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


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
@pytest.mark.parametrize("count", [1, 7, 40_000])
def test_words_are_those_of_jax(seed, count):
    key = jax.random.split(jax.random.key(seed))[1]
    first, second = map(int, jax.random.key_data(key))
    with jax.threefry_partitionable(True):
        wanted = jax.random.bits(key, (count,))
    np.testing.assert_array_equal(bits_on_host((first, second), count), wanted)


@pytest.mark.parametrize("kind", ["none", "wrong", "rbg"])
def test_without_the_right_key_the_weights_are_in_the_file(kind, key):
    model = Masked(tiny(KAIMING), ASLP(logit_std=1.0))
    right = jax.random.key(0, impl="rbg") if kind == "rbg" else key
    variables = draw(model, right)
    given = {"none": None, "wrong": jax.random.key(1), "rbg": right}[kind]
    subnetwork = extract(model, variables, ABOUT, key=given)
    effective = effective_of(model.method, variables)
    for entry in again(subnetwork).entries.values():
        assert entry.origin == ("values" if kernels(entry.name) else "dense")
    for name, weights in named(again(subnetwork).variables["params"]).items():
        np.testing.assert_array_equal(weights, effective[name])


def test_a_layer_that_keeps_nothing_goes_the_same_way(key):
    model = Masked(tiny(), ASLP(logit_std=1.0))
    variables = draw(model, key)
    logits = variables["params"]["logits"]
    logits["Dense_0/kernel"] = jnp.full_like(logits["Dense_0/kernel"], -1.0)
    whole = extract(model, variables, ABOUT, key=key)
    for subnetwork in (whole, embed(whole)):
        assert_same(again(subnetwork), subnetwork)
        assert not again(subnetwork).entries["Dense_0/kernel"].weights.any()


@dataclasses.dataclass(frozen=True)
class Halved(ASLP):
    """Says less than it does: its weights are half of what the factors give."""

    def effective_weights(self, frozen: Any, params: Any, *, key: Any = None) -> Any:
        whole = super().effective_weights(frozen, params, key=key)
        return jax.tree.map(lambda leaf: leaf * jnp.float32(0.5), whole)


@dataclasses.dataclass(frozen=True)
class Silent(ASLP):
    """Answers nothing about its factors, as a method of one's own may."""

    def scaled_masks(self, frozen: Any, params: Any) -> dict[str, ScaledMask]:
        return {}


@pytest.mark.parametrize("kind", [Halved, Silent])
def test_weights_are_kept_where_factors_do_not_give_them(kind, key):
    method = kind(logit_std=1.0)
    model = Masked(tiny(KAIMING), method)
    variables = draw(model, key)
    effective = effective_of(method, variables)
    read = again(extract(model, variables, ABOUT, key=key))
    for name, weights in named(read.variables["params"]).items():
        np.testing.assert_array_equal(weights, effective[name])
        if kernels(name):
            assert read.entries[name].origin == "values"


@dataclasses.dataclass(frozen=True)
class Contradicting(ASLP):
    """Says of weights that it drops them and keeps them all."""

    def effective_weights(self, frozen: Any, params: Any, *, key: Any = None) -> Any:
        return frozen


def test_what_no_file_can_hold_is_refused(key):
    model = Masked(tiny(), Contradicting(logit_std=1.0))
    with pytest.raises(ArtefactError, match="'Conv_0/kernel' has weights other than 0"):
        extract(model, draw(model, key), ABOUT)

    model = Masked(tiny(), ASLP(logit_std=1.0))
    variables = draw(model, key)
    variables["params"]["scale"]["Conv_0/kernel"] = jnp.float32(jnp.inf)
    with pytest.raises(ArtefactError, match="Conv_0/kernel' must hold finite float32"):
        extract(model, variables, ABOUT)

    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.float16), draw(model, key))
    with pytest.raises(ArtefactError, match="must hold finite float32 numbers, got fl"):
        extract(model, halves, ABOUT)

    import flax.linen as nn

    class Other(nn.Module):
        @nn.compact
        def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
            return nn.Dense(3)(x.reshape(x.shape[0], -1))

    model = Masked(Other(), ASLP())
    with pytest.raises(
        ArtefactError, match="name the network Other; expected one of C"
    ):
        extract(model, draw(model, key), ABOUT)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accuracies": {"thresholding": 1.5}}, "accuracies 'thresholding' is 1.5"),
        ({"accuracies": {"thresholding": math.nan}}, "'thresholding' is nan"),
        ({"accuracies": [0.5]}, r"accuracies is \(0.5,\); expected an object"),
        ({"arch": "conv\n4"}, "description.arch is .*printable"),
        ({"method": ASLP()}, "description.method is ASLP"),
        ({"classes": 3.0}, "description.classes is 3.0; expected a whole number"),
        ({"image_shape": (8, 8)}, r"image_shape is \(8, 8\); expected a list of at"),
        ({"image_shape": "abc"}, "image_shape is 'abc'"),
        (
            {"seed": -1},
            "description.seed is -1; expected a whole number from 0 to 1844",
        ),
        ({"seed": True}, "description.seed is True"),
        ({"mean": None}, "description.mean is None; expected 3 numbers"),
        ({"std": None}, "description.std is None; expected 3 numbers"),
        ({"mean": (0.5,), "std": (0.5,)}, "description.mean is .*3 numbers, one for e"),
        ({"mean": ("0.5",) * 3}, "description.mean is '0.5'"),
        ({"std": (0.0, 1.0, 1.0)}, "description.std is .* at least 2^-126"),
        ({"std": (1e-50, 1.0, 1.0)}, "description.std is .* at least 2^-126"),
    ],
)
def test_a_description_holds_only_what_a_file_can_say(change, words):
    with pytest.raises(ArtefactError, match=words.replace("^", r"\^")):
        dataclasses.replace(ABOUT, **change)


def test_a_description_takes_the_numbers_of_others():
    about = Description(
        arch=np.str_("tiny"),
        classes=np.int64(3),
        image_shape=list(IMAGE),
        mean=np.float32([0.5, 0.25, 0.125]),
        std=[1, jnp.float32(0.5), 0.5],
        seed=np.int64(7),
        accuracies={"thresholding": np.float32(0.625), "single": 1},
    )
    plain = Description(
        arch="tiny",
        classes=3,
        image_shape=IMAGE,
        mean=(0.5, 0.25, 0.125),
        std=(1.0, 0.5, 0.5),
        seed=7,
        accuracies={"thresholding": 0.625, "single": 1.0},
    )
    assert repr(about) == repr(plain)
    _, subnetwork = made_of(ASLP(logit_std=1.0), SIGNED)
    read = again(dataclasses.replace(subnetwork, description=about))
    assert read.description == plain


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": 4}, "the network has 3 classes, and its description 4"),
        (
            {"image_shape": (16, 16, 3)},
            r"'params/Dense_0/kernel' has shape \(64, 6\), where the network for "
            r"images of \(16, 16, 3\) has \(256, 6\)",
        ),
        ({"image_shape": (1, 1, 3)}, r"takes no images of \(1, 1, 3\): ConvNet: "),
    ],
)
def test_a_description_of_another_network_is_refused(change, words, key):
    model = Masked(tiny(), ASLP(logit_std=1.0))
    with pytest.raises(ArtefactError, match=words):
        extract(model, draw(model, key), dataclasses.replace(ABOUT, **change))


def test_arrays_that_the_network_does_not_have_are_refused(key):
    model = Masked(tiny(), ASLP(logit_std=1.0))
    variables = {**draw(model, key), "intermediates": {"x": (jnp.ones(2),)}}
    with pytest.raises(
        ArtefactError, match=r"'intermediates/x/0' has shape .* has none"
    ):
        extract(model, variables, ABOUT)


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
        ArtefactError, match=f"encode: cannot be read again, it {words}"
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
    refused("variables and the entries differ in 'Conv_0/bias'", variables=changed)
    del changed["params"]["Conv_0"]["bias"]
    refused("variables and the entries differ in 'Conv_0/bias'", variables=changed)
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


def sealed(data: bytes) -> bytes:
    """The bytes without their checksum, with the right one behind them."""
    return data + hashlib.sha256(data).digest()


def header_of(data: bytes) -> dict[str, Any]:
    return container.unpack(data)[0]


def rewritten(data: bytes, text: bytes) -> bytes:
    """The file with another header, its length and checksum as they should be."""
    size = struct.unpack_from("<I", data, 12)[0]
    body = data[16 + size : -32]
    return sealed(data[:12] + struct.pack("<I", len(text)) + text + body)


def edited(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    header = header_of(data)
    change(header)
    return rewritten(data, json.dumps(header).encode())


@functools.cache
def file_of(kind: str) -> bytes:
    """A file of each kind of section, all of networks that are quickly read."""
    if kind == "drawn":  # masks, inverted bits
        return encode(made_of(Signed(logit_std=1.0), SIGNED)[1])
    if kind == "normal":
        return encode(made_of(ASLP(logit_std=1.0), KAIMING)[1])
    if kind == "values":  # kept values, dense biases
        return encode(embed(made_of(ASLP(logit_std=1.0), KAIMING)[1]))
    # Kept signs, dense normalisations, and batch statistics.
    net = VGG(stages=((3,), (4,)), classes=3, conv_init=SIGNED, dense_init=SIGNED)
    model, key = Masked(net, ASLP(logit_std=1.0)), jax.random.key(1)
    return encode(embed(extract(model, draw(model, key), ABOUT, key=key)))


def test_the_files_hold_every_kind_of_section():
    found = [header_of(file_of(kind)) for kind in ("drawn", "values", "signs")]
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


def test_weights_that_are_not_drawn_again_are_refused_with_the_way_out(tmp_path):
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
def test_nobody_is_blamed_where_signs_are_not_those_that_were_drawn(change):
    """They are drawn in integers, the same everywhere: the file itself is wrong."""
    with pytest.raises(
        ArtefactError, match="its mask, scale, magnitude or key"
    ) as error:
        assemble(decode(edited(file_of("drawn"), change)))
    assert str(error.value).startswith(
        "has 'Conv_0/kernel' with weights of another sha"
    )
    assert "jax" not in str(error.value)


def test_a_float32_may_be_written_in_few_digits():
    data = file_of("drawn")

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


def put(*path: Any) -> Callable[[Any], Callable[[Any], None]]:
    """A change of a header: another value at a place in it."""

    def to(value: Any) -> Callable[[Any], None]:
        def change(header: Any) -> None:
            *way, last = path
            functools.reduce(lambda found, step: found[step], way, header)[last] = value

        return change

    return to


MASK, DATA = ("arrays", 1, "mask"), ("arrays", 1, "data")
HOSTILE = [
    ("drawn", put("network", "family")("Net"), "network.family is 'Net'; expected"),
    ("drawn", put("network", "family")(["ConvNet"]), "network.family is"),
    (
        "drawn",
        put("network", "stages")([5]),
        r"has the array \('Conv_0/bias', \(4,\)\)",
    ),
    ("drawn", put("network", "stages")([2**40]), "a whole number from 1 to 65536"),
    ("drawn", put("network", "stages")([1] * 65), "a list of at most 64"),
    ("drawn", put("network", "stages")([1] * 60), "lists 8 arrays where its network h"),
    (
        "drawn",
        put("network", "image_shape")([1, 9, 3]),
        "names a network that cannot be",
    ),
    ("signs", put("network", "stages")([]), "stages is .*a list of at least 1"),
    ("drawn", put("network", "stages")([]), "a list of at least 1"),
    ("signs", put("network", "stages")([3, 4]), "stages is 3; expected a list"),
    ("drawn", put("network", "classes")(True), "network.classes is True"),
    ("drawn", put("network", "biases")(0), "network.biases is 0; expected true or fa"),
    ("drawn", put("network", "biases")(False), "where its network has"),
    ("drawn", put("network", "dtype")("float64"), "one of float32, bfloat16"),
    ("drawn", put("network", "image_shape")([8, 8]), "a list of at least 3"),
    ("drawn", put("generator")("rbg"), "generator is 'rbg'; expected one of threefry"),
    ("drawn", put("more")(1), "whose top holds .*more"),
    ("drawn", put("description", "std")([1, 1]), "description.std"),
    ("drawn", put("description", "std")([1, 1, 0]), "description.std"),
    ("drawn", put("description", "std")([1, 1, 1e-50]), "description.std"),
    ("drawn", put("description", "mean")(None), "description.mean is None"),
    ("drawn", put("description", "mean")([10**400] * 3), "a number that float32 can"),
    ("drawn", put("description", "seed")(-1), "description.seed is -1"),
    ("drawn", put("description", "arch")("\x1b[2J"), "printable characters"),
    ("drawn", put("description", "arch")("\ud800"), "printable characters"),
    ("drawn", put("description", "method")("x" * 201), "at most 200"),
    ("drawn", put("description", "accuracies", "x")(1.1), "'x' is 1.1; expected a num"),
    ("drawn", put("description", "accuracies")([]), "an object of at most 16 entries"),
    ("drawn", put("description", "versions", "x\n")("1"), "printable characters"),
    ("drawn", put("arrays")({}), "arrays is {}; expected a list"),
    (
        "drawn",
        put("arrays", 1, "name")("../../etc/passwd"),
        "has the array .'../../etc",
    ),
    ("drawn", put("arrays", 1, "name")("Conv_0/bias"), "has the array .'Conv_0/bias'"),
    ("drawn", put("arrays", 1, "name")("Conv_0\x00"), "printable characters"),
    ("drawn", put("arrays", 1, "shape")([3, 3, 3, -4]), "is -4; expected a whole"),
    ("drawn", put("arrays", 1, "shape")([3, 3, 3, 2**60]), "a whole number from 1 to"),
    (
        "drawn",
        put("arrays", 1, "shape")([108]),
        "has the array .'Conv_0/kernel', .108,",
    ),
    ("drawn", put("arrays", 1, "shape")([3, 3, 3, 4.0]), "is 4.0; expected a whole"),
    ("drawn", put("arrays", 1, "sha256")("0" * 63), "64 hexadecimal digits"),
    ("drawn", put("arrays", 1, "scale")("1"), "scale is '1'"),
    ("drawn", put("arrays", 1, "scale")(math.nan), "holds NaN, which is no number"),
    ("drawn", put("arrays", 1, "scale")(-math.inf), "holds -Infinity"),
    ("drawn", put("arrays", 1, "scale")(1e39), "a number that float32 can hold"),
    ("drawn", put("arrays", 1, "scale")(2.0**127), "weights of another sha256; their"),
    ("drawn", put("arrays", 0, "scale")(1.0), "and no mask cannot have a scale"),
    ("drawn", put("arrays", 1, "magnitude")(-1.0), "a number above 0"),
    ("drawn", put("arrays", 1, "magnitude")(1e-50), "a number above 0"),
    ("drawn", put("arrays", 1, "magnitude")(None), "origin recipe lacks a magnitude"),
    ("drawn", put("arrays", 1, "origin")("values"), "origin values cannot have a rec"),
    ("drawn", put("arrays", 1, "origin")("seed"), "one of recipe, signs, values, den"),
    ("drawn", put("arrays", 1, "recipe")(None), "lacks a recipe"),
    ("drawn", put("arrays", 1, "recipe", "key")([1, 2, 3]), "expected a list of"),
    ("drawn", put("arrays", 1, "recipe", "key")([1, 2**32]), "a whole number from 0"),
    ("drawn", put("arrays", 1, "recipe", "key")([1, -1]), "a whole number from 0"),
    ("drawn", put("arrays", 1, "recipe", "initialiser")("zeros"), "one of kaiming_no"),
    ("drawn", put("arrays", 1, "recipe", "fan_in")(27), "what signed_constant draws f"),
    ("drawn", put("arrays", 0, "recipe", "fan_in")(0), "a whole number from 1"),
    ("drawn", put("arrays", 0, "recipe", "fan_in")(None), "what fan_in_uniform draws"),
    (
        "normal",
        put("arrays", 0, "recipe")(
            {"initialiser": "kaiming_normal", "key": [1, 2], "fan_in": None}
        ),
        r"arrays\[0\].shape is \(4,\); expected the two axes that kaiming_normal needs",
    ),
    ("drawn", put(*MASK, "bytes")(-1), "a whole number from 0"),
    ("drawn", put(*MASK, "bytes")(2**39), "declares sections of 549755814"),
    ("drawn", put(*MASK, "bytes")(13), "declares sections of"),
    ("drawn", put(*MASK, "deflated")(True), "cannot be inflated"),
    ("drawn", put(*MASK, "deflated")(1), "expected true or false"),
    ("drawn", put(*MASK)(None), "and no mask cannot have"),
    ("values", put(*DATA)(None), "lacks a data"),
    (
        "values",
        put("arrays", 0, "mask")({"bytes": 0, "deflated": False}),
        "cannot have",
    ),
    ("signs", put("collections")([]), "lists 7 arrays where its network has 11"),
    ("signs", put("collections", 0, "name")("params/x"), "has the array 'params/x'"),
    ("signs", put("collections", 0, "data", "deflated")(True), "inflate"),
]


@pytest.mark.parametrize(("kind", "change", "words"), HOSTILE)
def test_a_header_that_cannot_be_true_is_refused(kind, change, words):
    data = edited(file_of(kind), change)
    with pytest.raises(ArtefactError, match=words) as error:
        assemble(decode(data))
    assert str(error.value).isprintable() and len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"{}", r"whose top holds \[\]; expected"),
        (b"[]", "is no JSON object"),
        (b"", "cannot be parsed"),
        (b"\xff", "cannot be parsed"),
        (b"[" * 500_000, "cannot be parsed"),
        (b'{"a": 1, "a": 1}', "says something twice"),
        (b'{"a": ' + b"9" * 5000 + b"}", "cannot be parsed"),
        (b" " * (2 << 20), "declares a header of 2097152 bytes, more than it can"),
    ],
)
def test_a_header_that_is_none_is_refused(text, words):
    with pytest.raises(ArtefactError, match=words):
        decode(rewritten(file_of("drawn"), text))


def test_what_is_no_artefact_says_so(tmp_path):
    data = file_of("drawn")
    path = tmp_path / "a.aslp"
    for content, words in (
        (b"", "is no artefact"),
        (b"PK\x03\x04 something else", "is no artefact"),
        (data.replace(b"\r\n", b"\n"), "is no artefact"),
        (data[:20], "is cut short: 20 bytes"),
        (data[:-1], "is damaged or cut short: its checksum"),
        (data + b"\0", "is damaged or cut short"),
        (
            sealed(data[:8] + struct.pack("<I", 2) + data[12:-32]),
            "is of format 2; this",
        ),
        (
            sealed(data[:8] + struct.pack("<I", 0) + data[12:-32]),
            "is of format 0; this",
        ),
        (sealed(data[:12] + b"\xff\xff\xff\xff" + data[16:-32]), "a header of 429496"),
    ):
        path.write_bytes(content)
        with pytest.raises(ArtefactError, match=words) as error:
            load(path)
        assert str(error.value).startswith(f"{path} ")
    with pytest.raises(ArtefactError, match="is no regular file"):
        load(os.devnull)
    os.mkfifo(tmp_path / "pipe")  # which nobody writes to
    with pytest.raises(ArtefactError, match="is no regular file"):
        load(tmp_path / "pipe")
    with open(path, "wb") as file:
        file.truncate(container.LARGEST_FILE + 1)
    with pytest.raises(ArtefactError, match="is too large"):
        load(path)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "nowhere")


def test_what_inflates_to_more_or_less_is_refused():
    packed, deflated = container.deflate(bytes(1000))
    assert deflated and len(packed) < 20
    assert container.inflate(memoryview(packed), 1000) == bytes(1000)
    for stored, size in (
        (packed, 999),
        (packed, 1),
        (packed, 1001),
        (packed[:-1], 1000),
        (packed + b"\0", 1000),
        (b"", 1),
    ):
        with pytest.raises(ArtefactError, match="inflate"):
            container.inflate(memoryview(stored), size)
    assert container.deflate(b"abc") == (b"abc", False)


@pytest.fixture(scope="module")
def wide() -> Subnetwork:
    """A million weights in one array: all kept, one inverted, all but one the same."""
    units = 1 << 10
    net = tiny(stages=(1,), hidden=(units,), classes=units, bias_init=None)
    shape = (2, 2, 1)
    entries = {}
    for name, sizes in architecture.shapes_of(net, shape)["params"].items():
        factors, frozen = np.ones(sizes, np.int8), np.ones(sizes, np.float32)
        factors.flat[0], frozen.flat[1] = -1, 2
        scale = np.float32(0.5)
        entries[name] = make_layer_weights(name, frozen, factors=factors, scale=scale)
    arrays = {name: entry.weights for name, entry in entries.items()}
    params = flax.traverse_util.unflatten_dict(arrays, sep="/")
    return Subnetwork(
        net=architecture.from_config(architecture.to_config(net)),
        variables={"params": params},
        entries=entries,
        description=Description("wide", units, shape),
    )


def test_little_memory_is_taken_for_what_a_small_file_says(wide):
    data = encode(wide)
    assert len(data) < 10_000
    decode(data)  # traces the network
    tracemalloc.start()
    found = assemble(decode(data))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_same(found, wide)
    weights = sum(entry.weights.size for entry in wide.entries.values())
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


VALUES: list[Any] = [
    *(-1, 0, 1, 2, 7, 2**16, 2**31, 2**32, 2**53, 2**63, 10**30, 10**400),
    *(0.5, -0.0, 1e-46, 1e308, math.nan, math.inf, True, False, None),
    *("", "..", "../../x", "a/b", "Conv_0/kernel", "\x00", "\n", "\ud800", "é" * 300),
    *([], {}, [[]], [1, 2], {"a": 1}, [0] * 100),
]


def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Every place in a header, as the steps that lead there."""
    inner = list(value.items()) if isinstance(value, dict) else []
    inner = list(enumerate(value)) if isinstance(value, list) else inner
    found = [place for step, each in inner for place in places(each, (*way, step))]
    return [way, *found] if way else found


def mutated(rng: np.random.Generator, data: bytes) -> bytes:
    """Spoils some bytes: some are changed, left out, put in or doubled."""
    found = bytearray(data)
    while bytes(found) == data or rng.integers(2):
        at = int(rng.integers(len(found)))
        size = int(rng.integers(1, 9))
        kind = rng.integers(20)
        if kind < 4:
            found[at] ^= 1 << int(rng.integers(8))
        elif kind < 8:
            found[at : at + size] = rng.bytes(size)
        elif kind < 12:
            found[at:at] = rng.bytes(size)
        elif kind < 16:
            del found[at : at + size]
        elif kind < 19:
            found[at:at] = found[at : at + size]
        else:
            del found[max(1, at) :]
    return bytes(found)


def changed(rng: np.random.Generator, header: Any) -> Any:
    """Makes a header say something else in one or two places."""
    for _ in range(rng.integers(1, 3)):
        ways = places(header)
        *way, last = ways[rng.integers(len(ways))]
        inner = functools.reduce(lambda found, step: found[step], way, header)
        kind = rng.integers(6)
        if kind == 0:
            del inner[last]
        elif kind == 1 and isinstance(inner, list):
            inner.insert(last, copy.deepcopy(inner[last]))
        elif kind == 2 and isinstance(inner, list):
            inner[last], inner[0] = inner[0], inner[last]
        elif kind == 3:
            other = ways[rng.integers(len(ways))]
            inner[last] = copy.deepcopy(
                functools.reduce(lambda found, step: found[step], other, header)
            )
        elif kind == 4 and type(inner[last]) in (int, float):
            inner[last] += int(rng.integers(-2, 3))
        else:
            inner[last] = copy.deepcopy(VALUES[rng.integers(len(VALUES))])
        if not isinstance(header, dict) or not places(header):
            break
    return header


def test_ten_thousand_spoilt_files():
    """None crashes, hangs, takes much memory or passes for what it is not.

    A quarter is spoilt as it would be on a disk. The others have the right checksum, as
    only someone who means harm would give them: with bytes changed anywhere, with a
    header of other bytes, or with one that says something else. What of those is read
    must be the same network, bit for bit.
    """
    rng = np.random.default_rng(20221016)
    kinds = ("drawn", "values", "signs", "normal")
    whole = {kind: assemble(decode(file_of(kind))) for kind in kinds}
    refused, words, most = 0, set(), 0
    for number in range(10_000):
        # Measured of one in eight, because it slows all down.
        if number % 128 == 0:
            tracemalloc.start()
        elif number % 128 == 16:
            most = max(most, tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        kind = kinds[number % len(kinds)]
        data, how = file_of(kind), number // len(kinds) % 4
        if how == 0:
            spoilt = mutated(rng, data)
        elif how == 1:
            spoilt = sealed(mutated(rng, data[:-32]))
        elif how == 2:
            size = struct.unpack_from("<I", data, 12)[0]
            spoilt = rewritten(data, mutated(rng, data[16 : 16 + size]))
        else:
            header = changed(rng, copy.deepcopy(header_of(data)))
            spoilt = rewritten(data, json.dumps(header).encode())
        try:
            found = assemble(decode(spoilt))
        except ArtefactError as error:
            assert str(error).isprintable() and len(str(error)) < 1000
            refused += 1
            words.add(str(error)[:14])
            continue
        assert how > 0, "a damaged file was read"
        for name, entry in whole[kind].entries.items():
            assert found.entries[name].weights.tobytes() == entry.weights.tobytes()
        assert_same_bits(found.variables, whole[kind].variables)
        told = header_of(spoilt)
        assert found.description.arch == told["description"]["arch"]
        assert found.description.seed == told["description"]["seed"]
    tracemalloc.stop()
    assert 0 < most < 8 << 20, "bytes, of files of a few thousand"
    assert refused > 9_500 and len(words) > 12


@pytest.mark.parametrize("kind", ["drawn", "values", "signs"])
def test_the_reader_of_the_document_reads_what_is_written(kind, tmp_path):
    """And its text says how long it is."""
    text = (Path(__file__).parents[2] / "docs" / "artefact.md").read_text()
    (block,) = re.findall(r"```python\n(.*?)```", text, re.S)
    assert 65 < len(block.splitlines()) < 80 and "Some seventy lines" in text
    names: dict[str, Any] = {}
    exec(block, names)
    # It draws signs, not uniform biases.
    bare = Masked(tiny(SIGNED, bias_init=None), Signed(logit_std=1.0))
    key, path = jax.random.key(1), tmp_path / "a.aslp"
    data = encode(extract(bare, draw(bare, key), ABOUT, key=key))
    path.write_bytes(data if kind == "drawn" else file_of(kind))
    collections = dict(load(path).variables)
    weights, others = names["read_arrays"](path)
    assert_same_bits(weights, named(collections.pop("params")))
    assert_same_bits(others, named(collections))
    assert bool(others) == (kind == "signs")
    path.write_bytes(file_of("normal"))
    with pytest.raises(ValueError, match="Conv_0/bias is drawn by fan_in_uniform"):
        names["read_arrays"](path)
    path.write_bytes(data[:-33] + data[-32:])
    with pytest.raises(AssertionError, match="damaged"):
        names["read_arrays"](path)


def test_the_document_says_how_weights_are_drawn():
    """The formulas of the two initialisers that are drawn in floating point."""
    entries = made_of(ASLP(logit_std=1.0), KAIMING)[1].entries
    for name in ("Conv_1/kernel", "Conv_1/bias"):
        entry = entries[name]
        words = bits_on_host(entry.recipe.key, entry.weights.size)
        share = (words >> np.uint32(9)) / 2**23
        least = 2**-24 - 1
        uniform = np.maximum(least, 2 * share + least)
        fan_in = math.prod(entries["Conv_1/kernel"].weights.shape[:-1])
        wanted = math.sqrt(2 / fan_in) * math.sqrt(2) * scipy.special.erfinv(uniform)
        if name.endswith("bias"):
            assert entry.recipe.fan_in == fan_in
            bound = 1 / math.sqrt(fan_in)
            wanted = np.maximum(-bound, 2 * bound * share - bound)
        np.testing.assert_allclose(entry.frozen.ravel(), wanted, rtol=1e-5, atol=1e-7)
