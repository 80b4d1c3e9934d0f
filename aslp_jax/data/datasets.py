"""Named image datasets as uint8 arrays on the host.

Digits are part of the package, CIFAR comes through TFDS, Fashion-MNIST through TFDS or
from its official files, TinyImageNet from its official archive. Importing this module
starts neither JAX nor TFDS; neither does loading a cached dataset. What reads the files
of a set is imported only for that set. The module is long because it says of each set
where its images may come from.
"""

import contextlib
import dataclasses
import hashlib
import operator
import os
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from aslp_jax._claim import Held, claim
from aslp_jax.data.names import NAMES

if TYPE_CHECKING:
    from aslp_jax.data.cifar import Archive
    from aslp_jax.data.fashion_mnist import IdxFiles

__all__ = ["NAMES", "Dataset", "default_cache", "load", "split", "split_class"]

_Path = str | os.PathLike[str]


@dataclasses.dataclass(frozen=True)
class Dataset:
    """A dataset in memory.

    Attributes:
      name: one of `NAMES`; "own" for images from `own.load`, `tfds:` and a name for
        images from `prepared.load`.
      train_images: uint8 `[train, height, width, channels]`, 0 to 255.
      train_labels: int32 `[train]`, 0 to `classes` - 1.
      test_images: uint8 `[test, height, width, channels]`, 0 to 255.
      test_labels: int32 `[test]`, 0 to `classes` - 1.
      classes: number of classes.
      mean: mean of each channel of the training images, for pixels in [0, 1].
      std: standard deviation of each channel of the training images, for pixels in
        [0, 1].
      validation: number of training images to hold out; see `split`.
      flip: True if a mirrored image keeps its label.
      source: origin of the images, in one line.
      class_names: name of each class, in the order of labels; empty if not known.
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
    class_names: tuple[str, ...] = ()

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        height, width, channels = self.train_images.shape[1:]
        return height, width, channels

    @property
    def train_count(self) -> int:
        """Number of training images, before any is held out."""
        return len(self.train_labels)

    def images_sha256(self) -> str:
        """Returns the sha256 of the training images followed by the test images."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train_images))
        digest.update(np.ascontiguousarray(self.test_images))
        return digest.hexdigest()

    def labels_sha256(self) -> str:
        """Returns the sha256 of the training labels followed by the test labels."""
        digest = hashlib.sha256(np.ascontiguousarray(self.train_labels))
        digest.update(np.ascontiguousarray(self.test_labels))
        return digest.hexdigest()


# CIFAR-10: the values of the paper's code. CIFAR-100, Fashion-MNIST and TinyImageNet:
# the commonly published values.
_STANDARDISE = {
    "digits": ((0.3053,), (0.3762,)),
    "cifar10": ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)),
    "cifar100": ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
    "fashion_mnist": ((0.2860,), (0.3530,)),
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

    Digits are part of the package. CIFAR is read from a prepared TFDS folder
    (`data_dir`), from the downloaded official archive (`manual_dir`), or is downloaded;
    in the last two cases a prepared TFDS folder is left in the cache, unless another
    process is leaving one there at the same time. Fashion-MNIST is
    read from a prepared TFDS folder (`data_dir`) or from the four official files
    (`manual_dir`). TinyImageNet is read from the official folder or archive
    (`manual_dir`). Its test images are those of the official validation set, because
    the official test set has no labels.
    Decoding takes seconds to a minute, so the arrays are cached too, under a
    fingerprint of the files that they were decoded from.

    Args:
      name: one of `NAMES`.
      data_dir: folder that holds `<name>/<version>`, in the format `array_record` or
        `tfrecord`.
      manual_dir: folder that holds `cifar-10-binary.tar.gz`,
        `cifar-100-binary.tar.gz`, the files of Fashion-MNIST
        (`train-images-idx3-ubyte.gz` and three more), `tiny-imagenet-200.zip` or its
        content, the folder `tiny-imagenet-200`; or the folder `tiny-imagenet-200`
        itself.
      cache_dir: folder of the cache, created if missing; default: `default_cache()`.

    Returns:
      The dataset. Images of CIFAR, and of Fashion-MNIST out of a TFDS folder, are in
      the (shuffled) order of TFDS, images of TinyImageNet in the order of their
      classes.

    Raises:
      ConnectionError: CIFAR has to be downloaded and cannot be.
      FileNotFoundError: a folder, or the archive in `manual_dir`, does not exist.
      MissingExtra: a package of the extra `data` is not installed.
      TypeError: a folder is not a path.
      ValueError: the name is unknown; the folders contradict each other or the name;
        TinyImageNet is asked for without `manual_dir`, or Fashion-MNIST without a
        folder; or the files are damaged or hold another dataset.

    Warns:
      UserWarning: the cache cannot be written; the dataset is loaded nevertheless.
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
    if name == "fashion_mnist":
        from aslp_jax.data.fashion_mnist import OFFICIAL

        return _fashion_mnist(OFFICIAL, **paths)
    from aslp_jax.data.cifar import ARCHIVES

    return _cifar(ARCHIVES[name], **paths)


