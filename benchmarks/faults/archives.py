"""Hostile archives for every reader of archives: tar.gz, zip, npz and gz.

Nothing is ever unpacked to a disk, so that no name leads anywhere; the tries hold the
readers to it. The file is long because each format has hostile parts of its own.
"""

import functools
import gzip
import hashlib
import io
import os
import struct
import tarfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.bounds import attempt, bounded
from benchmarks.faults.damage import spoil
from benchmarks.faults.tries import WRONG, Failure, Kind, Workshop

_BOMB = 128 << 20
"""Bytes that a bomb expands to: more than a reader may take."""

_NAME = "tiny-imagenet-200"
_WNIDS = ("n00000003", "n00000001")
_LEADING = ("/", "../", "./", "../../../../tmp/", "a/../", "\\\\host\\", "C:/", "//")


class _Zeros(io.RawIOBase):
    """File of many zeros that takes no memory."""

    def __init__(self, size: int) -> None:
        self._left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        size = min(len(buffer), self._left)
        buffer[:size] = bytes(size)
        self._left -= size
        return size


# --- tar.gz: CIFAR --------------------------------------------------------------------


@functools.cache
def _archive() -> Any:
    """Returns a binary archive like that of CIFAR-10, of a few records."""
    import dataclasses

    from aslp_jax.data.cifar import ARCHIVES

    return dataclasses.replace(ARCHIVES["cifar10"], train_count=10, test_count=2)


@functools.cache
def _members() -> dict[str, bytes]:
    """Returns the members of the sound archive by name."""
    archive, rng = _archive(), np.random.default_rng(7)
    found = {"batches.meta.txt": b"\n".join(b"class %d" % i for i in range(10))}
    for split, names in archive.members.items():
        count = archive.counts[split] // len(names)
        for name in names:
            records = rng.integers(0, 256, (count, 3073), np.uint8)
            records[:, 0] %= 10
            found[name] = records.tobytes()
    return found


def _tar_entry(name: str, content: bytes, **about: Any) -> tuple[tarfile.TarInfo, Any]:
    info = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
    info.size = len(content)
    for key, value in about.items():
        setattr(info, key, value)
    return info, io.BytesIO(content)


def _other_tar(rng: np.random.Generator) -> tuple[bytes, str]:
    """Returns a hostile tar file, not compressed yet, and words on it."""
    members = _members()
    entries = [_tar_entry(*each) for each in members.items()]
    at = int(rng.integers(len(entries)))
    name, content = [*members.items()][at]
    kinds = (b"1", b"2", b"3", b"4", b"5", b"6", b"7", b"L", b"K", b"x", b"g", b"S")
    how = int(rng.integers(9))
    extra: list[tuple[tarfile.TarInfo, Any]] = []
    if how == 0:
        kind = kinds[rng.integers(len(kinds))]
        link = ("/etc/passwd", "../../x", name, "")[rng.integers(4)]
        entries[at] = _tar_entry(name, content, type=kind, linkname=link)
        words = f"{name} is of type {kind!r}, to {link!r}"
    elif how == 1:
        lead = _LEADING[rng.integers(len(_LEADING))]
        entries[at][0].name = lead + entries[at][0].name
        words = f"{entries[at][0].name}"
    elif how == 2:
        other, _ = spoil(rng, content)
        extra = [_tar_entry(name, other)]
        entries = [*extra, *entries] if rng.integers(2) else [*entries, *extra]
        words = f"{name} twice"
    elif how == 3:
        info = tarfile.TarInfo(entries[at][0].name)
        info.size = _BOMB
        entries[at] = info, io.BufferedReader(_Zeros(_BOMB))
        words = f"{name} is a bomb"
    elif how == 4:
        headers = {"size": str(int(rng.choice([-1, 0, 1 << 40, 10**30])))}
        headers = {"path": "x" * 50_000} if rng.integers(3) == 0 else headers
        if rng.integers(3) == 0:
            headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
            headers |= {"GNU.sparse.realsize": str(1 << 40), "GNU.sparse.name": name}
        entries[at][0].pax_headers = headers
        words = f"{name} with {str(headers)[:80]}"
    elif how == 5:
        info = tarfile.TarInfo("long")
        info.type, info.size = (b"x", b"L", b"g", b"K")[rng.integers(4)], _BOMB
        entries.insert(at, (info, io.BufferedReader(_Zeros(_BOMB))))
        words = f"a header of type {info.type!r} and {_BOMB:,} bytes"
    elif how == 6:
        words = "100,000 empty members"
    elif how == 7:
        entries.pop(at)
        words = f"no {name}"
    else:
        words = ""
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for info, file in entries:
            file.seek(0) if file.seekable() else None
            _add(tar, info, file)
    data = packed.getvalue()
    if how == 6:
        header = tarfile.TarInfo("other").tobuf()
        data = header * 100_000 + data
    if how == 8:
        data, words = _other_headers(rng, data)
    return data, words


