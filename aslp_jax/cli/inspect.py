"""Says what an artefact is, how small, and whether it is whole."""

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


def main(arguments: Sequence[str]) -> int:
    """Runs `aslp-jax inspect`.

    Args:
      arguments: the command line without the command's name.

    Returns:
      The exit code.

    Raises:
      BadInput: a file is damaged, or cannot be read or written.
    """
    parser = command_parser("inspect", __doc__)
    parser.add_argument("file", type=Path, metavar="ARTEFACT")
    parser.add_argument(
        "--plot",
        action="store_true",
        help="plot kept fractions, first filters and a sparsity map (needs matplotlib)",
    )
    add_output(parser, "the PNG that --plot writes (default: ARTEFACT as .png)")
    options = parser.parse_args(arguments)
    if options.output is not None and not options.plot:
        raise BadInput("--output is where --plot draws; give both")
    with one_line_errors():
        _inspect(options.file, options.output, plot=options.plot)
    return 0


def _inspect(file: Path, output: Path | None, *, plot: bool) -> None:
    from aslp_jax.artefact.container import ArtefactError
    from aslp_jax.artefact.decoding import assemble, read
    from aslp_jax.artefact.inspect import report

    with accessing(f"read {file}"):
        parts = read(file)
    picture = output or file.with_suffix(".png")
    if plot:
        check_output(picture, file)
    try:
        subnetwork = assemble(parts)
    except ArtefactError as error:
        print(report(parts, whole=False))
        raise BadInput(f"{file} {error}") from None
    print(report(parts, whole=True))
    if plot:
        from aslp_jax.artefact.plot import plot as plot_artefact

        with accessing(f"write {picture}"):
            plot_artefact(subnetwork, picture)
        print(f"\n{picture} is drawn")
