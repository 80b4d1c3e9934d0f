"""Streamed images are those that are held in memory, in any order."""

import os
import shutil
import sys
import warnings
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from aslp_jax._extras import MissingExtra
from aslp_jax.data import (
    own,
    pipeline,
    prepared,
    stream_sources,
    streamed,
    tfds_records,
)
from tests.data.tfds_writer import png, prepare

SIZE = (5, 7)


def pixels_of(index: int, *, height: int = 6, width: int = 8) -> np.ndarray:
    rng = np.random.default_rng(index)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder of 11 images of each of two classes, divided by `load`."""
    root = tmp_path_factory.mktemp("streamed") / "photos"
    for label, kind in enumerate(("cat", "dog")):
        (root / kind).mkdir(parents=True)
        for index in range(11):
            pixels = pixels_of(100 * label + index, height=6 + index)
            PIL.Image.fromarray(pixels).save(root / kind / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def fruit(tmp_path_factory) -> Path:
    """A folder in which TFDS has prepared 13 and 4 images of one size."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("streamed")
    features = {
        "image": tfds.features.Image(shape=(6, 8, 3)),
        "label": tfds.features.ClassLabel(names=("pear", "apple")),
    }
    examples = {
        split: [
            {"image": png(pixels_of(index + len(split))), "label": index % 2}
            for index in range(count)
        ]
        for split, count in {"train": 13, "test": 4}.items()
    }
    prepare(root, "fruit", features, examples, supervised=("image", "label"))
    return root


def all_of(part: streamed.Part, batch_size: int = 4) -> pipeline.Batch:
    found = list(pipeline.batches(part, np.arange(part.count), batch_size))
    return pipeline.Batch(*map(np.concatenate, zip(*found, strict=True)))


def assert_same(found: streamed.Streamed, resident) -> None:
    for name in ("train", "test"):
        batch = all_of(getattr(found, name))
        np.testing.assert_array_equal(batch.images, getattr(resident, f"{name}_images"))
        np.testing.assert_array_equal(batch.labels, getattr(resident, f"{name}_labels"))
        assert batch.images.dtype == np.uint8 and batch.labels.dtype == np.int32
    facts = [
        "name",
        "image_shape",
        "train_count",
        "classes",
        "validation",
        "flip",
        "class_names",
    ]
    for fact in facts:
        assert getattr(found, fact) == getattr(resident, fact), fact


def test_a_folder_gives_the_images_that_are_held_in_memory(photos, tmp_path) -> None:
    resident = own.load(photos, image_size=SIZE, cache_dir=tmp_path)
    found = stream_sources.open_folder(photos, image_size=SIZE)
    assert_same(found, resident)
    assert stream_sources.folder_size(photos, SIZE) == 22 * 5 * 7 * 3
    assert "18 training and 4 test images of 2 classes, streamed" in found.source


def test_records_give_the_images_that_are_held_in_memory(fruit, tmp_path) -> None:
    for size in (None, SIZE):
        resident = prepared.load(
            "tfds:fruit", fruit, image_size=size, cache_dir=tmp_path
        )
        found = stream_sources.open_prepared("tfds:fruit", fruit, image_size=size)
        assert_same(found, resident)
        height, width = size or (6, 8)
        assert (
            stream_sources.prepared_size("tfds:fruit", fruit, size)
            == 51 * height * width
        )


def test_grey_images_have_one_channel(tmp_path) -> None:
    root = tmp_path / "grey"
    for kind in ("a", "b"):
        (root / kind).mkdir(parents=True)
        for index in range(2):
            PIL.Image.fromarray(pixels_of(index)[..., 0]).save(
                root / kind / f"{index}.png"
            )
    resident = own.load(root, image_size=SIZE, cache_dir=tmp_path / "cache")
    found = stream_sources.open_folder(root, image_size=SIZE)
    assert found.image_shape == (5, 7, 1)
    assert_same(found, resident)


def test_more_files_are_opened_than_a_process_may_at_first(tmp_path) -> None:
    resource = pytest.importorskip("resource")
    from array_record.python.array_record_module import ArrayRecordWriter

    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = len(os.listdir("/dev/fd")) + 20
    paths = [tmp_path / f"{index:02d}" for index in range(40)]
    for path in paths:
        writer = ArrayRecordWriter(str(path), "group_size:1")
        writer.write(b"")
        writer.close()
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, hard))
        count, read = tfds_records.open_any_order(paths, ("image",))
        assert [read(index) for index in range(count)] == 40 * [{}]
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_the_order_is_that_of_the_rows(fruit) -> None:
    part = stream_sources.open_prepared("tfds:fruit", fruit).train
    whole, rows = all_of(part), np.array([12, 0, 5, 5, 3, 9, 1])
    found = list(pipeline.batches(part, rows, 3, threads=4))
    assert [len(batch.labels) for batch in found] == [3, 3, 1]
    images = np.concatenate([batch.images for batch in found])
    np.testing.assert_array_equal(images, whole.images[rows])
    labels = np.concatenate([batch.labels for batch in found])
    np.testing.assert_array_equal(labels, whole.labels[rows])


def test_no_more_images_are_decoded_than_the_stated_buffer(fruit) -> None:
    part = stream_sources.open_prepared("tfds:fruit", fruit).train
    read = []

    def note(index):
        read.append(index)
        return part.read(index)

    noted = streamed.Part(part.count, note, part.decode)
    batches = pipeline.batches(noted, np.zeros(1000, int), 5, threads=2)
    assert not read
    for used in range(1, 4):
        next(batches)
        assert 5 * used <= len(read) <= 5 * (used + pipeline.AHEAD)
    batches.close()
    assert len(read) <= 5 * (3 + pipeline.AHEAD)


