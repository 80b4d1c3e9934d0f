"""Metadata of a prepared TFDS dataset: which images and classes its files hold.

They are read here, not by TFDS, which imports the modules that they name.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aslp_jax._json import LONGEST, parse, read_bytes
from aslp_jax._json import read as read_json
from aslp_jax.data import tfds_records

_FILES = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
_MOST_CLASSES = 65_536
_MOST_SHARDS = 99_999


@dataclasses.dataclass(frozen=True)
class Metadata:
    """Description of a prepared dataset that classifies images.

    Attributes:
      folder: folder of one version.
      name: name of the dataset.
      file_format: one of `tfds_records.FORMATS`.
      shards: number of records of each file, by split.
      image: name of the feature that holds the image.
      label: name of the feature that holds the class.
      shape: height, width and channels of an image; None where it is not declared.
      classes: number of classes.
      class_names: name of each class, in the order of labels; empty if not known.
    """

    folder: Path
    name: str
    file_format: str
    shards: dict[str, list[int]]
    image: str
    label: str
    shape: tuple[int | None, int | None, int | None]
    classes: int
    class_names: tuple[str, ...]

    @property
    def counts(self) -> dict[str, int]:
        """Number of records of each split."""
        return {split: sum(lengths) for split, lengths in self.shards.items()}

    def files(self, split: str) -> list[Path]:
        """Returns the files of a split, in order."""
        total = len(self.shards[split])
        stem = f"{self.name}-{split}.{self.file_format}"
        names = (f"{stem}-{i:05d}-of-{total:05d}" for i in range(total))
        return [self.folder / name for name in names]


def read(folder: Path) -> Metadata:
    """Reads and checks what a prepared dataset declares.

    Args:
      folder: folder of one version.

    Raises:
      OSError: a file cannot be read.
      ValueError: the files cannot be parsed, or do not declare one image and one class
        a record, in a format that can be read.
    """
    path = folder / "dataset_info.json"
    with _parsing(path):
        info = read_json(path, strict=True)
        name, file_format = str(info["name"]), info["fileFormat"]
        shards = {str(split["name"]): _shards(split) for split in info["splits"]}
        supervised = _supervised(info)
    if file_format not in tfds_records.FORMATS:
        raise ValueError(
            f"load: {path} declares the file format {file_format!r:.80}; expected "
            f"one of {', '.join(tfds_records.FORMATS)}"
        )
    # They become parts of paths, which must not leave the folder.
    for word in (name, *shards):
        if not re.fullmatch(r"\w[\w.-]{,99}", word):
            raise ValueError(
                f"load: {path} declares the name {word[:80]!r}; expected letters, "
                "digits, '_', '-' and '.'"
            )
    path = folder / "features.json"
    with _parsing(path):
        features = _features(read_json(path, strict=True))
        image, label = _choose(path, features, supervised)
        shape = _shape(path, _content(features[image], "image"))
        content = _content(features[label], "classLabel")
        classes = int(content.get("numClasses") or content.get("num_classes") or 0)
        if not re.fullmatch(r"[^/\\\0]{1,60}", label):
            raise ValueError(f"the class is named {label!r:.80}")
    if not 2 <= classes <= _MOST_CLASSES:
        raise ValueError(
            f"load: {path} declares {classes} classes; expected 2 to {_MOST_CLASSES}"
        )
    names = _class_names(folder / f"{label}.labels.txt", classes)
    return Metadata(
        folder, name, file_format, shards, image, label, shape, classes, names
    )


def check(found: Metadata, **expected: Any) -> None:
    """Checks that a prepared dataset is the one expected.

    Args:
      found: description of the dataset.
      **expected: values of attributes of `found`; of `counts`, these splits alone.

    Raises:
      ValueError: an attribute has another value.
    """
    for attribute, wanted in expected.items():
        declared = getattr(found, attribute)
        if attribute == "counts":
            declared = {split: declared.get(split) for split in wanted}
        if declared != wanted:
            raise ValueError(
                f"load: {found.folder} declares the {attribute} {declared!r}; expected "
                f"{wanted!r}"
            )


@contextlib.contextmanager
def _parsing(path: Path) -> Iterator[None]:
    try:
        yield
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        if str(error).startswith("load: "):
            raise
        raise ValueError(
            f"load: {path} cannot be parsed ({type(error).__name__}: {error}); "
            "expected what TFDS writes"
        ) from error


def _shards(split: dict[str, Any]) -> list[int]:
    """Returns the numbers of records of the files of a split."""
    template = split.get("filepathTemplate", _FILES)
    lengths = [int(length) for length in split.get("shardLengths", [])]
    if template != _FILES or min(lengths, default=0) < 0 or len(lengths) > _MOST_SHARDS:
        raise ValueError(f"the split {split['name']!r} has other files")
    return lengths


def _supervised(info: dict[str, Any]) -> list[str]:
    """Returns the names of the features that are input and target, if declared."""
    keys = info.get("supervisedKeys", {})
    items = keys.get("tuple", {}).get("items", [])
    return [str(item.get("featureKey")) for item in items]


def _content(feature: dict[str, Any], kind: str) -> Any:
    """Returns what a feature declares, if it is of a kind; otherwise None.

    TFDS has written three forms: `{kind: content}`; and before version 4.6, beside a
    type, the content as an object or as a string.
    """
    if kind in feature:
        return feature[kind]
    # featuresDict is written by FeaturesDict.
    if str(feature.get("type")).rpartition(".")[2] != kind[0].upper() + kind[1:]:
        return None
    content = feature["content"]
    return parse(content, strict=True) if isinstance(content, str) else content


def _features(root: dict[str, Any]) -> dict[str, dict[str, Any]]:
    content = _content(root, "featuresDict")
    if content is None:
        return {}
    return {str(name): dict(x) for name, x in content.get("features", content).items()}


def _choose(
    path: Path, features: dict[str, dict[str, Any]], supervised: list[str]
) -> tuple[str, str]:
    """Returns the names of the image and of its class: those declared, or the only."""
    chosen = []
    for kind in ("image", "classLabel"):
        names = [name for name, x in features.items() if _content(x, kind) is not None]
        declared = [name for name in supervised if name in names]
        if len(declared or names) != 1:
            raise ValueError(
                f"load: {path} declares no classification of images: the features "
                f"{', '.join(features) or 'none'}, {len(names)} of the kind {kind}; "
                "expected one image and one class label"
            )
        chosen += declared or names
    return chosen[0], chosen[1]


def _shape(
    path: Path, content: dict[str, Any]
) -> tuple[int | None, int | None, int | None]:
    shape = content.get("shape") or (None, None, None)
    sizes = shape["dimensions"] if isinstance(shape, dict) else shape
    height, width, channels = (
        None if size is None or int(size) < 0 else int(size) for size in sizes
    )
    dtype = content.get("dtype") or "uint8"
    if channels not in (None, 1, 3, 4) or dtype not in ("uint8", "uint16"):
        raise ValueError(
            f"load: {path} declares images of {dtype} with {channels} channels; "
            "expected uint8 or uint16, 1, 3 or 4 channels"
        )
    return height, width, channels


def _class_names(path: Path, classes: int) -> tuple[str, ...]:
    if not path.is_file():
        return ()
    with _parsing(path):
        lines = read_bytes(path, LONGEST).decode().split("\n")
    names = tuple(line.strip() for line in lines if line.strip())
    if len(names) != classes:
        raise ValueError(
            f"load: {path} names {len(names)} classes; expected {classes}, one a line"
        )
    return names
