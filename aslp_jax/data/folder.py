"""Folders of images by class: their layout, and decoding of PNG and JPEG files.

Only this module knows the layout of the folders and the conversion of each kind of
image to 8-bit grey or RGB.
"""

import contextlib
import dataclasses
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from aslp_jax._extras import require
from aslp_jax.data.datasets import split

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Endings of the files that are read, in small letters; capitals count too."""

_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
_NOTE_SECONDS = 10.0

_Classes = dict[str, list[Path]]
"""Image files of each class, both in alphabetical order."""


@dataclasses.dataclass(frozen=True)
class Layout:
    """Content of a folder of images by class.

    Attributes:
      path: path of the folder.
      images: files of each class of "train" and of "test"; classes and files in
        alphabetical order, a label is an index in the classes.
      divided: True if the test images were taken from the training images.
      ignored: number of other files and folders, which are not read.
    """

    path: Path
    images: dict[str, _Classes]
    divided: bool
    ignored: int

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the class folders, in the order of labels."""
        return tuple(self.images["train"])

    def files(self, part: str) -> list[Path]:
        """Returns the files of "train" or of "test", by class, then by name."""
        return [path for paths in self.images[part].values() for path in paths]

    def labels(self, part: str) -> np.ndarray:
        """Returns the labels of `files`, int32."""
        counts = [len(paths) for paths in self.images[part].values()]
        return np.repeat(np.arange(len(counts), dtype=np.int32), counts)


def read_layout(path: Path) -> Layout:
    """Finds all images and their classes, without opening an image.

    If the folder `train` holds folders, these are the classes; the test images are in
    `test`, or without it in `val`. Otherwise the folders in `path` are the classes.
    Without test images, a fifth of each class becomes the test images.

    Args:
      path: the folder.

    Raises:
      OSError: a folder cannot be read.
      ValueError: a class has no image, or one image that would have to be divided;
        there are fewer than two classes; or training and test images have different
        classes.
    """
    root, test_root = path, None
    if _subfolders(path / "train"):
        root = path / "train"
        tests = (path / name for name in ("test", "val"))
        test_root = next((folder for folder in tests if folder.is_dir()), None)
    train, ignored = _scan(root)
    if len(train) < 2:
        raise ValueError(
            f"load: {root} holds {len(train)} class folders; expected at least two, "
            "each with images"
        )
    if test_root is None:
        train, test = _divide(train)
    else:
        test, others = _scan(test_root)
        ignored += others
        _check_same_classes(root, train, test_root, test)
    if root != path:
        read = {root, test_root}
        ignored += sum(child not in read for child in path.iterdir())
    images = {"train": train, "test": test}
    return Layout(path, images, divided=test_root is None, ignored=ignored)


def decode(
    images: list[Path],
    image_size: tuple[int, int] | None,
    note: Callable[[str], None],
) -> np.ndarray:
    """Decodes images, upright and in 8 bits.

    Grey images have one channel if all images are grey; otherwise all images become
    RGB. Transparent pixels are shown over black.

    Args:
      images: files to read, at least one.
      image_size: height and width that each image is resized to; None for no change.
      note: function that shows a message about the progress, every ten seconds.

    Returns:
      uint8 `[len(images), height, width, channels]`.

    Raises:
      MissingExtra: Pillow is not installed.
      ValueError: a file cannot be read, or images have several sizes.
    """
    require("PIL", by="load: a folder of images")
    channels = 1 if all(map(_is_grey, images)) else 3
    pixels = _decode_image(images[0], channels, image_size)
    arrays: np.ndarray = np.empty((len(images), *pixels.shape), np.uint8)
    noted = time.monotonic()
    for index, path in enumerate(images):
        pixels = _decode_image(path, channels, image_size)
        if pixels.shape != arrays.shape[1:]:
            sizes = arrays.shape[1:3], pixels.shape[:2]
            first, other = (f"{height}x{width}" for height, width in sizes)
            raise ValueError(
                f"load: images have several sizes: {images[0]} has {first} pixels and "
                f"{path} {other}; give --image-size"
            )
        arrays[index] = pixels
        if time.monotonic() - noted >= _NOTE_SECONDS:
            noted = time.monotonic()
            note(f"decoded {index + 1:,} of {len(images):,} images")
    return arrays


