"""`aslp-jax train` on streamed images, from options to the artefact; refusals."""

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import PIL.Image
import pytest

from aslp_jax import artefact
from aslp_jax.cli import _calibration
from aslp_jax.cli.main import main
from aslp_jax.data import imagenet, pipeline, streamed
from tests.data import imagenet_writer

LINE = "--dataset imagenet --arch conv2 --image-size 8 --batch-size 8 --eval-samples 1"


@pytest.fixture(scope="module")
def written(tmp_path_factory) -> Path:
    """A few images in the layout of ImageNet."""
    root = tmp_path_factory.mktemp("imagenet")
    imagenet_writer.write(root, {"train": 30, "validation": 5})
    return root


@pytest.fixture
def train(written, tmp_path, capfd) -> Callable[..., tuple[int, str, str]]:
    """Runs `aslp-jax train` on these images; returns code, output and errors."""

    def run(*arguments: str) -> tuple[int, str, str]:
        capfd.readouterr()
        line = [*LINE.split(), "--out", str(tmp_path / "run"), *arguments]
        with jax.numpy_dtype_promotion("standard"):
            code = main(["train", *line])
        return code, *capfd.readouterr()

    return run


@pytest.mark.slow
def test_imagenet_trains_and_becomes_an_artefact(train, written, tmp_path) -> None:
    folder = str(written)
    code, out, err = train("--data-dir", folder, "--epochs", "2", "--shard", "params")
    assert code == 0, err
    assert "aslp on conv2, imagenet" in out
    assert "30 training and 5 test images of 3 classes, streamed), 4 x" in err
    assert " MB for the state; without --shard params " in err
    about = artefact.load(tmp_path / "run" / artefact.NETWORK).description
    assert (about.image_shape, about.classes) == ((8, 8, 3), 3)
    assert about.class_names == imagenet_writer.SYNSETS
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in rows] == [3, 6]
    found = _calibration.calibration_inputs(str(tmp_path / "run"), None, (8, 8, 3))
    part = imagenet.load(written, image_size=(8, 8)).train
    (expected,) = pipeline.batches(part, np.arange(30), 30)
    assert found.shape == (30, 8, 8, 3) and (found == expected.images).all()


def test_without_the_extra_it_is_one_line_and_code_2(
    train, written, tmp_path, monkeypatch
) -> None:
    monkeypatch.setitem(sys.modules, "grain", None)
    code, out, err = train("--data-dir", str(written))
    assert (code, out) == (2, "")
    assert err.splitlines() == [
        "aslp-jax: load: streaming of images needs the package grain; "
        'pip install "aslp-jax[stream]"'
    ]
    assert not (tmp_path / "run").exists()


def test_another_folder_is_one_line_and_code_2(train, tmp_path) -> None:
    code, out, err = train("--data-dir", str(tmp_path))
    assert (code, out) == (2, "") and err.count("\n") == 1
    assert "load: no prepared dataset imagenet2012 in" in err
    assert not (tmp_path / "run").exists()


def test_ranges_are_measured_on_images_of_all_classes(tmp_path, monkeypatch) -> None:
    for kind, shade in (("black", 0), ("white", 255)):
        (tmp_path / kind).mkdir()
        for index in range(5):
            pixels = np.full((4, 4, 3), shade, np.uint8)
            PIL.Image.fromarray(pixels).save(tmp_path / kind / f"{index}.png")
    monkeypatch.setattr(streamed, "STREAM_ABOVE", 0)
    monkeypatch.setattr(_calibration, "_STREAMED", 4)
    found = _calibration.calibration_inputs(str(tmp_path), None, (4, 4, 3))
    assert found.shape == (4, 4, 4, 3)
    assert sorted(found.max((1, 2, 3))) == [0, 0, 255, 255]


def test_ranges_are_measured_on_imagenet(written) -> None:
    found = _calibration.calibration_inputs("imagenet", written, (8, 8, 3))
    assert found.shape == (30, 8, 8, 3)


@pytest.mark.slow
def test_a_damaged_record_ends_the_run_with_one_line(train, written, tmp_path) -> None:
    shutil.copytree(written, tmp_path / "data")
    (file,) = (tmp_path / "data").rglob("*-train.array_record-*")
    content = bytearray(file.read_bytes())
    start = content.index(b"JFIF")
    content[start + 200 : start + 260] = bytes(60)
    file.write_bytes(content)
    code, out, err = train("--data-dir", str(tmp_path / "data"), "--epochs", "9")
    assert (code, out) == (2, "")
    *_, line = err.splitlines()
    assert line.startswith("aslp-jax: load: the train records in ")
    assert "cannot be read" in line
