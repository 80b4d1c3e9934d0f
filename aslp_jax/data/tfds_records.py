"""Records of a prepared TFDS dataset, from files of two formats, without TFDS.

TFDS itself would import modules that the dataset's metadata name, and reads TFRecord
files with TensorFlow alone. Only this module knows the bytes of the files: TFRecord,
and the `tf.train.Example` of a record in either format.
"""

import contextlib
import functools
import os
import struct
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path

import numpy as np

from aslp_jax._extras import require

FORMATS = ("array_record", "tfrecord")
"""Formats that can be read, as `dataset_info.json` names them."""

Example = dict[str, list[bytes] | list[int]]
"""Values of each feature of a record."""

_BATCH = 1000  # Records of an array_record, one by one, take twice as long.
_CRC_BLOCK = 1024
_CRC32C = 0x82F63B78  # polynomial, reflected


def count(paths: Sequence[Path], file_format: str) -> int:
    """Returns the number of records in files, without reading the records.

    Args:
      paths: files.
      file_format: one of `FORMATS`.

    Raises:
      MissingExtra: the package that reads the format is not installed.
      OSError: a file cannot be opened.
      RuntimeError: a file is damaged.
      ValueError: a file is damaged.
    """
    if file_format == "tfrecord":
        return sum(1 for path in paths for _ in _tfrecords(path, read=False))
    require("array_record", by="load: records of TFDS")
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    with ArrayRecordDataSource([os.fspath(path) for path in paths]) as shards:
        return len(shards)


def read(
    paths: Sequence[Path], file_format: str, features: Collection[str]
) -> Iterator[Example]:
    """Yields the records of files, in order.

    Args:
      paths: files.
      file_format: one of `FORMATS`.
      features: names of the features to read.

    Yields:
      Values of these features; a feature that a record lacks is absent.

    Raises:
      MissingExtra: the package that reads the format is not installed.
      OSError: a file cannot be opened.
      RuntimeError: a file is damaged.
      ValueError: a file is damaged.
    """
    records = _tfrecord_files if file_format == "tfrecord" else _array_records
    for record in records(paths):
        yield _parse_example(record, features)


def open_any_order(
    paths: Sequence[Path], features: Collection[str]
) -> tuple[int, Callable[[int], Example]]:
    """Opens array_record files to read their records in any order, by many threads.

    A file stays open once a record of it was read. ImageNet has more files than most
    systems let a process open, so that this limit is raised by their number, as far as
    the system allows.

    Args:
      paths: files.
      features: names of the features to read.

    Returns:
      Number of records; and a function from the number of a record, over all files, to
      the values of these features, which raises what `read` raises.

    Raises:
      MissingExtra: the package that reads the format is not installed.
      OSError: a file cannot be opened.
      RuntimeError: a file is damaged.
      ValueError: a file is damaged.
    """
    require("array_record", by="load: records of TFDS")
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    _allow_open_files(len(paths))
    shards = ArrayRecordDataSource([os.fspath(path) for path in paths])
    return len(shards), lambda index: _parse_example(shards[index], features)


def _allow_open_files(count: int) -> None:
    """Lets this process open more files than before, if the system allows it."""
    try:
        import resource
    except ImportError:  # not a Unix
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY:
        return
    wanted = soft + count
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    with contextlib.suppress(OSError, ValueError):  # a system with another bound
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _array_records(paths: Sequence[Path]) -> Iterator[bytes]:
    require("array_record", by="load: records of TFDS")
    from array_record.python.array_record_data_source import ArrayRecordDataSource

    with ArrayRecordDataSource([os.fspath(path) for path in paths]) as shards:
        for start in range(0, len(shards), _BATCH):
            end = min(start + _BATCH, len(shards))
            yield from shards.__getitems__(range(start, end))


def _tfrecord_files(paths: Sequence[Path]) -> Iterator[bytes]:
    for path in paths:
        yield from _tfrecords(path, read=True)


def _tfrecords(path: Path, *, read: bool) -> Iterator[bytes]:
    """Yields the records of a file, verified; without `read`, an empty one for each.

    A record is: its length in 8 bytes, a checksum of the 8 bytes, its content, and a
    checksum of its content.
    """
    size = path.stat().st_size
    with open(path, "rb") as file:
        while file.tell() < size:
            header = file.read(12)
            if len(header) < 12:
                raise ValueError(f"{path.name} ends within a record")
            length, checksum = struct.unpack("<QI", header)
            if _masked_crc(header[:8]) != checksum:
                raise ValueError(f"{path.name} holds a damaged length")
            if length + 4 > size - file.tell():
                raise ValueError(f"{path.name} ends within a record")
            if not read:
                file.seek(length + 4, os.SEEK_CUR)
                yield b""
                continue
            record = file.read(length)
            (checksum,) = struct.unpack("<I", file.read(4))
            if _masked_crc(record) != checksum:
                raise ValueError(f"{path.name} holds a damaged record")
            yield record


