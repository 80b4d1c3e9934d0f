"""Summary of a run: the closing table, and messages about it.

Importing this module imports no JAX.
"""

from collections.abc import Mapping

from aslp_jax.trainer.dead_units import dead_units
from aslp_jax.trainer.progress import counted, humanise_seconds
from aslp_jax.trainer.results import RunResult

__all__ = ["describe_budget_miss", "others", "table", "warnings"]

_WIDTH = 80
"""Largest number of columns of the closing table."""

_EQUAL_SCALES = (
    "Equal scales are expected without biases: the loss depends on their\n"
    "product alone."
)


def table(result: RunResult, *, compile_seconds: float) -> str:
    """Returns the closing table: weights kept, accuracies and sizes of a run.

    Args:
      result: result of the run.
      compile_seconds: time that the program has compiled, evaluation included, in
        seconds.

    Returns:
      Lines of at most 80 columns, without a final line break.
    """
    weights = result.weights
    scalars = result.scalars
    heads = ["layer", "weights", "kept", *scalars]
    body = [
        [
            name,
            f"{weights[name]:,}",
            f"{result.keep_fractions[name]:.1%}",
            *(_scalar(group.get(name)) for group in scalars.values()),
        ]
        for name in weights
    ]
    total = ["total", f"{sum(weights.values()):,}", f"{result.keep_fraction:.1%}"]
    total += [""] * len(scalars)

    cells = [heads, *body, total]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max(8, min(widths[0], _WIDTH - sum(2 + width for width in widths[1:])))
    lines = []
    for name, *numbers in cells:
        if len(name) > widths[0]:
            # The end of a path tells layers apart better than its start.
            name = "..." + name[3 - widths[0] :]
        columns = [name.ljust(widths[0])]
        columns += [n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join(columns).rstrip())
    rule = "-" * (sum(widths) + 2 * len(scalars) + 4)
    lines[-1:] = [rule, lines[-1]]
    lines.insert(1, rule)

    if _equal(scalars.get("scale", {})):
        lines += ["", _EQUAL_SCALES]
    head = f"{result.method} on {result.arch}, {result.dataset}"
    return "\n".join([head, "", *lines, "", *_facts(result, compile_seconds)])


def _equal(scales: Mapping[str, float]) -> bool:
    """Returns True if there are several scales, equal to the digits shown."""
    return len(scales) > 1 and len({_scalar(scale) for scale in scales.values()}) == 1


def _facts(result: RunResult, compile_seconds: float) -> list[str]:
    """Returns the lines below the table."""
    stored, encoding = _encoded_size(result)
    reasons = {"patience": "stopped early", "epochs": "all that were asked for"}
    reason = reasons.get(result.stopped or "", result.stopped)
    validation = f"{result.best_validation_accuracy:.2%} at its best"
    duration = humanise_seconds(result.seconds)
    times = f"({result.dense_bytes / stored:.1f}x less)"
    facts = [
        ("test accuracy", f"{result.thresholding:.2%} thresholding"),
        ("", others(result)),
        ("validation", f"{validation}, epoch {result.best_epoch}"),
        ("training", f"{counted(result.epochs, 'epoch')} in {duration} ({reason})"),
        ("compiling", humanise_seconds(compile_seconds)),
        *zip(("paths", ""), _paths(result), strict=True),
        ("size", f"{result.dense_bytes / 1e6:,.2f} MB dense, as float32"),
        ("", f"{stored / 1e3:,.2f} kB as {encoding} {times}"),
    ]
    return [f"{name:<15}{fact}" for name, fact in facts if fact]


def _encoded_size(result: RunResult) -> tuple[float, str]:
    """Returns the size of the losslessly stored network, in bytes, and its encoding."""
    bits, weights = result.bits_per_kept_weight, result.weights
    kept = round(result.keep_fraction * sum(weights.values()))
    unmasked = result.dense_bytes // 4 - sum(weights.values())
    scalars = sum(len(group) for group in result.scalars.values())
    size = result.mask_bytes + kept * bits / 8
    if bits == 32:
        return size + 4 * unmasked, "one bit a weight, 32 each kept"
    sign = "" if bits == 0 else f", {bits} each kept"
    # 8 bytes for the seed of the frozen weights, 4 for each learnt scalar.
    return size + 8 + 4 * scalars, f"one bit a weight{sign}, seed and scales"


def _paths(result: RunResult) -> tuple[str, str]:
    """Returns the kept weights on a path, and the dead units, as two lines."""
    if not result.connectivity:
        return "not known: the network cannot be traced", ""
    found = dead_units(result)
    return (
        f"{100 - found.off_path:.1f}% of kept weights on one",
        f"{counted(found.without_input, 'unit')} without input, "
        f"{found.without_output:,} without a path to the output",
    )


def warnings(result: RunResult) -> list[str]:
    """Returns a warning for each empty layer, and one for unreached classes.

    Args:
      result: result with `connectivity`, `outputs` and `outputs_reached`.
    """
    found = [
        f"{name} is left empty: none of its {layer['weights']:,} weights is kept"
        for name, layer in result.connectivity.items()
        if layer["kept"] == 0
    ]
    if result.outputs_reached < result.outputs:
        lost = result.outputs - result.outputs_reached
        found.append(
            f"no path from the images reaches {lost} of the {result.outputs} classes"
        )
    return found


def others(result: RunResult) -> str:
    """Returns the accuracy of the sampled networks, or before pruning; "" if neither.

    Args:
      result: result of the run.
    """
    if result.finetuned:
        return "after fine-tuning, what was pruned held at 0"
    if not result.stochastic and not result.trains_dense:
        return ""
    if result.trains_dense:
        change = f"which changes outputs by {result.pruning_change:.2%}"
        return f"{result.averaging_mean:.2%} before pruning, {change}"
    averaging = f"{result.averaging_mean:.2%} ± {result.averaging_std:.2%}"
    return f"{averaging} averaging {result.eval_samples} networks"


def describe_budget_miss(result: RunResult) -> str:
    """Returns a message on a missed budget, with advice.

    Args:
      result: result with `method`, `scope`, `keep_fraction_asked` and `budget_miss`.
    """
    whose = "a layer's" if result.scope == "layer" else "all"
    other = "--sharpness-lr" if result.method == "budget" else "--logit-std"
    return (
        f"missed the budget: what counts as kept is {result.budget_miss:.2%} of "
        f"{whose} weights away from the {result.keep_fraction_asked:.2%} that were "
        f"asked for; try more epochs, a larger --budget-weight or {other}"
    )


def _scalar(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
