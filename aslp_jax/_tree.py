"""Names of the leaves of a pytree: selecting leaves, replacing them, keys by name."""

import sys
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from aslp_jax._checks import single_key

Select = Callable[[str], bool]
"""Function from the name of a leaf to True if the leaf is masked.

A leaf in a state of Flax NNX has two names, with and without the last entry `value`; it
is masked if either is.
"""


def kernels(name: str) -> bool:
    """Selects the kernels of a Flax network: leaves whose last path entry is `kernel`.

    Args:
      name: path of a leaf, entries joined by `/`.

    Returns:
      True if the leaf is masked.
    """
    return name.rsplit("/", 1)[-1] == "kernel"


def by_name(group: Any) -> dict[str, Any]:
    """Returns the arrays of a group of params by name, nested or not.

    A flat dict whose names hold `/` becomes nested if it is written with this
    separator and read again; the names stay what they were.

    Args:
      group: dict from name to array, or dicts in dicts.

    Returns:
      Name to array, in the order of the group.
    """
    if isinstance(group, Mapping) and not any(
        isinstance(each, Mapping) for each in group.values()
    ):
        return dict(group)
    return named_leaves(group)


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
      ValueError: two leaves have one name, or `select` chooses no leaf, or one that is
        not floating point.
    """
    flat = jax.tree_util.tree_flatten_with_path(tree)[0]
    leaves = {path_name(path): leaf for path, leaf in flat}
    if len(leaves) < len(flat):
        names = [path_name(path) for path, _ in flat]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(
            f"two leaves of the tree have the name {twice!r}, because a key holds '/'; "
            "rename one of them"
        )
    if select is None:
        return leaves
    chosen = {
        name: leaves[name]
        for name, own in zip(leaves, _selected_names(tree, flat), strict=True)
        if select(name) or select(own)
    }
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


def _selected_names(tree: Any, flat: list[tuple[Any, Any]]) -> list[str]:
    """Returns the names that `select` is asked for: an NNX variable has one itself.

    In a state of NNX the array of a variable lies one level below it, at `value`.
    """
    nnx = sys.modules.get("flax.nnx")  # if it is not loaded, no tree has variables
    below = jax.tree_util.GetAttrKey("value")
    variables: set[Any] = set()
    if nnx is not None and any(path[-1:] == (below,) for path, _ in flat):
        found = jax.tree_util.tree_flatten_with_path(
            tree, is_leaf=lambda node: isinstance(node, nnx.Variable)
        )[0]
        variables = {path for path, node in found if isinstance(node, nnx.Variable)}
    return [
        path_name(path[:-1] if path[:-1] in variables else path) for path, _ in flat
    ]


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
    key, ordered = single_key("split_by_name", key), sorted(names)
    return dict(zip(ordered, jax.random.split(key, len(ordered)), strict=True))


def stream(key: jax.Array, name: str) -> jax.Array:
    """Returns the PRNG key of a named stream, independent of all other streams.

    Args:
      key: PRNG key; other calls may use it for other names.
      name: name of the stream.

    Returns:
      PRNG key.
    """
    return jax.random.fold_in(single_key("stream", key), zlib.crc32(name.encode()))
