"""Files of any content end with one line, or are made again.

Each kind of file that is read is damaged in every place of its JSON. Hostile artefacts
have tests of their own.
"""

import copy
import dataclasses
import hashlib
import io
import itertools
import json
import math
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aslp_jax import _json, checkpoint
from aslp_jax._errors import BadInput
from aslp_jax._json import DEEPEST, LONGEST, Unreadable
from aslp_jax.data import arrays, cache, npy, prepared
from aslp_jax.sweeps.grid import Grid, read_settings
from aslp_jax.trainer.options import Config, check
from aslp_jax.trainer.run_folder import RunFolder
from tests.helpers import epoch_row
from tests.sweeps.helpers import ASLP, write_run

INFO = {
    "name": "fruit",
    "fileFormat": "tfrecord",
    "splits": [
        {
            "name": "train",
            "shardLengths": ["12"],
            "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        }
    ],
    "supervisedKeys": {
        "tuple": {"items": [{"featureKey": "image"}, {"featureKey": "label"}]}
    },
}
FEATURES = {
    "pythonClassName": "tensorflow_datasets.core.features.FeaturesDict",
    "featuresDict": {
        "features": {
            "image": {"image": {"shape": {"dimensions": ["4", "5", "3"]}}},
            "label": {"classLabel": {"numClasses": "3"}},
            "other": {"type": "x.y.Image", "content": '{"shape": [4, 5, 3]}'},
        }
    },
}
SHAPES = {"train_images": (5, 4, 4, 1), "train_labels": (5,)}
SHAPES |= {"test_images": (2, 4, 4, 1), "test_labels": (2,)}
TREE = {"weights": np.arange(3.0, dtype=np.float32)}


@dataclasses.dataclass(frozen=True)
class Kind:
    """A kind of file.

    Attributes:
      make: writes sound files into an empty folder; returns the one to be damaged.
      read: reads the file of a folder as programs do.
      errors: errors for damaged content; none if the file then counts as missing.
    """

    make: Callable[[Path], Path]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...]


def make_cache(folder: Path) -> Path:
    cache.write(folder, {key: np.zeros(of, np.uint8) for key, of in SHAPES.items()})
    return folder / "sha256.json"


def make_tfds(folder: Path) -> Path:
    version = folder / "fruit" / "1.0.0"
    version.mkdir(parents=True)
    (version / "features.json").write_text(json.dumps(FEATURES))
    (version / "dataset_info.json").write_text(json.dumps(INFO))
    (version / "label.labels.txt").write_text("pear\nfig\napple\n")
    return version / "dataset_info.json"


def read_tfds(folder: Path) -> Any:
    return prepared.load("tfds:fruit", folder, cache_dir=folder / "cache")


def make_run(folder: Path) -> Path:
    RunFolder(folder).create(Config(), "1 x cpu")
    RunFolder(folder).append_row(epoch_row(1))
    return folder / "config.json"


def resume(folder: Path) -> Any:
    config = Config(**RunFolder(folder).saved_options())
    check(config)
    return config


def make_grid(folder: Path) -> Path:
    write_run(Grid(folder, {"version": "1", "aslp": {"lr": 0.5}}), ASLP, 3)
    return folder / "grid.json"


def read_grid(folder: Path) -> Any:
    read_settings(folder)
    return Grid(folder, {"version": "1", "aslp": {"lr": 0.5}}).records([ASLP])


def make_checkpoint(folder: Path) -> Path:
    checkpoint.save(folder, 4, TREE, {"seed": 3})
    return folder / "4" / "manifest.json"


KINDS = {
    "cache": Kind(make_cache, cache.read_any_shape, ()),
    "dataset_info": Kind(make_tfds, read_tfds, (ValueError,)),
    "features": Kind(
        lambda folder: make_tfds(folder).with_name("features.json"),
        read_tfds,
        (ValueError,),
    ),
    "config": Kind(make_run, resume, (BadInput,)),
    "metrics": Kind(
        lambda folder: make_run(folder).with_name("metrics.jsonl"),
        lambda folder: RunFolder(folder).rows(1),
        (BadInput,),
    ),
    "grid": Kind(make_grid, read_grid, (BadInput,)),
    "result": Kind(
        lambda folder: (
            make_grid(folder).parent / "cells" / f"{ASLP.name}-seed3" / "result.json"
        ),
        read_grid,
        (BadInput,),
    ),
    "manifest": Kind(
        make_checkpoint,
        lambda folder: checkpoint.restore(folder, 4, TREE, {"seed": 3}),
        (checkpoint.CheckpointError,),
    ),
}


def deep(levels: int = 100_000) -> bytes:
    return b"[" * levels + b"]" * levels


