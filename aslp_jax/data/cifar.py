"""The official CIFAR binary archives, prepared as standard TFDS folders.

Only this module knows the layout of the archives, the download, and the way to prepare
a dataset with TFDS but without TensorFlow. It is long because each way in which a
download or an archive can be wrong has an error of its own.
"""

import contextlib
import dataclasses
import gzip
import http.client
import io
import sys
import tarfile
import threading
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from aslp_jax._extras import require

PROBE_SECONDS = 5.0
"""Longest time to wait for the server, including name resolution."""

_SIDE = 32
_LONGEST_TEXT = 16_384
"""Largest number of bytes of a text with names of classes; CIFAR-100's has 1,000."""

_MOST_MEMBERS = 1000  # an official archive has some ten


@dataclasses.dataclass(frozen=True)
class Archive:
    """An official binary archive: a tar.gz of files of fixed-length records.

    A record is one byte per label, then 32x32 red, green and blue bytes, row by row.

    Attributes:
      name: name of the dataset, as TFDS spells it.
      url: address from which TFDS downloads the archive.
      size: size of the archive in bytes.
      sha256: sha256 of the archive, as registered with TFDS.
      folder: folder inside the archive that holds the members.
      train_members: names of the files of training records, in order.
      test_members: names of the files of test records, in order.
      train_count: number of training records, divided equally among the members.
      test_count: number of test records, divided equally among the members.
      labels: for each label byte of a record, in order: its TFDS feature, and the
        member that names its classes. The feature "label" is the class.
      classes: number of classes of the feature "label".
    """

    name: str
    url: str
    size: int
    sha256: str
    folder: str
    train_members: tuple[str, ...]
    test_members: tuple[str, ...]
    train_count: int
    test_count: int
    labels: tuple[tuple[str, str], ...]
    classes: int

    @property
    def file(self) -> str:
        """File name of the archive."""
        return self.url.rsplit("/", 1)[-1]

    @property
    def shape(self) -> tuple[int, int, int]:
        """Height, width and channels of an image."""
        return (_SIDE, _SIDE, 3)

    @property
    def counts(self) -> dict[str, int]:
        """Number of records of each split."""
        return {"train": self.train_count, "test": self.test_count}

    @property
    def members(self) -> dict[str, tuple[str, ...]]:
        """Names of the members of each split."""
        return {"train": self.train_members, "test": self.test_members}


ARCHIVES = {
    "cifar10": Archive(
        name="cifar10",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz",
        size=170_052_171,
        sha256="c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd",
        folder="cifar-10-batches-bin",
        train_members=tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        test_members=("test_batch.bin",),
        train_count=50_000,
        test_count=10_000,
        labels=(("label", "batches.meta.txt"),),
        classes=10,
    ),
    "cifar100": Archive(
        name="cifar100",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-binary.tar.gz",
        size=168_513_733,
        sha256="58a81ae192c23a4be8b1804d68e518ed807d710a4eb253b1f2a199162a40d8ec",
        folder="cifar-100-binary",
        train_members=("train.bin",),
        test_members=("test.bin",),
        train_count=50_000,
        test_count=10_000,
        labels=(
            ("coarse_label", "coarse_label_names.txt"),
            ("label", "fine_label_names.txt"),
        ),
        classes=100,
    ),
}
"""Official archives by name of the dataset."""


def check_reachable(archive: Archive) -> None:
    """Checks within `PROBE_SECONDS` that the archive can be downloaded.

    Offline, TFDS retries for minutes and then reports an error of the name server.

    Args:
      archive: archive to download.

    Raises:
      ConnectionError: no server answered in time, or the server refused; the message
        names the alternatives.
    """
    # The thread may outlive this call, because a resolver that hangs ignores timeouts.
    # It shares nothing but this list.
    answer: list[str] = []

    def probe() -> None:
        try:
            with urllib.request.urlopen(archive.url, timeout=PROBE_SECONDS):
                answer.append("")
        except urllib.error.HTTPError as error:
            error.close()
            answer.append(f"HTTP {error.code}")
        except (OSError, http.client.HTTPException, ValueError) as error:
            answer.append(str(error) or type(error).__name__)

    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    reason = answer[0] if answer else f"no answer within {PROBE_SECONDS:g} s"
    if reason:
        raise _unreachable(archive, reason)


