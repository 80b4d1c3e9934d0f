"""Named data sets: embedded, from official archives, from prepared folders."""

import dataclasses
import hashlib
import http.server
import io
import json
import re
import shutil
import socket
import subprocess
import sys
import tarfile
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from aslp_jax._claim import claim
from aslp_jax.data import cifar, datasets, tfds_folder
from aslp_jax.data.cifar import ARCHIVES, Archive

RECORDS = {"train": 20, "test": 6}
Members = dict[str, bytes]


def official_members(archive: Archive) -> Members:
    """Random records in the official layout, seeded by the member's name."""
    members = {}
    for part, names in archive.members.items():
        count = RECORDS[part] // len(names)
        for name in names:
            rng = np.random.default_rng(list(name.encode()))
            pixels = rng.integers(0, 256, (count, 3072), np.uint8)
            highest = {"coarse_label": 20, "label": archive.classes}
            labels = [rng.integers(0, highest[f], count) for f, _ in archive.labels]
            rows = np.concatenate([np.stack(labels, 1).astype(np.uint8), pixels], 1)
            members[name] = rows.tobytes()
    for feature, name in archive.labels:
        classes = 20 if feature == "coarse_label" else archive.classes
        # The official files end in blank lines.
        lines = [f"class{i}" for i in range(classes)]
        members[name] = "\n".join([*lines, "", ""]).encode()
    return members


def write_archive(
    folder: Path, name: str, edit: Callable[[Members], object] = lambda members: None
) -> Archive:
    """Writes a small archive, damaged by `edit`, and returns what describes it."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = ARCHIVES[name]
    members = official_members(archive)
    edit(members)
    path = folder / archive.file
    with tarfile.open(path, "w:gz") as tar:
        for member, content in members.items():
            info = tarfile.TarInfo(f"{archive.folder}/{member}")
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return dataclasses.replace(
        archive,
        size=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        train_count=RECORDS["train"],
        test_count=RECORDS["test"],
    )


def expected_rows(archive: Archive, part: str) -> list[bytes]:
    """The fine label and the pixels of each record, [height, width, channel]."""
    content = official_members(archive)
    records = b"".join(content[name] for name in archive.members[part])
    length = 3072 + len(archive.labels)
    rows = []
    for start in range(0, len(records), length):
        record = records[start : start + length]
        label = record[len(archive.labels) - 1]
        planes = np.frombuffer(record[-3072:], np.uint8).reshape(3, 1024)
        rows.append(bytes([label]) + planes.T.tobytes())
    return sorted(rows)


def loaded_rows(images: np.ndarray, labels: np.ndarray) -> list[bytes]:
    assert images.dtype == np.uint8 and labels.dtype == np.int32
    assert images.shape[1:] == (32, 32, 3) and len(images) == len(labels)
    pairs = zip(images, labels, strict=True)
    return sorted(bytes([label]) + image.tobytes() for image, label in pairs)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Archive, Path]:
    """A small archive and the TFDS folder made from it, not to be written to."""
    folder = tmp_path_factory.mktemp("prepared")
    archive = write_archive(folder / "manual", "cifar10")
    cifar.prepare(archive, folder / "tfds", folder / "manual")
    return archive, folder / "tfds"


@pytest.fixture
def copied(prepared: tuple[Archive, Path], tmp_path: Path) -> tuple[Archive, Path]:
    """The same, to be written to."""
    archive, folder = prepared
    shutil.copytree(folder, tmp_path / "tfds")
    return archive, tmp_path / "tfds"


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise AssertionError(f"network was touched: {args}")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture
def server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[str, Path]]:
    """A loopback server: its address, and the folder that it serves."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args: object) -> None:
            super().__init__(*args, directory=str(folder))

        def log_message(self, *args: object) -> None:
            pass

    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}", folder
        running.shutdown()
        thread.join()


def load_small(archive: Archive, cache: Path, **folders: Path) -> datasets.Dataset:
    paths = {"data_dir": None, "manual_dir": None, **folders}
    return datasets._cifar(archive, cache_dir=cache, **paths)


