"""Descriptions hold what a file can store, and nothing else."""

import dataclasses
import math

import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import ASLP
from aslp_jax.artefact import ArtefactError, Description
from tests.artefact.networks import ABOUT, IMAGE, SIGNED, again, made_of


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"accuracies": {"thresholding": 1.5}}, "accuracies 'thresholding' is 1.5"),
        ({"accuracies": {"thresholding": math.nan}}, "'thresholding' is nan"),
        ({"accuracies": [0.5]}, r"accuracies is \(0.5,\); expected an object"),
        ({"arch": "conv\n4"}, "description.arch is .*printable"),
        ({"method": ASLP()}, "description.method is ASLP"),
        ({"classes": 3.0}, "description.classes is 3.0; expected an integer"),
        ({"image_shape": ()}, r"image_shape is \(\); expected a list of at least 1"),
        ({"image_shape": (8,) * 5}, r"image_shape is .*; expected a list of at most 4"),
        ({"image_shape": (2**14, 2**14)}, "image_shape is .*a shape of at most 67108"),
        ({"image_shape": None}, "image_shape is None"),
        ({"image_shape": (8, 8, 2)}, "description.mean is .* 2 numbers, one for each"),
        ({"classes": None}, "classes is None; expected a number where there is no out"),
        ({"output_shape": (3,)}, "classes is 3; expected .* else None"),
        ({"classes": None, "output_shape": (0,)}, "output_shape is 0; expected an int"),
        ({"class_names": ("cat", "dog")}, "class_names is .*; expected 3 names, one"),
        ({"class_names": ("cat", "dog", 3)}, "class_names is 3; expected at most 200"),
        ({"class_names": "cat"}, "class_names is 'cat'; expected a list"),
        ({"image_shape": "abc"}, "image_shape is 'abc'"),
        (
            {"seed": -1},
            "description.seed is -1; expected an integer from 0 to 1844",
        ),
        ({"seed": True}, "description.seed is True"),
        ({"mean": None}, "description.mean is None; expected 3 numbers"),
        ({"std": None}, "description.std is None; expected 3 numbers"),
        ({"mean": (0.5,), "std": (0.5,)}, "description.mean is .*3 numbers, one for e"),
        ({"mean": ("0.5",) * 3}, "description.mean is '0.5'"),
        ({"std": (0.0, 1.0, 1.0)}, "description.std is .* at least 2^-126"),
        ({"std": (1e-50, 1.0, 1.0)}, "description.std is .* at least 2^-126"),
    ],
)
def test_values_that_no_file_can_store_are_refused(change, words):
    with pytest.raises(ArtefactError, match=words.replace("^", r"\^")):
        dataclasses.replace(ABOUT, **change)


@pytest.mark.slow
def test_numbers_of_numpy_and_jax_are_accepted():
    about = Description(
        arch=np.str_("tiny"),
        classes=np.int64(3),
        image_shape=list(IMAGE),
        mean=np.float32([0.5, 0.25, 0.125]),
        std=[1, jnp.float32(0.5), 0.5],
        seed=np.int64(7),
        accuracies={"thresholding": np.float32(0.625), "single": 1},
    )
    plain = Description(
        arch="tiny",
        classes=3,
        image_shape=IMAGE,
        mean=(0.5, 0.25, 0.125),
        std=(1.0, 0.5, 0.5),
        seed=7,
        accuracies={"thresholding": 0.625, "single": 1.0},
    )
    assert repr(about) == repr(plain)
    _, subnetwork = made_of(ASLP(logit_std=1.0), SIGNED)
    read = again(dataclasses.replace(subnetwork, description=about))
    assert read.description == plain
