"""Networks that are run on boards, each with images and their labels."""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

import aslp_jax
from aslp_jax import ASLP, Masked
from aslp_jax.artefact import Description, Subnetwork
from aslp_jax.data import datasets
from aslp_jax.models import initialisers
from benchmarks.export_networks import random_network, with_random_masks
from tests import mlperf_tiny

__all__ = ["NETWORKS", "Target"]

ROOT = Path(__file__).parents[1]

SEED = 0
"""Seed of weights, masks and images."""


class Target(NamedTuple):
    """A network and what it is run on.

    Attributes:
      network: the network.
      inputs: images uint8, or other inputs float32, `[count, *shape]`.
      labels: class of each image; None if nobody knows.
      calibration: inputs from which the ranges of integers are measured.
    """

    network: Subnetwork
    inputs: np.ndarray
    labels: np.ndarray | None
    calibration: np.ndarray


def digits() -> Target:
    """Returns the network of `examples/embedded`, with ten test images."""
    network = aslp_jax.load(ROOT / "examples" / "embedded" / "digits.aslp")
    data = datasets.load("digits")
    return Target(
        network, data.test_images[:10], data.test_labels[:10], data.train_images
    )


def with_noise(network: Subnetwork) -> Target:
    """Returns a network with one random input."""
    rng, shape = np.random.default_rng(SEED), network.description.image_shape
    if len(shape) == 3:
        inputs = rng.integers(0, 256, (65, *shape), np.uint8)
    else:
        inputs = rng.normal(size=(65, *shape)).astype(np.float32)
    return Target(network, inputs[:1], None, inputs[1:])


def cifar(arch: str, keep_fraction: float) -> Target:
    """Returns a network for images of 32x32x3 with random masks."""
    return with_noise(random_network(arch, (32, 32, 3), keep_fraction, SEED))


def trained_conv4() -> Target:
    """Returns a Conv4 that was selected on CIFAR-10, a tenth of its weights kept."""
    path = ROOT / "results" / "exports" / "conv4-cifar10-keep10.aslp"
    return with_noise(aslp_jax.load(path))


def reference(name: str) -> Target:
    """Returns a network of MLPerf Tiny with random masks that keep half."""
    about = mlperf_tiny.NETWORKS[name]
    description = Description(name, about.outputs, about.shape)
    if len(about.shape) != 3:
        description = dataclasses.replace(
            description, classes=None, output_shape=(about.outputs,)
        )
    model = Masked(
        about.linen(),
        ASLP(logit_std=1.0),
        weight_init=initialisers.signed_constant(initialisers.kaiming_normal()),
    )
    return with_noise(with_random_masks(model, description, 0.5, SEED))


NETWORKS: Mapping[str, Callable[[], Target]] = {
    "Conv2, digits, 50 %": digits,
    "Conv2, CIFAR-10, 50 %": lambda: cifar("conv2", 0.5),
    "Conv2, CIFAR-10, 10 %": lambda: cifar("conv2", 0.1),
    "Conv4, CIFAR-10, 50 %": lambda: cifar("conv4", 0.5),
    "Conv4, CIFAR-10, 10 %": trained_conv4,
    "ResNet-8": lambda: reference("resnet8"),
    "MobileNetV1 x0.25": lambda: reference("mobilenet"),
    "DS-CNN": lambda: reference("ds_cnn"),
    "autoencoder": lambda: reference("autoencoder"),
}
"""Functions that make the networks, by name."""
