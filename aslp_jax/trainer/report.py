"""Report on a run: one page of HTML with curves, kept weights, filters and options.

`report.html` stands beside result.json and says the same to people. It needs no network
and no other file. This file is long because it has a function for each section.
"""

import dataclasses
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from aslp_jax import artefact
from aslp_jax.artefact.filters import first_filters, plotted_layers
from aslp_jax.trainer import summary
from aslp_jax.trainer.dead_units import dead_units
from aslp_jax.trainer.options import FIELDS, Config, flag
from aslp_jax.trainer.plots import fraction_limits, histogram_limits
from aslp_jax.trainer.presets import as_flags
from aslp_jax.trainer.progress import counted, humanise_seconds
from aslp_jax.trainer.results import EpochRow, RunResult
from aslp_jax.trainer.run_folder import typed
from aslp_jax.webpage.charts import Curve, Frame, curves, histogram
from aslp_jax.webpage.html import (
    Cell,
    Markup,
    element,
    facts,
    figure,
    page,
    picture,
    table,
)
from aslp_jax.webpage.pictures import encode_png

__all__ = ["Finished", "run_report"]

_MOST_EPOCHS = 300
"""Most epochs that a chart has a point of; more would make a page of megabytes."""

_MOST_CLASSES = 200
"""Most classes that the page names."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A finished run, as its report takes it.

    Attributes:
      config: options.
      about: content of config.json: command, device, versions, commit and times.
      rows: rows of metrics.jsonl, at least one.
      result: content of result.json.
      fractions: float `[bins]`, histogram of the keep-probabilities of the best state;
        zeros if there are none.
      subnetwork: network of the best state.
      network_bytes: size of network.aslp, in bytes.
    """

    config: Config
    about: Mapping[str, Any]
    rows: Sequence[EpochRow]
    result: RunResult
    fractions: np.ndarray
    subnetwork: artefact.Subnetwork
    network_bytes: int


def run_report(run: Finished) -> str:
    """Returns the report on a run, a page of HTML.

    Args:
      run: the run.
    """
    config = run.config
    title = (
        f"{config.method} on {config.network_name}, {config.dataset_name}, "
        f"seed {config.seed}"
    )
    rows = _thinned(run.rows)
    sections = [
        ("Result", _result(run)),
        ("Curves", _side_by_side(_loss(rows), _accuracy(rows))),
        ("Weights kept", [_kept(run, rows), _layers(run.result)]),
        ("First layer", _first_layer(run.subnetwork)),
        ("Dead units", _dead_units(run.result)),
        ("Repeat it", _repeat(run)),
        ("Options", _options(config)),
    ]
    return page(title, element("p", _sentence(run)), sections)


def _sentence(run: Finished) -> str:
    result = run.result
    return (
        f"{result.keep_fraction:.1%} of {sum(result.weights.values()):,} weights are "
        f"kept; the network that is left is right on {result.thresholding:.2%} of the "
        f"test images, and takes {run.network_bytes:,} bytes."
    )


def _thinned(rows: Sequence[EpochRow]) -> Sequence[EpochRow]:
    """Returns rows at even distances, the first and the last among them."""
    if len(rows) <= _MOST_EPOCHS:
        return rows
    places = np.linspace(0, len(rows) - 1, _MOST_EPOCHS).round().astype(int)
    return [rows[place] for place in places]


