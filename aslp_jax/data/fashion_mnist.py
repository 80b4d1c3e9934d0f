"""Fashion-MNIST out of its four official files, in the format IDX.

Only this module knows the files. What counts is their content: some distributions
compress them again.
"""

import dataclasses
import gzip
import hashlib
import zlib
from pathlib import Path

import numpy as np

URL = "https://github.com/zalandoresearch/fashion-mnist"
"""Address of the official files."""

CLASS_NAMES = (
    "T-shirt/top",
    "Trouser",
    "Pullover",
    "Dress",
    "Coat",
    "Sandal",
    "Shirt",
    "Sneaker",
    "Bag",
    "Ankle boot",
)
"""Names of the classes, in the order of labels."""

SHAPE = (28, 28, 1)
"""Height, width and channels of an image."""


@dataclasses.dataclass(frozen=True)
class IdxFiles:
    """Four files of images and labels.

    Attributes:
      counts: number of images of "train" and of "test".
      sha256: sha256 of the decompressed content, by the name of the file.
    """

    counts: dict[str, int]
    sha256: dict[str, str]


OFFICIAL = IdxFiles(
    counts={"train": 60_000, "test": 10_000},
    sha256={
        "train-images-idx3-ubyte.gz": (
            "c59f468a2f672dc815687fe0f83887768d799fd8a3f3276145d20f83aa44d888"
        ),
        "train-labels-idx1-ubyte.gz": (
            "bad3541b69d912435c50bb6ba87bec294ff4f6a2e1246121d8633921760443d9"
        ),
        "t10k-images-idx3-ubyte.gz": (
            "5b4141f0afbad91edebe8549f8fcffe087ea10ca49f1dbef5c9a5cd8815ce37b"
        ),
        "t10k-labels-idx1-ubyte.gz": (
            "0402a96d92fd2663957122ceb108a494c5af83dab82d92729df917d7dec38c34"
        ),
    },
)
"""The official files."""

_HEADERS = {"images": 16, "labels": 8}  # bytes: a magic number, then sizes
_STEMS = {"train": "train", "test": "t10k"}


def read(folder: Path, files: IdxFiles) -> dict[str, np.ndarray]:
    """Reads and checks the files of a folder.

    Args:
      folder: folder that holds the files.
      files: expected content.

    Returns:
      uint8 `<split>_images` of `[count, *SHAPE]` and `<split>_labels` of `[count]`.

    Raises:
      FileNotFoundError: a file is missing.
      OSError: a file cannot be opened.
      ValueError: a file is damaged, or is not the official one.
    """
    missing = [name for name in files.sha256 if not (folder / name).is_file()]
    if missing:
        raise FileNotFoundError(
            f"load: {folder} lacks {', '.join(missing)}; expected the files of {URL} "
            "(Debian: apt-get install dataset-fashion-mnist, then "
            "/usr/share/datasets/fashion-mnist)"
        )
    arrays = {}
    for split, count in files.counts.items():
        shapes = {"images": (count, *SHAPE), "labels": (count,)}
        for kind, shape in shapes.items():
            rank = {"images": 3, "labels": 1}[kind]
            name = f"{_STEMS[split]}-{kind}-idx{rank}-ubyte.gz"
            size = _HEADERS[kind] + int(np.prod(shape))
            content = _read_file(folder / name, size, files.sha256[name])
            values = np.frombuffer(content, np.uint8, offset=_HEADERS[kind])
            arrays[f"{split}_{kind}"] = values.reshape(shape)
    return arrays


def _read_file(path: Path, size: int, sha256: str) -> bytes:
    try:
        with gzip.open(path) as file:
            # One byte more: another file may expand without bound.
            content = file.read(size + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(
            f"load: {path} is truncated or damaged ({error}); expected the file of "
            f"{URL}"
        ) from error
    if hashlib.sha256(content).hexdigest() != sha256:
        raise ValueError(
            f"load: {path} is not the official file; expected {size} bytes with sha256 "
            f"{sha256} after decompression"
        )
    return content
