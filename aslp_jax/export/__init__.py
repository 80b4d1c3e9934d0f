"""A subnetwork in the formats of others: ONNX, C, StableHLO and npz."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from aslp_jax._atomic import write_all
from aslp_jax._extras import require
from aslp_jax.artefact import Subnetwork
from aslp_jax.export.result import ExportResult

KINDS = ("onnx", "c", "stablehlo", "npz")
"""What a subnetwork can be written as."""


class Written(NamedTuple):
    """What became of a network.

    Attributes:
      files: that were written.
      encoded: what they hold and take; `encoded.report` puts it into words.
    """

    files: tuple[Path, ...]
    encoded: ExportResult


def write(
    subnetwork: Subnetwork, kind: str, path: str | os.PathLike[str], **options: Any
) -> Written:
    """Writes a subnetwork in another format; the files appear whole or not at all.

    Args:
      subnetwork: the network.
      kind: one of `KINDS`.
      path: of the file; a C source `NAME.c` gets its header `NAME.h` beside it.
      **options: those of `onnx.encode`, `c.encode`, `stablehlo.encode` or
        `npz.encode`.

    Returns:
      The files written, and what there is to say of them.

    Raises:
      MissingExtra: ONNX is asked for and the package `onnx` is not installed.
      OSError: a file cannot be written.
      ValueError: the kind or an option is unknown, the path does not suit it, or the
        network has something that the format cannot say.
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
    encoded = encode(subnetwork, *arguments, **options)
    files = {
        path.with_suffix(suffix) if suffix else path: content
        for suffix, content in encoded.files.items()
    }
    write_all(files)
    return Written(tuple(files), encoded)


def _encoder(kind: str) -> Callable[..., ExportResult]:
    """What encodes; a format's packages are imported only when it is asked for."""
    match kind:
        case "onnx":
            require("onnx", by="write: ONNX")
            from aslp_jax.export import onnx

            return onnx.encode
        case "c":
            from aslp_jax.export.c import code as c

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
