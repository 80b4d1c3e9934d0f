"""Presets: named values of the options, and the defaults of data sets and methods."""

from collections.abc import Mapping
from typing import Any

from aslp_jax.trainer.options import FIELDS, SAMPLED_METHODS, Config, check, flag, knows
from aslp_jax.trainer.signals import Signals

__all__ = [
    "DATASET_DEFAULTS",
    "DATASET_PRESETS",
    "METHOD_DEFAULTS",
    "PRESETS",
    "PRESET_VARIANTS",
    "as_flags",
    "default_preset",
    "preset_values",
    "resolve",
]

DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    # 1,280 small images: more and smaller steps.
    "digits": {"batch_size": 32, "epochs": 120},
    # A set of one's own may have a few dozen images.
    "own": {"batch_size": 32},
    "tfds": {"batch_size": 32},
    "imagenet": {"epochs": 90},
}
"""Defaults of one data set, in place of those of `Config`; presets and flags win.

Those of `tfds` are of all that `--data-dir` holds by a name with `tfds:` before it.
"""

DATASET_PRESETS = {"digits": "fast"}
"""Preset of a data set, for a run that names none and gives no option of training.

The first run of a newcomer is on digits: 12 epochs in place of 120.
"""

_NOT_OF_TRAINING = {
    "arch",
    "model",
    "model_args",
    "dataset",
    "cache_dir",
    "eval_samples",
    "seed",
    "devices",
    "micro_batch",
    "checkpoint_seconds",
}
"""Options that leave the choice of a preset open: network, images, seed and machine."""

_TRAINED_DEFAULTS = {
    "rescale": "none",
    "keep_fraction": 0.1,
    "signed_constant": "none",
    "weight_decay": 5e-4,
}

METHOD_DEFAULTS: dict[str, dict[str, Any]] = {
    # The result averages over sampled networks, so a sampled network is validated.
    "supermask": {"rescale": "dynamic", "select_by": "sample"},
    "edge_popup": {"rescale": "none", "keep_fraction": 0.5, "scope": "layer"},
    "budget": {**_TRAINED_DEFAULTS, "budget_weight": 500.0},
    # Trained dense, then pruned: the dense network is validated.
    "magnitude": {**_TRAINED_DEFAULTS, "select_by": "sample"},
}
"""Defaults of one method, in place of those of `Config`; presets and flags win."""

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
    # The code published with the paper, where the paper is silent or differs.
    "released_code": _RELEASED_CODE,
    # A short recipe, found on CIFAR-10 (JPEG) with ASLP; see results/README.md,
    # search-cifar10-jpeg.
    "fast": {
        "optimiser": "adam",
        "schedule": "cosine",
        "mask_lr": 1.0,
        "momentum": 0.5,
        "scale_init": 1.2,
        "logit_std": 50.0,
        "temperature": 50.0,
        "batch_size": 64,
        "epochs": 100,
    },
    # The options of edge-popup's authors for these networks.
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
"""Presets by name: options that differ from the defaults."""

_NOISY_FAST = {"mask_lr": 0.5, "logit_std": 10.0, "temperature": 1.0}
"""Smaller logits, so that more masks are random, and a temperature of 1."""

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
        # Found on digits; see results/README.md, fast-recipe.
        "digits": {
            **_NOISY_FAST,
            "epochs": 12,
            "batch_size": 16,
            "sharpness_lr": 0.01,
        },
        # Batches of the defaults: perhaps few images, or very many.
        "own": {"batch_size": 32},
        "tfds": {"batch_size": 32},
        "imagenet": {"batch_size": 256},
        # Not searched with larger logits.
        "supermask": _NOISY_FAST,
        "signed": _NOISY_FAST,
        # Its scores start within 1/sqrt(fan_in).
        "edge_popup": {"mask_lr": 1e-3},
        "budget": _TRAINED_FAST,
        "magnitude": _TRAINED_FAST,
    },
}
"""Options that a preset adds for a data set, a method, or plain images.

Plain images are images without augmentation.
"""


