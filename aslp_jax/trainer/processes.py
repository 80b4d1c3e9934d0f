"""Processes of a run: what they tell one another, and what the first does alone.

All processes take the same steps and hold the same values, or each a part of them; the
first one alone reads and writes the run folder. In a run of one process every function
returns at once.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Sharding

from aslp_jax import _sharding

__all__ = [
    "every_process",
    "is_first",
    "of_first",
    "place",
    "text_of_first",
    "to_first",
]


def is_first() -> bool:
    """Returns True in the process that reads and writes the run folder."""
    return jax.process_index() == 0


def every_process(numbers: Sequence[int] | np.ndarray) -> np.ndarray:
    """Returns the numbers of every process; all must call this.

    Args:
      numbers: as many in each process, each in the range of int32.

    Returns:
      Array `[processes, numbers]`, int32.
    """
    own = np.asarray(numbers, np.int32)
    if jax.process_count() == 1:
        return own[None]
    return np.asarray(multihost_utils.process_allgather(own))


def of_first(tree: Any) -> Any:
    """Returns the arrays of the first process, bit for bit; all must call this.

    Args:
      tree: pytree of NumPy arrays, of the same structure, shapes and dtypes in each
        process.

    Returns:
      Pytree of NumPy arrays.
    """
    if jax.process_count() == 1:
        return tree

    def send(array: np.ndarray) -> np.ndarray:
        # As bytes, because JAX would make 32 bits of 64.
        sent = multihost_utils.broadcast_one_to_all(
            np.frombuffer(array.tobytes(), np.uint8)
        )
        return np.frombuffer(sent.tobytes(), array.dtype).reshape(array.shape)

    return jax.tree.map(send, tree)


def to_first(tree: Any) -> Any:
    """Returns arrays on the host of the first process; all must call this.

    Args:
      tree: pytree of arrays, whose parts may lie in several processes.

    Returns:
      Pytree of NumPy arrays in the first process; of None in the others, which gather
      one array at a time. In a run of one process, `tree` as it is.
    """
    if jax.process_count() == 1:
        return tree

    def fetch(leaf: Any) -> Any:
        if is_first():
            return _sharding.on_host(leaf)
        if not _sharding.is_in_reach(leaf):
            _sharding.on_host(leaf)  # lends its parts
        return None

    return jax.tree.map(fetch, tree)


def text_of_first(text: str) -> str:
    """Returns the text of the first process; all must call this.

    Args:
      text: text; only that of the first process matters.
    """
    content = text.encode()
    length = int(every_process([len(content)])[0, 0])
    padded = np.zeros(length, np.uint8)
    if is_first():
        padded = np.frombuffer(content, np.uint8)
    return np.asarray(of_first(padded)).tobytes().decode()


def place(tree: Any, sharding: Sharding) -> Any:
    """Returns arrays in a sharding that may span processes.

    Args:
      tree: pytree of arrays, the same in each process.
      sharding: sharding of every array.
    """
    if sharding.is_fully_addressable:
        return jax.device_put(tree, sharding)

    def put(leaf: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, sharding)
        # `device_put` would send each array to every process, to compare them.
        return jax.make_array_from_callback(
            np.shape(leaf), sharding, lambda index: leaf[index]
        )

    return jax.tree.map(put, tree)
