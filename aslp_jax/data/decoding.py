"""Decoding of PNG and JPEG images of any kind to arrays of 8-bit grey or RGB.

Folders of images and prepared TFDS folders share it, so that an image has one meaning.
"""

import contextlib
import io
import struct
import threading
import time
import warnings
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aslp_jax._extras import require

Encoded = tuple[str, Path | bytes]
"""Words that name an image in an error, and its file or its bytes."""

_GREY_MODES = ("1", "L", "LA", "La", "I", "I;16", "I;16B", "I;16L")
_NOTE_SECONDS = 10.0
_LARGEST_FILE = 1 << 28  # bytes
_MOST_PIXELS = 1 << 26  # 8,192x8,192
_BY = "load: decoding of images"


def are_grey(images: Iterable[Encoded]) -> bool:
    """Returns True if all images are grey.

    Args:
      images: encoded images.

    Raises:
      MissingExtra: Pillow is not installed.
      ValueError: an image cannot be read.
    """
    require("PIL", by=_BY)
    return all(_is_grey(*image) for image in images)


def decode(
    images: Iterable[Encoded],
    count: int,
    channels: int,
    image_size: tuple[int, int] | None,
    note: Callable[[str], None],
) -> np.ndarray:
    """Decodes images, upright and in 8 bits.

    Transparent pixels are shown over black.

    Args:
      images: encoded images.
      count: number of images, at least 1.
      channels: 1 to make each image grey, 3 to make each image RGB.
      image_size: height and width that each image is resized to, with a bilinear
        filter; None for no change.
      note: function that shows a message about the progress, every ten seconds.

    Returns:
      uint8 `[count, height, width, channels]`.

    Raises:
      MissingExtra: Pillow is not installed.
      ValueError: an image cannot be read, images have several sizes, or there are more
        or fewer of them.
    """
    require("PIL", by=_BY)
    arrays: np.ndarray = np.empty((0, 0, 0, channels), np.uint8)
    first, index, noted = "", -1, time.monotonic()
    for index, (name, encoded) in enumerate(images):
        pixels = decode_image(name, encoded, channels, image_size)
        if index == 0:
            first, arrays = name, np.empty((count, *pixels.shape), np.uint8)
        if pixels.shape != arrays.shape[1:]:
            sizes = arrays.shape[1:3], pixels.shape[:2]
            size, other = (f"{height}x{width}" for height, width in sizes)
            raise ValueError(
                f"load: images have several sizes: {first} has {size} pixels and "
                f"{name} {other}; give --image-size"
            )
        if index < count:
            arrays[index] = pixels
        if time.monotonic() - noted >= _NOTE_SECONDS:
            noted = time.monotonic()
            note(f"decoded {index + 1:,} of {count:,} images")
    if index + 1 != count:
        raise ValueError(f"load: there are {index + 1} images; expected {count}")
    return arrays


@contextlib.contextmanager
def open_bounded(encoded: Path | bytes, formats: tuple[str, ...]) -> Iterator[Any]:
    """Opens an image after its size is checked, in bytes and in pixels.

    Args:
      encoded: file of the image, or its bytes.
      formats: formats that it may have, as Pillow names them.

    Yields:
      Pillow's image, of which no pixel is decoded yet.

    Raises:
      Exception: Pillow cannot read the image; Pillow raises many types.
      ValueError: the file is too large, or the image has too many pixels.
    """
    import PIL.Image

    size = len(encoded) if isinstance(encoded, bytes) else encoded.stat().st_size
    if size > _LARGEST_FILE:
        raise ValueError(f"it has {size:,} bytes, more than {_LARGEST_FILE:,}")
    file = io.BytesIO(encoded) if isinstance(encoded, bytes) else encoded
    with contextlib.ExitStack() as quiet:
        # Filters of warnings belong to the process: two threads at once would leave
        # those of one another behind.
        if threading.current_thread() is threading.main_thread():
            quiet.enter_context(warnings.catch_warnings())
            # Pillow warns above a bound of its own; ours is smaller.
            warnings.simplefilter("ignore", PIL.Image.DecompressionBombWarning)
        opened = PIL.Image.open(file, formats=formats)
    with opened as image:
        if image.width * image.height > _MOST_PIXELS:
            raise ValueError(
                f"it has {image.width}x{image.height} pixels, more than "
                f"{_MOST_PIXELS:,}"
            )
        yield image


@contextlib.contextmanager
def _open(name: str, encoded: Path | bytes) -> Iterator[Any]:
    """Opens an image; raises one kind of error, with its name, if it is damaged."""
    import PIL.Image

    try:
        with open_bounded(encoded, ("PNG", "JPEG")) as image:
            yield image
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
        PIL.Image.DecompressionBombWarning,  # where warnings are errors
    ) as error:
        raise ValueError(
            f"load: {name} cannot be read ({error}); expected a complete PNG or JPEG "
            "image"
        ) from error


def _is_grey(name: str, encoded: Path | bytes) -> bool:
    with _open(name, encoded) as image:
        return image.mode in _GREY_MODES


def decode_image(
    name: str,
    encoded: Path | bytes,
    channels: int,
    image_size: tuple[int, int] | None,
) -> np.ndarray:
    """Decodes one image, as `decode` does.

    Args:
      name: words that name the image in an error.
      encoded: file of the image, or its bytes.
      channels: 1 to make the image grey, 3 to make it RGB.
      image_size: height and width that it is resized to, with a bilinear filter; None
        for no change.

    Returns:
      uint8 `[height, width, channels]`.

    Raises:
      ValueError: the image cannot be read.
    """
    with open_upright(name, encoded, channels) as image:
        if image_size is not None:
            import PIL.Image

            height, width = image_size
            image = image.resize((width, height), PIL.Image.Resampling.BILINEAR)
        return to_array(image, channels)


def to_array(image: Any, channels: int) -> np.ndarray:
    """Returns the pixels of an image from `open_upright`.

    Args:
      image: Pillow's image, grey or RGB.
      channels: 1 if it is grey, else 3.

    Returns:
      uint8 `[height, width, channels]`.
    """
    return np.asarray(image).reshape(image.height, image.width, channels)


@contextlib.contextmanager
def open_upright(name: str, encoded: Path | bytes, channels: int) -> Iterator[Any]:
    """Decodes an image, upright, in 8 bits, and over black where it is transparent.

    Args:
      name: words that name the image in an error.
      encoded: file of the image, or its bytes.
      channels: 1 to make the image grey, 3 to make it RGB.

    Yields:
      Pillow's image, grey or RGB.

    Raises:
      ValueError: the image cannot be read.
    """
    with _open(name, encoded) as opened:
        import PIL.Image
        import PIL.ImageOps

        image = PIL.ImageOps.exif_transpose(opened)
        if image.mode.startswith("I"):  # 16 bits, in 32 by some versions of Pillow
            values = np.asarray(image).astype(np.int64).clip(0, 65535)
            image = PIL.Image.fromarray(((values + 128) // 257).astype(np.uint8))
        elif image.has_transparency_data:
            image = image.convert("RGBA")
            black = PIL.Image.new("RGBA", image.size, (0, 0, 0, 255))
            image = PIL.Image.alpha_composite(black, image).convert("RGB")
        yield image.convert("L" if channels == 1 else "RGB")