def _masked_crc(content: bytes) -> int:
    crc = crc32c(content)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def crc32c(content: bytes) -> int:
    """Returns the CRC-32C (Castagnoli) of bytes.

    A CRC is linear: that of a block is the exclusive or of one table entry for each
    byte and its distance from the end, which NumPy looks up together.

    Args:
      content: bytes of any length.
    """
    table, offsets = _crc_table()
    data = np.frombuffer(content, np.uint8)
    state = 0xFFFFFFFF
    for start in range(0, len(data), _CRC_BLOCK):
        block = data[start : start + _CRC_BLOCK].copy()
        head = min(4, len(block))
        # The state so far counts like the first four bytes; the rest of it is shifted.
        block[:head] ^= np.frombuffer(struct.pack("<I", state), np.uint8)[:head]
        entries = table.take(offsets[_CRC_BLOCK - len(block) :] + block)
        state = state >> 8 * head if head < 4 else 0
        state ^= int(np.bitwise_xor.reduce(entries))
    return state ^ 0xFFFFFFFF


@functools.cache
def _crc_table() -> tuple[np.ndarray, np.ndarray]:
    """Returns the CRC of each byte before some zero bytes, and where these start.

    Returns:
      uint32 `[_CRC_BLOCK * 256]`; and the first entry for each position in a block.
    """
    table: np.ndarray = np.arange(256, dtype=np.uint32)
    for _ in range(8):
        table = table >> 1 ^ np.where(table & 1, np.uint32(_CRC32C), np.uint32(0))
    tables = [table]
    for _ in range(_CRC_BLOCK - 1):
        tables.append(tables[-1] >> 8 ^ table[tables[-1] & 255])
    return np.concatenate(tables), np.arange(_CRC_BLOCK - 1, -1, -1) * 256


def _parse_example(record: bytes, wanted: Collection[str]) -> Example:
    """Returns the values of features of a `tf.train.Example`, a protocol buffer.

    An example holds one message of features (field 1), which holds pairs (field 1) of
    a name (1) and a list (2): of bytes (1), of floats (2) or of integers (3).
    """
    example: Example = {}
    for features in _messages(memoryview(record), 1):
        for pair in _messages(features, 1):
            (name,) = (bytes(name).decode() for name in _messages(pair, 1))
            if name not in wanted:
                continue
            for feature in _messages(pair, 2):
                for strings in _messages(feature, 1):
                    example[name] = [bytes(each) for each in _messages(strings, 1)]
                for integers in _messages(feature, 3):
                    example[name] = _integers(integers)
    return example


def _messages(message: memoryview, wanted: int) -> list[memoryview]:
    found = (value for number, value in _fields(message) if number == wanted)
    return [value for value in found if isinstance(value, memoryview)]


def _integers(message: memoryview) -> list[int]:
    """Returns the signed values of a list of integers, packed or one by one."""
    values = []
    for _, value in _fields(message):
        if isinstance(value, int):
            values.append(value)
            continue
        start = 0
        while start < len(value):
            number, start = _varint(value, start)
            values.append(number)
    return [value - (1 << 64) if value >> 63 else value for value in values]


def _fields(message: memoryview) -> Iterator[tuple[int, int | memoryview]]:
    """Yields number and value of each field; values of fixed length as bytes."""
    start = 0
    while start < len(message):
        key, start = _varint(message, start)
        number, kind = key >> 3, key & 7
        if kind == 0:
            value, start = _varint(message, start)
            yield number, value
            continue
        if kind not in (1, 2, 5):
            raise ValueError(f"a record holds a field of kind {kind}")
        length = {1: 8, 5: 4}.get(kind)
        if length is None:
            length, start = _varint(message, start)
        if length > len(message) - start:
            raise ValueError("a record ends within a field")
        yield number, message[start : start + length]
        start += length


def _varint(message: memoryview, start: int) -> tuple[int, int]:
    """Returns an integer of 7 bits a byte, and the position after it."""
    value = 0
    for shift in range(0, 70, 7):
        if start >= len(message):
            raise ValueError("a record ends within a number")
        byte = message[start]
        start += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value & (1 << 64) - 1, start
    raise ValueError("a record holds a number of more than 64 bits")
