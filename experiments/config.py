"""Every option of a run, once: its default, its help, what is a valid value.

The command line, `config.json` and the checks on resuming all follow from `Config`, and
its presets are values of it: all in one long file, so that no option is said twice.
This file imports no jax, so that `--help` answers at once.
"""

import argparse
import dataclasses
import operator
import signal
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

BAD_INPUT = 2
"""Exit code of anything the person who started the program can mend."""

LOSS_NOT_FINITE = 3
"""Exit code of a run whose loss became NaN or infinite."""

BUDGET_MISSED = 4
"""Exit code of a run that keeps more or fewer weights than it was asked to."""


class BadInput(Exception):
    """Says in one line what was wrong and what would be right."""


RESCALES: dict[str, tuple[str, ...]] = {
    "aslp": ("none", "smart", "dynamic"),
    "supermask": ("none", "smart", "dynamic"),
    "edge_popup": ("none", "fan"),
    "signed": ("none", "smart"),
    "budget": ("none",),
    "magnitude": ("none",),
}
"""The methods, and the values of `--rescale` that each knows."""


def _option(default: Any, help: str, **checks: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **checks})


_DRAWN = ("aslp", "supermask", "signed")
"""Methods that draw their masks from logits."""

_TRAINED = ("budget", "magnitude")
"""Methods that train the weights themselves."""


