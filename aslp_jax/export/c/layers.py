"""The constants of a layer as C: its weights, its sizes, and where they meet."""

from collections.abc import Iterator

import numpy as np

from aslp_jax.export.c.weights import Table
from aslp_jax.export.graph import Conv, Shape, summed_shape


def constants(layer: Conv, shape: Shape, table: Table) -> Iterator[str]:
    """The definitions of a layer, the last one a `struct layer` of its `identifier`.

    Args:
      layer: the layer.
      shape: of its input, `(height, width, channels)`.
      table: its weights.
    """
    own = identifier(layer.name)
    fields: dict[str, object] = dict(
        zip(("in_height", "in_width", "in_channels"), shape, strict=True)
    )
    summed = summed_shape(layer, shape)
    fields |= dict(zip(("height", "width", "units"), summed, strict=True))
    fields |= {
        "kernel_size": layer.kernel.shape[0] * layer.kernel.shape[1],
        "stride": layer.stride,
        "dense": int(layer.dense),
        "relu": int(layer.relu),
        "pool": int(layer.pool),
        "scale": _float(table.scale),
    }
    scales = None if layer.scale is None else layer.scale * table.scale
    for field, numbers in (("scales", scales), ("shifts", layer.shift)):
        if numbers is not None:
            yield array(f"{own}_{field}", numbers)
            fields[field] = f"{own}_{field}"
    if not layer.dense:
        yield _taps(f"{own}_taps", layer, shape)
        fields["taps"] = f"{own}_taps"
    weights = dict(table.fields)
    for field, numbers in table.arrays.items():
        yield array(f"{own}_{field}", numbers)
        weights[field] = f"{own}_{field}"
    stored = ", ".join(f".{field} = {value}" for field, value in weights.items())
    fields["weights"] = f"{{{stored}}}"
    lines = [f"    .{field} = {value}," for field, value in fields.items()]
    yield "\n".join([f"static const struct layer {own} = {{", *lines, "};", ""])


def _taps(name: str, layer: Conv, shape: Shape) -> str:
    """Where each weight of a channel meets it: a `struct tap` each."""
    outputs = summed_shape(layer, shape)
    lines = []
    for row in range(layer.kernel.shape[0]):
        top, bottom = _inside(layer, row, shape[0], outputs[0])
        for column in range(layer.kernel.shape[1]):
            left, right = _inside(layer, column, shape[1], outputs[1])
            above = (row - layer.padding) * shape[1]
            offset = above + column - layer.padding
            lines.append(f"    {{{offset}, {top}, {bottom}, {left}, {right}}},")
    opening = f"static const struct tap {name}[{len(lines)}] = {{"
    return "\n".join([opening, *lines, "};", ""])


def _inside(layer: Conv, place: int, inputs: int, outputs: int) -> tuple[int, int]:
    """Of one axis, the outputs that a place of the kernel has an input for."""
    found = [
        output
        for output in range(outputs)
        if 0 <= output * layer.stride + place - layer.padding < inputs
    ]
    return (found[0], found[-1] + 1) if found else (0, 0)


def array(name: str, numbers: np.ndarray) -> str:
    """A constant array; an empty one holds a 0, since C has none without entries.

    Args:
      name: of the array.
      numbers: float32 or uint8, of one axis.
    """
    kind, row, texts = "uint8_t", 18, [str(each) for each in numbers.tolist()]
    if numbers.dtype == np.float32:
        kind, row, texts = "float", 5, [_float(each) for each in numbers.tolist()]
    texts = texts or ["0"]
    lines = [
        "    " + ", ".join(texts[begin : begin + row]) + ","
        for begin in range(0, len(texts), row)
    ]
    opening = f"static const {kind} {name}[{len(texts)}] = {{"
    return "\n".join([opening, *lines, "};", ""])


def identifier(layer: str) -> str:
    """What a layer is called in C."""
    return layer.replace("/", "_").lower()


def _float(value: float | np.float32) -> str:
    # Nine digits are enough to read the same bits again.
    return f"{value:.8e}f"
