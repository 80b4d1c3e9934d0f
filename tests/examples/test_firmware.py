"""Firmwares of the examples, run on emulated boards.

`benchmarks.target_boards` builds and runs them. Small sources with known costs take the
place of a network where the measurement itself is tested.
"""

import shutil
import subprocess
import sys

import numpy as np
import pytest

import aslp_jax
from aslp_jax import export
from aslp_jax.data import datasets
from aslp_jax.export import passes
from aslp_jax.export.integer import reference
from aslp_jax.export.integer.build import integer_graph
from aslp_jax.export.network import graph_of
from aslp_jax.models import ConvNet
from benchmarks import target_boards
from benchmarks.target_boards import BOARDS, CORTEX_M4, M0_STAND_IN, MICROBIT
from tests.examples.processors import HOST, run
from tests.export.networks import EXAMPLE, random_images, small, subnetwork
from tests.helpers import quick_only

TOOLS = ("arm-none-eabi-gcc", "qemu-system-arm", "make", "gcc")
pytestmark = pytest.mark.skipif(
    bool(target_boards.missing_tools(*TOOLS)),
    reason=target_boards.missing_tools(*TOOLS),
)
EACH_BOARD = pytest.mark.parametrize("board", BOARDS.values(), ids=BOARDS)

HEADER = """
#ifndef NETWORK_H
#define NETWORK_H
#include <stdint.h>
#define NETWORK_IMAGE_BYTES 4
#define NETWORK_CLASSES 1
typedef int16_t network_logit;
void network_logits(const uint8_t image[4], network_logit logits[1]);
#endif
"""
LOOPS = """
#include "network.h"
/* Two instructions for each of as many rounds as the image says. */
void network_logits(const uint8_t image[4], network_logit logits[1])
{
    uint32_t rounds = image[0] | image[1] << 8 | (uint32_t)image[2] << 16;
    __asm__ volatile("1: sub %0, %0, #1\\n\\tcmp %0, #0\\n\\tbne 1b" : "+l"(rounds));
    logits[0] = (network_logit)rounds;
}
"""
MEMORY = """
#include "network.h"
static uint8_t zeros[200];
static uint8_t numbers[100] = {1, 2, 3};
static const uint8_t table[1000] = {4, 5, 6};
void network_logits(const uint8_t image[4], network_logit logits[1])
{
    volatile uint8_t local[3000];
    for (int index = 0; index < 3000; index++) {
        local[index] = image[0];
    }
    zeros[image[0]]++;
    numbers[image[1]]++;
    logits[0] = (network_logit)(local[image[0]] + zeros[image[0]] + numbers[image[1]]
                                + table[image[2]]);
}
"""
DEEP = """
#include "network.h"
void network_logits(const uint8_t image[4], network_logit logits[1])
{
    volatile uint8_t local[STACK];
    for (int index = STACK - 1; index >= 0; index--) {
        local[index] = image[0];
    }
    logits[0] = local[0];
}
"""


def firmware_of(source, folder, board, **words):
    """Builds the firmware of a source that takes the place of a network."""
    (folder / "network.h").write_text(HEADER)
    for word, number in words.items():
        source = source.replace(word, str(number))
    (folder / "network.c").write_text(source)
    return target_boards.build(folder, board)


@EACH_BOARD
def test_the_timer_counts_instructions(board, tmp_path):
    firmware = firmware_of(LOOPS, tmp_path, board)
    rounds = np.array([10, 11, 5_000, 100_000])
    inputs = rounds.astype("<u4").view(np.uint8).reshape(4, 4)
    found = target_boards.run(firmware, inputs).instructions
    # A tick is at most two thirds of the time of an instruction.
    assert np.abs(found - found[0] - 3 * (rounds - rounds[0])).max() <= 1
    assert 30 < found[0] < 30 + 40
    coarse = target_boards.run(firmware, inputs, instruction=2).instructions
    assert np.abs(coarse - found).max() <= 16 + 1


