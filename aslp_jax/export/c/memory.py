"""Memory plan of a network: all values share one array of floats."""

from typing import NamedTuple

import numpy as np

from aslp_jax.export.graph import Add, Conv, Graph, summed_shape

__all__ = ["Memory", "plan"]


class Memory(NamedTuple):
    """Offsets in an array of floats.

    Attributes:
      values: offset of each value's first float; 0 for the last value, the logits,
        which have memory of their own.
      scratch: offset for one unit's sums, for each node that pools 2x2 windows; 0 for
        the other nodes.
      size: number of floats in the array.
    """

    values: tuple[int, ...]
    scratch: tuple[int, ...]
    size: int


def plan(graph: Graph) -> Memory:
    """Plans an offset for every value; no value is overwritten before its last use.

    Each value gets the first gap that is large enough. The sum of two values gets the
    offset of an input that no later node needs.

    Args:
      graph: the network.

    Returns:
      The offsets.
    """
    sizes = [int(np.prod(shape)) for shape in graph.shapes]
    last_use = dict.fromkeys(range(len(sizes)), 0)
    for step, node in enumerate(graph.nodes):
        last_use.update(dict.fromkeys(node.inputs, step))
    values, scratch = [0], []
    # Begin and end of each value that a later node needs.
    live = {0: (0, sizes[0])}
    size = sizes[0]
    for step, node in enumerate(graph.nodes):
        value, layer = step + 1, node.layer
        dying = [index for index in node.inputs if last_use[index] == step]
        occupied = dict(live)
        if value == len(graph.nodes):
            values.append(0)
        elif isinstance(layer, Add) and dying:
            values.append(values[dying[0]])
        else:
            values.append(_first_gap(list(occupied.values()), sizes[value]))
        if value < len(graph.nodes):
            occupied[value] = (values[value], values[value] + sizes[value])
        if isinstance(layer, Conv) and layer.pool:
            height, width, _ = summed_shape(layer, graph.shapes[node.inputs[0]])
            offset = _first_gap(list(occupied.values()), height * width)
            scratch.append(offset)
            occupied[-1] = (offset, offset + height * width)
        else:
            scratch.append(0)
        size = max(size, *(end for _, end in occupied.values()))
        occupied.pop(-1, None)
        live = {index: each for index, each in occupied.items() if index not in dying}
    return Memory(tuple(values), tuple(scratch), size)


def _first_gap(occupied: list[tuple[int, int]], size: int) -> int:
    """Returns the lowest offset of a free range of `size` floats."""
    offset = 0
    for begin, end in sorted(occupied):
        if begin - offset >= size:
            return offset
        offset = max(offset, end)
    return offset
