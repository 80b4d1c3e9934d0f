"""The bytes of an artefact: a header, segments and a checksum.

Every version of the format begins with the magic bytes and the version, and ends with
the sha256 of all bytes before. A reader can therefore distinguish a damaged file from a
newer one, and uses no content of a damaged file. docs/artefact.md describes the format.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from aslp_jax._json import Unreadable, parse


class ArtefactError(ValueError):
    """Error of a file that is no valid artefact, or of a network that no file holds."""

    page = "docs/artefact.md"


MAGIC = b"\x89ASLP\r\n\x1a"
"""First bytes of every artefact.

As in PNG, they change if a file is sent as text or with seven bits a byte.
"""

FORMATS = (1, 2)
"""Versions of the format that this library reads and writes."""

LARGEST_FILE = 1 << 29
"""Largest size of a file in bytes."""

LARGEST_HEADER = 1 << 20
"""Largest size of a header in bytes."""

_PREFIX = struct.Struct("<8sII")
_DIGEST = hashlib.sha256().digest_size


class Unpacked(NamedTuple):
    """Parts of a file whose checksum is right.

    Attributes:
      version: version of the format, one of `FORMATS`.
      header: JSON values.
      body: bytes of all segments.
    """

    version: int
    header: dict[str, Any]
    body: memoryview


def pack(version: int, header: Mapping[str, Any], segments: Sequence[bytes]) -> bytes:
    """Returns the bytes of a file.

    Args:
      version: version of the format, one of `FORMATS`.
      header: JSON values.
      segments: contents of the segments, in the order of the header.

    Returns:
      All bytes, including the checksum.

    Raises:
      ArtefactError: the header or the file is larger than the format allows.
    """
    text = json.dumps(
        header,
        ensure_ascii=False,
        allow_nan=False,
        sort_keys=True,
        separators=(",", ":"),
    ).encode()
    if len(text) > LARGEST_HEADER:
        raise ArtefactError(f"has a header of {len(text)} bytes, more than it can have")
    size = _PREFIX.size + len(text) + sum(map(len, segments)) + _DIGEST
    if size > LARGEST_FILE:
        raise ArtefactError(f"takes {size} bytes, more than an artefact can have")
    content = b"".join((_PREFIX.pack(MAGIC, version, len(text)), text, *segments))
    return content + hashlib.sha256(content).digest()


def unpack(data: bytes) -> Unpacked:
    """Returns the header and the segments of a file after checking its checksum.

    Args:
      data: all bytes of a file.

    Returns:
      The parts of the file.

    Raises:
      ArtefactError: the bytes are no artefact, of a newer version, damaged, or have a
        header that is not the JSON of this format.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ArtefactError("is no artefact: its first bytes are not those of one")
    if len(data) < _PREFIX.size + _DIGEST:
        raise ArtefactError(f"is truncated: {len(data)} bytes")
    content = memoryview(data)[:-_DIGEST]
    if hashlib.sha256(content).digest() != data[-_DIGEST:]:
        raise ArtefactError("is damaged or truncated: its checksum does not match")
    _, version, size = _PREFIX.unpack_from(data)
    if version not in FORMATS:
        raise ArtefactError(
            f"is of format {version}; this version of aslp_jax reads formats "
            f"{' and '.join(map(str, FORMATS))}"
        )
    if size > min(LARGEST_HEADER, len(content) - _PREFIX.size):
        raise ArtefactError(f"declares a header of {size} bytes, more than it can have")
    body = content[_PREFIX.size :]
    return Unpacked(version, _parse(bytes(body[:size])), body[size:])


def _parse(text: bytes) -> dict[str, Any]:
    try:
        return parse(text, strict=True)
    except Unreadable as error:
        raise ArtefactError(f"has a header that {error}") from None


def deflate(data: bytes) -> tuple[bytes, bool]:
    """Compresses data if that makes it smaller.

    Args:
      data: any bytes.

    Returns:
      `(stored, deflated)`: the bytes to store, and True if they are compressed.
    """
    packed = zlib.compress(data, 9)
    return (packed, True) if len(packed) < len(data) else (data, False)


def inflate(data: memoryview, size: int) -> bytes:
    """Decompresses data of a known size; allocates no more than this size.

    Args:
      data: compressed bytes.
      size: expected number of decompressed bytes, at least 1.

    Returns:
      The decompressed bytes.

    Raises:
      ArtefactError: the data does not decompress to this number of bytes.
    """
    stream = zlib.decompressobj()
    try:
        inflated = stream.decompress(data, size)
        # The end marker of the stream may still be unread, but no further byte.
        rest = stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise ArtefactError(f"cannot be inflated ({error})") from None
    if len(inflated) != size or rest or not stream.eof or stream.unused_data:
        raise ArtefactError(f"does not inflate to {size} bytes")
    return inflated