@dataclasses.dataclass(frozen=True)
class Config:
    """The options of one run; the defaults are the `paper` preset.

    Metadata of a field: `help`; `choices`; `above`/`least`/`below`/`most` bound
    numbers; `methods` are the only ones to which a value other than the default means
    something; `alias` is another flag; `none` says what None means; `free` marks what
    may change when a run is resumed, since it does not change what the steps already
    taken have computed.
    """

    arch: str = _option(
        "conv4",
        "network to select from",
        choices=("conv2", "conv4", "conv6", "vgg19", "resnet18"),
    )
    dataset: str = _option(
        "cifar10",
        "images; digits is embedded and needs no download, tiny_imagenet needs "
        "--manual-dir",
        choices=("digits", "cifar10", "cifar100", "tiny_imagenet"),
    )
    data_dir: str | None = _option(
        None, "prepared TFDS folder to read the images of CIFAR from", free=True
    )
    manual_dir: str | None = _option(
        None,
        "folder with the official archive, downloaded by hand: of CIFAR the binary "
        "version, of tiny_imagenet tiny-imagenet-200.zip or what it unpacks to",
        free=True,
    )
    cache_dir: str | None = _option(
        None,
        "folder for downloads and decoded images (default: ~/.cache/aslp-jax)",
        free=True,
    )
    method: str = _option("aslp", "how weights are selected", choices=tuple(RESCALES))
    rescale: str = _option(
        "smart",
        "scale of a layer: smart, one learnt scalar; dynamic, size over number kept of "
        "the drawn mask; fan, sqrt(1/keep-fraction); none",
        choices=("none", "smart", "dynamic", "fan"),
    )
    scale_init: float = _option(
        1.0,
        "where the learnt scales of --rescale smart start",
        above=0,
        methods=_DRAWN,
    )
    logit_std: float | None = _option(
        None,
        "standard deviation of the initial logits; 0 starts all alike",
        none="0, or 10 where --keep is given",
        least=0,
        methods=_DRAWN,
    )
    keep_fraction: float | None = _option(
        None,
        "fraction of the weights to keep, in (0, 1]",
        alias="--keep",
        none="whatever it comes to",
        above=0,
        most=1,
    )
    scope: str = _option(
        "global",
        "keep that fraction of all layers together, or of each layer (not of budget)",
        choices=("global", "layer"),
        methods=(*_DRAWN, "edge_popup", "magnitude"),
    )
    budget_weight: float = _option(
        10.0,
        "weight of the budget loss, which holds the kept weights to --keep; 100 where "
        "--scope is layer",
        above=0,
        methods=(*_DRAWN, "budget"),
    )
    sharpness_init: float = _option(
        100.0, "where t of w * h(t w) starts", above=0, methods=("budget",)
    )
    sharpness_scope: str = _option(
        "global",
        "one t for all layers, or one for each",
        choices=("global", "layer"),
        methods=("budget",),
    )
    signed_constant: str = _option(
        "all",
        "layers whose weights have one magnitude: none, all, or conv, the convolutions "
        "only",
        choices=("none", "all", "conv"),
    )
    constant: str = _option(
        "std",
        "that magnitude: the std of the layer's drawn weights, or kaiming, "
        "sqrt(2/fan_in)",
        choices=("std", "kaiming"),
    )
    bias: str = _option(
        "none",
        "frozen biases, where the network has some: none, or uniform in "
        "+-1/sqrt(fan_in)",
        choices=("none", "uniform"),
    )
    augment: bool = _option(
        True,
        "random crops (zero-padded by an eighth of the image: 4 pixels of 32) and, "
        "where a mirrored image keeps its label, flips",
    )
    standardise: bool = _option(False, "shift and scale pixels by channel statistics")
    epochs: int = _option(1000, "at most this many epochs", least=1, free=True)
    patience: int = _option(
        100, "stop after this many epochs without better validation", least=1, free=True
    )
    finetune: bool = _option(
        False,
        "when training is over, prune and train as many epochs again, what was pruned "
        "held at 0",
        methods=("magnitude",),
    )
    select_by: str = _option(
        "thresholding",
        "validation accuracy that chooses the best epoch: of the deterministic network "
        "(thresholding), or of one as it is trained, drawn or before pruning (sample)",
        choices=("thresholding", "sample"),
    )
    keep_ties: bool = _option(
        False,
        "keep a weight whose probability is exactly one half",
        methods=("aslp", "supermask"),
    )
    batch_size: int = _option(256, "images a step, over all devices", least=1)
    micro_batch: int | None = _option(
        None,
        "images a forward pass of each device; changes speed, not the gradient "
        "(default: 64 on a CPU, the whole batch elsewhere)",
        least=1,
    )
    optimiser: str = _option(
        "sgd", "sgd with momentum, or adam", choices=("sgd", "adam")
    )
    schedule: str = _option(
        "constant",
        "of the learning rates: constant, or cosine, to 0 at the last epoch",
        choices=("constant", "cosine"),
    )
    mask_lr: float = _option(
        50.0,
        "learning rate of the logits or scores",
        above=0,
        methods=(*_DRAWN, "edge_popup"),
    )
    scale_lr: float = _option(
        1e-3, "learning rate of the scales", above=0, methods=_DRAWN
    )
    weight_lr: float = _option(
        0.1, "learning rate of trained weights", above=0, methods=_TRAINED
    )
    sharpness_lr: float = _option(
        1e-3,
        "part of itself that t moves in a step",
        above=0,
        below=1,
        methods=("budget",),
    )
    momentum: float = _option(
        0.9, "of all of them but t (adam: its beta1)", least=0, below=1
    )
    weight_decay: float = _option(
        0.0,
        "of the logits, scores or trained weights, added to their gradient",
        least=0,
    )
    temperature: float = _option(
        1.0,
        "of the Gumbel-Softmax; shapes the gradient only",
        above=0,
        methods=("aslp", "signed"),
    )
    dtype: str = _option(
        "float32",
        "of the network's computation; weights and logits are float32",
        choices=("float32", "bfloat16"),
    )
    eval_samples: int = _option(
        10, "networks drawn for the averaged test accuracy", least=1
    )
    seed: int = _option(
        0, "of weights, masks, order, augmentation and split", least=0, most=2**32 - 1
    )
    devices: int | None = _option(
        None,
        "devices to spread each batch over (default: as many as divide it)",
        least=1,
        free=True,
    )
    checkpoint_seconds: float = _option(
        60.0,
        "save at the end of an epoch if this long since the last save, in seconds",
        least=0,
        free=True,
    )

    @property
    def total_epochs(self) -> int:
        """The most epochs that the run can have, fine-tuning included."""
        return self.epochs * (2 if self.finetune else 1)

    def as_dict(self) -> dict[str, Any]:
        """Returns the options as JSON values."""
        return dataclasses.asdict(self)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}

DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    # 1,280 small images: more and smaller steps.
    "digits": {"batch_size": 32, "epochs": 120},
}
"""What replaces a default for one data set; presets and flags win over it."""