def one_line(error: pytest.ExceptionInfo[Exception], start: str = "load: ") -> str:
    text = str(error.value)
    assert text.startswith(start) and "\n" not in text
    return text


def only_version(folder: Path, name: str = "cifar10") -> Path:
    (version,) = (folder / name).iterdir()
    return version


# --- digits ---------------------------------------------------------------------------


def test_digits_counts_range_and_balance() -> None:
    digits = datasets.load("digits")
    assert digits.train_images.shape == (1280 + digits.validation, 8, 8, 1)
    assert digits.test_images.shape == (360, 8, 8, 1)
    assert digits.train_images.dtype == digits.test_images.dtype == np.uint8
    assert digits.train_labels.dtype == digits.test_labels.dtype == np.int32
    assert digits.train_labels.shape == (1437,) and digits.test_labels.shape == (360,)
    values = np.unique(np.concatenate([digits.train_images, digits.test_images]))
    assert values.tolist() == [round(255 * ink / 16) for ink in range(17)]
    train, test = np.bincount(digits.train_labels), np.bincount(digits.test_labels)
    assert len(train) == len(test) == digits.classes == 10
    assert train.min() >= 130 and train.max() <= 155
    # Every fifth image is not stratified: seen are 26 to 48 of each digit.
    assert test.min() >= 26 and test.max() <= 48
    assert not digits.flip and digits.validation == 157 and digits.source == "embedded"


def test_digits_are_the_published_ones_in_their_order() -> None:
    path = Path(datasets.__file__).parent / "digits.npz"
    with np.load(path, allow_pickle=False) as file:
        assert sorted(file.files) == ["images", "labels"]
        images, labels = file["images"], file["labels"]
    assert images.shape == (1797, 8, 8) and labels.shape == (1797,)
    digest = hashlib.sha256(images.tobytes() + labels.tobytes()).hexdigest()
    assert digest == "87ff0c9e40dc7e2c0e34e7257799c2e3f3aec1a016363bb11cad869ec428a826"
    np.testing.assert_array_equal(datasets.load("digits").test_labels, labels[::5])


def test_digits_constants_are_those_of_the_training_pixels() -> None:
    digits = datasets.load("digits")
    pixels = digits.train_images.astype(np.float64) / 255
    assert digits.mean == (round(pixels.mean(), 4),)
    assert digits.std == (round(pixels.std(), 4),)


def test_the_sha256_is_that_of_all_images_and_of_no_label() -> None:
    digits = datasets.load("digits")
    images = np.concatenate([digits.train_images, digits.test_images])
    assert digits.images_sha256() == hashlib.sha256(images.tobytes()).hexdigest()
    other = dataclasses.replace(digits, train_labels=digits.train_labels + 1)
    assert other.images_sha256() == digits.images_sha256()
    other = dataclasses.replace(digits, test_images=255 - digits.test_images)
    assert other.images_sha256() != digits.images_sha256()


# --- split ----------------------------------------------------------------------------


@pytest.mark.parametrize(("size", "held_out"), [(50_000, 5_000), (1437, 157), (5, 0)])
def test_split_is_disjoint_complete_and_repeatable(size: int, held_out: int) -> None:
    train, validation = datasets.split(size, held_out, seed=3)
    assert train.dtype == validation.dtype == np.int32
    assert len(train) == size - held_out and len(validation) == held_out
    both = np.concatenate([train, validation])
    np.testing.assert_array_equal(np.sort(both), np.arange(size))
    for again, first in zip(
        datasets.split(size, held_out, seed=3), (train, validation), strict=True
    ):
        np.testing.assert_array_equal(again, first)


def test_split_depends_on_the_seed_alone() -> None:
    # Pinned, so that another platform or NumPy release cannot change it unseen.
    assert datasets.split(20, 5, seed=0)[1].tolist() == [2, 3, 11, 13, 15]
    assert datasets.split(20, 5, seed=1)[1].tolist() == [2, 9, 16, 18, 19]


