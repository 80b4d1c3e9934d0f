"""From a run to its network alone, as a person goes: extract, inspect, export, run.

Two runs are made in this process, so that their programs are compiled as those of the
tests: one on digits by the program itself, one on images of CIFAR's shape. A third was
made on CIFAR-10 and lies under results/.
"""

import configparser
import dataclasses
import functools
import io
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import matplotlib.image
import numpy as np
import onnxruntime
import pytest

import aslp_jax
from aslp_jax import artefact, evaluate
from aslp_jax.artefact import NETWORK, container, encoding
from aslp_jax.cli import train
from aslp_jax.cli.main import main
from aslp_jax.data import datasets
from aslp_jax.trainer import loop
from aslp_jax.trainer import session as session_module
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.presets import resolve
from aslp_jax.trainer.progress import Progress
from aslp_jax.trainer.run_folder import RunFolder

pytestmark = pytest.mark.program

ROOT = Path(__file__).parents[2]
CIFAR10 = ROOT / "results" / "exports" / "conv4-cifar10-keep10.aslp"


class Finished(NamedTuple):
    """A finished run.

    Attributes:
      folder: of it.
      session: the same in memory, as it is after a restart.
      images: of the test set, uint8.
      labels: of them.
    """

    folder: Path
    session: session_module.Session
    images: np.ndarray
    labels: np.ndarray

    @property
    def variables(self) -> Any:
        """What the run takes to be its network."""
        run = self.session.run
        return run.state.replace(**run.best).variables


def again(config: Config, data: datasets.Dataset, folder: Path) -> Finished:
    found = session_module.begin(
        config,
        data,
        RunFolder(folder),
        resume=True,
        note=pytest.fail,
        devices=jax.devices()[:1],
    )
    return Finished(folder, found, data.test_images, data.test_labels)


@pytest.fixture(scope="module")
def digits(tmp_path_factory) -> Finished:
    """Conv2 of signed constants, by the program itself."""
    folder = tmp_path_factory.mktemp("runs") / "digits"
    line = "--dataset digits --arch conv2 --preset fast --epochs 1 --eval-samples 2"
    arguments = [*line.split(), "--devices", "1", "--out", str(folder)]
    with jax.numpy_dtype_promotion("standard"):  # optax's schedules are not strict
        assert train.main(arguments) == 0
    options = json.loads((folder / "config.json").read_text())["options"]
    return again(Config(**options), datasets.load("digits"), folder)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> Finished:
    """Conv4 of Kaiming weights with biases, on standardised images of 32x32 pixels."""
    rng = np.random.default_rng(0)
    shades = rng.integers(0, 256, (10, 1, 1, 3))
    labels = np.arange(50, dtype=np.int32) % 10
    noise = rng.integers(-60, 60, (50, 32, 32, 3))
    images = np.clip(shades[labels] + noise, 0, 255).astype(np.uint8)
    data = datasets.Dataset(
        name="cifar10",
        train_images=images[:24],
        train_labels=labels[:24],
        test_images=images[24:],
        test_labels=labels[24:],
        classes=10,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        validation=8,
        flip=True,
        source="drawn",
    )
    chosen = {"arch": "conv4", "batch_size": 8, "epochs": 1, "signed_constant": "none"}
    config = resolve("released_code", {**chosen, "eval_samples": 2, "logit_std": 3.0})
    folder = tmp_path_factory.mktemp("runs") / "pictures"
    devices = jax.devices()[:1]
    made = session_module.begin(
        config,
        data,
        RunFolder.new(folder, config),
        resume=False,
        note=pytest.fail,
        devices=devices,
    )
    with open(folder.parent / "log", "w") as log, loop.Signals() as signals:
        loop.train_sessions([made], Progress(log, epochs=1), signals)
    made.finish(plot=False)
    return again(config, data, folder)


