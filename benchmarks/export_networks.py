"""Networks whose exports are weighed: with random masks, and with none."""

import dataclasses
import statistics
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


def random_network(
    arch: str, shape: tuple[int, int, int], kept: float, seed: int = 0
) -> Subnetwork:
    """A network of signed constants with random masks that keep about `kept`."""
    constant = signed_constant(kaiming_normal())
    net = models.NETWORKS[arch](classes=10, conv_init=constant, dense_init=constant)
    model, key = Masked(net, ASLP(logit_std=1.0)), jax.random.key(seed)
    variables = jax.jit(model.init)(key, jnp.zeros((1, *shape)))
    middle = statistics.NormalDist().inv_cdf(kept)
    logits = jax.tree.map(lambda leaf: leaf + middle, variables["params"]["logits"])
    variables = {**variables, "params": {**variables["params"], "logits": logits}}
    about = artefact.Description(arch, 10, shape)
    return artefact.extract(model, variables, about, key=key)


def without_masks(subnetwork: Subnetwork) -> Subnetwork:
    """The same network with a number in the place of every weight that was dropped."""
    rng = np.random.default_rng(0)
    entries = {}
    for name, entry in subnetwork.entries.items():
        weights = entry.weights
        if entry.mask is not None:
            sizes = (
                np.abs(weights[entry.mask]) if entry.kept else np.ones(1, np.float32)
            )
            drawn = np.where(rng.random(weights.shape) < 0.5, 1, -1) * sizes.mean()
            weights = np.where(entry.mask, weights, drawn).astype(np.float32)
        entries[name] = make_layer_weights(name, weights)
    return dataclasses.replace(
        subnetwork,
        entries=entries,
        variables={
            **subnetwork.variables,
            "params": map_named(
                subnetwork.variables["params"],
                entries,
                lambda name, _: jnp.asarray(entries[name].weights),
            ),
        },
    )


def images_like(subnetwork: Subnetwork, count: int, folder: Path | None) -> np.ndarray:
    """The first test images of what the network was selected on, or random ones.

    Args:
      subnetwork: the network.
      count: how many, at the most.
      folder: prepared TFDS folder of CIFAR; None where there is none.
    """
    about = subnetwork.description
    if about.dataset == "digits":
        return datasets.load("digits").test_images[:count]
    if folder is not None and about.dataset in datasets.NAMES:
        return datasets.load(about.dataset, data_dir=folder).test_images[:count]
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (min(count, 8), *about.image_shape), np.uint8)