def _subfolders(path: Path) -> list[Path]:
    if not path.is_dir():
        return []
    return [
        child
        for child in sorted(path.iterdir())
        if child.is_dir() and not child.name.startswith(".")
    ]


def _scan(root: Path) -> tuple[_Classes, int]:
    """Returns the image files of each class folder, and the number of other things."""
    folders = _subfolders(root)
    ignored = len(list(root.iterdir())) - len(folders)
    classes = {}
    for folder in folders:
        children = sorted(folder.iterdir())
        classes[folder.name] = [
            child
            for child in children
            if child.suffix.lower() in SUFFIXES
            and not child.name.startswith(".")
            and child.is_file()
        ]
        if not classes[folder.name]:
            raise ValueError(
                f"load: the class folder {folder} holds no image; expected files that "
                f"end in {', '.join(SUFFIXES)}"
            )
        ignored += len(children) - len(classes[folder.name])
    return classes, ignored


def _divide(classes: _Classes) -> tuple[_Classes, _Classes]:
    """Divides each class into four fifths to train on and a fifth to test.

    The division follows from the names alone, not from a seed: all runs then have the
    same test images.
    """
    train, test = {}, {}
    for name, paths in classes.items():
        if len(paths) < 2:
            raise ValueError(
                f"load: the class folder {paths[0].parent} holds one image; expected "
                "one to train on and one to test"
            )
        kept, held_out = split(len(paths), max(1, round(len(paths) / 5)), seed=0)
        train[name] = [paths[index] for index in kept]
        test[name] = [paths[index] for index in held_out]
    return train, test


def _check_same_classes(
    train_root: Path, train: _Classes, test_root: Path, test: _Classes
) -> None:
    for name in sorted(train.keys() ^ test.keys()):
        having, lacking = train_root, test_root
        if name in test:
            having, lacking = test_root, train_root
        raise ValueError(
            f"load: the class {name!r} is in {having} and not in {lacking}; expected "
            "the same classes in both"
        )


@contextlib.contextmanager
def _opening(path: Path) -> Iterator[None]:
    """Raises one kind of error, with the path, for an image that cannot be read."""
    import PIL.Image

    try:
        yield
    except (
        OSError,
        EOFError,
        SyntaxError,  # of Pillow, for a damaged chunk
        ValueError,
        LookupError,
        TypeError,
        struct.error,
        zlib.error,
        PIL.Image.DecompressionBombError,
    ) as error:
        raise ValueError(
            f"load: the image {path} cannot be read ({error}); expected a complete PNG "
            "or JPEG file"
        ) from error


def _is_grey(path: Path) -> bool:
    import PIL.Image

    with _opening(path), PIL.Image.open(path, formats=("PNG", "JPEG")) as image:
        return image.mode in _GREY_MODES


def _decode_image(
    path: Path, channels: int, image_size: tuple[int, int] | None
) -> np.ndarray:
    import PIL.Image
    import PIL.ImageOps

    with _opening(path), PIL.Image.open(path, formats=("PNG", "JPEG")) as opened:
        image = PIL.ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits, in 32 by some versions of Pillow
            values = np.asarray(image).astype(np.int64).clip(0, 65535)
            image = PIL.Image.fromarray(((values + 128) // 257).astype(np.uint8))
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            black = PIL.Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = PIL.Image.alpha_composite(black, image).convert("RGB")
        image = image.convert("L" if channels == 1 else "RGB")
        if image_size is not None:
            height, width = image_size
            image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
        return np.asarray(image).reshape(image.height, image.width, channels)
