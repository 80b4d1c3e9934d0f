"""Flags of the commands, made from the options.

The file is long because flags of a new run, of a resumed one and of one on several
processes are told apart here, each with its own error.
"""

import argparse
import dataclasses
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

from aslp_jax._errors import BadInput
from aslp_jax.cli import _cluster
from aslp_jax.trainer.options import FIELDS, Config, check, fixed_options, flag
from aslp_jax.trainer.presets import (
    DATASET_DEFAULTS,
    DATASET_PRESETS,
    METHOD_DEFAULTS,
    PRESETS,
    default_preset,
    preset_values,
    resolve,
)
from aslp_jax.trainer.run_folder import RunFolder

__all__ = [
    "Command",
    "Flags",
    "OneLineParser",
    "add_report_flag",
    "option_parser",
    "parse",
    "path_argument",
]


@dataclasses.dataclass(frozen=True)
class Command:
    """Run that a command line asks for.

    Attributes:
      config: options, with preset and flags applied.
      folder: run folder; free for a new run, or with `resume` that of the run.
      resume: True to continue the run in `folder`.
      first: True in the process that prints and uses the folder; default: the only one.
      preset: remark on the preset that was taken by default; "" for none.
      report: True to write a report; default: True.
      tensorboard: True to write event files of TensorBoard; default: False.
    """

    config: Config
    folder: RunFolder
    resume: bool
    first: bool = True
    preset: str = ""
    report: bool = True
    tensorboard: bool = False


class OneLineParser(argparse.ArgumentParser):
    """Parser that raises BadInput where argparse prints its usage and exits.

    Attributes:
      page: page of the site on its flags; "" for none.
    """

    page = ""

    def error(self, message: str) -> NoReturn:
        """Raises BadInput with the message."""
        raise BadInput(message, page=self.page)


def path_argument(text: str) -> Path:
    """Returns the path that a person gave, with `~` as the home folder.

    Args:
      text: path; `~` is left in place by shells in `--out=~/run`.

    Raises:
      argparse.ArgumentTypeError: the path is empty, or there is no such home folder.
    """
    if not text:
        raise argparse.ArgumentTypeError("the path is empty")
    try:
        return Path(text).expanduser()
    except RuntimeError:
        raise argparse.ArgumentTypeError(
            f"there is no home folder for {text}; write the path in full"
        ) from None


@dataclasses.dataclass(frozen=True)
class Flags:
    """Flags of a command line, before any folder is looked at.

    Attributes:
      options: values of options that were given, by name.
      preset: name of the preset; None for the default.
      path: run folder; None for a new one.
      resume: True to continue the run in `path`.
      cluster: processes of the run; None for one process.
      report: True to write a report.
      tensorboard: True to write event files of TensorBoard.
    """

    options: dict[str, Any]
    preset: str | None
    path: Path | None
    resume: bool
    cluster: _cluster.Cluster | None
    report: bool
    tensorboard: bool

    def command(self) -> Command:
        """Returns the run that the flags ask for; no file is written.

        Raises:
          BadInput: a number is out of range, a flag contradicts the run to be resumed,
            or the folder cannot be used.
        """
        if not self.resume:
            preset, remark = self.preset, ""
            if preset is None:
                preset, remark = default_preset(self.options)
            config = resolve(preset, self.options)
            folder = RunFolder.new(self.path, config)
            return self._command(config, folder, remark)
        if self.path is None:
            raise BadInput(
                "--resume needs --out with the folder of the run to continue",
                page="docs/resuming.md",
            )
        folder = RunFolder(self.path)
        start = folder.saved_options()
        chosen = {
            **preset_values(self.preset, {**start, **self.options}),
            **self.options,
        }
        for name, value in chosen.items():
            if name in fixed_options(start) and start[name] != value:
                other = f"not {value}; drop the flag"
                if name not in self.options:
                    other = f"not {value} as by --preset {self.preset}; drop --preset"
                raise BadInput(
                    f"{self.path} holds a run with {flag(name)} {start[name]}, "
                    f"{other}, or choose another --out",
                    page="docs/resuming.md",
                )
        config = Config(**{**start, **chosen})
        check(config)
        return self._command(config, folder, "")

    def _command(self, config: Config, folder: RunFolder, remark: str) -> Command:
        return Command(
            config,
            folder,
            resume=self.resume,
            preset=remark,
            report=self.report,
            tensorboard=self.tensorboard,
        )


