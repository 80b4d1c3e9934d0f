"""Gallery: pictures are those of the committed results, and small."""

import jax
import numpy as np
import pytest
from PIL import Image

from benchmarks import first_layer, gallery

COMMITTED = gallery.RESULTS.parent / "docs" / "gallery"


def test_the_gallery_has_these_pictures_and_no_other():
    assert {path.name for path in COMMITTED.iterdir()} == set(gallery.PICTURES)
    text = (COMMITTED.parent / "gallery.md").read_text()
    assert all(f"](gallery/{name})" in text for name in gallery.PICTURES)


@pytest.mark.parametrize("name", gallery.PICTURES)
def test_a_committed_picture_is_of_the_committed_results(name):
    digest = gallery.digest(gallery.PICTURES[name][1])
    with Image.open(COMMITTED / name) as image:
        found = image.info.get(gallery.INPUTS) or image.info["comment"].decode()
    assert found == digest, "python -m benchmarks.gallery --out docs/gallery"
    assert (COMMITTED / name).stat().st_size <= 2_000_000


@pytest.mark.parametrize(
    "name", [name for name in gallery.PICTURES if name.endswith(".png")]
)
def test_a_picture_is_made_again_bit_for_bit(name, tmp_path):
    for folder in ("once", "twice"):
        gallery.make(name, tmp_path / folder)
    once = (tmp_path / "once" / name).read_bytes()
    assert once == (tmp_path / "twice" / name).read_bytes()
    with (
        Image.open(COMMITTED / name) as old,
        Image.open(tmp_path / "once" / name) as new,
    ):
        assert old.size == new.size
        with old.convert("L") as left, new.convert("L") as right:
            difference = np.asarray(left, float) - np.asarray(right, float)
    # Another version of the fonts moves letters by little.
    assert np.abs(difference).mean() < 4


def test_the_animation_has_a_frame_a_step_and_ends(tmp_path):
    keep = np.zeros((3, 3, 3, 1, 64), np.uint8)
    keep[1:, 0, 0, 0, :] = 255
    path = tmp_path / "history.npz"
    np.savez(path, step=[0, 20, 40], accuracy=[0.1, 0.5, 0.9], keep=keep)
    frames = gallery.first_layer(path)
    assert len(frames) == 3
    dark = [np.mean(np.asarray(frame.convert("L")) < 100) for frame in frames]
    assert dark[1] > dark[0] + 0.02 and abs(dark[2] - dark[1]) < 0.01
    with Image.open(COMMITTED / "first_layer.gif") as image:
        assert image.n_frames > 20 and image.info["loop"] == 2


@pytest.mark.slow
def test_the_first_layer_is_followed(tmp_path, capsys):
    options = "--arch conv2 --epochs 1 --batch-size 320 --every 3"
    with jax.numpy_dtype_promotion("standard"):  # for optax.adam
        assert first_layer.main(f"{options} --out {tmp_path}".split()) == 0
    with np.load(tmp_path / first_layer.FILE) as file:
        assert file["step"].tolist() == [0, 3, 4]
        assert file["keep"].shape == (3, 3, 3, 1, 64)
        assert (file["keep"][0] != file["keep"][-1]).any()
    assert "step     4: kept" in capsys.readouterr().out