def resolve(preset: str | None, chosen: Mapping[str, Any]) -> Config:
    """Returns the checked options of a new run.

    Args:
      preset: name of the preset, or None for plain defaults.
      chosen: options asked for, by name; they win over all others.

    Raises:
      BadInput: an option is invalid, two options contradict each other, or the source
        of `--model` cannot be read.
    """
    if chosen.get("data") is not None:
        chosen = {"dataset": "own", **chosen}
    if chosen.get("model") is not None:
        # Only now: without such a network no flag waits for JAX.
        with Signals():
            from aslp_jax.trainer.own_network import source_sha256

        sha256 = source_sha256(chosen["model"])
        chosen = {"arch": "own", **chosen, "model_sha256": sha256}
    asked = {**preset_values(preset, chosen), **chosen}
    config = Config(**{**_defaults(asked), **asked})
    check(config)
    return config


def default_preset(chosen: Mapping[str, Any]) -> tuple[str | None, str]:
    """Returns the preset of a run that names none, and a remark for a person.

    Args:
      chosen: options asked for, by name.

    Returns:
      The name of the preset, None for plain defaults, which are those of the paper; and
      the remark, "" for a data set without a preset of its own.
    """
    dataset = chosen.get("dataset", Config.dataset)
    own = DATASET_PRESETS.get(dataset)
    if own is None:
        return None, ""
    if given := sorted(chosen.keys() - _NOT_OF_TRAINING):
        return None, f"paper, as {flag(given[0])} is given; --preset {own} is shorter"
    return own, f"{own}, the default for {dataset}; --preset paper is the paper's"


def preset_values(preset: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the options of a preset that apply to the method asked for.

    Args:
      preset: name of the preset, or None for no options.
      chosen: options asked for, by name; data set, method and augmentation choose the
        preset's variants.
    """
    if preset is None:
        return {}
    values = PRESETS[preset]
    asked = {**values, **chosen}
    variants = PRESET_VARIANTS.get(preset, {})
    method = asked.get("method", Config.method)
    images = "plain" if not asked.get("augment", Config.augment) else "augmented"
    dataset = asked.get("dataset", Config.dataset).partition(":")[0]
    for name in (dataset, method, images):
        values = {**values, **variants.get(name, {})}
    return {name: value for name, value in values.items() if knows(method, name)}


def as_flags(config: Config) -> list[str]:
    """Returns the words of a command line that gives these options again.

    Options that the preset of the paper gives in any case are left out.

    Args:
      config: options of a run.
    """
    # Here a value of the plain defaults is no matter of course; or people look for it.
    said = {
        "arch",
        "dataset",
        "seed",
        *PRESET_VARIANTS["paper"].get(config.method, {}),
        *DATASET_DEFAULTS.get(config.dataset.partition(":")[0], {}),
        *METHOD_DEFAULTS.get(config.method, {}),
        *(["budget_weight"] if config.scope == "layer" else []),
    }
    implied = {"arch": config.model, "dataset": config.data}
    words = ["--preset", "paper"]
    for name, field in FIELDS.items():
        value = getattr(config, name)
        if value is None or implied.get(name) or field.metadata.get("internal"):
            continue
        if not knows(config.method, name):
            continue
        if value == field.default and name not in said:
            continue
        if isinstance(value, bool):
            words.append(flag(name if value else f"no_{name}"))
        else:
            words += [flag(name), str(value)]
    return words


def _defaults(chosen: Mapping[str, Any]) -> dict[str, Any]:
    method = chosen.get("method", Config.method)
    dataset = chosen.get("dataset", Config.dataset).partition(":")[0]
    defaults = {
        **DATASET_DEFAULTS.get(dataset, {}),
        **METHOD_DEFAULTS.get(method, {}),
    }
    # At a weight of 10, small layers miss their budgets by up to 1.4 % of the layer.
    if method in SAMPLED_METHODS and chosen.get("scope") == "layer":
        defaults["budget_weight"] = 100.0
    return defaults
