"""The network that remains of a run, as one small file and as a function of images.

Public: the names below, `aslp_jax.artefact.inspect` and `aslp_jax.artefact.plot`.
Internal: every other module of this package. docs/artefact.md describes the format.
"""

from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.description import Description
from aslp_jax.artefact.encoding import save
from aslp_jax.artefact.extraction import extract
from aslp_jax.artefact.loading import load
from aslp_jax.artefact.source import Source
from aslp_jax.artefact.subnetwork import LayerWeights, Subnetwork, embed
from aslp_jax.artefact.weight_recipe import WeightRecipe

NETWORK = "network.aslp"
"""Name of the file that a finished run leaves in its folder."""

__all__ = [
    "NETWORK",
    "ArtefactError",
    "Description",
    "LayerWeights",
    "Source",
    "Subnetwork",
    "WeightRecipe",
    "embed",
    "extract",
    "load",
    "save",
]
