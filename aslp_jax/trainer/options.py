"""Options of a run, each said once: its default, its help, its valid values.

The command line, `config.json` and the checks on resuming all follow from `Config`;
presets are values of it. All of that is one long file, so that no option is said twice.
Importing this module imports no JAX, so that `--help` answers at once.
"""

import dataclasses
import operator
import os
import re
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from aslp_jax._errors import BadInput
from aslp_jax._json import matches
from aslp_jax.data.names import IMAGENET, NAMES, PREFIX

__all__ = [
    "FIELDS",
    "METHOD_OPTIONS",
    "RESCALES",
    "SAMPLED_METHODS",
    "Config",
    "check",
    "fixed_options",
    "flag",
    "image_size",
    "knows",
    "without_added",
]

_OWN_NETWORK = "docs/own_network.md"
"""Page of the site on networks of one's own."""

_OPTIONS = "docs/training.md#options"
"""Page of the site on the options."""

_STREAMED = "docs/training.md#data-larger-than-memory"
"""Page of the site on streamed images."""

_IMAGENET = "docs/training.md#imagenet"
"""Page of the site on ImageNet."""

_OWN_IMAGES = "docs/training.md#your-own-images"
"""Page of the site on images of one's own."""

_DATA = "docs/training.md#data"
"""Page of the site on data sets."""

RESCALES: dict[str, tuple[str, ...]] = {
    "aslp": ("none", "smart", "dynamic"),
    "supermask": ("none", "smart", "dynamic"),
    "edge_popup": ("none", "fan"),
    "signed": ("none", "smart"),
    "budget": ("none",),
    "magnitude": ("none",),
}
"""Methods by name, each with its valid values of `--rescale`."""

SAMPLED_METHODS = ("aslp", "supermask", "signed")
"""Methods that sample their masks from logits."""

_MASK_METHODS = (*SAMPLED_METHODS, "edge_popup")
"""Methods that learn masks alone, and no weights."""

_DENSE_METHODS = ("budget", "magnitude")
"""Methods that train the weights themselves."""

_OF_SAMPLED = (
    "rescale",
    "scale_init",
    "logit_std",
    "keep_fraction",
    "scope",
    "budget_weight",
)

METHOD_OPTIONS: dict[str, tuple[str, ...]] = {
    "aslp": (*_OF_SAMPLED, "keep_ties", "temperature"),
    "supermask": (*_OF_SAMPLED, "keep_ties"),
    "edge_popup": ("rescale", "keep_fraction", "scope"),
    "signed": (*_OF_SAMPLED, "temperature"),
    "budget": ("keep_fraction", "budget_weight", "sharpness_init", "sharpness_scope"),
    "magnitude": ("keep_fraction", "scope"),
}
"""Methods by name, each with the options that its class is constructed from."""


def _methods_with(option: str) -> tuple[str, ...]:
    return tuple(name for name, options in METHOD_OPTIONS.items() if option in options)


def _option(default: Any, help: str, **checks: Any) -> Any:
    return dataclasses.field(default=default, metadata={"help": help, **checks})


