"""TinyImageNet out of small folders and zip files in the official layout."""

import dataclasses
import io
import os
import re
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from aslp_jax.data import cache, datasets, tiny_imagenet

NAME = "tiny-imagenet-200"
WNIDS = ("n00000003", "n00000001", "n00000002")
"""Not in alphabetical order, which must not decide the labels."""

NUMBERS = (0, 10, 2, 1)
"""Numbers of the images of a class; alphabetical order would put 10 before 2."""

TEST_CLASSES = {"val_0": 2, "val_1": 0, "val_2": 0, "val_10": 0, "val_3": 1}
GREY = f"train/{WNIDS[1]}/images/{WNIDS[1]}_2.JPEG"
ANNOTATIONS = "val/val_annotations.txt"
FIRST = f"train/{WNIDS[0]}/images/{WNIDS[0]}_0.JPEG"

Members = dict[str, bytes]
Edit = Callable[[Members], object]


def jpeg(name: str, side: int = 64, mode: str = "RGB", kind: str = "JPEG") -> bytes:
    """An encoded image of random 8x8 squares, seeded by its name."""
    channels = {"RGB": (3,), "L": ()}[mode]
    squares = np.random.default_rng(list(name.encode())).integers(
        0, 256, (side // 8, side // 8, *channels), np.uint8
    )
    file = io.BytesIO()
    pixels = squares.repeat(8, axis=0).repeat(8, axis=1)
    PIL.Image.fromarray(pixels).save(file, format=kind)
    return file.getvalue()


def official_members() -> Members:
    """Small, but of the official layout, with what is to be left alone beside it."""
    members = {
        "wnids.txt": "".join(f"{wnid}\n" for wnid in WNIDS).encode(),
        "words.txt": b"n00000001\tentity\n",
        "test/images/test_0.JPEG": b"has no label",
    }
    for wnid in WNIDS:
        members[f"train/{wnid}/{wnid}_boxes.txt"] = b"ignored"
        members[f"train/{wnid}/images/.DS_Store"] = b"ignored"
        for number in NUMBERS:
            name = f"train/{wnid}/images/{wnid}_{number}.JPEG"
            members[name] = jpeg(name, mode="L" if name == GREY else "RGB")
    lines = [f"{n}.JPEG\t{WNIDS[i]}\t0\t32\t44\t62\n" for n, i in TEST_CLASSES.items()]
    members[ANNOTATIONS] = "".join(lines).encode()
    for name in TEST_CLASSES:
        members[f"val/images/{name}.JPEG"] = jpeg(name)
    return members


def write_folder(parent: Path, members: Members) -> Path:
    for name, content in members.items():
        path = parent / NAME / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # A name that ends in a slash is an empty folder, as in a zip file.
        if name.endswith("/"):
            path.mkdir()
        else:
            path.write_bytes(content)
    return parent / NAME


def write_zip(parent: Path, members: Members) -> Path:
    parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(parent / f"{NAME}.zip", "w", zipfile.ZIP_DEFLATED) as file:
        for name, content in members.items():
            file.writestr(f"{NAME}/{name}", content)
    return parent / f"{NAME}.zip"


@pytest.fixture(params=[write_folder, write_zip], ids=["folder", "zip"])
def write(request: pytest.FixtureRequest) -> Callable[[Path, Members], Path]:
    """A function that writes members as a folder or as a zip file."""
    return request.param


def load(manual_dir: Path, cache: Path | None = None) -> datasets.Dataset:
    # Under a name of its own where a test looks into no cache.
    cache = cache or manual_dir.parent / f"cache of {manual_dir.name}"
    return datasets.load("tiny_imagenet", manual_dir=manual_dir, cache_dir=cache)


def decoded(content: bytes) -> np.ndarray:
    with PIL.Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))


def assert_same(first: datasets.Dataset, second: datasets.Dataset) -> None:
    for field in dataclasses.fields(datasets.Dataset):
        if field.name != "source":
            np.testing.assert_array_equal(
                getattr(first, field.name), getattr(second, field.name)
            )


def one_line(error: pytest.ExceptionInfo[Exception]) -> str:
    text = str(error.value)
    assert text.startswith("load: ") and "\n" not in text and "; " in text
    return text


# --- what is read ---------------------------------------------------------------------


