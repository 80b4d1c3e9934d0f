"""Modules of Flax NNX, recognised without an import of NNX for everyone else.

To import NNX takes about 0.15 s, which a program with a network of Linen need not wait.
"""

import sys
from typing import Any

__all__ = ["is_nnx"]


def is_nnx(value: Any) -> bool:
    """Returns True for an NNX module; there is none before NNX is imported.

    Args:
      value: anything.
    """
    nnx = sys.modules.get("flax.nnx")
    return nnx is not None and isinstance(value, nnx.Module)