def _add(tar: tarfile.TarFile, info: tarfile.TarInfo, file: Any) -> None:
    """Adds a member of any type with its content, which `addfile` leaves out."""
    header = info.tobuf(tar.format, tar.encoding or "utf-8", tar.errors or "strict")
    assert tar.fileobj is not None
    tar.fileobj.write(header)
    while block := file.read(1 << 20):
        tar.fileobj.write(block)
    tar.fileobj.write(bytes(-info.size % tarfile.BLOCKSIZE))


def _other_headers(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Changes fields of a member's header, and computes its checksum again."""
    found = bytearray(data)
    starts = [at for at in range(0, len(data), 512) if data[at + 257 :][:5] == b"ustar"]
    at = starts[rng.integers(len(starts))]
    fields = {"name": (0, 100), "size": (124, 12), "type": (156, 1), "magic": (257, 8)}
    fields |= {"mode": (100, 8), "time": (136, 12), "prefix": (345, 155)}
    name = list(fields)[rng.integers(len(fields))]
    offset, length = fields[name]
    values = [b"\xff" * length, bytes(length), b"7" * length, rng.bytes(length)]
    values.append(b"\x80".ljust(max(1, length - 4), b"\0") + b"\x7f\xff\xff\xff")
    value = values[rng.integers(len(values))][:length].ljust(length, b"\0")
    found[at + offset : at + offset + length] = value
    found[at + 148 : at + 156] = b" " * 8
    checksum = sum(found[at : at + 512])
    found[at + 148 : at + 156] = b"%06o\0 " % checksum
    return bytes(found), f"{name} of a header is {value[:20]!r}"


def _tar(rng: np.random.Generator, folder: Path) -> str:
    from aslp_jax.data.cifar import read_members

    data, words = _other_tar(rng)
    packed = gzip.compress(data, 1)
    if rng.uniform() < 0.2:
        packed, more = spoil(rng, packed)
        words += f", {more}"
    if rng.uniform() < 0.1:
        packed += gzip.compress(data[: 512 * int(rng.integers(1, 9))])
        words += ", a second gzip member"
    path = folder / "cifar-10-binary.tar.gz"
    path.write_bytes(packed)
    with bounded(f"tar: {words}"):
        found = attempt(
            lambda: read_members(path, _archive()), (ValueError,), start="load: "
        )
    if found is not None and " twice" not in words and found != _members():
        # The archive as a whole has a sha256, which the caller checks first.
        lengths = {name: len(content) for name, content in found.items()}
        if lengths != {name: len(content) for name, content in _members().items()}:
            raise Failure(WRONG, f"tar: {words}: members of {lengths}")
    return f"tar: {words}: {'refused' if found is None else 'read'}"


# --- zip: TinyImageNet ----------------------------------------------------------------


@functools.cache
def _images() -> dict[str, bytes]:
    """Returns the files of a small TinyImageNet by name."""
    import PIL.Image

    def jpeg(seed: int) -> bytes:
        pixels = np.random.default_rng(seed).integers(0, 256, (8, 8, 3), np.uint8)
        file = io.BytesIO()
        image = PIL.Image.fromarray(pixels.repeat(8, axis=0).repeat(8, axis=1))
        image.save(file, format="JPEG")
        return file.getvalue()

    found = {"wnids.txt": "".join(f"{wnid}\n" for wnid in _WNIDS).encode()}
    for label, wnid in enumerate(_WNIDS):
        for number in range(2):
            name = f"train/{wnid}/images/{wnid}_{number}.JPEG"
            found[name] = jpeg(10 * label + number)
    lines = []
    for number, wnid in enumerate(_WNIDS):
        found[f"val/images/val_{number}.JPEG"] = jpeg(100 + number)
        lines.append(f"val_{number}.JPEG\t{wnid}\t0\t0\t62\t62\n")
    found["val/val_annotations.txt"] = "".join(lines).encode()
    return found


def _read_images(parent: Path) -> dict[str, bytes]:
    from aslp_jax.data import tiny_imagenet

    layout = tiny_imagenet.read_layout(parent)
    arrays = tiny_imagenet.decode(layout)
    return {name: array.tobytes() for name, array in arrays.items()}


@functools.cache
def _sound_images(parent: Path) -> dict[str, bytes]:
    parent.mkdir()
    (parent / f"{_NAME}.zip").write_bytes(_zipped(_images()))
    return _read_images(parent)


def _zipped(files: dict[str, bytes], folder: str = f"{_NAME}/") -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(folder + name, content)
    return packed.getvalue()


def _zip(rng: np.random.Generator, folder: Path, sound: Path) -> str:
    wanted = _sound_images(sound / "images")
    files = dict(_images())
    name = list(files)[rng.integers(len(files))]
    how, equal = int(rng.integers(7)), True
    if how == 0:
        data, words = _other_entry(rng, _zipped(files))
    elif how == 1:
        data, words = spoil(rng, _zipped(files))
    elif how == 2:
        files[name], words = spoil(rng, files[name])
        data, words, equal = _zipped(files), f"{name}: {words}", False
    elif how == 3:
        lead = _LEADING[rng.integers(len(_LEADING))]
        content = files.pop(name)
        data, words = _zipped({**files, lead + name: content}), f"{lead}{name}"
        equal = lead == "./"
    elif how == 4:
        data, words, equal = _bomb_zip(name), f"{name} is a bomb", False
    elif how == 5:
        other, _ = spoil(rng, files[name])
        data, words, equal = _twice(files, name, other), f"{name} twice", False
    else:
        many = {f"other/{number}": b"" for number in range(2000)}
        data, words = _zipped({**files, **many}), "2,000 members more"
    (folder / f"{_NAME}.zip").write_bytes(data)
    with bounded(f"zip: {words}"):
        found = attempt(
            lambda: _read_images(folder), (ValueError, OSError), start="load: "
        )
    if found is not None and equal and found != wanted:
        raise Failure(WRONG, f"zip: {words}: other images")
    return f"zip: {words}: {'refused' if found is None else 'read'}"


@functools.cache
def _bomb_zip(name: str) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for each, content in _images().items():
            if each != name:
                archive.writestr(f"{_NAME}/{each}", content)
        with archive.open(f"{_NAME}/{name}", "w") as member:
            for _ in range(_BOMB >> 20):
                member.write(bytes(1 << 20))
    return packed.getvalue()


def _twice(files: dict[str, bytes], name: str, other: bytes) -> bytes:
    """Returns an archive with two members of one name."""
    stand_in = name[:-1] + "\x01"
    data = _zipped({**files, stand_in: other})
    return data.replace(stand_in.encode(), name.encode())


_ENTRY = {
    **{"flags": (8, 2), "method": (10, 2), "crc": (16, 4), "packed size": (20, 4)},
    **{"size": (24, 4), "length of the name": (28, 2), "length of extra": (30, 2)},
    **{"attributes": (38, 4), "offset": (42, 4), "version": (6, 2)},
}
"""Fields of a member in the central list, with their places and lengths."""


def _other_entry(rng: np.random.Generator, data: bytes) -> tuple[bytes, str]:
    """Changes a field of a member in the central list, or in the end of it."""
    found = bytearray(data)
    if rng.uniform() < 0.2:
        at, offset = data.rindex(b"PK\x05\x06"), int(rng.integers(4, 22))
        found[at + offset] = int(rng.integers(256))
        return bytes(found), f"byte {offset} of the end is {found[at + offset]}"
    starts = []
    at = data.find(b"PK\x01\x02")
    while at >= 0:
        starts.append(at)
        at = data.find(b"PK\x01\x02", at + 1)
    at = starts[rng.integers(len(starts))]
    name = list(_ENTRY)[rng.integers(len(_ENTRY))]
    offset, length = _ENTRY[name]
    highest = (1 << 8 * length) - 1
    choices = [0, 1, highest, highest - 1, highest >> 1, int(rng.integers(highest))]
    if name == "flags":
        choices += [1 << bit for bit in range(16)]
    if name == "method":
        choices += [8, 9, 12, 14, 93, 97, 99]
    if name == "attributes":
        choices += [0o120777 << 16, 0o060000 << 16]
    value = choices[rng.integers(len(choices))]
    found[at + offset : at + offset + length] = value.to_bytes(length, "little")
    return bytes(found), f"{name} of a member is {value}"


# --- npz: arrays ----------------------------------------------------------------------


def _npy(array: np.ndarray, **header: Any) -> bytes:
    """Returns an array in NumPy's format, with some values of its header changed."""
    # NumPy would not write some of these values.
    about = repr(np.lib.format.header_data_from_array_1_0(array) | header)
    text = about.encode("latin1") + b" " * (-(len(about) + 11) % 64) + b"\n"
    length = len(text).to_bytes(2, "little")
    return b"\x93NUMPY\x01\x00" + length + text + array.tobytes()


@functools.cache
def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    images = [rng.integers(0, 256, (count, 4, 5), np.uint8) for count in (6, 3)]
    labels = [np.arange(count) % 3 for count in (6, 3)]
    keys = ("x_train", "x_test", "y_train", "y_test")
    return dict(zip(keys, [*images, *labels], strict=True))


def _npz(rng: np.random.Generator, folder: Path) -> str:
    from aslp_jax.data import arrays as reader

    members = {f"{key}.npy": _npy(array) for key, array in _arrays().items()}
    name = list(members)[rng.integers(len(members))]
    array, how, equal = _arrays()[name[:-4]], int(rng.integers(5)), True
    if how == 0:
        data, words = _other_entry(rng, _zipped(members, ""))
    elif how == 1:
        data, words = spoil(rng, _zipped(members, ""))
    elif how == 2:
        members[name], words = spoil(rng, members[name])
        data, words, equal = _zipped(members, ""), f"{name}: {words}", False
    elif how == 3:
        changes: list[dict[str, Any]] = [
            *({"shape": shape} for shape in ((1 << 50,), (-1,), (1,) * 40, (), "x")),
            *({"shape": (6.0, 4, 5)}, {"shape": (0, 1 << 70)}, {"shape": None}),
            *({"descr": descr} for descr in ("|O", "<f8", "quite wrong", "", "3")),
            *({"descr": [("a", "<u1")] * 2}, {"descr": "V1000000000"}),
            *({"descr": "(" * 5000}, {"fortran_order": 1}, {"more": 1}),
        ]
        about = changes[rng.integers(len(changes))]
        members[name] = _npy(array, **about)
        data, words, equal = _zipped(members, ""), f"{name}: {about!s:.60}", False
    else:
        members.pop(name)
        packed = io.BytesIO(_zipped(members, ""))
        with (
            zipfile.ZipFile(packed, "a", zipfile.ZIP_DEFLATED) as archive,
            archive.open(name, "w") as member,
        ):
            member.write(_npy(array, shape=(_BOMB, *array.shape[1:])))
            for _ in range(_BOMB >> 20):
                member.write(bytes(1 << 20))
        data, words, equal = packed.getvalue(), f"{name} is a bomb", False
    path = folder / "images.npz"
    path.write_bytes(data)
    with bounded(f"npz: {words}"):
        found = attempt(lambda: reader.read(path), (ValueError,), start="load: ")
    if found is not None and equal:
        stored = [found[f"{part}_images"][..., 0] for part in ("train", "test")]
        stored += [found[f"{part}_labels"] for part in ("train", "test")]
        if not all(map(np.array_equal, stored, _arrays().values())):
            raise Failure(WRONG, f"npz: {words}: other arrays")
    return f"npz: {words}: {'refused' if found is None else 'read'}"


# --- gz: Fashion-MNIST ----------------------------------------------------------------


@functools.cache
def _idx() -> tuple[Any, dict[str, bytes]]:
    """Returns a description of four small files, and their content."""
    from aslp_jax.data.fashion_mnist import SHAPE, IdxFiles

    counts, contents = {"train": 4, "test": 2}, {}
    rng = np.random.default_rng(5)
    for stem, count in (("train", 4), ("t10k", 2)):
        size = count * SHAPE[0] * SHAPE[1]
        header = struct.pack(">IIII", 2051, count, *SHAPE[:2])
        contents[f"{stem}-images-idx3-ubyte.gz"] = header + rng.bytes(size)
        labels = struct.pack(">II", 2049, count) + bytes(count)
        contents[f"{stem}-labels-idx1-ubyte.gz"] = labels
    hashes = {name: hashlib.sha256(each).hexdigest() for name, each in contents.items()}
    return IdxFiles(counts, hashes), contents


def _gz(rng: np.random.Generator, folder: Path) -> str:
    from aslp_jax.data import fashion_mnist

    files, contents = _idx()
    name = list(contents)[rng.integers(len(contents))]
    for each, content in contents.items():
        (folder / each).write_bytes(gzip.compress(content))
    content = contents[name]
    how = int(rng.integers(4))
    if how == 0:
        data, words = spoil(rng, gzip.compress(content))
    elif how == 1:
        other, words = spoil(rng, content)
        data = gzip.compress(other)
    elif how == 2:
        data, words = gzip.compress(content) + gzip.compress(b""), "an empty member"
    else:
        data, words = gzip.compress(content + bytes(_BOMB), 1), "a bomb"
    (folder / name).write_bytes(data)
    with bounded(f"gz: {words}"):
        found = attempt(
            lambda: fashion_mnist.read(folder, files), (ValueError,), start="load: "
        )
    if found is not None:
        images = contents["train-images-idx3-ubyte.gz"][16:]
        if found["train_images"].tobytes() != images:
            raise Failure(WRONG, f"gz: {words}: other images")
    return f"gz: {words}: {'refused' if found is None else 'read'}"


def _attempt(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    kind = rng.integers(4)
    before = sorted(os.listdir(folder.parent))
    if kind == 0:
        about = _tar(rng, folder)
    elif kind == 1:
        about = _zip(rng, folder, shop.sound)
    elif kind == 2:
        about = _npz(rng, folder)
    else:
        about = _gz(rng, folder)
    if sorted(os.listdir(folder.parent)) != before or len(os.listdir(folder)) > 4:
        raise Failure(WRONG, f"{about}; and it wrote files: {os.listdir(folder)}")
    return about


KINDS = (
    Kind(
        "archives",
        "hostile tar.gz, zip, npz and gz archives",
        _attempt,
        turn=40,
    ),
)
