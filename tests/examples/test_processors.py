"""The same C on processors that differ in the order of bytes and the size of a word.

User-mode emulators run programs for Linux on s390x (big-endian, 64 bits) and on armhf
(little-endian, 32 bits). Every compiler and sign of `char` gives the same program.
"""

import functools
import subprocess
from pathlib import Path

import numpy as np
import pytest

import aslp_jax
from aslp_jax import export
from aslp_jax.data import datasets
from benchmarks.target_boards import missing_tools
from tests.examples.processors import HOST, STRICT, Outputs, Processor, run
from tests.export.networks import EXAMPLE, random_images, small
from tests.helpers import quick_only

pytestmark = pytest.mark.skipif(bool(missing_tools("gcc")), reason=missing_tools("gcc"))

STORAGES = ("seed", "signs", "sparse", "dense")


OTHERS = {
    # ISO C on s390x computes floats as doubles, which GNU C does not.
    "s390x": Processor(
        *("s390x-linux-gnu-gcc", "qemu-s390x", ">"),
        flags=("-std=c99", "-fexcess-precision=fast"),
    ),
    "armhf": Processor("arm-linux-gnueabihf-gcc", "qemu-arm"),
    "clang": Processor("clang"),
    "g++": Processor("g++", flags=("-xc++", "-std=c++11")),
    "clang++": Processor("clang++", flags=("-xc++", "-std=c++11")),
    "signed char": Processor("gcc", flags=("-std=c99", "-fsigned-char")),
    "unsigned char": Processor("gcc", flags=("-std=c99", "-funsigned-char")),
}


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """Function that writes a small network and returns its folder and its outputs."""

    @functools.cache
    def write(storage: str, activations: str) -> tuple[Path, Outputs]:
        folder = tmp_path_factory.mktemp(storage)
        # Of batch-norm, pools and additions, or of signs alone.
        name = "resnet" if storage in ("sparse", "dense") else "conv"
        export.write(
            small(name),
            "c",
            folder / "network.c",
            storage=storage,
            activations=activations,
            calibration=None if activations == "float32" else random_images(),
        )
        return folder, run(HOST, folder, random_images())

    return write


def assert_equal(found: Outputs, expected: Outputs) -> None:
    """Checks every bit; a zero has one sign."""
    np.testing.assert_array_equal(found.logits, expected.logits)
    np.testing.assert_array_equal(found.classes, expected.classes)
    np.testing.assert_array_equal(found.classes, found.logits.argmax(1))
    assert np.ptp(found.logits, axis=0).max() > 1e-2


@pytest.mark.parametrize(
    "name, storage, activations",
    quick_only(
        [
            (name, storage, activations)
            for name, other in OTHERS.items()
            for activations in ("float32", "int8", "int16")
            # A compiler has less to differ in than a processor.
            for storage in (STORAGES if other.emulator else ("seed", "sparse"))
            if other.emulator or activations != "int16"
        ],
        ("s390x", "seed", "int8"),
        ("unsigned char", "seed", "int8"),
    ),
)
def test_small_networks_are_the_same_to_the_bit(name, storage, activations, sources):
    folder, expected = sources(storage, activations)
    assert_equal(run(OTHERS[name], folder, random_images()), expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, activations, storage",
    [
        ("s390x", "int8", "seed"),
        ("s390x", "float32", "signs"),
        ("armhf", "int8", "signs"),
        ("armhf", "float32", "sparse"),
    ],
)
def test_digits_are_the_same_to_the_bit(name, activations, storage, tmp_path):
    network, digits = aslp_jax.load(EXAMPLE / "digits.aslp"), datasets.load("digits")
    options = {"storage": storage, "activations": activations}
    if activations != "float32":
        options["calibration"] = digits.train_images
    export.write(network, "c", tmp_path / "network.c", **options)
    # Emulated floats take long; small networks of all storages are compared above.
    images = digits.test_images[: 360 if activations == "int8" else 36]
    expected = run(HOST, tmp_path, images)
    assert_equal(run(OTHERS[name], tmp_path, images), expected)


@pytest.mark.parametrize("activations", ["float32", "int8"])
@pytest.mark.parametrize("storage", quick_only(STORAGES, "seed"))
def test_nothing_converts_unseen(storage, activations, sources):
    """What makes a sign or a width of a number change is written out."""
    folder, _ = sources(storage, activations)
    more = ["-Wsign-conversion", "-Wshadow", "-Wcast-qual", "-Wundef", "-Wvla"]
    command = ["gcc", "-std=c99", *STRICT, *more, "-fsyntax-only", "network.c"]
    subprocess.run(command, cwd=folder, check=True)
