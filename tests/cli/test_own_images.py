"""`aslp-jax train --data` and `--dataset tfds:NAME`, from options to the artefact."""

import json
import re
import shutil
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest

from aslp_jax import artefact
from aslp_jax._errors import BadInput
from aslp_jax.cli.arguments import parse
from aslp_jax.cli.main import main
from aslp_jax.trainer.options import Config, image_size
from tests.data.tfds_writer import png, prepare

CLASSES = ("circle", "stripe", "dark")
LINE = "--arch conv2 --epochs 1 --batch-size 16 --eval-samples 1 --devices 1"


def images_of(kind: str, rng: np.random.Generator, count: int) -> np.ndarray:
    """Returns noisy images of a class, uint8 `[count, 6, 8, 3]`."""
    y, x = np.mgrid[:6, :8] - np.reshape([2.5, 3.5], (2, 1, 1))
    shapes = {"circle": x**2 + y**2 < 6, "stripe": abs(x) < 1, "dark": x > 99}
    noise = rng.integers(0, 60, (count, 6, 8, 3), np.uint8)
    return noise + 150 * shapes[kind][..., None].astype(np.uint8)


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    """A folder of 30 PNG images of each class."""
    root, rng = tmp_path_factory.mktemp("own") / "my photos", np.random.default_rng(0)
    for kind in CLASSES:
        (root / kind).mkdir(parents=True)
        for index, pixels in enumerate(images_of(kind, rng, 30)):
            PIL.Image.fromarray(pixels).save(root / kind / f"{index}.png")
    return root


@pytest.fixture(scope="module")
def arrays(tmp_path_factory) -> Path:
    """The file of such images."""
    path, rng = tmp_path_factory.mktemp("own") / "shapes.npz", np.random.default_rng(0)
    train, test = (
        np.concatenate([images_of(kind, rng, count) for kind in CLASSES])
        for count in (24, 6)
    )
    labels = {"y_train": np.repeat(range(3), 24), "y_test": np.repeat(range(3), 6)}
    np.savez(path, x_train=train, x_test=test, **labels)
    return path


