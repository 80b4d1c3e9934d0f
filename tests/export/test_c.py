"""The C sources, compiled by gcc and run: they compute what the network computes."""

import dataclasses
import functools
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP, EdgePopup, Masked, Signed, export, load
from aslp_jax.artefact import Description, embed, extract
from aslp_jax.data import datasets
from aslp_jax.export import graph as graphs
from aslp_jax.export.c import code as c
from aslp_jax.export.c import layers, memory
from aslp_jax.export.c.weights import pack
from aslp_jax.export.describe import describe
from aslp_jax.export.passes import compact
from aslp_jax.models import NETWORKS, ConvNet
from aslp_jax.models.initialisers import (
    fan_in_uniform,
    kaiming_constant,
    kaiming_normal,
    signed_constant,
)
from aslp_jax.models.resnet import ResNet
from aslp_jax.models.vgg import VGG

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
STORAGES = ("sparse", "signs", "seed", "dense")


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


def check(program, subnetwork, images, tolerance=2e-5):
    logits = np.frombuffer(run(program, images), np.float32).reshape(len(images), -1)
    expected = np.asarray(subnetwork(images))
    size = np.abs(expected).max()
    assert np.ptp(expected, axis=0).max() > 1e-2 * size
    np.testing.assert_allclose(logits, expected, rtol=0, atol=tolerance * size)
    np.testing.assert_array_equal(logits.argmax(1), expected.argmax(1))
    classes = run(program, images[:20], "classes")
    assert list(classes) == expected[:20].argmax(1).tolist()


@pytest.mark.parametrize("storage", STORAGES)
def test_all_test_digits(digits_network, tmp_path, storage):
    images = datasets.load("digits").test_images
    assert len(images) == 360
    program = compiled(digits_network, tmp_path, *SANITISED, storage=storage)
    check(program, digits_network, images)


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


SIGNED = signed_constant(kaiming_normal())
SMALL = {
    # As the code published with the paper: constants in convolutions alone.
    "mixed": (
        ConvNet(stages=(5, 6), classes=4, hidden=(9,), conv_init=SIGNED),
        Signed(logit_std=1.0),
    ),
    "conv": (
        ConvNet(
            stages=(5, 6),
            classes=4,
            hidden=(9,),
            conv_init=kaiming_constant(),
            dense_init=kaiming_constant(),
        ),
        Signed(logit_std=1.0, scale_init=1.3),
    ),
    # Few enough that units are cut off, which batch-norm makes constants of.
    "vgg": (
        VGG(stages=((16, 16), (16,)), classes=4, conv_init=SIGNED, dense_init=SIGNED),
        EdgePopup(keep_fraction=0.04, rescale="fan"),
    ),
    "resnet": (
        ResNet(stages=(4, 6), classes=4, conv_init=SIGNED, dense_init=SIGNED),
        ASLP(logit_std=1.0),
    ),
}


