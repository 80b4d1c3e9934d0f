"""Checks a header's array names, shapes and lengths against its network and file."""

import dataclasses
import math
from typing import Any, cast

import flax.linen as nn
import flax.traverse_util

from aslp_jax.artefact import architecture, schema
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.description import Description
from aslp_jax.artefact.header import MOST_WEIGHTS, Header


def check(header: Header, net: nn.Module | None, body: int) -> Header:
    """Compares names, shapes and lengths with the network and the file.

    Args:
      header: header of the file.
      net: network of the header's config; None if the header has none.
      body: number of bytes behind the header, without the checksum.

    Returns:
      The header, with the shape of every extra array.

    Raises:
      ArtefactError: a name, shape or length differs, or there are more than
        `MOST_WEIGHTS` weights; the message names the difference.
    """
    if net is not None:
        header = _check_network(header, net)
    weights = sum(math.prod(each.shape or ()) for each in header.all_arrays)
    if weights > MOST_WEIGHTS:
        raise ArtefactError(f"holds {weights} weights, more than {MOST_WEIGHTS}")
    declared = sum(segment.bytes for segment in header.segments)
    if declared != body:
        raise ArtefactError(
            f"declares segments of {declared} bytes and holds {body} bytes of them"
        )
    return header


def _check_network(header: Header, net: nn.Module) -> Header:
    """Compares names and shapes with a network of this library."""
    arrays = header.all_arrays
    config = cast(dict[str, Any], header.network)
    about = cast(Description, header.description)
    # Before the network is traced: a file has to list as many layers as are traced.
    count = architecture.count_arrays(config)
    if len(arrays) != count:
        raise ArtefactError(f"lists {len(arrays)} arrays where its network has {count}")
    try:
        collections = dict(architecture.array_shapes(net, about.image_shape))
    except (ValueError, TypeError, OverflowError) as error:
        raise ArtefactError(f"names a network that cannot be: {error}") from None
    params = collections.pop("params")
    others = flax.traverse_util.flatten_dict(collections, sep="/")
    if len(header.arrays) != len(params):
        raise ArtefactError(
            f"lists {len(header.arrays)} arrays of weights where its network has "
            f"{len(params)}"
        )
    wanted = [*sorted(params.items()), *sorted(others.items())]
    for array, (name, shape) in zip(arrays, wanted, strict=True):
        # Format 1 gives no shape to an extra array.
        found = array.name if array.shape is None else (array.name, array.shape)
        right = name if array.shape is None else (name, shape)
        if found != right or array.dtype != "float32":
            raise ArtefactError(
                f"has the array {schema.shorten(found)} of {array.dtype} where its "
                f"network has {right!r}"
            )
    return dataclasses.replace(
        header,
        collections=tuple(
            dataclasses.replace(extra, shape=others[extra.name])
            for extra in header.collections
        ),
    )
