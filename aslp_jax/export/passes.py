"""Passes over a graph that make it smaller and keep its outputs.

`compact` removes dead units (channels). A unit without a path to an output is removed.
A unit without input has the same value at every position of every input; its
contribution to the next layer moves into the shifts of that layer. A convolution with
padding is an exception, because its sums differ at the border, where the padding is
zero. Before such a convolution one constant unit remains and replaces all others.

Programs that multiply matrices are fastest if the number of channels is a multiple of
the vector width. `compact` can therefore leave units that compute nothing.

Channels lie along the last axis. Convolutions and dense layers choose channels freely.
All other operations either keep each channel by itself (`channels` says which), or take
all channels: those stay.

The file is long because a unit that goes must go from each array of both layers.
"""

import dataclasses
from typing import cast

import numpy as np

from aslp_jax.export.channels import Channels, is_depthwise, read_channels
from aslp_jax.export.operations import (
    Binary,
    Concatenate,
    Conv,
    Dense,
    Graph,
    Node,
    Operation,
    Select,
    Slice,
    Unary,
)

__all__ = ["CHANNEL_MULTIPLE", "compact"]

CHANNEL_MULTIPLE = 16
"""Number of floats in the widest vector registers of today's processors."""

_MIN_RATIO = 1e-3
"""Smallest constant, relative to the largest, that may replace the other constants."""

_NOT_OF_ZERO = frozenset({"div", "log", "log1p", "pow", "rsqrt", "sqrt"})
"""Functions that may give no number where a unit computes nothing."""


def compact(graph: Graph, *, merge: bool = True, multiple: int = 1) -> Graph:
    """Removes the units without input or without a path to an output.

    Outputs are the same up to rounding. All inputs and outputs of the network remain,
    every value keeps at least one channel, and no operation is removed.

    Args:
      graph: the network, simplified.
      merge: True lets one constant unit replace all others before a convolution with
        padding. False keeps all constant units there; each kernel then holds original
        weights and zeros only.
      multiple: number of which each layer's channels remain a multiple, never beyond
        the original count, by units whose weights are all 0.

    Returns:
      The network with fewer units.
    """
    channels = read_channels(graph)
    needed = _needed(graph, channels, channels.pinned, merge=merge)
    kept = _fill_up(graph, channels, needed, multiple)
    if any(_is_unsafe(node.operation) for node in graph.nodes):
        # Units that fill up compute what they did.
        while (kept != needed).any():
            needed = _needed(graph, channels, kept, merge=merge)
            kept = _fill_up(graph, channels, needed, multiple)
    nodes = []
    for value, node in enumerate(graph.nodes, start=1):
        operation = node.operation
        if channels.chooses[value]:
            operation = cast(Conv | Dense, operation)
            source = node.inputs[0]
            constants = channels.constants[source]
            inputs, outputs = channels.of(needed, source), channels.of(needed, value)
            operation = _fold_constants(operation, constants, inputs, merge=merge)
            operation = _zero_other_channels(operation, inputs, outputs)
        masks = [channels.of(kept, index) for index in (*node.inputs, value)]
        operation = _select_channels(operation, masks[:-1], masks[-1])
        shape = node.shape
        if shape:
            shape = (*shape[:-1], int(masks[-1].sum()))
        nodes.append(Node(operation, node.inputs, shape))
    return Graph(graph.input_shape, tuple(nodes))


def _needed(
    graph: Graph, channels: Channels, pinned: np.ndarray, *, merge: bool
) -> np.ndarray:
    """Finds the channels that the outputs need, to a fixed point.

    Args:
      graph: the network.
      channels: its channels.
      pinned: bool `[count]`, channels that stay in any case.
      merge: as in `compact`.

    Returns:
      bool `[count]`, for each channel by its number; every value has at least one.
    """
    needed = pinned.copy()
    used = {
        value: (layer.kernel != 0).any(tuple(range(layer.kernel.ndim - 2)))
        for value, layer in enumerate((n.operation for n in graph.nodes), start=1)
        if channels.chooses[value] and isinstance(layer, Conv | Dense)
    }
    while True:
        before = int(needed.sum())
        for value in sorted(used, reverse=True):
            node = graph.nodes[value - 1]
            source = node.inputs[0]
            found = _needed_inputs(
                node.operation,
                used[value][:, channels.of(needed, value)].any(1),
                channels.constants[source],
                channels.of(needed, source),
                merge,
            )
            needed[channels.numbers[source][found]] = True
        if before == int(needed.sum()):
            for value in range(len(graph.nodes), 0, -1):
                if not channels.of(needed, value).any():
                    # Prefers a constant channel, which needs no input itself.
                    chosen = np.argmax(~np.isnan(channels.constants[value]))
                    needed[channels.numbers[value][chosen]] = True
                    break
            else:
                return needed


def _needed_inputs(
    layer: Operation,
    used: np.ndarray,
    constants: np.ndarray,
    needed: np.ndarray,
    merge: bool,
) -> np.ndarray:
    """Finds the input channels that a layer needs.

    Args:
      layer: convolution or dense layer.
      used: bool `[in_channels]`, inputs with a weight to a needed output.
      constants: float64 `[in_channels]`, constant inputs or NaN.
      needed: bool `[in_channels]`, inputs that are needed so far.
      merge: as in `compact`.

    Returns:
      bool `[in_channels]`.
    """
    varying = np.isnan(constants)
    if not _pads(layer):
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


