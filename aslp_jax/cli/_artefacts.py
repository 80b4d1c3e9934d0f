"""Helpers of the commands that read an artefact: their parser, files and errors."""

import argparse
import contextlib
import errno
import os
from collections.abc import Iterator
from pathlib import Path

from aslp_jax._errors import BadInput
from aslp_jax.cli.arguments import OneLineParser, path_argument


def command_parser(name: str, description: str, page: str) -> argparse.ArgumentParser:
    """Returns a parser for one command, without flags of its own yet.

    Args:
      name: name of the command.
      description: first lines of `--help`.
      page: page of the site on the command.
    """
    parser = OneLineParser(
        prog=f"aslp-jax {name}", description=description, allow_abbrev=False
    )
    parser.page = page
    return parser


def add_output(
    parser: argparse.ArgumentParser, help: str, *, required: bool = False
) -> None:
    """Adds the flag that names the file to write."""
    parser.add_argument(
        "-o",
        "--output",
        type=path_argument,
        required=required,
        metavar="FILE",
        help=help,
    )


@contextlib.contextmanager
def one_line_errors(page: str) -> Iterator[None]:
    """Turns errors about a file or a missing package into `BadInput`.

    Args:
      page: page of the site on errors that name no other.

    Raises:
      BadInput: the block raised such an error.
    """
    try:
        yield
    except (ImportError, ValueError) as error:
        raise BadInput(str(error), page=page) from error


@contextlib.contextmanager
def accessing(action: str) -> Iterator[None]:
    """Turns an error of the file system into `BadInput` that names the action.

    Args:
      action: verb and file, such as `"read conv4.aslp"`.

    Raises:
      BadInput: the block raised such an error.
    """
    try:
        yield
    except OSError as error:
        raise BadInput(
            f"cannot {action}: {error.strerror or error}",
            page="docs/what_can_go_wrong.md#output-disk-or-device-fails",
        ) from error


def check_output(output: Path, source: Path) -> None:
    """Checks that the output replaces neither a folder nor the file that was read.

    Args:
      output: the file to write.
      source: the file that was read.

    Raises:
      BadInput: the output would replace one of them.
    """
    with accessing(f"write {output}"):
        if output.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        if output.exists() and output.samefile(source):
            raise BadInput(
                f"{output} is the input file; name another file to write",
                page="docs/artefact.md#commands",
            )