_TRAINED_DEFAULTS = {
    "rescale": "none",
    "keep_fraction": 0.1,
    "signed_constant": "none",
    "weight_decay": 5e-4,
}

METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    # Its result is an average over drawn networks, so a drawn one is validated.
    "supermask": {"rescale": "dynamic", "select_by": "sample"},
    "edge_popup": {"rescale": "none", "keep_fraction": 0.5, "scope": "layer"},
    "budget": {**_TRAINED_DEFAULTS, "budget_weight": 500.0},
    # Trained as if nothing were to be pruned, then pruned.
    "magnitude": {**_TRAINED_DEFAULTS, "select_by": "sample"},
}
"""The same for one method."""

_RELEASED_CODE = {
    "bias": "uniform",
    "signed_constant": "conv",
    "standardise": True,
    "keep_ties": True,
    "select_by": "sample",
}

PRESETS: dict[str, dict[str, Any]] = {
    # Table 1, row WR+SC, augmented: 77.5 / 84.8 / 86.9 % for Conv2/4/6 in the paper.
    "paper": {name: FIELDS[name].default for name in _RELEASED_CODE},
    # What the code published with the paper does where the paper is silent or differs.
    "released_code": _RELEASED_CODE,
    # The validation accuracy of `paper` in a tenth of its epochs, measured on digits
    # alone; see results/README.md, fast-recipe.
    "fast": {
        "optimiser": "adam",
        "schedule": "cosine",
        "mask_lr": 0.5,
        "momentum": 0.5,
        "scale_init": 1.2,
        "logit_std": 10.0,
        "epochs": 100,
    },
    # The recipe of edge-popup's authors for these networks.
    "edge_popup": {
        "method": "edge_popup",
        "rescale": "none",
        "constant": "kaiming",
        "mask_lr": 0.1,
        "weight_decay": 1e-4,
        "schedule": "cosine",
        "batch_size": 128,
        "epochs": 100,
    },
}

_TRAINED_FAST = {"optimiser": "sgd", "momentum": 0.9, "weight_lr": 0.05}

PRESET_VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "paper": {
        "supermask": {"select_by": "sample"},
        "budget": {"signed_constant": "none"},
        "magnitude": {"signed_constant": "none", "select_by": "sample"},
    },
    "released_code": {
        "plain": {"standardise": False},
        "budget": {"signed_constant": "none", "select_by": "thresholding"},
        "magnitude": {"signed_constant": "none"},
    },
    "fast": {
        "digits": {"epochs": 12, "batch_size": 16, "sharpness_lr": 0.01},
        # Its scores start within 1/sqrt(fan_in).
        "edge_popup": {"mask_lr": 1e-3},
        "budget": _TRAINED_FAST,
        "magnitude": _TRAINED_FAST,
    },
}
"""What a preset holds besides for a data set, a method, or images not augmented."""


_LARGEST = 3.4e38
"""Of float32, in which everything is computed."""

