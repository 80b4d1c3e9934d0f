"""Modules and functions that use what networks are commonly made of."""

import contextlib
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

IMAGE, SIGNAL, TOKENS, VECTOR = (9, 8, 6), (12, 6), (7, 6), (10,)


class Net(nn.Module):
    """A Linen module of one function, which may use submodules."""

    function: object

    @nn.compact
    def __call__(self, x):
        return self.function(x)


class Chain(nnx.Module):
    """An NNX module of layers and functions one after another."""

    def __init__(self, *parts):
        self.parts = nnx.List(parts)

    def __call__(self, x):
        for part in self.parts:
            x = part(x)
        return x


def _norm(x):
    return nn.BatchNorm(use_running_average=True)(x)


def _convolutions(x):
    x = nn.relu(_norm(nn.Conv(5, (3, 2), strides=(2, 1))(x)))
    x = nn.relu6(_norm(nn.Conv(10, (3, 3), feature_group_count=5, padding=1)(x)))
    x = nn.relu(_norm(nn.Conv(10, (3, 3), feature_group_count=10, use_bias=False)(x)))
    x = nn.tanh(nn.Conv(6, (2, 2), kernel_dilation=(2, 1), padding="VALID")(x))
    x = nn.Conv(4, (3, 3), feature_group_count=2, padding=((2, 0), (0, 1)))(x)
    return nn.Conv(3, (3, 3), padding="CIRCULAR")(nn.leaky_relu(x))


def _signals(x):
    x = nn.relu(_norm(nn.Conv(8, (4,), strides=2)(x)))
    x = nn.relu(_norm(nn.Conv(8, (3,), feature_group_count=8, padding="CAUSAL")(x)))
    x = nn.max_pool(x, (2,), (1,), "SAME") + nn.avg_pool(x, (3,), (1,), "SAME")
    return nn.Dense(3)(x.reshape(x.shape[0], -1))


def _transposed(x):
    x = nn.relu(_norm(nn.ConvTranspose(5, (3, 3), strides=(2, 2))(x)))
    x = nn.ConvTranspose(4, (2, 4), strides=(1, 3), padding="VALID")(x)
    return nn.ConvTranspose(3, (3, 3), transpose_kernel=True)(nn.sigmoid(x))


def _dense(x):
    y = nn.DenseGeneral((2, 3))(x)
    y = nn.relu(y + 0.5) * nn.DenseGeneral((2, 3), axis=(-2, -1))(y)
    y = nn.Einsum((3, 4), "...c,cd->...d")(y)
    z = nn.relu(_norm(nn.Dense(8)(x)))
    return jnp.concatenate([y.reshape(*x.shape[:3], 8), z], -1)


def _einsum(x):
    kernel = jnp.linspace(-1, 1, 45).reshape(5, 9)
    x = jnp.einsum("ij,bjwc->biwc", kernel, x)
    return jnp.einsum("biwc,biwd->bcd", x, nn.tanh(x))


def _activations(x):
    x = nn.Conv(8, (1, 1))(x)
    functions = [
        *(nn.relu, nn.relu6, nn.leaky_relu, nn.sigmoid, nn.tanh, nn.silu, nn.elu),
        *(functools.partial(nn.gelu, approximate=each) for each in (True, False)),
        *(nn.hard_swish, nn.hard_sigmoid, nn.hard_tanh, nn.celu, nn.selu, nn.softplus),
        *(
            nn.soft_sign,
            nn.log_sigmoid,
            nn.softmax,
            nn.log_softmax,
            jax.nn.mish,
            nn.glu,
        ),
        *(jax.nn.squareplus, jax.nn.standardize, jnp.exp2),
        lambda y: jax.nn.logsumexp(y, -1, keepdims=True),
        lambda y: jnp.where((y > 0) & ~(y > 1) | (y < -1), y, -0.5),
        lambda y: 1 / (1 + y * y) ** 2 + (2 + nn.tanh(y)) ** -3,
    ]
    return jnp.concatenate([function(x) for function in functions], -1)