def _pads(layer: Operation) -> bool:
    """Returns True if a layer meets zeros beside its input."""
    return isinstance(layer, Conv) and any(map(any, layer.padding))


def _largest_constant(constants: np.ndarray, among: np.ndarray) -> int:
    """Returns the channel with the largest absolute constant among some channels."""
    return int(np.argmax(np.where(among, np.nan_to_num(np.abs(constants)), -1)))


def _fill_up(
    graph: Graph, channels: Channels, needed: np.ndarray, multiple: int
) -> np.ndarray:
    """Adds the first other channels of each layer, up to a multiple or to its end."""
    kept = needed.copy()
    for value in range(1, len(graph.nodes) + 1):
        if channels.chooses[value]:
            mask = channels.of(kept, value)
            missing = -int(mask.sum()) % multiple
            added = ~mask & (np.cumsum(~mask) <= missing)
            kept[channels.numbers[value][added]] = True
    return kept


def _is_unsafe(operation: Operation) -> bool:
    """Returns True if an operation may make no number of 0."""
    match operation:
        case Binary("div", constant=constant, constant_first=False):
            return constant is None
        case Binary(function) | Unary(function):
            return function in _NOT_OF_ZERO
    return False


def _fold_constants(
    layer: Conv | Dense, constants: np.ndarray, needed: np.ndarray, *, merge: bool
) -> Conv | Dense:
    """Moves constant inputs of a layer into its shifts or into one input.

    Args:
      layer: the layer.
      constants: float64 `[in_channels]`, constant inputs or NaN.
      needed: bool `[in_channels]`, inputs that remain.
      merge: as in `compact`.

    Returns:
      The layer. Its weights of constant inputs are 0, except for those of the one
      constant input that replaces the others before padding.
    """
    constant = ~np.isnan(constants)
    pads = _pads(layer)
    if not constant.any() or (pads and not merge):
        return layer
    kernel = layer.kernel.copy()
    # Contribution of all constant channels to each kernel position and output.
    given = np.einsum("...io,i->...o", kernel[..., constant, :], constants[constant])
    kernel[..., constant, :] = 0
    if pads:
        index = _largest_constant(constants, needed & constant)
        if constants[index] > 0 or constants[index] < 0:
            kernel[..., index, :] = given / constants[index]
        return dataclasses.replace(layer, kernel=kernel)
    shift = given.sum(tuple(range(given.ndim - 1)))
    shift = shift if layer.scale is None else shift * layer.scale
    shift = shift if layer.shift is None else shift + layer.shift
    shift = shift.astype(np.float32)
    if layer.shift is None and not shift.any():
        return dataclasses.replace(layer, kernel=kernel)
    return dataclasses.replace(layer, kernel=kernel, shift=shift)


def _zero_other_channels(
    layer: Conv | Dense, inputs: np.ndarray, outputs: np.ndarray
) -> Conv | Dense:
    """Sets all weights and shifts of a layer to 0, except for some channels."""
    zero, shift = np.float32(0), layer.shift
    kernel = np.where(inputs[:, None] & outputs, layer.kernel, zero)
    if shift is not None:
        shift = np.where(outputs, shift, zero)
    return dataclasses.replace(layer, kernel=kernel, shift=shift)


def _select_channels(
    operation: Operation, inputs: list[np.ndarray], outputs: np.ndarray
) -> Operation:
    """Returns an operation with some of its channels only.

    Args:
      operation: the operation.
      inputs: bool `[channels]` of each input, the channels that remain.
      outputs: bool `[channels]`, those of the result.
    """

    def selected(array: np.ndarray | None) -> np.ndarray | None:
        if array is None or np.ndim(array) == 0:
            return array
        return array[..., outputs] if array.shape[-1] == len(outputs) else array

    match operation:
        case Conv() | Dense():
            kernel = operation.kernel[..., outputs]
            if isinstance(operation, Conv) and is_depthwise(operation):
                groups = int(inputs[0].sum())
                operation = dataclasses.replace(operation, groups=groups)
            elif not (isinstance(operation, Conv) and operation.groups > 1):
                kernel = kernel[..., inputs[0], :]
            return dataclasses.replace(
                operation,
                kernel=kernel,
                scale=selected(operation.scale),
                shift=selected(operation.shift),
            )
        case Binary(constant=constant):
            return dataclasses.replace(operation, constant=selected(constant))
        case Select(constants):
            return Select(tuple(map(selected, constants)))
        case Concatenate():
            return _select_parts(operation, inputs, outputs)
        case Slice(starts, strides):
            start = int(inputs[0][: starts[-1]].sum())
            return Slice((*starts[:-1], start), strides)
    return operation


def _select_parts(
    operation: Concatenate, inputs: list[np.ndarray], outputs: np.ndarray
) -> Concatenate:
    """Returns a concatenation with some of its channels only."""
    rest, start = iter(inputs), 0
    constants: list[np.ndarray | None] = []
    for each in operation.constants:
        if each is None:
            start += len(next(rest))
            constants.append(None)
        elif operation.axis < each.ndim - 1:
            constants.append(each[..., outputs])
        else:
            width = each.shape[-1]
            part = each[..., outputs[start : start + width]]
            start += width
            if part.shape[-1]:
                constants.append(part)
    return Concatenate(operation.axis, tuple(constants))
