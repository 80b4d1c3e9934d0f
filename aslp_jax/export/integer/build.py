"""Integer graph of a subnetwork, from its graph of floats and images."""

from typing import Any

import numpy as np

from aslp_jax.artefact.description import Description
from aslp_jax.export.integer.calibration import CalibrationError, calibrate
from aslp_jax.export.integer.convert import Activations, to_integers
from aslp_jax.export.integer.operations import IntegerGraph
from aslp_jax.export.operations import Graph

__all__ = ["LARGEST", "integer_graph"]

LARGEST = 1024
"""Largest number of images that ranges are measured on."""


def integer_graph(
    graph: Graph,
    description: Description,
    calibration: Any,
    *,
    activations: Activations,
) -> IntegerGraph:
    """Returns a network that computes with integers alone.

    Args:
      graph: graph of the network.
      description: what the network takes.
      calibration: training images as the data set has them, uint8 `[count, height,
        width, channels]`; for inputs that are no images, float32 `[count,
        *input_shape]`. Of more than `LARGEST` of them, some at equal distances are
        used.
      activations: size of the integers between layers.

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
    inputs = inputs[:: -(-len(inputs) // LARGEST) or 1] if inputs.ndim else inputs
    image = None
    if is_image:
        mean, std = image = (description.mean, description.std)
        inputs = inputs.astype(np.float32) / 255
        if mean is not None and std is not None and inputs.shape[-1] == len(mean):
            inputs = (inputs - np.array(mean, "f4")) / np.array(std, "f4")
    ranges = calibrate(graph, inputs)
    return to_integers(graph, ranges, activations=activations, image=image)