def _result(run: Finished) -> Markup:
    result, about = run.result, run.about
    others = summary.others(result)
    names = list(run.subnetwork.description.class_names)
    classes = ", ".join(names[:_MOST_CLASSES] + ["..."] * (len(names) > _MOST_CLASSES))
    best = f"{result.best_validation_accuracy:.2%} at its best, epoch"
    pairs = [
        ("Test accuracy", f"{result.thresholding:.2%} thresholding"),
        ("Test accuracy, others", others),
        ("Validation accuracy", f"{best} {result.best_epoch}"),
        ("Weights kept", f"{result.keep_fraction:.2%}"),
        ("Size of network.aslp", f"{run.network_bytes:,} bytes"),
        ("Size as float32", f"{result.dense_bytes:,} bytes"),
        (
            "Training",
            f"{counted(result.epochs, 'epoch')} in {humanise_seconds(result.seconds)}",
        ),
        ("Device", str(about.get("device", ""))),
        ("Classes", f"{result.outputs}: {classes}" if names else str(result.outputs)),
    ]
    if result.budget_miss > 0:
        pairs.append(("Budget", summary.describe_budget_miss(result)))
    return facts((name, fact) for name, fact in pairs if fact)


def _side_by_side(*figures: Markup) -> Markup:
    return element("div", figures, class_="figures")


def _loss(rows: Sequence[EpochRow]) -> Markup:
    lines = [
        Curve("training", [row.train_loss for row in rows], "second"),
        Curve("validation", [row.validation_loss for row in rows], "first"),
    ]
    values = [value for line in lines for value in line.values if math.isfinite(value)]
    frame = Frame(
        "loss",
        "Loss",
        f"Training loss from {rows[0].train_loss:.3g} to {rows[-1].train_loss:.3g}, "
        f"validation loss from {rows[0].validation_loss:.3g} to "
        f"{rows[-1].validation_loss:.3g}.",
        0.0,
        1.05 * max([*values, 1e-6]),
        "mean over an epoch, in nats",
    )
    note = "The training loss holds the budget loss, where there is one."
    return figure(curves(frame, _epochs(rows), lines), note)


def _accuracy(rows: Sequence[EpochRow]) -> Markup:
    lines = [
        Curve("training", [row.train_accuracy for row in rows], "second"),
        Curve("validation", [row.validation_accuracy for row in rows], "first"),
    ]
    last = rows[-1]
    best = (last.best_epoch, last.best_validation_accuracy)
    low, high = fraction_limits([*(line.values for line in lines)])
    frame = Frame(
        "accuracy",
        "Accuracy",
        f"Validation accuracy from {rows[0].validation_accuracy:.1%} to "
        f"{last.validation_accuracy:.1%}, at its best {best[1]:.1%} in epoch "
        f"{best[0]}.",
        low,
        high,
        "of the images, in %",
        percent=True,
    )
    chart = curves(frame, _epochs(rows), lines, best=best)
    return figure(chart, f"The point is the best epoch, {best[0]}: {best[1]:.1%}.")


def _epochs(rows: Sequence[EpochRow]) -> list[int]:
    return [row.epoch for row in rows]


def _kept(run: Finished, rows: Sequence[EpochRow]) -> Markup:
    names = list(rows[-1].keep_fractions)
    # Colours follow the order of the layers, so that a trend over them shows.
    lines = [
        Curve(
            name.removesuffix("/kernel"),
            [row.keep_fractions[name] for row in rows],
            colour=f"hsl({200 + 140 * index / max(1, len(names) - 1):.0f},65%,50%)",
        )
        for index, name in enumerate(names)
    ]
    lines.append(Curve("total", [row.keep_fraction for row in rows], "whole"))
    low, high = fraction_limits([line.values for line in lines])
    frame = Frame(
        "kept",
        "Weights kept, by layer",
        f"Of all weights {rows[-1].keep_fraction:.1%} are kept after the last epoch; "
        "the table below has each layer.",
        low,
        high,
        "of the layer's weights, in %",
        percent=True,
    )
    chart = curves(frame, _epochs(rows), lines, labels=True)
    return _side_by_side(
        figure(chart, "Colours go from blue to red, in the order of the table."),
        *_probabilities(run.fractions),
    )


