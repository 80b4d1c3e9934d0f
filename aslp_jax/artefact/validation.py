"""Whether what a header lists is what its network has, and fits the file."""

import math

import flax.linen as nn
import flax.traverse_util

from aslp_jax.artefact import architecture, schema
from aslp_jax.artefact.container import ArtefactError
from aslp_jax.artefact.header import MOST_WEIGHTS, Header


def check(header: Header, net: nn.Module, body: int) -> dict[str, tuple[int, ...]]:
    """Compares names, shapes and lengths with the network and the file.

    Args:
      header: what the file says.
      net: that it names.
      body: bytes behind the header.

    Returns:
      Shapes of what is no parameter, by collection and name joined by `/`.

    Raises:
      ArtefactError: naming what differs, or more weights than `MOST_WEIGHTS`.
    """
    listed = [(array.name, array.shape) for array in header.arrays]
    held = [each.name for each in header.collections]
    # Before the network is traced, so that many layers take a file that lists them.
    count = architecture.count_arrays(header.network)
    if len(listed) + len(held) != count:
        raise ArtefactError(
            f"lists {len(listed) + len(held)} arrays where its network has {count}"
        )
    try:
        collections = dict(architecture.shapes_of(net, header.description.image_shape))
    except (ValueError, TypeError, OverflowError) as error:
        raise ArtefactError(f"names a network that cannot be: {error}") from None
    params = collections.pop("params")
    rest = flax.traverse_util.flatten_dict(collections, sep="/")
    shapes = {name: rest[name] for name in sorted(rest)}
    for found, wanted in zip(
        [*listed, *held], [*sorted(params.items()), *shapes], strict=True
    ):
        if found != wanted:
            raise ArtefactError(
                f"has the array {schema.shown(found)} where its network has {wanted!r}"
            )
    weights = sum(map(math.prod, (*params.values(), *shapes.values())))
    if weights > MOST_WEIGHTS:
        raise ArtefactError(f"holds {weights} weights, more than {MOST_WEIGHTS}")
    declared = sum(section.bytes for section in header.sections)
    if declared != body:
        raise ArtefactError(
            f"declares sections of {declared} bytes and holds {body} bytes of them"
        )
    return shapes
