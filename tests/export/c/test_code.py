"""C sources, compiled by gcc and run, compute the same as the network."""

import dataclasses
import itertools
import os
import re
import shutil
import subprocess
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import export
from aslp_jax.artefact import embed
from aslp_jax.data import datasets
from aslp_jax.export import c
from aslp_jax.export.c.interface import Interface, Pixels, header
from aslp_jax.export.cost import cost
from aslp_jax.export.network import graph_of
from aslp_jax.export.passes import compact
from aslp_jax.models import NETWORKS, ConvNet
from aslp_jax.models.initialisers import fan_in_uniform
from tests.export import networks
from tests.export.networks import EXAMPLE, random_images, small
from tests.helpers import quick_only

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc, which compiles the exports, is missing"
)

MAIN = """
#include <stdio.h>
#include "net.h"
int main(int count, char **arguments)
{
    static uint8_t image[NET_IMAGE_BYTES];
    float logits[NET_CLASSES];
    (void)arguments;
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {
        if (count > 1) {
            putchar(net_class(image));
        } else {
            net_logits(image, logits);
            fwrite(logits, sizeof logits, 1, stdout);
        }
    }
    return 0;
}
"""
STRICT = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-Wconversion"]
SANITISED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O2"]


def compiled(subnetwork, folder, *flags, **options):
    """Writes the sources and returns the program."""
    export.write(subnetwork, "c", folder / "net.c", **options)
    (folder / "main.c").write_text(MAIN)
    program = folder / "net"
    command = ["gcc", *STRICT, *(flags or ["-O2"]), "-o", program]
    subprocess.run([*command, "main.c", "net.c", "-lm"], cwd=folder, check=True)
    return program


def run(program, images, *arguments):
    done = subprocess.run(
        [program, *arguments], input=images.tobytes(), capture_output=True, check=True
    )
    assert done.stderr == b""
    return done.stdout


def check(program, images, expected, tolerance=2e-5):
    logits = np.frombuffer(run(program, images), np.float32).reshape(len(images), -1)
    size = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 1e-2 * size
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance * size)
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))
    classes = run(program, images[:20], "classes")
    assert list(classes) == expected[:20].argmax(1).tolist()


@pytest.mark.slow
@pytest.mark.parametrize("storage", c.STORAGES)
def test_digits(digits_network, digits_images, digits_logits, tmp_path, storage):
    # Sanitised code is slow, and no branch or address of it depends on a pixel.
    program = compiled(digits_network, tmp_path, *SANITISED, storage=storage)
    check(program, digits_images[::6], digits_logits[::6])


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["signs", "seed"])
def test_all_test_digits(
    digits_network, digits_images, digits_logits, tmp_path, storage
):
    program = compiled(digits_network, tmp_path, storage=storage)
    check(program, digits_images, digits_logits)


def test_digits_fit_256_kilobytes(digits_network, tmp_path):
    flash, ram = {}, {}
    for storage in ("signs", "seed"):
        export.write(digits_network, "c", tmp_path / "net.c", storage=storage)
        # As a microcontroller's linker sees it: no tables of stack frames.
        flags = ["-Os", "-fno-pie", "-fno-asynchronous-unwind-tables"]
        command = ["gcc", *STRICT, *flags, "-c", "net.c"]
        subprocess.run(command, cwd=tmp_path, check=True)
        done = subprocess.run(
            ["size", "net.o"], cwd=tmp_path, check=True, capture_output=True, text=True
        )
        text, data, bss = map(int, done.stdout.splitlines()[1].split()[:3])
        flash[storage], ram[storage] = text + data, data + bss
    assert max(flash.values()) < 256_000 and max(ram.values()) < 64_000
    # One bit a weight, and a few kilobytes of code.
    assert 367_680 / 8 < flash["seed"] < 367_680 / 8 + 4000
    header = (tmp_path / "net.h").read_text()
    assert f"memory between layers: {ram['seed']:,} bytes" in header


@pytest.mark.slow
@pytest.mark.parametrize(
    "name, storage",
    [
        ("mixed", "sparse"),
        ("mixed", "seed"),
        ("conv", "signs"),
        ("conv", "seed"),
        ("vgg", "sparse"),
        ("vgg", "signs"),
        ("vgg", "seed"),
        ("resnet", "sparse"),
        ("resnet", "signs"),
        ("resnet", "dense"),
    ],
)
def test_every_network_and_storage(tmp_path, name, storage):
    program = compiled(small(name), tmp_path, *SANITISED, storage=storage)
    check(program, random_images(), networks.logits(name))


