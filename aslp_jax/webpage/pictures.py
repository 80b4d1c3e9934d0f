"""Pictures as the content of a PNG file, without a library of pictures."""

import struct
import zlib

import numpy as np

__all__ = ["encode_png"]


def encode_png(pixels: np.ndarray) -> bytes:
    """Returns a picture as the content of a PNG file.

    Args:
      pixels: float `[height, width, 3]` in [0, 1], red, green and blue.

    Returns:
      Bytes of a file of 8 bits a channel.
    """
    values = np.round(255 * np.clip(pixels, 0, 1)).astype(np.uint8)
    height, width, _ = values.shape
    # Each row begins with the number of its filter: 0, none.
    rows = np.pad(values.reshape(height, 3 * width), ((0, 0), (1, 0)))
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = (
        (b"IHDR", header),
        (b"IDAT", zlib.compress(rows.tobytes())),
        (b"IEND", b""),
    )
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(content))
        + name
        + content
        + struct.pack(">I", zlib.crc32(name + content))
        for name, content in parts
    )
