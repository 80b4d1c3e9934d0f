"""Modules of packages on PyPI: masked, trained, saved, loaded and exported.

Nobody here wrote them, and they are used as they are.
"""

import ctypes
import functools
import re
import shutil
import subprocess
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import aslp_jax
from aslp_jax import ASLP, Masked, artefact, export, functional, train
from aslp_jax.artefact import Description, Subnetwork
from aslp_jax.models.initialisers import kaiming_normal, signed_constant
from tests.export.modules import promotion
from tests.export.networks import random_images, run_onnx

pytestmark = [
    pytest.mark.slow,
    # Of Flax, for the module of a package.
    pytest.mark.filterwarnings("ignore:SelfAttention will be deprecated"),
]

SHAPE, CLASSES, STEPS = (16, 16, 3), 10, 10
IMAGES = random_images(SHAPE, 8)
INPUTS = jnp.float32(IMAGES) / 255
LABELS = jnp.arange(8) % CLASSES
TO_IMAGES = Description("u_net", None, SHAPE, output_shape=SHAPE)
OPTIMISER = optax.adam(0.1)


@pytest.fixture(autouse=True)
def as_elsewhere():
    """These modules let JAX promote shapes and dtypes."""
    with promotion():
        yield


def resnet() -> Masked:
    """A residual network of jax-resnet, in Linen; one of its fields is a list."""
    package = pytest.importorskip("jax_resnet")
    net = package.ResNet(
        package.ResNetBlock,
        stage_sizes=[1, 1],
        hidden_sizes=(8, 16),
        n_classes=CLASSES,
        # Otherwise the last batch-norm of each block begins as, and remains, a 0.
        norm_cls=functools.partial(nn.BatchNorm, momentum=0.9, use_scale=False),
    )
    return Masked(net, ASLP(), weight_init=signed_constant(kaiming_normal()))


def transformer() -> functional.Model:
    """A vision transformer, in Linen; patches are one axis with the batch."""
    package = pytest.importorskip("transformer_in_transformer_flax")
    config = package.TNTConfig(
        num_classes=CLASSES,
        depth=1,
        image_size=16,
        patch_size=4,
        transformed_patch_size=2,
        inner_dim=8,
        inner_heads=2,
        inner_dim_head=4,
        inner_r=2,
        outer_dim=16,
        outer_heads=2,
        outer_dim_head=8,
        outer_r=2,
    )
    net = package.TransformerInTransformer(config)
    # The package's own weights of the last layer are 0, as all of their subsets are.
    return functional.Model(net, ASLP(), weight_init=kaiming_normal())


def of_equinox(make: Callable[[jax.Array], Any], channels_last: bool) -> Any:
    """Returns the masked network of a function from a key to an Equinox module.

    Args:
      make: the function.
      channels_last: True to move the channels of the outputs to the end.
    """
    eqx = pytest.importorskip("equinox")
    static = eqx.partition(make(jax.random.key(0)), eqx.is_inexact_array)[1]

    def init(key: jax.Array, inputs: jax.Array) -> Any:
        return eqx.filter(make(key), eqx.is_inexact_array)

    def apply(weights: Any, inputs: jax.Array) -> jax.Array:
        net = eqx.nn.inference_mode(eqx.combine(weights, static))
        outputs = jax.vmap(net)(jnp.moveaxis(inputs, -1, 1))
        return jnp.moveaxis(outputs, 1, -1) if channels_last else outputs

    return functional.Model(
        functional.stateless(init, apply),
        ASLP(),
        select=lambda name: name.endswith("weight") and "norm" not in name,
        # Weights of Equinox are [outputs, inputs, ...].
        weight_init=jax.nn.initializers.he_normal(in_axis=1, out_axis=0),
    )


def u_net() -> functional.Model:
    """A U-Net of pdequinox, in Equinox, that gives the images back."""
    arch = pytest.importorskip("pdequinox.arch")

    def make(key: jax.Array) -> Any:
        return arch.ClassicUNet(2, 3, 3, hidden_channels=4, num_levels=1, key=key)

    return of_equinox(make, channels_last=True)


def vision_transformer() -> functional.Model:
    """The plain vision transformer of equimo, in Equinox."""
    models = pytest.importorskip("equimo.models", reason="equimo is not in [test]")

    def make(key: jax.Array) -> Any:
        return models.VisionTransformer(
            img_size=16,
            in_channels=3,
            dim=16,
            patch_size=4,
            num_heads=2,
            depths=[1],
            num_classes=CLASSES,
            key=key,
        )

    return of_equinox(make, channels_last=False)


def conv_next() -> functional.Model:
    """A ConvNeXt of equimo, in Equinox."""
    models = pytest.importorskip("equimo.models", reason="equimo is not in [test]")

    def make(key: jax.Array) -> Any:
        return models.ConvNeXt(
            depths=[1, 1], dims=[8, 16], num_classes=CLASSES, key=key
        )

    return of_equinox(make, channels_last=False)


MODULES = {
    "resnet": resnet,
    "transformer": transformer,
    "u_net": u_net,
    "vision_transformer": vision_transformer,
    "conv_next": conv_next,
}


def fourier() -> functional.Model:
    """A Fourier neural operator of pdequinox, in Equinox."""
    arch = pytest.importorskip("pdequinox.arch")

    def make(key: jax.Array) -> Any:
        return arch.ClassicFNO(
            2, 3, 3, hidden_channels=4, num_modes=2, num_blocks=1, key=key
        )

    return of_equinox(make, channels_last=True)