def parse(
    arguments: Sequence[str],
    *,
    description: str,
    prog: str | None = None,
    epilog: str | None = None,
) -> Flags:
    """Reads the command line of a run.

    Args:
      arguments: command line without the program's name.
      description: first lines of `--help`.
      prog: name of the program in `--help`; default: the script's name.
      epilog: last lines of `--help`; default: none.

    Raises:
      BadInput: a flag or a value is unknown, or a flag is abbreviated.
      SystemExit: `--help` was asked for.
    """
    others = [
        f"with --dataset {name} and no option of training, {own}"
        for name, own in DATASET_PRESETS.items()
    ]
    parser = option_parser(
        description,
        FIELDS,
        preset="; ".join(["paper", *others]),
        prog=prog,
        epilog=epilog,
    )
    parser.add_argument(
        "--out",
        type=path_argument,
        metavar="FOLDER",
        help="run folder (default: a new one under runs/)",
    )
    parser.add_argument(
        "--resume",
        action="store_true",
        help="continue the run in --out; its options need not be given again",
    )
    add_report_flag(parser)
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        help="write scalars and histograms for TensorBoard, too, into the folder "
        "tensorboard of the run folder",
    )
    _cluster.add_flags(parser)
    values = vars(parser.parse_args(arguments))
    return Flags(
        path=values.pop("out", None),
        resume=values.pop("resume", False),
        preset=values.pop("preset", None),
        cluster=_cluster.pop(values),
        report=values.pop("report", True),
        tensorboard=values.pop("tensorboard", False),
        options=values,
    )


def add_report_flag(parser: argparse.ArgumentParser) -> None:
    """Adds `--no-report`, which sets `report` to False.

    Args:
      parser: parser that leaves out flags that are not given.
    """
    parser.add_argument(
        "--no-report",
        dest="report",
        action="store_false",
        help="write no report.html, the page with curves, tables and options",
    )


def option_parser(
    description: str,
    names: Iterable[str],
    *,
    preset: str = "paper",
    prog: str | None = None,
    epilog: str | None = None,
    page: str = "docs/training.md#options",
) -> OneLineParser:
    """Returns a parser of some options and `--preset`.

    Options that are not given are absent from its result.

    Args:
      description: first lines of `--help`.
      names: names of fields of `Config`.
      preset: preset that the program takes by default, for `--help`.
      prog: name of the program in `--help`; default: the script's name.
      epilog: last lines of `--help`; default: none.
      page: page of the site on the flags.
    """
    parser = OneLineParser(
        prog=prog,
        description=description,
        epilog=epilog,
        allow_abbrev=False,
        argument_default=argparse.SUPPRESS,
        formatter_class=lambda prog: argparse.RawDescriptionHelpFormatter(
            prog, max_help_position=30
        ),
    )
    parser.page = page
    for name in names:
        field = FIELDS[name]
        if field.metadata.get("internal"):
            continue
        flags = [flag(name), *filter(None, [field.metadata.get("alias")])]
        parser.add_argument(*flags, dest=name, **_argument(field))
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="options to start from, in place of the defaults shown here, which are "
        f"those of paper; other flags win over it (default: {preset})",
    )
    return parser


def _argument(field: dataclasses.Field) -> dict[str, Any]:
    """Returns the keyword arguments of `add_argument` for one field."""
    text = field.metadata["help"]
    default = field.metadata.get("none") if field.default is None else field.default
    if default is not None:
        own = [
            f"; {name}: {_shown(values[field.name])}"
            for name, values in {**DATASET_DEFAULTS, **METHOD_DEFAULTS}.items()
            if field.name in values
        ]
        text = f"{text} (default: {_shown(default)}{''.join(own)})"
    kind = str(field.type)
    if "bool" in kind:
        return {"help": text, "action": argparse.BooleanOptionalAction}
    argument: dict[str, Any] = {"help": text}
    if "choices" in field.metadata and "prefixes" not in field.metadata:
        return {**argument, "choices": field.metadata["choices"]}
    if "int" in kind:
        return {**argument, "type": int, "metavar": "N"}
    if "float" in kind:
        return {**argument, "type": float, "metavar": "X"}
    metavar = field.metadata.get("metavar", "FOLDER")
    if metavar in ("FOLDER", "PATH"):
        argument["type"] = lambda text: str(path_argument(text))
    return {**argument, "metavar": metavar}


def _shown(value: Any) -> str:
    return {True: "on", False: "off"}[value] if isinstance(value, bool) else str(value)
