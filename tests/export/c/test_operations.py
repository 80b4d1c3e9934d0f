"""Sources of traced functions, compiled by gcc, compute what JAX computes."""

import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax import lax

from aslp_jax.export import c
from aslp_jax.export.refusal import UnsupportedError
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import trace

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc, which compiles the exports, is missing"
)

STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wconversion"]
SANITISED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1"]
SHAPE, COUNT = (6, 5, 4), 3

MAIN = """
#include <stdio.h>
#include "net.h"
int main(void)
{
    static float input[NET_INPUTS], output[NET_OUTPUTS];
    while (fread(input, 1, sizeof input, stdin) == sizeof input) {
        net_run(input, output);
        fwrite(output, sizeof output, 1, stdout);
    }
    return 0;
}
"""


def kernel(*shape, seed=0):
    numbers = np.random.default_rng(seed).normal(size=shape) / np.sqrt(shape[-1])
    return numbers.astype(np.float32)


def conv(x, *kernel_shape, strides=None, padding="SAME", dilation=None, groups=1):
    axes = "DHW"[5 - x.ndim :]
    return lax.conv_general_dilated(
        x,
        kernel(*kernel_shape),
        strides or (1,) * len(axes),
        padding,
        rhs_dilation=dilation,
        feature_group_count=groups,
        dimension_numbers=(f"N{axes}C", f"{axes}IO", f"N{axes}C"),
    )


def attention(x):
    x = x.reshape(x.shape[0], -1, 2, 2)
    scores = jnp.einsum("bqhd,bkhd->bhqk", x, jnp.tanh(x))
    return jnp.einsum("bhqk,bkhd->bqhd", jax.nn.softmax(scores), x)


def batch_norm(x):
    return (x - jnp.arange(4.0)) / jnp.sqrt(jnp.arange(1.0, 5)) * 2 + 1


