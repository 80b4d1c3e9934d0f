"""Named image datasets as uint8 arrays on the host.

Digits are embedded, CIFAR comes through TFDS, TinyImageNet from its official archive.
Importing this starts neither JAX nor TFDS; a cached dataset is loaded without either.
Half of it is distrust: folders that other programs prepared are checked here before
anyone trains on them.
"""

import contextlib
import dataclasses
import hashlib
import io
import json
import operator
import os
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from aslp_jax._extras import require
from aslp_jax.data import cache, cifar, tiny_imagenet
from aslp_jax.data.cifar import ARCHIVES, Archive

NAMES = ("digits", "cifar10", "cifar100", "tiny_imagenet")

_Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset in memory, and what training needs to know about it.

    Attributes:
      name: one of `NAMES`.
      train_images: uint8 `[train, height, width, channels]`, 0 to 255.
      train_labels: int32 `[train]`, 0 to `classes` - 1.
      test_images: uint8 `[test, height, width, channels]`, 0 to 255.
      test_labels: int32 `[test]`, 0 to `classes` - 1.
      classes: number of classes.
      mean: of each channel of the training images, pixels being in [0, 1].
      std: likewise the standard deviation.
      validation: number of training images to hold out; see `split`.
      flip: whether a mirrored image keeps its label.
      source: where the images came from, in one line.
    """

    name: str
    train_images: np.ndarray
    train_labels: np.ndarray
    test_images: np.ndarray
    test_labels: np.ndarray
    classes: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    validation: int
    flip: bool
    source: str


# CIFAR-10: the values of the paper's code. CIFAR-100 and TinyImageNet: the commonly
# published ones.
_STANDARDISE = {
    "digits": ((0.3053,), (0.3762,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "tiny_imagenet": ((0.4802, 0.4481, 0.3975), (0.2770, 0.2691, 0.2821)),
}


def load(
    name: str,
    *,
    data_dir: _Path | None = None,
    manual_dir: _Path | None = None,
    cache_dir: _Path | None = None,
) -> Dataset:
    """Loads a dataset by name.

    Digits ship with the library. CIFAR is read from a prepared TFDS folder
    (`data_dir`), from the official archive already downloaded (`manual_dir`), or
    downloaded; the latter two leave a prepared TFDS folder in the cache. TinyImageNet
    is read from the official folder or archive (`manual_dir`) alone; its test images
    are those of the official validation set, since the official test set has no labels.
    Decoding takes seconds to a minute, so the arrays are cached too, under a
    fingerprint of the very files that they came from.

    Args:
      name: one of `NAMES`.
      data_dir: folder that holds `<name>/<version>`, as `array_record`.
      manual_dir: folder that holds `cifar-10-binary.tar.gz`,
        `cifar-100-binary.tar.gz`, or `tiny-imagenet-200.zip` or the folder
        `tiny-imagenet-200` out of it, which may also be given itself.
      cache_dir: folder to cache in, made where it is missing; by default
        `$XDG_CACHE_HOME/aslp-jax`, else `~/.cache/aslp-jax`.

    Returns:
      The dataset. Records of CIFAR are in TFDS's (shuffled) order, images of
      TinyImageNet in that of their classes.

    Raises:
      ConnectionError: CIFAR has to be downloaded and cannot be.
      FileNotFoundError: a folder, or the archive in `manual_dir`, does not exist.
      TypeError: a folder is not a path.
      ValueError: the name is unknown, the folders contradict each other or the name,
        the one that TinyImageNet needs is not given, or what they hold is damaged or
        not that dataset.

    Warns:
      UserWarning: the cache cannot be written; the dataset is loaded all the same.
    """
    if name not in NAMES:
        raise ValueError(f"load: unknown dataset {name!r}; expected one of {NAMES}")
    given = {"data_dir": data_dir, "manual_dir": manual_dir, "cache_dir": cache_dir}
    paths = {key: _as_path(key, value) for key, value in given.items()}
    if data_dir is not None and manual_dir is not None:
        raise ValueError("load: got both data_dir and manual_dir; expected at most one")
    if name == "digits":
        if data_dir is not None or manual_dir is not None:
            raise ValueError(
                "load: digits are embedded; expected neither data_dir nor manual_dir"
            )
        return _digits()
    if name == "tiny_imagenet":
        if data_dir is not None:
            raise ValueError(
                "load: tiny_imagenet is not in TFDS; expected manual_dir, not data_dir"
            )
        return _tiny_imagenet(paths["manual_dir"], paths["cache_dir"])
    return _cifar(ARCHIVES[name], **paths)


def split(
    dataset_size: int, validation: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides the indices of a training set into training and validation, at random.

    The order of raw 64-bit words decides: NumPy promises those to be the same on every
    platform and in every release, and does not promise that of `permutation`.

    Args:
      dataset_size: number of images to divide.
      validation: number of them to hold out, 0 to `dataset_size` - 1.
      seed: >= 0; the same seed holds out the same images.

    Returns:
      `(training, validation)`: int32 `[dataset_size - validation]` and `[validation]`,
      ascending, disjoint and together complete.

    Raises:
      TypeError: an argument is not an integer.
      ValueError: `validation` or `seed` is out of range.
    """
    for key, value in {
        "dataset_size": dataset_size,
        "validation": validation,
        "seed": seed,
    }.items():
        try:
            operator.index(value)
        except TypeError:
            raise TypeError(f"split: {key} is {value!r}; expected an integer") from None
    if not 0 <= validation < dataset_size:
        raise ValueError(
            f"split: validation is {validation}; expected 0 to {dataset_size - 1} "
            f"of the {dataset_size} images"
        )
    if seed < 0:
        raise ValueError(f"split: seed is {seed}; expected at least 0")
    words = np.random.PCG64(seed).random_raw(dataset_size)
    order = np.argsort(words, kind="stable").astype(np.int32)
    return np.sort(order[validation:]), np.sort(order[:validation])


