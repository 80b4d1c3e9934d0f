import functools
import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from aslp_jax.models import ConvNet
from aslp_jax.ops.convolution import conv_in_loop

LAYOUT = ("NHWC", "HWIO", "NHWC")
PADDINGS = ["SAME", "VALID", ((0, 2), (1, 0)), [(3, 1), (0, 4)], ((-1, 0), (0, 1))]
KERNELS = [(3, 3), (1, 1), (5, 3)]
UNEVEN = ((0, 2), (3, 0))


def normal(*shape, seed=0):
    drawn = np.random.default_rng([seed, *shape]).normal(size=shape)
    return jnp.asarray(drawn, jnp.float32)


def value_and_gradients(convolve, inputs, kernel):
    """The result, and the gradients of a fixed linear reading of it."""

    @jax.jit
    def run(inputs, kernel):
        result, pull = jax.vjp(convolve, inputs, kernel)
        return result, *pull(normal(*result.shape, seed=1))

    return run(inputs, kernel)


def assert_laxs(call, inputs, kernel):
    """Compares what `call` makes of our convolution and of lax's, in one program."""

    @jax.jit
    def both(inputs, kernel):
        return [
            value_and_gradients(functools.partial(call, convolve), inputs, kernel)
            for convolve in (conv_in_loop, lax.conv_general_dilated)
        ]

    assert_same(*both(inputs, kernel))


def assert_same(ours, theirs):
    for one, other in zip(ours, theirs, strict=True):
        assert one.shape == other.shape and one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=2e-5)


@pytest.mark.slow
@pytest.mark.parametrize("size", KERNELS)
@pytest.mark.parametrize("padding", PADDINGS)
def test_value_and_gradients_are_laxs(padding, size):
    inputs, kernel = normal(2, 7, 6, 3), normal(*size, 3, 4)
    assert_laxs(
        lambda f, x, k: f(x, k, (1, 1), padding, dimension_numbers=LAYOUT),
        inputs,
        kernel,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    "size, padding",
    [
        *(((3, 3), pad) for pad in ("SAME", "VALID", ((1, 1), (1, 1)), UNEVEN)),
        *(((1, 1), pad) for pad in ("SAME", UNEVEN)),
    ],
)
@pytest.mark.parametrize(
    "strides, height, width", [((2, 2), 7, 6), ((2, 2), 2, 3), ((1, 2), 8, 5)]
)
def test_strides_are_laxs(strides, height, width, padding, size):
    inputs, kernel = normal(2, height, width, 3), normal(*size, 3, 4)
    assert_laxs(
        lambda f, x, k: f(x, k, strides, padding, dimension_numbers=LAYOUT),
        inputs,
        kernel,
    )


@pytest.mark.slow
@pytest.mark.parametrize("size, pad", [(3, 1), (1, 0)])
@pytest.mark.parametrize("side", [8, 9])
def test_strides_in_bfloat16(side, size, pad):
    inputs, kernel = normal(4, side, side, 6), normal(size, size, 6, 5)
    pads = ((pad, pad), (pad, pad))

    def run(convolve, dtype):
        return value_and_gradients(
            lambda x, k: convolve(
                x.astype(dtype),
                k.astype(dtype),
                (2, 2),
                pads,
                dimension_numbers=LAYOUT,
            ).astype(jnp.float32),
            inputs,
            kernel,
        )

    ours = run(conv_in_loop, jnp.bfloat16)
    theirs = run(lax.conv_general_dilated, jnp.float32)
    for one, other in zip(ours, theirs, strict=True):
        # Rounded factors and a rounded result: no more than a few of 2^-9 each.
        scale = float(jnp.abs(other).max())
        np.testing.assert_allclose(one, other, atol=0.01 * scale)


@pytest.mark.parametrize("pads", [((3, 1), (2, 2)), ((2, 2), (3, 1)), ((4, 4), (0, 0))])
def test_more_padding_than_the_kernel_reaches(pads):
    # Beside a convolution of images padded before it, whose gradient needs no crop.
    def padded(x, k):
        x = jnp.pad(x, ((0, 0), *pads, (0, 0)))
        return lax.conv_general_dilated(x, k, (1, 1), "VALID", dimension_numbers=LAYOUT)

    def ours(x, k):
        return conv_in_loop(x, k, (1, 1), pads, dimension_numbers=LAYOUT)

    inputs, kernel = normal(2, 7, 6, 3), normal(3, 3, 3, 4)
    assert_same(
        value_and_gradients(ours, inputs, kernel),
        value_and_gradients(padded, inputs, kernel),
    )


def test_a_kernel_larger_than_the_image_gets_no_gradient():
    inputs, kernel = normal(2, 1, 2, 3), normal(5, 5, 3, 4)
    value, *gradients = value_and_gradients(
        lambda x, k: conv_in_loop(x, k, (1, 1), "VALID", dimension_numbers=LAYOUT),
        inputs,
        kernel,
    )
    assert value.shape == (2, 0, 0, 4)
    for gradient, source in zip(gradients, (inputs, kernel), strict=True):
        np.testing.assert_array_equal(gradient, jnp.zeros_like(source))


