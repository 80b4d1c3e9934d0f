"""Every option of a run, once: its default, its help, what is a valid value.

The command line, `config.json` and the checks on resuming all follow from `Config`, and
its presets are values of it: all in one long file, so that no option is said twice.
This file imports no jax, so that `--help` answers at once.
"""

import dataclasses
import operator
from collections.abc import Mapping
from typing import Any

from aslp_jax._errors import BadInput

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
        None, "prepared TFDS folder to read the images of CIFAR from", resumable=True
    )
    manual_dir: str | None = _option(
        None,
        "folder with the official archive, downloaded by hand: of CIFAR the binary "
        "version, of tiny_imagenet tiny-imagenet-200.zip or what it unpacks to",
        resumable=True,
    )
    cache_dir: str | None = _option(
        None,
        "folder for downloads and decoded images (default: ~/.cache/aslp-jax)",
        resumable=True,
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
    epochs: int = _option(1000, "at most this many epochs", least=1, resumable=True)
    patience: int = _option(
        100,
        "stop after this many epochs without better validation",
        least=1,
        resumable=True,
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
        resumable=True,
    )
    checkpoint_seconds: float = _option(
        60.0,
        "save at the end of an epoch if this long since the last save, in seconds",
        least=0,
        resumable=True,
    )

    @property
    def total_epochs(self) -> int:
        """The most epochs that the run can have, fine-tuning included."""
        return self.epochs * (2 if self.finetune else 1)

    def as_dict(self) -> dict[str, Any]:
        """Returns the options as JSON values."""
        return dataclasses.asdict(self)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}


_LARGEST = 3.4e38
"""Of float32, in which everything is computed."""


_BOUNDS = {
    "above": (operator.gt, "above"),
    "least": (operator.ge, "at least"),
    "below": (operator.lt, "below"),
    "most": (operator.le, "at most"),
}


def knows(method: str, name: str) -> bool:
    """Returns whether an option means something to a method."""
    return method in FIELDS[name].metadata.get("methods", RESCALES)


def fixed_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that decided what the steps of a run have computed.

    They are what must not change when it is resumed: all but the free ones, and the
    number of epochs where the learning rates follow it.
    """
    free = {name for name, field in FIELDS.items() if field.metadata.get("resumable")}
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
            raise BadInput(f"{flag(name)} cannot be {value!r}")
        if isinstance(value, float) and not abs(value) <= _LARGEST:
            raise BadInput(f"{flag(name)} must be a finite number, got {value}")
        for rule, (holds, words) in _BOUNDS.items():
            if rule in rules and not holds(value, rules[rule]):
                raise BadInput(
                    f"{flag(name)} must be {words} {rules[rule]}, got {value}"
                )
        if "choices" in rules and value not in rules["choices"]:
            raise BadInput(
                f"{flag(name)} must be one of {', '.join(rules['choices'])}, "
                f"got {value}"
            )
        if value != field.default and not knows(config.method, name):
            raise BadInput(
                f"{flag(name)} means nothing to --method {config.method}; it is of "
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


def flag(name: str) -> str:
    return "--" + name.replace("_", "-")