@pytest.mark.parametrize(
    ("arguments", "kind", "offender"),
    [
        ((10, 10, 0), ValueError, "validation is 10"),
        ((10, -1, 0), ValueError, "validation is -1"),
        ((10, 2, -1), ValueError, "seed is -1"),
        ((10, 2.0, 0), TypeError, r"validation is 2\.0"),
        ((10, 2, None), TypeError, "seed is None"),
    ],
)
def test_split_names_the_bad_argument(
    arguments: tuple[int, int, int], kind: type[Exception], offender: str
) -> None:
    with pytest.raises(kind, match=offender) as error:
        datasets.split(*arguments)
    one_line(error, "split: ")


# --- arguments of load ----------------------------------------------------------------


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(ValueError, match="mnist") as error:
        datasets.load("mnist")
    assert all(name in one_line(error) for name in datasets.NAMES)


def test_contradicting_folders_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="both data_dir and manual_dir") as error:
        datasets.load("cifar10", data_dir=tmp_path, manual_dir=tmp_path)
    one_line(error)
    for folder in ("data_dir", "manual_dir"):
        with pytest.raises(ValueError, match="digits are embedded") as error:
            datasets.load("digits", **{folder: tmp_path})
        one_line(error)


@pytest.mark.parametrize("key", ["data_dir", "manual_dir", "cache_dir"])
def test_folder_that_is_no_path_is_refused(key: str) -> None:
    with pytest.raises(TypeError, match=f"{key} is 3") as error:
        datasets.load("cifar10", **{key: 3})
    one_line(error)


def test_import_is_light() -> None:
    # The package is stood in for, because its own __init__ may import JAX.
    program = (
        "import sys, types; package = types.ModuleType('aslp_jax'); "
        f"package.__path__ = [{str(Path(datasets.__file__).parents[1])!r}]; "
        "sys.modules['aslp_jax'] = package; from aslp_jax.data import datasets; "
        "datasets.load('digits'); "
        "print({'jax', 'tensorflow_datasets', 'PIL'} & sys.modules.keys())"
    )
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert run.stdout.strip() == "set()"


# --- the archive and its builder ------------------------------------------------------


def test_table_agrees_with_tfds() -> None:
    import tensorflow_datasets as tfds

    images = tfds.image_classification
    for name, theirs in {
        "cifar10": images.Cifar10,
        "cifar100": images.Cifar100,
    }.items():
        archive = ARCHIVES[name]
        registered = theirs.url_infos[archive.url]
        assert registered.checksum == archive.sha256
        assert int(registered.size) == archive.size
        assert registered.filename == archive.file
        assert archive.counts == {"train": 50_000, "test": 10_000}
        assert archive.train_count // 10 == 5_000


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
@pytest.mark.usefixtures("no_network")
def test_archive_arrives_bit_for_bit(name: str, tmp_path: Path, capfd) -> None:
    import tensorflow_datasets as tfds

    archive = write_archive(tmp_path / "manual", name)
    loaded = load_small(archive, tmp_path / "cache", manual_dir=tmp_path / "manual")
    for part in RECORDS:
        images = getattr(loaded, f"{part}_images")
        labels = getattr(loaded, f"{part}_labels")
        assert len(images) == RECORDS[part]
        assert loaded_rows(images, labels) == expected_rows(archive, part)
    assert loaded.name == name and loaded.classes == archive.classes and loaded.flip
    assert loaded.validation == RECORDS["train"] // 10
    assert "tensorflow" not in sys.modules
    assert capfd.readouterr().out == ""

    # What is left behind is a standard TFDS folder, which others read by name.
    root = tmp_path / "cache" / "tensorflow_datasets"
    assert f"TFDS folder {root / name}" in loaded.source
    source = tfds.data_source(name, data_dir=root, download=False, split="train")
    assert sorted(record["id"] for record in source) == [
        b"train_%05d" % i for i in range(RECORDS["train"])
    ]
    np.testing.assert_array_equal(
        [record["image"] for record in source], loaded.train_images
    )
    features = source.dataset_info.features
    assert features["label"].names[:2] == ["class0", "class1"]


