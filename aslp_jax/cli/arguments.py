"""Flags of the programs, made from the options."""

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from aslp_jax._errors import BadInput
from aslp_jax.trainer.options import FIELDS, Config, check, fixed_options, flag
from aslp_jax.trainer.presets import (
    DATASET_DEFAULTS,
    METHOD_DEFAULTS,
    PRESETS,
    preset_values,
    resolve,
)


@dataclasses.dataclass(frozen=True)
class Command:
    """What the command line asked for.

    Attributes:
      config: the options, preset and flags applied.
      out: the run folder, or None for a new one.
      resume: whether to continue the run in `out`.
    """

    config: Config
    out: Path | None
    resume: bool


class OneLineParser(argparse.ArgumentParser):
    """Raises BadInput where argparse would print its usage and exit."""

    def error(self, message: str) -> NoReturn:
        raise BadInput(message)


def parse(arguments: Sequence[str], *, description: str, saved: Any = None) -> Command:
    """Turns a command line into a checked `Config`.

    Args:
      arguments: the command line without the program's name.
      description: first lines of `--help`.
      saved: function from a run folder to the options of the run in it, used by
        `--resume`.

    Returns:
      The command.

    Raises:
      BadInput: an unknown flag or value, an abbreviation, a number out of range, or a
        flag that contradicts the run to be resumed.
      SystemExit: `--help` was asked for.
    """
    parser = option_parser(description, FIELDS)
    parser.add_argument(
        "--out", metavar="FOLDER", help="run folder (default: a new one under runs/)"
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out; its options need not be given again",
    )
    values = vars(parser.parse_args(arguments))
    out = values.pop("out", None)
    resume = values.pop("resume", False)
    preset = values.pop("preset", None)
    folder = None if out is None else Path(out)
    if not resume:
        return Command(resolve(preset, values), folder, resume)
    if folder is None:
        raise BadInput("--resume needs --out with the folder of the run to continue")
    start = saved(folder)
    chosen = {**preset_values(preset, {**start, **values}), **values}
    for name, value in chosen.items():
        if name in fixed_options(start) and start[name] != value:
            raise BadInput(
                f"{folder} holds a run with {flag(name)} {start[name]}, not "
                f"{value}; drop the flag, or choose another --out"
            )
    config = Config(**{**start, **chosen})
    check(config)
    return Command(config, folder, resume)


def option_parser(
    description: str, names: Iterable[str], *, preset: str = "paper"
) -> argparse.ArgumentParser:
    """Returns a parser of some options and `--preset`; what is not given is absent.

    Args:
      description: first lines of `--help`.
      names: of fields of `Config`.
      preset: what the program takes where none is given.
    """
    parser = OneLineParser(
        description=description,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.HelpFormatter(prog, max_help_position=30),
    )
    for name in names:
        field = FIELDS[name]
        flags = [flag(name), *filter(None, [field.metadata.get("alias")])]
        parser.add_argument(*flags, dest=name, **_argument(field))
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="values to start from, in place of the defaults shown here, which are "
        f"those of paper; a flag given beside it wins (default: {preset})",
    )
    return parser


def _argument(field: dataclasses.Field) -> dict[str, Any]:
    """Keyword arguments of `add_argument` for one field."""
    words = field.metadata["help"]
    default = field.metadata.get("none") if field.default is None else field.default
    if default is not None:
        own = [
            f"; {name}: {_shown(values[field.name])}"
            for name, values in {**DATASET_DEFAULTS, **METHOD_DEFAULTS}.items()
            if field.name in values
        ]
        words = f"{words} (default: {_shown(default)}{''.join(own)})"
    kind = str(field.type)
    if "bool" in kind:
        return {"help": words, "action": argparse.BooleanOptionalAction}
    argument: dict[str, Any] = {"help": words}
    if "choices" in field.metadata:
        return {**argument, "choices": field.metadata["choices"]}
    if "int" in kind:
        return {**argument, "type": int, "metavar": "N"}
    if "float" in kind:
        return {**argument, "type": float, "metavar": "X"}
    return {**argument, "metavar": "FOLDER"}


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
