"""Images of one's own from an `.npz` file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from aslp_jax.data import arrays as npz
from aslp_jax.data import own

Arrays = dict[str, Any]


def sound(channels: int | None = 3) -> Arrays:
    """Nine training and three test images of three classes."""
    rng = np.random.default_rng(0)
    shape = (4, 6) if channels is None else (4, 6, channels)
    return {
        "x_train": rng.integers(0, 256, (9, *shape), np.uint8),
        "y_train": np.arange(9) % 3,
        "x_test": rng.integers(0, 256, (3, *shape), np.uint8),
        "y_test": np.array([2, 0, 1]),
    }


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    """Writes arrays and loads the file."""

    def write_and_load(arrays: Arrays, **options: Any) -> Any:
        np.savez(tmp_path / "images.npz", **arrays)
        options = {"cache_dir": tmp_path / "cache", **options}
        return own.load(tmp_path / "images.npz", **options)

    return write_and_load


@pytest.mark.parametrize("channels", [None, 1, 3])
@pytest.mark.parametrize("column", [False, True])
def test_arrays_arrive_unchanged(load, tmp_path, channels, column) -> None:
    arrays = sound(channels)
    stored = dict(arrays, more=np.zeros(3))
    if column:
        stored["y_train"] = arrays["y_train"][:, None].astype(np.uint8)
        stored["y_test"] = arrays["y_test"][:, None].astype(np.int64)
    found = load(stored)
    for part in ("train", "test"):
        images = getattr(found, f"{part}_images")
        assert images.shape == (len(images), 4, 6, channels or 1)
        np.testing.assert_array_equal(images.ravel(), arrays[f"x_{part}"].ravel())
        labels = getattr(found, f"{part}_labels")
        assert labels.dtype == np.int32
        np.testing.assert_array_equal(labels, arrays[f"y_{part}"])
    assert (found.name, found.classes, found.class_names) == ("own", 3, ())
    assert found.validation == 1 and found.flip
    counts = "9 training and 3 test images of 3 classes"
    assert found.source == f"{tmp_path / 'images.npz'}: {counts}"
    assert not (tmp_path / "cache").exists()


def test_images_are_resized_once(load, tmp_path, monkeypatch) -> None:
    arrays, notes = sound(), []
    found = load(arrays, image_size=(8, 3), note=notes.append)
    assert found.train_images.shape == (9, 8, 3, 3)
    image = PIL.Image.fromarray(arrays["x_test"][1])
    expected = image.resize((3, 8), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.test_images[1], np.asarray(expected))
    assert notes == [f"resizing 12 images of {tmp_path / 'images.npz'}, once"]
    with monkeypatch.context() as patch:
        patch.setattr(npz, "resize", None)
        again = own.load(
            tmp_path / "images.npz", image_size=(8, 3), cache_dir=tmp_path / "cache"
        )
    assert again.images_sha256() == found.images_sha256()
    # A file of other images is noticed.
    arrays["x_test"] = 255 - arrays["x_test"]
    other = load(arrays, image_size=(8, 3))
    assert other.images_sha256() != found.images_sha256()


def test_images_of_the_size_asked_for_stay(load) -> None:
    arrays = sound()
    found = load(arrays, image_size=(4, 6))
    np.testing.assert_array_equal(found.train_images, arrays["x_train"])


def channels_first(arrays: Arrays) -> Arrays:
    return {k: np.moveaxis(a, -1, 1) for k, a in arrays.items() if k[0] == "x"}


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda a: {"x_train": a["x_train"] / 255}, "x_train is float64 (9, 4, 6, 3)"),
        (lambda a: {"x_test": a["x_test"][:, 0, 0]}, "x_test is uint8 (3, 3)"),
        (lambda a: {"x_test": a["x_test"][:0]}, "x_test is uint8 (0, 4, 6, 3)"),
        (channels_first, "has the shape (9, 3, 4, 6), with channels first"),
        (
            lambda a: {"x_test": a["x_test"][:, :3]},
            "of x_train is (4, 6, 3) and one of x_test (3, 6, 3)",
        ),
        (lambda a: {"y_train": a["y_train"] * 1.0}, "y_train is float64 (9,)"),
        (lambda a: {"y_test": a["y_test"] > 0}, "y_test is bool (3,)"),
        (lambda a: {"y_test": np.eye(3, dtype=int)}, "y_test is int64 (3, 3)"),
        (lambda a: {"y_test": np.int64(3)}, "y_test is int64 ()"),
        (
            lambda a: {"y_train": a["y_train"][1:]},
            "x_train has 9 images and y_train 8 labels",
        ),
        (lambda a: {"y_test": a["y_test"][:0]}, "x_test has 3 images and y_test 0"),
        (lambda a: {"y_train": a["y_train"] - 1}, "y_train holds the label -1"),
        (
            lambda a: {"y_train": a["y_train"].astype(np.uint64) << 62},
            "y_train holds the label 9223372036854775808",
        ),
        (lambda a: {"y_test": a["y_test"] + 1}, "y_test holds the label 3; expected"),
        (lambda a: {"y_test": a["y_test"] // 2}, "y_test lacks the label 2"),
        (
            lambda a: {"y_train": a["y_train"] * 2, "y_test": a["y_test"] * 2},
            "y_train lacks the label 1; expected each of 0 to 4",
        ),
        (lambda a: {"y_train": a["y_train"] * 0}, "y_train holds label 0 alone"),
        (lambda a: {"y_train": a["y_train"].astype(object)}, "cannot be read (Object"),
    ],
)
def test_bad_arrays_are_named(load, tmp_path, edit, words) -> None:
    arrays = sound()
    with pytest.raises(ValueError) as caught:
        load({**arrays, **edit(arrays)})
    text = str(caught.value)
    assert words in text and "; expected " in text and "\n" not in text
    assert text.startswith(f"load: {tmp_path / 'images.npz'}")


def test_missing_arrays_are_named(load) -> None:
    arrays = sound()
    del arrays["x_test"], arrays["y_train"]
    with pytest.raises(ValueError, match="lacks y_train, x_test; expected x_train, y"):
        load(arrays)


@pytest.mark.parametrize("kind", ["text", "npy", "truncated", "damaged", "inflated"])
def test_a_file_of_another_kind_is_refused(tmp_path, kind) -> None:
    path = tmp_path / "images.npz"
    np.savez_compressed(path, **sound())
    content = bytearray(path.read_bytes())
    if kind == "text":
        path.write_text("x_train")
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "truncated":
        path.write_bytes(content[:-100])
    else:
        # Within the first array, or at its very start, where no block can begin so.
        start = 300 if kind == "damaged" else 30 + len("x_train.npy") + 20
        content[start : start + 10] = b"\xff" * 10
        path.write_bytes(content)
    with pytest.raises(ValueError, match=r"images\.npz cannot be read \(") as caught:
        own.load(path)
    assert "\n" not in str(caught.value)
