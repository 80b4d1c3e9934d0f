"""Two small runs, and two networks that took no training."""

import dataclasses
import functools
import shutil
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP, Masked, artefact, models
from aslp_jax.artefact import NETWORK
from aslp_jax.cli.main import main
from aslp_jax.data import datasets
from aslp_jax.models import initialisers
from aslp_jax.trainer.signals import STOPPING
from tests.cli.runs import FinishedRun, train_run

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Puts the handlers of signals back, which a program at its end does not."""
    before = {number: signal.getsignal(number) for number in STOPPING}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def digits(tmp_path_factory) -> FinishedRun:
    """Conv2 of signed constants, on a third of the digits."""
    digits = datasets.load("digits")
    data = dataclasses.replace(
        digits,
        train_images=digits.train_images[:544],
        train_labels=digits.train_labels[:544],
        test_images=digits.test_images[:100],
        test_labels=digits.test_labels[:100],
        validation=32,
    )
    line = "--dataset digits --arch conv2 --preset fast --epochs 1 --eval-samples 2"
    return train_run(line, data, tmp_path_factory.mktemp("runs") / "digits")


@pytest.fixture(scope="session")
def noise(tmp_path_factory) -> FinishedRun:
    """Conv2 of Kaiming normal weights with biases, on standardised colour images."""
    rng = np.random.default_rng(0)
    shades = rng.integers(0, 256, (10, 1, 1, 3))
    labels = np.arange(50, dtype=np.int32) % 10
    images = shades[labels] + rng.integers(-60, 60, (50, 12, 12, 3))
    images = np.clip(images, 0, 255).astype(np.uint8)
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
        source="noise",
    )
    line = (
        "--arch conv2 --preset released_code --batch-size 8 --epochs 1 "
        "--signed-constant none --eval-samples 2 --logit-std 3"
    )
    return train_run(line, data, tmp_path_factory.mktemp("runs") / "noise")


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of noise in two shades, so few that an epoch takes no time."""
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 2
    pixels = rng.integers(0, 128, (60, 8, 8), np.uint8) + 100 * labels[:, None, None]
    file = tmp_path_factory.mktemp("images") / "noise.npz"
    halves = {"x_train": pixels[:40], "y_train": labels[:40]}
    halves |= {"x_test": pixels[40:], "y_test": labels[40:]}
    np.savez(file, **{k: v.astype(np.uint8) for k, v in halves.items()})
    return file


@pytest.fixture(scope="session")
def signed() -> Path:
    """An artefact of signed constants."""
    return ROOT / "examples" / "embedded" / "digits.aslp"


@pytest.fixture(scope="session")
def normal(tmp_path_factory) -> Path:
    """An artefact of Kaiming normal weights with biases, for standardised images."""
    kaiming, shape = initialisers.kaiming_normal(), (12, 12, 3)
    net = models.Conv2(
        classes=10,
        conv_init=kaiming,
        dense_init=kaiming,
        bias_init=initialisers.fan_in_uniform,
    )
    model, key = Masked(net, ASLP(logit_std=1.0)), jax.random.key(0)
    init = jax.jit(functools.partial(model.init, train=False))
    variables = init(key, jnp.zeros((1, *shape)))
    description = artefact.Description(
        "conv2",
        10,
        shape,
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
        dataset="cifar10",
        method="aslp",
        seed=0,
        accuracies={"thresholding": 0.125, "single": 0.25},
    )
    path = tmp_path_factory.mktemp("normal") / "network.aslp"
    artefact.save(artefact.extract(model, variables, description, key=key), path)
    return path


@pytest.fixture(scope="session")
def run_folder(signed, tmp_path_factory) -> Path:
    """A folder with the network and the options of a finished run, and no more."""
    folder = tmp_path_factory.mktemp("runs") / "finished"
    folder.mkdir()
    shutil.copy(signed, folder / NETWORK)
    (folder / "config.json").write_text("{}")
    return folder


@pytest.fixture
def refused(run_folder, tmp_path, monkeypatch, capsys) -> Callable[[str, str], None]:
    """Runs a command and checks for one line of error, and that no file changed."""
    monkeypatch.chdir(tmp_path)
    network = run_folder / NETWORK
    Path("RUN").symlink_to(run_folder)
    Path("LINK").symlink_to(network)
    for name in ("NAMED.png", "NAMED.h"):
        shutil.copy(network, name)
    Path("BEGUN").mkdir()
    shutil.copy(run_folder / "config.json", "BEGUN")
    Path("DAMAGED").mkdir()
    content = network.read_bytes()
    damaged = bytearray(content)
    damaged[len(damaged) // 2] ^= 1
    (Path("DAMAGED") / NETWORK).write_bytes(damaged)

    def check(line: str, words: str) -> None:
        files = sorted(tmp_path.rglob("*")), sorted(run_folder.iterdir())
        assert main(line.split()) == 2
        out, err = capsys.readouterr()
        assert words in err and err.startswith("aslp-jax: ") and err.count("\n") == 1
        assert (sorted(tmp_path.rglob("*")), sorted(run_folder.iterdir())) == files
        for path in (network, Path("NAMED.png"), Path("NAMED.h")):
            assert path.read_bytes() == content
        assert out == "" or "--plot" in line

    return check