@pytest.mark.parametrize(("height", "width"), [(1, 1), (2, 2), (2, 3), (1, 7)])
def test_tiny_images_are_convolved_alike(height, width):
    inputs, kernel = normal(3, height, width, 5), normal(3, 3, 5, 4)
    assert_laxs(
        lambda f, x, k: f(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT),
        inputs,
        kernel,
    )


def test_tiny_images_become_one_matmul():
    def primitives(size):
        inputs, kernel = normal(1, size, size, 2), normal(3, 3, 2, 2)
        convolve = functools.partial(conv_in_loop, dimension_numbers=LAYOUT)
        return str(
            jax.make_jaxpr(lambda x, k: convolve(x, k, (1, 1), "SAME"))(inputs, kernel)
        )

    assert "conv_general_dilated" not in primitives(2)
    assert "conv_general_dilated" in primitives(8)


@pytest.mark.parametrize(
    "strides, options",
    [
        ((3, 3), {}),
        ((1, 3), {}),
        ((1, 1), {"rhs_dilation": (2, 1)}),
        ((1, 1), {"lhs_dilation": (1, 2)}),
        ((1, 1), {"feature_group_count": 2}),
        ((1, 1), {"batch_group_count": 2}),
    ],
)
def test_other_convolutions_are_laxs(strides, options):
    kernel = normal(3, 3, 2 if "feature_group_count" in options else 4, 4)
    pads = ((1, 1), (0, 2))
    assert_laxs(
        lambda f, x, k: f(x, k, strides, pads, dimension_numbers=LAYOUT, **options),
        normal(2, 7, 6, 4),
        kernel,
    )


def test_preferred_element_type_is_kept():
    inputs, kernel = normal(2, 5, 5, 3), normal(3, 3, 3, 4)
    inputs, kernel = inputs.astype(jnp.bfloat16), kernel.astype(jnp.bfloat16)
    options = {"dimension_numbers": LAYOUT, "preferred_element_type": jnp.float32}
    result = conv_in_loop(inputs, kernel, (1, 1), "SAME", **options)
    assert result.dtype == jnp.float32
    expected = lax.conv_general_dilated(inputs, kernel, (1, 1), "SAME", **options)
    np.testing.assert_array_equal(result, expected)


def test_other_layouts_are_laxs():
    inputs, kernel = normal(2, 3, 7, 6), normal(4, 3, 3, 3)
    assert_laxs(lambda f, x, k: f(x, k, (1, 1), "SAME"), inputs, kernel)


def test_one_and_three_axes_are_laxs():
    one, three = ("NWC", "WIO", "NWC"), ("NDHWC", "DHWIO", "NDHWC")
    for size, layout in (((5,), one), ((4, 3, 5), three)):
        strides = (1,) * len(size)
        inputs, kernel = normal(2, *size, 3), normal(*[3] * len(size), 3, 2)
        ours, theirs = (
            value_and_gradients(
                lambda x, k, f=f, strides=strides, layout=layout: f(
                    x, k, strides, "SAME", dimension_numbers=layout
                ),
                inputs,
                kernel,
            )
            for f in (conv_in_loop, lax.conv_general_dilated)
        )
        assert_same(ours, theirs)


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"padding": "VALID", "kernel_size": (5, 3)},
        {"padding": 2},
        {"padding": ((0, 1), (2, 0))},
        {"padding": "CIRCULAR"},
        {"strides": 2},
        {"strides": 2, "padding": 1},
        {"strides": 3},
        {"kernel_dilation": 2},
        {"input_dilation": 2, "padding": 1},
        {"feature_group_count": 3},
    ],
)
def test_as_the_convolution_of_a_flax_layer(key, options):
    options = {"features": 6, "kernel_size": (3, 3)} | options
    inputs = normal(2, 7, 6, 3)
    plain = nn.Conv(**options)
    ours = nn.Conv(**options, conv_general_dilated=conv_in_loop)
    shape = jax.eval_shape(plain.init, key, inputs)["params"]["kernel"].shape
    kernel = normal(*shape, seed=2)
    bias = normal(6)

    def layer(module):
        return lambda x, k: module.apply({"params": {"kernel": k, "bias": bias}}, x)

    @jax.jit
    def both(inputs, kernel):
        return [
            value_and_gradients(layer(each), inputs, kernel) for each in (ours, plain)
        ]

    assert_same(*both(inputs, kernel))