@pytest.fixture(scope="module", params=["digits", "pictures"])
def finished(request) -> Finished:
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="module")
def extracted(finished, tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("extracted") / "network.aslp"
    assert main(["extract", str(finished.folder), "-o", str(path)]) == 0
    return path


def outputs_of(finished: Finished) -> np.ndarray:
    """What the run itself makes of the test images with its thresholded network."""
    run = finished.session.run
    prepare = run.programs.evaluate.keywords["prepare"]
    images = jnp.asarray(finished.images)
    return np.asarray(
        evaluate.outputs(
            finished.variables, images, model=run.programs.model, prepare=prepare
        )
    )


def test_logits_are_those_of_the_run_to_the_bit(finished, extracted):
    subnetwork = aslp_jax.load(extracted)
    logits = subnetwork(finished.images)
    np.testing.assert_array_equal(logits, outputs_of(finished))
    right = np.argmax(logits, -1) == finished.labels
    result = json.loads((finished.folder / "result.json").read_text())
    assert np.float32(right.mean()) == np.float32(result["thresholding"])
    assert right.mean() < 1 and (right.mean() > 0.3 or len(right) < 100)
    assert subnetwork.description.accuracies["thresholding"] == result["thresholding"]


def test_logits_are_those_of_masked_when_each_is_one_program(digits):
    subnetwork = aslp_jax.load(digits.folder / NETWORK)
    inputs = subnetwork.prepare(jnp.asarray(digits.images))
    model = digits.session.run.programs.model
    masked = jax.jit(functools.partial(model.apply, train=False))
    plain = jax.jit(functools.partial(subnetwork.net.apply, train=False))
    np.testing.assert_array_equal(
        plain(subnetwork.variables, inputs), masked(digits.variables, inputs)
    )


def test_the_file_says_what_it_is(finished, extracted):
    about = aslp_jax.load(extracted).description
    config, data = finished.session.run.config, finished.session.run.data
    for name in ("arch", "dataset", "method", "seed"):
        assert getattr(about, name) == getattr(config, name)
    assert about.classes == 10 and about.image_shape == data.test_images.shape[1:]
    assert about.mean == (data.mean if config.standardise else None)
    assert about.std == (data.std if config.standardise else None)
    assert config.standardise == (config.arch == "conv4")
    assert about.versions["jax"] == jax.__version__
    assert set(about.accuracies) == {
        "thresholding",
        "averaging_mean",
        "averaging_std",
        "single",
    }


def test_a_run_keeps_nothing_of_its_weights_but_the_keys(finished, extracted):
    subnetwork = aslp_jax.load(extracted)
    assert {each.origin for each in subnetwork.entries.values()} == {"recipe"}
    weights = sum(each.weights.size for each in subnetwork.entries.values())
    small = weights < 400_000
    assert 8 * extracted.stat().st_size <= (1.06 if small else 1.03) * weights
    # Extracted or left by the run, it is the same file.
    assert extracted.read_bytes() == (finished.folder / NETWORK).read_bytes()


def test_embedded_weights_give_the_same_logits(finished, extracted, tmp_path, capsys):
    path = tmp_path / "embedded.aslp"
    command = ["extract", str(finished.folder), "-o", str(path), "--embed-weights"]
    assert main(command) == 0
    size = path.stat().st_size
    assert f"{path}: {size:,} bytes" in capsys.readouterr().out
    subnetwork = aslp_jax.load(path)
    assert not any(each.recipe for each in subnetwork.entries.values())
    np.testing.assert_array_equal(
        subnetwork(finished.images), aslp_jax.load(extracted)(finished.images)
    )
    kept = sum(each.kept for each in subnetwork.entries.values())
    signs = finished.session.run.config.arch == "conv2"
    more = 8 * (size - extracted.stat().st_size) / kept
    assert (0.9 < more < 1.1) if signs else (29 < more < 33)


def test_inspect_tells_what_there_is(finished, extracted, capsys):
    assert main(["inspect", str(extracted)]) == 0
    out = capsys.readouterr().out
    subnetwork = aslp_jax.load(extracted)
    entries = subnetwork.entries.values()
    weights = sum(each.weights.size for each in entries)
    size = extracted.stat().st_size
    about = subnetwork.description
    masked = [each for each in entries if each.mask is not None]
    shares = [each.kept / each.weights.size for each in masked]
    entropy = sum(
        -each.weights.size * (p * np.log2(p) + (1 - p) * np.log2(1 - p))
        for each, p in zip(masked, shares, strict=True)
    )
    for text in (
        f"{about.arch} (ConvNet), computes in float32",
        "x".join(map(str, about.image_shape)),
        f"by {about.method} on {about.dataset}, seed 0",
        f"{about.accuracies['thresholding']:.2%} thresholding",
        f"jax {jax.__version__}",
        f"{size:,} bytes, {8 * size / weights:.3f} bits a weight",
        f"{4 * weights / size:.1f} times less than float32 ({4 * weights:,} bytes)",
        f"{int(np.ceil(entropy / 8)):,} bytes by their entropy",
        "checksum ok, weights regenerate: yes",
    ):
        assert text in out, text
    assert ("standardised by channel" in out) == (about.mean is not None)
    lines = {line.split("  ")[0]: line.split() for line in out.splitlines()}
    for entry, share in zip(masked, shares, strict=True):
        row = lines[entry.name]
        assert row[1:4] == [
            f"{entry.weights.size:,}",
            f"{share:.2%}",
            f"{entry.scale:.4f}",
        ]
        assert row[5] == entry.recipe.initialiser
    kept = sum(each.kept for each in masked) / sum(each.mask.size for each in masked)
    assert lines["total"][1:3] == [f"{weights:,}", f"{kept:.2%}"]
    assert max(map(len, out.splitlines())) <= 88
    # The layers in the order in which they are called, then what has no mask.
    names = [line.split()[0] for line in out.splitlines() if "/kernel" in line]
    assert names == sorted(names) and len(names) == len(masked)
    assert ("7 without a mask" in out) == (about.arch == "conv4")


@pytest.mark.parametrize("where", [None, "picture.png"])
def test_inspect_draws(extracted, where, tmp_path, capsys):
    path = tmp_path / "network.aslp"
    subnetwork = aslp_jax.load(extracted)
    about = dataclasses.replace(subnetwork.description, arch=r"$\no formula$")
    artefact.save(dataclasses.replace(subnetwork, description=about), path)
    picture = tmp_path / (where or "network.png")
    output = [] if where is None else ["-o", str(picture)]
    assert main(["inspect", str(path), "--plot", *output]) == 0
    assert capsys.readouterr().out.endswith(f"\n{picture} is drawn\n")
    assert sorted(tmp_path.iterdir()) == sorted([path, picture])
    pixels = matplotlib.image.imread(picture)
    assert pixels.shape[:2] > (600, 1200) and pixels.std() > 0.1


def test_the_picture_shows_filters_and_where_weights_are_kept(digits):
    from aslp_jax.artefact.plot import _blocks, _colours, _tiles

    kernel = np.zeros((2, 2, 1, 3), np.float32)
    kernel[0, 0, 0] = 1, -1, 0
    mask = np.ones(kernel.shape, bool)
    mask[1, 1, 0, 2] = False
    colours = _colours(kernel, mask)
    assert colours.shape == (3, 2, 2, 3)
    blue, red, dropped = colours[0, 0, 0], colours[1, 0, 0], colours[2, 1, 1]
    assert blue[2] > blue[0] and red[0] > red[2]
    assert len(set(dropped)) == 1 and dropped[0] < 1
    np.testing.assert_array_equal(colours[2, 0, 0], 1)
    tiles = _tiles(colours)
    assert tiles.shape == (6, 6, 3)  # four places of 2x2 and a border
    np.testing.assert_array_equal(tiles[:2, 3:5], colours[1])
    np.testing.assert_array_equal(tiles[3:, 3:], 1)

    values = np.arange(130.0 * 3).reshape(130, 3)
    means = _blocks(values)
    assert means.shape == (64, 3)
    assert means[0, 0] == values[:2, 0].mean() and means[-1, 2] == values[-3:, 2].mean()


def outputs_of_export(kind: str, path: Path, images: np.ndarray, net: Any) -> Any:
    """Runs what was exported, with what others would run it."""
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
        subnetwork = dataclasses.replace(net, variables=variables)
        return subnetwork(images)
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


@pytest.mark.parametrize("kind", ["onnx", "stablehlo", "npz", "c"])
def test_each_export_predicts_what_the_run_does(
    kind, finished, extracted, tmp_path, capsys
):
    if kind == "c" and shutil.which("gcc") is None:
        pytest.skip("gcc is missing")
    path = tmp_path / f"network.{kind}"
    options = ["--storage", "seed"] if kind == "c" else []
    command = ["export", str(extracted), "--to", kind, "-o", str(path), *options]
    assert main(command) == 0
    told = capsys.readouterr().out
    assert f"{path}: {path.stat().st_size:,} bytes" in told
    assert "bytes by their entropy" in told and "\ndropped     weights " in told
    net = aslp_jax.load(extracted)
    found = np.asarray(outputs_of_export(kind, path, finished.images, net))
    wanted = outputs_of(finished)
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_array_equal(np.argmax(found, -1), np.argmax(wanted, -1))


@pytest.mark.parametrize("kind", ["onnx", "stablehlo", "npz", "c"])
def test_a_network_of_cifar10_is_the_same_in_each_format(kind, tmp_path, capsys):
    if kind == "c" and shutil.which("gcc") is None:
        pytest.skip("gcc is missing")
    shutil.copy(CIFAR10, tmp_path / NETWORK)
    taken, path = tmp_path / "conv4.aslp", tmp_path / f"network.{kind}"
    assert main(["extract", str(tmp_path), "-o", str(taken)]) == 0
    assert main(["inspect", str(taken)]) == 0
    told = capsys.readouterr().out
    assert "by aslp on cifar10" in told and "weights regenerate: yes" in told
    options = ["--storage", "seed"] if kind == "c" else []
    command = ["export", str(taken), "--to", kind, "-o", str(path), *options]
    assert main(command) == 0
    net = aslp_jax.load(taken)
    wanted = np.asarray(net(coloured_digits()))
    assert len(set(wanted.argmax(1).tolist())) > 2
    found = np.asarray(outputs_of_export(kind, path, coloured_digits(), net))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    np.testing.assert_array_equal(found.argmax(1), wanted.argmax(1))


def coloured_digits() -> np.ndarray:
    """Pictures of CIFAR's shape, `[20, 32, 32, 3]`, that differ in more than noise."""
    digits = datasets.load("digits").test_images[:20].astype(float)
    large = np.kron(digits, np.ones((1, 4, 4, 1)))
    contrast = np.linspace(-1, 1, 20).reshape(-1, 1, 1, 1) * np.array([1, -1, 0.5])
    return np.clip(128 + (large - 128) * contrast, 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("", "no command; expected one of train, table1"),
        ("bogus", "no command 'bogus'; expected one of train, table1"),
        ("extract RUN", "required: -o/--output"),
        ("extract NOWHERE -o new", "NOWHERE is no run folder"),
        ("extract RUN/result.json -o new", "result.json is no run folder"),
        (
            "extract BEGUN -o new",
            "BEGUN holds no finished run, which has a network.aslp",
        ),
        ("extract DAMAGED -o new", "DAMAGED/network.aslp is damaged or cut short"),
        ("extract RUN -o NOWHERE/new", "cannot write NOWHERE/new: No such file"),
        ("extract RUN -o DAMAGED", "cannot write DAMAGED: Is a directory"),
        ("extract RUN -o .", "cannot write .: Is a directory"),
        (
            "extract RUN -o RUN/network.aslp",
            "RUN/network.aslp is the file that is read",
        ),
        (f"extract {'x' * 300} -o new", "x: File name too long"),
        ("extract RUN -o new --embed", "unrecognized arguments: --embed"),
        ("inspect NOWHERE", "cannot read NOWHERE: No such file or directory"),
        ("inspect RUN", "cannot read RUN: Is a directory"),
        ("inspect RUN/result.json", "RUN/result.json is no artefact"),
        ("inspect DAMAGED/network.aslp", "its checksum does not match"),
        ("inspect RUN/network.aslp -o new", "--output is where --plot draws"),
        ("inspect RUN/network.aslp --plot -o NOWHERE/new", "cannot write NOWHERE/new"),
        ("inspect RUN/network.aslp --plot -o LINK", "LINK is the file that is read"),
        ("inspect NAMED.png --plot", "NAMED.png is the file that is read"),
        ("export RUN/network.aslp --to tflite -o new", "expected one of onnx, c, stab"),
        ("export RUN/network.aslp --to npz -o new --storage x", "'x'"),
        ("export RUN/network.aslp --to npz -o NOWHERE/new", "cannot write NOWHERE/new"),
        ("export DAMAGED/network.aslp --to npz -o new", "is damaged"),
        ("export RUN/network.aslp --to npz -o LINK", "LINK is the file that is read"),
        ("export NAMED.h --to c -o NAMED.c", "NAMED.h is the file that is read"),
    ],
)
def test_bad_input_is_one_line(line, words, digits, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("RUN").symlink_to(digits.folder)
    Path("LINK").symlink_to(digits.folder / NETWORK)
    for name in ("NAMED.png", "NAMED.h"):
        shutil.copy(digits.folder / NETWORK, name)
    Path("BEGUN").mkdir()
    shutil.copy(digits.folder / "config.json", "BEGUN")
    Path("DAMAGED").mkdir()
    content = bytearray((digits.folder / NETWORK).read_bytes())
    content[len(content) // 2] ^= 1
    (Path("DAMAGED") / NETWORK).write_bytes(content)
    before = sorted(tmp_path.rglob("*"))
    held = sorted(digits.folder.iterdir())
    content = (digits.folder / NETWORK).read_bytes()
    assert main(line.split()) == 2
    out, err = capsys.readouterr()
    assert words in err and err.startswith("aslp-jax: ") and err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
    assert sorted(digits.folder.iterdir()) == held
    assert (digits.folder / NETWORK).read_bytes() == content
    for name in ("NAMED.png", "NAMED.h"):
        assert Path(name).read_bytes() == content
    assert out == "" or "--plot" in line


@pytest.mark.parametrize("embedded", [False, True])
@pytest.mark.parametrize("run", ["digits", "pictures"])
def test_weights_that_are_not_those_it_was_made_of_are_told(
    run, embedded, request, tmp_path, capsys
):
    subnetwork = aslp_jax.load(request.getfixturevalue(run).folder / NETWORK)
    if embedded:
        subnetwork = artefact.embed(subnetwork)
    header, body = container.unpack(encoding.encode(subnetwork))
    (found,) = (each for each in header["arrays"] if each["name"] == "Conv_1/kernel")
    found["sha256"] = "0" * 64
    path = tmp_path / "other.aslp"
    path.write_bytes(container.pack(header, [bytes(body)]))
    assert main(["inspect", str(path), "--plot"]) == 2
    out, err = capsys.readouterr()
    assert "checksum ok, weights regenerate: NO" in out and "Conv_1/kernel" in out
    words = "has 'Conv_1/kernel' with weights of another sha256"
    if run == "pictures" and not embedded:
        words = f"cannot be used here: jax {jax.__version__}"
        assert "'Conv_1/kernel'" in err and "--embed-weights" in err
    assert err.startswith(f"aslp-jax: {path} {words}")
    assert err.count("\n") == 1 and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (
            MemoryError("Unable to allocate 1 GiB"),
            "too little memory here: Unable to allocate 1 GiB",
        ),
        (MemoryError(), "too little memory here: no more can be had"),
        (
            jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: 1 GiB\nin the heap"),
            "JAX cannot do this here: RESOURCE_EXHAUSTED: 1 GiB\n",
        ),
        (RuntimeError("a mistake of the program"), None),
        (AssertionError("a mistake of the program"), None),
    ],
)
def test_what_a_machine_lacks_is_one_line_and_no_mistake_is_hidden(
    error, words, digits, monkeypatch, capsys
):
    def fail(parts: Any) -> None:
        raise error

    monkeypatch.setattr("aslp_jax.artefact.decoding.assemble", fail)
    command = ["inspect", str(digits.folder / NETWORK)]
    if words is None:
        with pytest.raises(type(error), match="a mistake of the program"):
            main(command)
        return
    assert main(command) == 2
    assert capsys.readouterr() == ("", f"aslp-jax: {words}".strip() + "\n")


