"""Draw: each side repeats its work, and the work is the stated one."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.ops import threefry
from benchmarks import draw


@pytest.mark.slow
def test_masks_are_sampled_repeatedly_with_a_gradient():
    logits = jnp.linspace(-3, 3, 999)
    masks, gradient = draw.masks(logits, 3)()
    assert set(np.unique(masks)) == {0.0, 1.0}
    assert float(gradient.min()) > 0
    made, gradient = draw.products(logits, 2 * jnp.ones(999), 2)()
    assert set(np.unique(made)) == {0.0, 2.0}
    assert float(jnp.abs(gradient).max()) > 0
    read = draw.copies(logits, jnp.ones(999), 2)()
    np.testing.assert_allclose(read[0], 1 + 2 * logits, rtol=1e-6)


def test_repeated_words_are_those_of_their_keys():
    found = draw.words(99, 2, jax.random.bits)()
    expected = [
        jax.random.bits(jax.random.fold_in(jax.random.key(0), index), (99,))
        for index in range(2)
    ]
    np.testing.assert_array_equal(found, expected[0] ^ expected[1])
    np.testing.assert_array_equal(draw.words(99, 2, threefry.bits)(), found)
