"""What an artefact is, how small, how sparse, and whether it is whole: in words."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from aslp_jax.artefact import Description, architecture
from aslp_jax.artefact.decoding import Parts
from aslp_jax.artefact.header import Array


class Layer(NamedTuple):
    """How much of one array there is.

    Attributes:
      weights: all of them.
      kept: of them.
      masked: whether any of them can be dropped.
      entropy: of the mask, in bits: what as many independent choices with the
        frequencies of this array need at least; 0 where there is no mask.
      bytes: in the file, but for the header.
    """

    weights: int
    kept: int
    masked: bool
    entropy: float
    bytes: int


def layers(parts: Parts) -> dict[str, Layer]:
    """Returns how much there is of each array, by name, as the network calls them.

    Args:
      parts: of a file.
    """
    found = {}
    for array in _in_order(parts):
        weights = kept = math.prod(array.shape)
        bits = 0.0
        if array.name in parts.factors:
            factors = parts.factors[array.name]
            kept, bits = int(np.count_nonzero(factors)), entropy(factors)
        stored = sum(section.bytes for section in array.sections)
        masked = array.mask is not None
        found[array.name] = Layer(weights, kept, masked, bits, stored)
    return found


def _in_order(parts: Parts) -> list[Array]:
    arrays = {array.name: array for array in parts.header.arrays}
    shape = parts.header.description.image_shape
    return [arrays[name] for name in architecture.shapes_of(parts.net, shape)["params"]]


def entropy(factors: np.ndarray) -> float:
    """Returns the bits of independent choices that are made as often as these.

    Args:
      factors: any shape, each -1 (inverted), 0 (dropped) or 1 (kept).
    """
    counts = [int(np.count_nonzero(factors == choice)) for choice in (-1, 0, 1)]
    return sum(each * math.log2(factors.size / each) for each in counts if each)


def report(parts: Parts, *, whole: bool) -> str:
    """Describes an artefact in a few lines, and its arrays in a table.

    Args:
      parts: of the file.
      whole: whether its weights are those it was made of, drawn again where they must
        be.

    Returns:
      Lines without a final line break, the table at most 88 columns wide for the
      networks of this library.
    """
    found = layers(parts)
    facts = _facts(parts, list(found.values()), whole)
    return "\n".join([*facts, "", *_table(_in_order(parts), found)])


def _facts(parts: Parts, found: Sequence[Layer], whole: bool) -> list[str]:
    about, words = parts.header.description, parts.header.network
    weights = sum(each.weights for each in found)
    others = sum(array.size for array in parts.collections.values())
    dense = 4 * (weights + others)
    entropy = sum(each.entropy for each in found)
    regenerate = "yes" if whole else "NO"
    if whole and all(array.recipe is None for array in parts.header.arrays):
        regenerate = "they need not, all are in the file"
    made = ", ".join(f"{name} {version}" for name, version in about.versions.items())
    facts = [
        ("network", f"{about.arch} ({words['family']}), computes in {words['dtype']}"),
        ("images", _images(about)),
        ("selected", _selected(about)),
        ("accuracy", _accuracy(about)),
        ("made with", made),
        ("size", f"{parts.size:,} bytes, {8 * parts.size / weights:.3f} bits a weight"),
        ("", f"{dense / parts.size:.1f} times less than float32 ({dense:,} bytes)"),
        (
            "masks",
            f"{math.ceil(entropy / 8):,} bytes by their entropy, "
            f"{entropy / weights:.3f} bits a weight",
        ),
        ("statistics", f"{others:,} numbers of batch-norm" if others else ""),
        ("whole", f"checksum ok, weights regenerate: {regenerate}"),
    ]
    return [f"{name:<12}{text}" for name, text in facts if text]


def _images(about: Description) -> str:
    size = "x".join(map(str, about.image_shape))
    standardised = "" if about.mean is None else ", standardised by channel"
    return f"{size}, bytes / 255{standardised}; {about.classes} classes"


def _selected(about: Description) -> str:
    seed = "" if about.seed is None else f", seed {about.seed}"
    parts = {"by": about.method, "on": about.dataset}
    return " ".join(f"{word} {each}" for word, each in parts.items() if each) + seed


def _accuracy(about: Description) -> str:
    """That of the network itself first; a mean together with its spread."""
    found = []
    for name in sorted(about.accuracies, key=lambda name: name != "thresholding"):
        kind = name.removesuffix("_mean")
        std = about.accuracies.get(f"{kind}_std")
        spread = "" if std is None else f" ± {std:.2%}"
        if not name.endswith("_std"):
            found.append(f"{about.accuracies[name]:.2%}{spread} {kind}")
    return ", ".join(found)


def _table(arrays: Sequence[Array], found: Mapping[str, Layer]) -> list[str]:
    """One row for each masked array, one for all the others, and one for the total."""
    masked = [array for array in arrays if array.mask]
    rest = [array for array in arrays if not array.mask]
    rows: list[tuple[str, ...]]
    rows = [("array", "weights", "kept", "scale", "bytes", "frozen weights")]
    for array in masked:
        scale = "" if array.scale is None else f"{array.scale:.4f}"
        rows.append(_row(array.name, [found[array.name]], scale, _source(array)))
    if rest:
        kinds = ", ".join(dict.fromkeys(_kind(array) for array in rest))
        others = [found[array.name] for array in rest]
        rows.append(_row(f"{len(rest)} without a mask", others, "", kinds))
    rows.append(_row("total", list(found.values()), "", ""))
    *widths, _ = (max(map(len, column)) for column in zip(*rows, strict=True))
    lines = []
    for name, *numbers, source in rows:
        columns = [n.rjust(w) for n, w in zip(numbers, widths[1:], strict=True)]
        lines.append("  ".join((name.ljust(widths[0]), *columns, source)).rstrip())
    rule = "-" * max(map(len, lines))
    return [lines[0], rule, *lines[1:-1], rule, lines[-1]]


def _row(
    name: str, layers: Sequence[Layer], scale: str, source: str
) -> tuple[str, ...]:
    """The kept share is of what can be dropped; empty where nothing can."""
    masked = sum(layer.weights for layer in layers if layer.masked)
    kept = sum(layer.kept for layer in layers if layer.masked)
    return (
        name,
        f"{sum(layer.weights for layer in layers):,}",
        f"{kept / masked:.2%}" if masked else "",
        scale,
        f"{sum(layer.bytes for layer in layers):,}",
        source,
    )


def _source(array: Array) -> str:
    size = "" if array.magnitude is None else f" ±{array.magnitude:.4g}"
    return _kind(array) + size


def _kind(array: Array) -> str:
    """Where the frozen weights come from."""
    return array.origin if array.recipe is None else array.recipe.initialiser