def test_two_programs_do_not_prepare_in_one_folder(
    prepared: tuple[Archive, Path], tmp_path: Path
) -> None:
    archive, done = prepared
    manual, root = done.parent / "manual", tmp_path / "tensorflow_datasets"
    with claim(root / archive.name):
        loaded = load_small(archive, tmp_path, manual_dir=manual)
        assert [path.name for path in root.rglob("*")] == ["cifar10", "lock.json"]
    assert loaded.source == str(manual) and not (tmp_path / "decoded").exists()
    rows = loaded_rows(loaded.train_images, loaded.train_labels)
    assert rows == expected_rows(archive, "train")


def test_what_a_killed_program_prepared_is_removed(
    prepared: tuple[Archive, Path], tmp_path: Path
) -> None:
    from tensorflow_datasets.core.utils import file_utils

    archive, done = prepared
    parent = tmp_path / "tensorflow_datasets" / "cifar10"
    left = Path(file_utils._get_incomplete_dir(str(parent / "3.0.2")))
    left.mkdir(parents=True)
    (left / "cifar10-train.array_record").touch()
    load_small(archive, tmp_path, manual_dir=done.parent / "manual")
    assert only_version(parent.parent).name == "3.0.2"


def test_download_arrives_bit_for_bit_and_only_once(
    server: tuple[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    address, folder = server
    archive = write_archive(folder, "cifar10")
    archive = dataclasses.replace(archive, url=f"{address}/{archive.file}")
    loaded = load_small(archive, tmp_path / "cache")
    rows = loaded_rows(loaded.train_images, loaded.train_labels)
    assert rows == expected_rows(archive, "train")

    (folder / archive.file).unlink()
    again = load_small(archive, tmp_path / "cache")
    np.testing.assert_array_equal(again.train_images, loaded.train_images)


def test_wrong_checksum_is_refused(server: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = server
    archive = write_archive(folder, "cifar10")
    other = dataclasses.replace(
        archive, url=f"{address}/{archive.file}", sha256="0" * 64
    )
    for folders, where in (
        ({"manual_dir": folder}, str(folder / archive.file)),
        ({}, other.url),
    ):
        with pytest.raises(ValueError, match=f"{where} is not the official") as error:
            load_small(other, tmp_path / "cache", **folders)
        assert "0" * 64 in one_line(error)
    assert not list((tmp_path / "cache").rglob("dataset_info.json"))


@pytest.mark.parametrize(
    ("module", "package"),
    [
        ("PIL", "pillow"),
        ("array_record", "array-record"),
        ("requests", "requests"),
        ("tensorflow_datasets", "tensorflow-datasets"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(
    module: str, package: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = write_archive(tmp_path, "cifar10")
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"needs the package {package};") as error:
        load_small(archive, tmp_path / "cache", manual_dir=tmp_path)
    assert one_line(error).endswith('pip install "aslp-jax[data]"')


@pytest.mark.parametrize(
    ("module", "package"), [("PIL", "pillow"), ("array_record", "array-record")]
)
def test_a_prepared_folder_needs_packages_too(
    module: str,
    package: str,
    prepared: tuple[Archive, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive, folder = prepared
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ImportError, match=f"needs the package {package};") as error:
        load_small(archive, tmp_path, data_dir=folder)
    assert one_line(error).endswith('pip install "aslp-jax[data]"')


def test_missing_archive_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="cifar-10-binary") as error:
        datasets.load("cifar10", manual_dir=tmp_path, cache_dir=tmp_path / "cache")
    assert str(tmp_path) in one_line(error)


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda files: files.pop("data_batch_4.bin"), r"lacks \['data_batch_4.bin'\]"),
        (lambda files: files.pop("batches.meta.txt"), r"lacks \['batches.meta.txt'\]"),
        (
            lambda files: files.update({"data_batch_2.bin": bytes(4 * 3073 - 1)}),
            "'data_batch_2.bin' has 12291 bytes; expected 4 records of 3073",
        ),
        (
            lambda files: files.update({"test_batch.bin": bytes(7 * 3073)}),
            "'test_batch.bin' has 21511 bytes; expected 6 records",
        ),
        (
            lambda files: files.update({"data_batch_1.bin": b"\x0a" * (4 * 3073)}),
            "'data_batch_1.bin' has the label 10; expected labels below 10",
        ),
    ],
)
def test_damaged_member_is_named(
    edit: Callable[[Members], object], complaint: str, tmp_path: Path
) -> None:
    archive = write_archive(tmp_path, "cifar10", edit)
    with pytest.raises(ValueError, match=complaint) as error:
        load_small(archive, tmp_path / "cache", manual_dir=tmp_path)
    assert archive.file in one_line(error)


def test_a_member_that_is_a_link_or_expands_is_refused(tmp_path: Path) -> None:
    archive = write_archive(tmp_path, "cifar10")
    path = tmp_path / archive.file
    member = f"{archive.folder}/test_batch.bin"
    link, large = tarfile.TarInfo(member), tarfile.TarInfo(member)
    link.type, link.linkname = tarfile.SYMTYPE, member.rpartition("/")[2]
    large.size = 1 << 25
    for info, words in ((link, "lacks"), (large, "has .* bytes; expected")):
        whole = cifar.read_members(path, archive)
        damaged = tmp_path / "damaged.tar.gz"
        with tarfile.open(damaged, "w:gz", compresslevel=1) as tar:
            for name, content in whole.items():
                other = tarfile.TarInfo(f"{archive.folder}/{name}")
                other.size = len(content)
                if other.name != member:
                    tar.addfile(other, io.BytesIO(content))
            tar.addfile(info, io.BytesIO(bytes(info.size)))
        tracemalloc.start()
        with pytest.raises(ValueError, match=words) as error:
            cifar.read_members(damaged, archive)
        assert tracemalloc.get_traced_memory()[1] < 1 << 23
        tracemalloc.stop()
        one_line(error)


def long_header(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("long")
    info.type, info.size = tarfile.XHDTYPE, 1 << 25
    tar.addfile(info, io.BytesIO(bytes(info.size)))


def many_members(tar: tarfile.TarFile) -> None:
    for _ in range(2000):
        tar.addfile(tarfile.TarInfo("other"))


def sparse_map(tar: tarfile.TarFile) -> None:
    info = tarfile.TarInfo("sparse")
    info.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
    info.size = 512
    tar.addfile(info, io.BytesIO(b"not a number\n".ljust(512)))


def long_text(tar: tarfile.TarFile) -> None:
    folder = ARCHIVES["cifar10"].folder
    info = tarfile.TarInfo(f"{folder}/batches.meta.txt")
    info.size = 20_000
    tar.addfile(info, io.BytesIO(bytes(info.size)))


def empty_text(tar: tarfile.TarFile) -> None:
    tar.addfile(tarfile.TarInfo(f"{ARCHIVES['cifar10'].folder}/batches.meta.txt"))


@pytest.mark.parametrize(
    "add", [long_header, many_members, sparse_map, long_text, empty_text]
)
def test_an_archive_of_strange_headers_is_refused(
    add: Callable[[tarfile.TarFile], None], tmp_path: Path
) -> None:
    path = tmp_path / "cifar-10-binary.tar.gz"
    with tarfile.open(path, "w:gz", compresslevel=1) as tar:
        add(tar)
    archive = dataclasses.replace(ARCHIVES["cifar10"], train_count=10, test_count=2)
    tracemalloc.start()
    with pytest.raises(ValueError, match="truncated or damaged") as error:
        cifar.read_members(path, archive)
    assert tracemalloc.get_traced_memory()[1] < 1 << 22
    tracemalloc.stop()
    assert str(path) in one_line(error)


@pytest.mark.parametrize("kept", [0.0, 0.4, 0.999])
def test_truncated_archive_is_named(kept: float, tmp_path: Path) -> None:
    archive = write_archive(tmp_path, "cifar10")
    path = tmp_path / archive.file
    path.write_bytes(path.read_bytes()[: int(kept * archive.size)])
    with pytest.raises(ValueError, match="truncated or damaged") as error:
        cifar.read_members(path, archive)
    assert str(path) in one_line(error)


# --- offline --------------------------------------------------------------------------


def check_offline(url: str, cache: Path) -> None:
    archive = dataclasses.replace(ARCHIVES["cifar10"], url=url)
    start = time.monotonic()
    with pytest.raises(ConnectionError) as error:
        load_small(archive, cache)
    assert time.monotonic() - start < 2 * cifar.PROBE_SECONDS
    text = one_line(error)
    for part in (url, archive.file, "--manual-dir", "--dataset digits"):
        assert part in text


def test_offline_is_said_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert cifar.PROBE_SECONDS <= 5
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
        check_offline(f"http://127.0.0.1:{port}/cifar-10-binary.tar.gz", tmp_path)


def test_silent_server_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cifar, "PROBE_SECONDS", 0.5)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        check_offline(f"http://127.0.0.1:{port}/cifar-10-binary.tar.gz", tmp_path)


def test_hanging_resolver_is_not_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    answered = threading.Event()

    def hang(*args: object, **kwargs: object) -> None:
        answered.wait(10)
        raise socket.gaierror("no answer")

    monkeypatch.setattr(cifar, "PROBE_SECONDS", 0.5)
    monkeypatch.setattr(socket, "getaddrinfo", hang)
    try:
        check_offline("http://cifar.invalid/cifar-10-binary.tar.gz", tmp_path)
    finally:
        answered.set()


def test_refusing_server_is_named(server: tuple[str, Path], tmp_path: Path) -> None:
    with pytest.raises(ConnectionError, match="HTTP 404") as error:
        load_small(
            dataclasses.replace(ARCHIVES["cifar10"], url=f"{server[0]}/none.tar.gz"),
            tmp_path / "cache",
        )
    one_line(error)


# --- a prepared folder ----------------------------------------------------------------


def test_prepared_folder_arrives_bit_for_bit(
    prepared: tuple[Archive, Path], tmp_path: Path
) -> None:
    archive, folder = prepared
    loaded = load_small(archive, tmp_path, data_dir=folder)
    rows = loaded_rows(loaded.test_images, loaded.test_labels)
    assert rows == expected_rows(archive, "test")
    assert loaded.source == f"TFDS folder {only_version(folder)}"


def test_missing_empty_and_unfinished_folders_are_named(tmp_path: Path) -> None:
    unfinished = tmp_path / "unfinished" / "cifar10" / "3.0.2.incompleteABC"
    unfinished.mkdir(parents=True)
    (unfinished / "dataset_info.json").write_text("{}")
    (tmp_path / "other" / "cifar100" / "3.0.2").mkdir(parents=True)
    for name in ("missing", ".", "unfinished", "other"):
        with pytest.raises(FileNotFoundError, match="cifar10") as error:
            datasets.load("cifar10", data_dir=tmp_path / name, cache_dir=tmp_path)
        assert str(tmp_path / name) in one_line(error)


def set_shards(name: str, lengths: list[str]) -> Callable[[dict], None]:
    def edit(info: dict) -> None:
        (part,) = [part for part in info["splits"] if part["name"] == name]
        part["shardLengths"] = lengths

    return edit


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda info: info.update(name="cifar100"), "name 'cifar100'; expected 'cifar"),
        (
            lambda info: info.update(fileFormat="riegeli"),
            "'riegeli'; expected one of array_record, tfrecord",
        ),
        (lambda info: info.pop("splits"), "cannot be parsed .*splits"),
        (lambda info: info["splits"].pop(), "counts .*None.*; expected"),
        (set_shards("train", ["19"]), "declares the counts .*19.*; expected .*20"),
        (set_shards("test", ["6", "1"]), "declares the counts .*7.*; expected .*6"),
    ],
)
def test_wrong_dataset_info_is_named(
    edit: Callable[[dict], object],
    complaint: str,
    copied: tuple[Archive, Path],
    tmp_path: Path,
) -> None:
    archive, folder = copied
    path = only_version(folder) / "dataset_info.json"
    info = json.loads(path.read_text())
    edit(info)
    path.write_text(json.dumps(info))
    with pytest.raises(ValueError, match=complaint) as error:
        load_small(archive, tmp_path / "cache", data_dir=folder)
    assert str(path.parent) in one_line(error)