@pytest.mark.slow
def test_gaps_of_more_than_a_byte(digits_network, digits_images, tmp_path):
    # One weight in 600 of the largest layer.
    params = digits_network.variables["params"]
    kernel = np.asarray(params["Dense_0"]["kernel"])
    kept = np.arange(kernel.size).reshape(kernel.T.shape).T % 600 == 0
    kernel = np.where(kept, np.float32(0.5), np.float32(0))
    params = {**params, "Dense_0": {"kernel": jnp.asarray(kernel)}}
    sparse = dataclasses.replace(digits_network, variables={"params": params})
    program = compiled(sparse, tmp_path, storage="sparse", compact=False)
    check(program, digits_images[:50], np.asarray(sparse(digits_images[:50])))


@pytest.mark.slow
def test_images_smaller_than_the_kernels(tmp_path):
    # Where all that a weight meets is padding, of stride 2 too.
    shape = (2, 1, 3)
    subnetwork = small("resnet", shape)
    program = compiled(subnetwork, tmp_path, *SANITISED, storage="signs")
    images = random_images(shape)
    check(program, images, np.asarray(subnetwork(images)))


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["sparse", "signs", "seed"])
def test_a_network_without_kept_weights(tmp_path, storage):
    net = ConvNet(classes=3, stages=(4,), hidden=(5,))
    subnetwork = networks.subnetwork(net, (4, 4, 1), keep=0)
    assert all(weights.kept == 0 for weights in subnetwork.layers.values())
    program = compiled(subnetwork, tmp_path, *SANITISED, storage=storage)
    images = random_images((4, 4, 1), 2)
    assert run(program, images) == bytes(2 * 3 * 4)
    assert run(program, images, "classes") == bytes(2)


@pytest.mark.slow
def test_a_cifar_network_from_its_seed(tmp_path):
    # The whole Conv4, half of its 2.4 million weights.
    net = NETWORKS["conv4"](classes=10, bias_init=fan_in_uniform)
    subnetwork = networks.subnetwork(net, (32, 32, 3), normal=("Conv", "Dense"))
    program = compiled(subnetwork, tmp_path, storage="seed")
    images = random_images((32, 32, 3), 3)
    check(program, images, np.asarray(subnetwork(images)))
    assert program.stat().st_size < 2_425_024 / 8 + 30_000


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("make") is None, reason="make is missing")
def test_the_example_runs_as_its_readme_says(tmp_path, digits_logits):
    folder = tmp_path / "embedded"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("build"))
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE.parents[1])}

    def make(*words):
        done = subprocess.run(
            ["make", f"PYTHON={sys.executable}", *words],
            cwd=folder,
            env=environment,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr
        return done

    done = make()
    # Another compiler compiles again, and only another one.
    assert " -c " not in make("size").stdout
    assert "-O0 " in make("size", "CFLAGS=-O0").stdout
    last = done.stdout.splitlines()[-1]
    readme = (EXAMPLE / "README.md").read_text()
    assert last == "9 of 10 are right" and f"    {last}\n" in readme
    found = re.findall(r"this is a (\d), and the network says (\d)", done.stdout)
    assert [digit for digit, _ in found] == list("0123456789")

    labels = datasets.load("digits").test_labels
    first = [int(np.flatnonzero(labels == digit)[0]) for digit in range(10)]
    classes = digits_logits.argmax(1)
    assert [int(says) for _, says in found] == classes[first].tolist()
    accuracy = np.mean(classes == labels)
    assert f"it reads {accuracy:.1%} rightly".replace("%", " %") in readme


def test_storages_that_cannot_hold_the_weights_are_refused():
    with pytest.raises(
        ValueError, match=r"'Dense_0/kernel' has weights of \d+ magnitudes"
    ):
        c.encode(small("mixed"), "net", storage="signs")
    with pytest.raises(ValueError, match=r"'Conv_0/kernel' has no seed of its weights"):
        c.encode(embed(small("mixed")), "net", storage="seed")


@pytest.mark.parametrize("layer", ["Conv_0", "Dense_0"])
def test_weights_that_are_not_those_of_the_seed_are_refused(layer):
    layers = dict(small("mixed").layers)
    weights = layers[f"{layer}/kernel"]
    words = (weights.recipe.key[0], weights.recipe.key[1] ^ 1)
    other = dataclasses.replace(weights.recipe, key=words)
    layers[weights.name] = dataclasses.replace(weights, recipe=other)
    subnetwork = dataclasses.replace(small("mixed"), layers=layers)
    with pytest.raises(ValueError, match=f"'{weights.name}' differs from what its see"):
        c.encode(subnetwork, "net", storage="seed")


def test_normal_weights_of_another_size_are_refused():
    layers = dict(small("mixed").layers)
    weights = layers["Dense_0/kernel"]
    layers[weights.name] = dataclasses.replace(weights, frozen=weights.frozen * 1.01)
    subnetwork = dataclasses.replace(small("mixed"), layers=layers)
    with pytest.raises(ValueError, match="'Dense_0/kernel' differs from what its seed"):
        c.encode(subnetwork, "net", storage="seed")


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is missing")
def test_the_header_serves_cpp(tmp_path):
    export.write(small("conv"), "c", tmp_path / "net.c", storage="signs")
    subprocess.run(["gcc", *STRICT, "-c", "net.c"], cwd=tmp_path, check=True)
    text = '#include "net.h"\nstatic const uint8_t image[NET_IMAGE_BYTES] = {};\n'
    text += "int main() { return net_class(image) >= NET_CLASSES; }\n"
    (tmp_path / "user.cpp").write_text(text)
    command = ["g++", "-Wall", "-Wextra", "-Werror", "user.cpp", "net.o", "-o", "user"]
    subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "user"], check=True)


