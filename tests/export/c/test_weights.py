"""Runtime files of C, compiled by gcc alone, give the numbers that Python expects."""

import shutil
import subprocess
from pathlib import Path

import jax
import numpy as np
import pytest

from aslp_jax.export import c
from aslp_jax.export.c.layers import dense_layer
from aslp_jax.export.c.text import array
from aslp_jax.export.c.weights import pack
from aslp_jax.export.operations import Dense

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc, which compiles the exports, is missing"
)

RUNTIME = Path(c.__file__).parent / "runtime"


def output(folder, name, *flags):
    """Compiles `NAME.c` and returns what it writes."""
    command = ["gcc", "-std=c99", *flags, f"{name}.c", "-o", name, "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    return subprocess.run([folder / name], capture_output=True, check=True).stdout


NORMAL = """
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include "random_words.c"
#include "normal.c"
int main(void)
{
    static const uint32_t key[2] = {KEY};
    for (uint32_t first = 0; first < COUNT; first += BATCH) {
        uint32_t words[BATCH];
        for (uint32_t index = 0; index < BATCH; index++) {
            words[index] = first + index;
        }
        random_words(key, BATCH, words);
        for (uint32_t index = 0; index < BATCH; index++) {
            const float number = normal(words[index]);
            fwrite(&number, sizeof number, 1, stdout);
        }
    }
    return 0;
}
"""


def test_normal_numbers_are_those_of_jax(tmp_path, key):
    count = 300_000
    expected = np.asarray(jax.random.normal(key, (count,)))
    words = ", ".join(f"{word}u" for word in jax.random.key_data(key).tolist())
    text = NORMAL.replace("KEY", words).replace("COUNT", str(count))
    (tmp_path / "numbers.c").write_text(text)
    written = output(tmp_path, "numbers", "-O2", f"-I{RUNTIME}")
    found = np.frombuffer(written, np.float32)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7)
    assert np.abs(expected).max() > 4.4  # far into the tails


FIND = """
#include <stdint.h>
#include <stdio.h>
#include "bits.c"
#include "find_bits.c"
DATA
int main(void)
{
    struct bits bits = {data, START};
    uint8_t list[SPAN + 4];
    for (int32_t left = COUNT; left > 0; left -= SPAN) {
        const int32_t count = find_bits(&bits, left, list);
        printf("%d", (int)count);
        for (int32_t index = 0; index < count; index++) {
            printf(" %d", list[index]);
        }
        puts("");
    }
    printf("%u", (unsigned)bits.next);
    return 0;
}
"""


@pytest.mark.parametrize("start, count", [(0, 96), (3, 200), (7, 25), (5, 1)])
def test_bits_are_found_from_any_start(tmp_path, start, count):
    flags = np.random.default_rng(0).random(start + count) < 0.4
    # No bit of the padding may be found; the sanitiser sees what is read behind it.
    packed = np.packbits(np.append(flags, np.ones(40, bool)), bitorder="little")
    data = packed[: -(-flags.size // 8) + 3]
    text = FIND.replace("DATA", array("data", data))
    text = text.replace("START", str(start)).replace("COUNT", str(count))
    (tmp_path / "find.c").write_text(text)
    sanitised = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
    written = output(tmp_path, "find", f"-I{RUNTIME}", *sanitised).decode()
    *lines, end = written.splitlines()
    found = [
        first * 96 + int(place)
        for first, line in enumerate(lines)
        for place in line.split()[1:]
    ]
    assert found == np.flatnonzero(flags[start:]).tolist()
    assert int(end) == start + count


@pytest.mark.parametrize("keep", [0.02, 0.5, 0.0])
def test_additions_of_signs_are_those_of_kept_weights(keep):
    rng = np.random.default_rng(0)
    mask = rng.random((45, 8)) < keep
    kernel = np.where(mask, np.sign(rng.normal(size=(45, 8))), 0)
    dense = Dense("Dense_0/kernel", kernel.astype(np.float32))
    packed = pack(dense_layer(dense, (5, 9), (8,)), None, "signs")
    assert packed.summands == np.count_nonzero(kernel)