def test_a_device_that_is_not_there_is_one_line(digits):
    done = subprocess.run(
        [sys.executable, "-m", "aslp_jax", "inspect", digits.folder / NETWORK],
        cwd=ROOT,
        env={**os.environ, "JAX_PLATFORMS": "bogus"},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("aslp-jax: JAX has no device here (JAX_PLATFORMS=bog")
    assert done.stderr.count("\n") == 1


def test_a_terminal_of_few_characters_is_no_bad_input(digits, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr("sys.stdout", shown)
    assert main(["inspect", str(digits.folder / NETWORK)]) == 0
    shown.flush()
    assert b"signed_constant ?0.0" in shown.buffer.getvalue()


def test_a_picture_without_matplotlib_says_what_to_install(
    digits, tmp_path, monkeypatch, capsys
):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    picture = tmp_path / "a.png"
    command = ["inspect", str(digits.folder / NETWORK), "--plot", "-o", str(picture)]
    assert main(command) == 2
    err = capsys.readouterr().err
    assert 'needs the package matplotlib; pip install "aslp-jax[train]"' in err
    assert err.count("\n") == 1 and not picture.exists()


def test_a_finished_run_that_goes_on_has_no_network_until_it_is_finished(
    pictures, tmp_path, capsys
):
    folder = tmp_path / "run"
    shutil.copytree(pictures.folder, folder)
    data, config = pictures.session.run.data, pictures.session.run.config
    again(config, data, folder)
    assert (folder / NETWORK).exists() and (folder / "result.json").exists()
    again(dataclasses.replace(config, epochs=2), data, folder)
    assert not (folder / NETWORK).exists() and not (folder / "result.json").exists()
    assert main(["extract", str(folder), "-o", str(tmp_path / "new")]) == 2
    assert "holds no finished run" in capsys.readouterr().err


def test_help_waits_for_no_jax():
    for line in ("--help", "extract --help", "inspect --help", "export --help"):
        code = (
            "import sys\n"
            "from aslp_jax.cli.main import main\n"
            "try:\n"
            f"    main({line.split()!r})\n"
            "finally:\n"
            "    assert not {'jax', 'numpy', 'flax', 'matplotlib'} & set(sys.modules)\n"
        )
        done = subprocess.run(
            [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True
        )
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout.startswith("usage: aslp-jax")


def test_both_ways_to_start_it(digits, tmp_path):
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg")
    scripts = setup["options.entry_points"]["console_scripts"].split()
    assert scripts == ["aslp-jax", "=", f"{main.__module__}:main"]
    path = tmp_path / "a.aslp"
    done = subprocess.run(
        [sys.executable, "-m", "aslp_jax", "extract", digits.folder, "-o", path],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith(f"{path}: ") and path.exists()
