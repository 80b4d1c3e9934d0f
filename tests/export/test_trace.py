"""Traced graphs compute what the function does, whatever framework it is written in."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from aslp_jax.export.operations import Conv, Dense, run
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import UnsupportedError, trace


def check(fn, weights, shape, *, batch=3, seed=0):
    """Compares the traced and the simplified graph with the function."""
    inputs = np.random.default_rng(seed).normal(size=(batch, *shape))
    inputs = jnp.asarray(inputs, jnp.float32)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        expected = fn(weights, inputs)
        graph = trace(fn, weights, jax.ShapeDtypeStruct(shape, jnp.float32))
        small = simplify(graph)
        assert len(small.nodes) <= len(graph.nodes)
        assert float(jnp.ptp(expected)) > 1e-2
        for each in (graph, small):
            assert each.shapes[-1] == expected.shape[1:]
            found = run(each, inputs)
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-5)
    return small


class Many(nn.Module):
    """A bit of everything that convolutional networks are made of."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), strides=2)(x)
        x = jax.nn.relu6(nn.BatchNorm(use_running_average=True)(x))
        x = nn.Conv(4, (3, 3), feature_group_count=4, kernel_dilation=2)(x)
        x = nn.leaky_relu(nn.gelu(x) + nn.gelu(x, approximate=False))
        y = nn.silu(nn.max_pool(x, (3, 3), (2, 2), "SAME"))
        z = nn.avg_pool(x, (2, 2), (2, 2))
        x = jnp.concatenate([y, nn.LayerNorm()(z), jnp.ones_like(z)], -1)
        x = nn.Dropout(0.5, deterministic=True)(x).mean((1, 2))
        return nn.softmax(nn.tanh(nn.Dense(5)(x)) + nn.sigmoid(nn.Dense(5)(x)))


class Attention(nn.Module):
    """A small vision transformer."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(8, (4, 4), strides=4)(x)
        x = x.reshape(x.shape[0], -1, 8)
        token = self.param("token", nn.initializers.normal(1.0), (1, 1, 8))
        x = jnp.concatenate([jnp.tile(token, (x.shape[0], 1, 1)), x], 1)
        y = nn.LayerNorm()(x)
        x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y, y)
        return nn.Dense(5)(x[:, 0])


@pytest.mark.slow
@pytest.mark.parametrize("net", [Many(), Attention()], ids=["many", "attention"])
def test_linen_modules(net):
    shape = (12, 12, 3)
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        variables = net.init(jax.random.key(0), jnp.zeros((1, *shape)))
    check(net.apply, variables, shape)


@pytest.mark.slow
def test_an_nnx_module():
    class Net(nnx.Module):
        def __init__(self, rngs):
            self.conv = nnx.Conv(3, 4, (3, 3), rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)
            self.drop = nnx.Dropout(0.5, rngs=rngs)
            self.dense = nnx.Linear(4, 5, rngs=rngs)

        def __call__(self, x):
            x = nnx.relu(self.norm(self.conv(x)))
            return self.dense(self.drop(x).mean((1, 2)))

    net = Net(nnx.Rngs(0))
    net.eval()
    definition, weights = nnx.split(net)
    small = check(lambda w, x: nnx.merge(definition, w)(x), weights, (6, 6, 3))
    kinds = [type(node.operation).__name__ for node in small.nodes]
    # Batch-norm and the bias are part of the convolution.
    assert kinds == ["Conv", "Binary", "Reduce", "Dense"]


def test_kernels_are_named_by_their_path():
    net = nn.Sequential([nn.Conv(2, (3, 3)), lambda x: x.mean((1, 2)), nn.Dense(4)])
    variables = net.init(jax.random.key(0), jnp.zeros((1, 5, 5, 1)))
    graph = simplify(trace(net.apply, variables, jnp.zeros((5, 5, 1))))
    names = [
        node.operation.name
        for node in graph.nodes
        if isinstance(node.operation, Conv | Dense)
    ]
    assert names == ["params/layers_0/kernel", "params/layers_2/kernel"]


WEIGHTS = {"a": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}


@pytest.mark.parametrize(
    "fn",
    [
        lambda w, x: jnp.einsum("bhwc,cd->bhwd", x, w["a"]),
        lambda w, x: jnp.einsum("bhwc,bhwd->bcd", x, x),
        lambda w, x: jnp.clip(x, -0.5, 0.25) ** 3 - 2 / (3 + x**2),
        lambda w, x: jnp.where(x > 0, 2.0, jnp.where(x < -1, x, -x)),
        lambda w, x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 1)), constant_values=3.0),
        lambda w, x: jax.lax.pad(
            x, 0.0, ((0, 0, 0), (-1, 1, 0), (0, -2, 0), (0, 0, 0))
        ),
        lambda w, x: jnp.concatenate(jnp.split(x, 3, axis=-1)[::-1], 2)[:, 1::2, :4],
        lambda w, x: x.transpose(0, 3, 1, 2).reshape(x.shape[0], -1) * 2.0,
        lambda w, x: x.sum(1, keepdims=True) * x.max((1, 2), keepdims=True),
        lambda w, x: x.min(3) * 2.0,
        lambda w, x: jax.lax.conv_general_dilated(
            x.transpose(0, 3, 1, 2),
            w["a"].reshape(4, 3, 1, 1),
            (2, 1),
            ((0, 1), (2, 0)),
            dimension_numbers=("NCHW", "OIHW", "NCHW"),
        ),
        lambda w, x: jax.lax.conv_general_dilated(
            x.reshape(x.shape[0], -1, 3),
            w["a"].reshape(2, 3, 2),
            (1,),
            "SAME",
            rhs_dilation=(2,),
            dimension_numbers=("NWC", "WIO", "NWC"),
        ),
        jax.jit(lambda w, x: jax.checkpoint(jnp.tanh)(x @ w["a"])),
        lambda w, x: jax.nn.softplus(x) + jnp.exp(-jnp.abs(x)) + jnp.sqrt(x * x),
    ],
)
def test_functions(fn):
    check(fn, WEIGHTS, (6, 5, 3))


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda w, x: jnp.cumsum(x, 1), "trace: cumsum is not supported"),
        (lambda w, x: x - x.mean(0), "across the examples of a batch"),
        (lambda w, x: x.reshape(-1, 3), "across the examples of a batch"),
        (lambda w, x: jnp.argmax(x, -1) + 0.0, "trace: argmax is not supported"),
        (lambda w, x: (x, x), "the function returns 2 arrays; expected one"),
        (lambda w, x: w["a"], "the outputs do not depend on the inputs"),
        (lambda w, x: x.swapaxes(0, 1), "the batch is axis 1 of the outputs; expected"),
        (lambda w, x: x + jnp.arange(x.shape[0])[:, None, None, None], "from example"),
        (lambda w, x: x.astype(jnp.int32) + 1, "convert_element_type to int32"),
    ],
)
def test_others_are_refused_by_name(fn, words):
    with (
        jax.numpy_rank_promotion("allow"),
        jax.numpy_dtype_promotion("standard"),
        pytest.raises(UnsupportedError) as refused,
    ):
        trace(fn, WEIGHTS, jnp.zeros((6, 5, 3)))
    message = str(refused.value)
    assert words in message and "\n" not in message
    if "is not supported" in message:
        assert "test_trace.py:" in message  # the line of one's own source
        assert "supported primitives are abs, add, " in message
