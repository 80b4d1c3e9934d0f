"""Result of an export: the contents of its files, and the cost of the network."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from aslp_jax.artefact import Subnetwork
from aslp_jax.artefact.packing import mask_entropy
from aslp_jax.export.cost import Cost

__all__ = ["MULTIPLIED_AS_ZEROS", "ExportResult", "report"]

MULTIPLIED_AS_ZEROS = "weights are multiplied as zeros; only compaction saves time"
"""Sentence about dropped weights for formats that multiply dense matrices."""


class ExportResult(NamedTuple):
    """Network in another format.

    Attributes:
      files: contents by file suffix. The suffix is empty if there is one file only,
        which may have any suffix.
      before: cost of the selected layers; None if the format does not compute.
      after: cost of the layers in the files, after compaction; None if the format does
        not compute.
      operations: multiply-adds (or additions) that run for one image; None if the
        format does not compute.
      dropped: effect of the dropped weights on size and time. The sentence's subject
        is "dropped", the label before it in `report`.
      numbers: dtype of the numbers between layers. Default: `"float32"`.
    """

    files: Mapping[str, bytes]
    before: Cost | None
    after: Cost | None
    operations: int | None
    dropped: str
    numbers: str = "float32"

    @property
    def content(self) -> bytes:
        """Content of the only file."""
        (content,) = self.files.values()
        return content


def report(subnetwork: Subnetwork, result: ExportResult) -> str:
    """Summarises in a few lines the size and cost of a network in another format.

    Args:
      subnetwork: the network.
      result: its export.

    Returns:
      Lines without a final line break.
    """
    masks = [
        each.ternary_mask
        for each in subnetwork.layers.values()
        if each.ternary_mask is not None
    ]
    weights = sum(each.size for each in masks)
    kept = sum(int(np.count_nonzero(each)) for each in masks)
    bits = sum(map(mask_entropy, masks))
    keep_fraction = kept / weights if weights else 1
    facts = [
        ("kept", f"{kept:,} of {weights:,} weights ({keep_fraction:.1%})"),
        ("masks", f"{math.ceil(bits / 8):,} bytes by their entropy"),
    ]
    before, after = result.before, result.after
    if before is not None and after is not None:
        parameters = f"{after.parameters:,} parameters"
        work = f"{after.multiply_adds:,} multiply-adds an image"
        change = f"nothing removed from {parameters}, {work}"
        if after.parameters < before.parameters:
            change = (
                f"{before.parameters:,} to {parameters}, "
                f"{before.multiply_adds:,} to {work}"
            )
        facts += [
            ("compacted", change),
            ("computes", f"{result.operations:,} of these, in {result.numbers}"),
        ]
    facts.append(("dropped", result.dropped))
    return "\n".join(f"{name:<12}{text}" for name, text in facts)
