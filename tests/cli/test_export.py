"""`aslp-jax export`: every format predicts what the network does."""

import dataclasses
import functools
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import numpy as np
import onnxruntime
import pytest

import aslp_jax
from aslp_jax.artefact import NETWORK, Subnetwork
from aslp_jax.cli.main import main
from aslp_jax.data import datasets

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def cifar10(tmp_path_factory) -> Path:
    """The artefact of a Conv4 on CIFAR-10, out of a folder like that of its run."""
    folder = tmp_path_factory.mktemp("cifar10")
    committed = ROOT / "results" / "exports" / "conv4-cifar10-keep10.aslp"
    shutil.copy(committed, folder / NETWORK)
    path = folder / "conv4.aslp"
    assert main(["extract", str(folder), "-o", str(path)]) == 0
    return path


@functools.cache
def colour_images(side: int) -> np.ndarray:
    """Images `[20, side, side, 3]` that differ in more than noise."""
    digits = datasets.load("digits").test_images[:20].astype(float)
    large = np.kron(digits, np.ones((1, 4, 4, 1)))[:, :side, :side]
    contrast = np.linspace(-1, 1, 20).reshape(-1, 1, 1, 1) * np.array([1, -1, 0.5])
    return np.clip(128 + (large - 128) * contrast, 0, 255).astype(np.uint8)


@functools.cache
def loaded(path: Path) -> tuple[Subnetwork, np.ndarray, np.ndarray]:
    """A network, images, and its logits."""
    subnetwork = aslp_jax.load(path)
    side, _, channels = subnetwork.description.image_shape
    images = colour_images(side)
    if channels == 1:
        images = datasets.load("digits").test_images[:20]
    return subnetwork, images, np.asarray(subnetwork(images))


def run_export(kind: str, path: Path, images: np.ndarray, net: Any) -> np.ndarray:
    """Runs an export with what others would run it."""
    if kind == "onnx":
        session = onnxruntime.InferenceSession(path.read_bytes())
        (name,) = (each.name for each in session.get_inputs())
        return session.run(None, {name: images.transpose(0, 3, 1, 2)})[0]
    if kind == "stablehlo":
        return jax.export.deserialize(bytearray(path.read_bytes())).call(images)
    if kind == "npz":
        with np.load(path, allow_pickle=False) as file:
            variables: Any = {}
            for name in file.files:
                if "/" in name:
                    *way, last = name.split("/")
                    inner = variables
                    for step in way:
                        inner = inner.setdefault(step, {})
                    inner[last] = file[name]
        return dataclasses.replace(net, variables=variables)(images)
    return run_c(path, images)


def run_c(path: Path, images: np.ndarray) -> np.ndarray:
    (path.parent / "main.c").write_text(
        '#include <stdio.h>\n#include "network.h"\n'
        "int main(void) {\n"
        "    static uint8_t image[NETWORK_IMAGE_BYTES];\n"
        "    float logits[NETWORK_CLASSES];\n"
        "    while (fread(image, 1, sizeof image, stdin) == sizeof image) {\n"
        "        network_logits(image, logits);\n"
        "        fwrite(logits, sizeof logits, 1, stdout);\n"
        "    }\n    return 0;\n}\n"
    )
    warnings = ("-std=c99", "-Wall", "-Wextra", "-Werror", "-O2")
    command = ["gcc", *warnings, "-o", "network", "main.c", "network.c", "-lm"]
    subprocess.run(command, cwd=path.parent, check=True)
    done = subprocess.run(
        [path.parent / "network"],
        input=images.tobytes(),
        capture_output=True,
        check=True,
    )
    return np.frombuffer(done.stdout, np.float32).reshape(len(images), -1)


@pytest.mark.slow
@pytest.mark.parametrize("network", ["signed", "normal", "cifar10"])
@pytest.mark.parametrize("kind", ["onnx", "stablehlo", "npz", "c"])
def test_each_export_predicts_what_the_network_does(
    kind, network, request, tmp_path, capsys
):
    if kind == "c" and shutil.which("gcc") is None:
        pytest.skip("gcc is missing")
    source = request.getfixturevalue(network)
    path = tmp_path / f"network.{kind}"
    options = ["--storage", "seed"] if kind == "c" else []
    command = ["export", str(source), "--to", kind, "-o", str(path), *options]
    capsys.readouterr()
    assert main(command) == 0
    out = capsys.readouterr().out
    assert f"{path}: {path.stat().st_size:,} bytes" in out
    assert "bytes by their entropy" in out and "\ndropped     " in out
    net, images, wanted = loaded(source)
    assert len(set(wanted.argmax(1).tolist())) > 2
    found = np.asarray(run_export(kind, path, images, net))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_array_equal(found.argmax(1), wanted.argmax(1))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("export RUN/network.aslp --to tflite -o new", "expected one of onnx, c, stab"),
        ("export RUN/network.aslp --to npz -o new --storage x", "'x'"),
        ("export RUN/network.aslp --to npz -o NOWHERE/new", "cannot write NOWHERE/new"),
        ("export DAMAGED/network.aslp --to npz -o new", "is damaged"),
        ("export RUN/network.aslp --to npz -o LINK", "LINK is the input file"),
        ("export NAMED.h --to c -o NAMED.c", "NAMED.h is the input file"),
    ],
)
def test_bad_input_is_one_line(line, words, refused):
    refused(line, words)


def test_without_onnx_the_extra_is_named(signed, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    # Other tests may have imported the module that imports onnx.
    monkeypatch.delitem(sys.modules, "aslp_jax.export.onnx", raising=False)
    monkeypatch.delattr("aslp_jax.export.onnx", raising=False)
    path = tmp_path / "a.onnx"
    assert main(["export", str(signed), "--to", "onnx", "-o", str(path)]) == 2
    err = capsys.readouterr().err
    assert "aslp-jax[export]" in err and err.count("\n") == 1 and not path.exists()
