"""Names for the leaves of a pytree of weights: choosing some, and putting them back."""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Select = Callable[[str], bool]


def kernels(name: str) -> bool:
    """Selects the kernels of a Flax network: leaves whose last path entry is `kernel`.

    Args:
      name: path of a leaf, entries joined by `/`.

    Returns:
      Whether the leaf is masked.
    """
    return name.rsplit("/", 1)[-1] == "kernel"


def named_leaves(weights: Any, select: Select) -> dict[str, jax.Array]:
    """Returns the selected leaves of a pytree by name, in the order of the tree.

    Args:
      weights: pytree of arrays.
      select: from the name of a leaf (path entries joined by `/`) to whether it counts.

    Returns:
      Name to leaf.

    Raises:
      ValueError: no leaf is selected, or a selected leaf is not floating point.
    """
    leaves = {_name(path): leaf for path, leaf in _flatten(weights)}
    chosen = {name: leaf for name, leaf in leaves.items() if select(name)}
    if not chosen:
        raise ValueError(
            f"init: select chooses none of the weights; the tree holds {list(leaves)}"
        )
    for name, leaf in chosen.items():
        dtype = getattr(leaf, "dtype", None)
        if dtype is None or not jnp.issubdtype(dtype, jnp.floating):
            raise ValueError(
                f"init: cannot mask {name!r} of dtype {dtype or type(leaf).__name__}; "
                "masked weights must be floating point arrays"
            )
    return chosen


def map_named(
    weights: Any,
    names: Mapping[str, Any],
    update: Callable[[str, jax.Array], jax.Array],
) -> Any:
    """Returns the tree with `update(name, leaf)` in the place of each named leaf.

    Args:
      weights: pytree of arrays.
      names: the names to update (a mapping's keys).
      update: from name and leaf to the new leaf.

    Returns:
      A pytree of the same structure; leaves not named are the same objects.

    Raises:
      KeyError: a name is not in the tree.
    """
    held = {_name(path): None for path, _ in _flatten(weights)}
    for name in names:
        if name not in held:
            raise KeyError(
                f"effective_weights: no weight at {name!r}; the tree holds {list(held)}"
            )

    def visit(path: Any, leaf: jax.Array) -> jax.Array:
        name = _name(path)
        return update(name, leaf) if name in names else leaf

    return jax.tree_util.tree_map_with_path(visit, weights)


def split_by_name(key: jax.Array, names: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Returns a PRNG key of its own for each name: equal shapes draw unequal masks.

    Args:
      key: PRNG key, consumed by this call.
      names: a mapping's keys, in any order.

    Returns:
      Name to PRNG key.
    """
    ordered = sorted(names)
    return dict(zip(ordered, jax.random.split(key, len(ordered)), strict=True))


def _flatten(weights: Any) -> list[tuple[Any, Any]]:
    return jax.tree_util.tree_flatten_with_path(weights)[0]


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator="/")