def test_garbled_dataset_info_is_named(
    copied: tuple[Archive, Path], tmp_path: Path
) -> None:
    archive, folder = copied
    path = only_version(folder) / "dataset_info.json"
    path.write_text(path.read_text()[:-9])
    with pytest.raises(ValueError, match="cannot be parsed") as error:
        load_small(archive, tmp_path / "cache", data_dir=folder)
    one_line(error)


@pytest.mark.parametrize("claimed", [15, 25])
def test_records_are_counted_and_not_only_declared(
    claimed: int, copied: tuple[Archive, Path], tmp_path: Path
) -> None:
    archive, folder = copied
    path = only_version(folder) / "dataset_info.json"
    info = json.loads(path.read_text())
    set_shards("train", [str(claimed)])(info)
    path.write_text(json.dumps(info))
    archive = dataclasses.replace(archive, train_count=claimed)
    with pytest.raises(ValueError, match=f"there are 20.*expected {claimed}") as e:
        load_small(archive, tmp_path / "cache", data_dir=folder)
    one_line(e)


def test_damaged_and_missing_shards_are_named(
    copied: tuple[Archive, Path], tmp_path: Path
) -> None:
    archive, folder = copied
    (shard,) = only_version(folder).glob("*-test.array_record*")
    content = bytearray(shard.read_bytes())
    content[4000:4064] = bytes(64)
    for damage in (lambda: shard.write_bytes(content), shard.unlink):
        damage()
        with pytest.raises(
            ValueError, match=r"test records .* cannot be read"
        ) as error:
            load_small(archive, tmp_path / "cache", data_dir=folder)
        assert str(folder) in one_line(error)


