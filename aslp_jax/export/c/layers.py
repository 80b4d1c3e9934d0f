"""Constants of a layer in C: sizes, weights, and kernel positions."""

from collections.abc import Iterator

import numpy as np

from aslp_jax.export.c.weights import PackedWeights
from aslp_jax.export.graph import Conv, Shape, summed_shape

__all__ = ["array", "constants", "identifier"]


def constants(layer: Conv, shape: Shape, packed: PackedWeights) -> Iterator[str]:
    """Yields the definitions of a layer.

    Args:
      layer: the layer.
      shape: `(height, width, channels)` of its input.
      packed: its weights.

    Yields:
      Definitions in C. The last one is a `struct layer` named by `identifier`.
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
        "scale": _float(packed.scale),
    }
    scales = None if layer.scale is None else layer.scale * packed.scale
    for field, numbers in (("scales", scales), ("shifts", layer.shift)):
        if numbers is not None:
            yield array(f"{own}_{field}", numbers)
            fields[field] = f"{own}_{field}"
    if not layer.dense:
        yield _taps(f"{own}_taps", layer, shape)
        fields["taps"] = f"{own}_taps"
    weights = dict(packed.fields)
    for field, numbers in packed.arrays.items():
        yield array(f"{own}_{field}", numbers)
        weights[field] = f"{own}_{field}"
    stored = ", ".join(f".{field} = {value}" for field, value in weights.items())
    fields["weights"] = f"{{{stored}}}"
    lines = [f"    .{field} = {value}," for field, value in fields.items()]
    yield "\n".join([f"static const struct layer {own} = {{", *lines, "};", ""])


def _taps(name: str, layer: Conv, shape: Shape) -> str:
    """Returns an array of a `struct tap` for each kernel position.

    A tap is the offset of the input that a kernel position multiplies, and the range of
    outputs for which the input lies inside the image.
    """
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


def _inside(layer: Conv, position: int, inputs: int, outputs: int) -> tuple[int, int]:
    """Returns the range of outputs for which a kernel position is inside the image.

    Args:
      layer: the convolution.
      position: row or column of the kernel.
      inputs: size of the input on this axis.
      outputs: size of the output on this axis.

    Returns:
      First output, and the output after the last one.
    """
    found = [
        output
        for output in range(outputs)
        if 0 <= output * layer.stride + position - layer.padding < inputs
    ]
    return (found[0], found[-1] + 1) if found else (0, 0)


def array(name: str, numbers: np.ndarray) -> str:
    """Returns the definition of a constant array.

    An empty array is written with one 0, because C has no arrays of no elements.

    Args:
      name: name of the array.
      numbers: float32 or uint8 `[count]`.

    Returns:
      A definition in C.
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
    """Returns the C identifier of a layer, such as `block_0_conv_1`."""
    return layer.replace("/", "_").lower()


def _float(value: float | np.float32) -> str:
    """Returns a float literal, with the nine digits that identify a float32."""
    return f"{value:.8e}f"