def prepare(archive: Archive, root: Path, manual_dir: Path | None = None) -> None:
    """Prepares `<root>/<name>/<version>`, a TFDS folder that any program can read.

    The builder of TFDS reads archives with TensorFlow. This subclass overrides reading
    alone, so names, features, keys and the order of records are those of TFDS. Pixels
    are stored as PNG, without loss.

    Args:
      archive: archive to prepare.
      root: writable folder.
      manual_dir: folder that holds the archive; None downloads the archive into
        `<root>/downloads`.

    Raises:
      ConnectionError: the download failed.
      MissingExtra: a package of the extra `data` is not installed.
      ValueError: the archive is damaged or is not the official one.
    """
    require(
        "PIL",
        "array_record",
        "importlib_resources",
        "requests",
        "tensorflow_datasets",
        by=f"load: {archive.name}",
    )
    import requests
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.download_manager import (
        NonMatchingChecksumError,
    )

    where = str(manual_dir / archive.file) if manual_dir is not None else archive.url
    builder = _builder(archive, root)
    config = tfds.download.DownloadConfig(
        manual_dir=manual_dir,
        force_checksums_validation=True,
        try_download_gcs=False,
    )
    try:
        # TFDS prints to stdout, which belongs to the calling program.
        with contextlib.redirect_stdout(sys.stderr):
            builder.download_and_prepare(
                download_dir=root / "downloads", download_config=config
            )
    except NonMatchingChecksumError as error:
        raise ValueError(
            f"load: {where} is not the official archive; expected {archive.size} bytes "
            f"with sha256 {archive.sha256}"
        ) from error
    except (requests.RequestException, tfds.download.DownloadError) as error:
        raise _unreachable(archive, str(error)) from error


def _unreachable(archive: Archive, reason: str) -> ConnectionError:
    return ConnectionError(
        f"load: cannot download {archive.url} ({' '.join(reason.split())}); pass "
        f"--manual-dir, a folder that holds {archive.file}, or use --dataset digits, "
        "which needs no download"
    )


def _builder(archive: Archive, root: Path) -> Any:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download.checksums import UrlInfo

    images = tfds.image_classification
    base: Any = {"cifar10": images.Cifar10, "cifar100": images.Cifar100}[archive.name]
    checked = UrlInfo(size=archive.size, checksum=archive.sha256, filename=archive.file)
    # TFDS refuses to register a second class of the same name.
    with tfds.core.registered.skip_registration():

        class FromBinary(base):
            name = archive.name
            url_infos = {archive.url: checked}  # noqa: RUF012 (as TFDS declares it)

            def _split_generators(self, dl_manager: Any) -> dict[str, Any]:
                files = read_members(Path(dl_manager.download(archive.url)), archive)
                for feature, member in archive.labels:
                    names = files[member].decode("ascii").split("\n")
                    self.info.features[feature].names = [n for n in names if n.strip()]
                return {
                    split: self._generate_examples(
                        split, b"".join(files[member] for member in members)
                    )
                    for split, members in archive.members.items()
                }

            def _generate_examples(
                self, split: str, records: bytes
            ) -> Iterator[tuple[int, dict[str, Any]]]:
                return _examples(archive, split, records)

    return FromBinary(data_dir=root, file_format="array_record")


