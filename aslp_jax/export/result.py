"""What every format makes of a network: its files, and what it has to say of them."""

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from aslp_jax.artefact import Subnetwork
from aslp_jax.artefact.inspect import entropy
from aslp_jax.export.graph import Cost


class ExportResult(NamedTuple):
    """A network in another format.

    Attributes:
      files: contents by suffix; by an empty one where there is but one file, which may
        have any.
      before: what the layers take as they were selected; None where the format does not
        compute.
      after: what those in the files take, after compaction; None likewise.
      operations: multiply-adds (or additions) that are carried out for an image; None
        likewise.
      sparsity: what becomes of a weight that is dropped, in words.
    """

    files: Mapping[str, bytes]
    before: Cost | None
    after: Cost | None
    operations: int | None
    sparsity: str

    @property
    def content(self) -> bytes:
        """The content of the only file."""
        (content,) = self.files.values()
        return content


def report(subnetwork: Subnetwork, encoded: ExportResult) -> str:
    """Says in a few lines what a network takes in another format.

    Args:
      subnetwork: the network.
      encoded: what was made of it.

    Returns:
      Lines without a final line break.
    """
    masked = [
        each.factors for each in subnetwork.entries.values() if each.factors is not None
    ]
    weights = sum(each.size for each in masked)
    kept = sum(int(np.count_nonzero(each)) for each in masked)
    bits = sum(map(entropy, masked))
    share = kept / weights if weights else 1
    facts = [
        ("kept", f"{kept:,} of {weights:,} weights ({share:.1%})"),
        ("masks", f"{math.ceil(bits / 8):,} bytes by their entropy"),
    ]
    before, after = encoded.before, encoded.after
    if before is not None and after is not None:
        parameters = f"{after.parameters:,} parameters"
        work = f"{after.multiply_adds:,} multiply-adds an image"
        change = f"nothing taken out of {parameters}, {work}"
        if after.parameters < before.parameters:
            change = (
                f"{before.parameters:,} to {parameters}, "
                f"{before.multiply_adds:,} to {work}"
            )
        facts += [
            ("compacted", change),
            ("computes", f"{encoded.operations:,} of these, in float32"),
        ]
    return "\n".join(
        f"{name:<12}{text}" for name, text in [*facts, ("dropped", encoded.sparsity)]
    )
