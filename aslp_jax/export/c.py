"""A C99 source and its header: no heap, no library, all sizes known to the compiler.

The functions that compute are files of C in `runtime/`; here it is chosen which of them
a network needs, where each value lies in memory, and how its weights are written down.
"""

import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from aslp_jax._version import __version__
from aslp_jax.artefact import Subnetwork
from aslp_jax.export import graph as graphs
from aslp_jax.export.c_memory import Memory, plan
from aslp_jax.export.c_weights import STORAGES, Storage, Table, pack
from aslp_jax.export.compaction import compact as compacted
from aslp_jax.export.describe import describe
from aslp_jax.export.graph import Add, Conv, Graph, Mean, Node

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")


def sources(
    subnetwork: Subnetwork,
    name: str,
    *,
    storage: Storage = "sparse",
    compact: bool = True,
) -> dict[str, str]:
    """Returns the header and the source of a network.

    They declare and define `NAME_logits` and `NAME_class`, which take an image of bytes
    as cameras give them, row by row and channels last. Values between layers lie in one
    array of the source, so that two calls must not run at once.

    Args:
      subnetwork: the network.
      name: begins all public names; an identifier of C.
      storage: of the weights. `"sparse"`: those that are kept as floats, with a byte
        each that says where. `"signs"`: a bit for each weight and another for each that
        is kept, for layers of one magnitude, which only add and subtract. `"seed"`: a
        bit for each weight; the weights are drawn again, whenever they are used, from
        the seed. `"dense"`: all as floats.
      compact: whether units on no path are left out (`compaction.compact`); what is
        drawn from a seed keeps them all.

    Returns:
      `".h"` and `".c"` to their texts.

    Raises:
      ValueError: the name is no identifier, the storage is unknown or cannot hold the
        weights, or the network's module or a layer is not supported.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"c: {name!r} cannot begin the names of C functions; letters, digits and _ "
            "can, a letter first"
        )
    if storage not in STORAGES:
        raise ValueError(f"c: storage must be one of {STORAGES}, got {storage!r}")
    about = subnetwork.description
    network = describe(subnetwork.net, subnetwork.variables, about.image_shape)
    if compact and storage != "seed":
        network = compacted(network, merge=storage != "signs")
    tables = {}
    for node in network.nodes:
        match node.layer:
            case Conv() as layer:
                entry = subnetwork.entries[f"{layer.name}/kernel"]
                tables[layer.name] = pack(layer, entry, storage)
            case Add() | Mean():
                pass
            case _:
                raise ValueError(
                    f"c: {type(node.layer).__name__} is not supported; supported are "
                    "Conv, Add, Mean"
                )
    memory = plan(network)
    facts = _facts(subnetwork, network, tables, memory, storage)
    return {
        ".h": _header(name, subnetwork, facts),
        ".c": _source(name, subnetwork, network, tables, memory, storage),
    }


def _facts(
    subnetwork: Subnetwork,
    network: Graph,
    tables: Mapping[str, Table],
    memory: Memory,
    storage: Storage,
) -> list[str]:
    """What is worth knowing before it is compiled, a line each."""
    about, cost = subnetwork.description, graphs.cost(network)
    arrays = [each for table in tables.values() for each in table.arrays.values()]
    held = sum(each.nbytes for each in arrays)
    for node in network.nodes:
        if isinstance(node.layer, Conv):
            extra = (node.layer.scale, node.layer.shift)
            held += sum(each.nbytes for each in extra if each is not None)
    adds = cost.multiply_adds if storage == "dense" else cost.nonzero_multiply_adds
    kind = "additions or subtractions" if storage == "signs" else "multiply-adds"
    facts = [
        f"{about.arch}, {about.classes} classes"
        + (f", selected on {about.dataset}" if about.dataset else ""),
        *(
            f"accuracy on the test images, {kind}: {accuracy:.2%}"
            for kind, accuracy in about.accuracies.items()
        ),
        f"weights ({storage}): {held:,} bytes of constants",
        f"memory between layers: {4 * memory.size:,} bytes",
        f"an image takes {adds:,} {kind}",
    ]
    return facts


def _header(name: str, subnetwork: Subnetwork, facts: Sequence[str]) -> str:
    height, width, channels = subnetwork.description.image_shape
    upper = name.upper()
    comment = "\n   ".join([f"Written by aslp-jax {__version__}.", *facts])
    return f"""/* {comment} */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_HEIGHT {height}
#define {upper}_WIDTH {width}
#define {upper}_CHANNELS {channels}
#define {upper}_CLASSES {subnetwork.description.classes}
#define {upper}_IMAGE_BYTES ({upper}_HEIGHT * {upper}_WIDTH * {upper}_CHANNELS)

#ifdef __cplusplus
extern "C" {{
#endif

/* Computes a logit for each class; the largest is that of the likeliest one. The image
   is row by row, channels last, bytes from 0 to 255. Not reentrant. */
void {name}_logits(const uint8_t image[{upper}_IMAGE_BYTES],
{" " * len(f"void {name}_logits(")}float logits[{upper}_CLASSES]);

/* Returns the likeliest class, from 0 up. Not reentrant. */
int {name}_class(const uint8_t image[{upper}_IMAGE_BYTES]);

#ifdef __cplusplus
}}
#endif