FUNCTIONS = {
    "conv": lambda x: conv(x, 3, 3, 4, 6),
    "conv of stride": lambda x: conv(x, 3, 3, 4, 6, strides=(2, 3)),
    "conv of asymmetric padding": lambda x: conv(
        x, 2, 3, 4, 5, padding=((0, 2), (3, 1))
    ),
    "conv of dilation": lambda x: conv(x, 3, 2, 4, 5, dilation=(2, 3)),
    "conv of groups": lambda x: conv(x, 3, 3, 2, 6, groups=2),
    "depthwise conv": lambda x: conv(x, 3, 3, 1, 4, groups=4, strides=(2, 2)),
    "depthwise conv of more channels": lambda x: conv(x, 3, 3, 1, 8, groups=4),
    "1-D conv": lambda x: conv(
        x.reshape(x.shape[0], 30, 4), 5, 4, 3, strides=(2,), padding=((4, 1),)
    ),
    "conv, relu and pool": lambda x: nn.max_pool(
        nn.relu(conv(x, 3, 3, 4, 3)), (2, 2), (2, 2)
    ),
    "dense on channels": lambda x: nn.relu(x @ kernel(4, 7) + 0.5),
    "dense, flat": lambda x: x.reshape(x.shape[0], -1) @ kernel(120, 5),
    "dense on what a conv gives, flat": lambda x: (
        conv(x, 3, 3, 4, 3).reshape(x.shape[0], -1) @ kernel(90, 5)
    ),
    "dense on what is transposed": lambda x: (
        x.transpose(0, 2, 1, 3).reshape(x.shape[0], -1) @ kernel(120, 5)
    ),
    "dense on rows": lambda x: x.transpose(0, 2, 3, 1) @ kernel(6, 2),
    "batch norm": batch_norm,
    "batch norm of a conv": lambda x: batch_norm(conv(x, 3, 3, 4, 4)),
    "layer norm": lambda x: nn.LayerNorm().apply(
        {"params": {"scale": jnp.arange(4.0), "bias": jnp.ones(4)}}, x
    ),
    "group norm": lambda x: nn.GroupNorm(2).apply(
        {"params": {"scale": jnp.arange(4.0), "bias": jnp.ones(4)}}, x
    ),
    "sums": lambda x: x + x * x - x / (2 + x * x) + 3 - (1 - x) + 2 / (3 + x * x),
    "limits": lambda x: jnp.maximum(jnp.minimum(x, 1 - x), x * 0.5),
    "sum and relu": lambda x: nn.relu(x + jnp.arange(4.0) * x[:, :1]),
    "sum with its transpose": lambda x: (lambda y: y + y.swapaxes(1, 2))(
        nn.tanh(x[:, :5])
    ),
    "relu": nn.relu,
    "relu6": lambda x: nn.relu6(4 * x),
    "leaky relu": nn.leaky_relu,
    "leaky relu by maximum": lambda x: jnp.maximum(x, 0.1 * x),
    "elu": nn.elu,
    "hard swish": nn.hard_swish,
    "sigmoid": nn.sigmoid,
    "tanh": nn.tanh,
    "silu": nn.silu,
    "gelu, tanh": nn.gelu,
    "gelu, erf": lambda x: nn.gelu(x, approximate=False),
    "softplus": nn.softplus,
    "softmax": nn.softmax,
    "softmax of rows": lambda x: nn.softmax(x, axis=1),
    "log softmax": nn.log_softmax,
    "roots": lambda x: jnp.sqrt(jnp.abs(x)) + lax.rsqrt(1 + x * x),
    "logarithms": lambda x: jnp.log(2 + x * x) + jnp.log1p(x * x) + jnp.expm1(x),
    "steps": lambda x: jnp.floor(x) + jnp.ceil(2 * x) + jnp.sign(x),
    "waves": lambda x: jnp.sin(x) * jnp.cos(x) + lax.erfc(x),
    "powers": lambda x: x**3 + jnp.power(1 + jnp.abs(x), 1.5),
    "comparisons": lambda x: jnp.where(x > 0.5, x, jnp.where(x <= -1, 2.0, -x)),
    "equal": lambda x: jnp.where(jnp.sign(x) == 1, 2 * x, jnp.where(x != x, 1.0, x)),
    "max-pool": lambda x: nn.max_pool(x, (3, 2), (2, 1), padding=((1, 1), (0, 1))),
    "max-pool with padding": lambda x: nn.max_pool(x, (3, 3), (2, 2), padding="SAME"),
    "max-pool, 2x2": lambda x: nn.max_pool(x, (2, 2), (2, 2)),
    "average pool": lambda x: nn.avg_pool(x, (3, 3), (1, 1), padding="SAME"),
    "average pool without padding": lambda x: nn.avg_pool(
        x, (2, 3), (2, 2), padding="SAME", count_include_pad=False
    ),
    "1-D pool": lambda x: nn.max_pool(x.reshape(x.shape[0], 30, 4), (3,), (2,)),
    "pool over channels": lambda x: lax.reduce_window(
        x, 0.0, lax.add, (1, 1, 1, 3), (1, 1, 1, 1), "SAME"
    ),
    "mean over pixels": lambda x: x.mean((1, 2)),
    "mean over channels": lambda x: x.mean(3),
    "sum over rows": lambda x: x.sum(1),
    "max over all": lambda x: x.max((1, 2, 3))[:, None],
    "max and min": lambda x: x.max(2) - x.min(2),
    "concatenation of channels": lambda x: jnp.concatenate(
        [conv(x, 3, 3, 4, 3), nn.tanh(x), x], 3
    ),
    "concatenation of rows": lambda x: jnp.concatenate(
        [x, x[:, 1:3], jnp.ones((x.shape[0], 1, 5, 4))], 1
    ),
    "a part that is used again": lambda x: (
        lambda y: (
            jnp.concatenate([y, nn.relu(conv(y, 1, 1, 3, 2))], 3).sum(3)
            + nn.sigmoid(y).sum(3)
        )
    )(conv(x, 3, 3, 4, 3)),
    "one value twice": lambda x: jnp.concatenate([nn.tanh(x)] * 2, 3),
    "pad": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 1), (2, 0)), constant_values=3),
    "pad and conv": lambda x: conv(
        jnp.pad(x, ((0, 0), (1, 0), (1, 0), (0, 0))), 3, 3, 4, 2, padding="VALID"
    ),
    "slice": lambda x: nn.relu(x[:, 1:6:2, ::3, 1:3]),
    "slice of what is flat": lambda x: nn.relu(x.reshape(x.shape[0], -1)[:, 7:50:3]),
    "split": lambda x: jnp.multiply(*jnp.split(x, 2, 3)),
    "channel shuffle": lambda x: conv(
        x.reshape(*x.shape[:3], 2, 2).swapaxes(3, 4).reshape(x.shape), 1, 1, 4, 3
    ),
    "space to depth": lambda x: conv(
        x.reshape(-1, 3, 2, 5, 4).transpose(0, 1, 3, 2, 4).reshape(-1, 3, 5, 8),
        *(2, 2, 8, 2),
    ),
    "transpose": lambda x: nn.tanh(x.transpose(0, 3, 1, 2)) + 1,
    "relu of what is flat": lambda x: nn.relu(conv(x, 1, 1, 4, 2).reshape(-1, 60)),
    "squeeze and excite": lambda x: (
        x
        * nn.sigmoid(nn.relu(x.mean((1, 2)) @ kernel(4, 2)) @ kernel(2, 4))[
            :, None, None
        ]
    ),
    "attention": attention,
    "upsampling": lambda x: jnp.repeat(jnp.repeat(x, 2, axis=1), 2, axis=2),
}


