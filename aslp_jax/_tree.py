"""Names of the leaves of a pytree: selecting leaves, replacing them, keys by name."""

import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

Select = Callable[[str], bool]
"""Function from the name of a leaf to True if the leaf is masked."""


def kernels(name: str) -> bool:
    """Selects the kernels of a Flax network: leaves whose last path entry is `kernel`.

    Args:
      name: path of a leaf, entries joined by `/`.

    Returns:
      True if the leaf is masked.
    """
    return name.rsplit("/", 1)[-1] == "kernel"


def path_name(path: Any) -> str:
    """Returns the name of a leaf: the entries of its path, joined by `/`.

    Args:
      path: path of the leaf, from `jax.tree_util`.

    Returns:
      A name such as `"Conv_0/kernel"`.
    """
    return jax.tree_util.keystr(path, simple=True, separator="/")


def leaf_paths(tree: Any) -> list[tuple[str, ...]]:
    """Returns the path of each leaf of a pytree, as strings, in the order of the tree.

    Args:
      tree: pytree of arrays.

    Returns:
      Paths; joined by `/` they are the names of `named_leaves`.
    """
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    return [tuple(path_name((entry,)) for entry in path) for path, _ in flat]


def named_leaves(tree: Any, select: Select | None = None) -> dict[str, Any]:
    """Returns the leaves of a pytree by name, in the order of the tree.

    Args:
      tree: pytree of arrays.
      select: function from the name of a leaf to True if it is masked; masked leaves
        are checked. Default: every leaf, unchecked.

    Returns:
      Name to leaf.

    Raises:
      ValueError: `select` chooses no leaf, or one that is not floating point.
    """
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = {path_name(path): leaf for path, leaf in flat}
    if select is None:
        return leaves
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
    tree: Any,
    names: Mapping[str, Any],
    update: Callable[[str, jax.Array], jax.Array],
) -> Any:
    """Returns the tree with each named leaf replaced by `update(name, leaf)`.

    Args:
      tree: pytree of arrays.
      names: mapping whose keys are the names of the leaves to replace.
      update: function from name and leaf to the new leaf.

    Returns:
      Pytree of the same structure; leaves without a name in `names` are the same
      objects.

    Raises:
      KeyError: a name is not in the tree.
    """
    leaves = named_leaves(tree)
    for name in names:
        if name not in leaves:
            raise KeyError(
                f"effective_weights: no weight at {name!r}; the tree holds "
                f"{list(leaves)}"
            )

    def visit(path: Any, leaf: jax.Array) -> jax.Array:
        name = path_name(path)
        return update(name, leaf) if name in names else leaf

    return jax.tree_util.tree_map_with_path(visit, tree)


def split_by_name(key: jax.Array, names: Mapping[str, Any]) -> dict[str, jax.Array]:
    """Splits a PRNG key into one for each name: equal shapes get unequal masks.

    Args:
      key: PRNG key, consumed by this call.
      names: mapping whose keys are the names, in any order.

    Returns:
      Name to PRNG key.
    """
    ordered = sorted(names)
    return dict(zip(ordered, jax.random.split(key, len(ordered)), strict=True))


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the PRNG key of a named stream, independent of all other streams.

    Args:
      key: PRNG key; other calls may use it for other names.
      name: name of the stream.

    Returns:
      PRNG key.
    """
    return jax.random.fold_in(key, zlib.crc32(name.encode()))