_BOUNDS = {
    "above": (operator.gt, "above"),
    "least": (operator.ge, "at least"),
    "below": (operator.lt, "below"),
    "most": (operator.le, "at most"),
}


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
    chosen = {**_preset_values(preset, {**start, **values}), **values}
    for name, value in chosen.items():
        if name in settled(start) and start[name] != value:
            raise BadInput(
                f"{folder} holds a run with {_flag(name)} {start[name]}, not "
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
        flags = [_flag(name), *filter(None, [field.metadata.get("alias")])]
        parser.add_argument(*flags, dest=name, **_argument(field))
    parser.add_argument(
        "--preset",
        choices=tuple(PRESETS),
        help="values to start from, in place of the defaults shown here, which are "
        f"those of paper; a flag given beside it wins (default: {preset})",
    )
    return parser


def resolve(preset: str | None, chosen: Mapping[str, Any]) -> Config:
    """Returns the checked options of a new run.

    Args:
      preset: its name, or None for plain defaults.
      chosen: what was asked for, which wins over all else.

    Raises:
      BadInput: a value, or a combination of values, that means nothing.
    """
    asked = {**_preset_values(preset, chosen), **chosen}
    config = Config(**{**_defaults(asked), **asked})
    check(config)
    return config


def _preset_values(preset: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    if preset is None:
        return {}
    values = PRESETS[preset]
    asked = {**values, **chosen}
    variants = PRESET_VARIANTS.get(preset, {})
    method = asked.get("method", Config.method)
    images = "plain" if not asked.get("augment", Config.augment) else "augmented"
    for name in (asked.get("dataset", Config.dataset), method, images):
        values = {**values, **variants.get(name, {})}
    return {name: value for name, value in values.items() if knows(method, name)}


def knows(method: str, name: str) -> bool:
    """Returns whether an option means something to a method."""
    return method in FIELDS[name].metadata.get("methods", RESCALES)


def _defaults(chosen: Mapping[str, Any]) -> dict[str, Any]:
    method = chosen.get("method", Config.method)
    defaults = {
        **DATASET_DEFAULTS.get(chosen.get("dataset", Config.dataset), {}),
        **METHOD_DEFAULTS.get(method, {}),
    }
    # At 10 small layers end up to 1.4 % of their weights away from their own budgets.
    if method in _DRAWN and chosen.get("scope") == "layer":
        defaults["budget_weight"] = 100.0
    return defaults


def settled(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that decided what the steps of a run have computed.

    They are what must not change when it is resumed: all but the free ones, and the
    number of epochs where the learning rates follow it.
    """
    free = {name for name, field in FIELDS.items() if field.metadata.get("free")}
    if options["schedule"] != "constant":
        free.discard("epochs")
    return {name: value for name, value in options.items() if name not in free}


def check(config: Config) -> None:
    """Checks every value against its field.

    Raises:
      BadInput: naming the flag, its value and what is valid.
    """
    for name, field in FIELDS.items():
        value, rules = getattr(config, name), field.metadata
        if value is None and field.default is None:
            continue
        if type(value) not in _types(field):
            raise BadInput(f"{_flag(name)} cannot be {value!r}")
        if isinstance(value, float) and not abs(value) <= _LARGEST:
            raise BadInput(f"{_flag(name)} must be a finite number, got {value}")
        for rule, (holds, words) in _BOUNDS.items():
            if rule in rules and not holds(value, rules[rule]):
                raise BadInput(
                    f"{_flag(name)} must be {words} {rules[rule]}, got {value}"
                )
        if "choices" in rules and value not in rules["choices"]:
            raise BadInput(
                f"{_flag(name)} must be one of {', '.join(rules['choices'])}, "
                f"got {value}"
            )
        if value != field.default and not knows(config.method, name):
            raise BadInput(
                f"{_flag(name)} means nothing to --method {config.method}; it is of "
                f"{', '.join(rules['methods'])}"
            )
    if config.rescale not in RESCALES[config.method]:
        raise BadInput(
            f"--rescale {config.rescale} means nothing to --method {config.method}; "
            f"valid: {', '.join(RESCALES[config.method])}"
        )
    if config.data_dir is not None and config.manual_dir is not None:
        raise BadInput("give --data-dir or --manual-dir, not both")
    if config.dataset == "digits" and (config.data_dir or config.manual_dir):
        raise BadInput("--dataset digits is embedded; it takes no folder")
    if config.dataset == "tiny_imagenet" and config.data_dir is not None:
        raise BadInput(
            "--dataset tiny_imagenet is not in TFDS; give --manual-dir, not --data-dir"
        )


def _types(field: dataclasses.Field) -> tuple[Any, ...]:
    # JSON knows one kind of number, and True is an int.
    kind = str(field.type)
    found = {"bool": (bool,), "int": (int,), "float": (int, float), "str": (str,)}
    return next(types for name, types in found.items() if name in kind)


def main_guard(main: Any) -> NoReturn:
    """Runs a program's `main` and turns `BadInput` into one line and exit code 2."""
    try:
        code = main(sys.argv[1:])
    except BadInput as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        code = BAD_INPUT
    except KeyboardInterrupt:
        # Outside of training, which has its own way to stop.
        print(f"{Path(sys.argv[0]).name}: interrupted", file=sys.stderr)
        code = 128 + signal.SIGINT
    sys.exit(code)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


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
