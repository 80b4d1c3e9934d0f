"""Datasets that can be streamed: finds their files, and decodes no image.

The images are those that `own.load` and `prepared.load` return, in the same order.
Importing this module starts neither JAX nor Grain. The file is long because folders and
prepared TFDS datasets each have errors of their own.
"""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aslp_jax.data import decoding, folder, measured, tfds_folder, tfds_metadata
from aslp_jax.data.names import PREFIX
from aslp_jax.data.prepared import choose_splits
from aslp_jax.data.streamed import Part, Streamed

__all__ = [
    "describe",
    "folder_size",
    "open_folder",
    "open_prepared",
    "open_records",
    "prepared_size",
    "record_digest",
]

_DECODER = 1
"""Version of the decoding of images, which counts in `files_sha256`."""


def folder_size(path: str | os.PathLike[str], image_size: tuple[int, int]) -> int:
    """Returns the size of all images of a folder, decoded and resized, in bytes.

    Args:
      path: folder of images by class.
      image_size: height and width to resize to, in pixels.

    Returns:
      Size as RGB of 8 bits; 0 if the path is no folder.

    Raises:
      OSError: a folder cannot be opened.
      ValueError: the folder is not as expected.
    """
    path = Path(path).expanduser()
    if not path.is_dir():
        return 0
    layout = folder.read_layout(path)
    count = len(layout.files("train")) + len(layout.files("test"))
    return 3 * count * image_size[0] * image_size[1]


def prepared_size(
    name: str,
    data_dir: str | os.PathLike[str],
    image_size: tuple[int, int] | None = None,
) -> int:
    """Returns the size of all images of a TFDS dataset, decoded and resized, in bytes.

    Args:
      name: `tfds:` and the name as TFDS spells it.
      data_dir: folder that holds `<name>/<version>`.
      image_size: height and width to resize to, in pixels; None for the size that the
        dataset declares.

    Returns:
      Size as RGB of 8 bits; 0 if the dataset declares no size of its images.

    Raises:
      FileNotFoundError: no such dataset is prepared in the folder.
      OSError: a file cannot be read.
      ValueError: the dataset does not classify images.
    """
    root = Path(data_dir).expanduser()
    found = tfds_metadata.read(tfds_folder.find(root, name.removeprefix(PREFIX)))
    height, width = found.shape[:2] if image_size is None else image_size
    count = sum(found.counts[split] for split in choose_splits(found).values())
    return 3 * count * (height or 0) * (width or 0)


