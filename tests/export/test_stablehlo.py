"""Serialised StableHLO, read back by JAX, computes the same as the network."""

import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax import export
from aslp_jax.export import stablehlo
from tests.export.networks import SMALL, assert_same, logits, random_images, small


@pytest.mark.slow
@pytest.mark.parametrize("compact", [True, False])
@pytest.mark.parametrize("name", SMALL)
def test_every_network(tmp_path, name, compact):
    path = tmp_path / "net.stablehlo"
    export.write(small(name), "stablehlo", path, compact=compact)
    exported = jax.export.deserialize(bytearray(path.read_bytes()))
    assert exported.platforms == ("cpu", "cuda", "tpu")
    (images,) = exported.in_avals
    assert str(images.shape[0]) == "batch" and images.shape[1:] == (9, 8, 3)
    assert images.dtype == jnp.uint8
    for count in (1, 20):
        found = exported.call(random_images(count=count))
        assert_same(np.asarray(found), logits(name)[:count])


def test_all_test_digits(digits_network, digits_images, digits_logits):
    content = stablehlo.encode(digits_network).content
    exported = jax.export.deserialize(bytearray(content))
    assert_same(np.asarray(exported.call(digits_images)), digits_logits)
