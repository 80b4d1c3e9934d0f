"""Inputs that `--calibrate` names: images of a run, of a data set or of a file."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING

from aslp_jax._errors import BadInput
from aslp_jax.cli.arguments import path_argument

if TYPE_CHECKING:
    import numpy as np

__all__ = ["add_calibration", "calibration_inputs"]

_PAGE = "docs/integers.md#ranges"
"""Page of the site on these errors."""

_EXPECTED = (
    "a run folder, a data set such as digits, images as --data of aslp-jax train takes "
    "them, or inputs in an .npy file"
)

_STREAMED = 1024
"""Number of images to measure ranges on, of a data set that is streamed."""


def add_calibration(parser: argparse.ArgumentParser) -> None:
    """Adds the flags that name the inputs to measure ranges on."""
    parser.add_argument(
        "--calibrate",
        metavar="RUN_FOLDER",
        default=None,
        help="inputs to measure the ranges of integers on, for --activations int8 and "
        f"int16: {_EXPECTED}",
    )
    parser.add_argument(
        "--data-dir",
        type=path_argument,
        metavar="FOLDER",
        default=None,
        help="prepared TFDS folder of the data set that --calibrate names",
    )


def calibration_inputs(
    source: str, data_dir: Path | None, input_shape: tuple[int, ...]
) -> "np.ndarray":
    """Reads training images, or other inputs of a network.

    Args:
      source: value of `--calibrate`.
      data_dir: value of `--data-dir`.
      input_shape: shape of one input of the network.

    Returns:
      uint8 `[count, height, width, channels]`; from an `.npy` file what it holds.

    Raises:
      BadInput: nothing of that name can be read.
    """
    import numpy as np

    from aslp_jax.data import pipeline
    from aslp_jax.data.names import IMAGENET, NAMES, PREFIX
    from aslp_jax.data.streamed import Streamed
    from aslp_jax.trainer.loading import load_dataset
    from aslp_jax.trainer.options import Config, check
    from aslp_jax.trainer.run_folder import RunFolder

    path = Path(source).expanduser()
    folder = None if data_dir is None else str(data_dir)
    size = "x".join(map(str, input_shape[:2])) if len(input_shape) == 3 else None
    is_run = (path / "config.json").is_file()
    is_sized = source == IMAGENET or source.startswith(PREFIX)
    is_named = source in NAMES or is_sized
    if data_dir is not None and path.exists() and not (is_run or is_named):
        raise BadInput(
            f"--calibrate {source} is no data set and no run; it takes no --data-dir",
            page=_PAGE,
        )
    if path.suffix == ".npy":
        return _read_array(path)
    if is_run:
        options = RunFolder(path).saved_options()
        # The folder may have moved since the run.
        config = Config(**{**options, "data_dir": folder or options["data_dir"]})
    elif source in NAMES:
        config = Config(dataset=source, data_dir=folder)
    elif is_sized:
        config = Config(dataset=source, data_dir=folder, image_size=size)
    elif path.exists():
        config = Config(data=str(path), dataset="own", image_size=size)
    else:
        raise BadInput(
            f"--calibrate {source} is missing; give {_EXPECTED}",
            page=_PAGE,
        )
    check(config)
    data = load_dataset(config)
    if isinstance(data, Streamed):
        # From end to end, because the images of a folder lie class by class.
        count = min(_STREAMED, data.train_count)
        rows = np.arange(count) * data.train_count // count
        return next(pipeline.batches(data.train, rows, len(rows))).images
    return data.train_images


def _read_array(path: Path) -> "np.ndarray":
    """Reads an array in NumPy's format.

    Raises:
      BadInput: the file cannot be read, or holds something else.
    """
    from aslp_jax.data import npy

    try:
        with path.open("rb") as file:
            return npy.read(file, path.stat().st_size)
    except OSError as error:
        raise BadInput(
            f"cannot read {path}: {error.strerror or error}",
            page=_PAGE,
        ) from error
    except ValueError as error:
        raise BadInput(f"{path} is no array of NumPy: {error}", page=_PAGE) from error
