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
from aslp_jax.cli._calibration import calibration_inputs
from aslp_jax.cli.main import main
from aslp_jax.data import datasets
from aslp_jax.export.integer import reference
from aslp_jax.export.integer.build import integer_graph
from aslp_jax.export.network import graph_of

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


def run_c(path: Path, images: np.ndarray, dtype: str = "float32") -> np.ndarray:
    (path.parent / "main.c").write_text(
        '#include <stdio.h>\n#include "network.h"\n'
        "int main(void) {\n"
        "    static uint8_t image[NETWORK_IMAGE_BYTES];\n"
        "    network_logit logits[NETWORK_CLASSES];\n"
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
    return np.frombuffer(done.stdout, dtype).reshape(len(images), -1)


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


@pytest.mark.parametrize(
    ("option", "enough", "less", "words"),
    [
        ("--ram", 20736, 20735, "c: needs 20,736 bytes of RAM and a stack, more than "),
        ("--flash", 60_000, 16_384, " bytes of flash, 4,096 of them for code, more "),
    ],
)
def test_a_network_that_does_not_fit_is_refused(
    option, enough, less, words, tmp_path, capsys
):
    source, path = ROOT / "examples" / "embedded" / "digits.aslp", tmp_path / "net.c"
    line = f"export {source} --to c --storage seed -o {path} {option}"
    assert main([*line.split(), str(less)]) == 2
    err = capsys.readouterr().err
    page = "docs/export.md#on-microcontrollers"
    assert words in err and err.endswith(f"than {option} {less:,}; see {page}\n")
    assert err.count("\n") == 1
    assert not path.exists() and not path.with_suffix(".h").exists()
    assert main([*line.split(), str(enough)]) == 0


@pytest.mark.parametrize("option", ["--ram 1kB", "--flash 1e6", "--ram"])
def test_sizes_of_memory_are_numbers(option, tmp_path, capsys):
    source = ROOT / "examples" / "embedded" / "digits.aslp"
    line = f"export {source} --to c -o {tmp_path / 'net.c'} {option}"
    assert main(line.split()) == 2
    assert capsys.readouterr().err.count("\n") == 1


def test_memory_is_that_of_c(tmp_path, capsys):
    source = ROOT / "examples" / "embedded" / "digits.aslp"
    line = f"export {source} --to npz -o {tmp_path / 'net.npz'} --ram 10"
    assert main(line.split()) == 2
    assert "npz has no option 'ram'" in capsys.readouterr().err


def test_without_onnx_the_extra_is_named(signed, tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "onnx", None)
    # Other tests may have imported the module that imports onnx.
    monkeypatch.delitem(sys.modules, "aslp_jax.export.onnx", raising=False)
    monkeypatch.delattr("aslp_jax.export.onnx", raising=False)
    path = tmp_path / "a.onnx"
    assert main(["export", str(signed), "--to", "onnx", "-o", str(path)]) == 2
    err = capsys.readouterr().err
    assert "aslp-jax[export]" in err and err.count("\n") == 1 and not path.exists()


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is missing")
@pytest.mark.parametrize("storage", ["seed", "dense"])
def test_integers_of_a_run_are_those_of_the_reference(
    storage, digits, tmp_path, monkeypatch, capsys
):
    """The ranges are those of the run's own training images."""
    data = digits.data
    monkeypatch.setattr(datasets, "load", lambda *args, **options: data)
    source, path = digits.folder / NETWORK, tmp_path / "network.c"
    line = f"export {source} --to c --storage {storage} --activations int8 -o {path}"
    assert main([*line.split(), "--calibrate", str(digits.folder)]) == 0
    assert "of these, in int8" in capsys.readouterr().out
    subnetwork = aslp_jax.load(source)
    about = subnetwork.description
    graph = graph_of(subnetwork.net, subnetwork.variables, about.image_shape)
    integers = integer_graph(graph, about, data.train_images, activations="int8")
    wanted = reference.run(integers, data.test_images)
    found = run_c(path, data.test_images, "int16")
    np.testing.assert_array_equal(found, wanted)
    agree = wanted.argmax(1) == digits.outputs.argmax(1)
    assert agree.mean() > 0.95


def test_inputs_to_calibrate_on_come_from_many_places(digits, tmp_path, monkeypatch):
    shape = (8, 8, 1)
    images = datasets.load("digits").train_images
    assert np.array_equal(calibration_inputs("digits", None, shape), images)
    arrays = {
        "x_train": np.repeat(images[:4], 5, 1).repeat(5, 2),
        "y_train": np.arange(4) % 2,
        "y_test": np.arange(4) % 2,
    }
    arrays["x_test"] = arrays["x_train"]
    np.savez(tmp_path / "own.npz", **arrays)
    found = calibration_inputs(str(tmp_path / "own.npz"), None, shape)
    assert found.shape == (4, *shape)  # resized to those of the network
    np.save(tmp_path / "inputs.npy", np.arange(6, dtype=np.float32))
    found = calibration_inputs(str(tmp_path / "inputs.npy"), None, (6,))
    assert np.array_equal(found, range(6))


@pytest.mark.parametrize(
    ("rest", "words"),
    [
        ("--activations int8", "--activations int8 needs --calibrate"),
        ("--calibrate digits", "--calibrate is for --activations int8 or int16"),
        ("--data-dir x", "--data-dir is for the data set of --calibrate"),
        ("--activations int4 --calibrate digits", "activations must be one of"),
        ("--activations int8 --calibrate NOWHERE", "--calibrate NOWHERE is missing"),
        ("--activations int8 --calibrate cifar10 --data-dir NOWHERE", "NOWHERE"),
        ("--activations int8 --calibrate OTHER.npy", r"images are \[8, 8, 3\]"),
        ("--activations int8 --calibrate BLACK.npy", "the range [0, 0]"),
        ("--activations int8 --calibrate FLOATS.npy", "must be uint8, got float32"),
        ("--activations int8 --calibrate BLACK.npy --data-dir x", "no --data-dir"),
        ("--activations int8 --calibrate TEXT.npz --data-dir x", "no --data-dir"),
        ("--activations int8 --calibrate TEXT.npy", "TEXT.npy is no array of NumPy"),
        ("--activations int8 --calibrate digits --inputs float32", "take uint8"),
    ],
)
def test_bad_calibration_is_one_line(rest, words, tmp_path, capsys):
    np.save(tmp_path / "OTHER.npy", np.zeros((2, 8, 8, 3), np.uint8))
    np.save(tmp_path / "BLACK.npy", np.zeros((2, 8, 8, 1), np.uint8))
    np.save(tmp_path / "FLOATS.npy", np.zeros((2, 8, 8, 1), np.float32))
    (tmp_path / "TEXT.npy").write_text("no array")
    (tmp_path / "TEXT.npz").write_text("no arrays")
    names = ("NOWHERE", "OTHER.npy", "BLACK.npy", "FLOATS.npy", "TEXT.npy", "TEXT.npz")
    for name in names:
        rest = rest.replace(name, str(tmp_path / name))
    source = ROOT / "examples" / "embedded" / "digits.aslp"
    line = f"export {source} --to c -o {tmp_path / 'new.c'} {rest}"
    assert main(line.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert (
        words.replace("\\", "").replace("NOWHERE", str(tmp_path / "NOWHERE")) in error
    )
    assert not (tmp_path / "new.c").exists() and not (tmp_path / "new.h").exists()
