"""Closing of a run: test accuracies, network and pictures of the best state."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from aslp_jax import _sharding, artefact
from aslp_jax._atomic import write_text
from aslp_jax.trainer import own_network, plots
from aslp_jax.trainer.options import Config
from aslp_jax.trainer.report import Finished, run_report
from aslp_jax.trainer.results import EpochRow, RunResult
from aslp_jax.trainer.run_folder import REPORT, RunFolder
from aslp_jax.trainer.run_state import Run, as_floats, summarise

__all__ = ["evaluate_best", "extract_best", "keep_probabilities", "write_pictures"]


def evaluate_best(run: Run, check: Callable[[], None] | None = None) -> RunResult:
    """Evaluates the best state on the test images, for the first time in the run.

    Args:
      run: run whose training is over.
      check: function called before each batch of streamed images is scored, which ends
        the evaluation if it raises; default: none.
    """
    config, position, programs = run.config, run.position, run.programs
    best = run.state.replace(**run.best)
    variables = run.place_scored(best.variables)
    scores = run.images.evaluate(
        programs, variables, run.test_key, config.eval_samples, check
    )
    masks = programs.masks(best.frozen, best.params)
    selection = jax.device_get(summarise(masks, masks, best.params))
    weights = {name: mask.size for name, mask in masks.items()}
    network = jax.eval_shape(
        programs.method.effective_weights, best.frozen, best.params
    )
    layers, reached = _connectivity(run, masks)
    return RunResult(
        arch=config.network_name,
        stochastic=programs.method.stochastic,
        trains_dense=programs.method.trains_dense,
        dataset=config.dataset_name,
        method=config.method,
        seed=config.seed,
        thresholding=scores.thresholding,
        averaging_mean=scores.averaging_mean,
        averaging_std=scores.averaging_std,
        single=scores.single,
        eval_samples=config.eval_samples,
        test_loss=scores.loss,
        pruning_change=None
        if math.isnan(scores.pruning_change)
        else scores.pruning_change,
        keep_fraction=float(selection.keep_fraction),
        keep_fractions=as_floats(selection.by_layer),
        scalars={
            group: as_floats(leaves) for group, leaves in selection.scalars.items()
        },
        connectivity=layers,
        outputs=run.data.classes,
        outputs_reached=reached,
        weights=weights,
        dense_bytes=sum(
            leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(network)
        ),
        mask_bytes=-(-sum(weights.values()) // 8),
        # No seed gives the weights of a module's own initialisers.
        bits_per_kept_weight=32
        if config.module_init
        else programs.method.bits_per_kept_weight,
        best_epoch=position.best_epoch,
        best_validation_accuracy=position.best_accuracy,
        keep_fraction_asked=config.keep_fraction,
        scope=config.scope,
        finetuned=position.pruned_epoch > 0,
        budget_miss=position.best_miss,
        epochs=position.epoch,
        stopped=run.stopped,
        seconds=position.seconds,
        processes=jax.process_count(),
        devices=len(run.devices),
    )


def _connectivity(run: Run, masks: Any) -> tuple[dict[str, dict[str, int]], int]:
    """Returns the counts by layer, and the number of classes that are reached.

    A network that cannot be traced has no counts, and counts as reaching all classes.
    """
    # Only now: a run needs it at its end.
    from aslp_jax.export import UnsupportedError

    try:
        found = jax.device_get(run.programs.connectivity(masks))
    except UnsupportedError:
        return {}, run.data.classes
    counts = {
        name: {field: int(n) for field, n in layer._asdict().items()}
        for name, layer in found.layers.items()
    }
    return counts, int(found.reached)


def extract_best(run: Run, result: RunResult) -> artefact.Subnetwork:
    """Returns the network of the best state, on its own.

    Args:
      run: run whose training is over.
      result: test accuracies of this network, from `evaluate_best`.
    """
    config, data = run.config, run.data
    return artefact.extract(
        run.programs.model,
        run.state.replace(**run.best).variables,
        artefact.Description(
            arch=config.network_name,
            classes=data.classes,
            image_shape=data.image_shape,
            mean=data.mean if config.standardise else None,
            std=data.std if config.standardise else None,
            dataset=config.dataset_name,
            method=config.method,
            seed=config.seed,
            accuracies={
                "thresholding": result.thresholding,
                "averaging_mean": result.averaging_mean,
                "averaging_std": result.averaging_std,
                "single": result.single,
            },
            class_names=data.class_names,
        ),
        key=run.weights_key,
        source=_source(config),
    )


def _source(config: Config) -> artefact.Source | None:
    """Returns the name of a network of one's own; None for one of this library."""
    if config.model is None:
        return None
    arguments = own_network.parse_arguments(config.model_args or "")
    try:
        return artefact.Source(config.model, config.model_sha256, arguments)
    except artefact.ArtefactError:  # a tuple or None, which no file holds
        return artefact.Source(config.model, config.model_sha256)


def keep_probabilities(run: Run, *, best: bool) -> dict[str, np.ndarray]:
    """Returns the keep-probabilities of a run by layer, on the host.

    All processes must call this.

    Args:
      run: run.
      best: True for the best state, False for the present one.
    """
    programs = run.programs
    params = run.best["params"] if best else programs.averaged(run.state).params
    return _sharding.on_host(programs.keep_probabilities(run.state.frozen, params))


def write_pictures(
    config: Config,
    folder: RunFolder,
    rows: Sequence[EpochRow],
    result: RunResult,
    subnetwork: artefact.Subnetwork,
    probabilities: Mapping[str, np.ndarray],
    *,
    plot: bool,
    report: bool,
) -> None:
    """Writes curves.png and report.html, as far as they are asked for.

    Args:
      config: options of the run.
      folder: folder of the run, with its network.
      rows: rows of metrics.jsonl.
      result: result of the run.
      subnetwork: network of the best state.
      probabilities: keep-probabilities of the best state, by layer.
      plot: True to plot curves.png.
      report: True to write report.html.

    Raises:
      OSError: the folder cannot be written.
    """
    if not (plot or report):
        return
    fractions = plots.histogram(probabilities)
    if plot:
        title = f"{config.network_name} on {config.dataset_name}, {config.method}, "
        plots.plot_curves(
            rows,
            fractions,
            folder.file("curves.png"),
            title=f"{title}seed {config.seed}",
        )
    if report:
        size = folder.file(artefact.NETWORK).stat().st_size
        page = run_report(
            Finished(config, folder.about, rows, result, fractions, subnetwork, size)
        )
        write_text(folder.file(REPORT), page)