def test_wrong_sizes_and_classes_are_refused(
    copied: tuple[Archive, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, folder = copied
    with pytest.raises(ValueError, match="declares the classes 10; expected 2") as e:
        load_small(dataclasses.replace(archive, classes=2), tmp_path, data_dir=folder)
    one_line(e)
    monkeypatch.setattr(cifar, "_SIDE", 16)
    with pytest.raises(ValueError, match=r"declares the shape \(32, 32, 3\)") as error:
        load_small(archive, tmp_path, data_dir=folder)
    one_line(error)
    # What the records hold counts too, not only what is declared.
    path = only_version(folder) / "features.json"
    path.write_text(path.read_text().replace('"32"', '"16"'))
    with pytest.raises(ValueError, match=r"is \(32, 32, 3\); expected \(16") as error:
        load_small(archive, tmp_path, data_dir=folder)
    one_line(error)


def test_newest_version_is_read(copied: tuple[Archive, Path], tmp_path: Path) -> None:
    archive, folder = copied
    newest = only_version(folder)
    for older in ("3.0.1", "1.10.0"):
        (folder / "cifar10" / older).mkdir()
        (folder / "cifar10" / older / "dataset_info.json").write_text("{}")
    loaded = load_small(archive, tmp_path / "cache", data_dir=folder)
    assert loaded.source.endswith(str(newest))


# --- the cache ------------------------------------------------------------------------


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(tfds_folder, "decode", refuse)


def test_cache_serves_the_second_load(
    prepared: tuple[Archive, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, folder = prepared
    first = load_small(archive, tmp_path, data_dir=folder)
    forbid_decoding(monkeypatch)
    second = load_small(archive, tmp_path, data_dir=folder)
    for field in dataclasses.fields(datasets.Dataset):
        np.testing.assert_array_equal(
            getattr(first, field.name), getattr(second, field.name)
        )
    assert not [path for path in tmp_path.rglob("*") if ".npy." in path.name]


def test_cache_goes_where_the_environment_says(
    prepared: tuple[Archive, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, folder = prepared
    monkeypatch.setitem(cifar.ARCHIVES, "cifar10", archive)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    datasets.load("cifar10", data_dir=folder)
    assert list((tmp_path / "xdg" / "aslp-jax" / "decoded").glob("cifar10-*"))
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    datasets.load("cifar10", data_dir=str(folder))
    assert list((tmp_path / ".cache" / "aslp-jax" / "decoded").glob("cifar10-*"))


def test_cache_never_mixes_sources(
    prepared: tuple[Archive, Path], copied: tuple[Archive, Path], tmp_path: Path
) -> None:
    archive, folder = prepared
    _, copy = copied
    load_small(archive, tmp_path, data_dir=folder)
    load_small(archive, tmp_path, data_dir=copy)
    (shard,) = only_version(copy).glob("*-test.array_record*")
    shard.touch()
    load_small(archive, tmp_path, data_dir=copy)
    assert len(list((tmp_path / "decoded").iterdir())) == 3


def overwrite(path: Path, content: bytes) -> None:
    path.write_bytes(content)


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: overwrite(path, path.read_bytes()[:-1]),
        lambda path: overwrite(path, path.read_bytes()[:-1] + b"\x77"),
        lambda path: overwrite(path, b""),
        lambda path: np.save(path, np.array([{}]), allow_pickle=True),
        lambda path: path.unlink(),
        lambda path: (path.parent / "sha256.json").unlink(),
        lambda path: overwrite(path.parent / "sha256.json", b"[]"),
        lambda path: overwrite(path.parent / "sha256.json", b"{}"),
    ],
)
def test_damaged_cache_is_rebuilt(
    damage: Callable[[Path], object],
    prepared: tuple[Archive, Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    archive, folder = prepared
    load_small(archive, tmp_path, data_dir=folder)
    (path,) = tmp_path.rglob("train_images.npy")
    damage(path)
    rebuilt = load_small(archive, tmp_path, data_dir=folder)
    rows = loaded_rows(rebuilt.train_images, rebuilt.train_labels)
    assert rows == expected_rows(archive, "train")
    forbid_decoding(monkeypatch)
    load_small(archive, tmp_path, data_dir=folder)


def test_cache_of_the_wrong_shape_is_rebuilt(
    prepared: tuple[Archive, Path], tmp_path: Path
) -> None:
    archive, folder = prepared
    load_small(archive, tmp_path, data_dir=folder)
    (path,) = tmp_path.rglob("test_images.npy")
    np.save(path, np.zeros((6, 32, 32, 1), np.uint8))
    hashes = path.parent / "sha256.json"
    known = json.loads(hashes.read_text())
    known["test_images"] = hashlib.sha256(path.read_bytes()).hexdigest()
    hashes.write_text(json.dumps(known))
    rebuilt = load_small(archive, tmp_path, data_dir=folder)
    rows = loaded_rows(rebuilt.test_images, rebuilt.test_labels)
    assert rows == expected_rows(archive, "test")


@pytest.mark.parametrize("way", ["data_dir", "manual_dir"])
def test_unwritable_cache_warns_and_still_loads(
    way: str, prepared: tuple[Archive, Path], tmp_path: Path
) -> None:
    archive, folder = prepared
    if way == "manual_dir":
        folder = folder.parent / "manual"
    # Under a regular file nobody can write, not even root.
    (tmp_path / "file").touch()
    with pytest.warns(UserWarning, match="cannot write the cache") as warned:
        loaded = load_small(archive, tmp_path / "file" / "cache", **{way: folder})
    (warning,) = warned
    assert re.fullmatch(r"load: [^\n]*", str(warning.message))
    rows = loaded_rows(loaded.train_images, loaded.train_labels)
    assert rows == expected_rows(archive, "train")


def test_warning_points_at_the_caller_of_load(
    prepared: tuple[Archive, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, folder = prepared
    monkeypatch.setitem(cifar.ARCHIVES, "cifar10", archive)
    (tmp_path / "file").touch()
    for folders in ({"data_dir": folder}, {"manual_dir": folder.parent / "manual"}):
        with pytest.warns(UserWarning, match="cannot write") as warned:
            datasets.load("cifar10", cache_dir=tmp_path / "file", **folders)
        assert warned[0].filename == __file__


def test_full_disk_leaves_no_half_written_cache(
    prepared: tuple[Archive, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive, folder = prepared

    def fill(file: io.BufferedRandom, array: np.ndarray, allow_pickle: bool) -> None:
        file.write(b"half")
        raise OSError("10 requested and 4 written")

    monkeypatch.setattr(np, "save", fill)
    with pytest.warns(UserWarning, match="4 written"):
        load_small(archive, tmp_path, data_dir=folder)
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]
