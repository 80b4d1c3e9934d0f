"""Storages hold the weights of depthwise, grouped and other layers."""

import dataclasses
import shutil
import subprocess

import flax.linen as nn
import numpy as np
import pytest

from aslp_jax.export import c
from tests.export.c.test_operations import SANITISED, STRICT
from tests.export.networks import STANDARDISED, random_images, subnetwork

pytestmark = pytest.mark.skipif(
    shutil.which("gcc") is None, reason="gcc, which compiles the exports, is missing"
)

SHAPE, COUNT = (7, 6, 3), 5
MAIN = """
#include <stdio.h>
{includes}
int main(void)
{{
    static uint8_t image[7 * 6 * 3];
    static float floats[7 * 6 * 3], logits[5];
    while (fread(image, 1, sizeof image, stdin) == sizeof image) {{
        for (int index = 0; index < 7 * 6 * 3; index++) {{
            floats[index] = image[index];
        }}
        {calls}
    }}
    return 0;
}}
"""


class Separable(nn.Module):
    """Network with layers of each kind whose weights C stores."""

    classes: int = 5

    @nn.compact
    def __call__(self, x, train=False):
        x = nn.relu(nn.Conv(6, (3, 3), strides=(2, 1), use_bias=False)(x))
        x = nn.relu(nn.Conv(12, (3, 3), feature_group_count=6)(x))
        x = nn.max_pool(nn.relu(nn.Conv(8, (1, 2), feature_group_count=2)(x)), (2, 2))
        x = nn.relu(nn.Dense(7)(x)).reshape(x.shape[0], -1)
        return nn.Dense(self.classes)(x)


@pytest.fixture(scope="module")
def network():
    return subnetwork(Separable(), SHAPE, signed=True, scale=1.3, **STANDARDISED)


@pytest.fixture(scope="module")
def normal():
    return subnetwork(Separable(), SHAPE, normal="Conv", **STANDARDISED)


@pytest.fixture(scope="module")
def found(network, normal, tmp_path_factory):
    """Logits of C by the name of the source, all from one program."""
    folder = tmp_path_factory.mktemp("storages")
    sources = {each: (network, {"storage": each}) for each in c.STORAGES}
    sources["normal"] = (normal, {"storage": "seed"})
    sources["floats"] = (network, {"storage": "signs", "inputs": "float32"})
    calls = []
    for name, (subject, options) in sources.items():
        code = c.encode(subject, name, **options)
        for suffix, content in code.files.items():
            (folder / f"{name}{suffix}").write_bytes(content)
        image = "floats" if name == "floats" else "image"
        calls.append(f"{name}_logits({image}, logits);")
        calls.append("fwrite(logits, sizeof logits, 1, stdout);")
    includes = "\n".join(f'#include "{name}.h"' for name in sources)
    main = MAIN.format(includes=includes, calls="\n        ".join(calls))
    (folder / "main.c").write_text(main)
    files = ["main.c", *(f"{name}.c" for name in sources)]
    command = ["gcc", *STRICT, *SANITISED, "-o", "all", *files, "-lm"]
    subprocess.run(command, cwd=folder, check=True)
    given = random_images(SHAPE, COUNT).tobytes()
    done = subprocess.run([folder / "all"], input=given, capture_output=True)
    assert (done.returncode, done.stderr) == (0, b"")
    logits = np.frombuffer(done.stdout, np.float32).reshape(COUNT, len(sources), -1)
    return {name: logits[:, index] for index, name in enumerate(sources)}


@pytest.mark.parametrize("name", [*c.STORAGES, "normal", "floats"])
def test_the_logits_are_those_of_the_network(found, network, normal, name):
    subject = normal if name == "normal" else network
    expected = np.asarray(subject(random_images(SHAPE, COUNT)))
    assert np.ptp(expected, axis=0).min() > 0.01
    tolerance = 2e-5 * np.abs(expected).max()
    np.testing.assert_allclose(found[name], expected, rtol=0, atol=tolerance)


def test_work_is_that_of_the_kept_weights(network):
    result = c.encode(network, "net", storage="sparse")
    assert result.operations == result.after.nonzero_multiply_adds


class Turned(Separable):
    """Network whose kernel is used with its axes in another order."""

    @nn.compact
    def __call__(self, x, train=False):
        kernel = self.param("kernel", nn.initializers.zeros, (self.classes, 126))
        return x.reshape(x.shape[0], -1) @ kernel.T


def test_a_seed_of_a_kernel_in_another_order_is_refused():
    turned = subnetwork(Turned(), SHAPE)
    with pytest.raises(ValueError, match="'kernel' has no order of its weights"):
        c.encode(turned, "net", storage="seed")


def test_an_output_that_is_no_vector_of_classes_has_no_class_function(network):
    about = dataclasses.replace(network.description, classes=4)
    files = c.encode(dataclasses.replace(network, description=about), "net").files
    header = files[".h"].decode()
    assert "void net_run(const uint8_t image[NET_IMAGE_BYTES]," in header
    assert (
        "net_output output[NET_OUTPUTS]" in header
        and "class" not in files[".c"].decode()
    )
    assert "#define NET_OUTPUTS 5" in header and "CLASSES" not in header


def test_inputs_of_another_dtype_are_refused(network):
    with pytest.raises(ValueError, match=r"inputs must be one of .* got 'int16'"):
        c.encode(network, "net", inputs="int16")