def test_every_image_arrives_with_its_label(write, tmp_path: Path) -> None:
    members = official_members()
    path = write(tmp_path / "manual", members)
    loaded = load(tmp_path / "manual")
    train = [
        f"train/{wnid}/images/{wnid}_{number}.JPEG"
        for wnid in WNIDS
        for number in sorted(NUMBERS)
    ]
    test = [f"val/images/val_{number}.JPEG" for number in (1, 2, 10, 3, 0)]
    for names, images in ((train, loaded.train_images), (test, loaded.test_images)):
        assert images.dtype == np.uint8 and images.shape == (len(names), 64, 64, 3)
        for name, image in zip(names, images, strict=True):
            np.testing.assert_array_equal(image, decoded(members[name]), name)
    assert loaded.train_labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert loaded.test_labels.tolist() == [0, 0, 0, 1, 2]
    assert loaded.train_labels.dtype == loaded.test_labels.dtype == np.int32
    assert (loaded.name, loaded.classes, loaded.flip) == ("tiny_imagenet", 3, True)
    assert loaded.validation == 1 and loaded.source == str(path)
    assert loaded.mean == (0.4802, 0.4481, 0.3975)
    assert loaded.std == (0.2770, 0.2691, 0.2821)


def test_a_grey_image_has_three_equal_channels(write, tmp_path: Path) -> None:
    members = official_members()
    with PIL.Image.open(io.BytesIO(members[GREY])) as image:
        assert image.mode == "L"
        grey = np.asarray(image)
    write(tmp_path / "manual", members)
    loaded = load(tmp_path / "manual").train_images
    assert [i for i in range(12) if np.ptp(loaded[i], axis=-1).max() == 0] == [6]
    np.testing.assert_array_equal(loaded[6], grey[..., None].repeat(3, axis=-1))


def test_folder_itself_folder_and_zip_are_equal(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "unpacked", official_members())
    write_zip(tmp_path / "packed", official_members())
    unpacked = load(tmp_path / "unpacked")
    assert_same(load(tmp_path / "packed"), unpacked)
    itself = load(folder)
    assert_same(itself, unpacked)
    assert itself.source == unpacked.source == str(folder)
    # Renamed, it is known by what it holds; beside the zip file, it is preferred.
    assert load(folder.rename(tmp_path / "renamed")).source == f"{tmp_path}/renamed"
    both = write_folder(tmp_path / "packed", official_members())
    assert load(tmp_path / "packed").source == str(both)


def test_a_zip_file_is_read_without_unpacking_it(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "manual", official_members())
    load(tmp_path / "manual", tmp_path / "cache")
    assert list((tmp_path / "manual").iterdir()) == [path]
    kept = {file.name for file in tmp_path.rglob("*") if file.is_file()}
    parts = ("train_images", "train_labels", "test_images", "test_labels")
    assert kept == {path.name, "sha256.json", *(f"{part}.npy" for part in parts)}


def test_a_member_that_expands_is_refused(tmp_path: Path) -> None:
    members = official_members()
    name = next(each for each in members if each.endswith("wnids.txt"))
    path = write_zip(tmp_path, {**members, name: b" " * (1 << 25)})
    with pytest.raises(ValueError, match=r"wnids\.txt' cannot be read .more than") as e:
        load(tmp_path)
    one_line(e)
    assert path.stat().st_size < 1 << 20


@pytest.mark.parametrize("name", ["wnids.txt", ANNOTATIONS, FIRST])
def test_a_file_of_too_many_bytes_is_refused(tmp_path: Path, name: str) -> None:
    path = write_folder(tmp_path, official_members()) / name
    os.truncate(path, (1 << 24) + 1)
    with pytest.raises(ValueError, match=r"' cannot be read .*more than 16,777,") as e:
        load(tmp_path)
    assert name in one_line(e)


def test_a_file_that_a_program_would_have_to_write_is_refused(tmp_path: Path) -> None:
    path = write_folder(tmp_path, official_members()) / "wnids.txt"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(ValueError, match=r"wnids\.txt' cannot be read .*is no regular"):
        load(tmp_path)


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_an_image_of_too_many_pixels_is_not_decoded(
    write, tmp_path: Path, side: int
) -> None:
    members = official_members()
    # Height and width follow the precision, in the frame of the image.
    place = members[FIRST].index(b"\xff\xc0") + 5
    sizes = struct.pack(">HH", side, side)
    members[FIRST] = members[FIRST][:place] + sizes + members[FIRST][place + 4 :]
    write(tmp_path / "manual", members)
    with pytest.raises(ValueError, match=f"{FIRST}' cannot be read") as e:
        load(tmp_path / "manual")
    one_line(e)


