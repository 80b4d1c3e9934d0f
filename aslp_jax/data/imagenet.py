"""ImageNet (ILSVRC 2012) out of a prepared TFDS folder, streamed.

Training images are cropped at random while they are decoded, because a crop is taken
from the whole image and not from a resized one. So they are never held in memory.
"""

import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from aslp_jax.data import decoding, tfds_folder, tfds_metadata
from aslp_jax.data.names import IMAGENET
from aslp_jax.data.stream_sources import describe, open_records, record_digest
from aslp_jax.data.streamed import Part, Streamed

__all__ = ["SIZE", "crop_centre", "crop_random", "load"]

SIZE = (224, 224)
"""Usual height and width of the images that a network takes, in pixels."""

_MARGIN = 256 / 224
_MOST_RESIZED = 1 << 24  # pixels: a narrow image would be resized to millions a row
_AREAS = (0.08, 1.0)
_RATIOS = (3 / 4, 4 / 3)
_TRIES = 10
_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # as commonly published


def load(
    data_dir: str | os.PathLike[str], *, image_size: tuple[int, int] = SIZE
) -> Streamed:
    """Finds the records of ImageNet, and decodes none.

    Args:
      data_dir: folder that holds `imagenet2012/<version>`, as TFDS prepares it, with
        files in the format `array_record`.
      image_size: height and width of the images that a network takes, in pixels,
        default 224x224.

    Returns:
      The dataset. The test images are those of the split `validation`, because those of
      `test` have no labels. A hundredth of the training images, at least one, is to be
      held out for validation.

    Raises:
      FileNotFoundError: the dataset is not prepared in the folder.
      MissingExtra: a package of the extra `data` is not installed.
      OSError: a file cannot be opened.
      ValueError: the files are damaged, or hold another dataset.
    """
    root = Path(data_dir).expanduser()
    found = tfds_metadata.read(tfds_folder.find(root, "imagenet2012"))
    splits = {"train": "train", "test": "validation"}
    if missing := [name for name in splits.values() if not found.counts.get(name)]:
        raise ValueError(
            f"load: {found.folder} has no images of the split {missing[0]}; expected "
            "train and validation"
        )
    reads = open_records(found, splits)

    def decode(encoded: decoding.Encoded) -> np.ndarray:
        return _decode(encoded, lambda image: crop_centre(image, image_size))

    def crop(encoded: decoding.Encoded, words: np.random.PCG64) -> np.ndarray:
        return _decode(encoded, lambda image: crop_random(image, image_size, words))

    train = Part(found.counts["train"], reads["train"], decode, crop)
    test = Part(found.counts["validation"], reads["test"], decode)
    return Streamed(
        name=IMAGENET,
        train=train,
        test=test,
        image_shape=(*image_size, 3),
        classes=found.classes,
        mean=_MEAN,
        std=_STD,
        validation=max(1, train.count // 100),
        flip=True,
        source=describe(found.folder, train, test, found.classes),
        files_sha256=record_digest(found, splits, image_size),
        class_names=found.class_names,
    )


def _decode(encoded: decoding.Encoded, crop: Callable[[Any], Any]) -> np.ndarray:
    with decoding.open_upright(*encoded, 3) as image:
        return decoding.to_array(crop(image), 3)


def crop_centre(image: Any, size: tuple[int, int]) -> Any:
    """Crops the centre of an image after resizing it, as for evaluation.

    Args:
      image: Pillow's image.
      size: height and width of the result, in pixels. For 224x224 the shorter side is
        resized to 256, with a bilinear filter.

    Returns:
      Pillow's image of this size.
    """
    import PIL.Image

    height, width = size
    scale = _MARGIN * max(height / image.height, width / image.width)
    wide = max(width, round(image.width * scale))
    high = max(height, round(image.height * scale))
    left, top = (wide - width) // 2, (high - height) // 2
    box = (left, top, left + width, top + height)
    if wide * high <= _MOST_RESIZED:
        return image.resize((wide, high), PIL.Image.Resampling.BILINEAR).crop(box)
    # The same up to rounding, of the pixels that are in the centre alone.
    scales = 2 * (image.width / wide, image.height / high)
    box = tuple(edge * scale for edge, scale in zip(box, scales, strict=True))
    return image.resize((width, height), PIL.Image.Resampling.BILINEAR, box=box)


def crop_random(image: Any, size: tuple[int, int], words: np.random.PCG64) -> Any:
    """Crops a random rectangle of an image, resizes it, and mirrors half of them.

    The rectangle has 8 to 100 % of the area and a ratio of width to height from 3/4 to
    4/3. If ten tries give none within the image, it is the largest one of such a ratio
    in the centre.

    Args:
      image: Pillow's image.
      size: height and width of the result, in pixels; bilinear filter.
      words: random words, some of which are taken.

    Returns:
      Pillow's image of this size.

    Source: Szegedy et al. 2015, arXiv:1409.4842, section 6.
    """
    import PIL.Image

    height, width = size
    mirrored = _uniform(words) < 0.5
    box = _random_box(image.width, image.height, words)
    image = image.resize((width, height), PIL.Image.Resampling.BILINEAR, box=box)
    if not mirrored:
        return image
    return image.transpose(PIL.Image.Transpose.FLIP_LEFT_RIGHT)


def _random_box(
    width: int, height: int, words: np.random.PCG64
) -> tuple[int, int, int, int]:
    """Returns left, top, right and bottom of a random rectangle, in pixels."""
    for _ in range(_TRIES):
        low, high = _AREAS
        area = width * height * (low + (high - low) * _uniform(words))
        low, high = map(math.log, _RATIOS)
        ratio = math.exp(low + (high - low) * _uniform(words))
        wide, tall = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        if 0 < wide <= width and 0 < tall <= height:
            left = math.floor(_uniform(words) * (width - wide + 1))
            top = math.floor(_uniform(words) * (height - tall + 1))
            return left, top, left + wide, top + tall
    wide = min(width, max(1, round(height * _RATIOS[1])))
    tall = min(height, max(1, round(width / _RATIOS[0])))
    left, top = (width - wide) // 2, (height - tall) // 2
    return left, top, left + wide, top + tall


def _uniform(words: np.random.PCG64) -> float:
    """Returns a number in [0, 1), from one raw word, as NumPy promises equal words."""
    return (int(words.random_raw()) >> 11) * 2.0**-53
