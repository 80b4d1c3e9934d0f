"""Network of the example, which reads digits, and its logits."""

import jax
import numpy as np
import pytest

from aslp_jax.artefact import Subnetwork, load
from aslp_jax.data import datasets
from tests.export.networks import EXAMPLE


@pytest.fixture(scope="session")
def digits_network() -> Subnetwork:
    """Conv2 of signed constants, trained on digits."""
    return load(EXAMPLE / "digits.aslp")


@pytest.fixture(scope="session")
def digits_images() -> np.ndarray:
    """All 360 test images of digits, uint8 `[360, 8, 8, 1]`."""
    images = datasets.load("digits").test_images
    assert len(images) == 360
    return images


@pytest.fixture(scope="session")
def digits_logits(digits_network, digits_images) -> np.ndarray:
    """Logits of `digits_network` for `digits_images`."""
    return np.asarray(jax.device_get(digits_network(digits_images)))
