"""A C99 source and its header: no heap, all sizes known to the compiler.

The functions that compute are files of C in `runtime/`; here it is chosen which of them
a network needs, and where each value lies in memory.
"""

import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from aslp_jax._version import __version__
from aslp_jax.artefact import Subnetwork
from aslp_jax.export import graph as graphs
from aslp_jax.export.c.layers import array, constants, identifier
from aslp_jax.export.c.memory import Memory, plan
from aslp_jax.export.c.weights import STORAGES, Storage, Table, pack
from aslp_jax.export.describe import describe
from aslp_jax.export.graph import Add, Conv, Graph, Mean
from aslp_jax.export.passes import compact as compacted
from aslp_jax.export.result import ExportResult

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

_SPARSITY = {
    "dense": graphs.DENSE,
    "sparse": "a weight takes neither memory nor time",
    "signs": "a weight takes a bit; in dense layers 0 is added, but for whole bytes",
    "seed": "a weight takes a bit; to draw the others again takes longer than adding",
}


def encode(
    subnetwork: Subnetwork,
    name: str,
    *,
    storage: Storage = "sparse",
    compact: bool = True,
) -> ExportResult:
    """Returns the header and the source of a network.

    They declare and define `NAME_logits` and `NAME_class`, which take an image of bytes
    as cameras give them, row by row and channels last. Values between layers lie in one
    array of the source, so that two calls must not run at once. It computes in float32,
    whatever the dtype of the network, and is for machines whose `int` has 32 bits and
    whose constants are read like other memory. It calls no function of another library,
    except `log1pf` and `sqrtf` where normal weights are drawn from a seed.

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
      Two files, `".h"` and `".c"`.

    Raises:
      ValueError: the name is no identifier, the storage is unknown or cannot hold the
        weights, or the network's module is not supported.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"c: {name!r} cannot begin the names of C functions; letters, digits and _ "
            "can, a letter first"
        )
    if storage not in STORAGES:
        raise ValueError(f"c: storage must be one of {STORAGES}, got {storage!r}")
    shape = subnetwork.description.image_shape
    network = describe(subnetwork.net, subnetwork.variables, shape)
    before = graphs.cost(network)
    if compact and storage != "seed":
        network = compacted(network, merge=storage != "signs")
    tables, operations = {}, 0
    for node in network.nodes:
        if isinstance(node.layer, Conv):
            layer = node.layer
            entry = subnetwork.entries[f"{layer.name}/kernel"]
            table = tables[layer.name] = pack(layer, entry, storage)
            summed = graphs.summed_shape(layer, network.shapes[node.inputs[0]])
            operations += summed[0] * summed[1] * table.summands
    memory = plan(network)
    facts = _facts(subnetwork, network, tables, memory, storage, operations)
    files = {
        ".h": _header(name, network, facts),
        ".c": _source(name, subnetwork, network, tables, memory, storage),
    }
    return ExportResult(
        {suffix: text.encode() for suffix, text in files.items()},
        before,
        graphs.cost(network),
        operations,
        _SPARSITY[storage],
    )


def _facts(
    subnetwork: Subnetwork,
    network: Graph,
    tables: Mapping[str, Table],
    memory: Memory,
    storage: Storage,
    operations: int,
) -> list[str]:
    """What is worth knowing before it is compiled, a line each."""
    about = subnetwork.description
    arrays = [each for table in tables.values() for each in table.arrays.values()]
    held = sum(each.nbytes for each in arrays)
    for node in network.nodes:
        if isinstance(node.layer, Conv):
            extra = (node.layer.scale, node.layer.shift)
            held += sum(each.nbytes for each in extra if each is not None)
    normal = any(table.normal for table in tables.values())
    signed = storage == "signs" or (storage == "seed" and not normal)
    kind = "additions or subtractions" if signed else "multiply-adds"
    # What a file says of itself might end the comment.
    arch, dataset = (
        re.sub(r"[^\w .,:()%+-]", "_", text, flags=re.ASCII)
        for text in (about.arch, about.dataset)
    )
    facts = [
        f"{arch}, {network.classes} classes"
        + (f", selected on {dataset}" if dataset else ""),
        f"weights ({storage}): {held:,} bytes of constants",
        f"memory between layers: {4 * memory.size:,} bytes",
        f"an image takes {operations:,} {kind}",
    ]
    if "thresholding" in about.accuracies:
        accuracy = about.accuracies["thresholding"]
        facts.insert(1, f"accuracy on the test images: {accuracy:.2%}")
    if normal:
        facts.append("link with -lm")
    return facts


def _header(name: str, network: Graph, facts: Sequence[str]) -> str:
    height, width, channels = network.input_shape
    upper = name.upper()
    comment = "\n   ".join([f"Written by aslp-jax {__version__}.", *facts])
    return f"""/* {comment} */
#ifndef {upper}_H
#define {upper}_H

#include <stdint.h>

#define {upper}_HEIGHT {height}
#define {upper}_WIDTH {width}
#define {upper}_CHANNELS {channels}
#define {upper}_CLASSES {network.classes}
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
        "sum": storage != "sparse",
        "run": True,
        "add": Add in kinds,
        "mean": Mean in kinds,
    }
    height, width, channels = network.input_shape
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
        parts.append(array("pixel_mean", np.asarray(about.mean, np.float32)))
        parts.append(array("pixel_std", np.asarray(about.std, np.float32)))
    parts.append(_runtime("prepare"))
    for node in network.nodes:
        if isinstance(node.layer, Conv):
            shape, table = network.shapes[node.inputs[0]], tables[node.layer.name]
            parts += constants(node.layer, shape, table)
    parts += _functions(name, network, memory)
    return "\n".join(parts)


def _runtime(file: str) -> str:
    folder = importlib.resources.files("aslp_jax.export.c") / "runtime"
    return (folder / f"{file}.c").read_text()


def _functions(name: str, network: Graph, memory: Memory) -> Iterator[str]:
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
                    f"run(&{identifier(layer.name)}, {inputs[0]}, {sums}, {out});"
                )
            case Add(relu=relu):
                size = height * width * channels
                calls.append(f"add({', '.join(inputs)}, {size}, {int(relu)}, {out});")
            case Mean():
                calls.append(f"mean({inputs[0]}, {channels}, {height * width}, {out});")
    upper, body = name.upper(), "\n    ".join(calls)
    yield f"/* What lies between layers. */\nstatic float memory[{memory.size}];\n"
    yield f"""void {name}_logits(const uint8_t image[{upper}_IMAGE_BYTES],
{" " * len(f"void {name}_logits(")}float logits[{upper}_CLASSES])
{{
    {body}
}}
"""
    yield f"""int {name}_class(const uint8_t image[{upper}_IMAGE_BYTES])
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