def _pools(x):
    x = nn.relu(_norm(nn.Conv(6, (3, 3))(x)))
    pools = [
        nn.max_pool(x, (3, 2), (2, 1)),
        nn.max_pool(x, (3, 3), (2, 1), "SAME")[:, :4, :7],
        nn.avg_pool(x, (2, 3), (2, 1), "SAME")[:, :4, :7],
        nn.avg_pool(x, (2, 3), (2, 1), "SAME", count_include_pad=False)[:, :4, :7],
        jax.lax.reduce_window(
            x, jnp.inf, jax.lax.min, (1, 3, 2, 1), (1, 2, 1, 1), "VALID"
        ),
    ]
    y = jnp.concatenate(pools, -1)
    kept = x.mean((1, 2), keepdims=True) * y[..., :6]
    parts = [y.mean((1, 2)), y.sum((1, 3)), y.max(2).mean(1), kept.mean((1, 2))]
    return jnp.concatenate(parts, -1)


def _shapes(x):
    x = nn.Conv(6, (1, 1))(x)
    first, second = jnp.split(x, 2, -1)
    x = jnp.concatenate([second, jnp.ones_like(first[..., :1]), first], -1)
    x = jnp.pad(x, ((0, 0), (1, 0), (0, 2), (0, 1)), constant_values=0.5)
    x = jnp.roll(x[:, ::2, 1:], 1, 2).transpose(0, 2, 3, 1)
    x = jax.lax.pad(x, 0.25, [(0, 0, 0), (-1, 1, 0), (1, 0, 2), (0, 0, 0)])
    x = nn.Dense(3)(x.reshape(x.shape[0], 9, -1))
    x = nn.Dropout(0.5, deterministic=True)(x)
    return x.swapaxes(1, 2).reshape(x.shape[0], -1) * jnp.linspace(1, 2, 27)


def _resampled(x):
    x = nn.Conv(4, (3, 3), padding="REFLECT")(x)
    shape = (x.shape[0], 18, 12, 4)
    y = jax.image.resize(x, shape, "nearest") + jax.image.resize(x, shape, "bilinear")
    y = jnp.flip(y, 2)[:, jnp.array([0, 5, 2, 7, 16, 3])]
    y = y.take(np.random.default_rng(0).permutation(np.arange(60) % 12), 2)
    parts = [y, jnp.tile(y[..., ::-1], (1, 1, 1, 1)), jnp.ones_like(y)]
    y = jnp.tile(jnp.stack(parts, 1), (1, 2, 1, 1, 2))[:, :, 3, 5]
    kernels = jnp.sin(jnp.arange(192.0) ** 2).reshape(3, 8, 8)
    y, _ = jax.lax.scan(lambda y, kernel: (nn.tanh(y @ kernel), None), y, kernels)
    return jax.lax.cond(True, lambda y: y * 4, lambda y: y, y)


def _norms(x):
    x = nn.LayerNorm()(nn.Conv(8, (3, 3))(x))
    x = nn.gelu(nn.GroupNorm(4)(nn.Dense(8)(x)))
    x = nn.RMSNorm()(x + nn.InstanceNorm()(nn.Conv(8, (1, 1))(x)))
    return nn.LayerNorm(reduction_axes=(1, 2, 3), feature_axes=-1)(x)


def _squeeze_and_excite(x):
    x = nn.relu(_norm(nn.Conv(8, (3, 3))(x)))
    gate = nn.sigmoid(nn.Dense(8)(nn.relu(nn.Dense(4)(x.mean((1, 2))))))
    x = nn.relu(nn.Conv(8, (1, 1))(x * gate[:, None, None]) + x)
    return nn.Dense(3)(x.reshape(x.shape[0], -1))


def _attention(x):
    x = x + jnp.linspace(-1, 1, 42).reshape(7, 6)
    mask = nn.make_causal_mask(jnp.ones((1, 7)))
    y = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(num_heads=3)(y, y, mask=mask)
    return x + nn.Dense(6)(nn.gelu(nn.Dense(12)(nn.LayerNorm()(x))))


def _vision_transformer(x):
    x = nn.Conv(8, (3, 4), strides=(3, 4), padding="VALID")(x)
    x = x.reshape(x.shape[0], -1, 8)
    token = jnp.linspace(-1, 1, 8) * jnp.ones((x.shape[0], 1, 1))
    x = jnp.concatenate([token, x], 1)
    y = nn.LayerNorm()(x)
    x = x + nn.MultiHeadDotProductAttention(num_heads=2)(y, y)
    return nn.Dense(5)(x[:, 0])


