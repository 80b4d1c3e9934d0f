"""Images of one's own, from a folder of images by class or from an `.npz` file.

Importing this module does not start JAX.
"""

import json
import os
from collections.abc import Callable
from pathlib import Path

from aslp_jax.data import arrays as npz
from aslp_jax.data import cache, decoding, folder, measured
from aslp_jax.data.datasets import Dataset, default_cache

__all__ = ["load"]

_DECODER = 1
"""Version of the conversion to arrays, which counts in the name of the cache."""


def load(
    path: str | os.PathLike[str],
    *,
    image_size: tuple[int, int] | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> Dataset:
    """Loads images of one's own.

    A folder holds `train/CLASS/*` and `test/CLASS/*` (or `val/CLASS/*` for the test
    images), or `train/CLASS/*` or `CLASS/*` alone. In the last two cases a fifth of
    each class becomes the test images, the same for all seeds. Files that end in
    `.png`, `.jpg` or `.jpeg` are read; hidden files and all others are not. Images are
    turned upright (EXIF) and converted to 8 bits; transparent pixels are shown over
    black. If all images are grey there is one channel, otherwise there are three.

    A file holds `x_train`, `y_train`, `x_test` and `y_test`: uint8 images of
    `[n, height, width]` or `[n, height, width, channels]`, integer labels of `[n]` or
    `[n, 1]`.

    Decoded and resized images are cached, under a fingerprint of the files.

    Args:
      path: the folder, or the `.npz` file.
      image_size: height and width to resize to, in pixels, each >= 1; None for no
        change.
      cache_dir: folder of the cache, created if missing; default: `default_cache()`.
      note: function that shows a message about the progress; default: none is shown.

    Returns:
      The dataset, with the name "own". A tenth of the training images, at least one, is
      to be held out for validation. Mirrored images are taken to keep their labels. A
      channel that is constant has the standard deviation 1.

    Raises:
      FileNotFoundError: there is neither a folder nor a file.
      MissingExtra: Pillow is needed and not installed.
      OSError: a folder or a file cannot be opened.
      ValueError: a folder, an image or an array is not as expected; the message names
        it.

    Warns:
      UserWarning: the cache cannot be written; the dataset is loaded nevertheless.
    """
    path = Path(path).expanduser()
    home = Path(cache_dir).expanduser() if cache_dir is not None else default_cache()
    if path.is_dir():
        return _load_folder(path, image_size, home / "decoded", note)
    if not path.exists():
        raise FileNotFoundError(
            f"load: there is no {path}; expected a folder of images by class, or an "
            ".npz file"
        )
    if path.suffix.lower() != ".npz" or not path.is_file():
        raise ValueError(
            f"load: {path} is neither a folder nor an .npz file; expected a folder of "
            "images by class, or an .npz file"
        )
    return _load_arrays(path, image_size, home / "decoded", note)


def _load_folder(
    path: Path,
    image_size: tuple[int, int] | None,
    caches: Path,
    note: Callable[[str], None],
) -> Dataset:
    layout = folder.read_layout(path)
    measured.check_class_names(path, layout.class_names)
    files = [*layout.files("train"), *layout.files("test")]
    names = {part: list(map(str, layout.files(part))) for part in ("train", "test")}
    # Two class folders that swap their names keep names, sizes and times of all files.
    inodes = [file.stat().st_ino for file in files]
    declared = json.dumps([_DECODER, image_size, names, inodes]).encode()
    cached = caches / f"own-{cache.fingerprint(path, files, declared)}"
    arrays = cache.read_any_shape(cached)
    if arrays is None:
        note(f"decoding {len(files):,} images of {path}, once")
        encoded: list[decoding.Encoded] = [
            (f"the image {file}", file) for file in files
        ]
        channels = 1 if decoding.are_grey(encoded) else 3
        decoded = decoding.decode(encoded, len(encoded), channels, image_size, note)
        count = len(names["train"])
        arrays = {
            "train_images": decoded[:count],
            "train_labels": layout.labels("train"),
            "test_images": decoded[count:],
            "test_labels": layout.labels("test"),
        }
        cache.write(cached, arrays)
    details = []
    if layout.divided:
        details.append("divided by class")
    if layout.ignored:
        details.append(f"{layout.ignored} other files or folders ignored")
    return measured.dataset(
        "own", path, arrays, details, class_names=layout.class_names
    )


def _load_arrays(
    path: Path,
    image_size: tuple[int, int] | None,
    caches: Path,
    note: Callable[[str], None],
) -> Dataset:
    if image_size is None:
        return measured.dataset("own", path, npz.read(path))
    declared = json.dumps([_DECODER, image_size]).encode()
    cached = caches / f"own-{cache.fingerprint(path, [path], declared)}"
    arrays = cache.read_any_shape(cached)
    if arrays is None:
        arrays = npz.read(path)
        count = len(arrays["train_labels"]) + len(arrays["test_labels"])
        note(f"resizing {count:,} images of {path}, once")
        for key in ("train_images", "test_images"):
            arrays[key] = npz.resize(arrays[key], image_size)
        cache.write(cached, arrays)
    return measured.dataset("own", path, arrays)
