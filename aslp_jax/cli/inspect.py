"""Describes an artefact: its network, size, sparsity and integrity."""

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
    """Runs `aslp-jax inspect`.

    Args:
      arguments: the command line without the command's name.

    Returns:
      The exit code.

    Raises:
      BadInput: a file is damaged, or cannot be read or written.
    """
    parser = command_parser("inspect", __doc__, _PAGE)
    parser.add_argument("file", type=path_argument, metavar="ARTEFACT")
    parser.add_argument(
        "--plot",
        action="store_true",
        help="plot kept fractions, first filters and a sparsity map (needs matplotlib)",
    )
    add_output(parser, "the PNG that --plot writes (default: ARTEFACT as .png)")
    options = parser.parse_args(arguments)
    if options.output is not None and not options.plot:
        raise BadInput(
            "--output names the PNG of --plot; give both or neither", page=_PAGE
        )
    with one_line_errors(_PAGE):
        _inspect(options.file, options.output, plot=options.plot)
    return 0


def _inspect(file: Path, output: Path | None, *, plot: bool) -> None:
    with Signals():
        from aslp_jax.artefact import ArtefactError
        from aslp_jax.artefact.decoding import assemble, assemble_tree, read
        from aslp_jax.artefact.inspect import report

    with accessing(f"read {file}"):
        contents = read(file)
    network = contents.header.network is not None
    png = output or file.with_suffix(".png")
    if plot:
        if not network:
            raise BadInput(
                f"{file} holds a bare pytree; --plot needs a network", page=_PAGE
            )
        check_output(png, file)
    try:
        subnetwork = assemble(contents) if network else assemble_tree(contents)
    except ArtefactError as error:
        print(report(contents, verified=False))
        raise BadInput(
            f"{file} {error}", page="docs/what_can_go_wrong.md#damaged-files"
        ) from None
    print(report(contents, verified=True))
    if plot:
        from aslp_jax.artefact.plot import plot as plot_artefact

        with accessing(f"write {png}"):
            plot_artefact(subnetwork, png)
            size = png.stat().st_size
        print(f"\n{png}: {size:,} bytes")