@EACH_BOARD
def test_memory_is_counted_byte_by_byte(board, tmp_path):
    firmware = firmware_of(MEMORY, tmp_path, board)
    whole, network = firmware.whole, firmware.network
    # Constants, initial values and some code; the rest of the firmware.
    assert 1000 + 100 < network.flash < 1000 + 100 + 300
    assert network.flash < whole.flash < network.flash + 2000
    assert network.ram == 200 + 100
    # An image with its label, and a result.
    assert whole.ram == 200 + 100 + (4 + 1 + 3) + (4 + 2 + 2)
    inputs = np.array([[3, 2, 1, 0], [7, 0, 0, 0]], np.uint8)
    outcome = target_boards.run(firmware, inputs)
    assert outcome.logits.dtype == np.int16
    np.testing.assert_array_equal(outcome.logits, [[3 + 1 + 4 + 5], [7 + 1 + 2 + 4]])
    assert 3000 <= outcome.network_stack < 3000 + 100
    assert outcome.network_stack < outcome.stack < outcome.network_stack + 100


@pytest.mark.slow
def test_more_than_a_board_has_is_measured_and_not_run(tmp_path):
    firmware = firmware_of(
        DEEP.replace("volatile", "static"), tmp_path, MICROBIT, STACK=16000
    )
    assert 16_000 < firmware.whole.ram < 16_100
    assert not firmware.whole.fit(MICROBIT) and firmware.whole.fit(CORTEX_M4)
    with pytest.raises(
        ValueError, match="microbit has 262,144 bytes of flash and 16,3"
    ):
        target_boards.run(firmware, np.zeros((1, 4), np.uint8))
    # The board's own script refuses it too.
    elf = tmp_path / "firmware.elf"
    elf.unlink()
    command = ["make", "-C", EXAMPLE / "microbit", f"BUILD={tmp_path}", "ASLP=", elf]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode and "region `RAM' overflowed by" in done.stderr


def test_a_stack_that_meets_the_data_fails(tmp_path):
    firmware = firmware_of(DEEP, tmp_path, MICROBIT, STACK=16_300)
    with pytest.raises(RuntimeError, match="the stack has met the data"):
        target_boards.run(firmware, np.zeros((1, 4), np.uint8))


def expected_integers(network, images, options):
    """Returns what the definition of integer networks computes, in NumPy."""
    floats = graph_of(network.net, network.variables, network.description.image_shape)
    if options["storage"] != "seed":
        floats = passes.compact(floats, merge=False)
    graph = integer_graph(
        *(floats, network.description, options["calibration"]),
        activations=options["activations"],
    )
    return reference.run(graph, images)


@EACH_BOARD
@pytest.mark.parametrize(
    "storage, activations",
    quick_only([("seed", "int8"), ("sparse", "int16")], ("seed", "int8")),
)
def test_a_board_computes_the_integers_of_the_reference(
    board, storage, activations, tmp_path
):
    network, images = small("conv"), random_images(count=3)
    options = {"activations": activations, "calibration": random_images()}
    options["storage"] = storage
    export.write(network, "c", tmp_path / "network.c", **options)
    found = target_boards.run(target_boards.build(tmp_path, board), images)
    expected = expected_integers(network, images, options)
    np.testing.assert_array_equal(found.logits, expected)
    assert np.ptp(found.logits, axis=0).max() > 100


@pytest.mark.slow
def test_dense_layers_alone_compute_integers(tmp_path):
    """Their sums are single ones, of which no compiler may see a window of 2x2."""
    shape = (4, 4, 1)
    network = subnetwork(ConvNet(stages=(), hidden=(9,), classes=4), shape)
    images = random_images(shape)
    options = {"activations": "int8", "calibration": images, "storage": "dense"}
    export.write(network, "c", tmp_path / "network.c", **options)
    found = target_boards.run(target_boards.build(tmp_path, MICROBIT), images)
    expected = expected_integers(network, images, options)
    np.testing.assert_array_equal(found.logits, expected)


