import jax
import jax.numpy as jnp
import numpy as np
import pytest

from aslp_jax.ops import threefry


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(), (0,), (1,), (1001,), (3, 5, 7)])
def test_the_words_are_those_of_jax(key, shape):
    for each in jax.random.split(key, 3):
        words = threefry.bits(each, shape)
        assert words.shape == shape and words.dtype == jnp.uint32
        expected = jax.random.bits(each, shape, jnp.uint32)
        np.testing.assert_array_equal(words, expected)


def test_known_words():
    # Of the published generator, key and counter all zeros: 6b200159 and 99ba4efe.
    words = threefry.bits(jax.random.wrap_key_data(jnp.zeros(2, jnp.uint32)), (1,))
    assert int(words[0]) == 0x6B200159 ^ 0x99BA4EFE


def test_batched_keys_draw_what_each_would(key):
    keys = jax.random.split(key, 4)
    together = jax.vmap(lambda each: threefry.bits(each, (6,)))(keys)
    for each, words in zip(keys, together, strict=True):
        np.testing.assert_array_equal(words, jax.random.bits(each, (6,), jnp.uint32))


def test_raw_keys_are_taken():
    raw = jax.random.PRNGKey(3)
    np.testing.assert_array_equal(
        threefry.bits(raw, (9,)), jax.random.bits(raw, (9,), jnp.uint32)
    )


def test_other_generators_and_numberings_are_those_of_jax(key):
    other = jax.random.key(5, impl="rbg")
    np.testing.assert_array_equal(
        threefry.bits(other, (9,)), jax.random.bits(other, (9,), jnp.uint32)
    )
    with jax.threefry_partitionable(False):
        np.testing.assert_array_equal(
            threefry.bits(key, (9,)), jax.random.bits(key, (9,), jnp.uint32)
        )


@pytest.mark.parametrize("count", [0, 1, 2**15, 2**15 + 77])
def test_words_on_the_host_are_the_same(key, count):
    first, second = (int(word) for word in jax.random.key_data(key))
    words = threefry.bits_on_host((first, second), count)
    assert words.shape == (count,) and words.dtype == np.uint32
    np.testing.assert_array_equal(words, jax.random.bits(key, (count,), jnp.uint32))
