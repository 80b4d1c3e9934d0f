"""Passes over a graph that make it smaller and keep its outputs.

`compact` removes dead units (channels). A unit without a path to an output is removed.
A unit without input has the same value at every pixel of every image; its contribution
to the next layer moves into the shifts of that layer. A convolution with padding is an
exception, because its sums differ at the border, where the padding is zero. Before such
a convolution one constant unit remains and replaces all others.

Programs that multiply matrices are fastest if the number of channels is a multiple of
the vector width. `compact` can therefore leave units that compute nothing.
"""

import dataclasses

import numpy as np

from aslp_jax.export.graph import Add, Conv, Graph, Mean, Node

__all__ = ["CHANNEL_MULTIPLE", "compact"]

CHANNEL_MULTIPLE = 16
"""Number of floats in the widest vector registers of today's processors."""

_MIN_RATIO = 1e-3
"""Smallest constant, relative to the largest, that may replace the other constants."""


def compact(graph: Graph, *, merge: bool = True, multiple: int = 1) -> Graph:
    """Removes the units without input or without a path to an output.

    Outputs are the same up to rounding. All outputs of the network remain, every layer
    keeps at least one unit, and no layer is removed.

    Args:
      graph: the network.
      merge: True lets one constant unit replace all others before a convolution with
        padding. False keeps all constant units there; each kernel then holds original
        weights and zeros only.
      multiple: number of which each layer's channels remain a multiple, never beyond
        the original count, by units whose weights are all 0.

    Returns:
      The network with fewer units.
    """
    constants = _constant_outputs(graph)
    needed = _needed_channels(graph, constants, merge=merge)
    kept = [_fill_up(each, multiple) for each in needed]
    nodes = []
    for value, node in enumerate(graph.nodes, start=1):
        layer = node.layer
        if isinstance(layer, Conv):
            source = node.inputs[0]
            layer = _fold_constants(
                layer, constants[source], needed[source], merge=merge
            )
            layer = _zero_other_channels(layer, needed[source], needed[value])
            layer = _select_channels(layer, kept[source], kept[value])
        shape = (*node.shape[:2], int(kept[value].sum()))
        nodes.append(Node(layer, node.inputs, shape))
    return Graph(graph.input_shape, tuple(nodes))


def _constant_outputs(graph: Graph) -> list[np.ndarray]:
    """Returns each channel's constant output, or NaN if it depends on the input.

    Args:
      graph: the network.

    Returns:
      float64 `[channels]` for each value of the graph.
    """
    constants = [np.full(graph.input_shape[2], np.nan)]
    for node in graph.nodes:
        inputs = [constants[index] for index in node.inputs]
        match node.layer:
            case Conv() as layer:
                result = _constant_sums(layer, inputs[0])
            case Add():
                result = inputs[0] + inputs[1]
            case Mean():
                result = inputs[0]
        if not isinstance(node.layer, Mean) and node.layer.relu:
            result = np.maximum(result, 0)
        constants.append(result)
    return constants


def _constant_sums(layer: Conv, inputs: np.ndarray) -> np.ndarray:
    """Returns a convolution's constant outputs before its ReLU, NaN for the others."""
    known = inputs == 0 if layer.padding else ~np.isnan(inputs)
    varying = (layer.kernel[:, :, ~known] != 0).any((0, 1, 2))
    sums = inputs[known] @ layer.kernel[:, :, known].sum((0, 1), dtype=np.float64)
    return np.where(varying, np.nan, _scale_and_shift(layer, sums))


def _scale_and_shift(layer: Conv, sums: np.ndarray) -> np.ndarray:
    """Applies a convolution's scales and shifts to its sums."""
    sums = sums if layer.scale is None else sums * layer.scale
    return sums if layer.shift is None else sums + layer.shift


def _needed_channels(
    graph: Graph, constants: list[np.ndarray], *, merge: bool
) -> list[np.ndarray]:
    """Finds the channels of every value that the outputs need, to a fixed point.

    Args:
      graph: the network.
      constants: constant outputs of every value.
      merge: as in `compact`.

    Returns:
      bool `[channels]` for each value of the graph, at least one of them True.
    """
    needed = [np.zeros(len(each), bool) for each in constants]
    needed[0][:] = needed[-1][:] = True
    while True:
        before = sum(int(each.sum()) for each in needed)
        for value in reversed(range(1, len(needed))):
            node = graph.nodes[value - 1]
            sources = [needed[index] for index in node.inputs]
            if isinstance(node.layer, Conv):
                sources[0] |= _needed_inputs(
                    node.layer,
                    needed[value],
                    constants[node.inputs[0]],
                    sources[0],
                    merge,
                )
            else:  # keeps the number of each channel
                union = np.logical_or.reduce([needed[value], *sources])
                for each in (needed[value], *sources):
                    each |= union
        if before == sum(int(each.sum()) for each in needed):
            empty = [value for value, each in enumerate(needed) if not each.any()]
            if not empty:
                return needed
            # Prefers a constant channel, which needs no input itself.
            needed[empty[-1]][np.argmax(~np.isnan(constants[empty[-1]]))] = True