def _as_path(key: str, value: _Path | None) -> Path | None:
    if value is not None and not isinstance(value, str | os.PathLike):
        raise TypeError(f"load: {key} is {value!r}; expected a path")
    return None if value is None else Path(value).expanduser()


def _digits() -> Dataset:
    with np.load(Path(__file__).parent / "digits.npz", allow_pickle=False) as file:
        images, labels = file["images"], file["labels"]
    # From 0..16, the counts of ink in 4x4 cells, to the range of every other dataset.
    images = np.rint(images[..., None] * (255 / 16)).astype(np.uint8)
    test = np.arange(len(labels)) % 5 == 0
    arrays = {
        "train_images": images[~test],
        "train_labels": labels[~test],
        "test_images": images[test],
        "test_labels": labels[test],
    }
    return _dataset("digits", arrays, 10, validation=157, flip=False, source="embedded")


def _cifar(
    archive: Archive,
    data_dir: Path | None,
    manual_dir: Path | None,
    cache_dir: Path | None,
) -> Dataset:
    home = cache_dir or default_cache()
    with contextlib.ExitStack() as stack:
        keep = True
        if data_dir is not None:
            folder = _version_folder(data_dir, archive.name)
        else:
            root = home / "tensorflow_datasets"
            _check_manual(archive, manual_dir)
            if not _versions(root / archive.name):
                if manual_dir is None:
                    cifar.check_reachable(archive)
                keep = cache.can_write(root)
                if not keep:
                    root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                cifar.prepare(archive, root, manual_dir)
            folder = _version_folder(root, archive.name)
        _check_info(folder, archive)
        fingerprint = cache.fingerprint(
            folder,
            sorted(folder.iterdir()),
            declared=(folder / "dataset_info.json").read_bytes(),
        )
        entry = home / "decoded" / f"{archive.name}-{fingerprint}"
        arrays = cache.read(entry, archive.counts, archive.shape)
        if arrays is None:
            arrays = _decode(folder, archive)
            if keep:
                cache.write(entry, arrays)
    return _dataset(
        archive.name,
        arrays,
        archive.classes,
        validation=archive.train_count // 10,
        flip=True,
        source=f"TFDS folder {folder}" if keep else str(manual_dir or archive.url),
    )


def _tiny_imagenet(manual_dir: Path | None, cache_dir: Path | None) -> Dataset:
    layout = tiny_imagenet.read_layout(manual_dir)
    fingerprint = cache.fingerprint(layout.path, layout.files)
    entry = (cache_dir or default_cache()) / "decoded" / f"tiny_imagenet-{fingerprint}"
    arrays = cache.read(entry, layout.counts, tiny_imagenet.SHAPE)
    if arrays is None:
        arrays = tiny_imagenet.decode(layout)
        cache.write(entry, arrays)
    return _dataset(
        "tiny_imagenet",
        arrays,
        layout.classes,
        validation=layout.counts["train"] // 10,
        flip=True,
        source=str(layout.path),
    )