def test_the_header_names_the_type_of_a_logit(tmp_path):
    """A program serves a network of floats and one of integers without a change."""
    export.write(small("conv"), "c", tmp_path / "net.c")
    head = (tmp_path / "net.h").read_text()
    assert "typedef float net_logit;" in head and "#define NET_INTEGERS 0" in head
    assert "net_logit logits[NET_CLASSES]);" in head
    integers = Interface("net", (4, 4, 1), (10,), Pixels(), True, "int16_t")
    head = header(integers, [])
    assert "typedef int16_t net_logit;" in head and "#define NET_INTEGERS 1" in head
    assert "net_input" not in head
    head = header(integers._replace(classes=False, number="float"), [])
    assert "typedef float net_output;" in head and "net_output output[" in head
    head = header(integers._replace(pixels=None, taken="int8_t", taken_scale=0.5), [])
    assert (
        "of the input, of which 1 stands for 0.5. */\ntypedef int8_t net_input" in head
    )
    assert "const net_input image[NET_INPUTS]" in head


NAMES_MAIN = """
#include <stdio.h>
#include "net.h"
static const char *const names[] = NET_CLASS_NAMES;
int main()
{
    const int count = sizeof names / sizeof *names;
    for (int i = 0; i < count; i++) {
        puts(names[i]);
    }
    return count != NET_CLASSES;
}
"""


@pytest.mark.parametrize("compiler", ["gcc", "g++"])
@pytest.mark.parametrize("activations", ["float32", "int8"])
def test_the_header_lists_the_classes_for_a_program_that_asks(
    tmp_path, compiler, activations
):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is missing")
    names = ("cat", 'a "dog"\\', "caf\xe9 1??/", "*/ #error %d")
    plain = small("conv")
    about = dataclasses.replace(plain.description, class_names=names)
    named = dataclasses.replace(plain, description=about)
    calibration = None if activations == "float32" else random_images()
    options = {"activations": activations, "calibration": calibration}
    files = c.encode(named, "net", **options).files
    assert files[".h"].isascii()
    (tmp_path / "net.h").write_bytes(files[".h"])
    (tmp_path / "main.c").write_text(NAMES_MAIN)
    flags = STRICT if compiler == "gcc" else STRICT[1:]
    command = [compiler, *flags, "main.c", "-o", "names"]
    subprocess.run(command, cwd=tmp_path, check=True)
    listed = subprocess.run([tmp_path / "names"], check=True, capture_output=True)
    assert tuple(listed.stdout.decode().splitlines()) == names

    # Nobody else pays: the source is the same, and the header has one macro more.
    without = c.encode(plain, "net", **options).files
    assert files[".c"] == without[".c"]
    assert b"CLASS_NAMES" not in without[".h"]
    shorter = re.sub(rb"\n/\* Names of.*?\n}\n", b"", files[".h"], flags=re.DOTALL)
    assert shorter == without[".h"]
    head = header(Interface("net", (4,), (3,), None, False, class_names=names), [])
    assert "CLASS_NAMES" not in head


LANGUAGES = {
    "gcc": ("c99", "c11", "c17", "gnu11"),
    "g++": ("c++11", "c++17", "gnu++11", "gnu++17"),
    "clang": ("c99", "c11", "c17", "gnu11"),
    "clang++": ("c++11", "c++17", "gnu++11", "gnu++17"),
}
"""Standards that a source keeps to, by compiler; Arduino's are gnu11 and gnu++11/17."""


