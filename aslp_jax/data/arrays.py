"""Images and labels of an `.npz` file with the names that Keras uses.

Only this module knows the checks of the arrays.
"""

from pathlib import Path

import numpy as np

from aslp_jax._extras import require
from aslp_jax.data import npy

KEYS = ("x_train", "y_train", "x_test", "y_test")
"""Names of the arrays: images and labels to train on, images and labels to test."""

_MOST_CLASSES = 65_536


def read(path: Path) -> dict[str, np.ndarray]:
    """Reads and checks the arrays of a file; arrays of other names are not read.

    Args:
      path: the `.npz` file; images are uint8 `[n, height, width]` or
        `[n, height, width, channels]`, labels are integers of `[n]` or `[n, 1]`.

    Returns:
      uint8 `train_images` and `test_images` of `[n, height, width, channels]`; int32
      `train_labels` and `test_labels` of `[n]`.

    Raises:
      OSError: the file cannot be opened.
      ValueError: the file is damaged, an array is missing or of another kind, or a
        label is not in both training and test images.
    """
    stored = _read_stored(path)
    arrays = {}
    for part in ("train", "test"):
        images, labels = stored[f"x_{part}"], stored[f"y_{part}"]
        arrays[f"{part}_images"] = _check_images(path, f"x_{part}", images)
        arrays[f"{part}_labels"] = _check_labels(path, part, labels, len(images))
    train, test = (arrays[f"{part}_images"].shape[1:] for part in ("train", "test"))
    if train != test:
        raise ValueError(
            f"load: {path}: an image of x_train is {train} and one of x_test {test}; "
            "expected one shape"
        )
    _check_classes(path, arrays["train_labels"], arrays["test_labels"])
    return arrays


def resize(images: np.ndarray, image_size: tuple[int, int]) -> np.ndarray:
    """Resizes images, channel by channel, with Pillow's bilinear filter.

    Args:
      images: uint8 `[n, height, width, channels]`.
      image_size: new height and width.

    Returns:
      uint8 `[n, *image_size, channels]`.

    Raises:
      MissingExtra: Pillow is not installed.
    """
    if images.shape[1:3] == image_size:
        return images
    require("PIL", by="load: resizing of images")
    import PIL.Image

    height, width = image_size
    resized: np.ndarray
    resized = np.empty((len(images), *image_size, images.shape[-1]), np.uint8)
    for index, image in enumerate(images):
        for channel in range(image.shape[-1]):
            plane = PIL.Image.fromarray(np.ascontiguousarray(image[..., channel]))
            resized[index, ..., channel] = plane.resize(
                (width, height), PIL.Image.Resampling.BILINEAR
            )
    return resized


def _read_stored(path: Path) -> dict[str, np.ndarray]:
    try:
        stored = npy.read_members(path, KEYS)
    except ValueError as error:
        raise ValueError(
            f"load: {path} cannot be read ({error}); expected what np.savez writes, "
            f"with {', '.join(KEYS)} and no object arrays"
        ) from error
    if missing := [key for key in KEYS if key not in stored]:
        raise ValueError(
            f"load: {path} lacks {', '.join(missing)}; expected {', '.join(KEYS)}"
        )
    return stored


def _check_images(path: Path, key: str, images: np.ndarray) -> np.ndarray:
    if images.dtype != np.uint8 or images.ndim not in (3, 4) or 0 in images.shape:
        raise ValueError(
            f"load: {path}: {key} is {images.dtype} {images.shape}; expected uint8 "
            "[n, height, width] or [n, height, width, channels], 0 to 255"
        )
    if images.ndim == 3:
        return images[..., None]
    if images.shape[1] in (1, 3) and images.shape[3] > 4:
        raise ValueError(
            f"load: {path}: {key} has the shape {images.shape}, with channels first; "
            "expected [n, height, width, channels]"
        )
    return images


def _check_labels(path: Path, part: str, labels: np.ndarray, count: int) -> np.ndarray:
    key = f"y_{part}"
    column = labels.ndim == 2 and labels.shape[1] == 1
    if labels.dtype.kind not in "iu" or not (labels.ndim == 1 or column):
        raise ValueError(
            f"load: {path}: {key} is {labels.dtype} {labels.shape}; expected integers "
            "of [n] or [n, 1]"
        )
    if len(labels) != count:
        raise ValueError(
            f"load: {path}: x_{part} has {count} images and {key} {len(labels)} "
            "labels; expected equal numbers"
        )
    for label in (labels.min(), labels.max()):
        if not 0 <= label < _MOST_CLASSES:
            raise ValueError(
                f"load: {path}: {key} holds the label {label}; expected 0 to the "
                f"number of classes - 1, at most {_MOST_CLASSES - 1}"
            )
    return labels.reshape(-1).astype(np.int32)


def _check_classes(path: Path, train: np.ndarray, test: np.ndarray) -> None:
    classes = int(train.max()) + 1
    if classes < 2:
        raise ValueError(
            f"load: {path}: y_train holds label 0 alone; expected two classes or more"
        )
    if test.max() >= classes:
        raise ValueError(
            f"load: {path}: y_test holds the label {test.max()}; expected 0 to "
            f"{classes - 1}, the labels of y_train"
        )
    for key, labels in (("y_train", train), ("y_test", test)):
        missing = np.flatnonzero(np.bincount(labels, minlength=classes) == 0)
        if missing.size:
            raise ValueError(
                f"load: {path}: {key} lacks the label {missing[0]}; expected each of "
                f"0 to {classes - 1}"
            )
