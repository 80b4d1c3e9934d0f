"""Files for the demo page: networks that it can run, and files that it refuses."""

import dataclasses
import functools
import struct
from pathlib import Path

import jax
import jax.numpy as jnp

from aslp_jax import ASLP, EdgePopup, Masked, Signed
from aslp_jax.artefact import Description, embed, extract
from aslp_jax.artefact.encoding import encode
from aslp_jax.models.resnet import ResNet
from tests.artefact.networks import (
    CONSTANT,
    KAIMING,
    SIGNED,
    edited,
    file_of,
    header_of,
    sealed,
    tiny,
    variables_of,
)
from tests.artefact.own import own_file

DIGITS = Path(__file__).parents[2] / "examples" / "embedded" / "digits.aslp"
IMAGE = (8, 8, 1)
ABOUT = Description("tiny", 10, IMAGE, mean=(0.3,), std=(0.4,), dataset="noise")

READABLE = {
    "inverted recipes": (
        Signed(logit_std=1.0),
        SIGNED,
        {"stages": (4, 3), "bias_init": None},
    ),
    "signs": (ASLP(logit_std=1.0), CONSTANT, {"stages": (3,), "hidden": (6, 5)}),
    "values": (ASLP(logit_std=1.0), KAIMING, {"stages": (2, 3, 4)}),
    "few weights": (
        EdgePopup(0.02, rescale="none"),
        CONSTANT,
        {"stages": (16,), "hidden": (), "bias_init": None},
    ),
}
"""Method, initialiser and sizes of networks that the page can run."""


@functools.cache
def readable(kind: str) -> bytes:
    method, init, sizes = READABLE[kind]
    model, key = Masked(tiny(init, classes=10, **sizes), method), jax.random.key(3)
    network = extract(model, variables_of(model, key, IMAGE), ABOUT, key=key)
    return encode(embed(network) if kind in ("signs", "values") else network)


@functools.cache
def resnet() -> bytes:
    net = ResNet(stages=(2,), classes=10, conv_init=SIGNED, dense_init=SIGNED)
    model, key = Masked(net, ASLP(logit_std=1.0)), jax.random.key(4)
    variables = jax.jit(functools.partial(model.init, train=False))(
        key, jnp.zeros((1, *IMAGE))
    )
    about = dataclasses.replace(ABOUT, mean=None, std=None)
    return encode(embed(extract(model, variables, about)))


def refused() -> dict[str, tuple[bytes, str]]:
    """Returns files that the page refuses, each with a part of the line about it."""
    good = DIGITS.read_bytes()
    flipped = bytearray(good)
    flipped[len(good) // 2] ^= 4
    length = struct.unpack_from("<I", good, 12)[0]

    def network(**values: object) -> bytes:
        return edited(good, lambda header: header["network"].update(values))

    def array(**values: object) -> bytes:
        return edited(good, lambda header: header["arrays"][2].update(values))

    def recipe(name: str) -> bytes:
        value = {**header_of(good)["arrays"][2]["recipe"], "initialiser": name}
        return array(recipe=value)

    # The mask of 50 weights is the last segment but one, and ends with 6 free bits.
    padded = bytearray(readable("signs")[:-32])
    padded[-1 - header_of(readable("signs"))["arrays"][-1]["data"]["bytes"]] |= 1
    longer = sealed(good[:-32] + b"\0")
    other_mask = bytearray(good[:-32])
    other_mask[-1] ^= 1
    return {
        "empty": (b"", "is no artefact"),
        "text": (b"# Pages\n" * 20, "is no artefact"),
        "flipped": (bytes(flipped), "is damaged"),
        "truncated": (good[:-1000], "is damaged"),
        "format 2": (own_file("linen"), "has format 2; this page reads format 1"),
        "format 3": (sealed(good[:8] + b"\3" + good[9:-32]), "has format 3"),
        "no JSON": (
            sealed(good[:16] + b"!" + good[17:-32]),
            "a header that is no JSON",
        ),
        "no header": (sealed(good[: 16 + length // 2]), "has no whole header"),
        "ResNet": (resnet(), "holds a network of the family ResNet; this page runs"),
        "VGG": (file_of("signs"), "family VGG"),
        "larger images": (file_of("values"), "takes images of [8,8,3]; this page"),
        "three classes": (network(classes=3), "has 3 classes; this page shows 10"),
        "bfloat16": (network(dtype="bfloat16"), "computes in bfloat16"),
        "other sizes": (
            network(hidden=[256, 255]),
            "arrays that are not its network's",
        ),
        "no sizes": (network(hidden=[0]), "no sizes of layers"),
        "another key": (network(extra=1), "the network has the keys biases, classes"),
        "kaiming_normal": (recipe("kaiming_normal"), "extract --embed-weights"),
        "constructor": (recipe("constructor"), "weight recipe constructor"),
        "another key word": (
            array(scale=1.5),
            "Dense_0/kernel is not what was written",
        ),
        "another mask": (sealed(bytes(other_mask)), "Dense_2/kernel is not what was"),
        "no description": (
            edited(good, lambda header: header.update(description=None)),
            "the description is no JSON object",
        ),
        "no std": (
            edited(good, lambda header: header["description"].update(mean=[0.5])),
            "has no mean and std",
        ),
        "short": (good[:40], "is damaged"),
        "no mask": (array(mask=None), "Dense_0/kernel is not what was written"),
        "bits behind": (
            sealed(bytes(padded)),
            "Dense_2/kernel has bits behind its end",
        ),
        "longer": (longer, "has bytes behind its last segment"),
        "too long": (
            array(mask={"bytes": 10**9, "deflated": False}),
            "a segment of Dense_0/kernel is too long",
        ),
        "not deflated": (
            array(mask={"bytes": 32768, "deflated": True}),
            "a segment of Dense_0/kernel cannot be inflated",
        ),
    }
