"""Demo page: the bytes and samples in data.js are those of the example and the data."""

import importlib.util
from pathlib import Path
from types import ModuleType

import numpy as np

import aslp_jax
from aslp_jax.data import datasets

DEMO = Path(__file__).parents[2] / "docs" / "demo"


def program() -> ModuleType:
    spec = importlib.util.spec_from_file_location("embed", DEMO / "embed.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_data_js_is_what_its_program_writes():
    assert (DEMO / "data.js").read_text() == program().script()


def test_what_the_page_says_of_its_network():
    digits = datasets.load("digits")
    labels = np.asarray(digits.test_labels)
    firsts = [int(np.flatnonzero(labels == label)[0]) for label in range(10)]
    network = aslp_jax.load(program().ARTEFACT)
    read = np.asarray(network(digits.test_images[firsts])).argmax(1)
    page = " ".join((DEMO / "index.html").read_text().split())
    assert (read != np.arange(10)).sum() == 1 and "It misreads one of them." in page
    learnt = len(digits.train_labels) - digits.validation
    assert len(labels) == 360 and f"learnt from {learnt:,} images" in page
