"""A network on its own: out of a run folder, looked at, and in the formats of others.

Exit codes: 0 done; 2 bad input, a file that is not whole, or what this machine cannot
do, one line says what; 130 stopped by Ctrl-C.
"""

import argparse
import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

BAD_INPUT = 2
"""Exit code of anything the person who started the program can mend."""


class BadInput(Exception):
    """Says in one line what was wrong and what would be right."""


class _Parser(argparse.ArgumentParser):
    """Raises BadInput where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(message)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command and turns what went wrong into one line.

    Args:
      arguments: the command line without the program's name; None takes that of the
        process.

    Returns:
      The exit code.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal that knows no plus-minus
    try:
        options = vars(_parser().parse_args(arguments))
        command: Callable[..., int] = options.pop("command")
        return command(**options)
    except (BadInput, ImportError, ValueError) as error:
        found = str(error)
    except (AssertionError, MemoryError, RuntimeError) as error:
        lack = _lack(error)
        if lack is None:
            raise
        found = lack
    except KeyboardInterrupt:
        print("aslp-jax: interrupted", file=sys.stderr)
        return 130
    print(f"aslp-jax: {' '.join(found.split())}", file=sys.stderr)
    return BAD_INPUT


def _lack(error: Exception) -> str | None:
    """Says what this machine lacks, None of an error that is a mistake in the code."""
    if isinstance(error, MemoryError):
        return f"too little memory here: {str(error) or 'no more can be had'}"
    jax = sys.modules.get("jax")
    if jax is None:
        return None
    if isinstance(error, jax.errors.JaxRuntimeError):
        first, *_ = f"{error}\n".splitlines()
        return f"JAX cannot do this here: {first}"
    try:
        jax.default_backend()
    except (AssertionError, RuntimeError) as none:
        asked = os.environ.get("JAX_PLATFORMS", "")
        return f"JAX has no device here (JAX_PLATFORMS={asked}) {none}"
    return None


def extract(run_folder: Path, output: Path, *, embed_weights: bool) -> int:
    """Takes the network out of the folder of a finished run.

    Raises:
      BadInput: there is no finished run, or a file cannot be read or written.
      ValueError: its network is not whole.
    """
    with _files(f"read {run_folder}"):
        if not run_folder.is_dir():
            raise BadInput(f"{run_folder} is no run folder")
    # Only now: `--help` and mistyped names should not wait for JAX.
    from aslp_jax import artefact

    source = run_folder / artefact.NETWORK
    with _files(f"read {source}"):
        if not source.is_file():
            raise BadInput(
                f"{run_folder} holds no finished run, which has a {source.name}; one "
                "that has begun is finished with --resume by the program that began it"
            )
        subnetwork = artefact.load(source)
    _check_output(output, source)
    if embed_weights:
        subnetwork = artefact.embed(subnetwork)
    with _files(f"write {output}"):
        artefact.save(subnetwork, output)
        size = output.stat().st_size
    weights = sum(entry.weights.size for entry in subnetwork.entries.values())
    print(f"{output}: {size:,} bytes, {8 * size / weights:.3f} bits a weight")
    return 0


def inspect(file: Path, output: Path | None, *, plot: bool) -> int:
    """Says what an artefact is and whether it is whole; draws it if asked to.

    Raises:
      BadInput: a file cannot be read or written.
      ValueError: it is no artefact or damaged, or its weights cannot be had.
    """
    if output is not None and not plot:
        raise BadInput("--output is where --plot draws; give both")
    from aslp_jax.artefact.error import ArtefactError
    from aslp_jax.artefact.reading import assemble, read
    from aslp_jax.inspection import report

    with _files(f"read {file}"):
        parts = read(file)
    picture = output or file.with_suffix(".png")
    if plot:
        _check_output(picture, file)
    try:
        subnetwork = assemble(parts)
    except ArtefactError as error:
        print(report(parts, whole=False))
        raise BadInput(f"{file} {error}") from None
    print(report(parts, whole=True))
    if plot:
        from aslp_jax.inspection_picture import draw

        with _files(f"write {picture}"):
            draw(subnetwork, picture)
        print(f"\n{picture} is drawn")
    return 0


def export(file: Path, to: str, output: Path, **options: Any) -> int:
    """Writes a network in the format of others.

    Raises:
      BadInput: a file cannot be read or written.
      ImportError: the format needs a package that is not installed.
      ValueError: the file is not whole, or the format cannot hold its network.
    """
    from aslp_jax import artefact
    from aslp_jax.export import write
    from aslp_jax.export.encoded import report

    with _files(f"read {file}"):
        subnetwork = artefact.load(file)
    for each in (output, output.with_suffix(".h")) if to == "c" else (output,):
        _check_output(each, file)
    with _files(f"write {output}"):
        written = write(subnetwork, to, output, **options)
    for each in written.files:
        print(f"{each}: {each.stat().st_size:,} bytes")
    print(report(subnetwork, written.encoded))
    return 0


@contextlib.contextmanager
def _files(what: str) -> Iterator[None]:
    """Turns what the system says of a file into a line."""
    try:
        yield
    except OSError as error:
        raise BadInput(f"cannot {what}: {error.strerror or error}") from error


def _check_output(output: Path, source: Path) -> None:
    """Checks that what is written takes the place neither of what is read nor a folder.

    Args:
      output: to be written.
      source: that was read.

    Raises:
      BadInput: it does.
    """
    with _files(f"write {output}"):
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if output.exists() and output.samefile(source):
            raise BadInput(f"{output} is the file that is read; name another to write")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="aslp-jax", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def add(run: Callable[..., int], words: str) -> argparse.ArgumentParser:
        name = run.__name__
        command = commands.add_parser(
            name, help=words, description=f"{words}.", allow_abbrev=False
        )
        command.set_defaults(command=run)
        return command

    command = add(extract, "Take the network out of the folder of a finished run")
    command.add_argument("run_folder", type=Path, metavar="RUN_FOLDER")
    _add_output(command, "the artefact to write", required=True)
    command.add_argument(
        "--embed-weights",
        action="store_true",
        help="keep the frozen weights in the file (one bit more for each that is kept "
        "of signed constants, 32 of others) and not how they are drawn again",
    )

    command = add(
        inspect, "Say what an artefact is, how small, and whether it is whole"
    )
    command.add_argument("file", type=Path, metavar="ARTEFACT")
    command.add_argument(
        "--plot",
        action="store_true",
        help="draw kept fractions, first filters and a sparsity map (needs matplotlib)",
    )
    _add_output(command, "the PNG that --plot draws (default: ARTEFACT as .png)")

    command = add(export, "Write a network in the format of others")
    command.add_argument("file", type=Path, metavar="ARTEFACT")
    command.add_argument(
        "--to", required=True, metavar="FORMAT", help="onnx, c, stablehlo or npz"
    )
    _add_output(command, "the file to write; of C also NAME.h beside it", required=True)
    command.add_argument(
        "--storage",
        default=argparse.SUPPRESS,
        help="of the weights: float, int8 (onnx); sparse, signs, seed, dense (c); "
        "dense, sparse (npz)",
    )
    command.add_argument(
        "--inputs",
        default=argparse.SUPPRESS,
        help="type of the pixels: uint8, float32 (onnx)",
    )
    command.add_argument(
        "--compact",
        action=argparse.BooleanOptionalAction,
        default=argparse.SUPPRESS,
        help="leave out units that no path leads through (default: on)",
    )
    return parser


def _add_output(
    command: argparse.ArgumentParser, words: str, *, required: bool = False
) -> None:
    command.add_argument(
        "-o", "--output", type=Path, required=required, metavar="FILE", help=words
    )


if __name__ == "__main__":
    sys.exit(main())
