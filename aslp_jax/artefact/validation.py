"""Checks a header's array names, shapes and lengths against its network and file."""

import math

import flax.linen as nn
import flax.traverse_util

from aslp_jax.artefact import architecture, schema
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.header import MOST_WEIGHTS, Header


def check(header: Header, net: nn.Module, body: int) -> dict[str, tuple[int, ...]]:
    """Compares names, shapes and lengths with the network and the file.

    Args:
      header: header of the file.
      net: network of the header's config.
      body: number of bytes behind the header, without the checksum.

    Returns:
      Shapes of the extra arrays, by collection and name joined by `/`.

    Raises:
      ArtefactError: a name, shape or length differs, or there are more than
        `MOST_WEIGHTS` weights; the message names the difference.
    """
    arrays = [(array.name, array.shape) for array in header.arrays]
    extra_names = [extra.name for extra in header.collections]
    # Before the network is traced: a file has to list as many layers as are traced.
    count = architecture.count_arrays(header.network)
    if len(arrays) + len(extra_names) != count:
        raise ArtefactError(
            f"lists {len(arrays) + len(extra_names)} arrays where its network has "
            f"{count}"
        )
    image_shape = header.description.image_shape
    try:
        collections = dict(architecture.array_shapes(net, image_shape))
    except (ValueError, TypeError, OverflowError) as error:
        raise ArtefactError(f"names a network that cannot be: {error}") from None
    params = collections.pop("params")
    extra_shapes = flax.traverse_util.flatten_dict(collections, sep="/")
    shapes = {name: extra_shapes[name] for name in sorted(extra_shapes)}
    for listed, wanted in zip(
        [*arrays, *extra_names], [*sorted(params.items()), *shapes], strict=True
    ):
        if listed != wanted:
            raise ArtefactError(
                f"has the array {schema.shorten(listed)} where its network has "
                f"{wanted!r}"
            )
    weights = sum(map(math.prod, (*params.values(), *shapes.values())))
    if weights > MOST_WEIGHTS:
        raise ArtefactError(f"holds {weights} weights, more than {MOST_WEIGHTS}")
    declared = sum(segment.bytes for segment in header.segments)
    if declared != body:
        raise ArtefactError(
            f"declares segments of {declared} bytes and holds {body} bytes of them"
        )
    return shapes
