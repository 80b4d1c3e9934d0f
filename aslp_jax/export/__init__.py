"""A subnetwork in the formats of others: ONNX, C, StableHLO and npz."""

import contextlib
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from aslp_jax.artefact import Subnetwork
from aslp_jax.whole_file import replacing

KINDS = ("onnx", "c", "stablehlo", "npz")
"""What a subnetwork can be written as."""


def write(
    subnetwork: Subnetwork, kind: str, path: str | os.PathLike[str], **options: Any
) -> tuple[Path, ...]:
    """Writes a subnetwork in another format; the files appear whole or not at all.

    Args:
      subnetwork: the network.
      kind: one of `KINDS`.
      path: of the file; a C source `NAME.c` gets its header `NAME.h` beside it.
      **options: those of `onnx.encode`, `c.sources`, `stablehlo.encode` or
        `npz.encode`.

    Returns:
      The files written.

    Raises:
      ImportError: ONNX is asked for and the package `onnx` is not installed.
      OSError: a file cannot be written.
      ValueError: the kind or an option is unknown, the path does not suit it, or the
        network has something that the format cannot say.
    """
    path = Path(path)
    encode: Callable[..., bytes]
    if kind == "c":
        from aslp_jax.export import c

        _check_options(kind, c.sources, options)
        if path.suffix != ".c":
            raise ValueError(f"write: a C source is named NAME.c, got {path.name!r}")
        texts = c.sources(subnetwork, path.stem, **options)
        files = {
            path.with_suffix(suffix): text.encode() for suffix, text in texts.items()
        }
    elif kind in KINDS:
        if kind == "onnx":
            try:
                from aslp_jax.export.onnx import encode
            except ModuleNotFoundError as error:
                raise ImportError(
                    "write: ONNX needs the package onnx; pip install 'aslp-jax[export]'"
                ) from error
        elif kind == "stablehlo":
            from aslp_jax.export.stablehlo import encode
        else:
            from aslp_jax.export.npz import encode
        _check_options(kind, encode, options)
        files = {path: encode(subnetwork, **options)}
    else:
        raise ValueError(
            f"write: unknown format {kind!r}; expected one of {', '.join(KINDS)}"
        )
    with contextlib.ExitStack() as stack:
        for each, content in files.items():
            stack.enter_context(replacing(each)).write(content)
    return tuple(files)


def _check_options(
    kind: str, encode: Callable[..., Any], options: Mapping[str, Any]
) -> None:
    known = list(encode.__kwdefaults__ or ())
    for name in options:
        if name not in known:
            raise ValueError(
                f"write: {kind} has no option {name!r}; it has {', '.join(known)}"
            )
