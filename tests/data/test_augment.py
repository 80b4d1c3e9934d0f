"""Random crops and flips, and pixels as floats."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from aslp_jax.data.augment import crop_and_flip, to_float

# Compiled: one by one, each operation would be compiled by itself.
compiled = jax.jit(crop_and_flip, static_argnames=("pad", "flip"))

FIVE_SIGMAS = 5.7e-7  # two-sided
HEIGHT, WIDTH, PAD = 6, 5, 2
BATCH = 2000


def noise_images(batch=BATCH, dtype=jnp.uint8, height=HEIGHT, width=WIDTH):
    """Images without zeros, in which hardly two pixels are alike."""
    pixels = np.random.default_rng(0).integers(1, 256, (batch, height, width, 3))
    return jnp.asarray(pixels, dtype)


def windows(images, pad):
    """Every window of the zero-padded images: {(row, column, mirrored): batch}."""
    images = np.asarray(images)
    _, height, width, _ = images.shape
    padded = np.pad(images, ((0, 0), (pad, pad), (pad, pad), (0, 0)))
    found = {}
    for row in range(2 * pad + 1):
        for column in range(2 * pad + 1):
            window = padded[:, row : row + height, column : column + width]
            found[row, column, False] = window
            found[row, column, True] = window[:, :, ::-1]
    return found


def placed(images, augmented, pad=PAD):
    """Row, column and side of each image; fails where none, or two, are its own."""
    places = windows(images, pad)
    matches = np.stack(
        [(window == np.asarray(augmented)).all((1, 2, 3)) for window in places.values()]
    )
    np.testing.assert_array_equal(matches.sum(0), 1)
    return np.array(list(places))[matches.argmax(0)]


def count_z(count, draws, p):
    return (count - draws * p) / np.sqrt(draws * p * (1 - p))


@pytest.fixture(scope="module")
def drawn():
    """Images, and where a batch of them was cropped and on which side it lies."""
    images = noise_images()
    augmented = compiled(jax.random.key(1), images, pad=PAD)
    return images, augmented, placed(images, augmented)


def test_every_image_is_a_window_of_its_padded_self(drawn):
    images, augmented, places = drawn
    assert augmented.shape == images.shape and augmented.dtype == images.dtype
    assert len(places) == BATCH


def test_all_places_are_equally_likely(drawn):
    _, _, places = drawn
    _, counts = np.unique(places, axis=0, return_counts=True)
    assert len(counts) == 2 * (2 * PAD + 1) ** 2
    assert scipy.stats.chisquare(counts).pvalue > FIVE_SIGMAS


def test_half_of_the_images_are_mirrored(drawn):
    _, _, places = drawn
    assert abs(count_z(places[:, 2].sum(), BATCH, 0.5)) < 5


def test_neighbours_are_drawn_apart(drawn):
    _, _, places = drawn
    alike = (places[1:] == places[:-1]).all(1).sum()
    assert abs(count_z(alike, BATCH - 1, 1 / 50)) < 5


def test_without_flip_nothing_is_mirrored(key):
    images = noise_images(300)
    places = placed(images, compiled(key, images, pad=PAD, flip=False))
    assert not places[:, 2].any()
    assert len(np.unique(places, axis=0)) == 25


def test_key_decides(key):
    images = noise_images(300)
    first, second = jax.random.split(key)
    once = compiled(first, images, pad=PAD)
    np.testing.assert_array_equal(compiled(first, images, pad=PAD), once)
    other = placed(images, compiled(second, images, pad=PAD))
    alike = (other == placed(images, once)).all(1).sum()
    assert abs(count_z(alike, 300, 1 / 50)) < 5


def test_pad_is_four_unless_told(key):
    images = noise_images(1000, height=10, width=10)
    places = placed(images, compiled(key, images), pad=4)
    for axis in range(2):
        assert set(places[:, axis]) == set(range(9))


def test_without_pad_images_stay_or_are_mirrored(key):
    images = noise_images(50)
    places = placed(images, compiled(key, images, pad=0), pad=0)
    assert set(places[:, 2]) == {0, 1}
    same = compiled(key, images, pad=0, flip=False)
    np.testing.assert_array_equal(same, images)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.uint8, jnp.int32, jnp.float32, jnp.bfloat16])
def test_dtype_is_kept(key, dtype):
    images = noise_images(20, dtype)
    augmented = compiled(key, images, pad=PAD)
    assert augmented.dtype == dtype
    as_bytes = compiled(key, noise_images(20), pad=PAD)
    np.testing.assert_array_equal(augmented.astype(jnp.uint8), as_bytes)


@pytest.mark.slow
def test_one_program_gives_the_same(key):
    images = noise_images(20)
    np.testing.assert_array_equal(
        compiled(key, images, pad=PAD), crop_and_flip(key, images, pad=PAD)
    )


@pytest.mark.parametrize("shape, pad", [((8, 8, 3), 4), ((1, 2, 8, 8, 3), 4)])
def test_images_must_be_a_batch(key, shape, pad):
    with pytest.raises(ValueError, match=r"crop_and_flip: .*got shape \(.*8, 8, 3\)"):
        crop_and_flip(key, jnp.zeros(shape), pad=pad)


def test_pad_must_not_be_negative(key):
    with pytest.raises(ValueError, match=r"crop_and_flip: .*pad -1"):
        crop_and_flip(key, noise_images(2), pad=-1)


# Pixels.

MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010)


def test_pixels_are_in_the_unit_interval():
    every = jnp.arange(256, dtype=jnp.uint8).reshape(1, 16, 16, 1)
    pixels = to_float(every)
    assert pixels.dtype == jnp.float32 and pixels.shape == every.shape
    expected = np.arange(256, dtype=np.float64).reshape(every.shape) / 255
    np.testing.assert_allclose(pixels, expected, rtol=1e-6)
    assert pixels.min() == 0 and pixels.max() == 1


def test_standardised_pixels():
    images = noise_images(4)
    pixels = to_float(images, mean=MEAN, std=STD)
    assert pixels.dtype == jnp.float32
    expected = (np.asarray(images) / 255 - np.array(MEAN)) / np.array(STD)
    np.testing.assert_allclose(pixels, expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.int32, jnp.int8])
def test_only_bytes_are_turned_into_pixels(dtype):
    with pytest.raises(TypeError, match=f"to_float: .*{jnp.dtype(dtype).name}"):
        to_float(jnp.zeros((1, 2, 2, 3), dtype))


@pytest.mark.parametrize(
    "mean, std",
    [(MEAN, None), (None, STD), (MEAN[:2], STD), (MEAN, STD[:2]), ((0.5,), (0.5,))],
)
def test_mean_and_std_go_together(mean, std):
    with pytest.raises(ValueError, match="to_float: mean and std must both have 3"):
        to_float(noise_images(2), mean=mean, std=std)
