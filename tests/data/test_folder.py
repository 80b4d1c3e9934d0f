"""Images of one's own from folders by class."""

import os
import shutil
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from aslp_jax.data import decoding, own

CLASSES = ("bee", "ant", "cat")
"""In no alphabetical order."""


def grey(value: int, height: int = 4, width: int = 6) -> PIL.Image.Image:
    return PIL.Image.fromarray(np.full((height, width), value, np.uint8))


def write(root: Path, images: dict[str, PIL.Image.Image]) -> Path:
    for name, image in images.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)
    return root


def plain(root: Path, count: int, part: str = "", start: int = 0) -> Path:
    """Writes `count` grey images of each class, each of a shade of its own."""
    names = [f"{part}{name}/{i}.png" for name in CLASSES for i in range(count)]
    return write(root, {name: grey(start + i) for i, name in enumerate(names)})


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    return lambda path, **options: own.load(
        path, **{"cache_dir": tmp_path / "cache", **options}
    )


@pytest.fixture
def refused(load: Callable[..., Any], tmp_path: Path) -> Callable[..., str]:
    """Loads, and returns the message of the refusal."""

    def check(path: Path, kind: type[Exception] = ValueError, **options: Any) -> str:
        with pytest.raises(kind) as caught:
            load(path, **options)
        text = str(caught.value)
        assert text.startswith("load: ") and "\n" not in text
        assert not (tmp_path / "cache").exists()
        return text

    return check


def single(load: Callable[..., Any], root: Path, *images: PIL.Image.Image) -> Any:
    """Returns the test images of two classes, which hold `images`, PNG, in order."""
    suffixes = [f"{i}.png" for i in range(len(images))]
    write(root, {f"train/{name}/x.png": images[0] for name in "ab"})
    write(root, {f"test/a/{n}": i for n, i in zip(suffixes, images, strict=True)})
    write(root, {"test/b/x.png": images[0]})
    return load(root).test_images[: len(images)]


# --- the layout -----------------------------------------------------------------------


@pytest.mark.parametrize("test", ["test", "val"])
def test_train_and_test_are_read_by_class(load, tmp_path, test) -> None:
    root = plain(tmp_path / "data", 4, "train/")
    plain(root, 2, f"{test}/", start=100)
    found = load(root)
    assert found.class_names == ("ant", "bee", "cat") and found.classes == 3
    assert found.train_images.shape == (12, 4, 6, 1)
    assert found.test_images.shape == (6, 4, 6, 1)
    assert found.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.test_labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.train_labels.dtype == found.test_labels.dtype == np.int32
    # Of the order bee, ant, cat in which the shades were given.
    shades = [4, 5, 6, 7, 0, 1, 2, 3, 8, 9, 10, 11]
    assert found.train_images[:, 0, 0, 0].tolist() == shades
    assert found.test_images[:, 3, 5, 0].tolist() == [102, 103, 100, 101, 104, 105]
    assert (found.name, found.validation, found.flip) == ("own", 1, True)
    counts = "12 training and 6 test images of 3 classes"
    assert found.source == f"{root}: {counts}"


def test_val_is_left_alone_beside_test(load, tmp_path) -> None:
    root = plain(tmp_path / "data", 2, "train/")
    plain(plain(root, 1, "test/", start=50), 1, "val/", start=100)
    found = load(root)
    assert found.test_images[:, 0, 0, 0].tolist() == [51, 50, 52]
    assert found.source.endswith(", 1 other files or folders ignored")


@pytest.mark.parametrize("part", ["", "train/"])
def test_without_test_images_each_class_is_divided(load, tmp_path, part) -> None:
    found = load(plain(tmp_path / "data", 11, part))
    assert np.bincount(found.train_labels).tolist() == [9, 9, 9]
    assert np.bincount(found.test_labels).tolist() == [2, 2, 2]
    shades = [*found.train_images[:, 0, 0, 0], *found.test_images[:, 0, 0, 0]]
    assert sorted(shades) == list(range(33))
    # Pinned: another platform or release must not move an image into training.
    # The third and fourth name of each class: 10.png and 2.png.
    assert found.test_images[:, 0, 0, 0].tolist() == [21, 13, 10, 2, 32, 24]
    assert "27 training and 6 test images of 3 classes, divided" in found.source


