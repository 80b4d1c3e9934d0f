"""Integer graph of a subnetwork, from its graph of floats and images."""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np

from aslp_jax.artefact.description import Description
from aslp_jax.export.integer.calibration import (
    CLIPPING,
    CalibrationError,
    Clipping,
    calibrate,
)
from aslp_jax.export.integer.convert import Activations, to_integers
from aslp_jax.export.integer.operations import IntegerGraph
from aslp_jax.export.operations import Graph

__all__ = ["LARGEST", "integer_graph", "standardise"]

LARGEST = 1024
"""Largest number of images that ranges are measured on."""

_REAL = (jnp.floating, jnp.integer, jnp.bool_)
"""Kinds of numbers that inputs may be; bfloat16 among them."""


def integer_graph(
    graph: Graph,
    description: Description,
    calibration: Any,
    *,
    activations: Activations,
    clipping: Clipping = CLIPPING[0],
) -> IntegerGraph:
    """Returns a network that computes with integers alone.

    Args:
      graph: graph of the network.
      description: description of the network, with the shape of its inputs.
      calibration: training images as the data set has them, uint8 `[count, height,
        width, channels]`; for inputs that are no images, float32 `[count,
        *input_shape]`. Of more than `LARGEST` of them, some at equal distances are
        used.
      activations: size of the integers between layers.
      clipping: rule for the largest number that 8 bits keep.

    Raises:
      CalibrationError: there are no inputs, they have another shape or dtype, or a
        range is 0 or not finite.
      UnsupportedError: an operation has no integer form.
    """
    if calibration is None:
        raise CalibrationError(
            f"integers: {activations} activations need images to calibrate on; give "
            "some of the training images"
        )
    inputs = np.asarray(calibration)
    is_image = len(graph.input_shape) == 3
    if is_image and inputs.dtype != np.uint8:
        raise CalibrationError(
            f"integers: images to calibrate on must be uint8, got {inputs.dtype}"
        )
    if not any(jnp.issubdtype(inputs.dtype, kind) for kind in _REAL):
        raise CalibrationError(
            f"integers: inputs to calibrate on must be real numbers, got {inputs.dtype}"
        )
    inputs = inputs[:: -(-len(inputs) // LARGEST) or 1] if inputs.ndim else inputs
    image = None
    if is_image:
        image = (description.mean, description.std)
        inputs = standardise(inputs, *image)
    ranges = calibrate(graph, inputs, clipping=clipping)
    return to_integers(graph, ranges, activations=activations, image=image)


def standardise(
    images: np.ndarray, mean: Sequence[float] | None, std: Sequence[float] | None
) -> np.ndarray:
    """Returns images as a network takes them.

    Args:
      images: uint8 `[count, height, width, channels]`.
      mean: mean of each channel, for pixels in [0, 1]; None if the network takes those.
      std: standard deviation of each channel, given with `mean`.

    Returns:
      float32 of the same shape; not standardised if the channels are others.
    """
    pixels = images.astype(np.float32) / 255
    if mean is None or std is None or images.shape[-1:] != (len(mean),):
        return pixels
    return (pixels - np.array(mean, np.float32)) / np.array(std, np.float32)
