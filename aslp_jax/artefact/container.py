"""The bytes of an artefact: a header and sections, with proof that they are whole.

Written down in docs/artefact.md. Every version of the format begins with the magic
bytes and its number, and ends with the sha256 of all before: damage is told from
novelty, and nothing of a damaged file is looked at.
"""

import hashlib
import json
import struct
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, NoReturn


class ArtefactError(ValueError):
    """A file is damaged or no artefact, or a network is not what one can hold."""


MAGIC = b"\x89ASLP\r\n\x1a"
"""As that of PNG: a file that was sent as text or cut to seven bits shows at once."""

VERSION = 1
LARGEST_FILE = 1 << 29
LARGEST_HEADER = 1 << 20

_PREFIX = struct.Struct("<8sII")
_DIGEST = hashlib.sha256().digest_size


def pack(header: Mapping[str, Any], sections: Sequence[bytes]) -> bytes:
    """Returns the bytes of a file.

    Args:
      header: JSON values.
      sections: one after another, as the header describes them.

    Raises:
      ArtefactError: it is larger than a file may be.
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
    size = _PREFIX.size + len(text) + sum(map(len, sections)) + _DIGEST
    if size > LARGEST_FILE:
        raise ArtefactError(f"takes {size} bytes, more than an artefact can have")
    whole = b"".join((_PREFIX.pack(MAGIC, VERSION, len(text)), text, *sections))
    return whole + hashlib.sha256(whole).digest()


def unpack(data: bytes) -> tuple[dict[str, Any], memoryview]:
    """Returns the header, and all sections behind it, of a file that is whole.

    Args:
      data: the bytes of a file.

    Raises:
      ArtefactError: they are no artefact, of a newer version, damaged, or have a header
        that is not JSON as this format has it.
    """
    if data[: len(MAGIC)] != MAGIC:
        raise ArtefactError("is no artefact: it does not begin as one")
    if len(data) < _PREFIX.size + _DIGEST:
        raise ArtefactError(f"is cut short: {len(data)} bytes")
    whole = memoryview(data)[:-_DIGEST]
    if hashlib.sha256(whole).digest() != data[-_DIGEST:]:
        raise ArtefactError("is damaged or cut short: its checksum does not match")
    _, version, size = _PREFIX.unpack_from(data)
    if version != VERSION:
        raise ArtefactError(
            f"is of format {version}; this version of aslp_jax reads format {VERSION}"
        )
    if size > min(LARGEST_HEADER, len(whole) - _PREFIX.size):
        raise ArtefactError(f"declares a header of {size} bytes, more than it can have")
    body = whole[_PREFIX.size :]
    return _parse(bytes(body[:size])), body[size:]


def _parse(text: bytes) -> dict[str, Any]:
    try:
        header = json.loads(
            text.decode(), object_pairs_hook=_unique, parse_constant=_refuse
        )
    except ArtefactError:
        raise
    except (ValueError, RecursionError) as error:
        raise ArtefactError(f"has a header that cannot be parsed ({error})") from None
    if type(header) is not dict:
        raise ArtefactError("has a header that is no JSON object")
    return header


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ArtefactError("has a header that says something twice")
    return found


def _refuse(constant: str) -> NoReturn:
    raise ArtefactError(f"has a header that holds {constant}, which is no number")


def deflate(data: bytes) -> tuple[bytes, bool]:
    """Returns the data, compressed where that is smaller, and whether it is."""
    packed = zlib.compress(data, 9)
    return (packed, True) if len(packed) < len(data) else (data, False)


def inflate(data: memoryview, size: int) -> bytes:
    """Returns what `deflate` compressed, of a known size and never more.

    Args:
      data: the compressed bytes.
      size: of what comes out, at least 1.

    Raises:
      ArtefactError: it is not what comes out.
    """
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, size)
        # The end of the stream may be left, and nothing else.
        rest = stream.decompress(stream.unconsumed_tail, 1)
    except zlib.error as error:
        raise ArtefactError(f"cannot be inflated ({error})") from None
    if len(found) != size or rest or not stream.eof or stream.unused_data:
        raise ArtefactError(f"does not inflate to {size} bytes")
    return found