def test_classes_may_be_called_train_and_test(load, tmp_path) -> None:
    images = {f"{n}/{i}.png": grey(i) for n in ("train", "test") for i in range(3)}
    assert load(write(tmp_path / "data", images)).class_names == ("test", "train")


def test_hidden_and_other_files_are_counted_and_not_read(load, tmp_path) -> None:
    root = plain(tmp_path / "data", 2)
    shutil.move(root / "ant/0.png", root / "ant/0.PNG")
    shutil.copy(root / "bee/0.png", root / "bee/.hidden.png")
    for name in ("notes.txt", "ant/list.csv", "ant/.DS_Store"):
        (root / name).write_text("not an image")
    for name in (".git", "cat/more.png"):
        (root / name).mkdir()
    found = load(root)
    assert len(found.train_images) + len(found.test_images) == 6
    assert found.source.endswith(", 6 other files or folders ignored")


def test_two_images_of_one_name_are_two_images(load, tmp_path) -> None:
    names = ("a/1.png", "a/1.jpg", "a/1.PNG", "b/1.png", "b/2.png")
    root = write(tmp_path / "data", {n: grey(50 * i) for i, n in enumerate(names)})
    found = load(root)
    assert found.train_labels.tolist() == [0, 0, 1]
    assert found.test_labels.tolist() == [0, 1]
    shades = {*found.train_images[:, 0, 0, 0], *found.test_images[:, 0, 0, 0]}
    assert shades == {0, 50, 100, 150, 200}


def test_an_empty_class_is_refused(refused, tmp_path) -> None:
    root = plain(tmp_path / "data", 2)
    (root / "dog").mkdir()
    (root / "dog" / "1.gif").touch()
    assert f"class folder {root / 'dog'} holds no image" in refused(root)


def test_a_class_of_one_image_cannot_be_divided(refused, tmp_path) -> None:
    root = write(plain(tmp_path / "data", 2), {"dog/1.png": grey(1)})
    assert f"class folder {root / 'dog'} holds one image" in refused(root)


def test_one_class_is_refused(refused, tmp_path) -> None:
    root = write(tmp_path / "data", {"a/1.png": grey(1), "a/2.png": grey(1)})
    assert f"{root} holds 1 class folders" in refused(root)
    assert f"{root / 'a'} holds 0 class folders" in refused(root / "a")


@pytest.mark.parametrize(("having", "lacking"), [("train", "test"), ("test", "train")])
def test_a_class_in_one_part_alone_is_refused(refused, tmp_path, having, lacking):
    root = plain(plain(tmp_path / "data", 2, "train/"), 1, "test/")
    write(root, {f"{having}/dog/1.png": grey(1)})
    words = f"the class 'dog' is in {root / having} and not in {root / lacking}"
    assert words in refused(root)


def test_a_path_that_is_neither_folder_nor_npz_is_refused(refused, tmp_path) -> None:
    assert "there is no" in refused(tmp_path / "missing", FileNotFoundError)
    (tmp_path / "images.zip").touch()
    assert "neither a folder nor an .npz" in refused(tmp_path / "images.zip")


# --- kinds of images ------------------------------------------------------------------


def test_grey_images_get_colours_beside_others(load, tmp_path) -> None:
    red = PIL.Image.new("RGB", (6, 4), (250, 3, 9))
    found = single(load, tmp_path / "data", grey(7), red)
    assert found.shape == (2, 4, 6, 3)
    assert found[:, 0, 0].tolist() == [[7, 7, 7], [250, 3, 9]]