def test_windows_line_ends_mean_nothing(write, tmp_path: Path) -> None:
    members = official_members()
    write(tmp_path / "plain", members)
    for name in ("wnids.txt", ANNOTATIONS):
        members[name] = members[name].replace(b"\n", b"\r\n")
    write(tmp_path / "windows", members)
    assert_same(load(tmp_path / "windows"), load(tmp_path / "plain"))


def test_without_pillow_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_zip(tmp_path / "manual", official_members())
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(ImportError, match="needs the package pillow;") as error:
        load(tmp_path / "manual")
    assert one_line(error).endswith('pip install "aslp-jax[data]"')


def test_loading_starts_neither_jax_nor_tfds(tmp_path: Path) -> None:
    write_zip(tmp_path / "manual", official_members())
    # The package is stood in for, because its own __init__ imports JAX.
    program = (
        "import sys, types; package = types.ModuleType('aslp_jax'); "
        f"package.__path__ = [{str(Path(datasets.__file__).parents[1])!r}]; "
        "sys.modules['aslp_jax'] = package; from aslp_jax.data import datasets; "
        f"datasets.load('tiny_imagenet', manual_dir={str(tmp_path / 'manual')!r}, "
        f"cache_dir={str(tmp_path / 'cache')!r}); "
        "print({'jax', 'tensorflow_datasets'} & sys.modules.keys())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


# --- the cache ------------------------------------------------------------------------


def test_the_second_load_decodes_nothing(
    write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(layout: tiny_imagenet.Layout) -> None:
        raise AssertionError("decoded again")

    write(tmp_path / "manual", official_members())
    first = load(tmp_path / "manual")
    monkeypatch.setattr(tiny_imagenet, "decode", refuse)
    assert_same(load(tmp_path / "manual"), first)


def test_a_changed_source_is_decoded_again(write, tmp_path: Path) -> None:
    members = official_members()
    path = write(tmp_path / "manual", members)
    before = load(tmp_path / "manual", tmp_path / "cache")
    members[FIRST] = jpeg("another")
    write(tmp_path / "manual", members)
    # The time alone tells where the size happens to be the same.
    os.utime(path / FIRST if path.is_dir() else path, ns=(1, 1))
    after = load(tmp_path / "manual", tmp_path / "cache")
    assert (after.train_images[0] != before.train_images[0]).any()
    np.testing.assert_array_equal(after.train_images[0], decoded(members[FIRST]))
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 2


@pytest.mark.parametrize("name", ["wnids.txt", ANNOTATIONS])
def test_changed_labels_are_read_again(name: str, tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "manual", official_members())
    load(tmp_path / "manual", tmp_path / "cache")
    os.utime(folder / name, ns=(1, 1))
    load(tmp_path / "manual", tmp_path / "cache")
    assert len(list((tmp_path / "cache" / "decoded").iterdir())) == 2


def test_a_damaged_cache_is_rebuilt(write, tmp_path: Path) -> None:
    write(tmp_path / "manual", official_members())
    first = load(tmp_path / "manual", tmp_path / "cache")
    (path,) = tmp_path.rglob("train_images.npy")
    path.write_bytes(path.read_bytes()[:-1])
    assert_same(load(tmp_path / "manual", tmp_path / "cache"), first)
    fresh = cache.read(path.parent, {"train": 12, "test": 5}, (64, 64, 3))
    assert fresh is not None


def test_a_cache_that_cannot_be_written_is_said_to_the_caller(
    write, tmp_path: Path
) -> None:
    write(tmp_path / "manual", official_members())
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot write the cache") as warned:
        loaded = datasets.load(
            "tiny_imagenet",
            manual_dir=tmp_path / "manual",
            cache_dir=tmp_path / "file" / "cache",
        )
    assert [warning.filename for warning in warned] == [__file__]
    assert loaded.train_images.shape == (12, 64, 64, 3)


# --- what is refused ------------------------------------------------------------------


def test_without_a_folder_there_is_a_way_on(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="cannot be downloaded") as error:
        datasets.load("tiny_imagenet", cache_dir=tmp_path)
    text = one_line(error)
    assert "http://cs231n.stanford.edu/tiny-imagenet-200.zip" in text
    assert "--manual-dir" in text


def test_a_tfds_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="tiny_imagenet is not in TFDS") as error:
        datasets.load("tiny_imagenet", data_dir=tmp_path)
    assert "expected manual_dir, not data_dir" in one_line(error)
    with pytest.raises(ValueError, match="both data_dir and manual_dir"):
        datasets.load("tiny_imagenet", data_dir=tmp_path, manual_dir=tmp_path)


def test_missing_and_other_folders_are_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path, official_members())
    for missing in (tmp_path / "missing", path):
        with pytest.raises(FileNotFoundError, match=f"no folder {missing};") as error:
            load(missing, tmp_path / "cache")
        assert f"'{NAME}/' or '{NAME}.zip'" in one_line(error)
    other = tmp_path / "other"
    (other / "train").mkdir(parents=True)
    with pytest.raises(FileNotFoundError, match=f"{other} holds neither") as error:
        load(other)
    assert tiny_imagenet.URL in one_line(error)