@functools.cache
def small(name, shape=(9, 8, 3)):
    """A small network with biases and statistics that are not those of the start."""
    net, method = SMALL[name]
    net = net.clone(bias_init=fan_in_uniform)
    model, key = Masked(net, method), jax.random.key(len(name))
    variables = jax.jit(model.init)(key, jnp.zeros((1, *shape)))
    stats = variables.get("batch_stats", {})
    if stats:
        rng = np.random.default_rng(0)
        stats = jax.tree_util.tree_map_with_path(
            lambda path, leaf: jnp.asarray(
                rng.uniform(0.3, 2, leaf.shape)
                if path[-1].key == "var"
                else rng.uniform(-0.5, 0.2, leaf.shape),
                jnp.float32,
            ),
            stats,
        )
        variables = {**variables, "batch_stats": stats}
    about = Description(name, 4, shape, mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    return extract(model, variables, about, key=key)


def pictures(shape=(9, 8, 3), count=20):
    return np.random.default_rng(1).integers(0, 256, (count, *shape), np.uint8)


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
    check(program, small(name), pictures())


def test_gaps_of_more_than_a_byte(digits_network, tmp_path):
    # One weight in 600 of the largest layer.
    params = digits_network.variables["params"]
    kernel = np.asarray(params["Dense_0"]["kernel"])
    kept = np.arange(kernel.size).reshape(kernel.T.shape).T % 600 == 0
    kernel = np.where(kept, np.float32(0.5), np.float32(0))
    params = {**params, "Dense_0": {"kernel": jnp.asarray(kernel)}}
    sparse = dataclasses.replace(digits_network, variables={"params": params})
    program = compiled(sparse, tmp_path, storage="sparse", compact=False)
    check(program, sparse, datasets.load("digits").test_images[:50])


def test_images_smaller_than_the_kernels(tmp_path):
    # Where all that a weight meets is padding, of stride 2 too.
    shape = (2, 1, 3)
    subnetwork = small("resnet", shape)
    program = compiled(subnetwork, tmp_path, *SANITISED, storage="signs")
    check(program, subnetwork, pictures(shape))


@pytest.mark.parametrize("storage", ["sparse", "signs", "seed"])
def test_a_network_of_which_nothing_is_kept(tmp_path, storage):
    net = ConvNet(classes=3, stages=(4,), hidden=(5,))
    constant = kaiming_constant()
    net = net.clone(conv_init=constant, dense_init=constant)
    model, key = Masked(net, ASLP()), jax.random.key(0)
    variables = model.init(key, jnp.zeros((1, 4, 4, 1)))
    subnetwork = extract(model, variables, Description("x", 3, (4, 4, 1)), key=key)
    assert all(entry.kept == 0 for entry in subnetwork.entries.values())
    program = compiled(subnetwork, tmp_path, *SANITISED, storage=storage)
    images = pictures((4, 4, 1), 2)
    assert run(program, images) == bytes(2 * 3 * 4)
    assert run(program, images, "classes") == bytes(2)


def test_a_cifar_network_from_its_seed(tmp_path):
    # The whole Conv4, half of its 2.4 million weights.
    net = NETWORKS["conv4"](classes=10, bias_init=fan_in_uniform)
    model, key = Masked(net, ASLP(logit_std=1.0)), jax.random.key(5)
    variables = jax.jit(model.init)(key, jnp.zeros((1, 32, 32, 3)))
    about = Description("conv4", 10, (32, 32, 3))
    subnetwork = extract(model, variables, about, key=key)
    program = compiled(subnetwork, tmp_path, storage="seed")
    check(program, subnetwork, pictures((32, 32, 3), 3))
    assert program.stat().st_size < 2_425_024 / 8 + 30_000


DRAW = """
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include "bits.c"
#include "weights_seed.c"
#include "normal.c"
int main(void)
{
    static const uint32_t key[2] = {KEY};
    for (uint32_t index = 0; index < COUNT; index++) {
        const float number = normal(random_word(key, index));
        fwrite(&number, sizeof number, 1, stdout);
    }
    return 0;
}
"""


def test_normal_numbers_are_those_of_jax(tmp_path, key):
    count = 300_000
    expected = np.asarray(jax.random.normal(key, (count,)))
    words = ", ".join(f"{word}u" for word in jax.random.key_data(key).tolist())
    text = DRAW.replace("KEY", words).replace("COUNT", str(count))
    (tmp_path / "draw.c").write_text(text)
    runtime = pathlib.Path(c.__file__).parent / "runtime"
    flags = ["-std=c99", "-O2", "-Wno-unused-function", f"-I{runtime}"]
    command = ["gcc", *flags, "draw.c", "-o", "draw", "-lm"]
    subprocess.run(command, cwd=tmp_path, check=True)
    found = np.frombuffer(run(tmp_path / "draw", np.zeros(0)), np.float32)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7)
    assert np.abs(expected).max() > 4.4  # far into the tails


EXAMPLE = pathlib.Path(__file__).parents[2] / "examples" / "embedded"


@pytest.mark.skipif(shutil.which("make") is None, reason="make is missing")
def test_the_example_runs_as_its_readme_says(tmp_path):
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

    subnetwork, data = load(EXAMPLE / "digits.aslp"), datasets.load("digits")
    first = [int(np.flatnonzero(data.test_labels == digit)[0]) for digit in range(10)]
    logits = np.asarray(subnetwork(data.test_images))
    assert [int(says) for _, says in found] == logits[first].argmax(1).tolist()
    accuracy = np.mean(logits.argmax(1) == data.test_labels)
    assert f"it reads {accuracy:.1%} rightly".replace("%", " %") in readme


def test_storages_that_cannot_hold_the_weights_are_refused():
    with pytest.raises(ValueError, match=r"'Dense_0' has weights of \d+ magnitudes"):
        c.encode(small("mixed"), "net", storage="signs")
    with pytest.raises(ValueError, match=r"'Conv_0/kernel' has no seed that its weig"):
        c.encode(embed(small("mixed")), "net", storage="seed")


@pytest.mark.parametrize("layer", ["Conv_0", "Dense_0"])
def test_weights_that_are_not_those_of_the_seed_are_refused(layer):
    entries = dict(small("mixed").entries)
    entry = entries[f"{layer}/kernel"]
    words = (entry.recipe.key[0], entry.recipe.key[1] ^ 1)
    other = dataclasses.replace(entry.recipe, key=words)
    entries[entry.name] = dataclasses.replace(entry, recipe=other)
    subnetwork = dataclasses.replace(small("mixed"), entries=entries)
    with pytest.raises(ValueError, match=f"'{entry.name}' is not what its seed gives"):
        c.encode(subnetwork, "net", storage="seed")


def test_normal_weights_of_another_size_are_refused():
    entries = dict(small("mixed").entries)
    entry = entries["Dense_0/kernel"]
    entries[entry.name] = dataclasses.replace(entry, frozen=entry.frozen * 1.01)
    subnetwork = dataclasses.replace(small("mixed"), entries=entries)
    with pytest.raises(ValueError, match="'Dense_0/kernel' is not what its seed gives"):
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