CONTENTS = {
    "empty": b"",
    "spaces": b"\n \n",
    "not-utf-8": b'{"a": "\xff"}',
    "utf-16": '{"a": 1}'.encode("utf-16"),
    "zeros": bytes(1000),
    "cut": b'{"name": {"a": [1, ',
    "deep": deep(),
    "deep-inside": b'{"epoch": 1, "name": ' + deep() + b"}",
    "deep-and-open": b'{"a":' * 100_000,
    "quotes": b'"' + b'\\"' * 200_000,
    "list": b"[]",
    "text": b'"name"',
    "number": b"3",
    "null": b"null",
    "nan": b"NaN",
    "nothing": b"{}",
    "many-digits": b'{"name": ' + b"9" * 5000 + b"}",
    "long": b"{" + b" " * LONGEST + b"}",
}


def outcome(kind: Kind, folder: Path) -> Any:
    """Reads a file; checks that an error is one short line."""
    try:
        return kind.read(folder)
    except kind.errors as error:
        lines = str(error).splitlines()
        assert len(lines) == 1 and len(lines[0]) < 1500, lines[0][:500]
        return None


@pytest.mark.parametrize("content", CONTENTS)
@pytest.mark.parametrize("name", KINDS)
def test_content_that_is_none(tmp_path: Path, name: str, content: str) -> None:
    kind, start = KINDS[name], time.monotonic()
    file = kind.make(tmp_path)
    file.write_bytes(CONTENTS[content])
    assert outcome(kind, tmp_path) is None
    assert time.monotonic() - start < 20


@pytest.mark.parametrize("name", KINDS)
def test_what_is_no_file(tmp_path: Path, name: str) -> None:
    kind = KINDS[name]
    file = kind.make(tmp_path)
    file.unlink()
    os.mkfifo(file)  # reading would wait for ever
    assert outcome(kind, tmp_path) is None


VALUES: list[Any] = [
    *(None, True, -1, 0.5, 10**30, 10**400, math.nan, math.inf, 1 << 63),
    *("", "../x", "\0", "\ud800", "x" * 100_000, "9" * 5000, "inf", "-1"),
    *([], [[]], {}, {"a": 1}, [0] * 100, json.loads(deep(DEEPEST + 1).decode())),
]


def changed(value: Any) -> Iterator[Any]:
    """Yields JSON with one place changed, left out, or with a key more."""
    if isinstance(value, dict):
        yield {**value, "no_such_key": {"x": [1, None]}}
    for step in list(value) if isinstance(value, dict) else range(len(value)):
        for other in VALUES:
            whole = copy.copy(value)
            whole[step] = other
            yield whole
        whole = copy.copy(value)
        del whole[step]
        yield whole
        if isinstance(value[step], dict | list) and value[step]:
            for inner in changed(value[step]):
                whole = copy.copy(value)
                whole[step] = inner
                yield whole


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
@pytest.mark.parametrize("name", KINDS)
def test_every_place_with_every_value(tmp_path: Path, name: str, stride: int) -> None:
    """None of them ends otherwise than with the value or with one short line."""
    kind = KINDS[name]
    file = kind.make(tmp_path)
    sound = file.read_bytes()
    before = outcome(kind, tmp_path)
    refused = []
    for value in itertools.islice(changed(json.loads(sound)), 0, None, stride):
        file.write_bytes(json.dumps(value).encode())
        refused.append(outcome(kind, tmp_path) is None)
    assert len(refused) > 4 and sum(refused) > len(refused) / 4
    file.write_bytes(sound)
    if before is not None:
        assert outcome(kind, tmp_path) is not None


# --- arrays ---------------------------------------------------------------------------


def npy_bytes(array: np.ndarray, **header: Any) -> bytes:
    """The bytes of an array, with some values of its header changed."""
    file = io.BytesIO()
    about = np.lib.format.header_data_from_array_1_0(array) | header
    np.lib.format.write_array_header_1_0(file, about)
    return file.getvalue() + array.tobytes()


def with_header(text: bytes, version: bytes = b"\x01\x00") -> bytes:
    return b"\x93NUMPY" + version + len(text).to_bytes(2, "little") + text


SOUND = np.arange(6, dtype=np.uint8).reshape(2, 3)
ARRAYS = {
    "empty": b"",
    "text": b"x_train",
    "cut": npy_bytes(SOUND)[:-1],
    "longer": npy_bytes(SOUND) + b"\0",
    "huge": npy_bytes(SOUND, shape=(1 << 50, 1 << 10)),
    "overflow": npy_bytes(SOUND, shape=(1 << 70,)),
    "negative": npy_bytes(SOUND, shape=(-2, -3)),
    "many-axes": npy_bytes(SOUND, shape=(1,) * 200),
    "no-size": npy_bytes(SOUND[:0], shape=(0, 1 << 70)),
    "objects": npy_bytes(SOUND, descr="|O"),
    "no-dtype": npy_bytes(SOUND, descr="quite wrong"),
    "dtype-of-lists": npy_bytes(SOUND, descr=[("a", "<u1"), ("a", "<u1")]),
    "shape-of-text": with_header(b"{'descr': '|u1', 'fortran_order': 0, 'shape': 'a'}"),
    "no-dict": with_header(b"3\n"),
    "deep": with_header(b"(" * 9000),
    "deep-signs": with_header(b"-" * 9000 + b"1"),
    "no-python": with_header(b"{'descr': \0 import\n"),
    "long": with_header(b" " * 60_000),
    "not-ascii": with_header(b"\xff\xfe" * 20),
    "version": with_header(b"{}", b"\x09\x00"),
}