def drop(start: str) -> Edit:
    """Leaves out every member whose name starts so."""

    def edit(members: Members) -> None:
        found = [name for name in members if name.startswith(start)]
        assert found
        for name in found:
            del members[name]

    return edit


def emptied(folder: str) -> Edit:
    def edit(members: Members) -> None:
        drop(folder)(members)
        members[folder] = b""

    return edit


def put(name: str, content: bytes) -> Edit:
    return lambda members: members.update({name: content})


def replaced(name: str, old: bytes, new: bytes) -> Edit:
    def edit(members: Members) -> None:
        assert old in members[name]
        members[name] = members[name].replace(old, new)

    return edit


def moved_down(members: Members) -> None:
    for name in list(members):
        members[f"inner/{name}"] = members.pop(name)


SECOND = f"train/{WNIDS[1]}/images/"


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (drop("wnids.txt"), "lacks 'wnids.txt'; expected the layout of http"),
        (moved_down, "lacks 'wnids.txt'"),
        (drop(ANNOTATIONS), f"lacks '{ANNOTATIONS}'; expected the layout of http"),
        (
            drop("train/"),
            f"lacks 3 of 3 class folders, the first being 'train/{WNIDS[0]}/images'",
        ),
        (
            drop(f"train/{WNIDS[1]}/"),
            f"lacks 1 of 3 class folders, the first being 'train/{WNIDS[1]}/images'",
        ),
        (
            emptied(SECOND),
            f"'train/{WNIDS[1]}/images' holds no image; expected {WNIDS[1]}_<number>",
        ),
        (
            drop(f"{SECOND}{WNIDS[1]}_10.JPEG"),
            f"'train/{WNIDS[1]}/images' holds 3 images and 'train/{WNIDS[0]}/images' 4",
        ),
        (drop("val/images/"), "'val/images' holds no image; expected val_<number>"),
        (drop("val/images/val_3"), r"'val_3.JPEG' is in only one of .*\(4 images\)"),
        (
            put("val/images/val_7.JPEG", jpeg("val_7")),
            r"'val_7.JPEG' is in only one of .*\(6 images\).*\(5 lines\)",
        ),
        (
            replaced(ANNOTATIONS, b"val_2.JPEG\tn00000003", b"val_2.JPEG\tn00000004"),
            f"line 3 of '{ANNOTATIONS}' names the class 'n00000004'; expected one of",
        ),
        (
            replaced(ANNOTATIONS, b"val_1.JPEG\t", b"val_1.JPEG "),
            f"line 2 of '{ANNOTATIONS}' is 'val_1.JPEG n00000003",
        ),
        (
            replaced(ANNOTATIONS, b"val_2.", b"val_1."),
            f"line 3 of '{ANNOTATIONS}' is 'val_1.JPEG.*; expected a new image",
        ),
        (
            replaced("wnids.txt", b"n00000001", b"../../etc"),
            "'wnids.txt' names the class '../../etc'; expected an n and eight digits",
        ),
        (put("wnids.txt", b"\xff\xfe"), "'wnids.txt' names the class"),
        (put("wnids.txt", b""), "'wnids.txt' has 0 lines and 0 classes"),
        (
            replaced("wnids.txt", b"n00000001", b"n00000003"),
            "'wnids.txt' has 3 lines and 2 classes; expected one to a line, 1 to 200",
        ),
        (
            put("wnids.txt", b"".join(b"n%08d\n" % i for i in range(201))),
            "'wnids.txt' has 201 lines and 201 classes",
        ),
        (
            put(FIRST, jpeg("small", side=32)),
            f"'{FIRST}' cannot be read .it has 32x32 pixels.; expected .* 64x64 pixels",
        ),
        (put(FIRST, jpeg("png", kind="PNG")), f"'{FIRST}' cannot be read .*a JPEG"),
        (put(FIRST, b""), f"'{FIRST}' cannot be read"),
        (put(FIRST, jpeg(FIRST)[:-300]), f"'{FIRST}' cannot be read .*truncated"),
        (
            put("val/images/val_10.JPEG", b"<html>not\nfound"),
            "'val/images/val_10.JPEG' cannot be read",
        ),
    ],
)
def test_damage_is_named(
    edit: Edit, complaint: str, write: Callable, tmp_path: Path
) -> None:
    members = official_members()
    edit(members)
    path = write(tmp_path / "manual", members)
    with pytest.raises(ValueError, match=complaint) as error:
        load(tmp_path / "manual", tmp_path / "cache")
    assert str(path) in one_line(error)
    assert not (tmp_path / "cache").exists()