class Trained(NamedTuple):
    """A masked network before and after its training."""

    model: Any
    before: train.TrainState
    after: train.TrainState
    losses: list[float]


@functools.cache
def trained(name: str) -> Trained:
    model = MODULES[name]()
    before = after = train.create(model, OPTIMISER, jax.random.key(0), INPUTS)
    if name == "u_net":
        step = functools.partial(reconstruct, model=model)
    else:
        step = functools.partial(
            train.step,
            inputs=INPUTS,
            labels=LABELS,
            model=model,
            optimiser=OPTIMISER,
        )
    step, losses = jax.jit(step), []
    for seed in range(STEPS):
        after, loss, *_ = step(after, key=jax.random.key(seed))
        losses.append(float(loss))
    return Trained(model, before, after, losses)


def reconstruct(
    state: train.TrainState, *, key: jax.Array, model: functional.Model
) -> tuple[train.TrainState, jax.Array]:
    """Takes a step of the mean squared error between outputs and inputs."""
    net = functional.network(model.net)

    def error(params: Any) -> jax.Array:
        weights = model.method.effective_weights(state.frozen, params, key=key)
        outputs, _ = net.apply(weights, state.collections, INPUTS, train=True, key=key)
        return jnp.mean((outputs - INPUTS) ** 2)

    loss, gradients = jax.value_and_grad(error)(state.params)
    updates, opt_state = OPTIMISER.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    return state.replace(params=params, opt_state=opt_state), loss


@functools.cache
def extracted(name: str) -> Subnetwork:
    model, _, state, _ = trained(name)
    about = Description(name, CLASSES, SHAPE)
    if name == "u_net":
        about = TO_IMAGES
    return artefact.extract(model, state.variables, about, key=jax.random.key(0))


@functools.cache
def outputs_of(name: str) -> np.ndarray:
    outputs = np.asarray(extracted(name)(IMAGES))
    assert np.isfinite(outputs).all() and np.ptp(outputs, axis=0).max() > 1e-2
    return outputs


def assert_close(found: np.ndarray, expected: np.ndarray) -> None:
    assert found.shape == expected.shape
    tolerance = 1e-4 * np.ptp(expected)
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance)


EVERY = pytest.mark.parametrize("name", MODULES)


@EVERY
def test_ten_steps_change_what_is_learnt_alone(name):
    _, before, after, losses = trained(name)
    assert len(losses) == STEPS and np.isfinite(losses).all()
    assert len(set(losses)) == STEPS
    for old, new in zip(
        *map(jax.tree.leaves, (before.frozen, after.frozen)), strict=True
    ):
        np.testing.assert_array_equal(old, new)
    changed = [
        not np.array_equal(old, new)
        for old, new in zip(
            *map(jax.tree.leaves, (before.params, after.params)), strict=True
        )
    ]
    # The transformer leaves the last output of its inner attention unused.
    assert all(changed) or (name == "transformer" and any(changed))


@EVERY
def test_a_file_holds_the_network(name, tmp_path):
    path = tmp_path / "net.aslp"
    artefact.save(extracted(name), path)
    read = aslp_jax.load(path, net=trained(name).model.net)
    np.testing.assert_array_equal(read(IMAGES), outputs_of(name))
    masks = [each.mask for each in read.layers.values() if each.mask is not None]
    assert any(0 < mask.mean() < 1 for mask in masks)


@EVERY
def test_onnx_computes_the_network(name, tmp_path):
    path = tmp_path / "net.onnx"
    export.write(extracted(name), "onnx", path)
    assert_close(run_onnx(path.read_bytes(), IMAGES), outputs_of(name))


@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
@EVERY
def test_c_computes_the_network(name, tmp_path):
    export.write(extracted(name), "c", tmp_path / "net.c")
    command = "gcc -std=c99 -Wall -Wextra -Werror -O1 -shared -fPIC net.c -o net.so -lm"
    subprocess.run(command.split(), cwd=tmp_path, check=True)
    library, expected = ctypes.CDLL(str(tmp_path / "net.so")), outputs_of(name)
    run = library.net_run if name == "u_net" else library.net_logits
    found = np.zeros(expected.shape, np.float32)
    for image, outputs in zip(IMAGES, found, strict=True):
        run(
            image.ctypes.data_as(ctypes.c_void_p),
            outputs.ctypes.data_as(ctypes.c_void_p),
        )
    assert_close(found, expected)


def test_a_fourier_transform_is_refused_by_name(tmp_path):
    model = fourier()
    variables = functional.init(model, jax.random.key(0), INPUTS)
    network = artefact.extract(model, variables, TO_IMAGES)
    with pytest.raises(ValueError) as refused:
        export.write(network, "c", tmp_path / "net.c")
    assert re.fullmatch(
        r"trace: fft is not supported \(.*test_public_modules\.py:\d+\); supported "
        r"primitives are abs, add, .*, xor",
        str(refused.value),
    )
    path = tmp_path / "net.stablehlo"
    export.write(network, "stablehlo", path)
    run = jax.export.deserialize(bytearray(path.read_bytes())).call
    assert_close(np.asarray(run(IMAGES)), np.asarray(network(IMAGES)))
