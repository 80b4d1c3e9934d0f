"""A smaller dense network with the same outputs: what has no say is taken out.

A unit (channel) without a path to an output is removed. One that no input reaches has
the same value at every pixel of every image; what it adds to the layer behind goes into
the shifts there. Only a convolution with padding makes no constant of it, since the
zeros come in at the border: before such a one, a single constant unit stays and stands
for all.

Programs that multiply matrices are at their fastest where the number of channels is a
round one, so that units which compute nothing can be left to make it one.
"""

import dataclasses

import numpy as np

from aslp_jax.export.graph import Add, Conv, Graph, Mean, Node

ROUND = 16
"""Floats that the widest vector registers of today's processors hold."""

_ENOUGH = 1e-3
"""Of the largest constant, what another must be at least to stand for all."""


def compact(graph: Graph, *, merge: bool = True, multiple: int = 1) -> Graph:
    """Removes the units that no input reaches or that reach no output.

    Outputs are the same up to rounding. All outputs of the network stay, every layer
    keeps at least one unit, and the layers are those of before.

    Args:
      graph: the network.
      merge: whether one constant unit stands for all before a convolution with
        padding. False keeps all of them there: what is left of each kernel are rows and
        columns as they were, or zeros.
      multiple: of this the number of channels stays one, where there were as many:
        with units whose weights are all 0.

    Returns:
      The network with fewer units.
    """
    constants = _constants(graph)
    needed = _kept(graph, constants, merge=merge)
    kept = [_rounded(each, multiple) for each in needed]
    nodes = []
    for value, node in enumerate(graph.nodes, start=1):
        layer = node.layer
        if isinstance(layer, Conv):
            source = node.inputs[0]
            layer = _fold(layer, constants[source], needed[source], merge=merge)
            layer = _empty(layer, needed[source], needed[value])
            layer = _choose(layer, kept[source], kept[value])
        shape = (*node.shape[:2], int(kept[value].sum()))
        nodes.append(Node(layer, node.inputs, shape))
    return Graph(graph.input_shape, tuple(nodes))


def _constants(graph: Graph) -> list[np.ndarray]:
    """Of every channel of every value what it always is, NaN where that depends."""
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
    known = inputs == 0 if layer.padding else ~np.isnan(inputs)
    free = (layer.kernel[:, :, ~known] != 0).any((0, 1, 2))
    sums = inputs[known] @ layer.kernel[:, :, known].sum((0, 1), dtype=np.float64)
    return np.where(free, np.nan, _scaled(layer, sums))


def _scaled(layer: Conv, sums: np.ndarray) -> np.ndarray:
    sums = sums if layer.scale is None else sums * layer.scale
    return sums if layer.shift is None else sums + layer.shift


def _kept(
    graph: Graph, constants: list[np.ndarray], *, merge: bool
) -> list[np.ndarray]:
    """Which channels of every value stay."""
    kept = [np.zeros(len(each), bool) for each in constants]
    kept[0][:] = kept[-1][:] = True
    while True:
        before = sum(int(each.sum()) for each in kept)
        for value in reversed(range(1, len(kept))):
            node = graph.nodes[value - 1]
            sources = [kept[index] for index in node.inputs]
            if isinstance(node.layer, Conv):
                given = constants[node.inputs[0]]
                sources[0] |= _needed(node.layer, kept[value], given, sources[0], merge)
            else:  # hands each channel on under its own number
                together = np.logical_or.reduce([kept[value], *sources])
                for each in (kept[value], *sources):
                    each |= together
        if before == sum(int(each.sum()) for each in kept):
            empty = [value for value, each in enumerate(kept) if not each.any()]
            if not empty:
                return kept
            # A constant one, which needs nothing in its turn, if there is one.
            kept[empty[-1]][np.argmax(~np.isnan(constants[empty[-1]]))] = True


def _needed(
    layer: Conv,
    wanted: np.ndarray,
    constants: np.ndarray,
    kept: np.ndarray,
    merge: bool,
) -> np.ndarray:
    """Which channels of its input a convolution needs, for the outputs wanted."""
    used = (layer.kernel[..., wanted] != 0).any((0, 1, 3))
    varying = np.isnan(constants)
    if layer.padding == 0:
        return used & varying
    standing = ~varying & (constants != 0)
    if merge and (used & standing).any():
        largest = _largest(constants, used)
        other = _largest(constants, kept)
        # One that stays anyway, but no remainder of sums that cancel out.
        if abs(constants[other]) >= _ENOUGH * abs(constants[largest]):
            largest = other
        return (used & varying) | (np.arange(len(kept)) == largest)
    return used & (varying | standing)


def _largest(constants: np.ndarray, among: np.ndarray) -> int:
    """The channel whose constant is the furthest from 0."""
    return int(np.argmax(np.where(among, np.nan_to_num(np.abs(constants)), -1)))


def _rounded(needed: np.ndarray, multiple: int) -> np.ndarray:
    """Also keeps the first of the others, up to a multiple or until there are none."""
    missing = -int(needed.sum()) % multiple
    return needed | (~needed & (np.cumsum(~needed) <= missing))


def _empty(layer: Conv, inputs: np.ndarray, outputs: np.ndarray) -> Conv:
    """Makes 0 of all but some channels of a convolution."""
    zero, shift = np.float32(0), layer.shift
    kernel = np.where(inputs[:, None] & outputs, layer.kernel, zero)
    if shift is not None:
        shift = np.where(outputs, shift, zero)
    return dataclasses.replace(layer, kernel=kernel, shift=shift)


def _fold(layer: Conv, constants: np.ndarray, kept: np.ndarray, *, merge: bool) -> Conv:
    """Takes constant inputs out of a convolution, or has one stand for all."""
    fixed = ~np.isnan(constants)
    if not fixed.any() or (layer.padding and not merge):
        return layer
    kernel = layer.kernel.copy()
    # Of each tap and output, what the constant channels give together.
    given = np.einsum("hwio,i->hwo", kernel[:, :, fixed], constants[fixed])
    kernel[:, :, fixed] = 0
    if layer.padding:
        stand_in = _largest(constants, kept & fixed)
        if constants[stand_in] > 0 or constants[stand_in] < 0:
            kernel[:, :, stand_in] = given / constants[stand_in]
        return dataclasses.replace(layer, kernel=kernel)
    shift = _scaled(layer, given.sum((0, 1))).astype(np.float32)
    if layer.shift is None and not shift.any():
        return dataclasses.replace(layer, kernel=kernel)
    return dataclasses.replace(layer, kernel=kernel, shift=shift)


def _choose(layer: Conv, inputs: np.ndarray, outputs: np.ndarray) -> Conv:
    """Leaves only some channels of a convolution."""
    return dataclasses.replace(
        layer,
        kernel=layer.kernel[:, :, inputs][..., outputs],
        scale=None if layer.scale is None else layer.scale[outputs],
        shift=None if layer.shift is None else layer.shift[outputs],
    )
