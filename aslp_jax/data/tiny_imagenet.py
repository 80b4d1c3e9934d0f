"""TinyImageNet from the official folder, or directly from the official zip file.

Only this module knows the layout of the images and their classes, and the signs of an
incomplete download.

The file is long because each of these signs has an error of its own.
"""

import contextlib
import dataclasses
import lzma
import os
import re
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from aslp_jax._extras import require
from aslp_jax._json import read_bytes
from aslp_jax.data.decoding import open_bounded

URL = "http://cs231n.stanford.edu/tiny-imagenet-200.zip"
"""Address of the official zip file."""

SHAPE = (64, 64, 3)
"""Height, width and channels of an image."""

_NAME = "tiny-imagenet-200"
_WNIDS = "wnids.txt"
_ANNOTATIONS = "val/val_annotations.txt"
_MOST_CLASSES = 200

# Errors of a zip file that is damaged inside, or of a file that cannot be read.
_UNREADABLE = (
    *(OSError, EOFError, RuntimeError),
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError),
    # Of zipfile, for a name that is no UTF-8, or one with two slashes.
    *(ValueError, LookupError),
)
_LARGEST_FILE = 1 << 24  # bytes; the largest image has some 5,000


@dataclasses.dataclass(frozen=True)
class Layout:
    """Content of an official folder or zip file.

    Attributes:
      path: path of the folder `tiny-imagenet-200`, or of `tiny-imagenet-200.zip`.
      classes: number of classes.
      images: label and name of each image of "train" and of "test", which is the
        official validation set; by label, then by the number in the name.
    """

    path: Path
    classes: int
    images: dict[str, list[tuple[int, str]]]

    @property
    def counts(self) -> dict[str, int]:
        """Number of images of each split."""
        return {split: len(images) for split, images in self.images.items()}

    @property
    def files(self) -> list[Path]:
        """Files that are read: the zip file, or the files in the folder."""
        if self.path.is_file():
            return [self.path]
        names = [name for images in self.images.values() for _, name in images]
        return [self.path / name for name in (_WNIDS, _ANNOTATIONS, *names)]


@dataclasses.dataclass(frozen=True)
class _Source:
    """A folder or a zip file; names are relative to `tiny-imagenet-200/`.

    Attributes:
      path: path of the folder or the zip file.
      list_folder: function from a folder to the names in it; None if the folder does
        not exist.
      read: function from a file to its bytes; raises one of `_UNREADABLE`.
    """

    path: Path
    list_folder: Callable[[str], set[str] | None]
    read: Callable[[str], bytes]

    def text(self, name: str) -> str:
        """Returns the content of a text file; other characters than ASCII are lost."""
        folder, _, file = name.rpartition("/")
        if file not in (self.list_folder(folder) or ()):
            raise ValueError(
                f"load: {self.path} lacks '{name}'; expected the layout of {URL}"
            )
        try:
            return self.read(name).decode("ascii", "replace")
        except _UNREADABLE as error:
            raise ValueError(
                f"load: {self.path}: '{name}' cannot be read ({error}); expected a "
                "text file"
            ) from error

    def numbered(self, folder: str, stem: str) -> list[tuple[int, str]]:
        """Returns number and name of each image `<stem>_<number>.JPEG` of a folder."""
        pattern = re.compile(rf"{stem}_([0-9]{{1,9}})\.JPEG")
        matches = map(pattern.fullmatch, self.list_folder(folder) or ())
        images = sorted((int(found[1]), found[0]) for found in matches if found)
        if not images:
            raise ValueError(
                f"load: {self.path}: '{folder}' holds no image; expected "
                f"{stem}_<number>.JPEG"
            )
        return images


def read_layout(manual_dir: Path | None) -> Layout:
    """Finds all images and their classes, without decoding an image.

    Args:
      manual_dir: the folder `tiny-imagenet-200`, or a folder that holds it or
        `tiny-imagenet-200.zip`; if it holds both, the folder is read.

    Returns:
      The layout; all classes have the same number of training images.

    Raises:
      FileNotFoundError: the folder does not exist, or holds neither of them.
      ValueError: no folder was given, or the files are damaged, incomplete or in
        another layout.
    """
    with _open(_find(manual_dir)) as source:
        labels = _labels(source)
        return Layout(
            path=source.path,
            classes=len(labels),
            images={"train": _train(source, labels), "test": _test(source, labels)},
        )


def decode(layout: Layout) -> dict[str, np.ndarray]:
    """Decodes every image of a layout.

    Args:
      layout: result of `read_layout`.

    Returns:
      uint8 `train_images` and `test_images` of `[count, 64, 64, 3]`, where grey images
      have three equal channels; uint8 `train_labels` and `test_labels` of `[count]`.

    Raises:
      MissingExtra: Pillow is not installed.
      ValueError: an image cannot be read, or does not have 64x64 pixels.
    """
    require("PIL", by="load: tiny_imagenet")
    arrays = {}
    with _open(layout.path) as source:
        for split, labelled in layout.images.items():
            images = np.empty((len(labelled), *SHAPE), np.uint8)
            for index, (_, name) in enumerate(labelled):
                images[index] = _decode_image(source, name)
            labels = np.array([label for label, _ in labelled], np.uint8)
            arrays[f"{split}_images"], arrays[f"{split}_labels"] = images, labels
    return arrays