def parts(x):
    """Returns the results of all functions, each of them flat."""
    return [function(x).reshape(x.shape[0], -1) for function in FUNCTIONS.values()]


def everything(weights, x):
    """Returns the results of all functions, one after another."""
    del weights
    return jnp.concatenate(parts(x), 1)


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Results of all functions in C and in JAX, by name."""
    with jax.numpy_rank_promotion("allow"), jax.numpy_dtype_promotion("standard"):
        return compute(tmp_path_factory.mktemp("operations"))


def compute(folder):
    graph = simplify(trace(everything, {}, jax.ShapeDtypeStruct(SHAPE, jnp.float32)))
    code = c.encode_graph(graph, "net", storage="dense", classes=False)
    for suffix, content in code.files.items():
        (folder / f"net{suffix}").write_bytes(content)
    (folder / "main.c").write_text(MAIN)
    command = ["gcc", *STRICT, *SANITISED, "-o", "net", "main.c", "net.c", "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    inputs = np.random.default_rng(0).normal(size=(COUNT, *SHAPE)).astype(np.float32)
    done = subprocess.run(
        [folder / "net"], input=inputs.tobytes(), capture_output=True, check=True
    )
    assert done.stderr == b""
    found = np.frombuffer(done.stdout, np.float32).reshape(COUNT, -1)
    # One compilation is much cheaper than one for each function.
    expected = np.asarray(jax.jit(everything)({}, inputs))
    ends = np.cumsum([part.shape[1] for part in jax.eval_shape(parts, inputs)])
    assert ends[-1] == found.shape[1]
    return {
        name: (found[:, start:end], expected[:, start:end])
        for name, start, end in zip(FUNCTIONS, [0, *ends[:-1]], ends, strict=True)
    }


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_that_of_jax(results, name):
    found, expected = results[name]
    assert np.ptp(expected) > 0.1
    size = np.abs(expected).max()
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * size)


def test_what_c_cannot_compute_is_refused_by_name():
    def volumes(_, x):
        x = x.reshape(x.shape[0], 3, 2, 5, 4)
        return conv(x, 3, 3, 3, 4, 2)

    graph = simplify(trace(volumes, {}, jax.ShapeDtypeStruct(SHAPE, jnp.float32)))
    message = r"c: Conv .*\[3, 2, 5, 2\] is not supported; supported are 1-D and 2-D co"
    with pytest.raises(UnsupportedError, match=message):
        c.encode_graph(graph, "net")


def test_the_library_is_linked_only_where_it_is_used():
    for function, needed in ((nn.relu6, False), (nn.tanh, True)):
        shape = jax.ShapeDtypeStruct(SHAPE, jnp.float32)
        graph = simplify(trace(lambda _, x, f=function: f(x), {}, shape))
        files = c.encode_graph(graph, "net", classes=False).files
        assert (b"link with -lm" in files[".h"]) == needed
        assert (b"<math.h>" in files[".c"]) == needed
