"""C99 source and header of a network, without heap; all sizes are constants.

The functions that compute are C files in `runtime/`. This module selects the ones that
a network needs, and writes the constants and the calls.
"""

import importlib.resources
import re
from collections.abc import Iterator, Mapping, Sequence

import numpy as np

from aslp_jax._version import __version__
from aslp_jax.artefact import Subnetwork
from aslp_jax.export import graph as graphs
from aslp_jax.export import passes
from aslp_jax.export.c.layers import array, constants, identifier
from aslp_jax.export.c.memory import Memory, plan
from aslp_jax.export.c.weights import STORAGES, PackedWeights, Storage, pack
from aslp_jax.export.graph import Add, Conv, Graph, Mean
from aslp_jax.export.lower import layers_of
from aslp_jax.export.result import MULTIPLIED_AS_ZEROS, ExportResult

__all__ = ["encode"]

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_]*")

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
    compact: bool = True,
) -> ExportResult:
    """Returns the header and the source of a network.

    The files declare and define `NAME_logits` and `NAME_class`. Both functions take an
    image of bytes, row by row and channels last, as cameras give them. All values
    between layers share one static array, so two calls must not run at the same time.
    The code computes in float32, whatever the dtype of the network. It is for machines
    with an `int` of 32 bits that read constants like other memory. It calls no function
    of another library, except `log1pf` and `sqrtf` if normally distributed weights are
    computed from a seed.

    Args:
      subnetwork: the network.
      name: prefix of all public names; an identifier of C.
      storage: way to store the weights. `"sparse"`: a float for each kept weight, and a
        byte for its position. `"signs"`: one bit for each weight and one more for each
        kept weight, for layers of one magnitude, which only add and subtract. `"seed"`:
        one bit for each weight; the weights are computed from the seed again for every
        image. `"dense"`: a float for each weight.
      compact: True removes dead units (`passes.compact`). `"seed"` keeps all units.

    Returns:
      Two files, `".h"` and `".c"`.

    Raises:
      ValueError: the name is not an identifier, the storage is unknown or cannot hold
        the weights, or the network's module is not supported.
    """
    if not _NAME.fullmatch(name):
        raise ValueError(
            f"c: {name!r} cannot begin the names of C functions; letters, digits and _ "
            "can, a letter first"
        )
    if storage not in STORAGES:
        raise ValueError(f"c: storage must be one of {STORAGES}, got {storage!r}")
    shape = subnetwork.description.image_shape
    network = layers_of(subnetwork.net, subnetwork.variables, shape)
    before = graphs.cost(network)
    if compact and storage != "seed":
        network = passes.compact(network, merge=storage != "signs")
    packed, operations = {}, 0
    for node in network.nodes:
        if isinstance(node.layer, Conv):
            layer = node.layer
            weights = subnetwork.layers[f"{layer.name}/kernel"]
            packed[layer.name] = pack(layer, weights, storage)
            summed = graphs.summed_shape(layer, network.shapes[node.inputs[0]])
            operations += summed[0] * summed[1] * packed[layer.name].summands
    memory = plan(network)
    facts = _facts(subnetwork, network, packed, memory, storage, operations)
    files = {
        ".h": _header(name, network, facts),
        ".c": _source(name, subnetwork, network, packed, memory, storage),
    }
    return ExportResult(
        {suffix: text.encode() for suffix, text in files.items()},
        before,
        graphs.cost(network),
        operations=operations,
        dropped=_DROPPED[storage],
    )


def _facts(
    subnetwork: Subnetwork,
    network: Graph,
    packed: Mapping[str, PackedWeights],
    memory: Memory,
    storage: Storage,
    operations: int,
) -> list[str]:
    """Returns the lines of the header's first comment."""
    description = subnetwork.description
    arrays = [values for each in packed.values() for values in each.arrays.values()]
    constant_bytes = sum(values.nbytes for values in arrays)
    for node in network.nodes:
        if isinstance(node.layer, Conv):
            extra = (node.layer.scale, node.layer.shift)
            constant_bytes += sum(each.nbytes for each in extra if each is not None)
    normal = any(each.normal for each in packed.values())
    signed = storage == "signs" or (storage == "seed" and not normal)
    kind = "additions or subtractions" if signed else "multiply-adds"
    # Text from a file could end the comment.
    arch, dataset = (
        re.sub(r"[^\w .,:()%+-]", "_", text, flags=re.ASCII)
        for text in (description.arch, description.dataset)
    )
    facts = [
        f"{arch}, {network.classes} classes"
        + (f", selected on {dataset}" if dataset else ""),
        f"weights ({storage}): {constant_bytes:,} bytes of constants",
        f"memory between layers: {4 * memory.size:,} bytes",
        f"an image takes {operations:,} {kind}",
    ]
    if "thresholding" in description.accuracies:
        accuracy = description.accuracies["thresholding"]
        facts.insert(1, f"accuracy on the test images: {accuracy:.2%}")
    if normal:
        facts.append("link with -lm")
    return facts


def _header(name: str, network: Graph, facts: Sequence[str]) -> str:
    """Returns the header."""
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
    packed: Mapping[str, PackedWeights],
    memory: Memory,
    storage: Storage,
) -> str:
    """Returns the source."""
    description = subnetwork.description
    normal = any(each.normal for each in packed.values())
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
    standardised = description.mean is not None and description.std is not None
    parts = [f'#include "{name}.h"\n' + ("\n#include <math.h>\n" if normal else "")]
    if storage == "seed":
        parts.append(f"#define NORMAL_WEIGHTS {int(normal)}\n")
    parts += [_runtime(file) for file, needed in files.items() if needed]
    parts.append(
        f"enum {{ PIXELS = {height * width}, CHANNELS = {channels} }};\n"
        f"#define STANDARDISED {int(standardised)}\n"
    )
    if standardised:
        parts.append(array("pixel_mean", np.asarray(description.mean, np.float32)))
        parts.append(array("pixel_std", np.asarray(description.std, np.float32)))
    parts.append(_runtime("prepare"))
    for node in network.nodes:
        if isinstance(node.layer, Conv):
            shape = network.shapes[node.inputs[0]]
            parts += constants(node.layer, shape, packed[node.layer.name])
    parts += _functions(name, network, memory)
    return "\n".join(parts)


def _runtime(file: str) -> str:
    """Returns one file of the runtime."""
    folder = importlib.resources.files("aslp_jax.export.c") / "runtime"
    return (folder / f"{file}.c").read_text()


def _functions(name: str, network: Graph, memory: Memory) -> Iterator[str]:
    """Yields the array between layers and the two public functions."""
    last = len(network.nodes)

    def pointer(value: int) -> str:
        return "logits" if value == last else f"memory + {memory.values[value]}"

    calls = ["prepare(image, memory);"]
    for step, node in enumerate(network.nodes):
        inputs, out = [pointer(index) for index in node.inputs], pointer(step + 1)
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
