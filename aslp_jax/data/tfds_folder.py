"""Prepared TFDS folders, checked before use: another program may have written them."""

import contextlib
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from aslp_jax.data import decoding, tfds_records
from aslp_jax.data.tfds_metadata import Metadata

_NAME = re.compile(r"(\w+(?:/\w[\w.-]*)?)(?::(\d+\.\d+\.\d+))?", re.ASCII)
_SHOWN = 10  # names in an error


def find(root: Path, name: str) -> Path:
    """Returns the folder of a version of a dataset: the newest, or the one asked for.

    Args:
      root: folder that holds `<name>/<version>` or `<name>/<config>/<version>`.
      name: name of the dataset as TFDS spells it: `name`, `name/config`, and either
        with `:version` after it.

    Returns:
      The folder of the version.

    Raises:
      FileNotFoundError: there is no such version.
      ValueError: the name is not spelt so.
    """
    spelt = _NAME.fullmatch(name)
    if spelt is None:
        raise ValueError(
            f"load: {name!r} is no name of TFDS; expected NAME, NAME/CONFIG or "
            "NAME/CONFIG:VERSION"
        )
    versions = find_versions(root / spelt[1])
    if spelt[2] is not None:
        versions = [folder for folder in versions if folder.name == spelt[2]]
    if not versions:
        raise FileNotFoundError(
            f"load: no prepared dataset {name} in {root}, which holds "
            f"{_prepared(root)}; expected "
            f"'{spelt[1]}/{spelt[2] or '<version>'}/dataset_info.json' there"
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


def _prepared(root: Path) -> str:
    """Returns words on the datasets that are prepared in a folder."""
    parents = {
        path.parent.parent.relative_to(root).as_posix()
        for pattern in ("*/*/dataset_info.json", "*/*/*/dataset_info.json")
        for path in root.glob(pattern)
    }
    found = sorted(name for name in parents if find_versions(root / name))
    more = ", ..." if len(found) > _SHOWN else ""
    return f"{', '.join(found[:_SHOWN]) or 'no dataset'}{more}"


def decode(
    found: Metadata,
    splits: Mapping[str, str],
    image_size: tuple[int, int] | None = None,
    note: Callable[[str], None] = lambda text: None,
) -> dict[str, np.ndarray]:
    """Decodes every record of some splits, as `decoding.decode` does.

    Images have as many channels as are declared; where that is not declared, one if
    all images are grey, else three.

    Args:
      found: description of the dataset.
      splits: split of the dataset, by the name in the result.
      image_size: height and width that each image is resized to; None for no change.
      note: function that shows a message about the progress.

    Returns:
      uint8 `<name>_images` of `[count, height, width, channels]` and int32
      `<name>_labels` of `[count]`.

    Raises:
      MissingExtra: a package of the extra `data` is not installed.
      ValueError: a record is missing or superfluous, or cannot be read; a label is out
        of range; or images have several sizes.
    """
    channels = found.shape[2]
    if channels is None:
        grey = all(
            decoding.are_grey(image for image, _ in _read(found, split))
            for split in splits.values()
        )
        channels = 1 if grey else 3
    channels = min(channels, 3)
    arrays = {}
    for name, split in splits.items():
        labels: list[int] = []
        arrays[f"{name}_images"] = decoding.decode(
            _images(found, split, labels),
            found.counts[split],
            channels,
            image_size,
            note,
        )
        arrays[f"{name}_labels"] = np.array(labels, np.int32)
    return arrays


def open_any_order(
    found: Metadata, split: str
) -> Callable[[int], tuple[decoding.Encoded, int]]:
    """Opens a split to read its records in any order, by many threads.

    Args:
      found: description of the dataset, whose files are in the format `array_record`.
      split: name of the split.

    Returns:
      Function from the number of a record to its image, still encoded, and its label,
      both checked. It raises ValueError if the record cannot be read.

    Raises:
      MissingExtra: a package of the extra `data` is not installed.
      ValueError: a file cannot be opened, or a record is missing or superfluous.
    """
    wanted = (found.image, found.label)
    with _reading(found, split):
        count, read = tfds_records.open_any_order(found.files(split), wanted)
        if count != found.counts[split]:
            raise ValueError(f"there are {count}")

    def read_record(index: int) -> tuple[decoding.Encoded, int]:
        with _reading(found, split):
            return _check_example(found, split, index, read(index))

    return read_record


def _images(
    found: Metadata, split: str, labels: list[int]
) -> Iterator[decoding.Encoded]:
    """Yields the image of each record, and appends its label to `labels`."""
    for image, label in _read(found, split):
        labels.append(label)
        yield image


def _read(found: Metadata, split: str) -> Iterator[tuple[decoding.Encoded, int]]:
    """Yields image and label of each record, both checked, the image still encoded."""
    files = found.files(split)
    with _reading(found, split):
        # TFDS reads as many records as are declared, and ignores further ones.
        records = tfds_records.count(files, found.file_format)
        if records != found.counts[split]:
            raise ValueError(f"there are {records}")
        wanted = (found.image, found.label)
        examples = tfds_records.read(files, found.file_format, wanted)
        for index, example in enumerate(examples):
            yield _check_example(found, split, index, example)


def _check_example(
    found: Metadata, split: str, index: int, example: tfds_records.Example
) -> tuple[decoding.Encoded, int]:
    """Returns image and label of a record, the image still encoded."""
    images, labels = (example.get(name, []) for name in (found.image, found.label))
    if not (len(images) == 1 and isinstance(images[0], bytes)):
        raise ValueError(f"record {index} has no image")
    if not (len(labels) == 1 and isinstance(labels[0], int)):
        raise ValueError(f"record {index} has no label")
    if not 0 <= labels[0] < found.classes:
        raise ValueError(f"the label of record {index} is {labels[0]}")
    name = f"image {index} of the {split} records in {found.folder}"
    return (name, images[0]), labels[0]


@contextlib.contextmanager
def _reading(found: Metadata, split: str) -> Iterator[None]:
    """Raises an error of files or records again, with the name of the folder."""
    try:
        yield
    except (OSError, RuntimeError, ValueError, LookupError) as error:
        raise ValueError(
            f"load: the {split} records in {found.folder} cannot be read "
            f"({' '.join(str(error).split())}); expected {found.counts[split]}, each "
            f"of an image and a label below {found.classes}"
        ) from error
