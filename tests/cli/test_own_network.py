"""`aslp-jax train --model`: a network of one's own, from the file to the export."""

import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from aslp_jax import artefact
from aslp_jax.cli.main import main
from aslp_jax.trainer import own_network
from tests.test_docs import ROOT, blocks

NETS = '''"""Networks of one's own."""

import flax.linen as nn
from flax import nnx


class TinyNet(nn.Module):
    classes: int = 3

    @nn.compact
    def __call__(self, x):
        x = nn.relu(nn.Conv(4, (3, 3), strides=2)(x))
        x = nn.relu(nn.Conv(8, (3, 3), feature_group_count=4)(x))
        return nn.Dense(self.classes)(x.mean((1, 2)))


class TinyNNX(nnx.Module):
    def __init__(self, classes=3, *, rngs):
        self.conv = nnx.Conv(1, 4, (3, 3), strides=2, rngs=rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.dense = nnx.Linear(64, classes, rngs=rngs)

    def __call__(self, x):
        x = nnx.relu(self.norm(self.conv(x)))
        return self.dense(x.reshape(x.shape[0], -1))


class TooLarge(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Conv(3, (99, 99), padding="VALID")(x).mean((1, 2, 3))[:, None] @ x[:3]
'''
LINE = "--data shapes.npz --epochs 1 --batch-size 16 --eval-samples 1 --devices 1"


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """An empty folder with networks and 8x8 images of three classes."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "nets.py").write_text(NETS)
    rng, labels = np.random.default_rng(0), np.arange(60) % 3
    images = rng.integers(0, 80, (60, 8, 8, 1)) + 80 * labels[:, None, None, None]
    images = images.astype(np.uint8)
    np.savez(
        "shapes.npz",
        x_train=images[:48],
        y_train=labels[:48],
        x_test=images[48:],
        y_test=labels[48:],
    )
    return tmp_path


@pytest.fixture
def run(folder, capsys):
    """Runs `aslp-jax` in this folder; returns code, output and errors."""

    def call(line: str) -> tuple[int, str, str]:
        with jax.numpy_dtype_promotion("standard"):
            code = main(line.split())
        return code, *capsys.readouterr()

    return call


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--model none.py:Net", "none.py cannot be read"),
        ("--model nets.py:Net", "no 'Net' there; it has TinyNet, TinyNNX"),
        ("--model nets.py:TinyNet --arch conv4", "give --model or --arch, not both"),
        ("--model nets.py:TinyNet --dtype bfloat16", "--dtype is for the networks of"),
        ("--arch own", "--arch own needs --model"),
        ("--model-args classes=3", "--model-args is for the network of --model"),
        ("--module-init", "--module-init is for the network of --model"),
        (
            "--model nets.py:TinyNNX --model-args classes=4",
            "TinyNNX on shapes cannot be begun: the network returns [1, 4] for one "
            "image; expected [1, 3], a logit for each class",
        ),
        ("--model nets.py:TooLarge", "TooLarge on shapes cannot be begun: "),
    ],
)
def test_refusals_are_one_line_and_write_nothing(run, folder, arguments, words):
    code, _, err = run(f"train {LINE} {arguments} --out r")
    last = err.splitlines()[-1]
    assert code == 2
    assert last.startswith("aslp-jax: ")
    assert words in last
    assert not Path("r").exists()


def compiled_classes(source: Path, images: np.ndarray, folder: Path) -> list[int]:
    """Returns the classes that a C source gives to images."""
    main_c = folder / "main.c"
    main_c.write_text(
        f'#include "{source.stem}.h"\n#include <stdio.h>\n'
        f"static uint8_t image[{source.stem.upper()}_IMAGE_BYTES];\n"
        "int main(void) {\n"
        "  while (fread(image, sizeof image, 1, stdin) == 1) {\n"
        f'    printf("%d\\n", {source.stem}_class(image));\n'
        "  }\n"
        "  return 0;\n"
        "}\n"
    )
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-pedantic"]
    program = folder / "program"
    subprocess.run(["gcc", *flags, source, main_c, "-lm", "-o", program], check=True)
    found = subprocess.run([program], input=images.tobytes(), capture_output=True)
    return [int(line) for line in found.stdout.split()]


@pytest.mark.slow
def test_from_a_module_and_images_to_c(run, folder):
    steps = (
        f"train {LINE} --model nets.py:TinyNet --model-args classes=3 --out r",
        "extract r -o tiny.aslp",
        "export tiny.aslp --model nets.py:TinyNet --to c --storage seed -o tiny.c",
        "inspect tiny.aslp",
    )
    for line in steps:
        code, out, err = run(line)
        assert code == 0, err
    assert "nets.py:TinyNet (classes=3), not of this library" in out
    assert "Conv_1/kernel" in out
    module = own_network.load("nets.py:TinyNet")
    network = artefact.load(folder / "tiny.aslp", net=module)
    images = np.load("shapes.npz")["x_test"]
    expected = np.argmax(network(images), -1).tolist()
    assert compiled_classes(folder / "tiny.c", images, folder) == expected

    code, _, err = run("export tiny.aslp --to c -o other.c")
    assert code == 2
    assert "holds the network nets.py:TinyNet (classes=3), which is not of" in err
    code, _, err = run("export tiny.aslp --model nets.py:TinyNNX --to c -o other.c")
    assert code == 2
    assert "where the network has nothing" in err
    code, _, err = run("export tiny.aslp --model-args classes=3 --to c -o other.c")
    assert code == 2
    assert "give both" in err
    assert not Path("other.c").exists()


@pytest.mark.slow
def test_the_page_leads_to_a_program_that_reads_a_picture(run, folder):
    page = ROOT / "docs" / "own_network.md"
    nets, to_bytes = (
        next(block for block in blocks(page, "python") if words in block)
        for words in ("class TinyNet(nn.Module)", "def to_bytes")
    )
    Path("nets.py").write_text(nets)
    Path("to_bytes.py").write_text(to_bytes)
    (source,) = blocks(page, "c")
    Path("main.c").write_text(source)
    rng = np.random.default_rng(0)
    for index, name in enumerate(("cat", "dog", "fox")):
        Path("photos", name).mkdir(parents=True)
        for number in range(10):
            pixels = rng.integers(0, 100, (40, 50, 3), np.uint8)
            pixels[..., index] += 100
            Image.fromarray(pixels).save(f"photos/{name}/{number}.png")
    for line in (
        "train --model nets.py:TinyNet --data photos --image-size 32 --preset fast "
        "--out run --epochs 1 --batch-size 8 --eval-samples 1 --devices 1",
        "extract run -o tiny.aslp",
        "export tiny.aslp --model nets.py:TinyNet --to c --storage seed -o tiny.c",
    ):
        code, _, err = run(line)
        assert code == 0, err
    (command,) = (
        line for sh in blocks(page, "sh") for line in sh.splitlines() if "cc " in line
    )
    subprocess.run(command.split(), check=True)
    network = artefact.load("tiny.aslp", net=own_network.load("nets.py:TinyNet"))
    names = ("cat", "dog", "fox")
    for name in names:
        read = [sys.executable, "to_bytes.py", f"photos/{name}/1.png"]
        picture = subprocess.run(read, check=True, capture_output=True).stdout
        found = subprocess.run(
            ["./tiny"], input=picture, check=True, capture_output=True
        )
        image = np.frombuffer(picture, np.uint8).reshape(1, 32, 32, 3)
        assert found.stdout.decode() == f"{names[np.argmax(network(image))]}\n"


@pytest.mark.slow
def test_the_network_is_named_and_a_changed_one_is_refused(run, folder):
    model = "--model nets.py:TinyNNX --module-init"
    code, out, err = run(f"train {LINE} {model} --out r")
    assert code == 0, err
    assert "aslp on TinyNNX, shapes" in out
    assert "as one bit a weight, 32 each kept" in out  # no seed gives them again
    options = json.loads(Path("r/config.json").read_text())["options"]
    assert options["model"] == "nets.py:TinyNNX"
    assert len(options["model_sha256"]) == 64
    code, _, err = run("train --out r --resume --epochs 2")
    assert code == 0, err
    (folder / "nets.py").write_text(NETS + "\n")
    code, _, err = run("train --out r --resume --epochs 3")
    assert code == 2
    assert "--model nets.py:TinyNNX has changed: its sha256 was " in err
