"""Datasets that TFDS prepares from a few images, for tests of several packages."""

import contextlib
import io
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image


def png(pixels: np.ndarray) -> bytes:
    """Returns an image as a PNG file."""
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, format="PNG")
    return file.getvalue()


def prepare(
    root: Path,
    dataset: str,
    features: dict[str, Any],
    examples: dict[str, list[dict[str, Any]]],
    supervised: tuple[str, str] | None = None,
) -> Path:
    """Prepares version 1.2.0 of a dataset, and returns its folder.

    Args:
      root: folder of prepared datasets.
      dataset: name of the dataset.
      features: features of TFDS by name.
      examples: values of each record by split; images are PNG files.
      supervised: names of input and target.
    """
    import tensorflow_datasets as tfds

    with tfds.core.registered.skip_registration():

        class Written(tfds.core.GeneratorBasedBuilder):
            name = dataset
            VERSION = tfds.core.Version("1.2.0")

            def _info(self) -> Any:
                return tfds.core.DatasetInfo(
                    builder=self,
                    features=tfds.features.FeaturesDict(features),
                    supervised_keys=supervised,
                )

            def _split_generators(self, manager: Any) -> dict[str, Any]:
                return {split: self._generate_examples(split) for split in examples}

            def _generate_examples(self, split: str) -> Iterator[tuple[int, Any]]:
                for index, example in enumerate(examples[split]):
                    yield (
                        index,
                        {
                            key: io.BytesIO(value)
                            if isinstance(value, bytes)
                            else value
                            for key, value in example.items()
                        },
                    )

    with contextlib.redirect_stdout(sys.stderr):
        Written(data_dir=root, file_format="array_record").download_and_prepare()
    return root / dataset / "1.2.0"