@pytest.mark.slow
@EACH_BOARD
@pytest.mark.parametrize("storage", ["seed", "sparse"])
def test_a_board_computes_what_the_host_computes(board, storage, tmp_path):
    export.write(small("conv"), "c", tmp_path / "network.c", storage=storage)
    images = random_images(count=3)
    found = target_boards.run(target_boards.build(tmp_path, board), images)
    np.testing.assert_array_equal(found.logits, run(HOST, tmp_path, images).logits)
    assert np.ptp(found.logits, axis=0).max() > 0
    assert (found.instructions > 10_000).all()


@pytest.mark.slow
def test_a_larger_board_takes_as_many_instructions(tmp_path):
    """It takes the place of a micro:bit where a network does not fit into one."""
    export.write(small("conv"), "c", tmp_path / "network.c", storage="signs")
    images = random_images(count=2)
    firmware = target_boards.build(tmp_path, MICROBIT)
    expected = target_boards.run(firmware, images)
    larger = target_boards.build(tmp_path, M0_STAND_IN, network_again=False)
    found = target_boards.run(larger, images)
    assert larger.network == firmware.network
    np.testing.assert_array_equal(found.logits, expected.logits)
    assert found.network_stack == expected.network_stack
    assert np.abs(found.instructions - expected.instructions).max() <= 4


@pytest.mark.slow
@pytest.mark.parametrize("storage", ["signs"])
def test_all_digits_on_a_cortex_m4(storage, tmp_path):
    """Every logit of every test image is the host's; the firmware counts right ones."""
    network = aslp_jax.load(EXAMPLE / "digits.aslp")
    export.write(network, "c", tmp_path / "network.c", storage=storage)
    digits = datasets.load("digits")
    firmware = target_boards.build(tmp_path, CORTEX_M4, "-O2")
    found = target_boards.run(firmware, digits.test_images, digits.test_labels)
    expected = run(HOST, tmp_path, digits.test_images).logits
    np.testing.assert_array_equal(found.logits, expected)
    right = int((expected.argmax(1) == digits.test_labels).sum())
    assert f"{right} of 360 images are read rightly" in found.text
    assert right / 360 == pytest.approx(network.description.accuracies["thresholding"])


@pytest.mark.slow
@EACH_BOARD
@pytest.mark.parametrize("storage", ["seed"])
def test_all_digits_in_integers(board, storage, tmp_path):
    """The micro:bit reads all test images, with the memory that it has."""
    network, digits = aslp_jax.load(EXAMPLE / "digits.aslp"), datasets.load("digits")
    options = {"activations": "int8", "calibration": digits.train_images}
    options["storage"] = storage
    export.write(network, "c", tmp_path / "network.c", **options)
    firmware = target_boards.build(tmp_path, board)
    found = target_boards.run(firmware, digits.test_images, digits.test_labels)
    expected = expected_integers(network, digits.test_images, options)
    np.testing.assert_array_equal(found.logits, expected)
    right = int((expected.argmax(1) == digits.test_labels).sum())
    assert f"{right} of 360 images are read rightly" in found.text
    # Half a point below the floats at most.
    assert right / 360 >= network.description.accuracies["thresholding"] - 0.005
    if storage == "seed":
        assert firmware.whole.flash <= 64_000
        assert firmware.whole.ram + found.stack <= 12_000


@pytest.mark.slow
@pytest.mark.program
@pytest.mark.parametrize(
    "board, name", [(MICROBIT, "micro:bit"), (CORTEX_M4, "Cortex-M4")]
)
def test_make_qemu_prints_the_accuracy(board, name, tmp_path):
    """The commands of the example's page, in a copy of its folder."""
    folder = tmp_path / "embedded"
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("build"))
    command = ["make", "-C", str(folder / board.folder), f"PYTHON={sys.executable}"]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    done = subprocess.run([*command, "qemu"], **streams)
    assert done.returncode == 0, done.stdout
    assert f"{name}: 352 of 360 images are read rightly (97.8 %)" in done.stdout
    done = subprocess.run([*command, "size"], **streams)
    assert ".rodata" in done.stdout
    subprocess.run([*command, "clean"], check=True)
    assert not (folder / board.folder / "build").exists()
