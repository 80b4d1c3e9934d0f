"""Datasets that are read from their files while a network trains, image by image.

A dataset that does not fit the memory of a device is streamed: its images are found,
and decoded when a batch asks for them. `stream_sources` and `imagenet` find them,
`pipeline` reads them.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from aslp_jax.data import decoding

__all__ = ["STREAM_ABOVE", "Part", "Streamed"]

STREAM_ABOVE = 8 << 30
"""Size of all images above which a run streams them by itself, in bytes.

It counts every image as RGB of 8 bits, because none is decoded before.
"""

Crop = Callable[[decoding.Encoded, np.random.PCG64], np.ndarray]
"""Function from an encoded image and random words to a cropped one, uint8."""


@dataclasses.dataclass(frozen=True)
class Part:
    """Images of one part of a dataset, which can be read in any order.

    Attributes:
      count: number of images.
      read: function from the number of an image to the image, still encoded, and its
        label.
      decode: function from an encoded image to uint8 `[height, width, channels]`.
      crop: the same with a random crop, for training; None if images are augmented
        after they are decoded, on the device.
    """

    count: int
    read: Callable[[int], tuple[decoding.Encoded, int]]
    decode: Callable[[decoding.Encoded], np.ndarray]
    crop: Crop | None = None


@dataclasses.dataclass(frozen=True)
class Streamed:
    """A dataset in its files, with the facts that `datasets.Dataset` has.

    Attributes:
      name: "own", "imagenet", or `tfds:` and a name.
      train: training images.
      test: test images.
      image_shape: height, width and channels of every decoded image.
      classes: number of classes.
      mean: mean of each channel, for pixels in [0, 1]; None if it is not known.
      std: standard deviation of each channel, for pixels in [0, 1]; None if it is not
        known.
      validation: number of training images to hold out; see `datasets.split`.
      flip: True if a mirrored image keeps its label.
      source: origin of the images, in one line.
      files_sha256: SHA-256 of names and sizes of all files, and of all that says how
        images are decoded; hexadecimal. The content of images does not count.
      class_names: name of each class, in the order of labels; empty if not known.
    """

    name: str
    train: Part
    test: Part
    image_shape: tuple[int, int, int]
    classes: int
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    validation: int
    flip: bool
    source: str
    files_sha256: str
    class_names: tuple[str, ...] = ()

    @property
    def train_count(self) -> int:
        """Number of training images, before any is held out."""
        return self.train.count

    def images_sha256(self) -> str:
        """Returns `files_sha256`, because no image is read for it."""
        return self.files_sha256

    def labels_sha256(self) -> str:
        """Returns `files_sha256`, which the labels follow from."""
        return self.files_sha256