def zipped(content: bytes, **about: Any) -> bytes:
    """An `.npz` file whose x_train has this content."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", **about) as archive:
        archive.writestr("x_train.npy", content)
        for key in ("y_train", "x_test", "y_test"):
            archive.writestr(f"{key}.npy", npy_bytes(SOUND))
    return file.getvalue()


def patched(content: bytes, offset: int, value: bytes) -> bytes:
    """A zip archive with a value changed in the central entry of its first member."""
    at = content.index(b"PK\x01\x02") + offset
    return content[:at] + value + content[at + len(value) :]


PLAIN = zipped(npy_bytes(SOUND))
ARCHIVES = {name: zipped(content) for name, content in ARRAYS.items()} | {
    "bzip2": zipped(npy_bytes(SOUND), compression=zipfile.ZIP_BZIP2),
    "lzma": zipped(npy_bytes(SOUND), compression=zipfile.ZIP_LZMA),
    "encrypted": patched(PLAIN, 8, b"\x01\x00"),
    "unknown-method": patched(PLAIN, 10, b"\x63\x00"),
    "declares-4-gib": patched(PLAIN, 24, b"\xfe\xff\xff\xff"),
    "starts-elsewhere": patched(PLAIN, 42, b"\xfe\xff\xff\x7f"),
    "bomb": zipped(bytes(1 << 20), compression=zipfile.ZIP_DEFLATED),
    "half": PLAIN[: len(PLAIN) // 2],
    "no-members": zipped(b"")[-22:],
    # The end of the archive says where the list of members begins.
    "list-elsewhere": PLAIN[:-3] + b"\xa2" + PLAIN[-2:],
    "other-crc": patched(PLAIN, 16, b"\0\0\0\0"),
}


@pytest.mark.parametrize("name", ARRAYS)
def test_an_array_in_the_cache_is_made_again(tmp_path: Path, name: str) -> None:
    file = make_cache(tmp_path)
    (tmp_path / "train_images.npy").write_bytes(ARRAYS[name])
    hashes = json.loads(file.read_text())
    hashes["train_images"] = hashlib.sha256(ARRAYS[name]).hexdigest()
    file.write_text(json.dumps(hashes))
    assert cache.read_any_shape(tmp_path) is None


@pytest.mark.parametrize("name", ARCHIVES)
def test_an_archive_of_arrays_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "images.npz"
    path.write_bytes(ARCHIVES[name])
    with pytest.raises(ValueError, match=r"^load: .*images\.npz (cannot|lacks)") as e:
        arrays.read(path)
    assert len(str(e.value).splitlines()) == 1 and len(str(e.value)) < 1000


@pytest.mark.parametrize("dtype", ["u1", "<f8", ">i4", "?", "<U3", "<c8"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_sound_arrays_are_read(tmp_path: Path, dtype: str, shape: Any) -> None:
    array = np.asfortranarray(np.ones(shape, dtype))
    path = tmp_path / "images.npz"
    np.savez_compressed(path, a=array, b=array)
    found = npy.read_members(path, ("a", "c"))
    assert list(found) == ["a"] and found["a"].dtype == array.dtype
    np.testing.assert_array_equal(found["a"], array)


# --- the bounds of JSON ---------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (deep(DEEPEST + 1), "deeper than 64 levels"),
        (b"1" * 21, "an integer of 21 digits"),
        (b'{"a": 1, "a": 2}', "the same key twice"),
        (b"[1e999]", "1e999, which no float can hold"),
        (b"[-Infinity]", "-Infinity, which is no number"),
        (b"[[1], 2]", r"is no JSON of the type list\[list\[int\]\]"),
    ],
)
def test_a_text_out_of_bounds_is_refused(text: bytes, words: str) -> None:
    with pytest.raises(Unreadable, match=words):
        _json.parse(text, list[list[int]], strict=True)


@pytest.mark.parametrize(
    "text",
    [
        deep(DEEPEST).decode(),
        str(2**64),
        r'"[[[\"[[[\\"',
        json.dumps("[{" * 1000),
        json.dumps({"a": [1.5, None, True, "\u00e9"]}),
        "[NaN, -Infinity]",
    ],
)
def test_a_text_within_bounds_is_that_of_json(text: str) -> None:
    found = _json.parse(text.encode(), Any)
    assert json.dumps(found) == json.dumps(json.loads(text))


@pytest.mark.parametrize(
    ("value", "kind", "right"),
    [
        (1, float, True),
        (True, float, False),
        (True, int, False),
        (1.0, int, False),
        (None, int | None, True),
        ("", int | None, False),
        ({"a": [1]}, dict[str, list[int]], True),
        ({"a": ["1"]}, dict[str, list[int]], False),
        ([], dict[str, Any], False),
        ({"a": {}}, dict[str, Any], True),
    ],
)
def test_types_are_told_apart(value: Any, kind: Any, right: bool) -> None:
    assert _json.matches(value, kind) is right
