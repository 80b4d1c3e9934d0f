"""Formats of an export by name, and the function that writes one."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from aslp_jax._atomic import write_all
from aslp_jax._extras import require
from aslp_jax.artefact import Subnetwork
from aslp_jax.export.result import ExportResult

__all__ = ["KINDS", "Written", "write"]

KINDS = ("onnx", "c", "stablehlo", "npz")
"""Names of the formats."""


class Written(NamedTuple):
    """Files of an export, and its facts.

    Attributes:
      files: paths of the files.
      result: contents of the files, and the cost of the network in them.
    """

    files: tuple[Path, ...]
    result: ExportResult


def write(
    subnetwork: Subnetwork, kind: str, path: str | os.PathLike[str], **options: Any
) -> Written:
    """Writes a subnetwork in another format, atomically.

    Options of each format, its default first:

    - `"onnx"`: `storage` (`"float"`, `"int8"`), `inputs` (`"uint8"`, `"float32"`),
      `compact` (True, False), `activations` (`"float32"`, `"int8"`), `calibration`
      (None, images).
    - `"c"`: `storage` (`"sparse"`, `"signs"`, `"seed"`, `"dense"`), `inputs`
      (`"uint8"`, `"float32"`), `compact` (True, False), `activations` (`"float32"`,
      `"int8"`, `"int16"`), `calibration` (None, images), `ram` (None, bytes), `flash`
      (None, bytes).
    - `"stablehlo"`: `compact` (True, False).
    - `"npz"`: `storage` (`"dense"`, `"sparse"`).

    `storage` is the way to store the weights. `inputs` is the dtype of the images.
    `compact` removes dead units. `activations` are the numbers between layers; integers
    need `calibration`, training images from which their ranges are measured.

    Args:
      subnetwork: the network.
      kind: one of `KINDS`.
      path: the file to write. A C source `NAME.c` gets its header `NAME.h` beside it.
      **options: options of the format.

    Returns:
      The files, and the facts about them.

    Raises:
      CalibrationError: there are no images to measure ranges on, or no ranges in them.
      MissingExtra: the format is ONNX and the package `onnx` is not installed.
      OSError: a file cannot be written.
      TooLargeError: the network needs more RAM or flash.
      UnsupportedError: the format cannot compute the network, or not with integers.
      ValueError: the format or an option is unknown, the path does not suit the format,
        or the format cannot express the network.
    """
    path = Path(path)
    encode = _encoder(kind)
    arguments: tuple[str, ...] = ()
    if kind == "c":
        if path.suffix != ".c":
            raise ValueError(f"write: a C source is named NAME.c, got {path.name!r}")
        arguments = (path.stem,)
    known = list(encode.__kwdefaults__ or ())
    for name in options:
        if name not in known:
            raise ValueError(
                f"write: {kind} has no option {name!r}; it has {', '.join(known)}"
            )
    if subnetwork.net is None and kind != "npz":
        raise ValueError(
            f"write: {kind} computes the network, and the arrays of "
            f"{subnetwork.source} were read without it; load them with net="
        )
    result = encode(subnetwork, *arguments, **options)
    files = {
        path.with_suffix(suffix) if suffix else path: content
        for suffix, content in result.files.items()
    }
    write_all(files)
    return Written(tuple(files), result)


def _encoder(kind: str) -> Callable[..., ExportResult]:
    """Returns the function that encodes a format.

    The packages of a format are imported only here, when the format is asked for.
    """
    match kind:
        case "onnx":
            require("onnx", by="write: ONNX")
            from aslp_jax.export import onnx

            return onnx.encode
        case "c":
            from aslp_jax.export import c

            return c.encode
        case "stablehlo":
            from aslp_jax.export import stablehlo

            return stablehlo.encode
        case "npz":
            from aslp_jax.export import npz

            return npz.encode
        case _:
            raise ValueError(
                f"write: unknown format {kind!r}; expected one of {', '.join(KINDS)}"
            )
