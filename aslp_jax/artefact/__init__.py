"""The network that remains of a run, as one small file and as a function of images."""

from aslp_jax.artefact.description import Description
from aslp_jax.artefact.error import ArtefactError
from aslp_jax.artefact.extraction import extract
from aslp_jax.artefact.reading import load
from aslp_jax.artefact.recipe import Recipe
from aslp_jax.artefact.subnetwork import Entry, Subnetwork, embed
from aslp_jax.artefact.writing import save

NETWORK = "network.aslp"
"""What a finished run leaves in its folder; `aslp-jax extract` looks for it."""

__all__ = [
    "NETWORK",
    "ArtefactError",
    "Description",
    "Entry",
    "Recipe",
    "Subnetwork",
    "embed",
    "extract",
    "load",
    "save",
]
