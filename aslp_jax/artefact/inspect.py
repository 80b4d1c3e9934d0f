"""A report on an artefact: network, size, sparsity and integrity, as text."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax.numpy as jnp
import numpy as np

from aslp_jax.artefact import Description, Source, architecture
from aslp_jax.artefact.decoding import Contents
from aslp_jax.artefact.header import ArrayHeader, Header
from aslp_jax.artefact.packing import mask_entropy

__all__ = ["LayerSummary", "report", "summarise"]


class LayerSummary(NamedTuple):
    """Numbers of weights and sizes of one array.

    Attributes:
      weights: number of weights.
      kept: number of kept weights.
      masked: True if the array has a mask.
      entropy: entropy of the mask in bits, for independent entries with the
        frequencies of this array; 0 without a mask.
      bytes: size in the file, without the header.
    """

    weights: int
    kept: int
    masked: bool
    entropy: float
    bytes: int


def summarise(contents: Contents) -> dict[str, LayerSummary]:
    """Returns a summary of each array of weights by name, in the network's order.

    Args:
      contents: contents of a file, as `decoding.read` returns them.

    Returns:
      Name to summary.
    """
    summaries = {}
    for array in _in_call_order(contents):
        weights = kept = math.prod(array.shape)
        bits = 0.0
        if array.name in contents.ternary_masks:
            ternary_mask = contents.ternary_masks[array.name]
            kept, bits = int(np.count_nonzero(ternary_mask)), mask_entropy(ternary_mask)
        stored = sum(segment.bytes for segment in array.segments)
        masked = array.mask is not None
        summaries[array.name] = LayerSummary(weights, kept, masked, bits, stored)
    return summaries


def _in_call_order(contents: Contents) -> tuple[ArrayHeader, ...]:
    """Returns the arrays in the order in which the network uses them."""
    header = contents.header
    if contents.net is None or header.description is None:
        return header.arrays  # a file of another network has this order
    arrays = {array.name: array for array in header.arrays}
    shapes = architecture.array_shapes(contents.net, header.description.image_shape)
    return tuple(arrays[name] for name in shapes["params"])


def report(contents: Contents, *, verified: bool) -> str:
    """Describes an artefact in a few lines, and its arrays in a table.

    Args:
      contents: contents of a file, as `decoding.read` returns them.
      verified: True if the sha256 of all effective weights was found right.

    Returns:
      Lines without a final line break. The table is at most 88 columns wide for the
      networks of this library.
    """
    summaries = summarise(contents)
    facts = _facts(contents, list(summaries.values()), verified)
    table = _table(_in_call_order(contents), summaries)
    return "\n".join([*facts, "", *table, *_note_on_scales(contents.header)])


def _facts(
    contents: Contents, summaries: Sequence[LayerSummary], verified: bool
) -> list[str]:
    header, size = contents.header, contents.size
    weights = sum(each.weights for each in summaries)
    others = sum(array.size for array in contents.collections.values())
    dense = sum(
        math.prod(array.shape or ()) * jnp.dtype(array.dtype).itemsize
        for array in header.all_arrays
    )
    entropy = sum(each.entropy for each in summaries)
    regenerate = "yes" if verified else "NO"
    if verified and all(array.recipe is None for array in header.arrays):
        regenerate = "not needed, the file stores all"
    dtypes = {array.dtype for array in header.all_arrays}
    kind = "float32" if dtypes == {"float32"} else "dense arrays"
    facts = [
        *_network_facts(header),
        ("size", f"{size:,} bytes, {8 * size / max(1, weights):.3f} bits a weight"),
        ("", f"{dense / size:.1f} times less than {kind} ({dense:,} bytes)"),
        (
            "masks",
            f"{math.ceil(entropy / 8):,} bytes by their entropy, "
            f"{entropy / max(1, weights):.3f} bits a weight",
        ),
        ("statistics", _others(header, others)),
        ("integrity", f"checksum ok, weights regenerate: {regenerate}"),
    ]
    return [f"{name:<12}{text}" for name, text in facts if text]


def _network_facts(header: Header) -> list[tuple[str, str]]:
    """Returns the facts that the description has, and the name of the network."""
    about, network = header.description, header.network
    if about is None or network is None:
        return [("network", "none: a bare pytree of arrays")]
    if isinstance(network, Source):
        name = f"{network}, not of this library: give it to load with net="
        facts = [("network", f"{about.arch}, {name}" if about.arch else name)]
        if network.sha256 is not None:
            facts.append(("", f"source file of sha256 {network.sha256}"))
    else:
        kind = f"{network['family']}), computes in {network['dtype']}"
        facts = [("network", f"{about.arch} ({kind}")]
    versions = ", ".join(f"{name} {each}" for name, each in about.versions.items())
    return [
        *facts,
        ("images", _images(about)),
        ("classes", ", ".join(about.class_names)),
        ("selected", _selected(about)),
        ("accuracy", _accuracy(about)),
        ("made with", versions),
    ]


def _others(header: Header, count: int) -> str:
    """Describes the arrays that are no weights."""
    if not count:
        return ""
    kind = "of batch-norm"
    if isinstance(header.network, Source):
        names = dict.fromkeys(extra.path[0] for extra in header.collections)
        kind = f"in {', '.join(names)}"
    return f"{count:,} numbers {kind}"


def _images(about: Description) -> str:
    size = "x".join(map(str, about.image_shape))
    standardised = "" if about.mean is None else ", standardised by channel"
    outputs = f"{about.classes} classes"
    if about.output_shape is not None:
        outputs = f"outputs of {'x'.join(map(str, about.output_shape))}"
    return f"{size}, bytes / 255{standardised}; {outputs}"


def _selected(about: Description) -> str:
    seed = "" if about.seed is None else f", seed {about.seed}"
    parts = {"by": about.method, "on": about.dataset}
    return " ".join(f"{word} {each}" for word, each in parts.items() if each) + seed


def _accuracy(about: Description) -> str:
    """Returns the thresholded accuracy first, and a mean with its deviation."""
    parts = []
    for name in sorted(about.accuracies, key=lambda name: name != "thresholding"):
        kind = name.removesuffix("_mean")
        std = about.accuracies.get(f"{kind}_std")
        deviation = "" if std is None else f" ± {std:.2%}"
        if not name.endswith("_std"):
            parts.append(f"{about.accuracies[name]:.2%}{deviation} {kind}")
    return ", ".join(parts)


def _table(
    arrays: Sequence[ArrayHeader], summaries: Mapping[str, LayerSummary]
) -> list[str]:
    """Returns a row for each masked array, one for all others and one for the total."""
    masked = [array for array in arrays if array.mask]
    others = [array for array in arrays if not array.mask]
    rows: list[tuple[str, ...]]
    rows = [("array", "weights", "kept", "scale", "bytes", "frozen weights")]
    for array in masked:
        scale = "" if array.scale is None else f"{array.scale:.4f}"
        summary = summaries[array.name]
        rows.append(_row(array.name, [summary], scale, _initialiser_text(array)))
    if others:
        kinds = ", ".join(dict.fromkeys(_initialiser(array) for array in others))
        unmasked = [summaries[array.name] for array in others]
        rows.append(_row(f"{len(others)} without a mask", unmasked, "", kinds))
    rows.append(_row("total", list(summaries.values()), "", ""))
    *widths, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for name, *numbers, text in rows:
        columns = [n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join((name.ljust(widths[0]), *columns, text)).rstrip())
    rule = "-" * max(map(len, lines))
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def _note_on_scales(header: Header) -> list[str]:
    """Explains scales that are all the same, because every reader asks."""
    scales = [f"{array.scale:.4f}" for array in header.arrays if array.scale]
    config = header.network if isinstance(header.network, dict) else {}
    plain = config.get("family") == "ConvNet" and not config["biases"]
    if not plain or len(scales) < 2 or len(set(scales)) > 1 or scales[0] == "1.0000":
        return []
    return [
        "",
        "Scales are equal, because without biases the loss depends on their product "
        "alone.",
    ]


def _row(
    name: str, summaries: Sequence[LayerSummary], scale: str, text: str
) -> tuple[str, ...]:
    """Returns a row of cells; the kept fraction counts masked weights alone."""
    masked = sum(each.weights for each in summaries if each.masked)
    kept = sum(each.kept for each in summaries if each.masked)
    return (
        name,
        f"{sum(each.weights for each in summaries):,}",
        f"{kept / masked:.2%}" if masked else "",
        scale,
        f"{sum(each.bytes for each in summaries):,}",
        text,
    )


def _initialiser_text(array: ArrayHeader) -> str:
    size = "" if array.magnitude is None else f" ±{array.magnitude:.4g}"
    return _initialiser(array) + size


def _initialiser(array: ArrayHeader) -> str:
    return array.origin if array.recipe is None else array.recipe.initialiser