def test_the_digest_follows_the_files_and_not_their_place(
    photos, fruit, tmp_path
) -> None:
    moved = tmp_path / "elsewhere"
    shutil.copytree(photos, moved)
    first = stream_sources.open_folder(photos, image_size=SIZE).images_sha256()
    assert len(bytes.fromhex(first)) == 32
    assert stream_sources.open_folder(moved, image_size=SIZE).labels_sha256() == first
    assert stream_sources.open_folder(moved, image_size=(7, 5)).images_sha256() != first
    with open(moved / "cat" / "0.png", "ab") as file:
        file.write(b"x")
    longer = stream_sources.open_folder(moved, image_size=SIZE).images_sha256()
    assert longer != first
    shutil.copy(photos / "cat" / "0.png", moved / "cat" / "0.png")
    assert stream_sources.open_folder(moved, image_size=SIZE).images_sha256() == first
    (moved / "cat" / "0.png").rename(moved / "dog" / "00.png")
    assert stream_sources.open_folder(moved, image_size=SIZE).images_sha256() != first

    shutil.copytree(fruit, tmp_path / "fruit")
    again = stream_sources.open_prepared("tfds:fruit", tmp_path / "fruit")
    first = stream_sources.open_prepared("tfds:fruit", fruit).images_sha256()
    assert again.images_sha256() == first
    resized = stream_sources.open_prepared("tfds:fruit", fruit, image_size=SIZE)
    assert resized.images_sha256() != first


def test_threads_leave_the_filters_of_warnings_alone(photos) -> None:
    part = stream_sources.open_folder(photos, image_size=SIZE).train
    before = list(warnings.filters)
    for _ in pipeline.batches(part, np.arange(600) % part.count, 100, threads=4):
        pass
    assert list(warnings.filters) == before


def test_a_damaged_image_is_named(photos, tmp_path) -> None:
    shutil.copytree(photos, tmp_path / "photos")
    (tmp_path / "photos" / "dog" / "3.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"load: the image .*dog/3.png cannot be read"):
        part = stream_sources.open_folder(tmp_path / "photos", image_size=SIZE).train
        all_of(part)


def test_a_record_of_another_size_is_named(fruit, tmp_path) -> None:
    folder = tmp_path / "fruit" / "1.2.0"
    shutil.copytree(fruit / "fruit" / "1.2.0", folder)
    features = folder / "features.json"
    features.write_text(features.read_text().replace('"6"', '"9"'))
    part = stream_sources.open_prepared("tfds:fruit", tmp_path).train
    with pytest.raises(
        ValueError, match="has 6x8 pixels; expected 9x8, as the dataset"
    ):
        all_of(part)


def test_what_cannot_be_streamed_is_refused(photos, fruit, tmp_path) -> None:
    np.savez(tmp_path / "a.npz", x_train=np.zeros(3))
    with pytest.raises(ValueError, match="is no folder; only a folder of images"):
        stream_sources.open_folder(tmp_path / "a.npz", image_size=SIZE)
    with pytest.raises(FileNotFoundError, match="there is no"):
        stream_sources.open_folder(tmp_path / "none", image_size=SIZE)

    folder = tmp_path / "fruit" / "1.2.0"
    shutil.copytree(fruit / "fruit" / "1.2.0", folder)
    info, features = folder / "dataset_info.json", folder / "features.json"
    declared = features.read_text()
    features.write_text(declared.replace('"6"', '"-1"'))
    with pytest.raises(ValueError, match=r"declares no size .*; give --image-size"):
        stream_sources.open_prepared("tfds:fruit", tmp_path)
    features.write_text(declared)
    described = info.read_text()
    info.write_text(described.replace('"array_record"', '"tfrecord"'))
    with pytest.raises(ValueError, match=r"format tfrecord.*`tfds build --file_form"):
        stream_sources.open_prepared("tfds:fruit", tmp_path)
    info.write_text(described.replace('"13"', '"14"'))
    with pytest.raises(
        ValueError, match=r"cannot be read \(there are 13\); expected 14"
    ):
        stream_sources.open_prepared("tfds:fruit", tmp_path)
    info.write_text(described.replace('"name": "test"', '"name": "other"'))
    with pytest.raises(ValueError, match="only a dataset with test images"):
        stream_sources.open_prepared("tfds:fruit", tmp_path)


def test_test_images_without_labels_are_met_before_the_training(tmp_path) -> None:
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(shape=(6, 8, 3)),
        "label": tfds.features.ClassLabel(names=("pear", "apple")),
    }
    image = png(pixels_of(0))
    examples = {
        "train": [{"image": image, "label": label} for label in (0, 1, 0)],
        "test": [{"image": image, "label": -1} for _ in range(2)],
    }
    prepare(tmp_path, "fruit", features, examples, supervised=("image", "label"))
    with pytest.raises(
        ValueError, match=r"the test records .* \(the label of record 0 is -1\)"
    ):
        stream_sources.open_prepared("tfds:fruit", tmp_path)


def test_without_grain_one_line_says_what_to_install(fruit, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "grain", None)
    part = stream_sources.open_prepared("tfds:fruit", fruit).train
    with pytest.raises(MissingExtra) as missing:
        next(pipeline.batches(part, np.arange(3), 3))
    assert str(missing.value) == (
        "load: streaming of images needs the package grain; "
        'pip install "aslp-jax[stream]"'
    )