@dataclasses.dataclass(frozen=True)
class Config:
    """Options of one run; the defaults are the `paper` preset.

    Metadata of a field: `help`; `choices`; `above`, `least`, `below` and `most` bound
    numbers; `methods` are the methods that the option applies to (default: all);
    `alias` is another flag; `none` is the meaning of None; `metavar` stands for the
    value in `--help` (default: by type); `prefixes` are the beginnings of further
    valid names; `internal` marks a value that has no flag; `resumable` marks an option
    that may change when a run is resumed, because steps already taken do not depend on
    it; `added` marks an option that older runs lack, which did as its default says.
    """

    arch: str = _option(
        "conv4",
        "network to select from; own stands for --model",
        choices=("conv2", "conv4", "conv6", "vgg19", "resnet18", "resnet50", "own"),
    )
    model: str | None = _option(
        None,
        "network of your own, in place of --arch: FILE.py:NAME or "
        "package.module:NAME, where NAME is a Flax Linen or NNX class or a function "
        "that makes one; the file is imported (default: none)",
        metavar="FILE.py:NAME",
    )
    model_args: str | None = _option(
        None,
        "arguments of NAME in --model, such as classes=10,width=0.25 (default: none)",
        metavar="NAME=VALUE,...",
    )
    model_sha256: str | None = _option(
        None, "sha256 of the source file of --model", internal=True
    )
    module_init: bool = _option(
        False,
        "keep the initial weights of --model, in place of Kaiming normal weights or "
        "those of --signed-constant",
    )
    dataset: str = _option(
        "cifar10",
        "images: digits (comes with the package, needs no download), cifar10, "
        "cifar100, fashion_mnist (needs --data-dir or --manual-dir), tiny_imagenet "
        "(needs --manual-dir), imagenet (prepared by TFDS in --data-dir, streamed), "
        "own (those of --data), or tfds:NAME, any TFDS data set of images and classes "
        "that is prepared in --data-dir",
        choices=(*NAMES, IMAGENET, "own"),
        prefixes=(PREFIX,),
        metavar="NAME",
    )
    data: str | None = _option(
        None,
        "images of your own, in place of --dataset: a folder with train/CLASS/*.png or "
        "*.jpg and test/CLASS/ or val/CLASS/, a folder with CLASS/*.png or *.jpg, "
        "which is divided into training and test images, or an .npz file with x_train, "
        "y_train, x_test and y_test; --augment mirrors these images too (default: "
        "none)",
        metavar="PATH",
        resumable=True,
    )
    image_size: str | None = _option(
        None,
        "size that the images of --data or tfds:NAME are resized to, and those of "
        "imagenet cropped to, in pixels: N, or HEIGHTxWIDTH",
        metavar="N",
        none="as they are; imagenet: 224",
    )
    stream: bool | None = _option(
        None,
        "read the images of --data FOLDER, tfds:NAME or imagenet from their files "
        "while training, in place of holding all on the device",
        none="on where they are more than 8 GiB as RGB",
        added=True,
    )
    data_dir: str | None = _option(
        None,
        "folder of prepared TFDS data sets, to read tfds:NAME, cifar10, cifar100, "
        "fashion_mnist or imagenet from (default: none)",
        resumable=True,
    )
    manual_dir: str | None = _option(
        None,
        "folder with the official files, downloaded by hand: for CIFAR the archive of "
        "the binary version, for fashion_mnist the four .gz files, for tiny_imagenet "
        "tiny-imagenet-200.zip or its unpacked folder (default: none)",
        resumable=True,
    )
    cache_dir: str | None = _option(
        None,
        "folder for downloads and decoded images (default: ~/.cache/aslp-jax)",
        resumable=True,
    )
    method: str = _option("aslp", "selection of the weights", choices=tuple(RESCALES))
    rescale: str = _option(
        "smart",
        "scale of a layer: smart, one learnt scalar; dynamic, size of the sampled mask "
        "over number kept; fan, sqrt(1 / keep fraction); none",
        choices=("none", "smart", "dynamic", "fan"),
    )
    scale_init: float = _option(
        1.0,
        "initial value of the learnt scales of --rescale smart",
        above=0,
        methods=_methods_with("scale_init"),
    )
    logit_std: float | None = _option(
        None,
        "standard deviation of the initial logits; 0 starts all equal",
        none="0, or 10 with --keep",
        least=0,
        methods=_methods_with("logit_std"),
    )
    keep_fraction: float | None = _option(
        None,
        "fraction of the weights to keep, in (0, 1]",
        alias="--keep",
        none="no constraint",
        above=0,
        most=1,
    )
    scope: str = _option(
        "global",
        "hold --keep over all layers together, or in each layer",
        choices=("global", "layer"),
        methods=_methods_with("scope"),
    )
    budget_weight: float = _option(
        10.0,
        "weight of the budget loss, which holds the kept weights to --keep; 100 with "
        "--scope layer",
        above=0,
        methods=_methods_with("budget_weight"),
    )
    sharpness_init: float = _option(
        100.0,
        "initial value of the sharpness t of the gate w * h(t w)",
        above=0,
        methods=_methods_with("sharpness_init"),
    )
    sharpness_scope: str = _option(
        "global",
        "one t for all layers, or one t a layer",
        choices=("global", "layer"),
        methods=_methods_with("sharpness_scope"),
    )
    signed_constant: str = _option(
        "all",
        "layers whose weights share one magnitude: none, all, or conv (convolutions "
        "only)",
        choices=("none", "all", "conv"),
    )
    constant: str = _option(
        "std",
        "magnitude of signed constant weights: std of the layer's initial weights, or "
        "kaiming, sqrt(2 / fan_in)",
        choices=("std", "kaiming"),
    )
    bias: str = _option(
        "none",
        "frozen biases of networks that have biases: none, or uniform in "
        "+-1/sqrt(fan_in)",
        choices=("none", "uniform"),
    )
    augment: bool = _option(
        True,
        "random crops (zero-padded by an eighth of the image: 4 of 32 pixels) and, if "
        "a mirrored image keeps its label, flips",
    )
    standardise: bool = _option(False, "shift and scale pixels by channel statistics")
    epochs: int = _option(1000, "largest number of epochs", least=1, resumable=True)
    patience: int = _option(
        100,
        "epochs without better validation after which training stops",
        least=1,
        resumable=True,
    )
    finetune: bool = _option(
        False,
        "after training, prune and train up to as many epochs again with pruned "
        "weights held at 0",
        methods=("magnitude",),
    )
    select_by: str = _option(
        "thresholding",
        "validation accuracy that chooses the best epoch: that of the thresholded "
        "network (thresholding), or of a network as trained, sampled or not yet pruned "
        "(sample)",
        choices=("thresholding", "sample"),
    )
    keep_ties: bool = _option(
        False,
        "keep a weight with a keep-probability of exactly one half",
        methods=_methods_with("keep_ties"),
    )
    batch_size: int = _option(256, "images a step, over all devices", least=1)
    micro_batch: int | None = _option(
        None,
        "images a forward pass on each device; changes speed, not the gradient "
        "(default: 64 on a CPU, the whole batch elsewhere)",
        least=1,
    )
    optimiser: str = _option(
        "sgd", "sgd (with momentum) or adam", choices=("sgd", "adam")
    )
    schedule: str = _option(
        "constant",
        "learning rates over time: constant, or cosine down to 0 at the last epoch",
        choices=("constant", "cosine"),
    )
    warmup_epochs: int = _option(
        0,
        "first epochs, over which the learning rates rise from 0, fewer than --epochs; "
        "once more after pruning with --finetune",
        least=0,
        added=True,
    )
    mask_lr: float = _option(
        50.0,
        "learning rate of the logits or scores",
        above=0,
        methods=_MASK_METHODS,
    )
    scale_lr: float = _option(
        1e-3, "learning rate of the scales", above=0, methods=SAMPLED_METHODS
    )
    weight_lr: float = _option(
        0.1, "learning rate of trained weights", above=0, methods=_DENSE_METHODS
    )
    sharpness_lr: float = _option(
        1e-3,
        "relative change of t in a step",
        above=0,
        below=1,
        methods=("budget",),
    )
    momentum: float = _option(
        0.9, "SGD momentum (adam: beta1), not applied to t", least=0, below=1
    )
    weight_decay: float = _option(
        0.0,
        "weight decay of logits, scores or trained weights, added to their gradient",
        least=0,
    )
    temperature: float = _option(
        1.0,
        "temperature of the Gumbel-Softmax; shapes the gradient, never the sample",
        above=0,
        methods=_methods_with("temperature"),
    )
    temperature_end: float | None = _option(
        None,
        "temperature after --epochs epochs; it changes by the same factor in each step "
        "(default: --temperature throughout)",
        above=0,
        methods=_methods_with("temperature"),
        added=True,
    )
    label_smoothing: float = _option(
        0.0,
        "share of each label that is spread evenly over all classes, in training",
        least=0,
        below=1,
        added=True,
    )
    ema_decay: float = _option(
        0.0,
        "decay a step of the moving averages of logits or scores and scales, which "
        "are validated and saved in their place (0: none)",
        least=0,
        below=1,
        methods=_MASK_METHODS,
        added=True,
    )
    dtype: str = _option(
        "float32",
        "dtype of the network's computation; weights and logits are float32",
        choices=("float32", "bfloat16"),
    )
    eval_samples: int = _option(
        10, "networks sampled for the averaged test accuracy", least=1
    )
    seed: int = _option(
        0,
        "seed of weights, masks, order, augmentation and validation split",
        least=0,
        most=2**32 - 1,
    )
    devices: int | None = _option(
        None,
        "devices to spread each batch over (default: the largest number that divides "
        "it)",
        least=1,
        resumable=True,
    )
    shard: str = _option(
        "none",
        "what is spread over the devices of all processes besides each batch: none, or "
        "params, the frozen weights, all that is learnt and the state of the optimiser",
        choices=("none", "params"),
        resumable=True,
        added=True,
    )
    checkpoint_seconds: float = _option(
        60.0,
        "least time between two checkpoints, in seconds; saved at the end of an epoch",
        least=0,
        resumable=True,
    )

    @property
    def network_name(self) -> str:
        """Name of the network for people: the architecture's, or that of --model."""
        return self.arch if self.model is None else self.model.rpartition(":")[2]

    @property
    def total_epochs(self) -> int:
        """Largest number of epochs, fine-tuning included."""
        return self.epochs * (2 if self.finetune else 1)

    @property
    def dataset_name(self) -> str:
        """Name of the images for people: the data set's, or that of --data."""
        name = self.dataset.removeprefix(PREFIX)
        if self.data is not None:
            name = Path(os.path.abspath(self.data)).name.removesuffix(".npz")
        return re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.")[:60] or self.dataset

    @property
    def of_files(self) -> bool:
        """True if files, and not the name of the data set, say which images it has."""
        named = self.dataset.startswith(PREFIX) or self.dataset == IMAGENET
        return self.data is not None or named

    def as_dict(self) -> dict[str, Any]:
        """Returns the options as JSON values."""
        return dataclasses.asdict(self)


