"""Tiny networks and files of them, each made once in a process."""

import dataclasses
import functools
import hashlib
import json
import struct
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

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
from aslp_jax.artefact import Description, Subnetwork, container, embed, extract
from aslp_jax.artefact.decoding import assemble, decode
from aslp_jax.artefact.encoding import encode
from aslp_jax.models import initialisers
from aslp_jax.models.vgg import VGG

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

SIGNED_VGG = VGG(stages=((4, 5), (6,)), classes=3, conv_init=SIGNED, dense_init=SIGNED)


def name_of(value: Any) -> str:
    """Name of a method or an initialiser, for ids of tests."""
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


BARE = tiny(hidden=(), bias_init=None, dtype=jnp.dtype("bfloat16"))
"""Signed constants, no biases: every weight has a recipe of signs."""


def variables_of(model: Masked, key: jax.Array, image: tuple[int, ...] = IMAGE) -> Any:
    """Variables as after training: scales and batch statistics have moved."""
    made = dict(initialiser_of(model.net, image)(key))
    weights, rng = made.pop("frozen"), np.random.default_rng(3)
    frozen, params = weights, jax.eval_shape(model.method.init, key, weights)[1]
    if set(params) <= {"logits", "scores", "scale"}:
        # Drawn without a program for each shape.
        params = jax.tree.map(
            lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), params
        )
    else:
        frozen, params = jax.jit(model.method.init)(key, weights)
    if "scale" in params:
        values = rng.uniform(0.5, 1.5, len(params["scale"]))
        params["scale"] = {
            name: jnp.float32(value)
            for name, value in zip(params["scale"], values, strict=True)
        }
    rest = {name: each for name, each in made.items() if name == "batch_stats"}
    rest = jax.tree.map(lambda each: each + jnp.float32(0.3), rest)
    return {"frozen": frozen, "params": params, **rest}


@functools.cache
def initialiser_of(net: Any, image: tuple[int, ...]) -> Callable[[jax.Array], Any]:
    """The initialisation of a network as in any `Masked`, compiled once."""
    init = functools.partial(Masked(net, ASLP()).init, train=False)
    return jax.jit(lambda key: init(key, jnp.zeros((1, *image))))


@functools.cache
def made_of(method: Any, init: Any = SIGNED) -> tuple[Any, Subnetwork]:
    """Variables of a tiny network, and the subnetwork extracted from them."""
    model, key = Masked(tiny(init), method), jax.random.key(20221016)
    variables = variables_of(model, key)
    return variables, extract(model, variables, ABOUT, key=key)


def effective_of(method: Any, variables: Any) -> dict[str, np.ndarray]:
    """Effective weights without the sign of a 0, which depends on the compiler."""
    frozen, params = variables.get("frozen", {}), variables["params"]
    weights = named(evaluate.effective_weights(frozen, params, None, method=method))
    return {name: each + np.float32(0) for name, each in weights.items()}


def again(subnetwork: Subnetwork) -> Subnetwork:
    """The network after it was written and read."""
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
    """Compares weights, their parts and the network, but not the description."""
    assert_same_bits(one.variables, other.variables)
    assert list(one.layers) == list(other.layers)
    for name, layer in one.layers.items():
        for field in dataclasses.fields(layer):
            found, wanted = (
                getattr(each, field.name) for each in (layer, other.layers[name])
            )
            assert type(found) is type(wanted), (name, field.name)
            np.testing.assert_array_equal(found, wanted, err_msg=name)
        assert layer.origin == other.layers[name].origin


def sealed(data: bytes) -> bytes:
    """Appends the right checksum."""
    return data + hashlib.sha256(data).digest()


def header_of(data: bytes) -> dict[str, Any]:
    return container.unpack(data).header


def rewritten(data: bytes, text: bytes) -> bytes:
    """The file with another header, of the right length and checksum."""
    size = struct.unpack_from("<I", data, 12)[0]
    body = data[16 + size : -32]
    return sealed(data[:12] + struct.pack("<I", len(text)) + text + body)


def edited(data: bytes, change: Callable[[dict[str, Any]], object]) -> bytes:
    header = header_of(data)
    change(header)
    return rewritten(data, json.dumps(header).encode())


@functools.cache
def file_of(kind: str) -> bytes:
    """A file for each origin of weights, of a network that is quickly read."""
    if kind == "recipe":  # masks, inverted bits
        return encode(made_of(Signed(logit_std=1.0), SIGNED)[1])
    if kind == "normal":
        return encode(made_of(ASLP(logit_std=1.0), KAIMING)[1])
    if kind == "values":  # kept values, dense biases
        return encode(embed(made_of(ASLP(logit_std=1.0), KAIMING)[1]))
    # Kept signs, dense normalisations, and batch statistics.
    model, key = Masked(SIGNED_VGG, ASLP(logit_std=1.0)), jax.random.key(1)
    return encode(embed(extract(model, variables_of(model, key), ABOUT, key=key)))
