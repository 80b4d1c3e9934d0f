"""Folders of images by class: only this module knows their layout."""

import dataclasses
from pathlib import Path

import numpy as np

from aslp_jax.data.datasets import split_class

SUFFIXES = (".png", ".jpg", ".jpeg")
"""Endings of the files that are read, in small letters; capitals count too."""

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
    """Divides each class into training and test images, by the order of the names."""
    train, test = {}, {}
    for name, paths in classes.items():
        if len(paths) < 2:
            raise ValueError(
                f"load: the class folder {paths[0].parent} holds one image; expected "
                "one to train on and one to test"
            )
        kept, held_out = split_class(len(paths))
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
