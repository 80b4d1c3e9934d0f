"""Writes a network as C, ONNX, StableHLO or npz."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aslp_jax._errors import BadInput
from aslp_jax.cli._artefacts import (
    accessing,
    add_output,
    check_output,
    command_parser,
    one_line_errors,
)
from aslp_jax.cli._calibration import add_calibration, calibration_inputs
from aslp_jax.cli.arguments import path_argument
from aslp_jax.trainer.signals import Signals

if TYPE_CHECKING:
    from aslp_jax.artefact import Subnetwork

__all__ = ["main"]

_INTEGERS = "docs/integers.md"
"""Page of the site on integers."""

_PAGE = "docs/export.md"
"""Page of the site on the command."""


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
    parser = command_parser("export", __doc__, _PAGE)
    parser.add_argument("file", type=path_argument, metavar="ARTEFACT")
    parser.add_argument(
        "--to", required=True, metavar="FORMAT", help="onnx, c, stablehlo or npz"
    )
    add_output(
        parser, "the file to write; C also writes NAME.h beside it", required=True
    )
    parser.add_argument(
        "--model",
        metavar="FILE.py:NAME",
        help="module of a network that is not of aslp-jax, as `aslp-jax train` takes "
        "it; the file is imported",
    )
    parser.add_argument(
        "--model-args",
        metavar="NAME=VALUE,...",
        help="arguments of NAME in --model, such as classes=10,width=0.25",
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
        help="type of the pixels: uint8, float32 (onnx, c)",
    )
    parser.add_argument(
        "--compact",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="leave out dead units (default: on)",
    )
    parser.add_argument(
        "--activations",
        default=argparse.SUPPRESS,
        help="numbers between layers: float32, int8 (onnx, c), int16 (c); integers "
        "need --calibrate (default: float32)",
    )
    add_calibration(parser)
    parser.add_argument(
        "--ram",
        type=int,
        metavar="BYTES",
        default=argparse.SUPPRESS,
        help="refuse a network that needs more RAM for static data (c)",
    )
    parser.add_argument(
        "--flash",
        type=int,
        metavar="BYTES",
        default=argparse.SUPPRESS,
        help="refuse a network that needs more flash for constants, tables of layers "
        "and 4 KiB of code (c)",
    )
    with one_line_errors(_PAGE):
        _export(**vars(parser.parse_args(arguments)))
    return 0


def _export(
    file: Path,
    to: str,
    output: Path,
    model: str | None,
    model_args: str | None,
    calibrate: str | None,
    data_dir: Path | None,
    **options: Any,
) -> None:
    with Signals():
        from aslp_jax.export import report, write

    subnetwork = _load(file, model, model_args)
    for each in (output, output.with_suffix(".h")) if to == "c" else (output,):
        check_output(each, file)
    integers = options.get("activations", "float32") != "float32"
    if calibrate is not None and not integers:
        raise BadInput(
            "--calibrate is for --activations int8 or int16; give both",
            page=_INTEGERS,
        )
    if data_dir is not None and calibrate is None:
        raise BadInput(
            "--data-dir is for the data set of --calibrate; give both",
            page=_INTEGERS,
        )
    if integers and calibrate is None:
        raise BadInput(
            f"--activations {options['activations']} needs --calibrate, training "
            "images from which the ranges of integers are measured: a run folder, or a "
            "data set such as digits",
            page=_INTEGERS,
        )
    if calibrate is not None:
        shape = subnetwork.description.image_shape
        options["calibration"] = calibration_inputs(calibrate, data_dir, shape)
    with accessing(f"write {output}"):
        written = write(subnetwork, to, output, **options)
    for each in written.files:
        print(f"{each}: {each.stat().st_size:,} bytes")
    print(report(subnetwork, written.result))


def _load(file: Path, model: str | None, model_args: str | None) -> "Subnetwork":
    """Returns the network of a file, with its module."""
    from aslp_jax import artefact
    from aslp_jax.artefact.loading import load_unbound
    from aslp_jax.trainer import own_network

    if model is None and model_args is not None:
        raise BadInput(
            "--model-args is for the network of --model; give both",
            page="docs/own_network.md",
        )
    with accessing(f"read {file}"):
        if model is not None:
            return artefact.load(file, net=own_network.load(model, model_args))
        subnetwork = load_unbound(file)
    if subnetwork.net is None:
        raise BadInput(
            f"{file} holds the network {subnetwork.source}, which is not of aslp-jax; "
            "give its module as --model FILE.py:NAME",
            page="docs/own_network.md#3-train-extract-export",
        )
    return subnetwork
