"""A few tiny images in the layout in which TFDS prepares ImageNet."""

import io
from pathlib import Path

import numpy as np
import PIL.Image

from tests.data.tfds_writer import prepare

SYNSETS = ("n01440764", "n01443537", "n01484850")


def pixels_of(split: str, index: int) -> np.ndarray:
    """Returns a smooth image of a size of its own, brighter with its class."""
    height, width = 20 + 3 * (index % 5), 24 + 4 * (index % 3)
    rng = np.random.default_rng([index, len(split)])
    small = rng.integers(0, 120, (4, 4, 3), np.uint8) + np.uint8(60 * (index % 3))
    image = PIL.Image.fromarray(small).resize((width, height))
    return np.asarray(image)


def jpeg(pixels: np.ndarray) -> bytes:
    """Returns an image as a JPEG file."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format="JPEG", quality=95)
    return file.getvalue()


def write(root: Path, counts: dict[str, int]) -> Path:
    """Prepares such images, and returns the folder of the version.

    Args:
      root: folder of prepared datasets.
      counts: number of images by split.
    """
    import tensorflow_datasets as tfds

    features = {
        "image": tfds.features.Image(encoding_format="jpeg"),
        "label": tfds.features.ClassLabel(names=SYNSETS),
        "file_name": tfds.features.Text(),
    }
    examples = {
        split: [
            {
                "image": jpeg(pixels_of(split, index)),
                "label": index % 3,
                "file_name": f"{SYNSETS[index % 3]}_{index}.JPEG",
            }
            for index in range(count)
        ]
        for split, count in counts.items()
    }
    return prepare(root, "imagenet2012", features, examples, ("image", "label"))
