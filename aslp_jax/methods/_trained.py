"""Trees of which a method trains the float arrays and leaves the rest as it is."""

from typing import Any

import jax
import jax.numpy as jnp

OTHERS = "others"
"""Name under which frozen arrays hold what is not trained, where there is any."""


def split(tree: Any) -> tuple[Any, dict[str, Any]]:
    """Splits a tree into the float arrays and everything else.

    Counters, PRNG keys, functions, strings and Python numbers have no gradient or are
    no weights.

    Args:
      tree: pytree.

    Returns:
      Tree with None in the places of the other leaves; and `{"others": tree}` with None
      in the places of the float arrays, or `{}` if there are no other leaves.
    """
    trained = jax.tree.map(lambda leaf: leaf if _is_float(leaf) else None, tree)
    if all(map(_is_float, jax.tree.leaves(tree))):
        return trained, {}
    others = jax.tree.map(lambda leaf: None if _is_float(leaf) else leaf, tree)
    return trained, {OTHERS: others}


def merge(trained: Any, frozen: Any) -> Any:
    """Returns the tree of both parts, the float arrays and the frozen others.

    Args:
      trained: tree of float arrays from `split`.
      frozen: dict that holds the rest under `OTHERS`, if there is any.
    """
    if OTHERS not in frozen:
        return trained
    return jax.tree.map(
        lambda leaf, other: other if leaf is None else leaf,
        trained,
        frozen[OTHERS],
        is_leaf=lambda node: node is None,
    )


def _is_float(leaf: Any) -> bool:
    # Without a shape it is a number of Python, an option of a layer.
    dtype = getattr(leaf, "dtype", None) if hasattr(leaf, "shape") else None
    return dtype is not None and jnp.issubdtype(dtype, jnp.floating)
