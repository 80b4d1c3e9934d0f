"""Cache of decoded arrays: one writer, and what a killed one leaves."""

import os
import warnings
from pathlib import Path

import numpy as np
import pytest

from aslp_jax._claim import claim
from aslp_jax.data import cache

ARRAYS = {
    "train_images": np.arange(12, dtype=np.uint8).reshape(3, 2, 2),
    "train_labels": np.arange(3, dtype=np.uint8),
    "test_images": np.arange(4, dtype=np.uint8).reshape(1, 2, 2),
    "test_labels": np.zeros(1, np.uint8),
}
NAMES = {*(f"{key}.npy" for key in ARRAYS), "sha256.json"}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "decoded" / "own-1"


def check(folder: Path) -> None:
    found = cache.read_any_shape(folder)
    assert found is not None and found.keys() == ARRAYS.keys()
    for key, array in ARRAYS.items():
        np.testing.assert_array_equal(found[key], array, strict=True)
    assert set(os.listdir(folder)) == NAMES


def test_arrays_are_read_as_written(folder):
    cache.write(folder, ARRAYS)
    check(folder)


def test_what_another_process_writes_is_left_to_it(folder):
    with claim(folder), warnings.catch_warnings():
        warnings.simplefilter("error")
        cache.write(folder, ARRAYS)
        assert os.listdir(folder) == ["lock.json"]
    cache.write(folder, ARRAYS)
    check(folder)


def test_what_a_killed_process_left_is_removed(folder):
    folder.mkdir(parents=True)
    for name in ("train_images.npy.0123abcd", "sha256.json.0123abcd"):
        (folder / name).write_bytes(b"half")
    cache.write(folder, ARRAYS)
    check(folder)


def test_damaged_arrays_are_none(folder):
    cache.write(folder, ARRAYS)
    for content in (b"", b"[]", b"\xff", b"[" * 100_000, b'{"train_images": 1}'):
        (folder / "sha256.json").write_bytes(content)
        assert cache.read_any_shape(folder) is None