def _perceptron(x):
    x = nn.relu(_norm(nn.Dense(12)(x)))
    return nn.Dense(4)(jnp.concatenate([x, nn.relu(nn.Dense(5)(x))], -1))


LINEN = {
    "convolutions": (_convolutions, IMAGE),
    "signals": (_signals, SIGNAL),
    "transposed": (_transposed, IMAGE),
    "dense": (_dense, IMAGE),
    "einsum": (_einsum, IMAGE),
    "activations": (_activations, IMAGE),
    "pools": (_pools, IMAGE),
    "shapes": (_shapes, IMAGE),
    "resampled": (_resampled, IMAGE),
    "norms": (_norms, IMAGE),
    "squeeze_and_excite": (_squeeze_and_excite, IMAGE),
    "attention": (_attention, TOKENS),
    "vision_transformer": (_vision_transformer, IMAGE),
    "perceptron": (_perceptron, VECTOR),
}


def _nnx_images(rngs):
    return Chain(
        nnx.Conv(6, 8, (3, 3), strides=2, rngs=rngs),
        nnx.BatchNorm(8, rngs=rngs),
        nnx.relu,
        nnx.Conv(8, 8, (3, 3), feature_group_count=8, use_bias=False, rngs=rngs),
        nnx.GroupNorm(8, num_groups=2, rngs=rngs),
        nnx.silu,
        nnx.ConvTranspose(8, 5, (2, 2), strides=(2, 2), rngs=rngs),
        lambda x: nnx.max_pool(x, (2, 2), (2, 2)),
        nnx.Dropout(0.5, rngs=rngs),
        lambda x: x.reshape(x.shape[0], -1),
        nnx.Linear(100, 4, rngs=rngs),
    )


class _Block(nnx.Module):
    def __init__(self, rngs):
        self.norm = nnx.LayerNorm(6, rngs=rngs)
        self.attention = nnx.MultiHeadAttention(
            num_heads=2, in_features=6, decode=False, rngs=rngs
        )
        self.dense = nnx.LinearGeneral(6, (2, 3), rngs=rngs)
        self.last = nnx.Einsum("bthk,hkd->btd", (2, 3, 6), (6,), rngs=rngs)

    def __call__(self, x):
        x = x + self.attention(self.norm(x))
        return nnx.softmax(self.last(nnx.gelu(self.dense(x))) + x)


NNX = {"nnx_images": (_nnx_images, IMAGE), "nnx_tokens": (_Block, TOKENS)}

NAMES = (*LINEN, *NNX)


@contextlib.contextmanager
def promotion():
    """Lets shapes and dtypes be promoted, as outside of the tests."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        yield


@functools.cache
def module(name):
    """Returns a pure function, its random weights and the shape of its inputs."""
    rng = np.random.default_rng(0)

    def fill(path, leaf):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        values = rng.normal(size=leaf.shape).astype(np.float32)
        values /= np.sqrt(max(1, np.prod(leaf.shape[:-1])))
        return np.abs(values) + 0.5 if "var" in jax.tree_util.keystr(path) else values

    if name in LINEN:
        function, shape = LINEN[name]
        net, inputs = Net(function), jnp.zeros((2, *shape))
        with promotion():
            shapes = jax.eval_shape(net.init, jax.random.key(0), inputs)
        return net.apply, jax.tree_util.tree_map_with_path(fill, shapes), shape
    make, shape = NNX[name]
    abstract = nnx.eval_shape(lambda: make(nnx.Rngs(0)))
    abstract.eval()
    definition, keys, state = nnx.split(abstract, nnx.RngState, ...)
    state = jax.tree_util.tree_map_with_path(fill, state)
    return (lambda w, x: nnx.merge(definition, keys, w)(x)), state, shape


def inputs_of(name, batch=3):
    """Returns inputs of a module, always the same."""
    shape = module(name)[2]
    return np.random.default_rng(1).normal(size=(batch, *shape)).astype(np.float32)


@functools.cache
def outputs_of(name):
    """Returns the outputs of a module for `inputs_of`."""
    fn, weights, _ = module(name)
    with promotion():
        return np.asarray(jax.jit(fn)(weights, inputs_of(name)))
