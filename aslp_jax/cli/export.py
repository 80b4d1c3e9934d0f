"""Writes a network as C, ONNX, StableHLO or npz."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from aslp_jax.cli._artefacts import (
    accessing,
    add_output,
    check_output,
    command_parser,
    one_line_errors,
)

__all__ = ["main"]


def main(arguments: Sequence[str]) -> int:
    """Runs `aslp-jax export`.

    Args:
      arguments: the command line without the command's name.

    Returns:
      The exit code.

    Raises:
      BadInput: a file is damaged, or cannot be read or written; or the format needs a
        package that is not installed, or cannot hold the network.
    """
    parser = command_parser("export", __doc__)
    parser.add_argument("file", type=Path, metavar="ARTEFACT")
    parser.add_argument(
        "--to", required=True, metavar="FORMAT", help="onnx, c, stablehlo or npz"
    )
    add_output(
        parser, "the file to write; C also writes NAME.h beside it", required=True
    )
    parser.add_argument(
        "--storage",
        default=argparse.SUPPRESS,
        help="storage of the weights: float, int8 (onnx); sparse, signs, seed, dense "
        "(c); dense, sparse (npz)",
    )
    parser.add_argument(
        "--inputs",
        default=argparse.SUPPRESS,
        help="type of the pixels: uint8, float32 (onnx)",
    )
    parser.add_argument(
        "--compact",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="leave out dead units (default: on)",
    )
    with one_line_errors():
        _export(**vars(parser.parse_args(arguments)))
    return 0


def _export(file: Path, to: str, output: Path, **options: Any) -> None:
    from aslp_jax import artefact
    from aslp_jax.export import report, write

    with accessing(f"read {file}"):
        subnetwork = artefact.load(file)
    for each in (output, output.with_suffix(".h")) if to == "c" else (output,):
        check_output(each, file)
    with accessing(f"write {output}"):
        written = write(subnetwork, to, output, **options)
    for each in written.files:
        print(f"{each}: {each.stat().st_size:,} bytes")
    print(report(subnetwork, written.result))