FIELDS = {field.name: field for field in dataclasses.fields(Config)}
"""Fields of `Config` by name."""

_LARGEST = 3.4028234663852886e38
"""Largest number that an option takes: that of float32."""

_SMALLEST = 1.1754943508222875e-38
"""Smallest number above 0 that float32 holds in full; XLA takes smaller ones as 0."""

_LARGEST_COUNT = 2**31 - 1
"""Largest whole number that an option takes, if it says no other: that of int32."""

_LARGEST_SIDE = 4096
"""Largest height or width that images are resized to, in pixels."""

_BOUNDS = {
    "above": (operator.gt, "above"),
    "least": (operator.ge, "at least"),
    "below": (operator.lt, "below"),
    "most": (operator.le, "at most"),
}


def knows(method: str, name: str) -> bool:
    """Returns True if an option applies to a method.

    Args:
      method: name of the method.
      name: name of a field of `Config`.
    """
    return method in FIELDS[name].metadata.get("methods", RESCALES)


def fixed_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options that must not change when a run is resumed.

    The steps already taken depend on these options: on all but the resumable ones, and
    on the number of epochs if learning rates or temperature depend on it.

    Args:
      options: all options by name.
    """
    resumable = {
        name for name, field in FIELDS.items() if field.metadata.get("resumable")
    }
    if options["schedule"] != "constant" or options["temperature_end"] is not None:
        resumable.discard("epochs")
    return {name: value for name, value in options.items() if name not in resumable}


def without_added(options: Mapping[str, Any]) -> dict[str, Any]:
    """Returns options without those that were added later, unless they matter.

    A checkpoint, or a grid of the same version number, that was written before compares
    as equal then: with its default, an added option leaves the steps as they were.

    Args:
      options: options by name; some may be missing, and other names are kept.
    """
    return {
        name: value
        for name, value in options.items()
        if name not in FIELDS
        or not FIELDS[name].metadata.get("added")
        or value != FIELDS[name].default
    }


def check(config: Config) -> None:
    """Checks every option against the rules of its field.

    Args:
      config: options to check.

    Raises:
      BadInput: an option is invalid; the message names flag, value and valid values.
    """
    for name, field in FIELDS.items():
        value, rules = getattr(config, name), field.metadata
        if value is None and field.default is None:
            continue
        if not matches(value, field.type):
            raise BadInput(f"{flag(name)} cannot be {value!r:.80}", page=_OPTIONS)
        if value == "":
            raise BadInput(
                f"{flag(name)} is empty; give a value, or leave it out",
                page=_OPTIONS,
            )
        if isinstance(value, float | int):
            _check_number(flag(name), value, rules)
        prefixes = rules.get("prefixes", ())
        if (
            "choices" in rules
            and value not in rules["choices"]
            and not str(value).startswith(prefixes)
        ):
            valid = [*rules["choices"], *(f"{prefix}NAME" for prefix in prefixes)]
            raise BadInput(
                f"{flag(name)} must be one of {', '.join(valid)}, got {value!r:.80}",
                page=_OPTIONS,
            )
        if value != field.default and not knows(config.method, name):
            raise BadInput(
                f"{flag(name)} means nothing to --method {config.method}; it "
                f"applies to {', '.join(rules['methods'])}",
                page=_OPTIONS,
            )
    if config.rescale not in RESCALES[config.method]:
        raise BadInput(
            f"--rescale {config.rescale} means nothing to --method {config.method}; "
            f"valid: {', '.join(RESCALES[config.method])}",
            page=_OPTIONS,
        )
    if config.warmup_epochs >= config.epochs:
        raise BadInput(
            f"--warmup-epochs {config.warmup_epochs} leaves none of the "
            f"{config.epochs} epochs; it must be fewer than --epochs",
            page=_OPTIONS,
        )
    _check_network(config)
    _check_images(config)


def _check_number(shown: str, value: float, rules: Mapping[str, Any]) -> None:
    """Checks a number against the rules of its field, as float32 or int32 has it."""
    used, kind = value, ""
    if isinstance(value, float):
        if not abs(value) <= _LARGEST:
            raise BadInput(
                f"{shown} must be a finite number, got {value}",
                page=_OPTIONS,
            )
        used = _as_float32(value)
        kind = "" if used == value else f" in float32, which makes {used:g} of it"
    bounds = {"most": _LARGEST_COUNT, **rules} if type(value) is int else rules
    for rule, (holds, relation) in _BOUNDS.items():
        if rule in bounds and not holds(used, bounds[rule]):
            raise BadInput(
                f"{shown} must be {relation} {bounds[rule]}, got {value}"
                + (kind if holds(value, bounds[rule]) else ""),
                page=_OPTIONS,
            )


def _as_float32(value: float) -> float:
    """Returns a number as float32 has it: rounded, and 0 if it is too small."""
    if abs(value) < _SMALLEST:
        return 0.0
    return struct.unpack("f", struct.pack("f", value))[0]


def _check_network(config: Config) -> None:
    if config.model is None:
        if config.arch == "own":
            raise BadInput("--arch own needs --model, FILE.py:NAME", page=_OWN_NETWORK)
        for name in ("model_args", "module_init"):
            if getattr(config, name):
                raise BadInput(
                    f"{flag(name)} is for the network of --model; give both",
                    page=_OWN_NETWORK,
                )
        return
    if config.arch != "own":
        raise BadInput(
            f"give --model or --arch, not both; got --arch {config.arch}",
            page=_OWN_NETWORK,
        )
    for name in ("bias", "dtype"):
        if getattr(config, name) != FIELDS[name].default:
            raise BadInput(
                f"{flag(name)} is for the networks of --arch; the module of --model "
                "says its own",
                page=_OWN_NETWORK,
            )


def _check_images(config: Config) -> None:
    if config.data is not None:
        if config.dataset != "own":
            raise BadInput(
                f"give --data or --dataset, not both; got --dataset {config.dataset}",
                page=_OWN_IMAGES,
            )
        for name in ("data_dir", "manual_dir"):
            if getattr(config, name) is not None:
                raise BadInput(
                    f"give --data or {flag(name)}, not both",
                    page=_OWN_IMAGES,
                )
    elif config.dataset == "own":
        raise BadInput(
            "--dataset own needs --data, a folder or an .npz file",
            page=_OWN_IMAGES,
        )
    elif config.image_size is not None and not config.of_files:
        raise BadInput(
            "--image-size resizes the images of --data, --dataset tfds:NAME or "
            "imagenet; give one",
            page=_OWN_IMAGES,
        )
    image_size(config)
    _check_stream(config)
    if config.data_dir is not None and config.manual_dir is not None:
        raise BadInput("give --data-dir or --manual-dir, not both", page=_DATA)
    if config.dataset == "digits" and (config.data_dir or config.manual_dir):
        raise BadInput(
            "--dataset digits comes with the package; it takes no folder",
            page=_DATA,
        )
    if config.dataset.startswith(PREFIX) and config.data_dir is None:
        raise BadInput(
            f"--dataset {config.dataset} needs --data-dir, the folder in which TFDS "
            "has prepared it; nothing is downloaded",
            page="docs/training.md#any-data-set-of-tfds",
        )
    if config.dataset == "fashion_mnist" and not (config.data_dir or config.manual_dir):
        raise BadInput(
            "--dataset fashion_mnist needs --manual-dir, a folder with the four "
            "official .gz files, or --data-dir, the folder in which TFDS has prepared "
            "it; nothing is downloaded",
            page=_DATA,
        )
    if config.dataset == "tiny_imagenet" and config.data_dir is not None:
        raise BadInput(
            "--dataset tiny_imagenet is not in TFDS; give --manual-dir, not --data-dir",
            page=_DATA,
        )


def _check_stream(config: Config) -> None:
    if config.stream and not config.of_files:
        raise BadInput(
            "--stream reads the images of --data FOLDER, --dataset tfds:NAME or "
            f"imagenet; those of {config.dataset} are held in memory",
            page=_STREAMED,
        )
    if config.dataset != IMAGENET:
        return
    if config.stream is False:
        raise BadInput(
            "--dataset imagenet is always streamed, because its training images are "
            "cropped from their files",
            page=_IMAGENET,
        )
    if config.data_dir is None:
        raise BadInput(
            "--dataset imagenet needs --data-dir, the folder in which TFDS has "
            "prepared imagenet2012; nothing is downloaded",
            page=_IMAGENET,
        )


def image_size(config: Config) -> tuple[int, int] | None:
    """Returns height and width that images are resized to, in pixels; None for none.

    Args:
      config: options.

    Raises:
      BadInput: `--image-size` is neither a number nor two, or out of range.
    """
    if config.image_size is None:
        return None
    found = re.fullmatch(r"([0-9]{1,4})(?:x([0-9]{1,4}))?", config.image_size)
    if found is None:
        raise BadInput(
            "--image-size must be one number, or two as in 24x32, each from 1 to "
            f"{_LARGEST_SIDE}, got {config.image_size:.80}",
            page=_OWN_IMAGES,
        )
    height, width = int(found[1]), int(found[2] or found[1])
    if not (1 <= height <= _LARGEST_SIDE and 1 <= width <= _LARGEST_SIDE):
        raise BadInput(
            f"--image-size must be from 1 to {_LARGEST_SIDE}, got {config.image_size}",
            page=_OWN_IMAGES,
        )
    return height, width


def flag(name: str) -> str:
    """Returns the flag of an option, such as `--mask-lr`.

    Args:
      name: name of a field of `Config`.
    """
    return "--" + name.replace("_", "-")
