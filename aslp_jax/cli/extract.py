"""Copies the network of a finished run into a file of its own."""

import filecmp
from collections.abc import Sequence
from pathlib import Path

from aslp_jax._errors import BadInput
from aslp_jax.cli._artefacts import (
    accessing,
    add_output,
    check_output,
    command_parser,
    one_line_errors,
)
from aslp_jax.cli.arguments import path_argument
from aslp_jax.trainer.signals import Signals

__all__ = ["main"]

_PAGE = "docs/artefact.md#commands"
"""Page of the site on the command."""


def main(arguments: Sequence[str]) -> int:
    """Runs `aslp-jax extract`.

    Args:
      arguments: the command line without the command's name.

    Returns:
      The exit code.

    Raises:
      BadInput: there is no finished run, or a file cannot be read or written.
    """
    parser = command_parser("extract", __doc__, _PAGE)
    parser.add_argument("run_folder", type=path_argument, metavar="RUN_FOLDER")
    add_output(parser, "the artefact to write", required=True)
    parser.add_argument(
        "--embed-weights",
        action="store_true",
        help="store the frozen weights in the file (one bit more for each kept weight "
        "of signed constants, 32 for other weights) instead of their PRNG keys",
    )
    options = parser.parse_args(arguments)
    with one_line_errors(_PAGE):
        _extract(options.run_folder, options.output, embed=options.embed_weights)
    return 0


def _extract(run_folder: Path, output: Path, *, embed: bool) -> None:
    with accessing(f"read {run_folder}"):
        if not run_folder.is_dir():
            raise BadInput(f"{run_folder} is no run folder", page=_PAGE)
    # Imported late, so that `--help` and mistyped names do not wait for JAX.
    with Signals():
        from aslp_jax import artefact
        from aslp_jax.artefact.loading import load_unbound

    source = run_folder / artefact.NETWORK
    with accessing(f"read {source}"):
        if not source.is_file():
            raise BadInput(
                f"{run_folder} holds no finished run, which has a {source.name}; "
                "continue an unfinished run with --resume of the program that began it",
                page=_PAGE,
            )
        subnetwork = load_unbound(source)
    check_output(output, source)
    if embed:
        subnetwork = artefact.embed(subnetwork)
    with accessing(f"write {output}"):
        artefact.save(subnetwork, output)
        size = output.stat().st_size
    with accessing(f"read {source}"):
        left, same = source.stat().st_size, filecmp.cmp(output, source, shallow=False)
    weights = sum(layer.weights.size for layer in subnetwork.layers.values())
    print(
        f"{output}: {size:,} bytes, {8 * size / weights:.3f} bits a weight; "
        f"{'a copy of' if same else 'made from'} {source}, {left:,} bytes"
    )
