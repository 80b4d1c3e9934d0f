"""Fashion-MNIST from four small files in the official layout, and from TFDS."""

import gzip
import hashlib
import shutil
import struct
from pathlib import Path

import numpy as np
import pytest

from aslp_jax.data import datasets, fashion_mnist
from aslp_jax.data.fashion_mnist import IdxFiles
from tests.data.tfds_writer import png, prepare

COUNTS = {"train": 20, "test": 6}
NAMES = tuple(fashion_mnist.OFFICIAL.sha256)
DEBIAN = Path("/usr/share/datasets/fashion-mnist")
"""Folder of the package dataset-fashion-mnist."""


def arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    return {
        f"{split}_{kind}": rng.integers(0, high, (count, *size), np.uint8)
        for split, count in COUNTS.items()
        for kind, high, size in (("images", 256, (28, 28, 1)), ("labels", 10, ()))
    }


def contents() -> dict[str, bytes]:
    """The decompressed files, by name."""
    found = {}
    for name, array in zip(NAMES, arrays().values(), strict=True):
        sizes = [len(array), 28, 28] if "images" in name else [len(array)]
        magic = 2051 if "images" in name else 2049
        header = struct.pack(f">{1 + len(sizes)}I", magic, *sizes)
        found[name] = header + array.tobytes()
    return found


@pytest.fixture
def manual(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of small files, which take the place of the official ones."""
    hashes = {n: hashlib.sha256(c).hexdigest() for n, c in contents().items()}
    monkeypatch.setattr(fashion_mnist, "OFFICIAL", IdxFiles(COUNTS, hashes))
    (tmp_path / "manual").mkdir()
    for name, content in contents().items():
        (tmp_path / "manual" / name).write_bytes(gzip.compress(content))
    return tmp_path / "manual"


def load(**folders: Path) -> datasets.Dataset:
    return datasets.load("fashion_mnist", **folders)


def refused(kind: type[Exception] = ValueError, **folders: Path) -> str:
    with pytest.raises(kind) as caught:
        load(**folders)
    text = str(caught.value)
    assert text.startswith("load: ") and "\n" not in text
    return text


def check(found: datasets.Dataset) -> None:
    assert (found.name, found.classes, found.flip) == ("fashion_mnist", 10, True)
    assert found.validation == 2 and found.class_names[9] == "Ankle boot"
    assert (found.mean, found.std) == ((0.2860,), (0.3530,))


def test_every_image_arrives_with_its_label(manual) -> None:
    found = load(manual_dir=manual)
    for key, array in arrays().items():
        np.testing.assert_array_equal(getattr(found, key), array)
    assert found.train_labels.dtype == found.test_labels.dtype == np.int32
    assert found.source == str(manual)
    check(found)


def test_files_compressed_again_are_the_same_files(manual) -> None:
    for path in manual.iterdir():
        path.write_bytes(gzip.compress(gzip.decompress(path.read_bytes()), 1))
    assert len(load(manual_dir=manual).train_images) == 20


@pytest.mark.slow
@pytest.mark.skipif(not DEBIAN.is_dir(), reason="dataset-fashion-mnist is not there")
def test_the_files_of_debian_are_the_official_ones() -> None:
    found = load(manual_dir=DEBIAN)
    assert np.bincount(found.train_labels).tolist() == [6000] * 10
    assert np.bincount(found.test_labels).tolist() == [1000] * 10
    shades, counts = np.arange(256) / 255, np.bincount(found.train_images.ravel())
    mean = np.average(shades, weights=counts)
    deviation = np.average((shades - mean) ** 2, weights=counts) ** 0.5
    assert (round(mean, 4), round(deviation, 4)) == (0.2860, 0.3530)
    assert found.validation == 6000


def test_without_a_folder_the_files_are_asked_for(manual) -> None:
    text = refused()
    assert "get the four files of https://" in text and "pass manual_dir" in text


def test_a_missing_file_is_named(manual) -> None:
    (manual / NAMES[1]).unlink()
    text = refused(FileNotFoundError, manual_dir=manual)
    assert f"{manual} lacks {NAMES[1]}; expected the files of" in text
    assert "apt-get install dataset-fashion-mnist" in text
    text = refused(FileNotFoundError, manual_dir=manual / "none")
    assert all(name in text for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_another_file_is_refused(manual, name) -> None:
    content = bytearray(contents()[name])
    content[-1] ^= 1
    for wrong in (content, content[:-1], content + bytes(1)):
        (manual / name).write_bytes(gzip.compress(wrong))
        text = refused(manual_dir=manual)
        expected = hashlib.sha256(contents()[name]).hexdigest()
        size = len(contents()[name])
        assert f"{manual / name} is not the official file; expected {size} by" in text
        assert expected in text


@pytest.mark.parametrize("damage", ["truncated", "text", "flipped"])
def test_a_damaged_file_is_refused(manual, damage) -> None:
    path = manual / NAMES[0]
    content = bytearray(path.read_bytes())
    if damage == "truncated":
        del content[-100:]
    elif damage == "text":
        content = bytearray(b"<html>not found</html>")
    else:
        content[12:16] = b"\xff" * 4
    path.write_bytes(content)
    assert f"{path} is truncated or damaged (" in refused(manual_dir=manual)


# --- from TFDS ------------------------------------------------------------------------


@pytest.fixture
def prepared(manual: Path, tmp_path: Path) -> Path:
    """A folder in which TFDS has prepared the small dataset."""
    import tensorflow_datasets as tfds

    stored = arrays()
    prepare(
        tmp_path / "tfds",
        "fashion_mnist",
        {
            "image": tfds.features.Image(shape=(28, 28, 1)),
            "label": tfds.features.ClassLabel(num_classes=10),
        },
        {
            split: [
                {"image": png(image[..., 0]), "label": int(label)}
                for image, label in zip(
                    stored[f"{split}_images"], stored[f"{split}_labels"], strict=True
                )
            ]
            for split in COUNTS
        },
    )
    return tmp_path / "tfds"


def test_a_prepared_folder_holds_the_same_images(prepared, tmp_path) -> None:
    folders = {"data_dir": prepared, "cache_dir": tmp_path / "cache"}
    found = load(**folders)
    for split in COUNTS:
        images, labels = (getattr(found, f"{split}_{x}") for x in ("images", "labels"))
        expected = arrays()
        theirs = zip(
            expected[f"{split}_images"], expected[f"{split}_labels"], strict=True
        )
        pairs = zip(images, labels, strict=True)
        assert sorted((x.tobytes(), int(y)) for x, y in pairs) == sorted(
            (x.tobytes(), int(y)) for x, y in theirs
        )
    assert found.source == f"TFDS folder {prepared / 'fashion_mnist' / '1.2.0'}"
    check(found)
    again = load(**folders)
    assert again.images_sha256() == found.images_sha256()
    assert again.class_names == found.class_names

    # Another dataset under this name is refused.
    shutil.move(prepared / "fashion_mnist", prepared / "mnist")
    assert "no prepared dataset fashion_mnist" in refused(FileNotFoundError, **folders)
    shutil.move(prepared / "mnist", prepared / "fashion_mnist")
    info = prepared / "fashion_mnist" / "1.2.0" / "dataset_info.json"
    info.write_text(info.read_text().replace('"fashion_mnist"', '"mnist"'))
    assert "declares the name 'mnist'; expected 'fashion_mnist'" in refused(**folders)