def _find(manual_dir: Path | None) -> Path:
    if manual_dir is None:
        raise ValueError(
            f"load: tiny_imagenet cannot be downloaded by this program; get {URL} and "
            "pass --manual-dir, the folder that holds it"
        )
    if not manual_dir.is_dir():
        raise FileNotFoundError(
            f"load: no folder {manual_dir}; expected one that holds '{_NAME}/' or "
            f"'{_NAME}.zip'"
        )
    if (manual_dir / _NAME).is_dir():
        return manual_dir / _NAME
    if (manual_dir / f"{_NAME}.zip").is_file():
        return manual_dir / f"{_NAME}.zip"
    if (manual_dir / _WNIDS).is_file():
        return manual_dir
    raise FileNotFoundError(
        f"load: {manual_dir} holds neither '{_NAME}/' nor '{_NAME}.zip' nor "
        f"'{_WNIDS}'; expected what {URL} gives"
    )


@contextlib.contextmanager
def _open(path: Path) -> Iterator[_Source]:
    if path.is_dir():

        def list_folder(folder: str) -> set[str] | None:
            try:
                return set(os.listdir(path / folder))
            except (FileNotFoundError, NotADirectoryError):
                return None

        yield _Source(
            path,
            list_folder,
            lambda name: read_bytes(path / name, _LARGEST_FILE),
        )
        return
    try:
        archive = zipfile.ZipFile(path)
    except _UNREADABLE as error:
        raise ValueError(
            f"load: {path} is truncated or damaged ({error}); expected a complete "
            f"{_NAME}.zip"
        ) from error
    with archive:
        # Once: listing each folder by itself would scan all names again.
        folders: dict[str, set[str]] = {}
        for member in archive.namelist():
            top, _, name = member.partition("/")
            if top == _NAME:
                folder, _, file = name.rpartition("/")
                folders.setdefault(folder, set()).add(file)

        def read(name: str) -> bytes:
            with archive.open(f"{_NAME}/{name}") as member:
                # One byte more: a member may expand without bound.
                content = member.read(_LARGEST_FILE + 1)
            if len(content) > _LARGEST_FILE:
                raise zipfile.BadZipFile(f"more than {_LARGEST_FILE:,} bytes")
            return content

        yield _Source(path, folders.get, read)


def _labels(source: _Source) -> dict[str, int]:
    """Returns the label of each class by its wnid: the line number in `wnids.txt`."""
    wnids = source.text(_WNIDS).split()
    # Each becomes a part of a path, and the path must not leave the folder.
    strange = [wnid for wnid in wnids if not re.fullmatch(r"n[0-9]{8}", wnid)]
    if strange:
        raise ValueError(
            f"load: {source.path}: '{_WNIDS}' names the class "
            f"{strange[0][:80]!r}; expected an n and eight digits"
        )
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    if not 0 < len(labels) == len(wnids) <= _MOST_CLASSES:
        raise ValueError(
            f"load: {source.path}: '{_WNIDS}' has {len(wnids)} lines and "
            f"{len(labels)} classes; expected one to a line, 1 to {_MOST_CLASSES}"
        )
    return labels


def _train(source: _Source, labels: dict[str, int]) -> list[tuple[int, str]]:
    folders = {wnid: f"train/{wnid}/images" for wnid in labels}
    missing = [
        folder for folder in folders.values() if source.list_folder(folder) is None
    ]
    if missing:
        raise ValueError(
            f"load: {source.path} lacks {len(missing)} of {len(labels)} class folders, "
            f"the first being '{missing[0]}'; expected the layout of {URL}"
        )
    found = {wnid: source.numbered(folders[wnid], wnid) for wnid in labels}
    fewest = min(labels, key=lambda wnid: len(found[wnid]))
    most = max(labels, key=lambda wnid: len(found[wnid]))
    # Official classes have equal sizes: a smaller one is an incomplete download.
    if len(found[fewest]) < len(found[most]):
        raise ValueError(
            f"load: {source.path}: '{folders[fewest]}' holds {len(found[fewest])} "
            f"images and '{folders[most]}' {len(found[most])}; expected equal "
            "numbers"
        )
    return [
        (label, f"{folders[wnid]}/{name}")
        for wnid, label in labels.items()
        for _, name in found[wnid]
    ]


def _test(source: _Source, labels: dict[str, int]) -> list[tuple[int, str]]:
    classes: dict[str, int] = {}
    lines = source.text(_ANNOTATIONS).splitlines()
    for number, line in enumerate(lines, 1):
        fields = line.split("\t")
        if len(fields) != 6 or fields[0] in classes:
            raise ValueError(
                f"load: {source.path}: line {number} of '{_ANNOTATIONS}' is "
                f"{line[:80]!r}; expected a new image, its class and four numbers, "
                "with tabs between"
            )
        if fields[1] not in labels:
            raise ValueError(
                f"load: {source.path}: line {number} of '{_ANNOTATIONS}' names the "
                f"class {fields[1][:80]!r}; expected one of '{_WNIDS}'"
            )
        classes[fields[0]] = labels[fields[1]]
    found = source.numbered("val/images", "val")
    unpaired = sorted(classes.keys() ^ {name for _, name in found})
    if unpaired:
        raise ValueError(
            f"load: {source.path}: {unpaired[0]!r} is in only one of 'val/images' "
            f"({len(found)} images) and '{_ANNOTATIONS}' ({len(classes)} lines); "
            "expected each in both"
        )
    images = sorted((classes[name], number, name) for number, name in found)
    return [(label, f"val/images/{name}") for label, _, name in images]


def _decode_image(source: _Source, name: str) -> np.ndarray:
    import PIL.Image

    height, width, _ = SHAPE
    try:
        with open_bounded(source.read(name), ("JPEG",)) as image:
            if image.size != (width, height):
                raise ValueError("it has {}x{} pixels".format(*image.size))
            return np.asarray(image.convert("RGB"))
    except (*_UNREADABLE, PIL.Image.DecompressionBombError) as error:
        raise ValueError(
            f"load: {source.path}: '{name}' cannot be read ({error}); expected a JPEG "
            f"image of {width}x{height} pixels"
        ) from error