def _examples(
    archive: Archive, split: str, records: bytes
) -> Iterator[tuple[int, dict[str, Any]]]:
    import PIL.Image

    rows = np.frombuffer(records, np.uint8).reshape(archive.counts[split], -1)
    for index, row in enumerate(rows):
        labels, planes = np.split(row, [len(archive.labels)])
        pixels = planes.reshape(3, _SIDE, _SIDE).transpose(1, 2, 0)
        # Encoded here: given an array, TFDS would ask TensorFlow to encode it.
        png = io.BytesIO()
        PIL.Image.fromarray(np.ascontiguousarray(pixels)).save(png, format="PNG")
        png.seek(0)
        example: dict[str, Any] = {"id": f"{split}_{index:05d}", "image": png}
        for (feature, _), label in zip(archive.labels, labels, strict=True):
            example[feature] = int(label)
        yield index, example


def read_members(path: Path, archive: Archive) -> dict[str, bytes]:
    """Reads and checks the members of a binary archive.

    Args:
      path: path of the tar.gz file.
      archive: expected content of the file.

    Returns:
      Name to content of each member.

    Raises:
      ValueError: the file is truncated or damaged, lacks a member, or has a member of
        the wrong length or with labels out of range.
    """
    texts = {member for _, member in archive.labels}
    wanted = texts.union(*archive.members.values())
    longest = max(archive.counts.values()) * _record_bytes(archive)
    files: dict[str, bytes] = {}
    try:
        # In the order of the archive: each look-up by name would decompress the whole
        # archive again.
        with (
            _BoundedGzip(path, longest + 1) as packed,
            tarfile.open(fileobj=packed, mode="r:") as tar,
        ):
            for number, info in enumerate(tar):
                if number >= _MOST_MEMBERS:
                    raise tarfile.ReadError(f"more than {_MOST_MEMBERS} members")
                folder, _, name = info.name.rpartition("/")
                if folder != archive.folder or name not in wanted or not info.isreg():
                    continue  # a link could lead anywhere
                content = tar.extractfile(info)
                if content is None:
                    continue
                # One byte more: another file may expand without bound.
                files[name] = content.read(max(longest, _LONGEST_TEXT) + 1)
                if name in texts and not 0 < len(files[name]) <= _LONGEST_TEXT:
                    raise tarfile.ReadError(f"{name} has {info.size:,} bytes")
    except (
        *(tarfile.TarError, EOFError, OSError, zlib.error),
        *(ValueError, LookupError, ArithmeticError),  # of tarfile, for strange headers
    ) as error:
        raise ValueError(
            f"load: {path} is truncated or damaged ({error}); expected a complete "
            f"{archive.file}"
        ) from error
    missing = sorted(wanted - files.keys())
    if missing:
        raise ValueError(
            f"load: {path} lacks {missing}; expected them in '{archive.folder}/'"
        )
    for split, members in archive.members.items():
        for member in members:
            count = archive.counts[split] // len(members)
            _check_records(path, archive, member, files[member], count)
    return files


class _BoundedGzip(gzip.GzipFile):
    """Gzip file of which no more is read at once than the longest member has.

    Another file may declare a header of any size, which `tarfile` reads as a whole.
    """

    def __init__(self, path: Path, most: int) -> None:
        super().__init__(path, "rb")
        self._most = max(most, tarfile.RECORDSIZE)

    def read(self, size: int | None = -1) -> bytes:
        if size is None or not 0 <= size <= self._most:
            raise tarfile.ReadError(f"a part of {size} bytes")
        return super().read(size)


def _record_bytes(archive: Archive) -> int:
    return len(archive.labels) + 3 * _SIDE * _SIDE


def _check_records(
    path: Path, archive: Archive, member: str, content: bytes, count: int
) -> None:
    length = _record_bytes(archive)
    if len(content) != count * length:
        raise ValueError(
            f"load: {path}: '{member}' has {len(content)} bytes; expected {count} "
            f"records of {length} bytes"
        )
    byte = [feature for feature, _ in archive.labels].index("label")
    highest = int(np.frombuffer(content, np.uint8)[byte::length].max())
    if highest >= archive.classes:
        raise ValueError(
            f"load: {path}: '{member}' has the label {highest}; expected labels below "
            f"{archive.classes}"
        )