def _probabilities(fractions: np.ndarray) -> list[Markup]:
    if not fractions.any():
        return []
    low, high = histogram_limits(fractions)
    tenth = len(fractions) // 10
    near = fractions[:tenth].sum() + fractions[-tenth:].sum()
    frame = Frame(
        "probabilities",
        "Keep-probabilities, all layers",
        f"{near:.1%} of the weights have a keep-probability below 10 or above 90 %.",
        low,
        high,
        f"of the weights, in % in each of {len(fractions)} bins, log scale",
    )
    return [figure(histogram(frame, [*fractions]), "Best state, all layers.")]


def _layers(result: RunResult) -> Markup:
    groups = list(result.scalars)
    rows = []
    for name, weights in result.weights.items():
        counts = result.connectivity.get(name, {})
        kept = result.keep_fractions[name]
        scalars = [result.scalars[group].get(name) for group in groups]
        rows.append(
            [
                Cell(name),
                Cell(f"{weights:,}", weights),
                Cell(f"{kept:.2%}", kept),
                *(
                    Cell("") if value is None else Cell(f"{value:.4g}", value)
                    for value in scalars
                ),
                *(
                    Cell(f"{counts[key]:,}", counts[key]) if counts else Cell("")
                    for key in ("on_path", "units", "without_input", "without_output")
                ),
            ]
        )
    head = ("layer", "weights", "kept", *groups, "kept on a path", "units")
    head += ("without input", "without output")
    return table("Layers of the network, best state", head, rows)


def _first_layer(subnetwork: artefact.Subnetwork) -> Markup:
    try:
        filters = first_filters(plotted_layers(subnetwork)[0])
    except artefact.ArtefactError:  # every masked array has one axis
        filters = []
    if not filters:
        return element("p", "The first layer has no filters to show as pictures.")
    return element(
        "div",
        *(
            figure(
                picture(encode_png(each.pixels), f"filters of {each.title}"),
                f"{each.title}: {each.note}",
            )
            for each in filters
        ),
        class_="figures filters",
    )


def _dead_units(result: RunResult) -> list[Markup]:
    if not result.connectivity:
        return [element("p", "Not known: the network cannot be traced.")]
    found = dead_units(result)
    pairs = [
        ("Units without input", f"{found.without_input:,} of {found.units:,}"),
        ("Units that reach no output", f"{found.without_output:,} of {found.units:,}"),
        ("Kept weights on no path", f"{found.off_path:.2f} %"),
        ("Empty layers", str(found.empty_layers)),
        ("Classes not reached", f"{found.unreached_classes} of {result.outputs}"),
    ]
    warnings = [element("p", f"Warning: {text}.") for text in summary.warnings(result)]
    return [*warnings, facts(pairs)]


def _repeat(run: Finished) -> list[Markup]:
    about = run.about
    versions = [f"{name} {version}" for name, version in about["versions"].items()]
    pairs = [
        ("Started", str(about["started"])),
        ("Commit", str(about["commit"] or "")),
        ("Versions", ", ".join(versions)),
        *(
            (f"Resumed after epoch {each.get('after_epoch')}", str(each.get("started")))
            for each in about.get("resumed", [])
        ),
    ]
    return [
        element("p", "With every option that is not as in the preset of the paper:"),
        _code(shlex.join(["aslp-jax", "train", *as_flags(run.config)])),
        element("p", "The command as it was given:"),
        _code(typed(map(str, about["command"]))),
        facts((name, fact) for name, fact in pairs if fact),
    ]


def _code(text: str) -> Markup:
    return element("pre", element("code", text))


def _options(config: Config) -> Markup:
    rows = []
    for name, field in FIELDS.items():
        if field.metadata.get("internal"):
            continue
        value = getattr(config, name)
        changed = value != field.default
        rows.append(
            [
                Cell(flag(name)),
                Cell(_shown(value)),
                Cell(_shown(field.default) if changed else ""),
                Cell(field.metadata["help"]),
            ]
        )
    head = ("option", "value", "default, where it differs", "meaning")
    return table("Options of the run; the defaults are the paper's", head, rows)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "on" if value else "off"
    return "none" if value is None else str(value)
