"""ImageNet in the layout of TFDS: usual crops, keyed, of whole images."""

import dataclasses
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from aslp_jax.data import imagenet, pipeline
from tests.data import imagenet_writer

COUNTS = {"train": 13, "validation": 4, "test": 2}


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("imagenet")
    imagenet_writer.write(root, COUNTS)
    return root


def gradient(width: int, height: int) -> PIL.Image.Image:
    """An image whose first channel is x and whose second is y, both in pixels."""
    y, x = np.mgrid[:height, :width].astype(np.uint8)
    return PIL.Image.fromarray(np.stack([x, y, np.zeros_like(x)], -1))


def words(*key: int) -> np.random.PCG64:
    return np.random.PCG64([7, *key])


def test_the_layout_is_found(written) -> None:
    data = imagenet.load(written)
    assert (data.train.count, data.test.count, data.validation) == (13, 4, 1)
    assert data.image_shape == (224, 224, 3) and data.classes == 3
    assert data.class_names == imagenet_writer.SYNSETS
    assert data.mean == (0.485, 0.456, 0.406) and data.flip
    for part, split in ((data.train, "train"), (data.test, "validation")):
        (batch,) = pipeline.batches(part, np.arange(part.count), part.count)
        assert sorted(batch.labels) == sorted(i % 3 for i in range(COUNTS[split]))
        # The classes of this sample are told by their brightness, in any decoder.
        brightness = batch.images.mean((1, 2, 3))
        assert (np.diff(brightness[np.argsort(batch.labels)]) > -30).all()
        assert np.corrcoef(brightness, batch.labels)[0, 1] > 0.9


def test_crops_follow_from_key_and_image(written) -> None:
    part = imagenet.load(written, image_size=(16, 20)).train
    rows, options = np.arange(13), {"batch_size": 4, "key": (1, 2)}
    first = [batch.images for batch in pipeline.batches(part, rows, **options)]
    later = [batch.images for batch in pipeline.batches(part, rows[4:], **options)]
    for one, other in zip(first[1:], later, strict=True):
        np.testing.assert_array_equal(one, other)
    (turned,) = pipeline.batches(part, rows[::-1], 13, key=(1, 2), threads=3)
    np.testing.assert_array_equal(turned.images[::-1], np.concatenate(first))
    (others,) = pipeline.batches(part, rows, 13, key=(1, 3))
    differs = (others.images != turned.images[::-1]).any((1, 2, 3))
    assert differs.all() and others.images.shape == (13, 16, 20, 3)
    # One image under many numbers has as many crops.
    same = dataclasses.replace(part, read=lambda index: part.read(3))
    (crops,) = pipeline.batches(same, rows, 13, key=(1, 2))
    assert len(np.unique(crops.images, axis=0)) == 13
    (whole,) = pipeline.batches(part, rows, 13)
    again = imagenet.crop_centre(
        PIL.Image.fromarray(imagenet_writer.pixels_of("train", 0)), (16, 20)
    )
    assert np.asarray(again).shape == whole.images.shape[1:]


@pytest.mark.parametrize(
    "size, resized",
    [((512, 341), (384, 256)), ((300, 256), (300, 256)), ((9, 9), None)],
)
def test_the_centre_of_an_image_whose_shorter_side_is_256(size, resized) -> None:
    image = PIL.Image.effect_noise(size, 50)
    found = imagenet.crop_centre(image, (224, 224))
    resized = resized or (256, 256)
    wide, high = resized
    expected = np.asarray(image.resize(resized, PIL.Image.Resampling.BILINEAR))
    top, left = (high - 224) // 2, (wide - 224) // 2
    np.testing.assert_array_equal(found, expected[top:, left:][:224, :224])


def test_of_a_narrow_image_the_centre_alone_is_resized(monkeypatch) -> None:
    image = PIL.Image.effect_noise((40, 100), 50)
    expected = np.asarray(imagenet.crop_centre(image, (24, 20))).astype(int)
    # Resized as a whole, it would take 206 GB.
    narrow = PIL.Image.new("RGB", (1, 1 << 20), (9, 99, 199))
    found = np.asarray(imagenet.crop_centre(narrow, (224, 224)))
    assert found.shape == (224, 224, 3) and (found == (9, 99, 199)).all()
    monkeypatch.setattr(imagenet, "_MOST_RESIZED", 0)
    found = np.asarray(imagenet.crop_centre(image, (24, 20))).astype(int)
    assert abs(found - expected).max() <= 1


def test_random_crops_have_the_stated_areas_and_ratios() -> None:
    image, areas, ratios, mirrored = gradient(200, 150), [], [], 0
    for index in range(400):
        found = np.asarray(imagenet.crop_random(image, (40, 40), words(index)))
        found = found.astype(float)
        left, right = found[:, 0, 0].mean(), found[:, -1, 0].mean()
        width = abs(right - left) * 40 / 39
        height = abs(found[-1, :, 1].mean() - found[0, :, 1].mean()) * 40 / 39
        mirrored += left > right
        areas.append(width * height / (200 * 150))
        ratios.append(width / height)
    # Pixels are whole numbers, so that a few percent are lost.
    assert 0.07 < min(areas) < 0.12 and 0.8 < max(areas) <= 1.03
    assert 0.7 < min(ratios) < 0.8 and 1.25 < max(ratios) < 1.4
    # Uniform in area where every ratio fits: 4 sigmas of 400.
    small = [area for area in areas if area < 0.54]
    assert len(small) / 400 > 0.5 and abs(mirrored - 200) < 40


def test_a_narrow_image_is_cropped_in_its_centre() -> None:
    found = imagenet.crop_random(gradient(10, 200), (14, 14), words(0))
    rows = np.asarray(found)[:, 0, 1].astype(float)
    # 10 pixels wide at a ratio of 3/4: 13 pixels high.
    assert 93 <= rows[0] <= 95 and 104 <= rows[-1] <= 107


def test_other_data_is_refused(written, tmp_path) -> None:
    with pytest.raises(FileNotFoundError, match="no prepared dataset imagenet2012 in"):
        imagenet.load(tmp_path)
    imagenet_writer.write(tmp_path, {"train": 3})
    with pytest.raises(ValueError, match="no images of the split validation"):
        imagenet.load(tmp_path)
