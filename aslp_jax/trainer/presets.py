"""Presets: named values of the options, and the defaults of data sets and methods."""

from collections.abc import Mapping
from typing import Any

from aslp_jax.trainer.options import _DRAWN, FIELDS, Config, check, knows

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


def resolve(preset: str | None, chosen: Mapping[str, Any]) -> Config:
    """Returns the checked options of a new run.

    Args:
      preset: its name, or None for plain defaults.
      chosen: what was asked for, which wins over all else.

    Raises:
      BadInput: a value, or a combination of values, that means nothing.
    """
    asked = {**preset_values(preset, chosen), **chosen}
    config = Config(**{**_defaults(asked), **asked})
    check(config)
    return config


def preset_values(preset: str | None, chosen: Mapping[str, Any]) -> dict[str, Any]:
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
