"""Sources of modules, compiled by g++ as C++, compute what the modules compute.

Each source is in a namespace of its own, so one compilation serves all of them.
"""

import shutil
import subprocess

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.export import c
from aslp_jax.export.passes import compact
from aslp_jax.export.simplify import simplify
from aslp_jax.export.trace import trace
from tests.export.modules import NAMES, inputs_of, module, outputs_of, promotion

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("g++") is None, reason="g++ is missing"),
]

CALL = """
static void call_{name}()
{{
    static float input[{upper}_INPUTS], output[{upper}_OUTPUTS];
    for (int example = 0; example < EXAMPLES; example++) {{
        if (fread(input, sizeof input, 1, stdin) != 1) {{
            abort();
        }}
        {name}::{name}_run(input, output);
        fwrite(output, sizeof output, 1, stdout);
    }}
}}
"""
FLAGS = ["-std=c++11", "-Wall", "-Wextra", "-Werror", "-Wpedantic", "-O1"]
SANITISED = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def graph_of(name):
    fn, weights, shape = module(name)
    with promotion():
        graph = trace(fn, weights, jax.ShapeDtypeStruct(shape, jnp.float32))
    return compact(simplify(graph))


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    """Outputs of every module in C++."""
    folder = tmp_path_factory.mktemp("modules")
    text = "#include <math.h>\n#include <stdint.h>\n#include <stdio.h>\n"
    text += "#include <stdlib.h>\nenum { EXAMPLES = 3 };\n"
    for index, name in enumerate(NAMES):
        storage = ("dense", "sparse")[index % 2]
        code = c.encode_graph(graph_of(name), name, storage=storage, classes=False)
        for suffix, content in code.files.items():
            (folder / f"{name}{suffix}").write_bytes(content)
        # Macros know no namespace.
        text += f'namespace {name} {{\n#include "{name}.c"\n#undef GROUPED\n}}\n'
        text += CALL.format(name=name, upper=name.upper())
    calls = "".join(f"call_{name}(); " for name in NAMES)
    (folder / "all.cpp").write_text(f"{text}int main() {{ {calls}}}\n")
    command = ["g++", *FLAGS, *SANITISED, "-o", "all", "all.cpp"]
    subprocess.run(command, cwd=folder, check=True)
    given = b"".join(inputs_of(name).tobytes() for name in NAMES)
    done = subprocess.run([folder / "all"], input=given, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    found, outputs = np.frombuffer(done.stdout, np.float32), {}
    for name in NAMES:
        size = outputs_of(name).size
        outputs[name], found = (
            found[:size].reshape(outputs_of(name).shape),
            found[size:],
        )
    assert found.size == 0
    return outputs


@pytest.mark.parametrize("name", NAMES)
def test_a_module_is_that_of_jax(results, name):
    expected = outputs_of(name)
    assert np.ptp(expected) > 0.1
    tolerance = 2e-5 * np.ptp(expected)
    np.testing.assert_allclose(results[name], expected, rtol=0, atol=tolerance)
