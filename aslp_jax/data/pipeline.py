"""Batches of streamed images, decoded ahead by threads. No other module imports Grain.

The order of the images is given, and the random words of a crop follow from a key and
the number of the image: a pipeline that begins in the middle of an epoch gives the
batches that one from its beginning gives there, bit for bit.
"""

import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from aslp_jax._extras import require
from aslp_jax.data.streamed import Part

__all__ = ["AHEAD", "Batch", "batches"]

AHEAD = 2
"""Batches that are decoded ahead of the one in use, the stated buffer of a pipeline."""


class Batch(NamedTuple):
    """Images and labels of one batch, on the host.

    Attributes:
      images: uint8 `[batch, height, width, channels]`.
      labels: int32 `[batch]`.
    """

    images: np.ndarray
    labels: np.ndarray


def batches(
    part: Part,
    rows: np.ndarray,
    batch_size: int,
    *,
    key: Sequence[int] | None = None,
    threads: int | None = None,
) -> Iterator[Batch]:
    """Yields the images of a part in a given order, in batches.

    Pillow decodes and resizes without Python's lock, so that threads use all cores.

    Args:
      part: images to read.
      rows: numbers of the images, int `[images]`, in the order wanted.
      batch_size: images of a batch.
      key: random words, each in [0, 2^64), that the crops of `part.crop` follow from;
        None (default) decodes images as for evaluation.
      threads: threads that decode, at least 1; None (default) for one a core.

    Yields:
      The batches. The last one is smaller if `batch_size` does not divide the images.

    Raises:
      MissingExtra: Grain is not installed.
      OSError: a file cannot be opened.
      ValueError: an image cannot be read.
    """
    require("grain", by="load: streaming of images")
    import grain

    crop = None if key is None else part.crop

    def load(row: np.integer) -> tuple[np.ndarray, np.int32]:
        encoded, label = part.read(int(row))
        if crop is None or key is None:
            return part.decode(encoded), np.int32(label)
        return crop(encoded, np.random.PCG64([*key, int(row)])), np.int32(label)

    cores = threads or os.cpu_count() or 1
    ahead = AHEAD * batch_size
    reading = grain.ReadOptions(min(cores, ahead), ahead)
    dataset = grain.MapDataset.source(rows).map(load).to_iter_dataset(reading)
    iterator = iter(dataset.batch(batch_size))
    try:
        for images, labels in iterator:
            yield Batch(images, labels)
    finally:
        iterator.close()
