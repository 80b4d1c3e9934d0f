"""Datasets of TFDS that are prepared in a folder."""

import json
import shutil
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest

from aslp_jax.data import decoding, prepared, tfds_records
from tests.data.tfds_writer import png, prepare

NAMES = ("pear", "apple", "fig")
RECORDS = {"train": 12, "validation": 4}

Edit = Callable[[dict[str, Any]], object]


def pixels_of(split: str, index: int) -> np.ndarray:
    rng = np.random.default_rng([index, len(split)])
    return rng.integers(0, 256, (4, 5, 3), np.uint8)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which TFDS has prepared the dataset `fruit`, not to be written to."""
    import tensorflow_datasets as tfds

    root = tmp_path_factory.mktemp("tfds")
    features = {
        "image": tfds.features.Image(shape=(None, None, 3)),
        "label": tfds.features.ClassLabel(names=NAMES),
        "colour": tfds.features.ClassLabel(num_classes=5),
        "id": tfds.features.Text(),
    }
    examples = {
        split: [
            {"image": png(pixels_of(split, i)), "label": i % 3, "colour": 4, "id": "x"}
            for i in range(count)
        ]
        for split, count in RECORDS.items()
    }
    prepare(root, "fruit", features, examples, supervised=("image", "label"))
    return root


@pytest.fixture
def folder(written: Path, tmp_path: Path) -> Path:
    """A copy of the folder of the version, to be written to."""
    shutil.copytree(written / "fruit", tmp_path / "tfds" / "fruit")
    return tmp_path / "tfds" / "fruit" / "1.2.0"


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Any]:
    return lambda root, name="tfds:fruit", **options: prepared.load(
        name, root, **{"cache_dir": tmp_path / "cache", **options}
    )


@pytest.fixture
def refused(load: Callable[..., Any], tmp_path: Path) -> Callable[..., str]:
    """Loads, and returns the message of the refusal."""

    def check(
        root: Path, *name: str, kind: type[Exception] = ValueError, **options: Any
    ) -> str:
        with pytest.raises(kind) as caught:
            load(root, *name, **options)
        text = str(caught.value)
        assert text.startswith("load: ") and "\n" not in text
        assert not (tmp_path / "cache").exists()
        return text

    return check


def edit_json(path: Path, edit: Edit) -> None:
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


# --- TFRecord, written by the letter of its description -------------------------------


def crc_bit_by_bit(content: bytes) -> int:
    crc = 0xFFFFFFFF
    for byte in content:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF


def masked(content: bytes) -> bytes:
    crc = crc_bit_by_bit(content)
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def tfrecord(record: bytes) -> bytes:
    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def field(number: int, content: bytes) -> bytes:
    """A field of a protocol buffer, of bytes."""
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def example(image: bytes | None, label: bytes | None) -> bytes:
    """A `tf.train.Example`; the label is the message of a list of integers."""
    pairs = field(1, field(1, b"weight") + field(2, field(2, b"\x0d\0\0\x80\x3f")))
    if image is not None:
        pairs += field(1, field(1, b"image") + field(2, field(1, field(1, image))))
    if label is not None:
        pairs += field(1, field(1, b"label") + field(2, field(3, label)))
    return field(1, pairs)


def to_tfrecord(folder: Path, **records: list[bytes]) -> None:
    """Replaces the files of a dataset, each split by two files."""
    for path in folder.glob("*array_record*"):
        path.unlink()
    lengths = {}
    for split, found in records.items():
        halves = (found[: len(found) // 2], found[len(found) // 2 :])
        lengths[split] = [len(half) for half in halves]
        for i, half in enumerate(halves):
            name = f"fruit-{split}.tfrecord-0000{i}-of-00002"
            (folder / name).write_bytes(b"".join(map(tfrecord, half)))

    def edit(info: dict[str, Any]) -> None:
        info["fileFormat"] = "tfrecord"
        template = info["splits"][0]["filepathTemplate"]
        info["splits"] = [
            {"name": split, "filepathTemplate": template, "shardLengths": counts}
            for split, counts in lengths.items()
        ]

    edit_json(folder / "dataset_info.json", edit)


def packed(*labels: int) -> bytes:
    return field(1, bytes(labels))


def sound(count: int, split: str = "train") -> list[bytes]:
    return [example(png(pixels_of(split, i)), packed(i % 3)) for i in range(count)]


def test_the_checksum_is_the_published_one() -> None:
    assert tfds_records.crc32c(b"123456789") == 0xE3069283
    content = np.random.default_rng(0).bytes(3000)
    for size in (0, 1, 2, 3, 4, 5, 1023, 1024, 1025, 1027, 1028, 3000):
        expected = crc_bit_by_bit(content[:size])
        assert tfds_records.crc32c(content[:size]) == expected, size


# --- what is read ---------------------------------------------------------------------


def test_every_image_arrives_with_its_label(load, written) -> None:
    notes: list[str] = []
    found = load(written, note=notes.append)
    parts = {"train": "train", "validation": "test"}
    for split, part in parts.items():
        images, labels = (getattr(found, f"{part}_{x}") for x in ("images", "labels"))
        assert images.dtype == np.uint8 and labels.dtype == np.int32
        assert images.shape == (RECORDS[split], 4, 5, 3)
        pairs = [(x.tobytes(), int(y)) for x, y in zip(images, labels, strict=True)]
        expected = [(pixels_of(split, i).tobytes(), i % 3) for i in range(len(pairs))]
        assert sorted(pairs) == sorted(expected)
    assert (found.name, found.classes, found.class_names) == ("tfds:fruit", 3, NAMES)
    assert (found.validation, found.flip) == (1, True)
    pixels = found.train_images / 255
    np.testing.assert_allclose(found.mean, pixels.mean((0, 1, 2)), atol=6e-5)
    np.testing.assert_allclose(found.std, pixels.std((0, 1, 2)), atol=6e-5)
    home = written / "fruit" / "1.2.0"
    counts = "12 training and 4 test images of 3 classes"
    assert found.source == f"{home}: {counts}"
    assert notes == [f"decoding 16 images of {home}, once"]


def test_the_order_is_that_of_tfds(load, written) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(written / "fruit" / "1.2.0")
    theirs = [record["image"] for record in builder.as_data_source(split="train")]
    np.testing.assert_array_equal(load(written).train_images, theirs)


def test_nothing_named_in_a_file_is_imported(load, folder, monkeypatch) -> None:
    (folder / "hostile.py").write_text("raise SystemExit('executed')")
    monkeypatch.syspath_prepend(folder)
    path = folder / "features.json"
    path.write_text(path.read_text().replace("tensorflow_datasets.core", "hostile"))
    edit_json(folder / "dataset_info.json", lambda x: x.update(moduleName="hostile"))
    assert load(folder.parents[1]).classes == 3
    assert "hostile" not in sys.modules


def test_tfrecord_is_read_without_tensorflow(load, folder) -> None:
    to_tfrecord(folder, train=sound(12), validation=sound(4, "validation"))
    found = load(folder.parents[1])
    expected = [pixels_of("train", i) for i in range(12)]
    np.testing.assert_array_equal(found.train_images, expected)
    assert found.train_labels.tolist() == [0, 1, 2] * 4
    assert found.test_labels.tolist() == [0, 1, 2, 0]


def test_a_label_may_be_written_unpacked(load, folder) -> None:
    records = sound(11)
    records.append(example(png(pixels_of("train", 11)), b"\x08\x02"))
    to_tfrecord(folder, train=records, validation=sound(3))
    assert load(folder.parents[1]).train_labels[-1] == 2


def test_reading_imports_neither_tfds_nor_jax(written, tmp_path) -> None:
    program = (
        "import sys, types; package = types.ModuleType('aslp_jax'); "
        f"package.__path__ = [{str(Path(prepared.__file__).parents[1])!r}]; "
        "sys.modules['aslp_jax'] = package; from aslp_jax.data import prepared; "
        f"prepared.load('tfds:fruit', {str(written)!r}, cache_dir={str(tmp_path)!r}); "
        "print({'jax', 'tensorflow_datasets', 'tensorflow'} & sys.modules.keys())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


def only_train(info: dict[str, Any]) -> None:
    info["splits"] = [x for x in info["splits"] if x["name"] == "train"]


def test_without_test_images_each_class_is_divided(load, folder) -> None:
    edit_json(folder / "dataset_info.json", only_train)
    found = load(folder.parents[1])
    assert np.bincount(found.train_labels).tolist() == [3, 3, 3]
    assert np.bincount(found.test_labels).tolist() == [1, 1, 1]
    both = np.concatenate([found.train_images, found.test_images])
    expected = [pixels_of("train", i).tobytes() for i in range(12)]
    assert sorted(image.tobytes() for image in both) == sorted(expected)
    assert found.source.endswith(
        "9 training and 3 test images of 3 classes, divided by class"
    )


def test_test_comes_before_validation(load, folder) -> None:
    to_tfrecord(folder, train=sound(12), validation=sound(4), test=sound(2))
    assert len(load(folder.parents[1]).test_images) == 2


@pytest.mark.parametrize("form", ["object", "string"])
def test_older_metadata_are_read(load, folder, form) -> None:
    content: Any = {"shape": [4, 5, 3], "dtype": "uint8", "encoding_format": "png"}
    label: Any = {"num_classes": 3}
    if form == "string":
        content = json.dumps({"shape": {"dimensions": ["4", "5", "3"]}})
        label = json.dumps({"numClasses": "3"})
    module = "tensorflow_datasets.core.features"
    features: Any = {
        "image": {"type": f"{module}.image_feature.Image", "content": content},
        "label": {"type": f"{module}.class_label_feature.ClassLabel", "content": label},
    }
    if form == "string":
        features = json.dumps({"features": features})
    root = {"type": f"{module}.features_dict.FeaturesDict", "content": features}
    (folder / "features.json").write_text(json.dumps(root))
    found = load(folder.parents[1])
    assert (found.train_images.shape, found.classes) == ((12, 4, 5, 3), 3)
    assert found.class_names == NAMES


def undeclared(features: dict[str, Any]) -> None:
    features["featuresDict"]["features"]["image"]["image"] = {}


@pytest.mark.parametrize("colour", [False, True])
def test_undeclared_channels_follow_from_the_images(load, folder, colour) -> None:
    edit_json(folder / "features.json", undeclared)
    grey = [example(png(pixels_of("train", i)[..., 0]), packed(i % 3)) for i in (0, 1)]
    test = sound(1) if colour else grey
    to_tfrecord(folder, train=grey * 2, validation=test)
    found = load(folder.parents[1])
    assert found.train_images.shape == (4, 4, 5, 3 if colour else 1)


def test_images_of_several_sizes_are_resized(load, refused, folder) -> None:
    records = sound(11)
    noise = np.random.default_rng(9).integers(0, 256, (9, 3, 3), np.uint8)
    records.append(example(png(noise), packed(2)))
    to_tfrecord(folder, train=records, validation=sound(4))
    text = refused(folder.parents[1])
    assert text.startswith("load: images have several sizes: image 0 of the train")
    assert text.endswith("9x3; give --image-size")
    to_tfrecord(folder, train=sound(11), validation=records[-1:])
    text = refused(folder.parents[1])
    assert "has 4x5 pixels and a test image 9x3; give --image-size" in text
    found = load(folder.parents[1], image_size=(6, 8))
    assert found.train_images.shape == (11, 6, 8, 3)
    expected = PIL.Image.fromarray(noise).resize((8, 6), PIL.Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found.test_images[0], np.asarray(expected))


# --- which dataset --------------------------------------------------------------------


def test_names_have_configs_and_versions(load, refused, folder) -> None:
    root = folder.parents[1]
    shutil.copytree(folder, root / "fruit" / "small" / "0.9.0")
    shutil.copytree(folder, root / "fruit" / "1.10.0")
    for name, path in {
        "fruit": "fruit/1.10.0",
        "fruit:1.2.0": "fruit/1.2.0",
        "fruit/small": "fruit/small/0.9.0",
        "fruit/small:0.9.0": "fruit/small/0.9.0",
    }.items():
        found = load(root, f"tfds:{name}")
        assert found.source.startswith(f"{root / path}: ")
        assert found.name == f"tfds:{name}"
    shutil.rmtree(root.parent / "cache")
    text = refused(root, "tfds:fruit/large", kind=FileNotFoundError)
    assert text == (
        f"load: no prepared dataset fruit/large in {root}, which holds fruit, "
        "fruit/small; expected 'fruit/large/<version>/dataset_info.json' there"
    )
    text = refused(root, "tfds:fruit:2.0.0", kind=FileNotFoundError)
    assert "expected 'fruit/2.0.0/dataset_info.json' there" in text
    text = refused(root / "none", kind=FileNotFoundError)
    assert "/none, which holds no dataset; expected 'fruit/<" in text


@pytest.mark.parametrize(
    "name", ["", "../fruit", "fruit/..", "a/b/c", "fruit:1", "a b"]
)
def test_a_name_is_spelt_as_tfds_does(refused, written, name) -> None:
    assert f"{name!r} is no name of TFDS" in refused(written, f"tfds:{name}")


def test_a_name_begins_with_the_prefix(refused, written) -> None:
    assert "'fruit' is no prepared dataset; expected tfds:NAME" in refused(
        written, "fruit"
    )


# --- files that are not as expected ---------------------------------------------------


def feature_edit(name: str, value: Any) -> Edit:
    return lambda x: x["featuresDict"]["features"].update({name: value})


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda x: x.pop("featuresDict"), "the features none, 0 of the kind image;"),
        (feature_edit("image", {"video": {}}), "label, 0 of the kind image; expected"),
        (
            feature_edit("image", {"image": {"dtype": "float32"}}),
            "declares images of float32 with None channels",
        ),
        (
            feature_edit("image", {"image": {"shape": {"dimensions": [4, 5, 2]}}}),
            "declares images of uint8 with 2 channels",
        ),
        (feature_edit("image", {"image": {"shape": {"dimensions": [4]}}}), "parsed"),
        (feature_edit("label", {"classLabel": {}}), "declares 0 classes"),
        (
            feature_edit("label", {"classLabel": {"numClasses": "4"}}),
            "label.labels.txt names 3 classes; expected 4",
        ),
        (feature_edit("label", 3), "features.json cannot be parsed (TypeError"),
    ],
)
def test_other_features_are_refused(refused, folder, edit, words) -> None:
    edit_json(folder / "features.json", edit)
    text = refused(folder.parents[1])
    assert str(folder) in text and words in text


def test_the_class_is_the_declared_one_or_the_only_one(load, refused, folder) -> None:
    edit_json(folder / "dataset_info.json", lambda x: x.pop("supervisedKeys"))
    words = "2 of the kind classLabel; expected one image and one class label"
    assert words in refused(folder.parents[1])
    edit_json(folder / "features.json", feature_edit("colour", {"text": {}}))
    assert load(folder.parents[1]).class_names == NAMES


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"a\nb\n" + b"x" * 201, "names a class 'xxx"),
        (b"a\nb\n\x1b[2J", "names a class '\\x1b[2J'; expected at most 200 printa"),
        (b"a\nb\n\xff", "label.labels.txt cannot be parsed (UnicodeDecodeError"),
    ],
)
def test_names_of_classes_are_checked(refused, folder, content, words) -> None:
    (folder / "label.labels.txt").write_bytes(content)
    assert words in refused(folder.parents[1])


def split_edit(**values: Any) -> Edit:
    return lambda info: info["splits"][0].update(values)


@pytest.mark.parametrize(
    ("edit", "words"),
    [
        (lambda x: x.update(fileFormat="riegeli"), "the file format 'riegeli'; expec"),
        (lambda x: x.update(name="../fruit"), "declares the name '../fruit'; expected"),
        (split_edit(name="a/b"), "declares the name 'a/b'; expected"),
        (split_edit(filepathTemplate="/etc/passwd"), "'train' has other files"),
        (split_edit(shardLengths=[-1]), "'train' has other files"),
        (split_edit(shardLengths=["x"]), "dataset_info.json cannot be parsed (Value"),
        (split_edit(shardLengths=["13"]), "(there are 12); expected 13, each of"),
        (split_edit(shardLengths=["12", "1"]), "-00000-of-00002', which it declares"),
        (split_edit(shardLengths=[]), "has the splits validation; expected train"),
        (lambda x: x.pop("splits"), "dataset_info.json cannot be parsed (KeyError"),
        (lambda x: x.update(name="nuts"), "lacks 'nuts-train.array_record-00000-of-0"),
    ],
)
def test_other_descriptions_are_refused(refused, folder, edit, words) -> None:
    edit_json(folder / "dataset_info.json", edit)
    text = refused(folder.parents[1])
    assert str(folder) in text and words in text


@pytest.mark.parametrize(
    ("record", "words"),
    [
        (example(None, packed(0)), "(record 3 has no image)"),
        (example(b"", packed(0)), "image 3 of the train records in "),
        (example(b"not one", packed(0)), "image 3 of the train records in "),
        (example(png(pixels_of("train", 0)), None), "(record 3 has no label)"),
        (example(png(pixels_of("train", 0)), packed(1, 2)), "(record 3 has no label)"),
        (
            example(png(pixels_of("train", 0)), packed(3)),
            "(the label of record 3 is 3); expected 12, each of an image and a label "
            "below 3",
        ),
        (
            example(png(pixels_of("train", 0)), packed(*9 * [255], 1)),
            "(the label of record 3 is -1)",
        ),
        (b"\x0a\x7f", "(a record ends within a field)"),
        (b"\x0b", "(a record holds a field of kind 3)"),
        (b"\x08\x80", "(a record ends within a number)"),
        (b"\x08" + 11 * b"\x80", "(a record holds a number of more than 64 bits)"),
    ],
)
def test_a_wrong_record_is_named(refused, folder, record, words) -> None:
    records = sound(12)
    records[3] = record
    to_tfrecord(folder, train=records, validation=sound(4))
    text = refused(folder.parents[1])
    assert words in text and str(folder) in text


@pytest.mark.parametrize(
    ("position", "words"),
    [
        (3, "holds a damaged length"),
        (10, "holds a damaged length"),
        (40, "holds a damaged record"),
        (-2, "holds a damaged record"),
        (None, "ends within a record"),
    ],
)
def test_a_damaged_tfrecord_is_named(refused, folder, position, words) -> None:
    to_tfrecord(folder, train=sound(12), validation=sound(4))
    path = folder / "fruit-train.tfrecord-00001-of-00002"
    content = bytearray(path.read_bytes())
    if position is None:
        del content[-5:]
    else:
        content[position] ^= 1
    path.write_bytes(content)
    text = refused(folder.parents[1])
    assert f"the train records in {folder} cannot be read ({path.name} {words})" in text


def test_a_class_of_one_image_cannot_be_divided(refused, folder) -> None:
    labels = [0, 0, 1, 1, 2]
    records = [example(png(pixels_of("train", i)), packed(i)) for i in labels]
    to_tfrecord(folder, train=records)
    assert "one split and one image with the label 2" in refused(folder.parents[1])


@pytest.mark.parametrize("module", ["PIL", "array_record"])
def test_a_missing_package_is_named(refused, written, monkeypatch, module) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    text = refused(written, kind=ImportError)
    assert text.endswith('pip install "aslp-jax[data]"')


# --- the cache ------------------------------------------------------------------------


def test_a_second_load_decodes_nothing(load, folder, monkeypatch) -> None:
    root, notes = folder.parents[1], []
    first = load(root, note=notes.append)
    with monkeypatch.context() as patch:
        patch.setattr(decoding, "decode", None)
        again = load(root, note=notes.append)
    assert len(notes) == 1
    assert again.images_sha256() == first.images_sha256()
    assert again.labels_sha256() == first.labels_sha256()
    assert again.class_names == first.class_names and again.source == first.source
    # Another size, another choice of features and other files are other caches.
    assert load(root, image_size=(2, 2)).test_images.shape == (4, 2, 2, 3)
    keys = {"tuple": {"items": [{"featureKey": "image"}, {"featureKey": "colour"}]}}
    edit_json(folder / "dataset_info.json", lambda x: x.update(supervisedKeys=keys))
    assert set(load(root).train_labels) == {4}
    edit_json(folder / "dataset_info.json", lambda x: x.pop("supervisedKeys"))
    edit_json(folder / "features.json", feature_edit("colour", {"text": {}}))
    to_tfrecord(folder, train=sound(2), validation=sound(2))
    assert len(load(root).train_images) == 2


def test_an_unwritable_cache_warns_the_caller(load, written, tmp_path) -> None:
    (tmp_path / "cache").touch()
    with pytest.warns(UserWarning, match="cannot write the cache") as warned:
        found = prepared.load("tfds:fruit", written, cache_dir=tmp_path / "cache")
    assert warned[0].filename == __file__ and len(found.train_images) == 12