def _needed_inputs(
    layer: Conv,
    outputs: np.ndarray,
    constants: np.ndarray,
    needed: np.ndarray,
    merge: bool,
) -> np.ndarray:
    """Finds the input channels that a convolution needs.

    Args:
      layer: the convolution.
      outputs: bool `[out_channels]`, its needed outputs.
      constants: float64 `[in_channels]`, constant inputs or NaN.
      needed: bool `[in_channels]`, inputs that are needed so far.
      merge: as in `compact`.

    Returns:
      bool `[in_channels]`.
    """
    used = (layer.kernel[..., outputs] != 0).any((0, 1, 3))
    varying = np.isnan(constants)
    if layer.padding == 0:
        return used & varying
    nonzero = ~varying & (constants != 0)
    if merge and (used & nonzero).any():
        largest = _largest_constant(constants, used)
        other = _largest_constant(constants, needed)
        # Reuses a constant that remains anyway, unless it is only the rounding error of
        # sums that cancel out.
        if abs(constants[other]) >= _MIN_RATIO * abs(constants[largest]):
            largest = other
        return (used & varying) | (np.arange(len(needed)) == largest)
    return used & (varying | nonzero)


def _largest_constant(constants: np.ndarray, among: np.ndarray) -> int:
    """Returns the channel with the largest absolute constant among some channels."""
    return int(np.argmax(np.where(among, np.nan_to_num(np.abs(constants)), -1)))


def _fill_up(needed: np.ndarray, multiple: int) -> np.ndarray:
    """Adds the first other channels, up to a multiple or until there are no more."""
    missing = -int(needed.sum()) % multiple
    return needed | (~needed & (np.cumsum(~needed) <= missing))


def _fold_constants(
    layer: Conv, constants: np.ndarray, needed: np.ndarray, *, merge: bool
) -> Conv:
    """Moves constant inputs of a convolution into its shifts or into one input.

    Args:
      layer: the convolution.
      constants: float64 `[in_channels]`, constant inputs or NaN.
      needed: bool `[in_channels]`, inputs that remain.
      merge: as in `compact`.

    Returns:
      The convolution. Its weights of constant inputs are 0, except for those of the
      one constant input that replaces the others before padding.
    """
    constant = ~np.isnan(constants)
    if not constant.any() or (layer.padding and not merge):
        return layer
    kernel = layer.kernel.copy()
    # Contribution of all constant channels to each kernel position and output.
    given = np.einsum("hwio,i->hwo", kernel[:, :, constant], constants[constant])
    kernel[:, :, constant] = 0
    if layer.padding:
        index = _largest_constant(constants, needed & constant)
        if constants[index] > 0 or constants[index] < 0:
            kernel[:, :, index] = given / constants[index]
        return dataclasses.replace(layer, kernel=kernel)
    shift = _scale_and_shift(layer, given.sum((0, 1))).astype(np.float32)
    if layer.shift is None and not shift.any():
        return dataclasses.replace(layer, kernel=kernel)
    return dataclasses.replace(layer, kernel=kernel, shift=shift)


def _zero_other_channels(layer: Conv, inputs: np.ndarray, outputs: np.ndarray) -> Conv:
    """Sets all weights and shifts of a convolution to 0, except for some channels."""
    zero, shift = np.float32(0), layer.shift
    kernel = np.where(inputs[:, None] & outputs, layer.kernel, zero)
    if shift is not None:
        shift = np.where(outputs, shift, zero)
    return dataclasses.replace(layer, kernel=kernel, shift=shift)


def _select_channels(layer: Conv, inputs: np.ndarray, outputs: np.ndarray) -> Conv:
    """Returns a convolution with some of its channels only."""
    return dataclasses.replace(
        layer,
        kernel=layer.kernel[:, :, inputs][..., outputs],
        scale=None if layer.scale is None else layer.scale[outputs],
        shift=None if layer.shift is None else layer.shift[outputs],
    )
