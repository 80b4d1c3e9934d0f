"""What remains of a run to look at: the picture of its curves, and the closing table.

Nothing here starts a device: rows (see `progress`) and arrays come from the host, and
matplotlib is imported only by the function that plots. Long, because each line of the
table and each panel of the picture has a function of its own.
"""

from collections.abc import Mapping
from typing import Any

from aslp_jax.trainer.dead_units import dead_units
from aslp_jax.trainer.progress import humanise_seconds

WIDTH = 80  # columns of the closing table, at most


def table(result: Mapping[str, Any], *, compile_seconds: float) -> str:
    """Sums up a finished run: what was kept, how accurate it is, how small.

    Args:
      result: `arch`, `dataset` and `method` (names); test accuracies `thresholding`,
        `averaging_mean` and `averaging_std` over `eval_samples` networks, or, where the
        method is `relaxed`, of the one network before pruning, and `pruning_change`, of
        its outputs;
        `keep_fraction`, and by layer `keep_fractions`, `weights` (how many are masked)
        and `scalars` (by group first, may be empty); `best_epoch`,
        `best_validation_accuracy`, `epochs` (run), `stopped` ("patience" or "epochs"),
        `seconds`; `connectivity` (see `warnings`); `dense_bytes` (float32 weights),
        `mask_bytes` (one bit a weight) and `kept_bits` (more for each that is kept).
      compile_seconds: that the program has compiled, evaluation included.

    Returns:
      Lines of at most 80 columns, without a final line break.
    """
    weights = result["weights"]
    scalars = result["scalars"]
    heads = ["layer", "weights", "kept", *scalars]
    body = [
        [
            name,
            f"{weights[name]:,}",
            f"{result['keep_fractions'][name]:.1%}",
            *(_scalar(group.get(name)) for group in scalars.values()),
        ]
        for name in weights
    ]
    total = ["total", f"{sum(weights.values()):,}", f"{result['keep_fraction']:.1%}"]
    total += [""] * len(scalars)

    cells = [heads, *body, total]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    widths[0] = max(8, min(widths[0], WIDTH - sum(2 + width for width in widths[1:])))
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

    head = f"{result['method']} on {result['arch']}, {result['dataset']}"
    return "\n".join([head, "", *lines, "", *_facts(result, compile_seconds)])


def _facts(result: Mapping[str, Any], compile_seconds: float) -> list[str]:
    """Returns the lines below the table."""
    small, packed = _packed(result)
    reasons = {"patience": "stopped early", "epochs": "all that were asked for"}
    reason = reasons.get(result["stopped"], result["stopped"])
    validation = f"{result['best_validation_accuracy']:.2%} at its best"
    duration = humanise_seconds(result["seconds"])
    times = f"({result['dense_bytes'] / small:.1f}x less)"
    facts = [
        ("test accuracy", f"{result['thresholding']:.2%} thresholding"),
        ("", others(result)),
        ("validation", f"{validation}, epoch {result['best_epoch']}"),
        ("training", f"{result['epochs']} epochs in {duration} ({reason})"),
        ("compiling", humanise_seconds(compile_seconds)),
        *zip(("paths", ""), _paths(result), strict=True),
        ("size", f"{result['dense_bytes'] / 1e6:,.2f} MB dense, as float32"),
        ("", f"{small / 1e3:,.2f} kB as {packed} {times}"),
    ]
    return [f"{name:<15}{fact}" for name, fact in facts if fact]


def _packed(result: Mapping[str, Any]) -> tuple[float, str]:
    """Returns the bytes that hold the network without loss, and what they are."""
    bits, weights = result["kept_bits"], result["weights"]
    kept = round(result["keep_fraction"] * sum(weights.values()))
    unmasked = result["dense_bytes"] // 4 - sum(weights.values())
    scalars = sum(len(group) for group in result["scalars"].values())
    small = result["mask_bytes"] + kept * bits / 8
    if bits == 32:
        return small + 4 * unmasked, "one bit a weight, 32 each kept"
    sign = "" if bits == 0 else f", {bits} each kept"
    # 8 bytes hold the seed that draws the frozen weights, 4 each learnt scalar.
    return small + 8 + 4 * scalars, f"one bit a weight{sign}, seed and scales"


def _paths(result: Mapping[str, Any]) -> tuple[str, str]:
    """Returns how much of what is kept does something, and which units do not."""
    found = dead_units(result)
    return (
        f"{100 - found.off_path:.1f}% of kept weights on one",
        f"{found.without_input:,} units get no input, "
        f"{found.without_output:,} reach no output",
    )


def warnings(result: Mapping[str, Any]) -> list[str]:
    """Returns what is wrong with how a network hangs together, a line each.

    Args:
      result: `connectivity` (by layer: the fields of `connectivity.Layer`), `outputs`
        and `outputs_reached`.
    """
    found = [
        f"{name} is left empty: none of its {layer['weights']:,} weights is kept"
        for name, layer in result["connectivity"].items()
        if layer["kept"] == 0
    ]
    if result["outputs_reached"] < result["outputs"]:
        lost = result["outputs"] - result["outputs_reached"]
        found.append(
            f"no path from the images reaches {lost} of the {result['outputs']} classes"
        )
    return found


def others(result: Mapping[str, Any]) -> str:
    """Returns how the network that is kept compares with what it was cut from.

    Args:
      result: `stochastic`, `relaxed`, `finetuned`, and what `table` says of them.
    """
    if result["finetuned"]:
        return "after fine-tuning, what was pruned held at 0"
    if not result["stochastic"] and not result["relaxed"]:
        return ""
    if result["relaxed"]:
        change = f"which changes outputs by {result['pruning_change']:.2%}"
        return f"{result['averaging_mean']:.2%} before pruning, {change}"
    averaging = f"{result['averaging_mean']:.2%} ± {result['averaging_std']:.2%}"
    return f"{averaging} averaging {result['eval_samples']} networks"


def describe_budget_miss(result: Mapping[str, Any]) -> str:
    """Says by how much a run missed its budget, and what can be done.

    Args:
      result: `method`, `scope`, `keep_fraction_asked`, `budget_miss` (both of all
        masked weights; with scope `layer` of those of the worst layer).
    """
    whose = "a layer's" if result["scope"] == "layer" else "all"
    other = "--sharpness-lr" if result["method"] == "budget" else "--logit-std"
    return (
        f"missed the budget: what counts as kept is {result['budget_miss']:.2%} of "
        f"{whose} weights away from the {result['keep_fraction_asked']:.2%} that were "
        f"asked for; try more epochs, a larger --budget-weight or {other}"
    )


def _scalar(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"