def split(
    dataset_size: int, validation: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Divides the indices of a training set into training and validation, at random.

    The split follows the order of raw 64-bit words. NumPy promises equal words on every
    platform and in every release, and makes no such promise for `permutation`.

    Args:
      dataset_size: number of images to divide.
      validation: number of images to hold out, 0 to `dataset_size` - 1.
      seed: seed of the split, >= 0; equal seeds hold out equal images.

    Returns:
      `(training, validation)`: int32 `[dataset_size - validation]` and `[validation]`,
      ascending and disjoint; together they hold every index.

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


def split_class(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Divides the images of one class into four fifths to train on and a fifth to test.

    The division follows from the number alone, not from a seed: all runs then have the
    same test images.

    Args:
      size: number of images, at least 2.

    Returns:
      `(training, test)`: ascending int32 indices.

    Raises:
      ValueError: there are fewer than two images.
    """
    return split(size, max(1, round(size / 5)), seed=0)


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
    archive: "Archive",
    data_dir: Path | None,
    manual_dir: Path | None,
    cache_dir: Path | None,
) -> Dataset:
    from aslp_jax.data import cifar, tfds_folder

    home = cache_dir or default_cache()
    with contextlib.ExitStack() as stack:
        keep = True
        if data_dir is not None:
            folder = tfds_folder.find(data_dir, archive.name)
        else:
            root = home / "tensorflow_datasets"
            _check_manual(archive, manual_dir)
            keep = _prepare(archive, root, manual_dir)
            if not keep:
                root = Path(stack.enter_context(tempfile.TemporaryDirectory()))
                cifar.prepare(archive, root, manual_dir)
            folder = tfds_folder.find(root, archive.name)
        arrays = _read_prepared(
            folder,
            archive.name,
            archive.counts,
            archive.shape,
            archive.classes,
            home if keep else None,
        )
    return _dataset(
        archive.name,
        arrays,
        archive.classes,
        validation=archive.train_count // 10,
        flip=True,
        source=f"TFDS folder {folder}" if keep else str(manual_dir or archive.url),
    )


def _prepare(archive: "Archive", root: Path, manual_dir: Path | None) -> bool:
    """Prepares a dataset in the cache, unless it is there, as the only writer there.

    Returns:
      True if the dataset is there now; False if the cache cannot be written, or another
      process prepares the dataset there, for which this one does not wait.
    """
    from aslp_jax.data import cache, cifar, tfds_folder

    folder = root / archive.name
    if tfds_folder.find_versions(folder):
        return True
    if manual_dir is None:
        cifar.check_reachable(archive)
    if not cache.can_write(root):
        return False
    try:
        with claim(folder):
            # TFDS, when it is killed, leaves folders of up to 200 MB.
            for left in folder.glob("incomplete.*"):
                shutil.rmtree(left, ignore_errors=True)
            # TFDS does nothing if another process has prepared it since.
            cifar.prepare(archive, root, manual_dir)
    except Held:
        return False
    return True


def _fashion_mnist(
    files: "IdxFiles",
    data_dir: Path | None,
    manual_dir: Path | None,
    cache_dir: Path | None,
) -> Dataset:
    from aslp_jax.data import fashion_mnist, tfds_folder

    name, classes = "fashion_mnist", len(fashion_mnist.CLASS_NAMES)
    if data_dir is not None:
        home = cache_dir or default_cache()
        folder = tfds_folder.find(data_dir, name)
        arrays = _read_prepared(
            folder, name, files.counts, fashion_mnist.SHAPE, classes, home
        )
        source = f"TFDS folder {folder}"
    elif manual_dir is not None:
        arrays, source = fashion_mnist.read(manual_dir, files), str(manual_dir)
    else:
        raise ValueError(
            f"load: {name} is not downloaded; get the four files of "
            f"{fashion_mnist.URL} and pass manual_dir, the folder that holds them"
        )
    return _dataset(
        name,
        arrays,
        classes,
        validation=files.counts["train"] // 10,
        # A mirrored garment is the same garment.
        flip=True,
        source=source,
        class_names=fashion_mnist.CLASS_NAMES,
    )


def _read_prepared(
    folder: Path,
    name: str,
    counts: dict[str, int],
    shape: tuple[int, ...],
    classes: int,
    home: Path | None,
) -> dict[str, np.ndarray]:
    """Returns the arrays of a prepared TFDS folder, from the cache if they are there.

    Args:
      folder: folder of the version.
      name: name that it must declare.
      counts: number of images that it must declare, by split.
      shape: shape of an image.
      classes: number of classes.
      home: folder of the cache; None for no cache.
    """
    from aslp_jax.data import cache, tfds_folder, tfds_metadata

    found = tfds_metadata.read(folder)
    tfds_metadata.check(found, name=name, counts=counts, shape=shape, classes=classes)
    fingerprint = cache.fingerprint(
        folder,
        sorted(folder.iterdir()),
        declared=(folder / "dataset_info.json").read_bytes(),
    )
    cached = None if home is None else home / "decoded" / f"{name}-{fingerprint}"
    if cached is not None:
        arrays = cache.read(cached, counts, shape)
        if arrays is not None:
            return arrays
    arrays = tfds_folder.decode(found, {split: split for split in counts})
    for split in counts:
        size = arrays[f"{split}_images"].shape[1:]
        if size != shape:
            raise ValueError(
                f"load: an image of the {split} records in {folder} is {size}; "
                f"expected {shape}"
            )
        arrays[f"{split}_labels"] = arrays[f"{split}_labels"].astype(np.uint8)
    if cached is not None:
        cache.write(cached, arrays)
    return arrays


def _tiny_imagenet(manual_dir: Path | None, cache_dir: Path | None) -> Dataset:
    from aslp_jax.data import cache, tiny_imagenet

    layout = tiny_imagenet.read_layout(manual_dir)
    fingerprint = cache.fingerprint(layout.path, layout.files)
    cached = (cache_dir or default_cache()) / "decoded" / f"tiny_imagenet-{fingerprint}"
    arrays = cache.read(cached, layout.counts, tiny_imagenet.SHAPE)
    if arrays is None:
        arrays = tiny_imagenet.decode(layout)
        cache.write(cached, arrays)
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
    """Returns the default folder of the cache, without creating it.

    Returns:
      `$XDG_CACHE_HOME/aslp-jax`, or `~/.cache/aslp-jax` if the variable is not set.
    """
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "aslp-jax"


def _check_manual(archive: "Archive", manual_dir: Path | None) -> None:
    if manual_dir is not None and not (manual_dir / archive.file).is_file():
        raise FileNotFoundError(
            f"load: no file {manual_dir / archive.file}; expected the archive that "
            f"{archive.url} gives"
        )
