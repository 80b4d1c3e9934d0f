"""The network that remains of a run, as one small file and as a function of images."""

from aslp_jax.artefact.extraction import extract
from aslp_jax.artefact.reading import load
from aslp_jax.artefact.recipe import Recipe
from aslp_jax.artefact.subnetwork import (
    ArtefactError,
    Description,
    Entry,
    Subnetwork,
    embed,
)
from aslp_jax.artefact.writing import save

__all__ = [
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