@pytest.mark.parametrize(
    ("storage", "compiler"),
    quick_only(
        itertools.product(c.STORAGES, LANGUAGES),
        *((storage, "g++") for storage in c.STORAGES),
        *(("signs", compiler) for compiler in LANGUAGES),
    ),
)
def test_a_source_keeps_to_every_standard(tmp_path, storage, compiler):
    if shutil.which(compiler) is None:
        pytest.skip(f"{compiler} is missing")
    name = "resnet" if storage in ("sparse", "dense") else "conv"
    export.write(small(name), "c", tmp_path / "net.c", storage=storage)
    language = ["-xc++"] if compiler.endswith("++") else ["-xc"]
    for standard in LANGUAGES[compiler]:
        flags = [f"-std={standard}", "-fsyntax-only", *language, *STRICT[1:]]
        subprocess.run([compiler, *flags, "net.c"], cwd=tmp_path, check=True)


ARDUINO_H = """
#include <math.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#define HIGH 0x1
#define LOW 0x0
#define INPUT 0x0
#define OUTPUT 0x1
#define PI 3.1415926535897932384626433832795
#define F_CPU 16000000L
#define B0 0
#define B1 1
#define bit(b) (1UL << (b))
#define sq(x) ((x) * (x))
#define constrain(x, low, high) ((x) < (low) ? (low) : ((x) > (high) ? (high) : (x)))
#define interrupts() sei()
typedef uint8_t byte;
typedef unsigned int word;
void setup(void);
void loop(void);
"""
SKETCH = """
#include "Arduino.h"
#include "net.h"
static uint8_t image[NET_IMAGE_BYTES];
static float logits[NET_CLASSES];
static int found = -1;
void setup() { memset(image, 7, sizeof image); }
void loop()
{
    net_logits(image, logits);
    found = net_class(image);
}
int main() { setup(); loop(); return found >= 0 && found < NET_CLASSES ? 0 : 1; }
"""


@pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is missing")
@pytest.mark.parametrize(
    ("storage", "suffix"),
    quick_only(
        itertools.product(c.STORAGES, ["c", "cpp"]), ("seed", "c"), ("signs", "cpp")
    ),
)
def test_a_source_is_part_of_an_arduino_sketch(tmp_path, storage, suffix):
    """A sketch is C++; beside it the source is C, or C++ if a person renames it."""
    name = "resnet" if storage in ("sparse", "dense") else "conv"
    export.write(small(name), "c", tmp_path / "net.c", storage=storage)
    if suffix == "cpp":
        (tmp_path / "net.c").rename(tmp_path / "net.cpp")
    (tmp_path / "Arduino.h").write_text(ARDUINO_H)
    (tmp_path / "sketch.ino").write_text(SKETCH)
    # The macros of a board's header are there in every file of some boards.
    strict = [*STRICT[1:], "-include", "Arduino.h", "-fno-exceptions", "-Os", "-c"]
    sketch = ["g++", "-std=gnu++11", *strict, "-xc++", "sketch.ino", "-o", "sketch.o"]
    compiler = {"c": ["gcc", "-std=gnu11"], "cpp": ["g++", "-std=gnu++11"]}[suffix]
    source = [*compiler, *strict, f"net.{suffix}", "-o", "net.o"]
    for command in (sketch, source, ["g++", "sketch.o", "net.o", "-lm", "-o", "run"]):
        subprocess.run(command, cwd=tmp_path, check=True)
    subprocess.run([tmp_path / "run"], check=True)


def test_what_a_file_says_of_itself_stays_in_the_comment(tmp_path):
    hostile = {"arch": "*/ #error a /*", "dataset": "data/*.png \\", "accuracies": {}}
    about = dataclasses.replace(small("conv").description, **hostile)
    subnetwork = dataclasses.replace(small("conv"), description=about)
    program = compiled(subnetwork, tmp_path, storage="signs")
    check(program, random_images(), networks.logits("conv"))
    assert "__ _error a __, 4 classes" in (tmp_path / "net.h").read_text()


def test_the_header_says_what_there_is_to_know(digits_network):
    accuracies = {"averaging_std": 0.01, "thresholding": 0.9778}
    about = dataclasses.replace(digits_network.description, accuracies=accuracies)
    subnetwork = dataclasses.replace(digits_network, description=about)
    header = c.encode(subnetwork, "net", storage="sparse").files[".h"].decode()
    assert "accuracy on the test images: 97.78%\n" in header
    assert "averaging" not in header and "-lm" not in header
    graph = graph_of(digits_network.net, digits_network.variables, (8, 8, 1))
    kept = cost(compact(graph)).nonzero_multiply_adds
    assert f"an image takes {kept:,} multiply-adds" in header
    header = c.encode(small("mixed"), "net", storage="seed").files[".h"].decode()
    assert "link with -lm" in header and "multiply-adds" in header