def test_an_image_of_immense_size_is_refused_unread(tmp_path: Path) -> None:
    members = official_members()
    # Height and width follow the marker of the frame, its length and its precision.
    start = members[FIRST].index(b"\xff\xc0") + 5
    image = bytearray(members[FIRST])
    image[start : start + 4] = b"\xff\xff\xff\xff"
    members[FIRST] = bytes(image)
    write_folder(tmp_path / "manual", members)
    with pytest.raises(ValueError, match=f"'{FIRST}' cannot be read") as error:
        load(tmp_path / "manual")
    one_line(error)


@pytest.mark.parametrize("kept", [0.0, 0.5, 0.999])
def test_a_truncated_zip_file_is_named(kept: float, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "manual", official_members())
    content = path.read_bytes()
    path.write_bytes(content[: int(kept * len(content))])
    with pytest.raises(ValueError, match="truncated or damaged") as error:
        load(tmp_path / "manual")
    assert f"{path} is" in one_line(error)


def test_a_zip_file_that_is_something_else_is_named(tmp_path: Path) -> None:
    path = write_zip(tmp_path / "manual", official_members())
    path.write_bytes(b"<html>moved</html>" * 100)
    with pytest.raises(ValueError, match=f"{path} is truncated or damaged") as error:
        load(tmp_path / "manual")
    assert f"expected a complete {NAME}.zip" in one_line(error)


@pytest.mark.parametrize("name", ["wnids.txt", FIRST])
def test_a_damaged_member_is_named(name: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "manual", official_members())
    with zipfile.ZipFile(path) as file:
        start = file.getinfo(f"{NAME}/{name}").header_offset
    content = bytearray(path.read_bytes())
    # Behind the 30 bytes and the name of its header lies what was compressed.
    start += 30 + len(f"{NAME}/{name}")
    content[start : start + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"'{name}' cannot be")) as error:
        load(tmp_path / "manual")
    assert str(path) in one_line(error)


@pytest.mark.parametrize("name", ["wnids.txt", FIRST])
def test_a_member_whose_name_is_no_utf8_is_named(name: str, tmp_path: Path) -> None:
    path = write_zip(tmp_path / "manual", official_members())
    stored = f"{NAME}/{name}".encode()
    with zipfile.ZipFile(path) as file:
        start = file.getinfo(stored.decode()).header_offset
    content = bytearray(path.read_bytes())
    content[start + 30] = 0x90
    # Its header and its entry in the directory at the end say that names are UTF-8.
    content[start + 7] |= 0x08
    content[content.rindex(stored) - 46 + 9] |= 0x08
    path.write_bytes(content)
    with pytest.raises(ValueError, match=re.escape(f"'{name}' cannot be")) as error:
        load(tmp_path / "manual")
    assert str(path) in one_line(error)


def test_a_member_whose_name_has_two_slashes_is_named(tmp_path: Path) -> None:
    members = official_members()
    members["/wnids.txt"] = members.pop("wnids.txt")
    path = write_zip(tmp_path / "manual", members)
    with pytest.raises(ValueError, match=r"'wnids\.txt' cannot be read") as error:
        load(tmp_path / "manual")
    assert str(path) in one_line(error)


def test_a_folder_in_place_of_a_file_is_named(tmp_path: Path) -> None:
    members = official_members()
    for name in ("wnids.txt", FIRST):
        damaged = {key: content for key, content in members.items() if key != name}
        path = write_folder(tmp_path / name.replace("/", "-"), damaged)
        (path / name).mkdir()
        with pytest.raises(ValueError, match=f"'{name}' cannot be read") as error:
            load(path.parent)
        one_line(error)