@pytest.mark.slow
def test_the_gradient_of_a_network_is_the_same(key):
    options = {"stages": (3,), "classes": 3, "hidden": ()}
    images = normal(2, 6, 7, 2)
    params = jax.jit(ConvNet(**options).init)(key, images)

    def gradient(net):
        def loss(params):
            return jnp.square(net.apply(params, images)).sum()

        return jax.jit(jax.grad(loss))(params)

    ours = gradient(ConvNet(**options, conv_general_dilated=conv_in_loop))
    theirs = gradient(ConvNet(**options))
    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(
            a, b, rtol=1e-4, atol=1e-5 * float(jnp.abs(b).max())
        ),
        ours,
        theirs,
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_vmap_over_kernels(stride):
    inputs, kernels = normal(2, 7, 6, 3), normal(5, 3, 3, 3, 4)

    def value_and_slopes(kernel, convolve):
        def total(x, k):
            strides = (stride, stride)
            result = convolve(x, k, strides, "SAME", dimension_numbers=LAYOUT)
            return jnp.square(result).sum(), result

        slopes, result = jax.grad(total, (0, 1), has_aux=True)(inputs, kernel)
        return result, *slopes

    together = jax.jit(jax.vmap(lambda k: value_and_slopes(k, conv_in_loop)))(kernels)
    one = jax.jit(lambda k: value_and_slopes(k, lax.conv_general_dilated))
    apart = [one(kernel) for kernel in kernels]
    for many, *ones in zip(together, *apart, strict=True):
        np.testing.assert_allclose(many, np.stack(ones), rtol=1e-5, atol=2e-4)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_dtype_is_kept(dtype):
    inputs, kernel = normal(2, 5, 5, 3).astype(dtype), normal(3, 3, 3, 4).astype(dtype)

    def total(x, k):
        result = conv_in_loop(x, k, (1, 1), "SAME", dimension_numbers=LAYOUT)
        assert result.dtype == dtype
        return result.astype(jnp.float32).sum()

    gradients = jax.eval_shape(jax.grad(total, (0, 1)), inputs, kernel)
    assert [g.dtype for g in gradients] == [dtype, dtype]


def test_precision_reaches_the_gradients():
    def total(x, k):
        return conv_in_loop(
            x, k, (1, 1), "SAME", dimension_numbers=LAYOUT, precision="highest"
        ).sum()

    program = jax.make_jaxpr(jax.grad(total, (0, 1)))(
        normal(2, 5, 5, 3), normal(3, 3, 3, 4)
    )
    precisions = [
        equation.params["precision"]
        for equation in program.eqns
        if "precision" in equation.params
    ]
    # The kernel's gradient is nine products, the inputs' one convolution.
    assert len(precisions) >= 10
    for precision in precisions:
        assert set(precision) == {lax.Precision.HIGHEST}


def compiled_epoch(key, conv, stride):
    """Program of two layers trained by SGD in one compiled loop, as an epoch is."""
    batches = normal(3, 2, 8, 9, 5)
    layers = nn.Sequential(
        [
            nn.Conv(features, (3, 3), stride, conv_general_dilated=conv)
            for features in (7, 11)
        ]
    )
    params = jax.eval_shape(layers.init, key, batches[0])

    def step(params, images):
        def loss(params):
            return jnp.square(layers.apply(params, images)).mean()

        slope = jax.grad(loss)(params)
        return jax.tree.map(lambda p, g: p - 0.1 * g, params, slope), ()

    def epoch(params):
        return lax.scan(step, params, batches)[0]

    return jax.jit(epoch).lower(params).compile().as_text()


def convolved(text):
    """Shapes of the results of a program's convolutions, axes in order of size."""
    results = re.findall(r"= \w+\[([\d,]+)\]\S* convolution\(", text)
    return [tuple(sorted(map(int, shape.split(",")))) for shape in results]


@pytest.mark.slow
@pytest.mark.parametrize("stride", [1, 2])
def test_no_kernel_gradient_convolution_in_a_compiled_loop(key, stride):
    # Results in the shape of a kernel (in any order of axes) are what is slow there.
    kernels = [(3, 3, 5, 7), (3, 3, 7, 11)]
    plain = convolved(compiled_epoch(key, None, stride))
    assert set(kernels) < set(plain)  # what is looked for, where it is to be found
    ours = convolved(compiled_epoch(key, conv_in_loop, stride))
    assert ours and not set(kernels) & set(ours)


def test_convolutions_in_a_compiled_loop(key):
    ours = convolved(compiled_epoch(key, conv_in_loop, 1))
    # Two results and the gradient of the second's inputs remain.
    layer_outputs = [(2, 7, 8, 9), (2, 7, 8, 9), (2, 8, 9, 11)]
    assert sorted(ours) == layer_outputs


def test_no_gradient_is_spread_with_zeros():
    # As `jax.lax` does for the inputs' at stride 2: slow in a loop too.
    def dilations(convolve):
        def total(x):
            kernel = normal(3, 3, 2, 2)
            pads = ((1, 1), (1, 1))
            return convolve(x, kernel, (2, 2), pads, dimension_numbers=LAYOUT).sum()

        program = jax.make_jaxpr(jax.grad(total))(normal(1, 12, 12, 2))
        return [
            equation.params["lhs_dilation"]
            for equation in program.eqns
            if equation.primitive.name == "conv_general_dilated"
        ]

    assert (2, 2) in dilations(lax.conv_general_dilated)
    ours = dilations(conv_in_loop)
    # The result, and the gradient of four phases.
    assert len(ours) == 5 and set(ours) == {(1, 1)}
