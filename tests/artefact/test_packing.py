"""The entropy of masks."""

import math

import numpy as np
import pytest

from aslp_jax.artefact.packing import mask_entropy


def test_the_entropy_of_a_mask():
    kept = (np.arange(800) % 4 == 0).reshape(8, 100).astype(np.int8)
    bits = 800 * (0.25 * 2 + 0.75 * math.log2(4 / 3))
    assert mask_entropy(kept) == pytest.approx(bits)
    # Half of the kept ones inverted.
    signed = np.where(np.arange(800) % 8 == 0, -1, kept.ravel())
    bits = 800 * (2 * 0.125 * 3 + 0.75 * math.log2(4 / 3))
    assert mask_entropy(signed) == pytest.approx(bits)
    assert mask_entropy(np.ones(8, np.int8)) == mask_entropy(np.zeros(8, np.int8)) == 0
