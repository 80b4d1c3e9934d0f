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
#include "random_word.c"
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
    text = NORMAL.replace("KEY", words).replace("COUNT", str(count))
    (tmp_path / "numbers.c").write_text(text)
    written = output(tmp_path, "numbers", "-O2", f"-I{RUNTIME}")
    found = np.frombuffer(written, np.float32)
    np.testing.assert_allclose(found, expected, rtol=2e-6, atol=1e-7)
    assert np.abs(expected).max() > 4.4  # far into the tails


@pytest.mark.parametrize("keep, units", [(0.02, 13), (0.5, 8), (0.0, 3)])
def test_the_additions_of_dense_signs_are_counted(tmp_path, keep, units):
    # Counted by the C code itself, a bit read being a weight that is added.
    rng = np.random.default_rng(0)
    mask = rng.random((45, 1)) < keep
    kernel = np.where(mask, np.sign(rng.normal(size=(45, units))), 0)
    dense = Dense("Dense_0/kernel", kernel.astype(np.float32))
    layer = dense_layer(dense, (5, 9), (units,))
    packed = pack(layer, None, "signs")
    text = "#include <stdint.h>\n#include <stdio.h>\nstatic int32_t summands;\n"
    for file in ("bits", "weights_signs", "layer", "sum_signs"):
        text += (RUNTIME / f"{file}.c").read_text()
    text = text.replace("sum += choices", "summands++;\n            sum += choices")
    text = text[: text.index("static void add_next")]
    text += array("kept", packed.fields["kept"])
    text += array("negative", packed.fields["negative"])
    text += f"""
    int main(void)
    {{
        static const float in[45];
        struct layer dense = {{0}};
        dense.channels = 5;
        dense.kernel_size = 9;
        dense.weights.kept = kept;
        dense.weights.negative = negative;
        struct cursor cursor = start(&dense.weights);
        for (int32_t unit = 0; unit < {units}; unit++) {{
            dense_sum(&dense, &cursor, in, unit);
        }}
        printf("%d", (int)summands);
        return 0;
    }}
    """
    (tmp_path / "count.c").write_text(text)
    assert int(output(tmp_path, "count")) == packed.summands
    kept = np.count_nonzero(kernel)
    assert kept <= packed.summands <= kernel.size
    assert packed.summands < kernel.size / 2 or keep == 0.5