def test_what_a_file_says_of_itself_stays_in_the_comment(tmp_path):
    hostile = {"arch": "*/ #error a /*", "dataset": "data/*.png \\", "accuracies": {}}
    about = dataclasses.replace(small("conv").description, **hostile)
    subnetwork = dataclasses.replace(small("conv"), description=about)
    program = compiled(subnetwork, tmp_path, storage="signs")
    check(program, subnetwork, pictures())
    assert "__ _error a __, 4 classes" in (tmp_path / "net.h").read_text()


def test_the_header_says_what_there_is_to_know(digits_network):
    accuracies = {"averaging_std": 0.01, "thresholding": 0.9778}
    about = dataclasses.replace(digits_network.description, accuracies=accuracies)
    subnetwork = dataclasses.replace(digits_network, description=about)
    header = c.encode(subnetwork, "net", storage="sparse").files[".h"].decode()
    assert "accuracy on the test images: 97.78%\n" in header
    assert "averaging" not in header and "-lm" not in header
    graph = describe(digits_network.net, digits_network.variables, (8, 8, 1))
    kept = graphs.cost(compact(graph)).nonzero_multiply_adds
    assert f"an image takes {kept:,} multiply-adds" in header
    header = c.encode(small("mixed"), "net", storage="seed").files[".h"].decode()
    assert "link with -lm" in header and "multiply-adds" in header


@pytest.mark.parametrize("keep, units", [(0.02, 13), (0.5, 8), (0.0, 3)])
def test_the_additions_of_dense_signs_are_counted(tmp_path, keep, units):
    # Counted by the C code itself, a bit read being a weight that is added.
    rng = np.random.default_rng(0)
    mask = rng.random((3, 3, 5, 1)) < keep
    kernel = np.where(mask, np.sign(rng.normal(size=(3, 3, 5, units))), 0)
    layer = graphs.Conv("Dense_0", kernel.astype(np.float32), dense=True)
    table = pack(layer, None, "signs")
    runtime = pathlib.Path(c.__file__).parent / "runtime"
    text = "#include <stdint.h>\n#include <stdio.h>\nstatic int32_t summands;\n"
    for file in ("bits", "weights_signs", "layer", "sum_signs"):
        text += (runtime / f"{file}.c").read_text()
    text = text.replace("sum += choices", "summands++;\n            sum += choices")
    text = text[: text.index("static void add_next")]
    text += "\n".join(layers.constants(layer, (3, 3, 5), table))
    text += f"""
    int main(void)
    {{
        static const float in[45];
        struct cursor cursor = start(&dense_0.weights);
        for (int32_t unit = 0; unit < {units}; unit++) {{
            dense_sum(&dense_0, &cursor, in, unit);
        }}
        printf("%d", (int)summands);
        return 0;
    }}
    """
    (tmp_path / "count.c").write_text(text)
    command = ["gcc", "-std=c99", "count.c", "-o", "count"]
    subprocess.run(command, cwd=tmp_path, check=True)
    assert int(run(tmp_path / "count", np.zeros(0))) == table.summands
    kept = np.count_nonzero(kernel)
    assert kept <= table.summands <= kernel.size
    assert table.summands < kernel.size / 2 or keep == 0.5


@pytest.mark.parametrize("name", ["conv", "vgg", "resnet"])
def test_no_value_is_overwritten_before_its_last_use(name):
    subnetwork = small(name)
    graph = describe(subnetwork.net, subnetwork.variables, (9, 8, 3))
    plan = memory.plan(graph)
    sizes = [math.prod(shape) for shape in graph.shapes]
    owner = np.full(plan.size, -1)  # of each float

    def part(value):
        begin = plan.values[value]
        assert begin + sizes[value] <= plan.size
        return owner[begin : begin + sizes[value]]

    part(0)[:] = 0
    for step, node in enumerate(graph.nodes):
        assert all((part(value) == value).all() for value in node.inputs)
        sums = owner[:0]
        if isinstance(node.layer, graphs.Conv) and node.layer.pool:
            shape = graphs.summed_shape(node.layer, graph.shapes[node.inputs[0]])
            begin, size = plan.scratch[step], math.prod(shape[:2])
            sums = owner[begin : begin + size]
            assert sums.size == size
            sums[:] = -2
        if step + 1 < len(graph.nodes):
            part(step + 1)[:] = step + 1
        assert (sums == -2).all()
        # A sum may be written where one of its own inputs was.
        if not isinstance(node.layer, graphs.Add):
            assert all((part(value) == value).all() for value in node.inputs)


def test_memory_of_a_chain_is_that_of_its_widest_step(digits_network):
    graph = describe(digits_network.net, digits_network.variables, (8, 8, 1))
    # The image, what the first layer makes of it, what the second one pools of that.
    assert memory.plan(graph).size == 64 + 4096 + 1024
