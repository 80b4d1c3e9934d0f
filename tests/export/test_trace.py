"""Traced graphs compute what the function does, whatever framework it is written in."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.export.operations import Conv, Dense, run
from aslp_jax.export.refusal import UnsupportedError
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import trace
from tests.helpers import quick_only


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


def one_example(weights, x):
    """A network of one example, channels first, as vmapped libraries write it."""
    x = x.transpose(2, 0, 1)[None]
    kernel = weights["a"].T[:, :, None, None]
    x = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID")[0]
    x = jnp.tanh(x * jnp.arange(1.0, 5)[:, None, None]).mean((1, 2))
    return weights["a"] @ x + 1


WEIGHTS = {"a": np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)}


FUNCTIONS = [
    lambda w, x: jnp.einsum("bhwc,cd->bhwd", x, w["a"]),
    lambda w, x: jnp.einsum("bhwc,bhwd->bcd", x, x),
    lambda w, x: jnp.clip(x, -0.5, 0.25) ** 3 - 2 / (3 + x**2),
    lambda w, x: jnp.where(x > 0, 2.0, jnp.where(x < -1, x, -x)),
    lambda w, x: jnp.pad(x, ((0, 0), (1, 2), (0, 0), (0, 1)), constant_values=3.0),
    lambda w, x: jax.lax.pad(x, 0.0, ((0, 0, 0), (-1, 1, 0), (0, -2, 0), (0, 0, 0))),
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
    jax.vmap(one_example, in_axes=(None, 0)),
    lambda w, x: jnp.einsum("oc,bhwc->ohwb", w["a"].T, x).transpose(3, 1, 2, 0),
    lambda w, x: jax.lax.reduce_window(
        x, jnp.inf, jax.lax.min, (1, 2, 1, 3), (1, 1, 1, 1), "VALID"
    ),
    lambda w, x: jax.lax.dynamic_slice(x, (0, 4, 0, 1), (x.shape[0], 4, 5, 2)),
    lambda w, x: jnp.where(jnp.isfinite(x / jnp.maximum(x, 0)), 1.0, x),
]


@pytest.mark.parametrize("fn", quick_only(FUNCTIONS, *FUNCTIONS[::3]))
def test_functions(fn):
    check(fn, WEIGHTS, (6, 5, 3))


@pytest.mark.parametrize(
    ("fn", "words"),
    [
        (lambda w, x: jnp.cumsum(x, 1), "trace: cumsum is not supported"),
        (lambda w, x: x - x.mean(0), "across the examples of a batch"),
        (lambda w, x: x.reshape(-1, 3), "reshape across the examples of a batch"),
        (
            lambda w, x: jax.nn.softmax(x.reshape(-1, 3), 0).reshape(x.shape),
            "reshape across the examples of a batch",
        ),
        (
            lambda w, x: jnp.cumsum(x.reshape(-1, 3), 1).reshape(x.shape),
            "reshape across the examples of a batch",
        ),
        (lambda w, x: jnp.argmax(x, -1) + 0.0, "trace: argmax is not supported"),
        (lambda w, x: (x, x), "the function returns 2 arrays; expected one"),
        (lambda w, x: w["a"], "the outputs do not depend on the inputs"),
        (lambda w, x: x.swapaxes(0, 1), "the batch is axis 1 of the outputs; expected"),
        (lambda w, x: x + jnp.arange(x.shape[0])[:, None, None, None], "from example"),
        (lambda w, x: x.astype(jnp.int32) + 1, "convert_element_type to int32"),
        (lambda w, x: x * x[:1], "across the examples of a batch"),
        (lambda w, x: jnp.einsum("bhwc,chd->bhwd", x, jnp.ones((3, 6, 2))), "each ind"),
        (lambda w, x: x[:, [0, 1], [1, 2]], "trace: gather along several axes is not"),
        (lambda w, x: jnp.flip(x, 0), "rev across the examples of a batch"),
        (lambda w, x: jnp.tile(x, (2, 1, 1, 1)), "tile across the examples"),
        (
            lambda w, x: jax.lax.while_loop(lambda y: y.sum() < 9, lambda y: y + 1, x),
            "trace: while is not supported",
        ),
        (
            lambda w, x: jax.lax.scan(lambda y, _: (y, y), x, length=2)[1],
            "scan with a result of each step",
        ),
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


@pytest.mark.slow
def test_windows_may_be_joined_with_the_batch():
    """As in a Swin transformer: attention in each window of 2x2 pixels."""

    def apply(weights, x):
        examples, height, width, channels = x.shape
        split = (examples, height // 2, 2, width // 2, 2, channels)
        windows = x.reshape(split).swapaxes(2, 3).reshape(-1, 4, channels)
        query = windows @ weights["kernel"]
        mixed = jax.nn.softmax(query @ windows.swapaxes(1, 2)) @ windows
        apart = mixed.reshape(examples, height // 2, width // 2, 2, 2, channels)
        return apart.swapaxes(2, 3).reshape(x.shape) + x

    kernel = np.random.default_rng(1).normal(size=(3, 3)).astype(np.float32)
    graph = check(apply, {"kernel": kernel}, (4, 6, 3))
    assert "kernel" in [getattr(node.operation, "name", "") for node in graph.nodes]


def test_a_line_of_ones_own_goes_before_one_of_an_installed_package(tmp_path):
    path = tmp_path / "site-packages" / "other.py"
    scope = {}
    source = "import jax.numpy as jnp\ndef apply(w, x): return jnp.cumsum(x, 1)\n"
    exec(compile(source, path, "exec"), scope)
    for fn, place in (
        (scope["apply"], r"site-packages/other\.py:2"),
        (lambda w, x: scope["apply"](w, x), r"test_trace\.py"),
    ):
        with pytest.raises(UnsupportedError, match=rf"\(.*{place}.*\); supported"):
            trace(fn, WEIGHTS, jnp.zeros((6, 5, 3)))


def test_a_bfloat16_network_is_traced_in_float32():
    net = nn.Sequential(
        [
            nn.Conv(4, (3, 3), dtype=jnp.bfloat16),
            nn.BatchNorm(use_running_average=True, dtype=jnp.bfloat16),
            nn.relu,
            lambda x: x.mean((1, 2)).astype(jnp.float32),
            nn.Dense(3, dtype=jnp.bfloat16),
        ]
    )
    rng = np.random.default_rng(0)
    with jax.numpy_dtype_promotion("standard"):
        shapes = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 6, 5, 2)))
    variables = jax.tree.map(
        lambda leaf: rng.uniform(0.5, 1.5, leaf.shape).astype(np.float32), shapes
    )
    with jax.numpy_dtype_promotion("standard"):
        small = simplify(trace(net.apply, variables, jnp.zeros((6, 5, 2))))
    kinds = [type(node.operation).__name__ for node in small.nodes]
    assert kinds == ["Conv", "Binary", "Reduce", "Dense"]
    conv, *_, dense = [node.operation for node in small.nodes]
    # Nothing was rounded: the kernels are those of the tree, and named.
    params = variables["params"]
    np.testing.assert_array_equal(conv.kernel, params["layers_0"]["kernel"])
    np.testing.assert_array_equal(dense.kernel, params["layers_4"]["kernel"])
    assert dense.name == "params/layers_4/kernel"
    stats = variables["batch_stats"]["layers_1"]
    scale = params["layers_1"]["scale"] / np.sqrt(stats["var"] + 1e-5)
    np.testing.assert_allclose(conv.scale, scale, rtol=1e-6)
    shift = (params["layers_0"]["bias"] - stats["mean"]) * scale
    np.testing.assert_allclose(
        conv.shift, shift + params["layers_1"]["bias"], rtol=1e-5
    )


def test_a_kernel_in_another_order_knows_its_weight():
    weights = {"a": np.arange(24, dtype=np.float32).reshape(4, 3, 2, 1)}

    def fn(w, x):
        kernel = jnp.flip(w["a"], 2).transpose(2, 3, 1, 0) * 2.0
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return w["a"].reshape(3, 8).T @ x.reshape(x.shape[0], -1, 3)[..., None]

    def other(w, x):
        return x @ (w["a"].reshape(3, 8) - 1)

    graph = trace(lambda w, x: fn(w, x @ jnp.eye(3)), weights, jnp.zeros((6, 5, 3)))
    conv = next(n.operation for n in graph.nodes if isinstance(n.operation, Conv))
    dense = [n.operation for n in graph.nodes if isinstance(n.operation, Dense)]
    assert conv.name == "" and conv.origin.name == "a"
    np.testing.assert_array_equal(2 * conv.origin.arrange(weights["a"]), conv.kernel)
    assert [each.origin.name for each in dense if each.origin] == ["a"]
    # Arithmetic that moves zeros has no origin.
    (found,) = trace(other, weights, jnp.zeros((3,))).nodes
    assert found.operation.origin is None and found.operation.name == ""
