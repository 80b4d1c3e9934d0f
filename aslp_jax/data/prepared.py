"""Any dataset of TFDS that classifies images and is prepared in a folder.

Nothing is downloaded, and no code of the dataset is executed. Importing this module
starts neither JAX nor TFDS.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np

from aslp_jax.data import cache, measured, tfds_folder, tfds_metadata
from aslp_jax.data.datasets import Dataset, default_cache, split_class
from aslp_jax.data.names import PREFIX

__all__ = ["load"]

_DECODER = 1
"""Version of the conversion to arrays, which counts in the name of the cache."""


def load(
    name: str,
    data_dir: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """Loads a dataset that TFDS has prepared, with TensorFlow or without it.

    The training images are those of the split `train`, the test images those of `test`,
    or without it of `validation`. Without either, a fifth of each class becomes the
    test images, the same for all seeds. Image and class of a record are the features
    that the dataset declares as input and target, or else the only ones of their kinds.
    Images are converted as `own.load` converts them.

    Decoded and resized images are cached, under a fingerprint of the files.

    Args:
      name: `tfds:` and the name as TFDS spells it: `tfds:beans`, `tfds:eurosat/rgb`,
        `tfds:beans:0.1.0`. Without a version, the newest is read.
      data_dir: folder that holds `<name>/<version>`, with files in the format
        `array_record` or `tfrecord`.
      image_size: height and width to resize to, in pixels, each >= 1; None for no
        change.
      cache_dir: folder of the cache, created if missing; default: `default_cache()`.
      note: function that shows a message about the progress; default: none is shown.

    Returns:
      The dataset, in the (shuffled) order of TFDS. Classes are those that it declares.
      A tenth of the training images, at least one, is to be held out for validation.
      Mirrored images are taken to keep their labels.

    Raises:
      FileNotFoundError: no such dataset is prepared in the folder.
      MissingExtra: a package of the extra `data` is not installed.
      OSError: a file cannot be opened.
      ValueError: the name is not spelt so, the dataset does not classify images, or its
        files are damaged; the message names them.

    Warns:
      UserWarning: the cache cannot be written; the dataset is loaded nevertheless.
    """
    if not name.startswith(PREFIX):
        raise ValueError(f"load: {name!r} is no prepared dataset; expected tfds:NAME")
    root = Path(data_dir).expanduser()
    home = Path(cache_dir).expanduser() if cache_dir is not None else default_cache()
    folder = tfds_folder.find(root, name.removeprefix(PREFIX))
    found = tfds_metadata.read(folder)
    measured.check_class_names(folder, found.class_names)
    splits = choose_splits(found)
    files = [file for split in splits.values() for file in found.files(split)]
    described = [folder / "dataset_info.json", folder / "features.json"]
    labels = folder / f"{found.label}.labels.txt"
    declared = b"".join(
        path.read_bytes() for path in [*described, *filter(Path.is_file, [labels])]
    )
    settings = json.dumps([_DECODER, image_size]).encode()
    try:
        fingerprint = cache.fingerprint(folder, files, settings + declared)
    except FileNotFoundError as error:
        raise ValueError(
            f"load: {folder} lacks '{Path(error.filename).name}', which it declares; "
            "expected what TFDS writes"
        ) from error
    cached = home / "decoded" / f"tfds-{fingerprint}"
    arrays = cache.read_any_shape(cached)
    if arrays is None:
        count = sum(found.counts[split] for split in splits.values())
        note(f"decoding {count:,} images of {folder}, once")
        arrays = tfds_folder.decode(found, splits, image_size, note)
        if "test" not in splits:
            arrays = _divide(folder, arrays)
        _check_sizes(folder, arrays)
        cache.write(cached, arrays)
    details = ["divided by class"] if "test" not in splits else []
    return measured.dataset(
        name,
        folder,
        arrays,
        details,
        classes=found.classes,
        class_names=found.class_names,
    )


def choose_splits(found: tfds_metadata.Metadata) -> dict[str, str]:
    """Returns the splits to read, by "train" and "test".

    Args:
      found: description of the dataset.

    Returns:
      Names of splits; without "test" if the training images are to be divided.

    Raises:
      ValueError: there are no training images.
    """
    filled = [split for split, count in found.counts.items() if count]
    if "train" not in filled:
        raise ValueError(
            f"load: {found.folder} has the splits {', '.join(filled) or 'none'}; "
            "expected train, and test or validation"
        )
    tests = [split for split in ("test", "validation") if split in filled]
    return dict(zip(("train", "test"), ("train", *tests), strict=False))


def _divide(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    images, labels = arrays["train_images"], arrays["train_labels"]
    test = np.zeros(len(labels), bool)
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            raise ValueError(
                f"load: {folder} has one split and one image with the label {label}; "
                "expected one to train on and one to test"
            )
        test[members[split_class(len(members))[1]]] = True
    return {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
    }


def _check_sizes(folder: Path, arrays: dict[str, np.ndarray]) -> None:
    train, test = (arrays[f"{part}_images"].shape[1:3] for part in ("train", "test"))
    if train != test:
        raise ValueError(
            "load: images have several sizes: a training image of "
            f"{folder} has {train[0]}x{train[1]} pixels and a test image "
            f"{test[0]}x{test[1]}; give --image-size"
        )
