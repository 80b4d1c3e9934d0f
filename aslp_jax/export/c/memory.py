"""Where the values of a network lie in one array, each place used again and again."""

from typing import NamedTuple

import numpy as np

from aslp_jax.export.graph import Add, Conv, Graph, summed_shape


class Memory(NamedTuple):
    """Places in an array of floats.

    Attributes:
      values: of each value its first float; of the last, the logits, which lie
        elsewhere, 0.
      scratch: of each node that takes 2x2 windows, the first float of the sums of one
        unit; 0 for the others.
      size: floats in all.
    """

    values: tuple[int, ...]
    scratch: tuple[int, ...]
    size: int


def plan(graph: Graph) -> Memory:
    """Finds a place for every value, such that none is overwritten before its last use.

    Each gets the first gap that it fits into at its time; the sum of two values takes
    the place of one that is not needed any more.

    Args:
      graph: the network.
    """
    sizes = [int(np.prod(shape)) for shape in graph.shapes]
    last_use = dict.fromkeys(range(len(sizes)), 0)
    for step, node in enumerate(graph.nodes):
        last_use.update(dict.fromkeys(node.inputs, step))
    values, scratch = [0], []
    # Of the values that are still needed, where they begin and end.
    taken = {0: (0, sizes[0])}
    size = sizes[0]
    for step, node in enumerate(graph.nodes):
        value, layer = step + 1, node.layer
        dying = [index for index in node.inputs if last_use[index] == step]
        held = dict(taken)
        if value == len(graph.nodes):
            values.append(0)
        elif isinstance(layer, Add) and dying:
            values.append(values[dying[0]])
        else:
            values.append(_first_gap(list(held.values()), sizes[value]))
        if value < len(graph.nodes):
            held[value] = (values[value], values[value] + sizes[value])
        if isinstance(layer, Conv) and layer.pool:
            height, width, _ = summed_shape(layer, graph.shapes[node.inputs[0]])
            place = _first_gap(list(held.values()), height * width)
            scratch.append(place)
            held[-1] = (place, place + height * width)
        else:
            scratch.append(0)
        size = max(size, *(end for _, end in held.values()))
        held.pop(-1, None)
        taken = {index: each for index, each in held.items() if index not in dying}
    return Memory(tuple(values), tuple(scratch), size)


def _first_gap(taken: list[tuple[int, int]], size: int) -> int:
    place = 0
    for begin, end in sorted(taken):
        if begin - place >= size:
            return place
        place = max(place, end)
    return place