#endif
"""


def _source(
    name: str,
    subnetwork: Subnetwork,
    network: Graph,
    tables: Mapping[str, Table],
    memory: Memory,
    storage: Storage,
) -> str:
    about = subnetwork.description
    normal = any(table.normal for table in tables.values())
    kinds = {type(node.layer) for node in network.nodes}
    files = {
        "bits": storage in ("signs", "seed"),
        f"weights_{storage}": True,
        "layer": True,
        "add_weighted": storage in ("dense", "sparse") or normal,
        "add_signed": storage in ("signs", "seed"),
        "normal": normal,
        f"sum_{storage}": True,
        "run": True,
        "add": Add in kinds,
        "mean": Mean in kinds,
    }
    height, width, channels = about.image_shape
    standardised = about.mean is not None and about.std is not None
    parts = [f'#include "{name}.h"\n' + ("\n#include <math.h>\n" if normal else "")]
    if storage == "seed":
        parts.append(f"#define NORMAL_WEIGHTS {int(normal)}\n")
    parts += [_runtime(file) for file, needed in files.items() if needed]
    parts.append(
        f"enum {{ PIXELS = {height * width}, CHANNELS = {channels} }};\n"
        f"#define STANDARDISED {int(standardised)}\n"
    )
    if standardised:
        parts.append(_array("pixel_mean", np.asarray(about.mean, np.float32)))
        parts.append(_array("pixel_std", np.asarray(about.std, np.float32)))
    parts.append(_runtime("prepare"))
    for node in network.nodes:
        if isinstance(node.layer, Conv):
            parts += _layer(network, node, node.layer, tables[node.layer.name])
    parts.append(_functions(name, network, memory))
    return "\n".join(parts)


def _runtime(file: str) -> str:
    folder = importlib.resources.files("aslp_jax.export") / "runtime"
    return (folder / f"{file}.c").read_text()


def _layer(network: Graph, node: Node, layer: Conv, table: Table) -> Iterator[str]:
    """The constants of a layer, and what binds them together."""
    identifier = _identifier(layer.name)
    shape = network.shapes[node.inputs[0]]
    fields = dict(zip(("in_height", "in_width", "in_channels"), shape, strict=True))
    summed = graphs.summed_shape(layer, shape)
    fields |= dict(zip(("height", "width", "units"), summed, strict=True))
    fields |= {
        "kernel_height": layer.kernel.shape[0],
        "kernel_width": layer.kernel.shape[1],
        "stride": layer.stride,
        "padding": layer.padding,
        "dense": int(graphs.is_dense(layer, shape)),
        "relu": int(layer.relu),
        "pool": int(layer.pool),
    }
    lines = [f"    .{field} = {value}," for field, value in fields.items()]
    lines.append(f"    .scale = {_float(table.scale)},")
    scales = None if layer.scale is None else layer.scale * table.scale
    for field, array in (("scales", scales), ("shifts", layer.shift)):
        if array is not None:
            yield _array(f"{identifier}_{field}", array)
            lines.append(f"    .{field} = {identifier}_{field},")
    weights = dict(table.fields)
    for field, array in table.arrays.items():
        yield _array(f"{identifier}_{field}", array)
        weights[field] = f"{identifier}_{field}"
    stored = ", ".join(f".{field} = {value}" for field, value in weights.items())
    lines.append(f"    .weights = {{{stored}}},")
    yield "\n".join([f"static const struct layer {identifier} = {{", *lines, "};", ""])


def _functions(name: str, network: Graph, memory: Memory) -> str:
    last = len(network.nodes)

    def place(value: int) -> str:
        return "logits" if value == last else f"memory + {memory.values[value]}"

    calls = ["prepare(image, memory);"]
    for step, node in enumerate(network.nodes):
        inputs, out = [place(index) for index in node.inputs], place(step + 1)
        height, width, channels = network.shapes[node.inputs[0]]
        match node.layer:
            case Conv() as layer:
                sums = f"memory + {memory.scratch[step]}" if layer.pool else out
                calls.append(
                    f"run(&{_identifier(layer.name)}, {inputs[0]}, {sums}, {out});"
                )
            case Add(relu=relu):
                size = height * width * channels
                calls.append(f"add({', '.join(inputs)}, {size}, {int(relu)}, {out});")
            case Mean():
                calls.append(f"mean({inputs[0]}, {channels}, {height * width}, {out});")
    upper, body = name.upper(), "\n    ".join(calls)
    return f"""/* What lies between layers. */
static float memory[{memory.size}];

void {name}_logits(const uint8_t image[{upper}_IMAGE_BYTES],
{" " * len(f"void {name}_logits(")}float logits[{upper}_CLASSES])
{{
    {body}
}}

int {name}_class(const uint8_t image[{upper}_IMAGE_BYTES])
{{
    float logits[{upper}_CLASSES];
    int best = 0;
    {name}_logits(image, logits);
    for (int index = 1; index < {upper}_CLASSES; index++) {{
        if (logits[index] > logits[best]) {{
            best = index;
        }}
    }}
    return best;
}}
"""


def _identifier(layer: str) -> str:
    return layer.replace("/", "_").lower()


def _float(value: float | np.float32) -> str:
    # Nine digits are enough to read the same bits again.
    return f"{value:.8e}f"


def _array(name: str, array: np.ndarray) -> str:
    """A constant array; an empty one holds a 0, since C has none without entries."""
    kind, row, texts = "uint8_t", 18, [str(each) for each in array.tolist()]
    if array.dtype == np.float32:
        kind, row, texts = "float", 5, [_float(each) for each in array.tolist()]
    texts = texts or ["0"]
    lines = [
        "    " + ", ".join(texts[begin : begin + row]) + ","
        for begin in range(0, len(texts), row)
    ]
    opening = f"static const {kind} {name}[{len(texts)}] = {{"
    return "\n".join([opening, *lines, "};", ""])
