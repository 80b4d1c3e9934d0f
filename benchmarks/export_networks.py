"""Networks to export: with random masks, and without masks."""

import argparse
import dataclasses
import statistics
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from aslp_jax import ASLP, Masked, artefact, models
from aslp_jax._tree import map_named
from aslp_jax.artefact import Subnetwork
from aslp_jax.artefact.subnetwork import make_layer_weights
from aslp_jax.data import datasets
from aslp_jax.models.initialisers import kaiming_normal, signed_constant


def add_networks(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name networks, and the images they are compared on."""
    parser.add_argument("files", nargs="*", type=Path, help="artefacts (.aslp)")
    parser.add_argument(
        "--archs", nargs="*", default=(), choices=tuple(models.NETWORKS)
    )
    parser.add_argument("--shape", default="32x32x3", help="of the images of --archs")
    parser.add_argument(
        "--keep",
        nargs="*",
        type=float,
        default=(0.5,),
        help="fractions of weights that the random masks keep (default: 0.5)",
    )
    parser.add_argument(
        "--data-dir",
        type=Path,
        help="prepared TFDS folder for networks of CIFAR (default: random images)",
    )
    parser.add_argument(
        "--images", type=int, default=1000, help="images to compare predictions on"
    )


def networks_of(options: argparse.Namespace) -> Iterator[tuple[str, Subnetwork]]:
    """Yields the networks of the command line, each with its label."""
    for path in options.files:
        subnetwork = artefact.load(path)
        about = subnetwork.description
        yield f"{about.arch} {about.dataset} {about.method}", subnetwork
    for arch in options.archs:
        for kept in options.keep:
            height, width, channels = map(int, options.shape.split("x"))
            shape = (height, width, channels)
            label = f"{arch} {options.shape} random"
            yield label, random_network(arch, shape, kept)


def random_network(
    arch: str, shape: tuple[int, int, int], keep_fraction: float, seed: int = 0
) -> Subnetwork:
    """Returns a network of signed constants with random masks.

    Args:
      arch: name of the network.
      shape: `(height, width, channels)` of an image.
      keep_fraction: expected fraction of kept weights.
      seed: seed of weights and masks.
    """
    constant = signed_constant(kaiming_normal())
    net = models.NETWORKS[arch](classes=10, conv_init=constant, dense_init=constant)
    model = Masked(net, ASLP(logit_std=1.0))
    description = artefact.Description(arch, 10, shape)
    return with_random_masks(model, description, keep_fraction, seed)


def with_random_masks(
    model: Masked, description: artefact.Description, keep_fraction: float, seed: int
) -> Subnetwork:
    """Returns a network with random masks.

    Args:
      model: the network, and ASLP with random initial logits of standard deviation 1.
      description: facts about the network.
      keep_fraction: expected fraction of kept weights.
      seed: seed of weights and masks.
    """
    key = jax.random.key(seed)
    variables = jax.jit(model.init)(key, jnp.zeros((1, *description.image_shape)))
    middle = statistics.NormalDist().inv_cdf(keep_fraction)
    logits = jax.tree.map(lambda leaf: leaf + middle, variables["params"]["logits"])
    variables = {**variables, "params": {**variables["params"], "logits": logits}}
    return artefact.extract(model, variables, description, key=key)


def without_masks(subnetwork: Subnetwork) -> Subnetwork:
    """Replaces every dropped weight by a nonzero number."""
    rng = np.random.default_rng(0)
    layers = {}
    for name, layer in subnetwork.layers.items():
        weights = layer.weights
        if layer.mask is not None:
            size = np.abs(weights[layer.mask]).mean() if layer.kept else np.float32(1)
            others = np.where(rng.random(weights.shape) < 0.5, 1, -1) * size
            weights = np.where(layer.mask, weights, others).astype(np.float32)
        layers[name] = make_layer_weights(name, weights)
    return dataclasses.replace(
        subnetwork,
        layers=layers,
        variables={
            **subnetwork.variables,
            "params": map_named(
                subnetwork.variables["params"],
                layers,
                lambda name, _: jnp.asarray(layers[name].weights),
            ),
        },
    )


def images_like(subnetwork: Subnetwork, count: int, folder: Path | None) -> np.ndarray:
    """Returns the first test images of the network's data set, or random images.

    Args:
      subnetwork: the network.
      count: largest number of images.
      folder: prepared TFDS folder of CIFAR; None if there is none.
    """
    description = subnetwork.description
    if description.dataset == "digits":
        return datasets.load("digits").test_images[:count]
    if folder is not None and description.dataset in datasets.NAMES:
        return datasets.load(description.dataset, data_dir=folder).test_images[:count]
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (min(count, 8), *description.image_shape), np.uint8)