def test_sixteen_bits_are_scaled_to_eight(load, tmp_path) -> None:
    values = np.array([[0, 128, 129, 32_896, 65_406, 65_407, 65_535]], np.uint16)
    found = single(load, tmp_path / "data", PIL.Image.fromarray(values))
    assert found[0, 0, :, 0].tolist() == [0, 0, 1, 128, 254, 255, 255]
    assert found.shape == (1, 1, 7, 1)


def png_of_sixteen_bits(pixels: np.ndarray, colour_type: int) -> bytes:
    """Returns a PNG file, which Pillow cannot write; `[height, width, channels]`."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    height, width = pixels.shape[:2]
    header = struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*each) for each in chunks)


@pytest.mark.parametrize(
    ("colour_type", "pixel", "expected"),
    [
        (2, (0x0000, 0x80FF, 0xFFFF), [0, 128, 255]),
        (6, (0x80FF, 0x4000, 0x0000, 0xFFFF), [128, 64, 0]),
        (4, (0x80FF, 0xFFFF), [128, 128, 128]),
    ],
)
def test_colours_of_sixteen_bits_keep_their_upper_byte(
    load, tmp_path, colour_type, pixel, expected
) -> None:
    content = png_of_sixteen_bits(np.array([[pixel]]), colour_type)
    for name in ("train/a/1", "train/b/1", "test/a/1", "test/b/1"):
        path = tmp_path / "data" / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    assert load(tmp_path / "data").test_images[0, 0, 0].tolist() == expected


def test_inks_of_a_printer_become_colours(load, tmp_path) -> None:
    for name in ("train/a/1", "train/b/1", "test/a/1", "test/b/1"):
        path = tmp_path / "data" / f"{name}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(path, quality=95)
    found = load(tmp_path / "data").test_images[0, 0, 0]
    np.testing.assert_allclose(found, (255, 0, 0), atol=6)


def test_transparent_pixels_are_shown_over_black(load, tmp_path) -> None:
    image = PIL.Image.new("RGBA", (6, 4), (200, 100, 50, 255))
    image.putpixel((0, 0), (200, 100, 50, 0))
    image.putpixel((1, 0), (200, 100, 50, 51))
    found = single(load, tmp_path / "data", image)
    assert found[0, 0, :3].tolist() == [[0, 0, 0], [40, 20, 10], [200, 100, 50]]


def test_grey_with_transparency_stays_grey(load, tmp_path) -> None:
    image = PIL.Image.new("LA", (6, 4), (200, 255))
    image.putpixel((0, 0), (200, 0))
    assert single(load, tmp_path / "data", image)[0, 0, :2].tolist() == [[0], [200]]


def test_a_palette_becomes_colours(load, tmp_path) -> None:
    image = PIL.Image.new("P", (6, 4), 1)
    image.putpalette([0, 0, 0, 9, 8, 7])
    found = single(load, tmp_path / "data", image)
    assert found[0, 0, 0].tolist() == [9, 8, 7]
    # A colour of the palette may be transparent.
    image.info["transparency"] = 1
    found = single(load, tmp_path / "other", image)
    assert found[0, 0, 0].tolist() == [0, 0, 0]


def test_images_of_two_shades_are_grey(load, tmp_path) -> None:
    image = grey(0).convert("1")
    image.putpixel((0, 0), 255)
    assert single(load, tmp_path / "data", image)[0, 0, :2].tolist() == [[255], [0]]


@pytest.mark.parametrize("kind", ["png", "jpg"])
def test_images_are_turned_upright(load, tmp_path, kind) -> None:
    pixels = np.zeros((8, 16), np.uint8)
    pixels[:, 8:] = 200
    exif = PIL.Image.Exif()
    exif[0x0112] = 6  # turn by a quarter, clockwise
    for path in [f"{name}/{i}.{kind}" for name in "ab" for i in (0, 1)]:
        (tmp_path / "data" / path).parent.mkdir(parents=True, exist_ok=True)
        image = PIL.Image.fromarray(pixels)
        image.save(tmp_path / "data" / path, exif=exif, quality=95)
    found = load(tmp_path / "data").test_images
    assert found.shape == (2, 16, 8, 1)
    assert found[0, :8].max() < 20 and found[0, 8:].min() > 180


def test_images_are_resized_to_height_and_width(load, tmp_path) -> None:
    root = write(plain(tmp_path / "data", 2), {"dog/1.png": grey(9, 12, 3)})
    noise = np.random.default_rng(0).integers(0, 256, (9, 9), np.uint8)
    write(root, {"dog/2.png": PIL.Image.fromarray(noise)})
    found = load(root, image_size=(5, 7))
    assert found.train_images.shape == (4, 5, 7, 1)
    dogs = [found.train_images[-1], found.test_images[-1]]
    expected = PIL.Image.fromarray(noise).resize((7, 5), PIL.Image.Resampling.BILINEAR)
    assert sorted(np.ptp(dog) > 0 for dog in dogs) == [False, True]
    (dog,) = (dog for dog in dogs if np.ptp(dog))
    np.testing.assert_array_equal(dog[..., 0], np.asarray(expected))


def test_several_sizes_need_an_image_size(refused, tmp_path) -> None:
    root = write(plain(tmp_path / "data", 2), {"cat/3.png": grey(9, 12, 3)})
    text = refused(root)
    assert "ant/0.png has 4x6 pixels" in text or "ant/1.png has 4x6 pixels" in text
    assert f"{root / 'cat/3.png'} 12x3; give --image-size" in text


def damage_end(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-30])


def damage_start(path: Path) -> None:
    path.write_bytes(b"GIF89a" + path.read_bytes()[6:])


def damage_middle(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)


@pytest.mark.parametrize("damage", [damage_end, damage_start, damage_middle])
@pytest.mark.parametrize("first", [True, False])
def test_a_broken_image_is_named(refused, tmp_path, damage, first) -> None:
    root = plain(tmp_path / "data", 2)
    noise = np.random.default_rng(0).integers(0, 256, (4, 6), np.uint8)
    path = root / ("ant/0.png" if first else "cat/1.png")
    PIL.Image.fromarray(noise).save(path)
    damage(path)
    assert f"the image {path} cannot be read (" in refused(root)


def test_a_broken_part_of_an_image_is_named(refused, tmp_path) -> None:
    root = plain(tmp_path / "data", 2)
    noise = np.random.default_rng(0).integers(0, 256, (300, 500), np.uint8)
    path = root / "ant/0.png"
    PIL.Image.fromarray(noise).save(path)
    parts = path.read_bytes().split(b"IDAT")
    assert len(parts) > 2
    path.write_bytes(parts[0] + b"IDAT" + parts[1] + bytes(4).join(parts[2:]))
    assert f"the image {path} cannot be read (" in refused(root)


@pytest.mark.parametrize(
    ("side", "words"),
    [
        (8193, "it has 8193x8193 pixels, more than 67,108,864"),
        (12_000, "it has 12000x12000 pixels"),  # Pillow warns
        (20_000, "decompression bomb"),  # Pillow refuses
    ],
)
def test_an_image_of_too_many_pixels_is_not_decoded(
    refused, tmp_path, side, words
) -> None:
    root = plain(tmp_path / "data", 2)
    small = png_of_sixteen_bits(np.zeros((1, 1, 3)), 2)
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    checksum = struct.pack(">I", zlib.crc32(header))
    path = root / "ant/0.png"
    path.write_bytes(small[:12] + header + checksum + small[33:])
    text = refused(root)
    assert text.startswith(f"load: the image {path} cannot be read (") and words in text


def test_an_image_file_of_too_many_bytes_is_not_read(refused, tmp_path) -> None:
    root = plain(tmp_path / "data", 2)
    path = root / "ant/0.png"
    os.truncate(path, (1 << 28) + 1)  # whole at its beginning, then empty
    assert f"the image {path} cannot be read (it has 268,435,457 by" in refused(root)


# --- numbers, cache and notes ---------------------------------------------------------


def test_mean_and_std_are_those_of_the_training_images(load, tmp_path) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (8, 4, 6, 3), np.uint8)
    pixels[..., 2] = 51
    folders = [f"{part}/{name}" for part in ("train", "test") for name in "ab"]
    names = [f"{parent}/{i}.png" for parent in folders for i in "01"]
    images = map(PIL.Image.fromarray, pixels)
    found = load(write(tmp_path / "data", dict(zip(names, images, strict=True))))
    train = pixels[:4] / 255
    np.testing.assert_allclose(found.mean, train.mean((0, 1, 2)), atol=6e-5)
    assert found.mean[2] == 0.2
    np.testing.assert_allclose(found.std[:2], train.std((0, 1, 2))[:2], atol=6e-5)
    assert found.std[2] == 1.0


def test_a_second_load_decodes_nothing(load, tmp_path, monkeypatch) -> None:
    root = plain(tmp_path / "data", 3)
    notes: list[str] = []
    first = load(root, note=notes.append)
    assert notes == [f"decoding 9 images of {root}, once"]
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode", None)
        again = load(root, note=notes.append)
    assert len(notes) == 1
    assert again.images_sha256() == first.images_sha256()
    assert again.labels_sha256() == first.labels_sha256()
    assert again.class_names == first.class_names and again.source == first.source

    # Another size is another cache, and so are images of other bytes.
    assert load(root, image_size=(2, 2)).test_images.shape == (3, 2, 2, 1)
    write(root, {"cat/0.png": grey(77)})
    os.utime(root / "cat/0.png", ns=(1, 1))
    changed = load(root, note=notes.append)
    images = np.concatenate([changed.train_images, changed.test_images])
    assert len(notes) == 2 and 77 in images

    # A damaged cache is decoded again.
    for file in (tmp_path / "cache").rglob("test_labels.npy"):
        content = bytearray(file.read_bytes())
        content[-4] ^= 1
        file.write_bytes(content)
    assert load(root, note=notes.append).labels_sha256() == first.labels_sha256()
    assert len(notes) == 3


def test_moved_images_are_noticed(load, tmp_path) -> None:
    root = plain(tmp_path / "data", 3, start=100)
    for path in root.rglob("*.png"):
        os.utime(path, ns=(1, 1))
    assert len({path.stat().st_size for path in root.rglob("*.png")}) == 1
    first = load(root)
    # Name, size and time stay; the class does not.
    for a, b in (("ant", "swap"), ("bee", "ant"), ("swap", "bee")):
        shutil.move(root / a, root / b)
    assert load(root).images_sha256() != first.images_sha256()


def test_an_image_that_changes_its_class_is_noticed(load, tmp_path) -> None:
    root = plain(tmp_path / "data", 1, "test/")
    names = ("ant/1", "ant/5", "bee/7", "cat/8")
    write(root, {f"train/{name}.png": grey(9) for name in names})
    assert load(root).train_labels.tolist() == [0, 0, 1, 2]
    shutil.move(root / "train/ant/5.png", root / "train/bee/5.png")
    assert load(root).train_labels.tolist() == [0, 1, 1, 2]


def test_long_decoding_reports_progress(load, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(decoding, "_NOTE_SECONDS", 0.0)
    notes: list[str] = []
    load(plain(tmp_path / "data", 2), note=notes.append)
    assert notes[1:] == [f"decoded {i} of 6 images" for i in range(1, 7)]


@pytest.mark.parametrize("name", ["a\tb", "x" * 201, "\x1b[2J", os.fsdecode(b"\xff")])
def test_a_class_that_no_artefact_can_name_is_refused(refused, tmp_path, name) -> None:
    root = tmp_path / "data"
    write(root, {f"{each}/{i}.png": grey(i) for each in ("a", name) for i in range(2)})
    text = refused(root)
    assert "names a class '" in text and "at most 200 printable" in text
    assert text.isprintable()