def _dataset(
    name: str, arrays: dict[str, np.ndarray], classes: int, **about: Any
) -> Dataset:
    mean, std = _STANDARDISE[name]
    return Dataset(
        name=name,
        train_images=arrays["train_images"],
        train_labels=arrays["train_labels"].astype(np.int32),
        test_images=arrays["test_images"],
        test_labels=arrays["test_labels"].astype(np.int32),
        classes=classes,
        mean=mean,
        std=std,
        **about,
    )


def default_cache() -> Path:
    """Returns `$XDG_CACHE_HOME/aslp-jax`, else `~/.cache/aslp-jax`; makes nothing."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aslp-jax"


def _check_manual(archive: Archive, manual_dir: Path | None) -> None:
    if manual_dir is not None and not (manual_dir / archive.file).is_file():
        raise FileNotFoundError(
            f"load: no file {manual_dir / archive.file}; expected the archive that "
            f"{archive.url} gives"
        )


def _version_folder(root: Path, name: str) -> Path:
    parent = root / name
    versions = _versions(parent)
    if not versions:
        raise FileNotFoundError(
            f"load: no prepared dataset in {parent}; expected "
            f"'{name}/<version>/dataset_info.json' in {root}"
        )
    return max(versions, key=lambda folder: [int(n) for n in folder.name.split(".")])


def _versions(parent: Path) -> list[Path]:
    # TFDS leaves an 'incomplete' folder where it was killed: those do not count.
    return [
        path.parent
        for path in parent.glob("*/dataset_info.json")
        if re.fullmatch(r"\d+\.\d+\.\d+", path.parent.name)
    ]


def _check_info(folder: Path, archive: Archive) -> None:
    path = folder / "dataset_info.json"
    try:
        info = json.loads(path.read_text(encoding="utf-8"))
        name, file_format = info["name"], info["fileFormat"]
        counts = {
            part["name"]: sum(int(length) for length in part["shardLengths"])
            for part in info["splits"]
        }
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(
            f"load: {path} cannot be understood ({type(error).__name__}: {error}); "
            "expected what TFDS writes"
        ) from error
    expected = (archive.name, "array_record", archive.counts)
    for what, found, wanted in zip(
        ("name", "file format", "records"),
        (name, file_format, {split: counts.get(split) for split in archive.counts}),
        expected,
        strict=True,
    ):
        if found != wanted:
            raise ValueError(
                f"load: {path} declares the {what} {found!r}; expected {wanted!r}"
            )


def _decode(folder: Path, archive: Archive) -> dict[str, np.ndarray]:
    require("tensorflow_datasets", "array_record", by=f"load: {archive.name}")
    import tensorflow_datasets as tfds
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    # From the folder that was checked; by name, TFDS would choose the version itself.
    builder = tfds.builder_from_directory(folder)
    arrays = {}
    for part, count in archive.counts.items():
        images: np.ndarray = np.empty((count, *archive.shape), np.uint8)
        labels = np.empty(count, np.uint8)
        try:
            records = builder.as_data_source(
                split=part,
                # Pillow decides the pixels, whether or not OpenCV is installed.
                decoders={"image": tfds.decode.SkipDecoding()},
            )
            # TFDS reads as many as are declared, and not one that is left over.
            paths = [os.fspath(path) for path in builder.info.splits[part].filepaths]
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
                f"load: the {part} records in {folder} cannot be read "
                f"({' '.join(str(error).split())}); expected {count} of "
                f"{archive.shape} pixels and a label below {archive.classes}"
            ) from error
        arrays[f"{part}_images"], arrays[f"{part}_labels"] = images, labels
    return arrays


def _decode_image(encoded: bytes, shape: tuple[int, ...]) -> np.ndarray:
    import PIL.Image

    with PIL.Image.open(io.BytesIO(encoded)) as image:
        pixels = np.asarray(image)
    # Assigning would broadcast a smaller image without a word.
    if pixels.shape != shape or pixels.dtype != np.uint8:
        raise ValueError(f"an image is {pixels.dtype} {pixels.shape}")
    return pixels


def _check_label(label: int, classes: int) -> int:
    if not 0 <= label < classes:
        raise ValueError(f"a label is {label}")
    return label


def hash_images(data: Dataset) -> str:
    """Returns the sha256 of training and test images."""
    both = hashlib.sha256(np.ascontiguousarray(data.train_images))
    both.update(np.ascontiguousarray(data.test_images))
    return both.hexdigest()
