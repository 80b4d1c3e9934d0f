"""Encoder of a subnetwork: what the C code needs to know, from an artefact."""

import re
from typing import Literal

import numpy as np

from aslp_jax.artefact import Subnetwork
from aslp_jax.export import passes
from aslp_jax.export.c.code import Code, encode_graph, encode_integer_graph
from aslp_jax.export.c.interface import Inputs, Pixels
from aslp_jax.export.c.weights import Storage
from aslp_jax.export.cost import cost
from aslp_jax.export.integer.build import integer_graph
from aslp_jax.export.integer.convert import ACTIVATIONS, Activations
from aslp_jax.export.network import graph_of
from aslp_jax.export.refusal import TooLargeError
from aslp_jax.export.result import MULTIPLIED_AS_ZEROS, ExportResult

__all__ = ["CODE_BYTES", "encode"]

CODE_BYTES = 4096
"""Bytes of flash that are allowed for code."""

_DROPPED: dict[Storage, str] = {
    "dense": MULTIPLIED_AS_ZEROS,
    "sparse": "weights take neither memory nor time",
    "signs": "weights take one bit and almost no time",
    "seed": "weights take one bit; computing the kept ones takes longer than adding",
}


def encode(
    subnetwork: Subnetwork,
    name: str,
    *,
    storage: Storage = "sparse",
    inputs: Inputs = "uint8",
    compact: bool = True,
    activations: Literal["float32", Activations] = "float32",
    calibration: np.ndarray | None = None,
    ram: int | None = None,
    flash: int | None = None,
) -> ExportResult:
    """Returns the header and the source of a network.

    The files declare and define `NAME_logits` and `NAME_class`. Both functions take an
    image of bytes, row by row and channels last, as cameras give them. A network whose
    output is no vector of classes has `NAME_run` instead. The macro `NAME_CLASS_NAMES`
    lists the names of the classes, if the artefact has them. Inputs that are no images,
    such as a vector or a sequence `[length, channels]`, are float32, as the module
    takes them. All values between layers share one static array, so two calls must not
    run at the same time.

    The code computes in float32, whatever the dtype of the network, or with integers
    alone. It is for machines with an `int` of 32 bits that read constants like other
    memory. It calls functions of the mathematical library only if the network has such
    functions, or if normally distributed weights are computed from a seed; the header
    says so.

    Integers give the same results on every processor, and need ranges of all values,
    which are measured on images. Inputs that are no images are then integers too, and
    the header states their scale.

    Args:
      subnetwork: the network.
      name: prefix of all public names; an identifier of C.
      storage: way to store the weights. `"sparse"`: a number for each kept weight, and
        a byte for its position. `"signs"`: one bit for each weight and one more for
        each kept weight, for layers of one magnitude, which only add and subtract.
        `"seed"`: one bit for each weight; the weights are computed from the seed again
        for every image. `"dense"`: a number for each weight. Numbers are floats, or
        bytes for integers.
      inputs: dtype of the pixels, which are from 0 to 255.
      compact: True removes dead units (`passes.compact`). `"seed"` keeps all units.
      activations: numbers between layers: float32, or integers of 8 or 16 bits.
      calibration: training images to measure ranges on, uint8 `[count, height, width,
        channels]`, or other inputs as the module takes them; for integers.
      ram: bytes of RAM that there are for static data: the values between layers, and
        sums of integers. The stack is not counted. None for any number.
      flash: bytes of flash that there are for constants, tables of layers and
        `CODE_BYTES`. None for any number.

    Returns:
      Two files, `".h"` and `".c"`.

    Raises:
      CalibrationError: there are no images to measure ranges on, or no ranges in them.
      TooLargeError: the network needs more RAM or flash.
      UnsupportedError: the C code cannot compute the network, or not with integers.
      ValueError: the name is not an identifier, the storage, the inputs or the
        activations are unknown, or the storage cannot hold the weights.
    """
    if inputs not in ("uint8", "float32"):
        raise ValueError(
            f"c: inputs must be one of ('uint8', 'float32'), got {inputs!r}"
        )
    if activations not in ("float32", *ACTIVATIONS):
        raise ValueError(
            f"c: activations must be one of {('float32', *ACTIVATIONS)}, got "
            f"{activations!r}"
        )
    description = subnetwork.description
    shape = description.image_shape
    network = graph_of(subnetwork.net, subnetwork.variables, shape)
    before = cost(network)
    if compact and storage != "seed":
        # Units of several magnitudes would not stay signs.
        merge = storage != "signs" and activations == "float32"
        network = passes.compact(network, merge=merge)
    classes = network.shapes[-1] == (description.classes,)
    if activations == "float32":
        pixels = Pixels(inputs, description.mean, description.std)
        code = encode_graph(
            network,
            name,
            storage=storage,
            pixels=pixels if len(shape) == 3 else None,
            classes=classes,
            layers=subnetwork.layers,
            about=_about(subnetwork),
            class_names=description.class_names,
        )
    else:
        if inputs != "uint8":
            raise ValueError(
                f"c: {activations} activations take uint8 images, not {inputs}"
            )
        code = encode_integer_graph(
            integer_graph(network, description, calibration, activations=activations),
            name,
            storage=storage,
            classes=classes,
            layers=subnetwork.layers,
            about=_about(subnetwork),
            class_names=description.class_names,
        )
    _check_size(code, ram, flash)
    return ExportResult(
        code.files,
        before,
        cost(network),
        operations=code.operations,
        dropped=_DROPPED[storage],
        numbers=activations,
    )


def _check_size(code: Code, ram: int | None, flash: int | None) -> None:
    """Refuses code that needs more memory than there is."""
    needed = code.constant_bytes + code.table_bytes + CODE_BYTES
    if ram is not None and code.memory_bytes > ram:
        raise TooLargeError(
            f"c: needs {code.memory_bytes:,} bytes of RAM and a stack, more than --ram "
            f"{ram:,}"
        )
    if flash is not None and needed > flash:
        raise TooLargeError(
            f"c: needs {needed:,} bytes of flash, {CODE_BYTES:,} of them for code, "
            f"more than --flash {flash:,}"
        )


def _about(subnetwork: Subnetwork) -> list[str]:
    """Returns what the header says about the origin of a network."""
    description = subnetwork.description
    # Text from a file could end the comment.
    arch, dataset = (
        re.sub(r"[^\w .,:()%+-]", "_", text, flags=re.ASCII)
        for text in (description.arch, description.dataset)
    )
    classes = f", {description.classes} classes" if description.classes else ""
    selected = f", selected on {dataset}" if dataset else ""
    about = [f"{arch}{classes}{selected}"]
    if "thresholding" in description.accuracies:
        accuracy = description.accuracies["thresholding"]
        about.append(f"accuracy on the test images: {accuracy:.2%}")
    return about
