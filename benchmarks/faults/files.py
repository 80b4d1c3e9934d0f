"""Damaged files of every kind that the library reads, one reader at a time.

A file without a checksum may hold another value that is valid; it must then be read as
it is written. Any other damage is one line, or the file counts as missing. The file is
long because it writes a sound file of every kind.
"""

import dataclasses
import functools
import io
import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.bounds import attempt, bounded, command
from benchmarks.faults.damage import spoil_file
from benchmarks.faults.tries import LOST, TRACEBACK, WRONG, Failure, Kind, Workshop


@dataclasses.dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes:
      make: writes sound files into an empty folder.
      read: reads the files of a folder; the value can be compared.
      errors: errors that their caller turns into one line.
      checked: names of the files whose content has a checksum, as a pattern; of other
        files, any valid value is right.
      stated: function from folder to what an independent reader finds in an unchecked
        file; None if nothing can be said.
    """

    make: Callable[[Path], None]
    read: Callable[[Path], Any]
    errors: tuple[type[Exception], ...] = ()
    checked: str = "*"
    stated: Callable[[Path], Any] | None = None


def _bad_input() -> tuple[type[Exception], ...]:
    from aslp_jax._errors import BadInput

    return (BadInput,)


# --- run folder -----------------------------------------------------------------------


def _make_run(folder: Path) -> None:
    from aslp_jax.trainer.options import Config
    from aslp_jax.trainer.results import EpochRow
    from aslp_jax.trainer.run_folder import RunFolder

    run = RunFolder(folder)
    run.create(Config(), "1 x cpu")
    values: dict[str, Any] = {field.name: 1.5 for field in dataclasses.fields(EpochRow)}
    values |= {"best_epoch": 1, "keep_fractions": {"a": 0.5}, "metrics": {}}
    values |= {"scalars": {"scale": {"a": 1.0}}}
    for epoch in (1, 2, 3):
        run.append_row(EpochRow(**{**values, "epoch": epoch, "step": 4 * epoch}))
    run.release()


def _read_options(folder: Path) -> Any:
    from aslp_jax.trainer.options import Config, check
    from aslp_jax.trainer.run_folder import RunFolder

    options = RunFolder(folder).saved_options()
    check(Config(**options))
    return json.dumps(options, sort_keys=True)


def _stated_options(folder: Path) -> Any:
    found = json.loads((folder / "config.json").read_bytes())
    return json.dumps(found["options"], sort_keys=True)


def _read_rows(folder: Path) -> Any:
    from aslp_jax.trainer.run_folder import RunFolder

    return [json.dumps(row.to_json()) for row in RunFolder(folder).rows(3)]


# --- grid -----------------------------------------------------------------------------


@functools.cache
def _cell() -> Any:
    from aslp_jax.sweeps.budget.cells import Cell

    return Cell("conv2", "magnitude", 0.5)


_SETTINGS = {"version": "1", "options": {"lr": 0.5, "names": ["a", "b"]}}


def _make_grid(folder: Path) -> None:
    from aslp_jax.sweeps.grid import RESULT, Grid

    grid = Grid(folder, _SETTINGS)
    run = grid.folder(_cell(), 3)
    run.mkdir(parents=True)
    values = dict.fromkeys(RESULT, 0.5) | {"stochastic": True, "connectivity": {}}
    values |= dict.fromkeys(("outputs", "outputs_reached", "best_epoch", "epochs"), 1)
    (run / "result.json").write_text(json.dumps(values))
    row = {"epoch": 1, "validation_accuracy": 0.5}
    (run / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def _read_grid(folder: Path) -> Any:
    from aslp_jax.sweeps.grid import Grid, read_records, read_settings

    read_settings(folder)
    # As `compare` reads it, and as `budget` does.
    records = read_records(folder, [_cell()])
    Grid(folder, _SETTINGS)
    return json.dumps([record.result for record in records])


def _stated_grid(folder: Path) -> Any:
    [run] = (folder / "cells").iterdir()
    if not (run / "result.json").exists():
        return "[]"
    return json.dumps([json.loads((run / "result.json").read_bytes())])


# --- checkpoint -----------------------------------------------------------------------

_IDENTITY = {"seed": 3, "arch": "conv2", "lr": 0.5, "data": None}


def _tree() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(1)
    return {
        "weights": rng.normal(size=(40, 30)).astype(np.float32),
        "key": np.array([1, 2], np.uint32),
        "step": np.array(4, np.int32),
    }


def _make_checkpoint(folder: Path) -> None:
    from aslp_jax import checkpoint

    checkpoint.save(folder, 4, _tree(), _IDENTITY)


def _read_checkpoint(folder: Path) -> Any:
    from aslp_jax import checkpoint

    found = checkpoint.restore(folder, 4, _tree(), _IDENTITY)
    return {name: (str(x.dtype), x.shape, x.tobytes()) for name, x in found.items()}


def _checkpoint_errors() -> tuple[type[Exception], ...]:
    from aslp_jax.checkpoint import CheckpointError

    return (CheckpointError,)


# --- artefact -------------------------------------------------------------------------


def _make_artefact(folder: Path) -> None:
    from benchmarks.faults.artefacts import sound_file

    (folder / "network.aslp").write_bytes(sound_file("stored values"))


def _read_artefact(folder: Path) -> Any:
    """Reads the file by `aslp-jax inspect` and `export`, with exit code 2 for None."""
    file, other = folder / "network.aslp", folder / "network.npz"
    code, out, err = command(["inspect", str(file)])
    ends = [(code, out, err)]
    if code:
        ends.append(command(["export", str(file), "--format", "npz", "-o", str(other)]))
    for code, _, err in ends:
        if "Traceback" in err:
            raise Failure(TRACEBACK, err[-1000:])
        lines = err.splitlines()
        if code not in (0, 2) or len(lines) != (code == 2):
            raise Failure(WRONG, f"exit code {code}: {err[-1000:]}")
    if other.exists():
        raise Failure(WRONG, "a damaged file was exported")
    return out if code == 0 else None


# --- images ---------------------------------------------------------------------------


def _arrays() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(2)
    return {
        "x_train": rng.integers(0, 256, (12, 6, 5), np.uint8),
        "y_train": np.arange(12) % 3,
        "x_test": rng.integers(0, 256, (6, 6, 5), np.uint8),
        "y_test": np.arange(6) % 3,
    }


def _digest(data: Any) -> Any:
    return data.images_sha256(), data.labels_sha256(), data.classes


def _make_npz(folder: Path) -> None:
    arrays: Any = _arrays()
    np.savez(folder / "images.npz", **arrays)


def _read_npz(folder: Path) -> Any:
    from aslp_jax.data import own

    path, size = folder / "images.npz", (4, 4)
    found = own.load(path, image_size=size, cache_dir=folder / "cache")
    again = own.load(path, image_size=size, cache_dir=folder / "cache")
    if _digest(found) != _digest(again):
        raise Failure(WRONG, "the cache holds other images")
    return _digest(found)


def _make_cache(folder: Path) -> None:
    from aslp_jax.data import cache

    stored = _arrays()
    names = {"x_train": "train_images", "y_train": "train_labels"}
    names |= {"x_test": "test_images", "y_test": "test_labels"}
    cache.write(folder, {names[key]: array for key, array in stored.items()})


def _read_cache(folder: Path) -> Any:
    from aslp_jax.data import cache

    found = cache.read_any_shape(folder)
    if found is None:
        return None
    return {name: (x.dtype, x.shape, x.tobytes()) for name, x in found.items()}


def _make_pictures(folder: Path) -> None:
    import PIL.Image

    rng = np.random.default_rng(4)
    for split, count in (("train", 3), ("test", 2)):
        for name in ("cat", "dog"):
            place = folder / "pictures" / split / name
            place.mkdir(parents=True)
            for number in range(count):
                pixels = rng.integers(0, 256, (9, 8, 3), np.uint8)
                end = ("png", "jpg")[number % 2]
                PIL.Image.fromarray(pixels).save(place / f"{number}.{end}")


def _read_pictures(folder: Path) -> Any:
    from aslp_jax.data import own

    return _digest(own.load(folder / "pictures", cache_dir=folder / "cache"))


# --- folders of TFDS ------------------------------------------------------------------

_CLASSES = ("pear", "fig", "apple")


def _field(number: int, content: bytes) -> bytes:
    """Returns a field of a protocol buffer, of bytes."""
    length, size = len(content), b""
    while length > 127:
        size, length = size + bytes([length & 127 | 128]), length >> 7
    return bytes([number << 3 | 2]) + size + bytes([length]) + content


def _records(split: str, count: int) -> list[bytes]:
    """Returns examples of an image and a label."""
    import PIL.Image

    rng = np.random.default_rng(len(split))
    found = []
    for number in range(count):
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (4, 5, 3), np.uint8)
        PIL.Image.fromarray(pixels).save(file, format="PNG")
        image = _field(1, b"image") + _field(2, _field(1, _field(1, file.getvalue())))
        label = _field(1, b"label") + _field(
            2, _field(3, _field(1, bytes([number % 3])))
        )
        found.append(_field(1, _field(1, image) + _field(1, label)))
    return found


def _tfrecord(record: bytes) -> bytes:
    from aslp_jax.data.tfds_records import crc32c

    def masked(content: bytes) -> bytes:
        crc = crc32c(content)
        rotated = (crc >> 15 | crc << 17) & 0xFFFFFFFF
        return struct.pack("<I", (rotated + 0xA282EAD8) & 0xFFFFFFFF)

    length = struct.pack("<Q", len(record))
    return length + masked(length) + record + masked(record)


def _make_tfds(folder: Path, file_format: str) -> None:
    version = folder / "data" / "fruit" / "1.0.0"
    version.mkdir(parents=True)
    template = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
    splits = []
    for split, count in (("train", 9), ("test", 3)):
        path = version / f"fruit-{split}.{file_format}-00000-of-00001"
        records = _records(split, count)
        if file_format == "tfrecord":
            path.write_bytes(b"".join(map(_tfrecord, records)))
        else:
            from array_record.python.array_record_module import ArrayRecordWriter

            writer = ArrayRecordWriter(str(path), "group_size:1")
            for record in records:
                writer.write(record)
            writer.close()
        about = {"shardLengths": [str(count)], "filepathTemplate": template}
        splits.append({"name": split, **about})
    keys = [{"featureKey": "image"}, {"featureKey": "label"}]
    info: dict[str, Any] = {
        "name": "fruit",
        "fileFormat": file_format,
        "splits": splits,
    }
    info |= {"supervisedKeys": {"tuple": {"items": keys}}}
    shape = {"dimensions": ["4", "5", "3"]}
    features: dict[str, Any] = {"image": {"image": {"shape": shape}}}
    features |= {"label": {"classLabel": {"numClasses": "3"}}}
    declared = {"featuresDict": {"features": features}}
    name = "tensorflow_datasets.core.features.FeaturesDict"
    (version / "dataset_info.json").write_text(json.dumps(info))
    (version / "features.json").write_text(
        json.dumps({"pythonClassName": name, **declared})
    )
    (version / "label.labels.txt").write_text("\n".join(_CLASSES) + "\n")


def _read_tfds(folder: Path) -> Any:
    from aslp_jax.data import prepared

    found = prepared.load("tfds:fruit", folder / "data", cache_dir=folder / "cache")
    return _digest(found)


def readers() -> dict[str, Reader]:
    """Returns the readers by name."""
    images: tuple[type[Exception], ...] = (ValueError, OSError)
    return {
        "options": Reader(_make_run, _read_options, _bad_input(), "-", _stated_options),
        "rows": Reader(_make_run, _read_rows, _bad_input(), "-"),
        "grid": Reader(_make_grid, _read_grid, _bad_input(), "-", _stated_grid),
        "checkpoint": Reader(_make_checkpoint, _read_checkpoint, _checkpoint_errors()),
        "artefact": Reader(_make_artefact, _read_artefact),
        "cache entry": Reader(_make_cache, _read_cache),
        "npz": Reader(_make_npz, _read_npz, images),
        "pictures": Reader(_make_pictures, _read_pictures, images, "-"),
        **{
            name: Reader(
                functools.partial(_make_tfds, file_format=name),
                _read_tfds,
                images,
                f"*.{name}-*",
            )
            for name in ("tfrecord", "array_record")
        },
    }


_READS = {"options": "config.json", "rows": "metrics.jsonl"}
"""File that a reader reads, where its folder has others."""


@functools.cache
def _sound(sound: Path, name: str) -> tuple[Path, Any]:
    """Returns the sound files of a reader, and what they hold."""
    reader, folder = readers()[name], sound / name.replace(" ", "-")
    folder.mkdir()
    reader.make(folder)
    copy = folder.with_name(f"{folder.name}-read")
    shutil.copytree(folder, copy)
    return folder, reader.read(copy)


def _attempt(shop: Workshop, rng: np.random.Generator, folder: Path) -> str:
    all_readers = readers()
    name = list(all_readers)[rng.integers(len(all_readers))]
    reader = all_readers[name]
    source, wanted = _sound(shop.sound, name)
    copy = folder / "files"
    shutil.copytree(source, copy)
    files = sorted(each for each in copy.rglob("*") if each.is_file())
    if name in _READS:
        files = [copy / _READS[name]]
    file = files[rng.integers(len(files))]
    about = f"{name}: {file.relative_to(copy)}: {spoil_file(rng, file)}"
    with bounded(about):
        found = attempt(lambda: reader.read(copy), reader.errors)
    if found is None or found == wanted:
        return f"{about}: {'refused' if found is None else 'the same'}"
    if file.match(reader.checked):
        raise Failure(LOST, f"{about}: other values were read")
    if reader.stated is not None and found != reader.stated(copy):
        raise Failure(WRONG, f"{about}: read otherwise than written: {found!s:.300}")
    return f"{about}: read as written"


KINDS = (
    Kind(
        "files", "damaged files of every kind, one reader at a time", _attempt, turn=60
    ),
)
