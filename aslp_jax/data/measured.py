"""Datasets whose mean, deviation and sizes are measured, because none are published."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from aslp_jax.data.datasets import Dataset

_LONGEST_NAME = 200  # characters, as in an artefact
_LONGEST_NAMES = 1 << 19  # bytes of all names, half of an artefact's header


def dataset(
    name: str,
    path: Path,
    arrays: dict[str, np.ndarray],
    details: Sequence[str] = (),
    *,
    classes: int | None = None,
    class_names: tuple[str, ...] = (),
) -> Dataset:
    """Returns a dataset of arrays, with what is measured on its training images.

    Args:
      name: name of the dataset.
      path: origin of the images.
      arrays: uint8 `<part>_images` of `[n, height, width, channels]` and int32
        `<part>_labels` of `[n]`, where a part is "train" or "test".
      details: further words on the origin.
      classes: number of classes; default: the largest label of the training images,
        plus one.
      class_names: name of each class, in the order of labels; empty if not known.

    Returns:
      The dataset. A tenth of the training images, at least one, is to be held out for
      validation. Mirrored images are taken to keep their labels. A channel that is
      constant has the standard deviation 1.
    """
    train, test = len(arrays["train_labels"]), len(arrays["test_labels"])
    classes = classes or int(arrays["train_labels"].max()) + 1
    counts = f"{train:,} training and {test:,} test images of {classes} classes"
    mean, std = _channel_statistics(arrays["train_images"])
    return Dataset(
        name=name,
        **arrays,
        classes=classes,
        mean=mean,
        std=std,
        validation=max(1, train // 10),
        flip=True,
        source=", ".join([f"{path}: {counts}", *details]),
        class_names=class_names,
    )


def check_class_names(path: Path, names: tuple[str, ...]) -> None:
    """Checks that an artefact can hold the names of classes, before a run is trained.

    Args:
      path: origin of the names.
      names: name of each class.

    Raises:
      ValueError: a name is too long or not printable, or all are too long.
    """
    for name in names:
        if len(name) > _LONGEST_NAME or not name.isprintable():
            raise ValueError(
                f"load: {path} names a class {name!a:.80}; expected at most "
                f"{_LONGEST_NAME} printable characters"
            )
    size = sum(len(name.encode()) for name in names)
    if size > _LONGEST_NAMES:
        raise ValueError(
            f"load: {path} has names of classes of {size:,} bytes; expected at most "
            f"{_LONGEST_NAMES:,}"
        )


def _channel_statistics(
    images: np.ndarray,
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of each channel, for pixels in [0, 1]."""
    shades = np.arange(256) / 255
    means, stds = [], []
    for channel in range(images.shape[-1]):
        # Counts of each shade: floats of all pixels would take eight times the memory.
        counts = np.zeros(256, np.int64)
        for start in range(0, len(images), 256):
            pixels = images[start : start + 256, ..., channel]
            counts += np.bincount(pixels.ravel(), minlength=256)
        mean = float(np.average(shades, weights=counts))
        variance = float(np.average((shades - mean) ** 2, weights=counts))
        means.append(round(mean, 4))
        stds.append(round(variance**0.5, 4) or 1.0)
    return tuple(means), tuple(stds)
