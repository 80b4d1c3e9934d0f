"""Prepared TFDS folders, checked before use: another program may have written them."""

import io
import json
import os
import re
from pathlib import Path

import numpy as np

from aslp_jax._extras import require
from aslp_jax.data.cifar import Archive


def find_newest(root: Path, name: str) -> Path:
    """Returns the folder of the newest version of a dataset.

    Args:
      root: folder that holds `<name>/<version>`.
      name: name of the dataset.

    Returns:
      `<root>/<name>/<version>`.

    Raises:
      FileNotFoundError: there is no version.
    """
    parent = root / name
    versions = find_versions(parent)
    if not versions:
        raise FileNotFoundError(
            f"load: no prepared dataset in {parent}; expected "
            f"'{name}/<version>/dataset_info.json' in {root}"
        )
    return max(versions, key=lambda folder: [int(n) for n in folder.name.split(".")])


def find_versions(parent: Path) -> list[Path]:
    """Returns the folders of all complete versions of a dataset.

    Args:
      parent: folder that holds `<version>/dataset_info.json`.

    Returns:
      Folders, in any order.
    """
    # TFDS leaves a folder of another name, with 'incomplete' in it, if it is killed.
    return [
        path.parent
        for path in parent.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    ]


def check_info(folder: Path, archive: Archive) -> None:
    """Checks the name, file format and number of records of a prepared dataset.

    Args:
      folder: folder of one version.
      archive: the expected dataset.

    Raises:
      ValueError: `dataset_info.json` cannot be parsed, or declares something else.
    """
    path = folder / "dataset_info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        name, file_format = info["name"], info["fileFormat"]
        counts = {
            split["name"]: sum(int(length) for length in split["shardLengths"])
            for split in info["splits"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"load: {path} cannot be parsed ({type(error).__name__}: {error}); "
            "expected what TFDS writes"
        ) from error
    expected = (archive.name, "array_record", archive.counts)
    for label, found, wanted in zip(
        ("name", "file format", "records"),
        (name, file_format, {split: counts.get(split) for split in archive.counts}),
        expected,
        strict=True,
    ):
        if found != wanted:
            raise ValueError(
                f"load: {path} declares the {label} {found!r}; expected {wanted!r}"
            )


def decode(folder: Path, archive: Archive) -> dict[str, np.ndarray]:
    """Decodes every record of a prepared dataset.

    Args:
      folder: folder of one version, as `check_info` accepts it.
      archive: the expected dataset.

    Returns:
      uint8 `train_images` and `test_images` of `[count, height, width, channels]`;
      uint8 `train_labels` and `test_labels` of `[count]`.

    Raises:
      MissingExtra: a package of the extra `data` is not installed.
      ValueError: a record is missing or superfluous, or cannot be read.
    """
    require("PIL", "array_record", "tensorflow_datasets", by=f"load: {archive.name}")
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    # From the checked folder: by name, TFDS would choose the version itself.
    builder = tfds.builder_from_directory(folder)
    arrays = {}
    for split, count in archive.counts.items():
        images: np.ndarray = np.empty((count, *archive.shape), np.uint8)
        labels = np.empty(count, np.uint8)
        try:
            records = builder.as_data_source(
                split=split,
                # Pillow decodes below. TFDS would use OpenCV if it is installed.
                decoders={"image": tfds.decode.SkipDecoding()},
            )
            # TFDS reads as many records as are declared, and ignores further ones.
            paths = [os.fspath(path) for path in builder.info.splits[split].filepaths]
            with ArrayRecordDataSource(paths) as shards:
                if len(shards) != count:
                    raise ValueError(f"there are {len(shards)}")
            # In batches: one by one takes twice as long.
            for start in range(0, count, 1000):
                indices = range(start, min(start + 1000, count))
                for i, record in zip(
                    indices, records.__getitems__(indices), strict=True
                ):
                    images[i] = _decode_image(record["image"], archive.shape)
                    labels[i] = _check_label(record["label"], archive.classes)
        except (OSError, RuntimeError, ValueError, LookupError) as error:
            raise ValueError(
                f"load: the {split} records in {folder} cannot be read "
                f"({' '.join(str(error).split())}); expected {count} of "
                f"{archive.shape} pixels and a label below {archive.classes}"
            ) from error
        arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    return arrays


def _decode_image(encoded: bytes, shape: tuple[int, ...]) -> np.ndarray:
    import PIL.Image

    with PIL.Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image)
    # Assigning would broadcast a smaller image silently.
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise ValueError(f"an image is {pixels.dtype} {pixels.shape}")
    return pixels


def _check_label(label: int, classes: int) -> int:
    if not 0 <= label < classes:
        raise ValueError(f"a label is {label}")
    return label
