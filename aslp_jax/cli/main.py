"""Command `aslp-jax`: one module of this package for each of its commands."""

import importlib
import sys
from collections.abc import Sequence

from aslp_jax._errors import BadInput
from aslp_jax._version import __version__
from aslp_jax.cli.errors import exit_code_lines, run

__all__ = ["COMMANDS", "main"]

COMMANDS = {
    "train": "train one subnetwork, or continue a run",
    "table1": "train the grid of table 1 (Dupont et al. 2022)",
    "budget": "compare ways to a network of few weights (Dupont et al. 2021)",
    "compare": "set one cell of several grids side by side",
    "extract": "take the network out of the folder of a finished run",
    "inspect": "show what an artefact holds and its size, and check it for damage",
    "export": "write a network as C, ONNX, StableHLO or npz",
}
"""Commands by name; each is a module of this package with a function `main`."""

_EPILOGUE = """commands:
{commands}

`aslp-jax COMMAND --help` lists the options of a command.

{exit_codes}
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
      arguments: command line without the program's name; None takes the command line
        of the process.

    Returns:
      The exit code.
    """
    if arguments is None:
        return run(_dispatch, sys.argv[1:], ends_process=True)
    return run(_dispatch, arguments)


def _dispatch(arguments: Sequence[str]) -> int:
    name = arguments[0] if arguments else "-"
    if name in COMMANDS:
        return importlib.import_module(f"aslp_jax.cli.{name}").main(arguments[1:])
    if not name.startswith("-"):
        raise BadInput(f"no command {name!r}; expected one of {', '.join(COMMANDS)}")
    # Only now: from the first moment a signal should find its handler in place.
    import argparse

    from aslp_jax.cli.arguments import OneLineParser

    width = max(map(len, COMMANDS))
    listed = "\n".join(f"  {name:{width}}  {text}" for name, text in COMMANDS.items())
    parser = OneLineParser(
        prog="aslp-jax",
        usage="aslp-jax COMMAND [OPTION ...]",
        description="Light, accurate subnetworks of untrained networks.",
        epilog=_EPILOGUE.format(commands=listed, exit_codes=exit_code_lines()),
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=__version__)
    parser.parse_args(arguments)
    raise BadInput(f"no command; expected one of {', '.join(COMMANDS)}")
