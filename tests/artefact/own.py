"""Networks that are not of this library, and their subnetworks, made once."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx

from aslp_jax import ASLP, Masked, functional
from aslp_jax.artefact import Description, Source, Subnetwork, extract
from aslp_jax.artefact.encoding import encode
from tests.artefact.networks import SIGNED

SHAPE = (6, 5, 2)

OWN = Description(
    arch="tiny",
    classes=3,
    image_shape=SHAPE,
    dataset="photos",
    method="aslp",
    class_names=("cat", "dog", "bird"),
)

SOURCE = Source("nets.py:TinyNet", "ab" * 32, {"classes": 3, "width": 0.5, "on": True})


class Depthwise(nn.Module):
    """A separable convolution: its second kernel is depthwise."""

    classes: int = 3

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool = False) -> jax.Array:
        x = nn.Conv(4, (3, 3), name="stem")(x)
        x = nn.BatchNorm(use_running_average=not train, name="norm")(x)
        x = nn.Conv(4, (3, 3), feature_group_count=4, name="depth")(nn.relu(x))
        x = nn.Dropout(0.5, deterministic=not train)(x)
        self.variable("count", "calls", lambda: jnp.zeros((), jnp.int32))
        return nn.Dense(self.classes, name="a_head")(x.mean((1, 2)))


class Halved(nn.Module):
    """An autoencoder of vectors in bfloat16."""

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        half = {"param_dtype": jnp.bfloat16, "dtype": jnp.bfloat16}
        x = nn.relu(nn.Dense(4, **half)(x))
        return nn.Dense(6, **half)(x).astype(jnp.float32)


class Perceptron(nnx.Module):
    """Two layers of NNX with batch statistics and dropout."""

    def __init__(self, rngs: nnx.Rngs, hidden: int = 4) -> None:
        self.layers = nnx.List(
            [nnx.Linear(60, hidden, rngs=rngs), nnx.Linear(hidden, 3, rngs=rngs)]
        )
        self.norm = nnx.BatchNorm(hidden, rngs=rngs)
        self.dropout = nnx.Dropout(0.5, rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        x = nnx.relu(self.norm(self.layers[0](x.reshape(len(x), -1))))
        return self.layers[1](self.dropout(x))


def plain_init(key: jax.Array, inputs: jax.Array) -> Any:
    """Names with a slash, as Haiku has them, and a tuple, as Equinox may have."""
    first, second = jax.random.split(key)
    kernel = jax.random.normal(first, (60, 4))
    return {
        "mlp/~/one": {"kernel": kernel},
        "two": ({"kernel": jax.random.normal(second, (4, 3))}, jnp.ones(3)),
    }


def plain_apply(weights: Any, inputs: jax.Array) -> jax.Array:
    head, bias = weights["two"]
    x = inputs.reshape(len(inputs), -1) @ weights["mlp/~/one"]["kernel"]
    return jnp.tanh(x) @ head["kernel"] + bias[None]


PLAIN = functional.stateless(plain_init, plain_apply)


@functools.cache
def model_of(kind: str) -> Any:
    method = ASLP(logit_std=1.0)
    if kind == "linen":
        return Masked(Depthwise(), method, weight_init=SIGNED)
    if kind == "half":
        return functional.Model(Halved(), method)
    net = functional.NNX(Perceptron) if kind == "nnx" else PLAIN
    return functional.Model(net, method, weight_init=SIGNED)


def about_of(kind: str) -> Description:
    if kind == "half":
        return Description("autoencoder", None, (6,), output_shape=(6,))
    return OWN


@functools.cache
def own(kind: str) -> tuple[Any, Subnetwork]:
    """Variables of a network of one's own, and the subnetwork extracted from them."""
    model, about, key = model_of(kind), about_of(kind), jax.random.key(5)
    init = jax.jit(functools.partial(functional.init, model))
    variables = init(key, jnp.zeros((1, *about.image_shape)))
    source = SOURCE if kind == "linen" else None
    return variables, extract(model, variables, about, key=key, source=source)


@functools.cache
def own_file(kind: str) -> bytes:
    return encode(own(kind)[1])