@pytest.fixture
def train(tmp_path, monkeypatch, capsys):
    """Runs `aslp-jax train` in an empty folder; returns code, output and errors."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str) -> tuple[int, str, str]:
        with jax.numpy_dtype_promotion("standard"):
            code = main(["train", *arguments])
        return code, *capsys.readouterr()

    return run


@pytest.mark.slow
def test_a_folder_trains_resumes_and_becomes_an_artefact(
    train, photos, tmp_path, capsys
) -> None:
    mine = tmp_path / "my photos"
    shutil.copytree(photos, mine)
    code, out, err = train("--data", "my photos", *LINE.split())
    assert code == 0, err
    assert "aslp on conv2, my-photos" in out
    assert "decoding 90 images of my photos, once" in err
    counts = "72 training and 18 test images of 3 classes, divided by class"
    assert f"my-photos (my photos: {counts}), 1 x cpu" in err
    (run,) = (tmp_path / "runs").iterdir()
    assert re.fullmatch(r"my-photos-conv2-aslp-seed0-\d{8}-\d{6}", run.name)
    options = json.loads((run / "config.json").read_text())["options"]
    assert (options["dataset"], options["data"]) == ("own", "my photos")
    assert json.loads((run / "result.json").read_text())["dataset"] == "my-photos"

    network = artefact.load(run / "network.aslp")
    assert network.description.image_shape == (6, 8, 3)
    assert network.description.classes == 3
    assert main(["inspect", str(run / "network.aslp")]) == 0
    assert "my-photos" in capsys.readouterr().out

    # The same images may have moved.
    shutil.move(mine, tmp_path / "moved")
    resume = ["--resume", "--out", str(run)]
    code, out, err = train(*resume)
    assert code == 2 and "there is no my photos" in err
    assert train(*resume, "--data", "moved", "--epochs", "2")[0] == 0
    options = json.loads((run / "config.json").read_text())["options"]
    assert (options["data"], options["epochs"]) == ("moved", 2)

    # Other images are another run.
    shutil.move("moved/dark", "moved/a dark one")
    code, out, err = train(*resume, "--data", "moved")
    assert code == 2 and "sha256" in err and err.count("\n") == 2


@pytest.mark.slow
def test_a_file_trains_with_resized_images(train, arrays, tmp_path, capsys) -> None:
    line = f"--data {arrays} --image-size 12x16 --standardise --out RUN {LINE}"
    code, out, err = train(*line.split())
    assert code == 0, err
    assert "shapes" in out
    assert "resizing 90 images" in err
    assert main(["inspect", "RUN/network.aslp"]) == 0
    assert "shapes" in capsys.readouterr().out
    network = artefact.load("RUN/network.aslp")
    assert network.description.image_shape == (12, 16, 3)
    # Other labels of the same images are noticed.
    with np.load(arrays) as file:
        changed = dict(file)
    changed["y_train"] = changed["y_train"][::-1]
    np.savez("changed.npz", **changed)
    code, out, err = train("--resume", "--out", "RUN", "--data", "changed.npz")
    assert code == 2 and "labels_sha256" in err


def test_a_broken_image_is_one_line_and_code_2(train, photos, tmp_path) -> None:
    shutil.copytree(photos, tmp_path / "broken")
    (tmp_path / "broken" / "dark" / "7.png").write_bytes(b"not an image")
    code, out, err = train("--data", "broken", *LINE.split())
    assert (code, out) == (2, "")
    assert err.splitlines()[0] == "decoding 90 images of broken, once"
    (line,) = err.splitlines()[1:]
    assert line.startswith("aslp-jax: load: the image broken/dark/7.png cannot be read")
    assert not (tmp_path / "runs").exists() and not (tmp_path / "cache/own").exists()


@pytest.fixture(scope="module")
def tfds_root(tmp_path_factory) -> Path:
    """A folder in which TFDS has prepared the data set `shapes`."""
    import tensorflow_datasets as tfds

    root, rng = tmp_path_factory.mktemp("tfds"), np.random.default_rng(0)
    features = {
        "image": tfds.features.Image(shape=(24, 24, 3)),
        "label": tfds.features.ClassLabel(names=CLASSES),
    }
    examples = {
        part: [
            {"image": png(pixels), "label": label}
            for label, kind in enumerate(CLASSES)
            for pixels in images_of(kind, rng, count)
        ]
        for part, count in {"train": 24, "validation": 6}.items()
    }
    prepare(root, "shapes", features, examples)
    return root


@pytest.mark.slow
def test_a_prepared_data_set_trains_and_resumes(train, tfds_root, tmp_path) -> None:
    folder = tmp_path / "prepared"
    shutil.copytree(tfds_root, folder)
    line = f"--dataset tfds:shapes --data-dir {folder} --image-size 12 {LINE}"
    code, out, err = train(*line.split())
    assert code == 0, err
    assert "aslp on conv2, shapes" in out
    version = folder / "shapes" / "1.2.0"
    assert f"decoding 90 images of {version}, once" in err
    counts = "72 training and 18 test images of 3 classes"
    assert f"shapes ({version}: {counts}), 1 x cpu" in err
    (run,) = (tmp_path / "runs").iterdir()
    assert run.name.startswith("shapes-conv2-aslp-seed0-")
    assert json.loads((run / "result.json").read_text())["dataset"] == "shapes"
    assert artefact.load(run / "network.aslp").description.image_shape == (12, 12, 3)

    shutil.move(folder, tmp_path / "moved")
    resume = ["--resume", "--out", str(run), "--epochs", "2"]
    code, out, err = train(*resume)
    assert code == 2 and "no prepared dataset shapes in" in err
    assert train(*resume, "--data-dir", "moved")[0] == 0


def write_sizes(root: Path) -> None:
    for name, side in (("a/1", 8), ("a/2", 8), ("b/1", 8), ("b/2", 9)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (side, side)).save(root / f"{name}.png")


def write_classes(root: Path) -> None:
    for name in ("train/a/1", "train/b/1", "train/c/1", "test/a/1", "test/b/1"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        PIL.Image.new("L", (8, 8)).save(root / f"{name}.png")


def write_labels(path: Path) -> None:
    images = np.zeros((4, 8, 8), np.uint8)
    train = {"x_train": images, "y_train": np.array([0, 1, 2, -1])}
    np.savez(f"{path}.npz", **train, x_test=images, y_test=np.array([0, 1, 2, 2]))


@pytest.mark.parametrize(
    ("write", "flags", "words"),
    [
        (write_sizes, "--data bad", "images have several sizes: the image bad/a/"),
        (write_classes, "--data bad", "the class 'c' is in bad/train and not in bad/"),
        (write_labels, "--data bad.npz", "y_train holds the label -1; expected 0 to"),
        (Path.mkdir, "--data bad", "bad holds 0 class folders; expected at least two"),
        (Path.mkdir, "--dataset tfds:x --data-dir bad", "no prepared dataset x in bad"),
        (Path.mkdir, "--dataset tfds:/ --data-dir bad", "'/' is no name of TFDS"),
        (Path.mkdir, "--dataset fashion_mnist --manual-dir bad", "bad lacks train-im"),
        (Path.mkdir, "--dataset fashion_mnist --data-dir bad", "no prepared dataset f"),
    ],
)
def test_bad_images_are_one_line_and_code_2(train, tmp_path, write, flags, words):
    write(tmp_path / "bad")
    before = set(tmp_path.iterdir())
    code, out, err = train(*flags.split(), *LINE.split())
    assert (code, out) == (2, "")
    *notes, line = err.splitlines()
    assert line.startswith("aslp-jax: load: ") and words in line
    assert all(note.startswith("decoding 4 images of bad, once") for note in notes)
    assert {path for path in tmp_path.iterdir() if path.name != "cache"} == before
    assert not [*(tmp_path / "cache").rglob("*.npy")]


def test_too_few_images_for_a_batch_are_refused(train, arrays) -> None:
    code, out, err = train("--data", str(arrays), "--batch-size", "66")
    assert (code, out) == (2, "")
    assert "--batch-size 66 is more than the 65 training images of shapes" in err


# --- options --------------------------------------------------------------------------


def config(line: str) -> Config:
    return parse(line.split(), description="").command().config


def test_data_stands_for_the_dataset(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert config("--data a/b.npz").as_dict() == {
        **Config().as_dict(),
        "dataset": "own",
        "data": "a/b.npz",
        "batch_size": 32,
    }
    assert config("--data a --preset fast").dataset == "own"
    assert config("--dataset own --data a").dataset == "own"


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("photos/", "photos"),
        ("a/b.npz", "b"),
        ("~/ß my_photos 2", "my_photos-2"),
        ("写真", "own"),
        ("x" * 99, "x" * 60),
        (".", "here"),
    ],
)
def test_images_are_named_after_their_path(path, name, tmp_path, monkeypatch) -> None:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert Config(dataset="own", data=path).dataset_name == name


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("--data a --dataset digits", "give --data or --dataset, not both; got --data"),
        ("--data a --data-dir b", "give --data or --data-dir, not both"),
        ("--data a --manual-dir b", "give --data or --manual-dir, not both"),
        ("--dataset own", "--dataset own needs --data"),
        ("--image-size 32", "--image-size resizes the images of --data, --dataset"),
        ("--data a --image-size 0", "--image-size must be from 1 to 4096, got 0"),
        ("--data a --image-size 32x9999", "must be from 1 to 4096, got 32x9999"),
        ("--data a --image-size 32,32", "must be one number, or two as in 24x32"),
        ("--data a --image-size -3", "must be one number, or two as in 24x32"),
    ],
)
def test_options_that_contradict_each_other_are_refused(line, words) -> None:
    with pytest.raises(BadInput, match=re.escape(words)):
        config(line)


def test_an_image_size_is_height_and_width() -> None:
    assert image_size(config("--data a --image-size 32")) == (32, 32)
    assert image_size(config("--data a --image-size 24x32")) == (24, 32)
    assert image_size(config("--data a")) is None
