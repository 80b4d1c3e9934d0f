"""Encoder of a subnetwork: what the C code needs to know, from an artefact."""

import re

import numpy as np

from aslp_jax.artefact import Subnetwork
from aslp_jax.export import graph as graphs
from aslp_jax.export import operations, passes
from aslp_jax.export.c.code import Inputs, Pixels, encode_graph
from aslp_jax.export.c.weights import Storage
from aslp_jax.export.lower import layers_of
from aslp_jax.export.result import MULTIPLIED_AS_ZEROS, ExportResult

__all__ = ["encode"]

_DROPPED: dict[Storage, str] = {
    "dense": MULTIPLIED_AS_ZEROS,
    "sparse": "weights take neither memory nor time",
    "signs": "weights take one bit; dense layers add them as zeros, except empty bytes",
    "seed": "weights take one bit; computing the kept ones takes longer than adding",
}


def encode(
    subnetwork: Subnetwork,
    name: str,
    *,
    storage: Storage = "sparse",
    inputs: Inputs = "uint8",
    compact: bool = True,
) -> ExportResult:
    """Returns the header and the source of a network.

    The files declare and define `NAME_logits` and `NAME_class`. Both functions take an
    image of bytes, row by row and channels last, as cameras give them. All values
    between layers share one static array, so two calls must not run at the same time.
    The code computes in float32, whatever the dtype of the network. It is for machines
    with an `int` of 32 bits that read constants like other memory. It calls functions
    of the mathematical library only if the network has such functions, or if normally
    distributed weights are computed from a seed; the header says so.

    Args:
      subnetwork: the network.
      name: prefix of all public names; an identifier of C.
      storage: way to store the weights. `"sparse"`: a float for each kept weight, and a
        byte for its position. `"signs"`: one bit for each weight and one more for each
        kept weight, for layers of one magnitude, which only add and subtract. `"seed"`:
        one bit for each weight; the weights are computed from the seed again for every
        image. `"dense"`: a float for each weight.
      inputs: dtype of the pixels, which are from 0 to 255.
      compact: True removes dead units (`passes.compact`). `"seed"` keeps all units.

    Returns:
      Two files, `".h"` and `".c"`.

    Raises:
      ValueError: the name is not an identifier, the storage or the inputs are unknown,
        the storage cannot hold the weights, or the C code cannot compute the network.
    """
    if inputs not in ("uint8", "float32"):
        raise ValueError(
            f"c: inputs must be one of ('uint8', 'float32'), got {inputs!r}"
        )
    description = subnetwork.description
    network = layers_of(subnetwork.net, subnetwork.variables, description.image_shape)
    before = graphs.cost(network)
    if compact and storage != "seed":
        network = passes.compact(network, merge=storage != "signs")
    code = encode_graph(
        _raise(network),
        name,
        storage=storage,
        pixels=Pixels(inputs, description.mean, description.std),
        layers=subnetwork.layers,
        about=_about(subnetwork),
    )
    return ExportResult(
        code.files,
        before,
        graphs.cost(network),
        operations=code.operations,
        dropped=_DROPPED[storage],
    )


def _about(subnetwork: Subnetwork) -> list[str]:
    """Returns what the header says about the origin of a network."""
    description = subnetwork.description
    # Text from a file could end the comment.
    arch, dataset = (
        re.sub(r"[^\w .,:()%+-]", "_", text, flags=re.ASCII)
        for text in (description.arch, description.dataset)
    )
    selected = f", selected on {dataset}" if dataset else ""
    about = [f"{arch}, {description.classes} classes{selected}"]
    if "thresholding" in description.accuracies:
        accuracy = description.accuracies["thresholding"]
        about.append(f"accuracy on the test images: {accuracy:.2%}")
    return about


def _raise(graph: graphs.Graph) -> operations.Graph:
    """Returns the operations of the layers of a network."""
    zero, pair = np.zeros((), np.float32), (2, 2, 1)
    nodes: list[operations.Node] = []
    places = {0: 0}

    def add(operation: operations.Operation, inputs: list[int], shape: tuple) -> None:
        nodes.append(operations.Node(operation, tuple(inputs), tuple(shape)))

    for value, node in enumerate(graph.nodes, start=1):
        inputs = [places[index] for index in node.inputs]
        layer = node.layer
        source = graph.shapes[node.inputs[0]]
        shape = node.shape
        match layer:
            case graphs.Conv():
                path = f"{layer.name}/kernel"
                if layer.dense:
                    kernel = layer.kernel.reshape(-1, shape[2])
                    add(operations.Reshape(), inputs, (kernel.shape[0],))
                    dense = operations.Dense(path, kernel, layer.scale, layer.shift)
                    add(dense, [len(nodes)], shape[2:])
                    if layer.relu:
                        relu = operations.Binary("max", zero)
                        add(relu, [len(nodes)], shape[2:])
                    if value < len(graph.nodes):
                        add(operations.Reshape(), [len(nodes)], shape)
                else:
                    conv = operations.Conv(
                        path,
                        layer.kernel,
                        (layer.stride,) * 2,
                        ((layer.padding,) * 2,) * 2,
                        (1, 1),
                        scale=layer.scale,
                        shift=layer.shift,
                    )
                    summed = graphs.summed_shape(layer, source)
                    add(conv, inputs, summed)
                    if layer.relu:
                        add(operations.Binary("max", zero), [len(nodes)], summed)
                    if layer.pool:
                        pool = operations.Window("max", pair, pair, ((0, 0),) * 3)
                        add(pool, [len(nodes)], shape)
            case graphs.Add():
                add(operations.Binary("add"), inputs, shape)
                if layer.relu:
                    add(operations.Binary("max", zero), [len(nodes)], shape)
            case graphs.Mean():
                add(operations.Reduce("mean", (0, 1)), inputs, shape[2:])
                add(operations.Reshape(), [len(nodes)], shape)
        places[value] = len(nodes)
    if len(nodes[-1].shape) > 1:
        add(operations.Reshape(), [len(nodes)], nodes[-1].shape[2:])
    return operations.Graph(graph.input_shape, tuple(nodes))
