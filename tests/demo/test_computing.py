"""Demo page, without a browser: its JavaScript computes what the library computes."""

import base64
import hashlib
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from jax import lax

import aslp_jax
from aslp_jax.data import datasets
from tests.demo import drawings
from tests.demo.files import DIGITS, READABLE, readable, refused

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("node") is None, reason="node is missing"),
]


def text_of(content: bytes) -> str:
    return base64.b64encode(content).decode()


def compute(**values: Any) -> dict[str, Any]:
    """Runs the harness: see there for input and output."""
    done = subprocess.run(
        ["node", str(Path(__file__).parent / "harness.js")],
        input=json.dumps(values),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_all_test_digits_have_the_logits_of_the_library():
    images = datasets.load("digits").test_images
    assert len(images) == 360
    texts = [text_of(image.tobytes()) for image in images]
    (found,) = compute(files=[text_of(DIGITS.read_bytes())], images=texts)["networks"]
    network = aslp_jax.load(DIGITS)
    wanted, logits = np.asarray(network(images)), np.array(found["logits"])
    np.testing.assert_allclose(logits, wanted, atol=1e-4)
    np.testing.assert_array_equal(logits.argmax(1), wanted.argmax(1))
    assert found["kept"] == sum(
        int(layer.mask.sum()) for layer in network.layers.values()
    )
    kernel = network.variables["params"]["Conv_0"]["kernel"]
    names = ("NHWC", "HWIO", "NHWC")
    first = lax.conv_general_dilated(
        images[:2] / np.float32(255), kernel, (1, 1), "SAME", dimension_numbers=names
    )
    responses = np.array(found["first"]).reshape(first.shape)
    np.testing.assert_allclose(responses, np.maximum(first, 0), atol=1e-5)


@pytest.fixture(scope="module")
def noise():
    rng = np.random.default_rng(5)
    return rng.integers(0, 256, (4, 8, 8, 1)).astype(np.uint8)


@pytest.fixture(scope="module")
def computed(noise):
    texts = [text_of(image.tobytes()) for image in noise]
    files = [text_of(readable(kind)) for kind in READABLE]
    return dict(
        zip(READABLE, compute(files=files, images=texts)["networks"], strict=True)
    )


@pytest.mark.parametrize("kind", READABLE)
def test_other_networks_have_the_logits_of_the_library(kind, computed, noise, tmp_path):
    path = tmp_path / "a.aslp"
    path.write_bytes(readable(kind))
    wanted = np.asarray(aslp_jax.load(path)(noise))
    assert "refused" not in computed[kind], computed[kind]
    found = np.array(computed[kind]["logits"])
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    assert np.ptp(wanted) > 0.01


def test_a_file_that_the_page_cannot_run_is_refused_in_a_line():
    files = refused()
    found = compute(files=[text_of(content) for content, _ in files.values()])
    said = [each.get("refused") for each in found["networks"]]
    for (name, (_, part)), line in zip(files.items(), said, strict=True):
        assert line and part in line and "\n" not in line, (name, line)


def test_random_words_and_checksums():
    keys = [(0, 0), (1, 2**32 - 1), (849287040, 984012848)]
    contents = [bytes(range(256))[:size] * 3 for size in (0, 1, 18, 19, 21, 22, 256)]
    found = compute(keys=keys, count=100, images=[text_of(each) for each in contents])
    for key, words in zip(keys, found["words"], strict=True):
        typed = jax.random.wrap_key_data(np.array(key, np.uint32))
        np.testing.assert_array_equal(words, jax.random.bits(typed, (100,)))
    for content, text in zip(contents, found["hashes"], strict=True):
        assert text == hashlib.sha256(content).hexdigest()


def test_drawings_are_recognised_wherever_and_however_large_they_are():
    rng = np.random.default_rng(8)
    strokes, labels = [], []
    for digit, drawing in drawings.DIGITS.items():
        strokes += [
            drawings.placed(drawing, 0.9, 0.05, 0.05),
            drawings.placed(drawing, 0.3, 0.6, 0.1),
            *(drawings.varied(drawing, rng) for _ in range(8)),
        ]
        labels += [digit] * 10
    images = np.array(compute(drawings=strokes)["drawn"], np.uint8)
    images = images.reshape(-1, 8, 8, 1)
    logits = np.asarray(aslp_jax.load(DIGITS)(images))
    right = (logits.argmax(1) == labels).reshape(10, 10)
    assert right[:, :2].all(), right
    assert right.mean() >= 0.9, right


def test_an_image_counts_ink_as_the_data_do():
    line = [[[0.5, 0.1], [0.5, 0.9]]]
    leaning = [[[0.48, 0.1], [0.52, 0.9]]]
    dot = [[[0.2, 0.7]]]
    zero = drawings.DIGITS[0]
    moved = drawings.placed(zero, 0.31, 0.4, 0.2)
    strokes = [line, leaning, dot, zero, moved]
    images = np.array(compute(drawings=strokes)["drawn"]).reshape(-1, 8, 8)
    levels = np.rint(np.arange(17) * 255 / 16)
    assert np.isin(images, levels).all()
    bar, slope, point, ring, other = images
    np.testing.assert_array_equal(ring, other)
    # As in the data, some 310 of 1,024 pixels are ink, from top to bottom.
    ink = datasets.load("digits").train_images.sum((1, 2, 3)) / 255 * 16
    assert abs(ring.sum() / 255 * 16 - ink.mean()) < ink.std()
    assert ring[0].any() and ring[7].any() and not ring[:, 0].any()
    np.testing.assert_array_equal(ring, ring[:, ::-1])
    for image in (bar, slope):
        assert not image[:, :2].any() and not image[:, 6:].any()
        assert image[:, 3:5].all()
    assert point[3:5, 3:5].all() and not point[0].any()