def open_folder(
    path: str | os.PathLike[str], *, image_size: tuple[int, int]
) -> Streamed:
    """Finds the images of a folder as `own.load` does, and decodes none.

    Args:
      path: folder of images by class.
      image_size: height and width to resize to, in pixels, each >= 1.

    Returns:
      The dataset, with the name "own".

    Raises:
      FileNotFoundError: there is no such folder.
      MissingExtra: Pillow is not installed.
      OSError: a folder cannot be opened.
      ValueError: the folder is not as expected, or no folder.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise FileNotFoundError(
            f"load: there is no {path}; expected a folder of images by class"
        )
    if not path.is_dir():
        raise ValueError(
            f"load: {path} is no folder; only a folder of images by class can be "
            "streamed"
        )
    layout = folder.read_layout(path)
    measured.check_class_names(path, layout.class_names)
    files = {part: layout.files(part) for part in ("train", "test")}
    # As for images in memory: one that is not grey makes all of them RGB.
    grey = decoding.are_grey(
        (f"the image {file}", file) for part in files.values() for file in part
    )
    channels = 1 if grey else 3

    def decode(encoded: decoding.Encoded) -> np.ndarray:
        return decoding.decode_image(*encoded, channels, image_size)

    def part_of(name: str) -> Part:
        paths, labels = files[name], layout.labels(name)

        def read(index: int) -> tuple[decoding.Encoded, int]:
            return (f"the image {paths[index]}", paths[index]), int(labels[index])

        return Part(len(paths), read, decode)

    names = [
        [str(file.relative_to(path)), file.stat().st_size]
        for part in files.values()
        for file in part
    ]
    train, test = part_of("train"), part_of("test")
    return Streamed(
        name="own",
        train=train,
        test=test,
        image_shape=(*image_size, channels),
        classes=len(layout.class_names),
        mean=None,
        std=None,
        validation=max(1, train.count // 10),
        flip=True,
        source=describe(path, train, test, len(layout.class_names)),
        files_sha256=_digest(names, image_size, channels),
        class_names=layout.class_names,
    )


def open_prepared(
    name: str,
    data_dir: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
) -> Streamed:
    """Finds the records of a TFDS dataset as `prepared.load` does, and decodes none.

    Args:
      name: `tfds:` and the name as TFDS spells it.
      data_dir: folder that holds `<name>/<version>`, with files in the format
        `array_record`.
      image_size: height and width to resize to, in pixels, each >= 1; None for the size
        that the dataset declares.

    Returns:
      The dataset.

    Raises:
      FileNotFoundError: no such dataset is prepared in the folder.
      MissingExtra: a package of the extra `data` is not installed.
      OSError: a file cannot be opened.
      ValueError: the dataset cannot be streamed, does not classify images, or its files
        are damaged; the message names them.
    """
    root = Path(data_dir).expanduser()
    found = tfds_metadata.read(tfds_folder.find(root, name.removeprefix(PREFIX)))
    splits = choose_splits(found)
    height, width = found.shape[:2] if image_size is None else image_size
    if height is None or width is None:
        raise ValueError(
            f"load: {found.folder} declares no size of its images; give --image-size "
            "to stream them"
        )
    if "test" not in splits:
        raise ValueError(
            f"load: {found.folder} has the split train alone, whose labels would all "
            "have to be read; only a dataset with test images can be streamed"
        )
    reads = open_records(found, splits)
    channels = found.shape[2]
    if channels is None:
        grey = decoding.are_grey(
            reads[part](index)[0]
            for part, split in splits.items()
            for index in range(found.counts[split])
        )
        channels = 1 if grey else 3
    shape = (height, width, min(channels, 3))

    def decode(encoded: decoding.Encoded) -> np.ndarray:
        pixels = decoding.decode_image(*encoded, shape[2], image_size)
        if pixels.shape != shape:
            raise ValueError(
                f"load: {encoded[0]} has {pixels.shape[0]}x{pixels.shape[1]} pixels; "
                f"expected {height}x{width}, as the dataset declares"
            )
        return pixels

    train, test = (
        Part(found.counts[splits[part]], reads[part], decode)
        for part in ("train", "test")
    )
    return Streamed(
        name=name,
        train=train,
        test=test,
        image_shape=shape,
        classes=found.classes,
        mean=None,
        std=None,
        validation=max(1, train.count // 10),
        flip=True,
        source=describe(found.folder, train, test, found.classes),
        files_sha256=record_digest(found, splits, shape),
        class_names=found.class_names,
    )


def open_records(
    found: tfds_metadata.Metadata, splits: Mapping[str, str]
) -> dict[str, Callable[[int], tuple[decoding.Encoded, int]]]:
    """Opens the records of splits, to be read in any order.

    Args:
      found: description of the dataset.
      splits: name of a split of the dataset, by part.

    Returns:
      Function from the number of a record to image and label, by part; see
      `tfds_folder.open_any_order`.

    Raises:
      MissingExtra: a package of the extra `data` is not installed.
      ValueError: the files have another format than `array_record`, are damaged, or
        name classes that no artefact can hold; or the first record of a split has no
        image or no label of a class.
    """
    if found.file_format != "array_record":
        raise ValueError(
            f"load: {found.folder} is in the format {found.file_format}, which cannot "
            "be read in any order; only array_record can be streamed: prepare it by "
            "`tfds build --file_format=array_record`"
        )
    measured.check_class_names(found.folder, found.class_names)
    reads = {
        part: tfds_folder.open_any_order(found, split) for part, split in splits.items()
    }
    for read in reads.values():
        read(0)  # test images without labels would show only after the training
    return reads


def describe(path: Path, train: Part, test: Part, classes: int) -> str:
    """Returns the origin of streamed images, in one line.

    Args:
      path: origin of the images.
      train: training images.
      test: test images.
      classes: number of classes.
    """
    counts = f"{train.count:,} training and {test.count:,} test images"
    return f"{path}: {counts} of {classes} classes, streamed"


def record_digest(
    found: tfds_metadata.Metadata, splits: Mapping[str, str], shape: tuple[int, ...]
) -> str:
    """Returns the SHA-256 of all that says which images the records of splits hold.

    Args:
      found: description of the dataset.
      splits: name of a split of the dataset, by part.
      shape: shape of a decoded image.

    Returns:
      64 hexadecimal digits, the same wherever the folder lies.
    """
    files = [file for split in splits.values() for file in found.files(split)]
    described = ("dataset_info.json", "features.json")
    texts = [(found.folder / name).read_bytes().hex() for name in described]
    sizes = [[file.name, file.stat().st_size] for file in files]
    return _digest(texts, sizes, dict(splits), shape)


def _digest(*values: Any) -> str:
    return hashlib.sha256(json.dumps([_DECODER, *values]).encode()).hexdigest()
